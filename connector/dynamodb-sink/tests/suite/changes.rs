//! A restart with something changed while a plan was open. The table of ARCHITECTURE.md, row by row.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::connector::{ConnectorContext, Sink};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::config::SinkConfig;
use millpond_dynamodb_sink::form::Ttl;
use millpond_dynamodb_sink::form::extra::{Extra, Source};
use millpond_dynamodb_sink::form::zone::Edge;
use millpond_dynamodb_sink::mapping::pointer::Pointer;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_sink::conformance::events;
use millpond_sink::fingerprint::module_digests;
use millpond_sink::ledger::Intent;
use tokio_util::sync::CancellationToken;

use crate::checker::{check, read_letters};
use crate::harness::{MAX_ITEM_BYTES, config, draining, pack, until, until_within};
use crate::mapped::{event_of, mapping};
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

pub struct Setting {
    folder: tempfile::TempDir,
    pub table: MemoryTable,
    topic: MemoryTopic,
    workload: Workload,
}

impl Setting {
    pub fn new() -> Self {
        // What is poison depends on the parameters.
        Self::of(Shape {
            poison: 0,
            ..Shape::default()
        })
    }

    pub fn of(shape: Shape) -> Self {
        let topic = MemoryTopic::new(7);
        let mut workload = Workload::new(7, shape);
        for _ in 0..12 {
            workload.send(&topic);
        }
        Self {
            folder: tempfile::tempdir().expect("tempdir"),
            table: MemoryTable::new("t"),
            topic,
            workload,
        }
    }

    pub async fn run(&self, config: SinkConfig, drain: CancellationToken) -> Result<(), String> {
        let context = ConnectorContext {
            name: "sink".into(),
            topic: Arc::new(self.topic.clone()),
            data_dir: self.folder.path().to_owned(),
            drain,
            metrics: Arc::new(Metrics::default()),
        };
        let sink = Box::new(config.sink(Arc::new(self.table.clone()), None));
        sink.run(context)
            .await
            .map_err(|error| format!("{error:#}"))
    }

    pub fn intent(&self) -> Option<String> {
        let rows = self.table.scan();
        let intent = rows.iter().find_map(|row| row.string(names::INTENT));
        intent.map(str::to_owned)
    }

    /// Runs until a plan is open and a part of its items written, then dies.
    pub async fn dies_with_an_open_plan(&self, config: SinkConfig) {
        let items = || {
            let rows = self.table.scan();
            rows.iter()
                .filter(|row| row.key.pk.starts_with("p/"))
                .count()
        };
        let running = self.run(config, CancellationToken::new());
        tokio::select! {
            biased;
            ended = running => panic!("ended: {ended:?}"),
            () = until("an item is written", || items() > 0) => {}
        }
        assert!(self.intent().is_some(), "the plan is open");
    }

    /// Runs, with more and more to write, until the table is as it is to be, then dies.
    pub async fn dies_when(&mut self, config: SinkConfig, is_so: impl Fn(&[Row]) -> bool) {
        let (topic, workload) = (self.topic.clone(), &mut self.workload);
        let table = self.table.clone();
        let context = ConnectorContext {
            name: "sink".into(),
            topic: Arc::new(topic.clone()),
            data_dir: self.folder.path().to_owned(),
            drain: CancellationToken::new(),
            metrics: Arc::new(Metrics::default()),
        };
        let sink = Box::new(config.sink(Arc::new(table.clone()), None));
        let mut looks = 0;
        let missing = || {
            if is_so(&table.scan()) {
                return None;
            }
            if looks % 400 == 0 {
                workload.send(&topic);
            }
            looks += 1;
            Some("it never was".to_owned())
        };
        tokio::select! {
            biased;
            ended = sink.run(context) => panic!("ended: {ended:?}"),
            _ = until_within(Duration::from_secs(40), Duration::from_millis(1), missing) => {}
        }
    }

