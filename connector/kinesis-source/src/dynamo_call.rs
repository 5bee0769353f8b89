//! How a table of DynamoDB comes to be there.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableOutput;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
};
use millpond_connector::aws::FailureKind;
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;
use millpond_leases::CallError;
use tokio::time::{Instant, sleep};

use crate::checkpoint::CheckpointError;
use crate::limits::TABLE_ACTIVE_WITHIN;

/// Waits between two looks at a table.
const LOOKS: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(100), Duration::from_secs(5));

/// Makes a table with one string key if need be (`create`), waits until it is active and checks its key.
///
/// # Errors
/// [`CheckpointError::Table`], see [`crate::dynamo_table::DynamoTable::prepare`].
pub(crate) async fn prepare(
    client: &Client,
    table: &str,
    key: &str,
    create: bool,
) -> Result<(), CheckpointError> {
    let refuse = |reason: String| CheckpointError::Table {
        action: "use",
        table: table.to_owned(),
        reason,
    };
    let mut backoff = Backoff::new(LOOKS);
    let mut missing_since: Option<Instant> = None;
    loop {
        match client.describe_table().table_name(table).send().await {
            Ok(answer) => {
                check_key(&answer, key).map_err(refuse)?;
                let status = answer.table().and_then(|table| table.table_status());
                if matches!(status, Some(TableStatus::Active | TableStatus::Updating)) {
                    return Ok(());
                }
            }
            Err(error) => {
                let error = CallError::from(error);
                if error.has_code("ResourceNotFoundException") {
                    if !create {
                        return Err(refuse(format!(
                            "it does not exist: create it with the partition key `{key}` (a string), \
                             or set `create-lease-table: true`"
                        )));
                    }
                    if missing_since.is_none() {
                        tracing::info!(table, "creating the table");
                        make(client, table, key)
                            .await
                            .map_err(|e| refuse(e.to_string()))?;
                    }
                } else if error.is_transient() {
                    tracing::warn!(table, %error, "cannot look at the lease table, it will be repeated");
                } else {
                    return Err(refuse(error.to_string()));
                }
            }
        }
        let since = *missing_since.get_or_insert_with(Instant::now);
        if create && since.elapsed() > TABLE_ACTIVE_WITHIN {
            tracing::warn!(
                table,
                seconds = since.elapsed().as_secs(),
                "the lease table is not active yet"
            );
        }
        sleep(backoff.next_wait(random::unit()).unwrap_or(LOOKS.cap)).await;
    }
}

async fn make(client: &Client, table: &str, key: &str) -> Result<(), CallError> {
    let request = |message: String| CallError::new(FailureKind::Request, message);
    let schema = KeySchemaElement::builder()
        .attribute_name(key)
        .key_type(KeyType::Hash)
        .build()
        .map_err(|error| request(error.to_string()))?;
    let definition = AttributeDefinition::builder()
        .attribute_name(key)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .map_err(|error| request(error.to_string()))?;
    let call = client.create_table().table_name(table);
    let call = call
        .key_schema(schema)
        .attribute_definitions(definition)
        .billing_mode(BillingMode::PayPerRequest);
    match call.send().await.map_err(CallError::from) {
        // Another instance was first.
        Err(error) if !error.has_code("ResourceInUseException") => Err(error),
        _ => Ok(()),
    }
}

fn check_key(answer: &DescribeTableOutput, key: &str) -> Result<(), String> {
    let Some(table) = answer.table() else {
        return Ok(());
    };
    let schema = table.key_schema();
    let is_string = table.attribute_definitions().iter().any(|definition| {
        definition.attribute_name() == key && *definition.attribute_type() == ScalarAttributeType::S
    });
    let is_right = matches!(schema, [only] if only.attribute_name() == key
        && *only.key_type() == KeyType::Hash);
    if is_right && is_string {
        return Ok(());
    }
    let found: Vec<&str> = schema.iter().map(|key| key.attribute_name()).collect();
    Err(format!(
        "its key is `{}`, and needed is the string `{key}` alone: it is no lease table of the Kinesis \
         Client Library for one stream; use another",
        found.join("`, `")
    ))
}
