//! The real SDK against `dynoxide-rs` over HTTP.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Builder, Credentials};
use aws_sdk_dynamodb::types::AttributeValue;
use dynoxide::Database;
use millpond_connector::aws::AwsSettings;
use millpond_connector::wall;
use millpond_dynamodb_sink::client::aws::AwsTable;
use millpond_dynamodb_sink::client::{Capacity, TableApi, Verdict};
use millpond_dynamodb_sink::row::{Key, KeyNames, Row, Value};
use millpond_dynamodb_sink::store::Tables;
use millpond_dynamodb_sink::table::prepare;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_leases::{DynamoStore, LeaseStore, Settings};
use millpond_sink::claim::{Claim, LOOK_AGAIN, Moment, StaleWrites};
use millpond_sink::conformance::rules;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::partition;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::checker::check;
use crate::crash::OnTheWire;
use crate::harness::{MAX_ITEM_BYTES, config, draining, pack, shared, until};
use crate::instances::{Instance, Pipeline, folder, of_partition};
use crate::rules::assert_rules;
use crate::topic::MemoryTopic;
use crate::workload::{Shape, Workload};

/// A DynamoDB stand-in on loopback; [`Server::stop`] ends it.
pub struct Server {
    pub url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let db = Database::memory().expect("database");
        let task = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, db, async {
            let _ = stopped.await;
        }));
        Self { url, stop, task }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("server").expect("server");
    }
}

pub async fn client(url: &str) -> Client {
    let settings = AwsSettings {
        region: Some("eu-central-1".into()),
        endpoint: Some(url.to_owned()),
        profile: None,
    };
    let sdk = settings.load().await.expect("configuration");
    let credentials = Credentials::new("test", "test", None, None, "test");
    Client::from_conf(
        Builder::from(&sdk)
            .credentials_provider(credentials)
            .build(),
    )
}

pub fn table(client: &Client, name: &str) -> Arc<dyn TableApi> {
    Arc::new(AwsTable::new(
        client.clone(),
        name.into(),
        KeyNames::default(),
    ))
}

#[tokio::test]
async fn the_table_on_the_wire_keeps_the_rules() {
    let server = Server::start().await;
    let client = client(&server.url).await;
    assert_rules(&*table(&client, "rules")).await;
    let api = table(&client, "store");
    let writer = TableWriter::new(api.clone(), KeyNames::default(), None, Arc::default());
    prepare(&writer, Some(Capacity::OnDemand))
        .await
        .expect("table");
    rules::assert_rules(&OnTheWire(api)).await;
    drop((client, writer));
    server.stop().await;
}

/// A process can be paused between its look and the signature, so it is asked once more behind that.
#[tokio::test]
async fn what_a_writer_signed_too_long_after_its_look_is_not_sent() {
    let server = Server::start().await;
    let client = client(&server.url).await;
    let api = table(&client, "events");
    let folder = tempfile::tempdir().expect("tempdir");
    let topic = MemoryTopic::new(1);
    let process = shared("o", api.clone(), &topic, pack(), folder.path());
    let writer = TableWriter::new(api.clone(), KeyNames::default(), None, Arc::default());
    prepare(&writer, Some(Capacity::OnDemand))
        .await
        .expect("table");
    let looked = SystemTime::UNIX_EPOCH;
    wall::set_on_this_thread(looked);
    let ledger = LedgerRow::claim(None, "o", 0, None).row;
    let claim = Claim::new(process.store.clone(), 0, &ledger, Moment::now());
    let (pk, sk) = ("p".to_owned(), "s".to_owned());
    let row = Arc::new(Row::new(Key { pk, sk }).with("a", Value::S("b".into())));
    let rows = [row.clone()];

    wall::set_on_this_thread(looked + LOOK_AGAIN + Duration::from_secs(1));
    let refused = api.batch_write_under(&rows, &claim).await;
    assert_eq!(refused.expect_err("sent").verdict, Verdict::Unsent);
    assert_eq!(api.get(&row.key).await.expect("answers"), None);

    wall::set_on_this_thread(looked);
    let written = api.batch_write_under(&rows, &claim).await.expect("written");
    assert!(written.unprocessed.is_empty());
    assert!(api.get(&row.key).await.expect("answers").is_some());
    drop((client, writer, api, process));
    server.stop().await;
}

