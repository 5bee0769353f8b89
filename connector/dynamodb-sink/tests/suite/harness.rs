//! Puts a sink's partition together from fakes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::aws::AwsSettings;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::client::{Capacity, TableApi};
use millpond_dynamodb_sink::config::{DeadLetterTarget, SinkConfig};
use millpond_dynamodb_sink::dictionaries::{Dictionaries, Training};
use millpond_dynamodb_sink::form::ItemForm;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::plan_writer::Spreading;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_dynamodb_sink::store::TableStore;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_sink::claim::{Claim, Moment, StaleWrites};
pub use millpond_sink::conformance::storm::storms as on_virtual_time;
use millpond_sink::conformance::topic::{self, MemoryTopic};
pub use millpond_sink::conformance::wait::{until, until_within};
use millpond_sink::conformance::{PIPELINE, storm};
pub use millpond_sink::conformance::{draining, pack, seeds};
use millpond_sink::flush::Shared;
use millpond_sink::gaps::OnGap;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::sharing::Sharing;
use millpond_sink::store::Place;

pub const MAX_ITEM_BYTES: usize = 16_384;

/// What is sent to a table in memory arrives soon.
pub const QUICK: StaleWrites = StaleWrites {
    look_again: Duration::from_secs(2),
    arrives_within: Duration::from_secs(3),
};

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
        pace: PaceSettings::default(),
        dead_letters: DeadLetterTarget::Default,
        ledger_table: None,
        sharing: Sharing::default(),
        on_gap: OnGap::Halt,
        beside: Vec::new(),
        form: ItemForm::default(),
        training: None,
        write_shards: WriteShards::default(),
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
    let store = Arc::new(store(table, metrics.clone()));
    storm::shared(owner, store, metrics, topic, transforms, folder)
}

/// The table as the store of one process.
pub fn store(table: Arc<dyn TableApi>, metrics: Arc<Metrics>) -> TableStore {
    store_training(table, metrics, None)
}

/// The same, with dictionaries for small items.
pub fn store_training(
    table: Arc<dyn TableApi>,
    metrics: Arc<Metrics>,
    training: Option<Training>,
) -> TableStore {
    let table = TableWriter::new(table, KeyNames::default(), None, metrics.clone());
    let pipeline = PIPELINE.to_owned();
    let dictionaries = Dictionaries::new(table.clone(), pipeline, metrics.clone(), training);
    TableStore {
        table,
        dictionaries: Arc::new(dictionaries),
        dead_letters: None,
        ledger: None,
        leases: None,
        resting: Default::default(),
        max_item_bytes: MAX_ITEM_BYTES,
        form: ItemForm::default(),
        spreading: Spreading::default(),
        stale_writes: QUICK,
        place: Place {
            pipeline: PIPELINE.into(),
            topic: topic::NAME.into(),
            metrics,
        },
    }
}

/// A claim of topic partition 0, for a writer that is used alone.
pub fn claim(table: &MemoryTable) -> Arc<Claim> {
    let store = store(Arc::new(table.clone()), Arc::new(Metrics::default()));
    let row = LedgerRow::claim(None, "o", 0, None).row;
    Claim::new(Arc::new(store), 0, &row, Moment::now())
}
