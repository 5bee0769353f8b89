//! What there is: streams and shards.

use super::{
    ErrorKind, HashKeyRange, Kinesis, KinesisError, SequenceNumber, ShardId, StreamMode,
    StreamStatus,
    kinesis::no_stream,
    limits::{
        DESCRIBE_STREAM_PAGE, LIST_SHARDS_PAGE, LIST_STREAMS_PAGE, MAX_LISTING_LIMIT,
        NEXT_TOKEN_LIFE_MS,
    },
    record::Clip,
    shard::{Parents, Shard},
    stream::Stream,
    token::Token,
};

/// Which shards `ListShards` shows. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardFilter {
    /// Every shard that may still hold records.
    FromTrimHorizon,
    /// Shards that were open at the trim horizon.
    AtTrimHorizon,
    /// Open shards.
    AtLatest,
    /// Shards that were open at a time.
    AtTimestamp(u64),
    /// Open shards, and those closed at a time or later.
    FromTimestamp(u64),
    /// Shards after this one.
    AfterShardId(ShardId),
}

/// What `ListShards` is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListShardsQuery<'a> {
    /// The first page.
    First {
        /// The stream.
        stream_name: &'a str,
        /// Which shards.
        filter: ShardFilter,
        /// Start after this shard.
        exclusive_start: Option<ShardId>,
    },
    /// A page that follows; the token knows the rest.
    Next {
        /// From the page before.
        next_token: &'a str,
    },
}

/// A shard as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardDescription {
    /// Its id.
    pub shard_id: ShardId,
    /// The shard it came from, if it came from a split or merge.
    pub parent_shard_id: Option<ShardId>,
    /// The other shard it came from, after a merge.
    pub adjacent_parent_shard_id: Option<ShardId>,
    /// Its part of the hash space.
    pub hash_key_range: HashKeyRange,
    /// Below every record's.
    pub starting_sequence_number: SequenceNumber,
    /// Above every record's; `None` for an open shard.
    pub ending_sequence_number: Option<SequenceNumber>,
}

/// One answer of `ListShards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListShardsPage {
    /// By id.
    pub shards: Vec<ShardDescription>,
    /// `None` on the last page.
    pub next_token: Option<String>,
}

/// The shards of one answer of `DescribeStream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardsPage {
    /// By id.
    pub shards: Vec<ShardDescription>,
    /// Whether there are more after the last.
    pub has_more: bool,
}

/// A stream as `DescribeStreamSummary` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// What it goes through.
    pub status: StreamStatus,
    /// Its capacity mode.
    pub mode: StreamMode,
    /// Its retention, in hours.
    pub retention_hours: u32,
    /// When it was created, in Unix milliseconds.
    pub created_ms: u64,
    /// Its open shards.
    pub open_shard_count: usize,
    /// Its largest record, in KiB.
    pub max_record_kib: u32,
    /// Bytes of data and partition keys that it holds.
    pub retained_bytes: u64,
}

/// What `ListStreams` is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListStreamsQuery<'a> {
    /// Start after this name.
    pub exclusive_start: Option<&'a str>,
    /// Start where the page before ended.
    pub next_token: Option<&'a str>,
    /// At most so many; 100 if `None`.
    pub limit: Option<usize>,
}

/// One answer of `ListStreams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStreamsPage {
    /// By name.
    pub streams: Vec<StreamSummary>,
    /// `None` on the last page.
    pub next_token: Option<String>,
}