    /// Goes on with another configuration: everything is there once.
    pub async fn goes_on(&mut self, config: SinkConfig) {
        for _ in 0..4 {
            self.workload.send(&self.topic);
        }
        self.run(config, draining()).await.expect("goes on");
        assert_eq!(self.intent(), None);
        let letters = read_letters(&self.folder.path().join("dead-letters.jsonl"));
        check(&self.workload, &self.table.scan(), &letters, MAX_ITEM_BYTES);
    }
}

fn parameter(name: &str, value: &str) -> SinkConfig {
    let mut config = config(None);
    let with = &mut config.transforms[0].with;
    with.insert(name.to_owned(), value.to_owned());
    config
}

#[tokio::test(start_paused = true)]
async fn parameters_of_the_packer_may_change_though_a_plan_is_open() {
    for (name, value) in [
        ("group-by", "partition-key"),
        ("level", "3"),
        ("max-item-bytes", "9000"),
    ] {
        let mut setting = Setting::new();
        setting.dies_with_an_open_plan(config(None)).await;
        setting.goes_on(parameter(name, value)).await;
        // The next plan is written with the new parameters: they are what is kept now.
        let rows = setting.table.scan();
        let kept = rows
            .iter()
            .filter(|row| row.key.pk == "millpond:configurations/p");
        let texts: Vec<&str> = kept
            .filter_map(|row| row.string(names::CONFIGURATION))
            .collect();
        assert_eq!(texts.len(), 2, "{name}");
        assert!(texts.iter().any(|text| text.contains(value)), "{texts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_item_bytes_of_the_sink_may_change_though_a_plan_is_open() {
    let mut setting = Setting::new();
    setting.dies_with_an_open_plan(config(None)).await;
    let mut smaller = parameter("max-item-bytes", "9000");
    smaller.max_item_bytes = 9_000;
    setting.goes_on(smaller).await;
}

#[tokio::test(start_paused = true)]
async fn attributes_of_items_may_change_though_a_plan_is_open() {
    let mut setting = Setting::new();
    let mut first = config(None);
    first.form.ttl = Some(Ttl {
        after: Duration::from_secs(60),
        attribute: "ends".into(),
    });
    setting.dies_with_an_open_plan(first).await;
    let mut second = config(None);
    second.form.extras = vec![Extra {
        name: "job".into(),
        source: Source::GroupPart {
            index: 1,
            separator: "-".into(),
        },
    }];
    setting.goes_on(second).await;
    let items = setting.table.scan();
    let items = items.iter().filter(|row| row.key.pk.starts_with("p/"));
    let mut seen = [0, 0];
    for item in items {
        // The open plan as it was begun, what follows as it is now.
        match (item.integer("ends"), item.string("job")) {
            (Some(_), None) => seen[0] += 1,
            (None, Some(job)) => {
                assert!(item.key.pk.contains(&format!("job-{job}#")));
                seen[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// Bounds are of the settings that a plan was begun with; a replay writes the same ones.
#[tokio::test(start_paused = true)]
async fn bounds_of_fields_may_change_though_a_plan_is_open() {
    let bound = |name: &str| Extra {
        name: name.into(),
        source: Source::Bound {
            field: Pointer::parse("/id").expect("a pointer"),
            edge: Edge::Maximum,
        },
    };
    let mut setting = Setting::new();
    let mut first = config(None);
    first.form.extras = vec![bound("highest")];
    setting.dies_with_an_open_plan(first).await;
    let begun = setting.table.scan();
    let mut second = config(None);
    second.form.extras = vec![bound("top")];
    setting.goes_on(second).await;
    let after = setting.table.scan();
    let has = |name: &str| {
        after
            .iter()
            .filter(|row| row.attributes.contains_key(name))
            .count()
    };
    assert!(has("highest") > 0 && has("top") > 0);
    for row in begun.iter().filter(|row| row.key.pk.starts_with("p/")) {
        assert!(after.contains(row), "{:?}", row.key);
    }
}

/// Readers go by what the registration says, so it stays.
#[tokio::test(start_paused = true)]
async fn names_and_prefix_of_items_stay_for_as_long_as_the_pipeline_has_its_name() {
    let mut setting = Setting::new();
    let mut named = config(None);
    named.form.names = [(names::HEADER, "head".to_owned())].into_iter().collect();
    named.form.key_prefix = "events#".into();
    setting.workload.send(&setting.topic);
    setting
        .run(named.clone(), draining())
        .await
        .expect("writes");
    let rows = setting.table.scan();
    let items: Vec<_> = rows
        .iter()
        .filter(|row| !row.key.pk.starts_with("millpond:"))
        .collect();
    assert!(!items.is_empty());
    for item in &items {
        assert!(item.key.pk.starts_with("events#p/"), "{:?}", item.key);
        assert!(item.binary("head").is_some() && item.binary(names::HEADER).is_none());
    }
    let registration = rows
        .iter()
        .find(|row| row.key.pk == "millpond:pipelines")
        .expect("registered");
    assert_eq!(registration.integer(names::VERSION), Some(2));
    assert_eq!(registration.string(names::NAMES), Some(r#"{"h":"head"}"#));
    assert_eq!(registration.string(names::PREFIX), Some("events#"));
    let mut other_names = named.clone();
    other_names.form.names = Default::default();
    let mut other_prefix = named.clone();
    other_prefix.form.key_prefix = String::new();
    for changed in [other_names, other_prefix, config(None)] {
        let error = setting.run(changed, draining()).await.expect_err("refused");
        assert!(
            error.contains("`attribute-names` and `key-prefix` as they were"),
            "{error}"
        );
    }
    // The chains go on where they were: the state is read back from renamed headers.
    setting.workload.send(&setting.topic);
    setting.run(named, draining()).await.expect("goes on");
    let mut plain = setting.table.scan();
    for row in &mut plain {
        if let Some(pk) = row.key.pk.strip_prefix("events#") {
            row.key.pk = pk.to_owned();
        }
        if let Some(header) = row.attributes.remove("head") {
            row.attributes.insert(names::HEADER.to_owned(), header);
        }
    }
    plain.sort_by(|one, other| one.key.cmp(&other.key));
    let letters = read_letters(&setting.folder.path().join("dead-letters.jsonl"));
    check(&setting.workload, &plain, &letters, MAX_ITEM_BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_may_change_though_a_plan_is_open() {
    let mapped = |key: &str| {
        let mut mapped = config(None);
        mapped.transforms.clear();
        mapped.max_item_bytes = 409_600;
        mapped.form.mapping = Some(mapping(&format!(
            r#"{{"partition-key": "{key}/{{partition-key}}", "sort-key": "{{position}}",
                "attributes": {{"v": {{"type": "event"}}}}}}"#
        )));
        mapped
    };
    let mut setting = Setting::new();
    setting.dies_with_an_open_plan(mapped("p")).await;
    let to: u64 = {
        let intent = setting.intent().expect("open");
        let to = intent.split('/').nth(1).and_then(|to| to.parse().ok());
        to.expect("an offset")
    };
    for _ in 0..4 {
        setting.workload.send(&setting.topic);
    }
    setting.run(mapped("q"), draining()).await.expect("goes on");
    let mut chains: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for row in setting.table.scan() {
        if row.key.pk.starts_with("millpond:") {
            continue;
        }
        let (_, offset) = row.key.sk.split_once('-').expect("a position");
        let offset: u64 = offset.parse().expect("an offset");
        assert_eq!(row.key.pk.starts_with("p/"), offset < to, "{:?}", row.key);
        chains
            .entry(row.key.pk.clone())
            .or_default()
            .push(event_of(&row));
    }
    assert!(chains.keys().any(|pk| pk.starts_with("q/")));
    events::check(&setting.workload, &chains, &[]);
    // Packed items under the same name would be no part of it.
    let refused = setting.run(config(None), draining()).await;
    assert!(refused.is_err_and(|error| error.contains("mapped events")));
}

#[tokio::test(start_paused = true)]
async fn max_age_may_change_at_any_time() {
    let mut setting = Setting::new();
    setting.dies_with_an_open_plan(config(None)).await;
    let before = setting.intent().expect("open");
    let mut slower = config(None);
    slower.max_age = Duration::from_secs(200);
    slower.pace = PaceSettings::fixed(100_000);
    setting.goes_on(slower).await;
    let rows = setting.table.scan();
    let kept = rows
        .iter()
        .filter(|row| row.key.pk == "millpond:configurations/p");
    let fingerprints: Vec<&str> = kept.map(|row| row.key.sk.as_str()).collect();
    assert_eq!(fingerprints.len(), 1, "it is the same configuration");
    let open = Intent::parse(&before).expect("an intent");
    assert_eq!(open.fingerprint, fingerprints[0], "{before}");
}

#[tokio::test(start_paused = true)]
async fn a_module_may_be_put_before_the_packer_though_a_plan_is_open() {
    let mut setting = Setting::new();
    setting.dies_with_an_open_plan(config(None)).await;
    let mut filtered = config(None);
    let filter = Transform {
        uses: "filter.wasm".into(),
        with: [("without".to_owned(), "no event has this".to_owned())].into(),
    };
    filtered.transforms.insert(0, filter);
    setting.goes_on(filtered).await;
}

fn with_module(path: &Path) -> SinkConfig {
    let mut config = config(None);
    config.transforms = pack();
    config.transforms[0].uses = path.display().to_string();
    config.digests = module_digests(&config.transforms);
    config
}

/// The bytes of the old module are not in the table: then only it can finish its plan.
#[tokio::test(start_paused = true)]
async fn another_module_file_is_refused_until_the_open_plan_is_finished() {
    let mut setting = Setting::new();
    let path = setting.folder.path().join("pack.wasm");
    std::fs::write(&path, "one").expect("writes");
    setting.dies_with_an_open_plan(with_module(&path)).await;
    let before = setting.table.scan();
    std::fs::write(&path, "another").expect("writes");
    let error = setting.run(with_module(&path), draining()).await;
    let error = error.expect_err("refused");
    for part in [
        "the old one cannot be used",
        "SmartModule file is another",
        "Start once with",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let items = |rows: &[millpond_dynamodb_sink::row::Row]| {
        let items = rows.iter().filter(|row| row.key.pk.starts_with("p/"));
        items.cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        items(&setting.table.scan()),
        items(&before),
        "nothing was touched"
    );
    // Under another name the new module is no obstacle: the old one is still there.
    let newer = setting.folder.path().join("newer").join("pack.wasm");
    std::fs::create_dir(newer.parent().expect("folder")).expect("creates");
    std::fs::write(&newer, "another").expect("writes");
    std::fs::write(&path, "one").expect("writes");
    setting.goes_on(with_module(&newer)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_under_a_new_name_is_refused_unless_it_is_meant() {
    let mut setting = Setting::new();
    setting.goes_on(config(None)).await;
    let mut renamed = config(None);
    renamed.pipeline = "q".into();
    let before = setting.table.scan();
    let error = setting.run(renamed.clone(), draining()).await;
    let error = error.expect_err("refused");
    for part in [
        "pipeline `q` is new in table `t`",
        "pipeline `p`",
        "`beside: [p]`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(setting.table.scan(), before, "nothing was written");
    renamed.beside = vec!["p".into()];
    setting
        .run(renamed.clone(), draining())
        .await
        .expect("meant");
    // Once it is there it need not be said again; nor must the first one say anything.
    renamed.beside = Vec::new();
    setting.run(renamed, draining()).await.expect("known");
    setting.run(config(None), draining()).await.expect("known");
}

#[tokio::test(start_paused = true)]
async fn another_number_of_topic_partitions_is_refused() {
    let mut setting = Setting::new();
    setting.goes_on(config(None)).await;
    let rows = setting.table.scan();
    let registry = rows.iter().find(|row| row.key.pk == "millpond:pipelines");
    let registry = registry.expect("registered").clone();
    let four = millpond_dynamodb_sink::row::Value::N(4);
    setting.table.plant(registry.with(names::PARTITIONS, four));
    let error = setting.run(config(None), draining()).await;
    let error = error.expect_err("refused");
    for part in [
        "4 topic partitions",
        "topic `events` has 1",
        "another name under `pipeline`",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
