//! Puts a sink's partition together from fakes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::aws::AwsSettings;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Topic, Transform};
use millpond_dynamodb_sink::client::{Capacity, TableApi};
use millpond_dynamodb_sink::config::{DeadLetterTarget, SinkConfig};
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::store::TableStore;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_sink::dead_letters::DeadLetterFile;
use millpond_sink::flush::Shared;
use millpond_sink::gaps::OnGap;
use millpond_sink::letter_queue::DeadLetters;
use millpond_sink::store::Place;
use tokio_util::sync::CancellationToken;

use crate::topic::MemoryTopic;

pub const MAX_ITEM_BYTES: usize = 16_384;

/// The packer, grouping by job.
pub fn pack() -> Vec<Transform> {
    let with = [("group-by", "/job"), ("max-item-bytes", "16384")];
    let with: BTreeMap<String, String> = with
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    vec![Transform {
        uses: "millpond/pack@0.1.0".into(),
        with,
    }]
}

/// A configuration; `create` says how to create a missing table.
pub fn config(create: Option<Capacity>) -> SinkConfig {
    SinkConfig {
        table: "t".into(),
        aws: AwsSettings::default(),
        create,
        keys: KeyNames::default(),
        pipeline: "p".into(),
        max_item_bytes: MAX_ITEM_BYTES,
        max_age: Duration::from_millis(200),
        max_write_units_per_second: None,
        dead_letters: DeadLetterTarget::Default,
        on_gap: OnGap::Halt,
        beside: Vec::new(),
        partitions: PartitionChoice::All,
        transforms: pack(),
        digests: Vec::new(),
    }
}

/// What a process shares among its partitions.
pub fn shared(
    owner: &str,
    table: Arc<dyn TableApi>,
    topic: &MemoryTopic,
    transforms: Vec<Transform>,
    folder: &Path,
) -> Shared {
    let metrics = Arc::new(Metrics::default());
    let store = TableStore {
        table: TableWriter::new(table, KeyNames::default(), None, metrics.clone()),
        dead_letters: None,
        max_item_bytes: MAX_ITEM_BYTES,
        place: Place {
            pipeline: "p".into(),
            topic: topic.name().to_owned(),
            metrics: metrics.clone(),
        },
        resting: Default::default(),
    };
    Shared {
        store: Arc::new(store),
        topic: Arc::new(topic.clone()),
        transforms,
        metrics,
        dead_letters: DeadLetters::File(DeadLetterFile::new(folder.join("dead.jsonl"))),
        pipeline: "p".into(),
        on_gap: OnGap::Halt,
        max_age: Duration::from_millis(300),
        plan_bytes: 8 << 20,
        owner: owner.to_owned(),
        fingerprint: "f".into(),
    }
}

/// A token that says to drain at once.
pub fn draining() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Seeds of a random test, printed so that a failure can be repeated with `MILLPOND_SEED`.
#[expect(
    clippy::print_stdout,
    reason = "shown with the output of a failed test"
)]
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let range = match first {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    };
    range.inspect(|seed| println!("MILLPOND_SEED={seed}"))
}
