//! What a partition holds, and what is under way to the table, stays within its limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::limits::{MAX_BATCH_BYTES, MAX_IN_FLIGHT_REQUESTS};
use millpond_dynamodb_sink::row::{KeyNames, names};
use millpond_sink::limits::plan_bytes;
use millpond_sink::partition;
use tokio::time::sleep;

use crate::harness::{draining, shared};
use crate::tapped::{Call, Tap, Tapped};
use crate::topic::MemoryTopic;

/// Takes its time and watches what is under way.
struct Watch {
    topic: MemoryTopic,
    written: AtomicUsize,
    under_way: AtomicUsize,
    requests: AtomicUsize,
    /// Most bytes read and not written, most bytes and most requests under way.
    most: Mutex<(usize, usize, usize)>,
}

#[async_trait]
impl Tap for Watch {
    async fn before(&self, call: Call<'_>) {
        let (Call::Rows(rows) | Call::Items(rows)) = call else {
            return;
        };
        let bytes: usize = rows
            .iter()
            .map(|row| row.size(&KeyNames::default()).bytes())
            .sum();
        let values = rows.iter().filter_map(|row| row.binary(names::VALUE));
        let values: usize = values.map(|value| value.len()).sum();
        let under_way = self.under_way.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        sleep(Duration::from_millis(40)).await;
        let read = self.topic.state.lock().expect("lock").read_bytes;
        let held = read - self.written.fetch_add(values, Ordering::Relaxed);
        {
            let mut most = self.most.lock().expect("lock");
            *most = (
                most.0.max(held),
                most.1.max(under_way),
                most.2.max(requests),
            );
        }
        self.under_way.fetch_sub(bytes, Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_and_requests_stay_within_their_limits() {
    let folder = tempfile::tempdir().expect("tempdir");
    let topic = MemoryTopic::new(1);
    let mut ordinal = 0;
    let mut batch_bytes = 0;
    for _ in 0..120 {
        let records: Vec<_> = (0..20)
            .map(|_| {
                let key = format!("mp1/s/a/{}/0/1/1.{ordinal}/k{}", 100 + ordinal, ordinal % 7);
                ordinal += 1;
                (key, vec![7u8; 12_000])
            })
            .collect();
        batch_bytes = records.iter().map(|(_, value)| value.len()).sum();
        topic.push(&records);
    }
    let table = Arc::new(Tapped {
        table: MemoryTable::new("t"),
        tap: Watch {
            topic: topic.clone(),
            written: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            most: Mutex::new((0, 0, 0)),
        },
    });
    let mut process = shared("o", table.clone(), &topic, Vec::new(), folder.path());
    process.plan_bytes = plan_bytes(8);
    let bound = 2 * (process.plan_bytes + 3 * batch_bytes);
    partition::run(Arc::new(process), 0, draining())
        .await
        .expect("drained");
    let (held, under_way, requests) = *table.tap.most.lock().expect("lock");
    assert!(held <= bound, "{held} bytes held, bound {bound}");
    assert!(
        held > bound / 3,
        "the bound was not tried: {held} of {bound}"
    );
    assert!(
        requests <= MAX_IN_FLIGHT_REQUESTS && requests > 1,
        "{requests} requests"
    );
    assert!(
        under_way <= MAX_IN_FLIGHT_REQUESTS * MAX_BATCH_BYTES,
        "{under_way} bytes"
    );
    assert_eq!(table.tap.written.load(Ordering::Relaxed), 120 * batch_bytes);
}

#[test]
fn many_partitions_share_the_memory_of_few() {
    assert_eq!((plan_bytes(1), plan_bytes(4)), (8 << 20, 8 << 20));
    assert_eq!((plan_bytes(16), plan_bytes(1_000)), (2 << 20, 1 << 20));
}
