//! Why a read could not go on.

use crate::damage::Damage;

/// A failed read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The table does not exist for these credentials, in this region, at this endpoint.
    #[error(
        "table `{table}` does not exist at {place}; check its name, the region and the endpoint"
    )]
    NoSuchTable {
        /// Table asked for.
        table: String,
        /// Where it was looked for.
        place: String,
    },
    /// The table's key is not one that Millpond writes to.
    #[error("table `{table}` has the key ({found}), needed is ({expected})")]
    KeySchema {
        /// Table.
        table: String,
        /// Its key.
        found: String,
        /// Key that it must have.
        expected: String,
    },
    /// No pipeline has written to the table.
    #[error("table `{table}` holds no pipeline: nothing in it was written by Millpond yet")]
    NoPipeline {
        /// Table.
        table: String,
    },
    /// The pipeline asked for has not written to the table.
    #[error(
        "table `{table}` holds no pipeline `{pipeline}`, only {}",
        names(known)
    )]
    NoSuchPipeline {
        /// Table.
        table: String,
        /// Pipeline asked for.
        pipeline: String,
        /// Pipelines of the table; at most the first thousand or so.
        known: Vec<String>,
    },
    /// Several pipelines have written to the table, and none was asked for.
    #[error(
        "table `{table}` holds several pipelines, name one of {}",
        names(known)
    )]
    SeveralPipelines {
        /// Table.
        table: String,
        /// Pipelines of the table; at most the first thousand or so.
        known: Vec<String>,
    },
    /// A later version of Millpond wrote the table.
    #[error(
        "pipeline `{pipeline}` of table `{table}` has format version {found}, newer than {known}; upgrade Millpond"
    )]
    NewerFormat {
        /// Table.
        table: String,
        /// Pipeline.
        pipeline: String,
        /// Version found.
        found: i64,
        /// Newest version that this build reads.
        known: i64,
    },
    /// The pipeline writes mapped events.
    #[error(
        "pipeline `{pipeline}` of table `{table}` writes mapped events (`plain`): they have no groups to \
         read or to prove, any program reads them by their own keys"
    )]
    Mapped {
        /// Table.
        table: String,
        /// Pipeline.
        pipeline: String,
    },
    /// The pipeline has written no event of the group.
    #[error(
        "table `{table}` holds no group `{group}` of pipeline `{pipeline}`; list them with `millpond groups`"
    )]
    NoSuchGroup {
        /// Table.
        table: String,
        /// Pipeline.
        pipeline: String,
        /// Group asked for.
        group: String,
    },
    /// There is no item with the key.
    #[error("table `{table}` holds no item with partition key `{pk}` and sort key `{sk}`")]
    NoSuchItem {
        /// Table.
        table: String,
        /// Partition key value.
        pk: String,
        /// Sort key value.
        sk: String,
    },
    /// An item does not pass its checks.
    #[error(transparent)]
    Damaged(#[from] Box<Damage>),
    /// No credentials, or not accepted ones.
    #[error("DynamoDB `{operation}` at {place} needs valid credentials: {message}")]
    Credentials {
        /// Operation.
        operation: &'static str,
        /// Where it was asked for.
        place: String,
        /// What the SDK or the service said.
        message: String,
    },
    /// The credentials do not allow the operation.
    #[error("DynamoDB `{operation}` on table `{table}` is not allowed: {message}")]
    AccessDenied {
        /// Operation.
        operation: &'static str,
        /// Table.
        table: String,
        /// What the service said.
        message: String,
    },
    /// The service still throttled after the last attempt.
    #[error(
        "DynamoDB `{operation}` on table `{table}` was throttled {attempts} times in a row: {message}"
    )]
    Throttled {
        /// Operation.
        operation: &'static str,
        /// Table.
        table: String,
        /// Attempts made.
        attempts: u32,
        /// What the service said.
        message: String,
    },
    /// The service could not be reached or failed, also at the last attempt.
    #[error(
        "DynamoDB `{operation}` at {place} failed {attempts} times in a row: {message}; check that the endpoint is \
         right, and up"
    )]
    Unavailable {
        /// Operation.
        operation: &'static str,
        /// Where it was asked for.
        place: String,
        /// Attempts made.
        attempts: u32,
        /// What the SDK said last.
        message: String,
    },
    /// The service refused the request.
    #[error("DynamoDB refused `{operation}` on table `{table}`: {message}")]
    Refused {
        /// Operation.
        operation: &'static str,
        /// Table.
        table: String,
        /// What the service said.
        message: String,
    },
    /// A page token does not resume this read.
    #[error("the page token cannot be used: {problem}; begin again without it")]
    PageToken {
        /// What is wrong with it.
        problem: String,
    },
    /// The decoder could not be set up: out of memory.
    #[error("the decoder could not be set up: {0}")]
    Decoder(String),
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(Box::new(damage))
    }
}

fn names(known: &[String]) -> String {
    let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
