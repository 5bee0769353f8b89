//! Mapped events through the real SDK: every type as the service holds it, and what it refuses.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::client::Capacity;
use millpond_dynamodb_sink::form::{ItemForm, Ttl};
use millpond_dynamodb_sink::mapping::Mapping;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::store::TableStore;
use millpond_dynamodb_sink::table::prepare;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_sink::conformance::storm::{LETTERS, shared};
use millpond_sink::partition;
use serde_json::json;

use crate::harness::{draining, store};
use crate::mapped::mapping;
use crate::topic::MemoryTopic;
use crate::wire::{Server, client, scan, table};

/// Sends events, one batch a slice, each batch a process of its own; answers its counters.
struct Bench {
    server: Server,
    client: aws_sdk_dynamodb::Client,
    topic: MemoryTopic,
    folder: tempfile::TempDir,
    sent: usize,
}

impl Bench {
    async fn new() -> Self {
        let server = Server::start().await;
        let client = client(&server.url).await;
        let writer = TableWriter::new(
            table(&client, "items"),
            KeyNames::default(),
            None,
            Arc::default(),
        );
        let prepared = prepare(&writer, Some(Capacity::OnDemand)).await;
        prepared.expect("table");
        Self {
            server,
            client,
            topic: MemoryTopic::new(1),
            folder: tempfile::tempdir().expect("tempdir"),
            sent: 0,
        }
    }

    async fn send(&mut self, mapping: &Arc<Mapping>, events: &[serde_json::Value]) -> Arc<Metrics> {
        let records: Vec<_> = events
            .iter()
            .map(|event| {
                let at = self.sent;
                self.sent += 1;
                let key = format!(
                    "mp1/s/a/{}/0/{}/1.{at}/k",
                    at + 1,
                    1_763_886_000_000 + at as i64
                );
                (key, event.to_string().into_bytes())
            })
            .collect();
        for batch in records.chunks(1_000) {
            self.topic.push(batch);
        }
        let metrics = Arc::new(Metrics::default());
        let store = TableStore {
            form: ItemForm {
                mapping: Some(mapping.clone()),
                ttl: Some(Ttl {
                    after: std::time::Duration::from_secs(60),
                    attribute: "ends".into(),
                }),
                ..ItemForm::default()
            },
            max_item_bytes: 409_600,
            ..store(table(&self.client, "items"), metrics.clone())
        };
        let folder = self.folder.path();
        let process = shared(
            "o",
            Arc::new(store),
            metrics.clone(),
            &self.topic,
            vec![],
            folder,
        );
        let run = partition::run(Arc::new(process), 0, draining());
        run.await.expect("drained");
        metrics
    }

    async fn items(&self) -> Vec<HashMap<String, AttributeValue>> {
        let mut items = scan(&self.client, "items").await;
        items.retain(|item| !item["pk"].as_s().expect("text").starts_with("millpond:"));
        items
    }

    fn letters(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join(LETTERS));
        let text = text.unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect()
    }

    async fn stop(self) {
        drop((self.client, self.topic));
        self.server.stop().await;
    }
}

