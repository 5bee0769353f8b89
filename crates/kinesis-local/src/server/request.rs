//! Requests, as the API reference spells them. Unknown members are ignored, as AWS does.

use std::borrow::Cow;

use serde::Deserialize;

use super::fault::Fault;
use crate::model::{Kinesis, ParseShardIdError, ShardFilter, ShardId, StreamMode};

pub(crate) type Text<'a> = Cow<'a, str>;

/// The two ways to name a stream.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Stream<'a> {
    #[serde(rename = "StreamName")]
    name: Option<Text<'a>>,
    #[serde(rename = "StreamARN")]
    arn: Option<Text<'a>>,
}

impl Stream<'_> {
    pub(crate) fn new<'a>(name: Option<Text<'a>>, arn: Option<Text<'a>>) -> Stream<'a> {
        Stream { name, arn }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.name.is_some() || self.arn.is_some()
    }

    /// The name, once both ways agree.
    pub(crate) fn name<P>(&self, kinesis: &Kinesis<P>) -> Result<&str, Fault> {
        let Some(arn) = self.arn.as_deref() else {
            return self.name.as_deref().ok_or_else(|| {
                Fault::invalid("the request names no stream: give `StreamName` or `StreamARN`")
            });
        };
        let name = arn.rsplit_once(":stream/").map_or("", |(_, name)| name);
        if kinesis.arn(name) != arn {
            let message = format!(
                "`StreamARN` is not of this server, whose streams are `{}`",
                kinesis.arn("*")
            );
            return Err(Fault::new("ResourceNotFoundException", message));
        }
        match self.name.as_deref() {
            Some(other) if other != name => Err(Fault::invalid(format!(
                "`StreamName` `{other}` and `StreamARN` `{arn}` name different streams"
            ))),
            _ => Ok(name),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecords<'a> {
    #[serde(borrow)]
    pub(crate) records: Vec<PutEntry<'a>>,
    pub(crate) stream_name: Option<Text<'a>>,
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutEntry<'a> {
    /// Base64, borrowed from the body unless a client escapes its slashes.
    #[serde(borrow)]
    pub(crate) data: Text<'a>,
    #[serde(borrow)]
    pub(crate) partition_key: Text<'a>,
    pub(crate) explicit_hash_key: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRecord<'a> {
    #[serde(borrow)]
    pub(crate) data: Text<'a>,
    #[serde(borrow)]
    pub(crate) partition_key: Text<'a>,
    pub(crate) explicit_hash_key: Option<Text<'a>>,
    pub(crate) sequence_number_for_ordering: Option<Text<'a>>,
    pub(crate) stream_name: Option<Text<'a>>,
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecords<'a> {
    #[serde(borrow)]
    pub(crate) shard_iterator: Text<'a>,
    pub(crate) limit: Option<i64>,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetShardIterator<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) shard_id: Text<'a>,
    pub(crate) shard_iterator_type: Text<'a>,
    pub(crate) starting_sequence_number: Option<Text<'a>>,
    pub(crate) timestamp: Option<f64>,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// `RegisterStreamConsumer`, and the other two when they name a consumer.
#[derive(Debug, Deserialize)]
pub(crate) struct Consumer<'a> {
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: Option<Text<'a>>,
    #[serde(rename = "ConsumerName")]
    pub(crate) consumer_name: Option<Text<'a>>,
    #[serde(rename = "ConsumerARN")]
    pub(crate) consumer_arn: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreamConsumers<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) next_token: Option<Text<'a>>,
    pub(crate) max_results: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SubscribeToShard<'a> {
    #[serde(rename = "ConsumerARN")]
    pub(crate) consumer_arn: Text<'a>,
    pub(crate) shard_id: Text<'a>,
    pub(crate) starting_position: StartingPosition<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StartingPosition<'a> {
    pub(crate) r#type: Text<'a>,
    pub(crate) sequence_number: Option<Text<'a>>,
    pub(crate) timestamp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateStream<'a> {
    pub(crate) stream_name: Text<'a>,
    pub(crate) shard_count: Option<i64>,
    pub(crate) stream_mode_details: Option<StreamModeDetails<'a>>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    pub(crate) max_record_kib: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamModeDetails<'a> {
    stream_mode: Text<'a>,
}

