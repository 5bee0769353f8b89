//! The section `dynamodb` of a connector configuration.

mod build;
mod section;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use millpond_connector::aws::AwsSettings;
use millpond_connector::document::ConnectorDocument;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::problem::Problems;
use millpond_connector::registry::{ConnectorKind, ValidConnector};
use millpond_connector::section::Section;
use millpond_connector::topic::Transform;
use millpond_sink::gaps::OnGap;
use millpond_sink::sharing::Sharing;
use schemars::{Schema, SchemaGenerator};

use crate::client::Capacity;
use crate::dictionaries::Training;
use crate::form::ItemForm;
use crate::pacing::PaceSettings;
use crate::row::KeyNames;
use crate::spread::WriteShards;
use section::RawDynamodb;
use validate::validate;

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterTarget {
    /// `dead-letters.jsonl` in the data directory.
    Default,
    /// This file.
    File(PathBuf),
    /// This table.
    Table(String),
    /// This topic.
    Topic(String),
}

/// A configuration that cannot be wrong.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Table name.
    pub table: String,
    /// AWS access.
    pub aws: AwsSettings,
    /// How to create a missing table; `None` does not.
    pub create: Option<Capacity>,
    /// Key attribute names.
    pub keys: KeyNames,
    /// Pipeline name.
    pub pipeline: String,
    /// Largest item in bytes.
    pub max_item_bytes: usize,
    /// Longest wait for more data.
    pub max_age: Duration,
    /// How fast it writes.
    pub pace: PaceSettings,
    /// Where dead letters go.
    pub dead_letters: DeadLetterTarget,
    /// Another table for ledger and leases.
    pub ledger_table: Option<String>,
    /// Whether topic partitions are shared with other sinks.
    pub sharing: Sharing,
    /// What to do about data that is gone for good.
    pub on_gap: OnGap,
    /// Pipelines of the same topic that this one is meant to stand beside.
    pub beside: Vec<String>,
    /// What items look like.
    pub form: ItemForm,
    /// Packs small items anew, and trains dictionaries for them; `None` does not.
    pub training: Option<Training>,
    /// Over how many partition keys a group is spread.
    pub write_shards: WriteShards,
    /// Topic partitions to consume.
    pub partitions: PartitionChoice,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Digests of the SmartModules, where they are known.
    pub digests: Vec<String>,
}

/// The connector kind `dynamodb-sink`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DynamodbSink;

impl ConnectorKind for DynamodbSink {
    fn type_name(&self) -> &'static str {
        "dynamodb-sink"
    }

    fn section_name(&self) -> &'static str {
        "dynamodb"
    }

    fn package_description(&self) -> Option<&'static str> {
        Some(include_str!("../Connector.toml"))
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawDynamodb>()
    }

    fn validate(
        &self,
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let config = validate(document, section, problems)?;
        Some(Box::new(config))
    }
}
