//! A shard whose reader waits because it should is not given up to others.

#[path = "support/sharing.rs"]
mod sources;
mod support;

use std::sync::Arc;
use std::time::Duration;

use millpond_kinesis_local::model::ModelConfig;
use millpond_kinesis_source::classify::{Failure, Operation};
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::memory_table::MemoryTable;
use millpond_leases::WorkerId;
use sources::{Instance, held};
use support::stream::{ModelStream, service};
use support::topic::MemoryTopic;
use support::until;
use tokio::time::{Instant, sleep};

/// Holds the shard for so long without a break.
async fn stays(table: &MemoryTable, id: &WorkerId, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert_eq!(held(table, id), 1, "given up");
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_is_paid_for_in_peace() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let (table, id) = (
        MemoryTable::new(WorkerId::new("nobody")),
        WorkerId::new("a"),
    );
    let mut config = SourceConfig::default();
    // 9 MiB take 144 s.
    config.pace.bytes_per_second = 64 << 10;
    for n in 0..3 {
        stream.put("key", vec![n; 9 << 20]);
    }
    let _one = Instance::start("a", &stream, config, &table, &topic);
    until("held", || held(&table, &id) == 1).await;
    // Somebody to give it up to.
    let _other = Instance::start("b", &stream, config, &table, &topic);
    stays(&table, &id, Duration::from_secs(400)).await;
    assert_eq!(topic.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_service_asks_for_is_no_stall() {
    let stream = ModelStream::new(1, ModelConfig::default());
    let topic = Arc::new(MemoryTopic::new(1));
    let (table, id) = (
        MemoryTable::new(WorkerId::new("nobody")),
        WorkerId::new("a"),
    );
    let asks = Failure {
        retry_after: Some(Duration::from_secs(60)),
        ..service("ProvisionedThroughputExceededException", 400)
    };
    stream.fail(Operation::Read, vec![asks; 3]);
    let _one = Instance::start("a", &stream, SourceConfig::default(), &table, &topic);
    until("held", || held(&table, &id) == 1).await;
    // Somebody to give it up to.
    let _other = Instance::start("b", &stream, SourceConfig::default(), &table, &topic);
    stays(&table, &id, Duration::from_secs(200)).await;
    // One that is merely refused for ever is tried elsewhere.
    stream.fail(
        Operation::Read,
        vec![service("ProvisionedThroughputExceededException", 400); 1_000],
    );
    until("given up", || held(&table, &id) == 0).await;
}