impl StreamModeDetails<'_> {
    pub(crate) fn mode(&self) -> Result<StreamMode, Fault> {
        match &*self.stream_mode {
            "PROVISIONED" => Ok(StreamMode::Provisioned),
            "ON_DEMAND" => Ok(StreamMode::OnDemand),
            other => Err(one_of("StreamMode", other, "`PROVISIONED` or `ON_DEMAND`")),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneStream<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DescribeStream<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) limit: Option<i64>,
    pub(crate) exclusive_start_shard_id: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListStreams<'a> {
    pub(crate) limit: Option<i64>,
    pub(crate) exclusive_start_stream_name: Option<Text<'a>>,
    pub(crate) next_token: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListShards<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) next_token: Option<Text<'a>>,
    pub(crate) exclusive_start_shard_id: Option<Text<'a>>,
    pub(crate) max_results: Option<i64>,
    pub(crate) shard_filter: Option<Filter<'a>>,
    pub(crate) stream_creation_timestamp: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Filter<'a> {
    r#type: Text<'a>,
    shard_id: Option<Text<'a>>,
    timestamp: Option<f64>,
}

impl Filter<'_> {
    pub(crate) fn filter(&self) -> Result<ShardFilter, Fault> {
        let missing = |member: &str| {
            Fault::invalid(format!("`ShardFilter` `{}` needs `{member}`", self.r#type))
        };
        let at_ms = || {
            self.timestamp
                .ok_or_else(|| missing("Timestamp"))
                .and_then(unix_ms)
        };
        Ok(match &*self.r#type {
            "FROM_TRIM_HORIZON" => ShardFilter::FromTrimHorizon,
            "AT_TRIM_HORIZON" => ShardFilter::AtTrimHorizon,
            "AT_LATEST" => ShardFilter::AtLatest,
            "AT_TIMESTAMP" => ShardFilter::AtTimestamp(at_ms()?),
            "FROM_TIMESTAMP" => ShardFilter::FromTimestamp(at_ms()?),
            "AFTER_SHARD_ID" => ShardFilter::AfterShardId(shard_id(
                self.shard_id.as_deref().ok_or_else(|| missing("ShardId"))?,
            )?),
            other => {
                return Err(one_of(
                    "Type",
                    other,
                    "`AFTER_SHARD_ID`, `AT_TRIM_HORIZON`, `FROM_TRIM_HORIZON`, `AT_LATEST`, `AT_TIMESTAMP` or \
                     `FROM_TIMESTAMP`",
                ));
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SplitShard<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) shard_to_split: Text<'a>,
    pub(crate) new_starting_hash_key: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MergeShards<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) shard_to_merge: Text<'a>,
    pub(crate) adjacent_shard_to_merge: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateShardCount<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) target_shard_count: i64,
    pub(crate) scaling_type: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Retention<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) retention_period_hours: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateStreamMode<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    pub(crate) stream_mode_details: StreamModeDetails<'a>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UpdateMaxRecordSize<'a> {
    #[serde(flatten)]
    pub(crate) stream: Stream<'a>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    pub(crate) max_record_kib: i64,
}

pub(crate) fn shard_id(text: &str) -> Result<ShardId, Fault> {
    // AWS takes any text here, and finds no such shard.
    text.parse().map_err(|error: ParseShardIdError| {
        Fault::new("ResourceNotFoundException", error.to_string())
    })
}

/// A number that cannot be negative, for the model to check further.
pub(crate) fn unsigned<T: TryFrom<i64>>(name: &str, value: i64) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| Fault::validation(format!("`{name}` is out of range: {value}")))
}

/// Seconds since the Unix epoch, to milliseconds.
pub(crate) fn unix_ms(seconds: f64) -> Result<u64, Fault> {
    let ms = (seconds * 1_000.0).round();
    // Beyond 2^53 a double no longer tells milliseconds apart.
    if !(0.0..9.0e15).contains(&ms) {
        return Err(Fault::invalid(format!(
            "`{seconds}` is no time in seconds since the Unix epoch"
        )));
    }
    Ok(ms as u64)
}

pub(crate) fn one_of(name: &str, value: &str, allowed: &str) -> Fault {
    let value: String = value.chars().take(80).collect();
    Fault::validation(format!("`{name}` is {allowed}, was `{value}`"))
}

/// `DryRun` asks for a check of permissions, of which there are none here.
pub(crate) fn refuse_dry_run(dry_run: bool) -> Result<(), Fault> {
    if !dry_run {
        return Ok(());
    }
    Err(Fault::invalid(
        "`DryRun` is not supported by the local Kinesis: leave it out",
    ))
}
