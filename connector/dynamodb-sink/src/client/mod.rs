//! DynamoDB as the sink uses it: a small trait, the real service, and a fake with the same rules.

pub mod aws;
pub mod classify;
pub mod memory;

use std::sync::Arc;

use async_trait::async_trait;
use millpond_sink::claim::Claim;

use crate::pacing::WriteCapacity;
use crate::row::{Key, Row};
pub use classify::{Throttle, Verdict, classify};

/// What `DescribeTable` says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDescription {
    /// True when the table takes writes.
    pub active: bool,
    /// The service's word for its state, such as `CREATING`.
    pub status: String,
    /// Key attributes in the service's order: name, `HASH` or `RANGE`, type (`S`, `N`, `B`).
    pub keys: Vec<(String, String, String)>,
    /// What it says of its write capacity.
    pub capacity: WriteCapacity,
}

/// How a new table is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Per request.
    OnDemand,
    /// Fixed units a second.
    Provisioned {
        /// Read units a second.
        read_units: u64,
        /// Write units a second.
        write_units: u64,
    },
}

/// What must hold of the row that a put replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no such row.
    Absent,
    /// These integer attributes have these values.
    Equals(Vec<(&'static str, i64)>),
    /// There is no such row, or the attribute is below the value.
    AbsentOrBelow(&'static str, i64),
    /// There is no such row, or the string attribute is at most the value.
    AbsentOrAtMost(String, String),
    /// There is no such row, or the string attribute has the value.
    AbsentOrSame(String, String),
}

/// What became of a conditional put.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PutOutcome {
    /// False when the condition did not hold: nothing was written.
    pub applied: bool,
    /// Write units consumed; a failed condition is billed too.
    pub units: f64,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchOutcome {
    /// Indexes of the rows that were not written.
    pub unprocessed: Vec<usize>,
    /// Write units consumed.
    pub units: f64,
}

/// Rows of one partition key, last first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TailPage {
    /// Rows with the one attribute that was asked for.
    pub rows: Vec<Row>,
    /// True when there are more rows before these.
    pub more: bool,
}

/// A failed call: what the service said and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiFailure {
    /// What to do.
    pub verdict: Verdict,
    /// The failure in words.
    pub message: String,
}

impl ApiFailure {
    /// The ledger row was not looked at for too long: the request was not sent.
    #[must_use]
    pub fn unsent() -> Self {
        Self {
            verdict: Verdict::Unsent,
            message: "not sent: it is too long ago that the ledger row was looked at".to_owned(),
        }
    }
}

impl std::fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A call that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table `{table}`: {operation} failed: {message}{}", .help.map(|help| format!("; {help}")).unwrap_or_default())]
pub struct TableError {
    /// Table name.
    pub table: String,
    /// Operation as the service calls it.
    pub operation: &'static str,
    /// The failure in words.
    pub message: String,
    /// What to do about it.
    pub help: Option<&'static str>,
}

/// One table.
#[async_trait]
pub trait TableApi: Send + Sync {
    /// Table name.
    fn name(&self) -> &str;

    /// Describes the table; `None` when there is none.
    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure>;

    /// Starts to create the table; answers also when somebody else is creating it.
    async fn create(&self, capacity: Capacity) -> Result<(), ApiFailure>;

    /// Puts up to 25 rows with different keys, not atomically.
    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure>;

    /// The same under a claim: nothing is sent when it is not fresh once the request is ready to be sent, which is
    /// after its signature where it has one ([`Verdict::Unsent`]).
    async fn batch_write_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        match claim.is_fresh() {
            true => self.batch_write(rows).await,
            false => Err(ApiFailure::unsent()),
        }
    }

    /// Reads one row, strongly consistent.
    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure>;

    /// Puts one row if the condition holds.
    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure>;

    /// Deletes one row, if it is there. Answers the write units consumed.
    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure>;

    /// Rows of `pk` before the sort key `before` (the last ones without it), last first,
    /// at most `limit`, strongly consistent; of their attributes only this one.
    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure>;
}
