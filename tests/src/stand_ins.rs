//! `millpond local` as the AWS of a test.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use millpond::commands::local::{LAST_VARIABLE, parse_export};
use millpond_connector::aws::AwsSettings;

use crate::process::{Running, command};

/// Running stand-ins, and clients of them.
#[derive(Debug)]
pub struct StandIns {
    process: Running,
    /// Environment that points AWS SDKs at them.
    pub environment: Vec<(String, String)>,
    /// Client of the Kinesis stand-in.
    pub kinesis: aws_sdk_kinesis::Client,
    /// Client of the DynamoDB stand-in.
    pub dynamodb: aws_sdk_dynamodb::Client,
}

impl StandIns {
    /// Starts both on free ports.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start(binary: &str) -> Result<Self> {
        let arguments = ["local", "--kinesis-port", "0", "--dynamodb-port", "0"];
        let mut process = Running::start(&mut command(binary, &arguments, &[]))?;
        let mut environment = Vec::new();
        loop {
            let line = process.stdout_line("export ")?;
            let (name, value) = parse_export(&line).context("an export line")?;
            let last = name == LAST_VARIABLE;
            environment.push((name, value));
            if last {
                break;
            }
        }
        let kinesis = settings(&environment, "AWS_ENDPOINT_URL_KINESIS");
        let dynamodb = settings(&environment, "AWS_ENDPOINT_URL_DYNAMODB");
        Ok(Self {
            process,
            kinesis: aws_sdk_kinesis::Client::new(&load(&kinesis, &environment).await?),
            dynamodb: aws_sdk_dynamodb::Client::new(&load(&dynamodb, &environment).await?),
            environment,
        })
    }

    /// URL of the Kinesis stand-in.
    #[must_use]
    pub fn kinesis_url(&self) -> &str {
        value(&self.environment, "AWS_ENDPOINT_URL_KINESIS")
    }

    /// URL of the DynamoDB stand-in.
    #[must_use]
    pub fn dynamodb_url(&self) -> &str {
        value(&self.environment, "AWS_ENDPOINT_URL_DYNAMODB")
    }

    /// The same environment with one endpoint replaced.
    #[must_use]
    pub fn environment_with(&self, name: &str, value: &str) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.retain(|(known, _)| known != name);
        environment.push((name.to_owned(), value.to_owned()));
        environment
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn create_stream(&self, name: &str, shards: i32) -> Result<()> {
        self.kinesis
            .create_stream()
            .stream_name(name)
            .shard_count(shards)
            .send()
            .await?;
        Ok(())
    }

    /// Puts one record.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn put(&self, stream: &str, partition_key: &str, event: &[u8]) -> Result<()> {
        self.kinesis
            .put_record()
            .stream_name(stream)
            .partition_key(partition_key)
            .data(Blob::new(event))
            .send()
            .await?;
        Ok(())
    }

    /// Puts records with their partition keys in one call.
    ///
    /// # Errors
    /// When the stand-in refuses any of them.
    pub async fn put_all(&self, stream: &str, records: Vec<(String, Vec<u8>)>) -> Result<()> {
        let mut put = self.kinesis.put_records().stream_name(stream);
        for (partition_key, event) in records {
            let entry = PutRecordsRequestEntry::builder().partition_key(partition_key);
            put = put.records(entry.data(Blob::new(event)).build()?);
        }
        let failed = put.send().await?.failed_record_count.unwrap_or(0);
        ensure!(failed == 0, "{failed} records were refused");
        Ok(())
    }

    /// All records of a stream, shard by shard.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn records(&self, stream: &str) -> Result<Vec<Vec<u8>>> {
        let shards = self
            .kinesis
            .list_shards()
            .stream_name(stream)
            .send()
            .await?;
        let mut records = Vec::new();
        for shard in shards.shards() {
            let iterator = self.kinesis.get_shard_iterator().stream_name(stream);
            let iterator = iterator
                .shard_id(shard.shard_id())
                .shard_iterator_type(ShardIteratorType::TrimHorizon);
            let mut iterator = iterator.send().await?.shard_iterator;
            while let Some(at) = iterator.take() {
                let page = self.kinesis.get_records().shard_iterator(at).send().await?;
                let is_end = page.millis_behind_latest() == Some(0) && page.records().is_empty();
                records.extend(
                    page.records
                        .into_iter()
                        .map(|record| record.data.into_inner()),
                );
                iterator = page.next_shard_iterator.filter(|_| !is_end);
            }
        }
        Ok(records)
    }

    /// All items of a table.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn scan(
        &self,
        table: &str,
    ) -> Result<Vec<std::collections::HashMap<String, AttributeValue>>> {
        let mut items = Vec::new();
        let mut pages = self
            .dynamodb
            .scan()
            .table_name(table)
            .consistent_read(true)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            items.extend(page?.items.unwrap_or_default());
        }
        Ok(items)
    }

    /// Process id of the stand-ins.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

/// A client of another Kinesis than the stand-in's, with the same credentials.
///
/// # Errors
/// When the configuration cannot be loaded.
pub async fn kinesis_at(
    endpoint: &str,
    environment: &[(String, String)],
) -> Result<aws_sdk_kinesis::Client> {
    let settings = AwsSettings {
        region: Some(value(environment, "AWS_REGION").to_owned()),
        endpoint: Some(endpoint.to_owned()),
        profile: None,
    };
    Ok(aws_sdk_kinesis::Client::new(
        &load(&settings, environment).await?,
    ))
}

fn value<'a>(environment: &'a [(String, String)], name: &str) -> &'a str {
    environment
        .iter()
        .find(|(known, _)| known == name)
        .map_or("", |(_, value)| value)
}

fn settings(environment: &[(String, String)], endpoint: &str) -> AwsSettings {
    AwsSettings {
        region: Some(value(environment, "AWS_REGION").to_owned()),
        endpoint: Some(value(environment, endpoint).to_owned()),
        profile: None,
    }
}

async fn load(
    settings: &AwsSettings,
    environment: &[(String, String)],
) -> Result<aws_config::SdkConfig> {
    let credentials = aws_sdk_dynamodb::config::Credentials::new(
        value(environment, "AWS_ACCESS_KEY_ID"),
        value(environment, "AWS_SECRET_ACCESS_KEY"),
        None,
        None,
        "tests",
    );
    let provider = aws_sdk_dynamodb::config::SharedCredentialsProvider::new(credentials);
    let config = settings.load().await?;
    Ok(config
        .into_builder()
        .credentials_provider(provider)
        .timeout_config(
            aws_config::timeout::TimeoutConfig::builder()
                .operation_timeout(Duration::from_secs(60))
                .build(),
        )
        .build())
}
