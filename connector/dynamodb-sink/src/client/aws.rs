//! The real table, through the AWS SDK. The SDK's own retries are off (see
//! `millpond_connector::aws`): a retry happens once, in [`crate::writer`].

mod batch;
mod items;

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConsumedCapacity, KeySchemaElement, KeyType,
    ProvisionedThroughput, ReturnConsumedCapacity, ScalarAttributeType,
    TableDescription as ApiTableDescription, TableStatus, ThrottlingReason,
};
use aws_smithy_runtime_api::http::Response;
use millpond_connector::aws::{FailureKind, describe, failure_kind};
use millpond_sink::claim::Claim;

use super::{
    ApiFailure, BatchOutcome, Capacity, Condition, PutOutcome, TableApi, TableDescription,
    TailPage, Verdict, classify,
};
use crate::pacing::WriteCapacity;
use crate::row::{Key, KeyNames, Row};

/// A table of the service.
#[derive(Debug, Clone)]
pub struct AwsTable {
    client: Client,
    table: String,
    keys: KeyNames,
}

impl AwsTable {
    /// A table by name; nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, table: String, keys: KeyNames) -> Self {
        Self {
            client,
            table,
            keys,
        }
    }
}

#[async_trait]
impl TableApi for AwsTable {
    fn name(&self) -> &str {
        &self.table
    }

    async fn describe(&self) -> Result<Option<TableDescription>, ApiFailure> {
        let call = self.client.describe_table().table_name(&self.table);
        let table = match call.send().await {
            Ok(answer) => answer.table,
            Err(error) => {
                let failure = failure(&error, &[]);
                if failure.verdict == Verdict::NoTable {
                    return Ok(None);
                }
                return Err(failure);
            }
        };
        let table = table.ok_or_else(|| cut("a table"))?;
        let status = table.table_status().cloned();
        let type_of = |name: &str| {
            let mut definitions = table.attribute_definitions().iter();
            definitions
                .find(|definition| definition.attribute_name() == name)
                .map_or("?", |definition| definition.attribute_type().as_str())
                .to_owned()
        };
        let keys = table.key_schema().iter().map(|key| {
            let name = key.attribute_name().to_owned();
            let kind = type_of(&name);
            (name, key.key_type().as_str().to_owned(), kind)
        });
        Ok(Some(TableDescription {
            active: matches!(status, Some(TableStatus::Active | TableStatus::Updating)),
            status: status.map_or_else(|| "?".to_owned(), |status| status.as_str().to_owned()),
            keys: keys.collect(),
            capacity: write_capacity(&table),
        }))
    }

