//! The stand-ins for AWS as a child process, so that their CPU time is not the pipeline's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aws_sdk_kinesis::types::StreamStatus;

use crate::child::Child;
use crate::cli::AwsArgs;
use crate::commands::local::{LAST_VARIABLE, REGION, parse_export};

/// Time that they have for small things.
const LIMIT: Duration = Duration::from_secs(30);

const TICK: Duration = Duration::from_millis(50);

/// The child process that stands in for AWS.
#[derive(Debug)]
pub struct StandIns {
    child: Child,
    /// How to reach Kinesis.
    pub kinesis: AwsArgs,
    /// How to reach DynamoDB.
    pub dynamodb: AwsArgs,
}

impl StandIns {
    /// Starts them; tables are kept in a directory, or in memory.
    ///
    /// # Errors
    /// When the child does not come up in time.
    pub async fn start(tables: Option<&Path>) -> Result<Self> {
        let mut arguments: Vec<String> = ["local", "--exit-with-parent"]
            .into_iter()
            .chain(["--kinesis-port=0", "--dynamodb-port=0"])
            .map(str::to_owned)
            .collect();
        if let Some(tables) = tables {
            let path = tables.to_str().context("data directory is not UTF-8")?;
            arguments.push(format!("--data-dir={path}"));
        }
        let mut child = Child::spawn("local", &arguments, &[])?;
        let (mut kinesis, mut dynamodb) = (None, None);
        let environment = async {
            loop {
                let line = child.line().await?;
                match parse_export(&line) {
                    Some((name, _)) if name == LAST_VARIABLE => return Ok(()),
                    Some((name, url)) if name == "AWS_ENDPOINT_URL_KINESIS" => kinesis = Some(url),
                    Some((name, url)) if name == "AWS_ENDPOINT_URL_DYNAMODB" => {
                        dynamodb = Some(url);
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, environment)
            .await
            .unwrap_or_else(|_| bail!("the stand-ins did not start within 30 s"))?;
        let aws = |url: Option<String>| -> Result<AwsArgs> {
            Ok(AwsArgs {
                endpoint_url: Some(url.context("the stand-ins did not say where they listen")?),
                region: Some(REGION.to_owned()),
                profile: None,
            })
        };
        Ok(Self {
            kinesis: aws(kinesis)?,
            dynamodb: aws(dynamodb)?,
            child,
        })
    }

    /// Resolves only when the child has ended, with how it did.
    pub async fn gone(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.child.line().await {
                return error.context("the stand-ins are gone");
            }
        }
    }

    /// Creates a stream and waits until it is active.
    ///
    /// # Errors
    /// When Kinesis refuses, or takes too long.
    pub async fn create_stream(&self, name: &str, shards: i32) -> Result<()> {
        let client = aws_sdk_kinesis::Client::new(&self.kinesis.load().await?);
        let create = client.create_stream().stream_name(name).shard_count(shards);
        create.send().await.context("cannot create the stream")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = client
                .describe_stream_summary()
                .stream_name(name)
                .send()
                .await?;
            let status = answer
                .stream_description_summary()
                .map(|summary| summary.stream_status());
            if status == Some(&StreamStatus::Active) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("stream `{name}` did not become active within 30 s");
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Ends them.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub async fn end(self) -> Result<()> {
        self.child.end().await
    }
}
