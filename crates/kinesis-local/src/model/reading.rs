//! `GetShardIterator` and `GetRecords`.

use super::{
    HashKeyRange, Kinesis, KinesisError, ModelConfig, Record, SequenceNumber, ShardId,
    kinesis::no_stream,
    limits::{ITERATOR_LIFE_MS, MAX_GET_BYTES, MAX_GET_RECORDS},
    record::Clip,
    shard::Shard,
    stream::Stream,
    token::Token,
};
use crate::model::ErrorKind;

/// Where a shard iterator starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IteratorStart<'a> {
    /// The oldest record kept.
    TrimHorizon,
    /// After the newest record of this moment.
    Latest,
    /// The record with this sequence number.
    AtSequenceNumber(&'a str),
    /// The record after the one with this sequence number.
    AfterSequenceNumber(&'a str),
    /// The first record that arrived at this time (Unix milliseconds) or later.
    AtTimestamp(u64),
}

/// One answer of `GetRecords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRecordsPage<P> {
    /// The records, oldest first.
    pub records: Vec<Record<P>>,
    /// The iterator to go on with; `None` at the end of a closed shard.
    pub next_shard_iterator: Option<String>,
    /// Age of the first record not yet returned, in milliseconds; 0 if there is none.
    pub millis_behind_latest: u64,
    /// The shards that continue this one, at the end of a closed shard.
    pub child_shards: Vec<ChildShard>,
}

/// A shard that continues another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    /// The child.
    pub shard_id: ShardId,
    /// All its parents: one after a split, two after a merge.
    pub parent_shards: Vec<ShardId>,
    /// Its part of the hash space.
    pub hash_key_range: HashKeyRange,
}

impl<P> Kinesis<P> {
    /// An iterator on a shard.
    ///
    /// # Errors
    /// `ResourceNotFoundException` (stream or shard), `InvalidArgumentException` (a sequence
    /// number that is not of this shard, or a time to come).
    pub fn get_shard_iterator(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        shard_id: ShardId,
        start: IteratorStart<'_>,
    ) -> Result<String, KinesisError> {
        let now_ms = self.advance(now_ms);
        let stream = self.stream(stream_name)?;
        stream.check_usable(&self.config)?;
        let shard = stream.shard(shard_id, &self.config)?;
        let ordinal = start_ordinal(stream, shard, start, now_ms)?;
        Ok(self.tokens.seal(&Token::Iterator {
            issued_ms: now_ms,
            stream: stream.reference(),
            shard: shard_id,
            ordinal,
        }))
    }

    /// Records from an iterator on: at most `limit` (10,000 if `None`), at most 10 MiB.
    ///
    /// # Errors
    /// `InvalidArgumentException` (limit out of range, no iterator of this model),
    /// `ExpiredIteratorException`, `ResourceNotFoundException` (stream or shard are gone),
    /// `ProvisionedThroughputExceededException` (read limits, if they are on).
    pub fn get_records(
        &mut self,
        now_ms: u64,
        shard_iterator: &str,
        limit: Option<usize>,
    ) -> Result<GetRecordsPage<P>, KinesisError>
    where
        P: Clone,
    {
        let limit = limit.unwrap_or(MAX_GET_RECORDS);
        if limit == 0 || limit > MAX_GET_RECORDS {
            return Err(KinesisError::invalid(format!(
                "`Limit` is 1 to {MAX_GET_RECORDS}, was {limit}"
            )));
        }
        let Some(Token::Iterator {
            issued_ms,
            stream: reference,
            shard: shard_id,
            ordinal,
        }) = self.tokens.open(shard_iterator)
        else {
            return Err(KinesisError::invalid(format!(
                "`ShardIterator` `{}` is none",
                Clip(shard_iterator)
            )));
        };
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(&reference.name)?;
        if stream.uid != reference.uid {
            return Err(no_stream(&reference.name, config));
        }
        stream.check_usable(config)?;
        if now_ms.saturating_sub(issued_ms) > ITERATOR_LIFE_MS {
            return Err(KinesisError::new(
                ErrorKind::ExpiredIterator,
                format!(
                    "`ShardIterator` was issued at {issued_ms} ms, now is {now_ms} ms: it lives {ITERATOR_LIFE_MS} ms"
                ),
            ));
        }
        let Some(shard) = stream.shards.get_mut(&shard_id) else {
            return Err(stream.no_shard(shard_id, config));
        };
        let allowance = allowance(shard, now_ms, &reference.name, config)?;
        let records = take(shard, ordinal, limit, allowance);
        let bytes: u64 = records.iter().map(|record| record.size_bytes as u64).sum();
        let next = shard.ordinal_after(ordinal, records.len());
        let behind = shard.records_from(next).next();
        if records.is_empty() && behind.is_some() {
            return Err(rate_exceeded(shard_id, &reference.name, config));
        }
        // A record of this very millisecond is behind, too: only 0 means caught up.
        let millis_behind_latest =
            behind.map_or(0, |record| now_ms.saturating_sub(record.arrival_ms).max(1));
        let ended = behind.is_none() && !shard.is_open();
        if let Some(meter) = &mut shard.read_meter {
            meter.count(now_ms, bytes);
        }
        let child_shards = if ended {
            stream.children(shard_id)
        } else {
            Vec::new()
        };
        let next_token = Token::Iterator {
            issued_ms: now_ms,
            stream: reference,
            shard: shard_id,
            ordinal: next,
        };
        let next_shard_iterator = (!ended).then(|| self.tokens.seal(&next_token));
        Ok(GetRecordsPage {
            records,
            next_shard_iterator,
            millis_behind_latest,
            child_shards,
        })
    }
}