    async fn create(&self, capacity: Capacity) -> Result<(), ApiFailure> {
        let mut call = self.client.create_table().table_name(&self.table);
        for (name, role) in [
            (&self.keys.partition, KeyType::Hash),
            (&self.keys.sort, KeyType::Range),
        ] {
            let key = KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(role);
            let definition = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S);
            call = call
                .key_schema(key.build().map_err(|error| unbuilt(&error))?)
                .attribute_definitions(definition.build().map_err(|error| unbuilt(&error))?);
        }
        call = match capacity {
            Capacity::OnDemand => call.billing_mode(BillingMode::PayPerRequest),
            Capacity::Provisioned {
                read_units,
                write_units,
            } => {
                let units = |units| i64::try_from(units).unwrap_or(i64::MAX);
                let throughput = ProvisionedThroughput::builder()
                    .read_capacity_units(units(read_units))
                    .write_capacity_units(units(write_units));
                call.billing_mode(BillingMode::Provisioned)
                    .provisioned_throughput(throughput.build().map_err(|error| unbuilt(&error))?)
            }
        };
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) => match failure(&error, &[]) {
                failure if failure.verdict == Verdict::InUse => Ok(()),
                failure => Err(failure),
            },
        }
    }

    async fn batch_write(&self, rows: &[Arc<Row>]) -> Result<BatchOutcome, ApiFailure> {
        self.write_batch(rows).await
    }

    async fn batch_write_under(
        &self,
        rows: &[Arc<Row>],
        claim: &Arc<Claim>,
    ) -> Result<BatchOutcome, ApiFailure> {
        self.write_batch_under(rows, claim).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, ApiFailure> {
        let call = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(self.key_attributes(key)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.send().await.map_err(|error| failure(&error, &[]))?;
        if answer.consumed_capacity.is_none() {
            return Err(cut("consumed capacity"));
        }
        Ok(answer.item.and_then(|item| self.to_row(item)))
    }

    async fn put(&self, row: &Row, condition: &Condition) -> Result<PutOutcome, ApiFailure> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(self.to_item(row)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let absent = "attribute_not_exists(#pk)".to_owned();
        let number = |value: i64| AttributeValue::N(value.to_string());
        let call = match condition {
            Condition::Absent => call
                .condition_expression(absent)
                .expression_attribute_names("#pk", &self.keys.partition),
            Condition::AbsentOrBelow(name, value) => call
                .condition_expression(format!("{absent} OR #a < :a"))
                .expression_attribute_names("#pk", &self.keys.partition)
                .expression_attribute_names("#a", *name)
                .expression_attribute_values(":a", number(*value)),
            Condition::AbsentOrAtMost(name, value) => call
                .condition_expression(format!("{absent} OR #a <= :a"))
                .expression_attribute_names("#pk", &self.keys.partition)
                .expression_attribute_names("#a", name)
                .expression_attribute_values(":a", AttributeValue::S(value.clone())),
            Condition::AbsentOrSame(name, value) => call
                .condition_expression(format!("{absent} OR #a = :a"))
                .expression_attribute_names("#pk", &self.keys.partition)
                .expression_attribute_names("#a", name)
                .expression_attribute_values(":a", AttributeValue::S(value.clone())),
            Condition::Equals(pairs) => {
                let parts = (0..pairs.len()).map(|i| format!("#a{i} = :a{i}"));
                let expression = parts.collect::<Vec<_>>().join(" AND ");
                let pairs = pairs.iter().enumerate();
                pairs.fold(call.condition_expression(expression), |call, (i, pair)| {
                    call.expression_attribute_names(format!("#a{i}"), pair.0)
                        .expression_attribute_values(format!(":a{i}"), number(pair.1))
                })
            }
        };
        match call.send().await {
            Ok(answer) => match answer.consumed_capacity() {
                Some(consumed) => Ok(PutOutcome {
                    applied: true,
                    units: units(consumed),
                }),
                None => Err(cut("consumed capacity")),
            },
            Err(error) => {
                let reasons = match error.as_service_error() {
                    Some(PutItemError::ProvisionedThroughputExceededException(e)) => {
                        e.throttling_reasons()
                    }
                    Some(PutItemError::RequestLimitExceeded(e)) => e.throttling_reasons(),
                    Some(PutItemError::ThrottlingException(e)) => e.throttling_reasons(),
                    _ => &[],
                };
                let failure = failure(&error, reasons);
                if failure.verdict == Verdict::ConditionFailed {
                    return Ok(PutOutcome {
                        applied: false,
                        // Billed, but the answer does not say how much.
                        units: row.size(&self.keys).write_units() as f64,
                    });
                }
                Err(failure)
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<f64, ApiFailure> {
        let call = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(self.key_attributes(key)))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = call.send().await.map_err(|error| failure(&error, &[]))?;
        let consumed = answer.consumed_capacity();
        consumed.map(units).ok_or_else(|| cut("consumed capacity"))
    }

    async fn tail(
        &self,
        pk: &str,
        before: Option<&str>,
        limit: usize,
        attribute: &str,
    ) -> Result<TailPage, ApiFailure> {
        let mut call = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression(match before {
                Some(_) => "#pk = :pk AND #sk < :sk",
                None => "#pk = :pk",
            })
            .expression_attribute_names("#pk", &self.keys.partition)
            .expression_attribute_names("#sk", &self.keys.sort)
            .expression_attribute_names("#attribute", attribute)
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
            .projection_expression("#pk, #sk, #attribute")
            .scan_index_forward(false)
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        if let Some(before) = before {
            call = call.expression_attribute_values(":sk", AttributeValue::S(before.to_owned()));
        }
        let answer = call.send().await.map_err(|error| failure(&error, &[]))?;
        if answer.consumed_capacity.is_none() {
            return Err(cut("consumed capacity"));
        }
        let more = answer.last_evaluated_key.is_some();
        let items = answer.items.unwrap_or_default();
        Ok(TailPage {
            rows: items
                .into_iter()
                .filter_map(|item| self.to_row(item))
                .collect(),
            more,
        })
    }
}

/// A table that is paid per request is described with a provisioned capacity of zero.
fn write_capacity(table: &ApiTableDescription) -> WriteCapacity {
    let positive = |units: i64| u64::try_from(units).ok().filter(|units| *units > 0);
    let provisioned = table.provisioned_throughput();
    let provisioned = provisioned.and_then(|of| of.write_capacity_units());
    match provisioned.and_then(positive) {
        Some(units) => WriteCapacity::Provisioned(units),
        None => WriteCapacity::OnDemand {
            max: table
                .on_demand_throughput()
                .and_then(|of| of.max_write_request_units())
                .and_then(positive),
        },
    }
}

fn units(capacity: &ConsumedCapacity) -> f64 {
    capacity.capacity_units().unwrap_or(0.0)
}

fn unbuilt(error: &dyn std::fmt::Display) -> ApiFailure {
    ApiFailure {
        verdict: Verdict::Rejected,
        message: format!("request cannot be built: {error}"),
    }
}

/// An answer that lost its body: to the SDK one without a body is one without anything in it. So
/// each call asks for something that a whole answer has.
fn cut(missing: &str) -> ApiFailure {
    ApiFailure {
        verdict: Verdict::Transient,
        message: format!("answer cannot be read: it says nothing of {missing}"),
    }
}

fn failure<E>(error: &SdkError<E, Response>, reasons: &[ThrottlingReason]) -> ApiFailure
where
    E: Error + ProvideErrorMetadata + 'static,
{
    let verdict = match failure_kind(error) {
        FailureKind::Service => classify(
            error.as_service_error().and_then(|service| service.code()),
            reasons.iter().filter_map(|reason| reason.reason()),
            error
                .raw_response()
                .map(|response| response.status().as_u16()),
        ),
        FailureKind::Credentials => Verdict::Credentials(
            "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or name a profile",
        ),
        FailureKind::Request => Verdict::Fatal("check `endpoint`"),
        FailureKind::Unreachable | FailureKind::Timeout | FailureKind::Answer => Verdict::Transient,
    };
    let mut message = describe(error);
    let said: Vec<&str> = reasons
        .iter()
        .filter_map(|reason| reason.reason())
        .collect();
    if !said.is_empty() {
        message = format!("{message} ({})", said.join(", "));
    }
    ApiFailure { verdict, message }
}
