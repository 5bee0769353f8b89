//! The way in.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use serde_json::Value;

use crate::config::ReaderConfig;
use crate::directory::{self, Pipeline};
use crate::error::ReadError;
use crate::events::{Events, ReadRequest};
use crate::groups::{self, GroupSummary, Groups, GroupsRequest};
use crate::inspect::{self, Items};
use crate::table::{Spent, Table};
use crate::tail::{Tail, TailRequest};
use crate::verify::{Verification, VerifyRequest};

/// Reads what one pipeline wrote into one table.
#[derive(Debug, Clone)]
pub struct Reader {
    table: Arc<Table>,
    pipeline: Arc<Pipeline>,
}

impl Reader {
    /// Checks the table's key and finds the pipeline.
    ///
    /// The client's own retries are replaced by [`ReaderConfig::retry`].
    ///
    /// # Errors
    /// [`ReadError::NoSuchTable`], [`ReadError::KeySchema`]; [`ReadError::NoPipeline`],
    /// [`ReadError::NoSuchPipeline`] or [`ReadError::SeveralPipelines`]; what a call can meet.
    pub async fn open(client: Client, config: ReaderConfig) -> Result<Self, ReadError> {
        let table = Table::open(client, &config).await?;
        let pipeline = directory::find_pipeline(&table, &config).await?;
        let table = table.with_layout(pipeline.layout.clone());
        Ok(Self {
            table: Arc::new(table),
            pipeline: Arc::new(pipeline),
        })
    }

    /// Name of the pipeline.
    #[must_use]
    pub fn pipeline(&self) -> &str {
        &self.pipeline.name
    }

    /// Topic that the pipeline reads from, when the table says so.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.pipeline.topic.as_deref()
    }

    /// Number of that topic's partitions, when the table says so.
    #[must_use]
    pub fn topic_partitions(&self) -> Option<u32> {
        self.pipeline.topic_partitions
    }

    /// What was asked of the service since this reader, or the one it is a clone of, was opened.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.table.spent()
    }

    /// Lists the groups with their totals.
    #[must_use]
    pub fn groups(&self, request: GroupsRequest) -> Groups {
        Groups::new(Arc::clone(&self.table), &self.pipeline.name, request)
    }

    /// Reads the events of a group. Everything that was durable in the table before the call is
    /// seen (with [`ReaderConfig::consistent`]; else perhaps not the last second).
    ///
    /// # Errors
    /// [`ReadError::NoSuchGroup`]; what a call can meet.
    pub async fn read(&self, request: ReadRequest) -> Result<Events, ReadError> {
        Events::open(&self.table, &self.pipeline, request).await
    }

    /// Totals of one group, for up to 100 read units a chain: see [`Groups`].
    ///
    /// # Errors
    /// [`ReadError::NoSuchGroup`]; what a call can meet.
    pub async fn group(&self, group: &str) -> Result<GroupSummary, ReadError> {
        groups::one(&self.table, &self.pipeline, group).await
    }

    /// Follows a group or all of them: what comes, as it comes.
    ///
    /// # Errors
    /// [`ReadError::NoSuchGroup`]; what a call can meet.
    pub async fn tail(&self, request: TailRequest) -> Result<Tail, ReadError> {
        Tail::open(&self.table, &self.pipeline, request).await
    }

    /// Shows one item: header, sizes, frame index with the state of every checksum, no payload.
    ///
    /// # Errors
    /// [`ReadError::NoSuchItem`]; [`ReadError::Damaged`] for an item whose header cannot be read.
    pub async fn inspect(&self, pk: &str, sk: &str) -> Result<Value, ReadError> {
        inspect::one(&self.table, pk, sk).await
    }

    /// Shows the items of a group, chain by chain.
    ///
    /// # Errors
    /// [`ReadError::NoSuchGroup`]; what a call can meet.
    pub async fn inspect_group(&self, group: &str) -> Result<Items, ReadError> {
        Items::open(&self.table, &self.pipeline, group).await
    }

    /// Begins to verify the table: reads the ledger and the recorded gaps.
    ///
    /// # Errors
    /// What a call can meet.
    pub async fn verify(&self, request: VerifyRequest) -> Result<Verification, ReadError> {
        Verification::open(&self.table, &self.pipeline, request).await
    }
}
