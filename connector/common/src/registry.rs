//! Which connectors there are, and how one is added.
//!
//! A connector is one [`ConnectorKind`] in its own crate and one line where the binary builds its
//! registry: `Registry::new().with(KinesisSource).with(DynamoDbSink)`.

use async_trait::async_trait;
use schemars::{Schema, SchemaGenerator};

use crate::connector::{Sink, Source};
use crate::document::ConnectorDocument;
use crate::problem::Problems;
use crate::section::Section;

/// Which way a connector moves records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From outside into the topic.
    Source,
    /// From the topic to outside.
    Sink,
}

impl Direction {
    /// A type that ends in `-source` is a source, anything else a sink: Fluvio's rule.
    #[must_use]
    pub fn of_type(type_name: &str) -> Self {
        match type_name.ends_with("-source") {
            true => Self::Source,
            false => Self::Sink,
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Sink => "sink",
        })
    }
}

/// A kind of connector: what `meta.type` names.
pub trait ConnectorKind: Send + Sync {
    /// The name under `meta.type`, such as `kinesis-source`.
    fn type_name(&self) -> &'static str;

    /// The key of its own section, such as `kinesis`.
    fn section_name(&self) -> &'static str;

    /// JSON Schema of its own section, usually `generator.subschema_for::<Raw>()`.
    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Turns the section into a config that cannot be wrong, or says all that is wrong with it.
    ///
    /// Touches neither the network nor the disk. `None` exactly when an error was pushed.
    fn validate(
        &self,
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>>;

    /// Text of the `Connector.toml` of its package; without one it cannot be put on a cluster.
    fn package_description(&self) -> Option<&'static str> {
        None
    }

    /// Which way it moves records; follows from the type name.
    fn direction(&self) -> Direction {
        Direction::of_type(self.type_name())
    }
}

/// A connector whose configuration is right; nothing outside was touched yet.
#[async_trait]
pub trait ValidConnector: Send + Sync {
    /// How many partitions the topic should have, if the connector's section says so.
    fn topic_partitions(&self) -> Option<u32> {
        None
    }

    /// What it works on, when connectors with the same answer share that work among processes.
    fn shared_work(&self) -> Option<String> {
        None
    }

    /// Another topic that it needs, for its dead letters.
    fn dead_letter_topic(&self) -> Option<&str> {
        None
    }

    /// Makes the running part: the first and only step of configuration that may use the network.
    ///
    /// # Errors
    /// What could not be reached or had, and what to do about it.
    async fn build(self: Box<Self>) -> anyhow::Result<BuiltConnector>;
}

/// A connector that is ready to run.
pub enum BuiltConnector {
    /// Fills its topic.
    Source(Box<dyn Source>),
    /// Empties its topic.
    Sink(Box<dyn Sink>),
}

/// The connectors of one binary.
#[derive(Default)]
pub struct Registry {
    kinds: Vec<Box<dyn ConnectorKind>>,
}

impl Registry {
    /// No connectors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more connector; of two with the same type name the later one counts.
    #[must_use]
    pub fn with(mut self, kind: impl ConnectorKind + 'static) -> Self {
        self.kinds
            .retain(|known| known.type_name() != kind.type_name());
        self.kinds.push(Box::new(kind));
        self
    }

    /// All of them, in the order of registration.
    pub fn kinds(&self) -> impl Iterator<Item = &dyn ConnectorKind> {
        self.kinds.iter().map(Box::as_ref)
    }

    /// The one of this type name.
    #[must_use]
    pub fn kind(&self, type_name: &str) -> Option<&dyn ConnectorKind> {
        self.kinds().find(|kind| kind.type_name() == type_name)
    }
}