/// The ordinal that a start means.
pub(super) fn start_ordinal<P>(
    stream: &Stream<P>,
    shard: &Shard<P>,
    start: IteratorStart<'_>,
    now_ms: u64,
) -> Result<u64, KinesisError> {
    Ok(match start {
        IteratorStart::TrimHorizon => shard.ordinal_at_time(0),
        IteratorStart::Latest => shard.next_ordinal(),
        IteratorStart::AtSequenceNumber(text) => at_sequence_number(stream, shard, text, true)?,
        IteratorStart::AfterSequenceNumber(text) => at_sequence_number(stream, shard, text, false)?,
        IteratorStart::AtTimestamp(at_ms) if at_ms > now_ms => {
            return Err(KinesisError::invalid(format!(
                "`Timestamp` {at_ms} ms is later than now, {now_ms} ms: use LATEST to read what is still to come"
            )));
        }
        IteratorStart::AtTimestamp(at_ms) => shard.ordinal_at_time(at_ms),
    })
}

fn allowance<P>(
    shard: &mut Shard<P>,
    now_ms: u64,
    stream_name: &str,
    config: &ModelConfig,
) -> Result<u64, KinesisError> {
    match &mut shard.read_meter {
        None => Ok(u64::MAX),
        Some(meter) => meter
            .allowance(now_ms)
            .ok_or_else(|| rate_exceeded(shard.id, stream_name, config)),
    }
}

fn take<P: Clone>(shard: &Shard<P>, ordinal: u64, limit: usize, allowance: u64) -> Vec<Record<P>> {
    let most = allowance.min(MAX_GET_BYTES as u64);
    let mut bytes = 0;
    shard
        .records_from(ordinal)
        .take(limit)
        .take_while(|record| {
            bytes += record.size_bytes as u64;
            bytes <= most
        })
        .cloned()
        .collect()
}

fn at_sequence_number<P>(
    stream: &Stream<P>,
    shard: &Shard<P>,
    text: &str,
    inclusive: bool,
) -> Result<u64, KinesisError> {
    let number: SequenceNumber = text.parse().map_err(|error| {
        KinesisError::invalid(format!(
            "`StartingSequenceNumber` `{}`: {error}",
            Clip(text)
        ))
    })?;
    shard
        .ordinal_at_sequence_number(number, inclusive)
        .ok_or_else(|| {
            KinesisError::invalid(format!(
                "`StartingSequenceNumber` `{text}` was not given out by shard `{}` of stream `{}`",
                shard.id, stream.name
            ))
        })
}

impl<P> Stream<P> {
    /// The shards that continue this one and are still known.
    pub(super) fn children(&self, shard_id: ShardId) -> Vec<ChildShard> {
        let shard = self.shards.get(&shard_id);
        let children = shard.into_iter().flat_map(|shard| &shard.children);
        children
            .filter_map(|id| self.shards.get(id))
            .map(|child| ChildShard {
                shard_id: child.id,
                parent_shards: child.parents.ids().collect(),
                hash_key_range: child.range,
            })
            .collect()
    }
}

fn rate_exceeded(shard_id: ShardId, stream_name: &str, config: &ModelConfig) -> KinesisError {
    KinesisError::throughput(format!(
        "rate exceeded for shard `{shard_id}` in stream `{stream_name}` under account {}",
        config.account_id
    ))
}
