//! Batches of rows: which of them were left, and a gate for those of a plan.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::types::{PutRequest, ReturnConsumedCapacity, WriteRequest};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use millpond_sink::claim::Claim;

use super::{AwsTable, cut, failure, unbuilt, units};
use crate::client::{ApiFailure, BatchOutcome};
use crate::row::Row;

impl AwsTable {
    /// Puts rows.
    pub(super) async fn write_batch(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        self.send_batch(rows, None).await
    }

    /// Puts rows under a claim: nothing is sent once that is stale.
    pub(super) async fn write_batch_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        let gate = Gate {
            claim: claim.clone(),
            closed: Arc::default(),
        };
        let written = self.send_batch(rows, Some(gate.clone())).await;
        match gate.closed.load(Ordering::Relaxed) {
            true => Err(ApiFailure::unsent()),
            false => written,
        }
    }

    /// Puts rows; with a gate only while that is open.
    async fn send_batch(
        &self,
        rows: &[Arc<Row>],
        gate: Option<Gate>,
    ) -> Result<BatchOutcome, ApiFailure> {
        let mut requests = Vec::with_capacity(rows.len());
        for row in rows {
            let put = PutRequest::builder().set_item(Some(self.to_item(row)));
            let put = put.build().map_err(|error| unbuilt(&error))?;
            requests.push(WriteRequest::builder().put_request(put).build());
        }
        let call = self
            .client
            .batch_write_item()
            .request_items(&self.table, requests)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize();
        let call = match gate {
            Some(gate) => call.interceptor(gate),
            None => call,
        };
        let answer = call.send().await.map_err(|error| {
            let reasons = match error.as_service_error() {
                Some(BatchWriteItemError::ProvisionedThroughputExceededException(e)) => {
                    e.throttling_reasons()
                }
                Some(BatchWriteItemError::RequestLimitExceeded(e)) => e.throttling_reasons(),
                Some(BatchWriteItemError::ThrottlingException(e)) => e.throttling_reasons(),
                _ => &[],
            };
            failure(&error, reasons)
        })?;
        if answer.consumed_capacity.is_none() {
            return Err(cut("consumed capacity"));
        }
        let index: HashMap<(&str, &str), usize> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| ((row.key.pk.as_str(), row.key.sk.as_str()), index))
            .collect();
        let mut unprocessed = Vec::new();
        for request in answer
            .unprocessed_items()
            .into_iter()
            .flatten()
            .flat_map(|(_, r)| r)
        {
            let item = request.put_request().map(PutRequest::item);
            let text = |name: &str| {
                let value = item.and_then(|item| item.get(name));
                value
                    .and_then(|value| value.as_s().ok())
                    .map(String::as_str)
            };
            let key = text(&self.keys.partition).zip(text(&self.keys.sort));
            let Some(found) = key.and_then(|key| index.get(&key)) else {
                // Which row it was cannot be told, so none of them counts as written.
                unprocessed = (0..rows.len()).collect();
                break;
            };
            unprocessed.push(*found);
        }
        unprocessed.sort_unstable();
        unprocessed.dedup();
        Ok(BatchOutcome {
            unprocessed,
            units: answer.consumed_capacity().iter().map(units).sum(),
        })
    }
}

/// Stops a request that a stale writer has signed, right before it is sent. A process that is paused after that sends
/// what has an end: the service takes a signature for some minutes only.
#[derive(Debug, Clone)]
struct Gate {
    claim: Arc<Claim>,
    /// It stopped one.
    closed: Arc<AtomicBool>,
}

impl Intercept for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.claim.is_fresh() {
            return Ok(());
        }
        self.closed.store(true, Ordering::Relaxed);
        Err("the ledger row was not looked at for too long".into())
    }
}
