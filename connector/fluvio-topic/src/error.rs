//! What can be wrong with a cluster.

use fluvio_protocol::link::ErrorCode;
use millpond_connector::topic::TopicError;

/// Why a request to a cluster failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// Fluvio's configuration file does not say where the cluster is.
    #[error(
        "no Fluvio cluster is configured: {reason}; \
         add one with `fluvio profile add NAME HOST:PORT`, or name its endpoint"
    )]
    Profile {
        /// What the file lacks.
        reason: String,
    },
    /// Nothing answers, or not in time.
    #[error("Fluvio server at `{address}` cannot be reached: {reason}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The profile's keys or certificates cannot be used.
    #[error("the TLS settings of the profile for `{address}` cannot be used: {reason}")]
    TlsSettings {
        /// `host:port`.
        address: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Client and server do not accept each other.
    #[error(
        "Fluvio server at `{address}` and this client do not trust each other: {reason}; \
         look at `domain`, `ca_cert`, `cert` and `key` of the profile"
    )]
    Tls {
        /// `host:port`.
        address: String,
        /// What TLS said.
        reason: String,
    },
    /// The server speaks, but not what is needed.
    #[error(
        "Fluvio server at `{address}` is version {found} and does not offer `{request}` \
         as Fluvio 0.50 does; use a cluster of that version"
    )]
    Version {
        /// `host:port`.
        address: String,
        /// Platform version that it told.
        found: String,
        /// The request it does not know.
        request: &'static str,
    },
    /// The cluster refused.
    #[error("Fluvio cluster refused to {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        reason: String,
    },
    /// The topic is not there.
    #[error("topic `{topic}` does not exist on the cluster; `millpond deploy` creates it")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// A partition of a topic has no SPU that leads it.
    #[error("partition {partition} of topic `{topic}` has no leader that is online")]
    NoLeader {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
    },
}

impl ClusterError {
    /// True when waiting can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoLeader { .. })
    }

    /// As the topic's users see it.
    pub(crate) fn on_topic(self, topic: &str) -> TopicError {
        TopicError::Storage {
            topic: topic.to_owned(),
            retryable: self.is_transient(),
            context: self.to_string(),
        }
    }
}

/// What an SPU's error code means for the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Look up the leader again and repeat.
    FindLeader,
    /// The offset is not stored.
    OffsetOutOfRange,
    /// A SmartModule is missing or failed.
    SmartModule,
    /// Wait and repeat.
    Repeat,
    /// It will not get better.
    GiveUp,
}

/// The table of error codes: `fluvio_protocol::link::ErrorCode` of 0.50.1.
pub(crate) fn classify(code: &ErrorCode) -> Remedy {
    match code {
        ErrorCode::NotLeaderForPartition
        | ErrorCode::PartitionNotLeader
        | ErrorCode::PartitionPendingInitialization
        | ErrorCode::SpuOffline => Remedy::FindLeader,
        ErrorCode::OffsetOutOfRange | ErrorCode::OffsetEvicted { .. } => Remedy::OffsetOutOfRange,
        ErrorCode::SmartModuleError
        | ErrorCode::SmartModuleInvalid { .. }
        | ErrorCode::SmartModuleInvalidExports { .. }
        | ErrorCode::SmartModuleRuntimeError(_)
        | ErrorCode::SmartModuleNotFound { .. }
        | ErrorCode::SmartModuleChainInitError(_)
        | ErrorCode::SmartModuleInitError(_)
        | ErrorCode::SmartModuleMemoryLimitExceeded { .. }
        | ErrorCode::SmartModuleLookBackError(_) => Remedy::SmartModule,
        ErrorCode::RequestTimedOut { .. } | ErrorCode::StorageError => Remedy::Repeat,
        // What `process_batch` of the SPU says when the engine itself fails.
        ErrorCode::Other(text) if text.starts_with("SmartModule") => Remedy::SmartModule,
        _ => Remedy::GiveUp,
    }
}
