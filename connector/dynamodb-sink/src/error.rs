//! Why the table cannot be used as it is.

use millpond_sink::store::StoreError;

use crate::client::TableError;
use crate::plan::PlanError;

/// Why the table, or what is in it, does not allow to go on.
#[derive(Debug, thiserror::Error)]
pub enum DynamoError {
    /// A call was refused for good.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No plan can be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A row of the table is not Millpond's, or not this version's.
    #[error("row `{pk}` / `{sk}` of the table: {what}")]
    Row {
        /// Partition key.
        pk: String,
        /// Sort key.
        sk: String,
        /// What is wrong with it.
        what: String,
    },
    /// The registration of the pipeline cannot be read.
    #[error("{0}")]
    Registry(String),
    /// The table is not what is needed.
    #[error("{0}")]
    Schema(String),
}

impl From<DynamoError> for StoreError {
    fn from(error: DynamoError) -> Self {
        match error {
            DynamoError::Plan(error) => Self::Plan(Box::new(error)),
            other => Self::Refused(Box::new(other)),
        }
    }
}