#[tokio::test]
async fn every_type_is_in_the_table_as_it_should_be() {
    let mapping = mapping(
        r#"{"partition-key": "{/id}", "sort-key": "{position}", "attributes": {
            "string": {"type": "string"}, "number": {"type": "number"}, "flag": {"type": "boolean"},
            "binary": {"type": "binary"}, "list": {"type": "list"}, "map": {"type": "map"},
            "words": {"type": "string-set"}, "numbers": {"type": "number-set"},
            "blobs": {"type": "binary-set"}, "inner": {"from": "/map/a"}, "none": {"required": false},
            "label": {"template": "{partition-key}/{/id}"}}}"#,
    );
    let mut bench = Bench::new().await;
    let event = json!({
        "id": "a", "string": "", "number": 12.50, "flag": false, "binary": "AP8=",
        "list": [1, [true, null], {"x": "y"}], "map": {"a": {"b": [2]}},
        "words": ["b", "a", "a"], "numbers": [1, "2.5"], "blobs": ["AA=="],
    });
    let metrics = bench.send(&mapping, &[event]).await;
    assert_eq!((metrics.items.get(), metrics.dead_letters.get()), (1, 0));
    // What the server bills is what was computed.
    assert_eq!(
        metrics.write_units_reported_milli.get(),
        (metrics.write_units_items.get() + metrics.write_units_overhead.get()) * 1_000,
    );
    let n = |text: &str| AttributeValue::N(text.into());
    let s = |text: &str| AttributeValue::S(text.into());
    let map = |name: &str, value| AttributeValue::M(HashMap::from([(name.to_owned(), value)]));
    let inner = map("b", AttributeValue::L(vec![n("2")]));
    let blob = |bytes: &[u8]| aws_sdk_dynamodb::primitives::Blob::new(bytes);
    let mut items = bench.items().await;
    let mut item = items.pop().expect("an item");
    assert!(items.is_empty());
    for name in ["words", "numbers"] {
        match item.get_mut(name) {
            Some(AttributeValue::Ss(set) | AttributeValue::Ns(set)) => set.sort(),
            other => panic!("{other:?}"),
        }
    }
    let list = vec![
        n("1"),
        AttributeValue::L(vec![AttributeValue::Bool(true), AttributeValue::Null(true)]),
        map("x", s("y")),
    ];
    for (name, value) in [
        ("pk", s("a")),
        ("sk", s("00000-0000000000000000000")),
        ("string", s("")),
        ("number", n("12.5")),
        ("flag", AttributeValue::Bool(false)),
        ("binary", AttributeValue::B(blob(&[0, 0xff]))),
        ("list", AttributeValue::L(list)),
        ("map", map("a", inner.clone())),
        ("words", AttributeValue::Ss(vec!["a".into(), "b".into()])),
        (
            "numbers",
            AttributeValue::Ns(vec!["1".into(), "2.5".into()]),
        ),
        ("blobs", AttributeValue::Bs(vec![blob(&[0])])),
        ("inner", inner),
        ("label", s("k/a")),
        ("ends", n("1763886060")),
    ] {
        assert_eq!(item.remove(name), Some(value), "{name}");
    }
    assert!(item.is_empty(), "{item:?}");
    bench.stop().await;
}

#[tokio::test]
async fn conditions_on_the_wire_keep_the_winner() {
    let at = |time: i64, note: &str| json!({"id": "x", "at": time, "note": note});
    for (same_key, kept) in [("first-wins", "one"), ("last-wins", "three")] {
        let mapping = mapping(&format!(
            r#"{{"partition-key": "{{/id}}", "sort-key": "s", "event-time": "/at",
                "same-key": "{same_key}", "order-attribute": "o", "attributes": {{"note": {{}}}}}}"#,
        ));
        let mut bench = Bench::new().await;
        let first = [at(5, "one"), at(3, "two")];
        let metrics = bench.send(&mapping, &first).await;
        assert_eq!(
            (metrics.items.get(), metrics.events_superseded.get()),
            (1, 1)
        );
        let metrics = bench.send(&mapping, &[at(6, "three")]).await;
        let wins = same_key == "last-wins";
        assert_eq!(metrics.items.get(), u64::from(wins));
        assert_eq!(metrics.events_superseded.get(), u64::from(!wins));
        bench.send(&mapping, &[at(4, "four")]).await;
        let items = bench.items().await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0]["note"].as_s().map(String::as_str), Ok(kept));
        bench.stop().await;
    }
}

/// The table itself has the last word: what it refuses costs the one event.
#[tokio::test]
async fn what_the_table_refuses_is_one_letter_among_ten_thousand() {
    let mapping =
        mapping(r#"{"partition-key": "{/id}", "sort-key": "{position}", "attributes": {"m": {}}}"#);
    let mut bench = Bench::new().await;
    let mut events: Vec<_> = (0..10_000)
        .map(|n| json!({"id": n, "m": {"n": n}}))
        .collect();
    // No name of a member is empty in DynamoDB.
    events[4_711]["m"] = json!({"": 1});
    let metrics = bench.send(&mapping, &events).await;
    assert_eq!(
        (metrics.items.get(), metrics.dead_letters.get()),
        (9_999, 1)
    );
    assert_eq!(bench.items().await.len(), 9_999);
    let letters = bench.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["reason"], "item-refused");
    assert_eq!(letters[0]["offset"], 4_711);
    bench.stop().await;
}