#[tokio::test]
async fn what_the_server_bills_is_what_we_compute_and_every_event_is_there() {
    let server = Server::start().await;
    let client = client(&server.url).await;
    let api = table(&client, "events");
    let folder = tempfile::tempdir().expect("tempdir");
    let topic = MemoryTopic::new(1);
    let mut workload = Workload::new(1, Shape::default());
    let process = Arc::new(shared("o", api.clone(), &topic, pack(), folder.path()));
    let writer = TableWriter::new(api.clone(), KeyNames::default(), None, Arc::default());
    prepare(&writer, Some(Capacity::OnDemand))
        .await
        .expect("table");
    for _ in 0..2 {
        for _ in 0..20 {
            workload.send(&topic);
        }
        partition::run(process.clone(), 0, draining())
            .await
            .expect("drained");
    }
    let metrics = &process.metrics;
    assert_eq!(
        metrics.write_units_reported_milli.get(),
        (metrics.write_units_items.get() + metrics.write_units_overhead.get()) * 1_000,
    );
    assert!(metrics.commits.get() >= 2 && metrics.duplicates_dropped.get() > 0);
    let poison = workload.sent().filter(|event| event.is_poison).count() as u64;
    let events = workload.sent().count() as u64 - poison;
    assert_eq!(
        (metrics.sink_events.get(), metrics.dead_letters.get()),
        (events, poison)
    );

    let mut found: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut decoder = millpond_format::frame::FrameDecoder::new().expect("zstd");
    for item in scan(&client, "events").await {
        let blob = |name: &str| item.get(name).and_then(|value| value.as_b().ok());
        let (Some(header), Some(frames)) = (blob("h"), blob("d")) else {
            continue;
        };
        let (header, _) = millpond_format::header::Header::decode(header.as_ref()).expect("header");
        if !matches!(header.kind, millpond_format::header::Kind::Events) {
            continue;
        }
        for (info, range) in header.frame_ranges() {
            let frame = decoder
                .decode(header.codec, info, &frames.as_ref()[range])
                .expect("frame");
            for event in &frame.events {
                *found.entry(frame.value(event).to_vec()).or_default() += 1;
            }
        }
    }
    let whole = workload
        .sent()
        .filter(|event| !event.is_poison && event.value.len() < 15_000);
    for event in whole {
        assert_eq!(
            found.get(&event.value),
            Some(&1),
            "{}",
            String::from_utf8_lossy(&event.value)
        );
    }
    drop((api, client, process));
    server.stop().await;
}

/// Two sinks with tables and leases on the wire; one crashes, the other one goes on with all.
#[tokio::test]
async fn sinks_on_the_wire_take_over_from_a_dead_one() {
    let server = Server::start().await;
    let client = client(&server.url).await;
    let pipeline = Pipeline::new(7, 2, Duration::ZERO);
    let topic = &pipeline.topic;
    let mut workloads = [1, 2].map(|seed| {
        Workload::new(
            seed,
            Shape {
                poison: 0,
                ..Shape::default()
            },
        )
    });
    let start = |folder: &Path| {
        let leases = client.clone();
        let tables = Tables {
            data: table(&client, "events"),
            dead_letters: None,
            ledger: Some(table(&client, "ledger")),
            leases: Some(Box::new(move |place| {
                let (pipeline, topic) = (&place.pipeline, &place.topic);
                Arc::new(DynamoStore::new(
                    leases, "ledger", "pk", "sk", pipeline, topic,
                ))
            })),
            stale_writes: StaleWrites::LOCAL,
        };
        let mut config = config(Some(Capacity::OnDemand));
        config.sharing.timings = Settings::new(Settings::MIN).expect("allowed");
        Instance::start(config.sink_on(tables), topic, folder)
    };
    let folders = [folder(), folder()];
    let one = start(folders[0].path());
    until("one has both", || one.held() == 2).await;
    let two = start(folders[1].path());
    until("each has one", || (one.held(), two.held()) == (1, 1)).await;
    let mut send = || {
        for (workload, topic) in workloads.iter_mut().zip(&topic.0) {
            workload.send(topic);
        }
    };
    for _ in 0..10 {
        send();
    }
    until("something is written", || one.metrics.items.get() > 0).await;
    one.crash("on the wire").await;
    until("the other has both", || two.held() == 2).await;
    send();
    two.drain("on the wire").await;

    let items: Vec<Row> = scan(&client, "events").await.iter().map(row).collect();
    for (partition, workload) in workloads.iter().enumerate() {
        let rows = of_partition(&items, partition);
        check(workload, &rows, &[], MAX_ITEM_BYTES);
    }
    let leases = DynamoStore::new(client.clone(), "ledger", "pk", "sk", "p", "events");
    let view = leases.view().await.expect("view");
    assert!(
        view.leases.values().all(|row| row.owner.is_none()),
        "{view:?}"
    );
    drop((client, leases));
    server.stop().await;
}

pub async fn scan(client: &Client, table: &str) -> Vec<HashMap<String, AttributeValue>> {
    let pages = client.scan().table_name(table).into_paginator();
    let items = pages.items().send().collect::<Result<Vec<_>, _>>().await;
    items.expect("items")
}

fn row(item: &HashMap<String, AttributeValue>) -> Row {
    let text = |name: &str| item[name].as_s().expect("a key").clone();
    let key = Key {
        pk: text("pk"),
        sk: text("sk"),
    };
    let others = item
        .iter()
        .filter(|(name, _)| *name != "pk" && *name != "sk");
    others.fold(Row::new(key), |row, (name, value)| {
        let value = match value {
            AttributeValue::S(text) => Value::S(text.clone()),
            AttributeValue::N(number) => Value::N(number.parse().expect("an integer")),
            AttributeValue::B(blob) => Value::B(blob.clone().into_inner().into()),
            other => panic!("{other:?}"),
        };
        row.with(name, value)
    })
}
