//! A table as one process sees it, with something between the two.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_dynamodb_sink::client::memory::MemoryTable;
use millpond_dynamodb_sink::client::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription, TailPage,
};
use millpond_dynamodb_sink::row::{Key, Row};
use millpond_sink::claim::Claim;
use tokio::time::sleep;

/// What a process is about to ask of the table.
pub enum Call<'a> {
    /// A batch of rows.
    Rows(&'a [Arc<Row>]),
    /// A batch of items, under a claim.
    Items(&'a [Arc<Row>]),
    Get,
    Put,
    Delete,
    Tail,
}

/// What is between.
#[async_trait]
pub trait Tap: Send + Sync {
    /// Before a call is made; where there is a claim, before it is looked at.
    async fn before(&self, call: Call<'_>);

    /// So long a batch of items is on its way; it arrives even when its sender is gone.
    fn way(&self) -> Duration {
        Duration::ZERO
    }
}

/// A table behind it.
pub struct Tapped<T> {
    pub table: MemoryTable,
    pub tap: T,
}

#[async_trait]
impl<T: Tap> TableApi for Tapped<T> {
    fn name(&self) -> &str {
        self.table.name()
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        self.table.describe().await
    }

    async fn create(&self, capacity: Capacity) -> Result<(), ApiFailure> {
        self.table.create(capacity).await
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        self.tap.before(Call::Rows(rows)).await;
        self.table.batch_write(rows).await
    }

    async fn batch_write_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        self.tap.before(Call::Items(rows)).await;
        if !claim.is_fresh() {
            return Err(ApiFailure::unsent());
        }
        let (table, rows, way) = (self.table.clone(), rows.to_vec(), self.tap.way());
        let arrives = tokio::spawn(async move {
            sleep(way).await;
            table.batch_write(&rows).await
        });
        arrives.await.expect("a call")
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure> {
        self.tap.before(Call::Get).await;
        self.table.get(key).await
    }

    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure> {
        self.tap.before(Call::Put).await;
        self.table.put(row, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure> {
        self.tap.before(Call::Delete).await;
        self.table.delete(key).await
    }

    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure> {
        self.tap.before(Call::Tail).await;
        self.table.tail(pk, before, limit, attribute).await
    }
}
