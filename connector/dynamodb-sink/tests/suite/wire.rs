//! The real SDK against `dynoxide-rs` over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Builder, Credentials};
use dynoxide::Database;
use millpond_connector::aws::AwsSettings;
use millpond_dynamodb_sink::client::aws::AwsTable;
use millpond_dynamodb_sink::client::{Capacity, TableApi};
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::table::prepare;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_sink::conformance::rules;
use millpond_sink::partition;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::crash::OnTheWire;
use crate::harness::{draining, pack, shared};
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
    let mut pages = client
        .scan()
        .table_name("events")
        .into_paginator()
        .items()
        .send();
    while let Some(item) = pages.next().await {
        let item = item.expect("item");
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
