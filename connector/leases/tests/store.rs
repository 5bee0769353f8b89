//! The same assertions on the store in memory and on the wire against `dynoxide-rs`.
#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Builder, Credentials};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use dynoxide::Database;
use millpond_connector::aws::AwsSettings;
use millpond_leases::{
    Beat, Change, Coordinator, Decision, DynamoStore, LeaseId, LeaseRow, LeaseStore, MemoryStore,
    Outcome, Settings, StoreError, WorkerId,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    client: Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let (stop, stopped) = oneshot::channel::<()>();
        let db = Database::memory().expect("database");
        let task = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, db, async {
            let _ = stopped.await;
        }));
        let settings = AwsSettings {
            region: Some("eu-central-1".into()),
            endpoint: Some(url),
            profile: None,
        };
        let sdk = settings.load().await.expect("configuration");
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = Builder::from(&sdk).credentials_provider(credentials);
        let client = Client::from_conf(config.build());
        Self { client, stop, task }
    }

    async fn create(&self) {
        let mut call = self.client.create_table().table_name("events");
        for (name, role) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
            let key = KeySchemaElement::builder().attribute_name(name);
            let kind = AttributeDefinition::builder().attribute_name(name);
            let kind = kind.attribute_type(ScalarAttributeType::S);
            call = call
                .key_schema(key.key_type(role).build().expect("key"))
                .attribute_definitions(kind.build().expect("definition"));
        }
        let call = call.billing_mode(BillingMode::PayPerRequest);
        call.send().await.expect("table");
    }

    fn store(&self, pipeline: &str) -> DynamoStore {
        DynamoStore::new(
            self.client.clone(),
            "events",
            "pk",
            "sk",
            pipeline,
            "clicks",
        )
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("server").expect("server");
    }
}

fn row(epoch: u64, owner: Option<&str>, wanted_by: Option<&str>) -> LeaseRow {
    LeaseRow {
        epoch,
        owner: owner.map(WorkerId::new),
        wanted_by: wanted_by.map(WorkerId::new),
    }
}

async fn assert_rules(store: &dyn LeaseStore, other_pipeline: &dyn LeaseStore) {
    use Outcome::{Applied, Refused};
    let lease = |seen: Option<LeaseRow>, new: LeaseRow| Change::Lease {
        id: LeaseId::new("0"),
        seen,
        new,
    };
    let worker = |seen: Option<u64>, new: Option<u64>| Change::Worker {
        id: WorkerId::new("a"),
        seen: seen.map(|count| Beat { session: 1, count }),
        new: new.map(|count| Beat { session: 1, count }),
    };
    let free = row(1, None, None);
    let held = row(2, Some("a"), None);
    let wanted = row(2, Some("a"), Some("b"));
    let released = row(2, None, Some("b"));
    let cases = [
        (worker(None, Some(0)), Applied),
        (worker(None, Some(0)), Refused),
        (worker(Some(1), Some(2)), Refused),
        (worker(Some(0), Some(1)), Applied),
        (lease(Some(free.clone()), held.clone()), Refused),
        (lease(None, free.clone()), Applied),
        (lease(None, free.clone()), Refused),
        (lease(Some(row(1, Some("a"), None)), held.clone()), Refused),
        (lease(Some(row(1, None, Some("a"))), held.clone()), Refused),
        (lease(Some(free.clone()), held.clone()), Applied),
        (lease(Some(free.clone()), held.clone()), Refused),
        (
            lease(Some(row(3, Some("a"), None)), wanted.clone()),
            Refused,
        ),
        (
            lease(Some(row(2, Some("b"), None)), wanted.clone()),
            Refused,
        ),
        (lease(Some(held.clone()), wanted.clone()), Applied),
        (lease(Some(held.clone()), wanted.clone()), Refused),
        (lease(Some(wanted), released.clone()), Applied),
    ];
    for (index, (change, expected)) in cases.iter().enumerate() {
        let outcome = store.change(change).await.expect("answered");
        assert_eq!(outcome, *expected, "case {index}: {change:?}");
    }
    let view = store.view().await.expect("view");
    assert_eq!(view.leases[&LeaseId::new("0")], released);
    let beat = Beat {
        session: 1,
        count: 1,
    };
    assert_eq!(view.workers[&WorkerId::new("a")], beat);
    assert_eq!((view.leases.len(), view.workers.len()), (1, 1));

    assert_eq!(store.change(&worker(Some(0), None)).await, Ok(Refused));
    assert_eq!(store.change(&worker(Some(1), None)).await, Ok(Applied));
    assert!(store.view().await.expect("view").workers.is_empty());
    assert_eq!(other_pipeline.view().await, Ok(Default::default()));

    // A thousand leases are one view.
    for index in 1..1_000 {
        let change = Change::Lease {
            id: LeaseId::new(format!("shardId-{index:012}")),
            seen: None,
            new: row(1, Some(&"long-instance-name-".repeat(60)), None),
        };
        assert_eq!(store.change(&change).await, Ok(Applied));
    }
    assert_eq!(store.view().await.expect("view").leases.len(), 1_000);
}

/// Steps two workers one after the other until the second has its half.
async fn assert_two_share(store: &dyn LeaseStore) {
    let leases = (0..8).map(|index| LeaseId::new(index.to_string()));
    let leases = leases.collect();
    let worker = |id: &str| Coordinator::new(WorkerId::new(id), Settings::default(), 7);
    let mut workers = [worker("a"), worker("b")];
    let mut now = Duration::ZERO;
    for round in 0..12 {
        for coordinator in &mut workers[..if round < 4 { 1 } else { 2 }] {
            now += Duration::from_millis(300);
            let view = store.view().await.expect("view");
            for decision in coordinator.decide(now, now, &view, &leases) {
                let change = match decision {
                    Decision::Change(change) => change,
                    Decision::HandOver(lease) => coordinator.hand_over(&lease).expect("held"),
                    Decision::Drop(lease, reason) => panic!("{lease} dropped: {reason:?}"),
                };
                let outcome = store.change(&change).await.expect("answered");
                coordinator.answered(&change, outcome, now, now);
            }
        }
        if round == 3 {
            assert_eq!(workers[0].all_held(now).count(), 8);
        }
    }
    let counts = workers
        .each_ref()
        .map(|worker| worker.all_held(now).count());
    assert_eq!(counts, [4, 4]);
}

#[tokio::test]
async fn memory_keeps_the_rules() {
    assert_rules(&MemoryStore::default(), &MemoryStore::default()).await;
    assert_two_share(&MemoryStore::default()).await;
}

#[tokio::test]
async fn the_table_on_the_wire_keeps_the_rules() {
    let server = Server::start().await;
    let missing = server.store("p").view().await;
    assert!(matches!(missing, Err(StoreError::Fatal(_))), "{missing:?}");
    server.create().await;
    assert_rules(&server.store("p"), &server.store("q")).await;
    assert_two_share(&server.store("r")).await;
    server.stop().await;
}
