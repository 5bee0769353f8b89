//! Why the sink stops.

use millpond_connector::topic::{Offset, PartitionId, TopicError};
use millpond_format::error::DecodeError;

use crate::contiguity::ContiguityError;
use crate::dedup::DedupError;
use crate::ledger::LedgerError;
use crate::placement::PlacementError;
use crate::store::StoreError;

/// Why a partition stops, and perhaps the sink with it. Nothing that it did is lost: the ledger
/// says where to go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The store refused for good.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
    /// What the SmartModules left cannot be told apart.
    #[error("topic partition {partition}: records of offsets {from} to {to}: {source}")]
    Placement {
        /// Topic partition.
        partition: PartitionId,
        /// First offset of the chunk.
        from: Offset,
        /// End of the chunk, exclusive.
        to: Offset,
        /// Why.
        source: PlacementError,
    },
    /// The dead-letter queue failed for good.
    #[error("dead-letter queue: {0}")]
    DeadLetters(String),
    /// The pipeline was registered otherwise.
    #[error("{0}")]
    Registry(String),
    /// The topic partitions cannot be shared with other sinks.
    #[error("leases: {0}")]
    Leases(String),
    /// The task of a topic partition broke off.
    #[error("the task of a topic partition broke off: {0}")]
    Task(String),
}

impl SinkError {
    /// What a store said about a topic partition.
    #[must_use]
    pub fn of_store(partition: PartitionId, error: StoreError) -> Self {
        match error {
            StoreError::Plan(source) => Self::Plan { partition, source },
            StoreError::Refused(source) => Self::Store(source),
        }
    }

    /// True for what is wrong with the records of one topic partition: the others can go on.
    #[must_use]
    pub fn is_of_the_records(&self) -> bool {
        match self {
            Self::Contiguity { .. }
            | Self::Dedup { .. }
            | Self::Plan { .. }
            | Self::Envelope { .. }
            | Self::Placement { .. } => true,
            Self::Topic(error) => matches!(
                error,
                TopicError::Damaged { .. }
                    | TopicError::OffsetOutOfRange { .. }
                    | TopicError::Transform {
                        offset: Some(_),
                        ..
                    }
            ),
            Self::Ledger { source, .. } => matches!(
                source,
                LedgerError::Gone { .. }
                    | LedgerError::OtherGaps { .. }
                    | LedgerError::TooManyGaps { .. }
                    | LedgerError::NotTakenBack { .. }
            ),
            Self::Store(_)
            | Self::DeadLetters(_)
            | Self::Registry(_)
            | Self::Leases(_)
            | Self::Task(_) => false,
        }
    }

    /// True when the topic ends before what was read of it: it was made anew, or lost its last records.
    #[must_use]
    pub fn is_of_a_shorter_topic(&self) -> bool {
        matches!(
            self,
            Self::Topic(TopicError::OffsetOutOfRange { offset, end, .. }) if offset > end
        )
    }

    /// True when another process has taken the topic partition: this one has lost nothing but that.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(
            self,
            Self::Ledger {
                source: LedgerError::Fenced { .. },
                ..
            }
        )
    }
}