impl<P> Kinesis<P> {
    /// One stream.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn describe_stream_summary(
        &mut self,
        now_ms: u64,
        stream_name: &str,
    ) -> Result<StreamSummary, KinesisError> {
        self.advance(now_ms);
        Ok(self.summary(self.stream(stream_name)?))
    }

    /// One page of a stream's shards, as `DescribeStream` shows them.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ValidationException` for a limit that is not 1 to 10,000.
    pub fn describe_stream_shards(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        exclusive_start: Option<ShardId>,
        limit: Option<usize>,
    ) -> Result<ShardsPage, KinesisError> {
        self.advance(now_ms);
        let limit = check_limit("Limit", limit)?.unwrap_or(DESCRIBE_STREAM_PAGE);
        let stream = self.stream(stream_name)?;
        let (shards, has_more) = page(
            stream
                .shards
                .values()
                .filter(|shard| exclusive_start < Some(shard.id)),
            limit,
        );
        Ok(ShardsPage {
            shards: shards.into_iter().map(describe).collect(),
            has_more,
        })
    }

    /// One page of a stream's shards.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ValidationException` (limit), `InvalidArgumentException`
    /// (no token of this model), `ExpiredNextTokenException`.
    pub fn list_shards(
        &mut self,
        now_ms: u64,
        query: ListShardsQuery<'_>,
        max_results: Option<usize>,
    ) -> Result<ListShardsPage, KinesisError> {
        let now_ms = self.advance(now_ms);
        let limit = check_limit("MaxResults", max_results)?
            .unwrap_or(LIST_SHARDS_PAGE)
            .min(LIST_SHARDS_PAGE);
        let (stream, filter, after) = match query {
            ListShardsQuery::First {
                stream_name,
                filter,
                exclusive_start,
            } => (self.stream(stream_name)?, filter, exclusive_start),
            ListShardsQuery::Next { next_token } => {
                let Some(Token::Shards {
                    issued_ms,
                    stream: reference,
                    filter,
                    after,
                }) = self.tokens.open(next_token)
                else {
                    return Err(bad_token(next_token));
                };
                check_token_age(issued_ms, now_ms)?;
                let stream = self.stream(&reference.name)?;
                if stream.uid != reference.uid {
                    return Err(no_stream(&reference.name, &self.config));
                }
                (stream, filter, Some(after))
            }
        };
        let horizon_ms = stream.trim_horizon_ms(now_ms);
        let listed = stream
            .shards
            .values()
            .filter(|shard| after < Some(shard.id) && filter.shows(shard, horizon_ms));
        let (shards, has_more) = page(listed, limit);
        let next_token = shards.last().filter(|_| has_more).map(|last| {
            self.tokens.seal(&Token::Shards {
                issued_ms: now_ms,
                stream: stream.reference(),
                filter,
                after: last.id,
            })
        });
        Ok(ListShardsPage {
            shards: shards.into_iter().map(describe).collect(),
            next_token,
        })
    }

    /// One page of the streams.
    ///
    /// # Errors
    /// `ValidationException` (limit), `InvalidArgumentException` (no token of this
    /// model), `ExpiredNextTokenException`.
    pub fn list_streams(
        &mut self,
        now_ms: u64,
        query: ListStreamsQuery<'_>,
    ) -> Result<ListStreamsPage, KinesisError> {
        let now_ms = self.advance(now_ms);
        let limit = check_limit("Limit", query.limit)?.unwrap_or(LIST_STREAMS_PAGE);
        let after = match query.next_token {
            None => query.exclusive_start.map(str::to_owned),
            Some(text) => {
                let Some(Token::Streams { issued_ms, after }) = self.tokens.open(text) else {
                    return Err(bad_token(text));
                };
                check_token_age(issued_ms, now_ms)?;
                Some(after)
            }
        };
        let (streams, has_more) = page(
            self.streams
                .values()
                .filter(|stream| after.as_ref() < Some(&stream.name)),
            limit,
        );
        let next_token = streams.last().filter(|_| has_more).map(|last| {
            self.tokens.seal(&Token::Streams {
                issued_ms: now_ms,
                after: last.name.clone(),
            })
        });
        Ok(ListStreamsPage {
            streams: streams
                .into_iter()
                .map(|stream| self.summary(stream))
                .collect(),
            next_token,
        })
    }

    fn summary(&self, stream: &Stream<P>) -> StreamSummary {
        StreamSummary {
            name: stream.name.clone(),
            arn: self.arn(&stream.name),
            status: stream.status(),
            mode: stream.mode,
            retention_hours: stream.retention_hours,
            created_ms: stream.created_ms,
            open_shard_count: stream.open_shard_count(),
            max_record_kib: stream.max_record_kib,
            retained_bytes: stream.retained_bytes,
        }
    }
}

impl ShardFilter {
    /// Source: API reference, `ShardFilter`, read 2026-11-23; a time before the trim
    /// horizon counts as the trim horizon.
    fn shows<P>(self, shard: &Shard<P>, horizon_ms: u64) -> bool {
        let closed_from = |at_ms: u64| shard.closed_ms.is_none_or(|closed_ms| closed_ms >= at_ms);
        let open_at = |at_ms: u64| shard.generation <= at_ms && closed_from(at_ms);
        match self {
            Self::FromTrimHorizon => true,
            Self::AtTrimHorizon => open_at(horizon_ms),
            Self::AtLatest => shard.is_open(),
            Self::AtTimestamp(at_ms) => open_at(at_ms.max(horizon_ms)),
            Self::FromTimestamp(from_ms) => closed_from(from_ms.max(horizon_ms)),
            Self::AfterShardId(after) => shard.id > after,
        }
    }
}

/// At most `limit` of the items, and whether there are more.
fn page<T>(items: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut items = items;
    let page = items.by_ref().take(limit).collect();
    (page, items.next().is_some())
}

fn check_limit(name: &str, limit: Option<usize>) -> Result<Option<usize>, KinesisError> {
    match limit {
        Some(value) if value == 0 || value > MAX_LISTING_LIMIT => Err(KinesisError::validation(
            format!("`{name}` is 1 to {MAX_LISTING_LIMIT}, was {value}"),
        )),
        limit => Ok(limit),
    }
}

fn bad_token(text: &str) -> KinesisError {
    KinesisError::invalid(format!(
        "`NextToken` `{}` is none of this listing",
        Clip(text)
    ))
}

fn check_token_age(issued_ms: u64, now_ms: u64) -> Result<(), KinesisError> {
    if now_ms.saturating_sub(issued_ms) <= NEXT_TOKEN_LIFE_MS {
        return Ok(());
    }
    Err(KinesisError::new(
        ErrorKind::ExpiredNextToken,
        format!(
            "`NextToken` was issued at {issued_ms} ms, now is {now_ms} ms: it lives {NEXT_TOKEN_LIFE_MS} ms"
        ),
    ))
}

fn describe<P>(shard: &Shard<P>) -> ShardDescription {
    let (parent_shard_id, adjacent_parent_shard_id) = match shard.parents {
        Parents::None => (None, None),
        Parents::Split(parent) => (Some(parent), None),
        Parents::Merge { parent, adjacent } => (Some(parent), Some(adjacent)),
    };
    ShardDescription {
        shard_id: shard.id,
        parent_shard_id,
        adjacent_parent_shard_id,
        hash_key_range: shard.range,
        starting_sequence_number: shard.starting_sequence_number(),
        ending_sequence_number: shard.ending_sequence_number(),
    }
}
