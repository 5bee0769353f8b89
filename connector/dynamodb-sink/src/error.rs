//! Why the sink stops.

use millpond_connector::topic::{Offset, PartitionId, TopicError};
use millpond_format::error::DecodeError;

use crate::client::TableError;
use crate::contiguity::ContiguityError;
use crate::dedup::DedupError;
use crate::ledger::LedgerError;
use crate::plan::PlanError;

/// Why a partition, and with it the sink, stops. Nothing that it did is lost: the ledger says
/// where to go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The table refused for good.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The topic failed for good.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The ledger does not allow to go on.
    #[error("topic partition {partition}: {source}")]
    Ledger {
        /// Topic partition.
        partition: PartitionId,
        /// Why.
        source: LedgerError,
    },
    /// Records are missing from the topic.
    #[error(
        "topic partition {partition}: {source}; read twice with the same result, so the data is \
         missing from the topic: nothing was skipped, nothing after it was written"
    )]
    Contiguity {
        /// Topic partition.
        partition: PartitionId,
        /// What is missing.
        source: ContiguityError,
    },
    /// A break in the chain of a shard.
    #[error(
        "topic partition {partition}: {source}; read twice with the same result, so events are \
         missing from the topic: nothing was skipped, nothing after it was written"
    )]
    Dedup {
        /// Topic partition.
        partition: PartitionId,
        /// What is missing.
        source: DedupError,
    },
    /// No plan could be made.
    #[error("topic partition {partition}: {source}")]
    Plan {
        /// Topic partition.
        partition: PartitionId,
        /// Why.
        source: PlanError,
    },
    /// A record of the topic could not be read.
    #[error(
        "topic partition {partition}: envelope in the records of offsets {from} to {to}: {source}"
    )]
    Envelope {
        /// Topic partition.
        partition: PartitionId,
        /// First offset of the chunk.
        from: Offset,
        /// End of the chunk, exclusive.
        to: Offset,
        /// The failed check.
        source: DecodeError,
    },
    /// The rows of the table are not Millpond's, or not this version's.
    #[error("row `{pk}` / `{sk}` of the table: {what}")]
    Row {
        /// Partition key.
        pk: String,
        /// Sort key.
        sk: String,
        /// What is wrong with it.
        what: String,
    },
    /// The dead-letter queue failed for good.
    #[error("dead-letter queue: {0}")]
    DeadLetters(String),
    /// The pipeline was registered otherwise.
    #[error("{0}")]
    Registry(String),
    /// The table is not what is needed.
    #[error("{0}")]
    Schema(String),
}
