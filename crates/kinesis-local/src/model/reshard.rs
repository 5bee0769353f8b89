//! `SplitShard`, `MergeShards` and `UpdateShardCount`.

use super::{
    HashKey, HashKeyRange, Kinesis, KinesisError, ModelConfig, ShardId, StreamMode, StreamStatus,
    limits::MAX_SHARDS_PER_STREAM,
    record::Clip,
    shard::{Parents, Shard},
    stream::Stream,
};

/// What `UpdateShardCount` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCountChange {
    /// Open shards before.
    pub current: u32,
    /// Open shards after.
    pub target: u32,
}

impl<P> Kinesis<P> {
    /// Splits an open shard in two; `new_starting_hash_key` is where the second begins.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceInUseException` (a change is under way),
    /// `InvalidArgumentException` (closed shard, or a hash key out of its range),
    /// `ValidationException` (on-demand), `LimitExceededException` (too many shards).
    pub fn split_shard(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        shard_id: ShardId,
        new_starting_hash_key: &str,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        check_reshardable(stream, config)?;
        let range = open_range(stream, shard_id, config)?;
        let at: HashKey = new_starting_hash_key.parse().map_err(|error| {
            KinesisError::invalid(format!(
                "`NewStartingHashKey` `{}`: {error}",
                Clip(new_starting_hash_key)
            ))
        })?;
        // AWS keeps a distance of one from both ends.
        if at.0 <= range.start.0.saturating_add(1) || at.0 >= range.end.0 {
            return Err(KinesisError::invalid(format!(
                "`NewStartingHashKey` {at} does not lie inside of shard `{shard_id}`, {} to {}",
                range.start, range.end
            )));
        }
        if stream.open_shard_count() as u32 >= MAX_SHARDS_PER_STREAM {
            return Err(KinesisError::limit(format!(
                "a stream has at most {MAX_SHARDS_PER_STREAM} open shards"
            )));
        }
        split(stream, now_ms, shard_id, range, at, config);
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(())
    }

    /// Merges two open shards whose ranges adjoin.
    ///
    /// # Errors
    /// As [`Kinesis::split_shard`]; `InvalidArgumentException` also for shards that do not adjoin.
    pub fn merge_shards(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        shard_id: ShardId,
        adjacent_shard_id: ShardId,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        check_reshardable(stream, config)?;
        let first = open_range(stream, shard_id, config)?;
        let second = open_range(stream, adjacent_shard_id, config)?;
        let adjoin =
            |low: HashKeyRange, high: HashKeyRange| low.end.0.checked_add(1) == Some(high.start.0);
        if !adjoin(first, second) && !adjoin(second, first) {
            return Err(KinesisError::invalid(format!(
                "shards `{shard_id}` and `{adjacent_shard_id}` of stream `{stream_name}` do not adjoin"
            )));
        }
        merge(
            stream,
            now_ms,
            (shard_id, first),
            (adjacent_shard_id, second),
            config,
        );
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(())
    }

    /// Changes the number of open shards to ranges of equal size, by splits and
    /// then merges, so that every shard has one or two parents.
    ///
    /// # Errors
    /// `InvalidArgumentException` (more than double, less than half),
    /// `LimitExceededException` (over 10,000), `ValidationException` (0, or on-demand),
    /// `ResourceNotFoundException`, `ResourceInUseException`.
    pub fn update_shard_count(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        target: u32,
    ) -> Result<ShardCountChange, KinesisError> {
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        check_reshardable(stream, config)?;
        let current = stream.open_shard_count() as u32;
        check_target(current, target)?;
        let wanted = HashKeyRange::uniform(target);
        for range in &wanted {
            split_at_boundary(stream, now_ms, range.start, config);
        }
        for range in &wanted {
            merge_into(stream, now_ms, *range, config);
        }
        stream.begin(now_ms, StreamStatus::Updating, config);
        Ok(ShardCountChange { current, target })
    }
}

/// Source: API reference, `UpdateShardCount`, read 2026-11-23.
fn check_target(current: u32, target: u32) -> Result<(), KinesisError> {
    if target == 0 {
        return Err(KinesisError::validation(
            "`TargetShardCount` is at least 1, was 0",
        ));
    }
    if target > MAX_SHARDS_PER_STREAM {
        return Err(KinesisError::limit(format!(
            "a stream has at most {MAX_SHARDS_PER_STREAM} shards, `TargetShardCount` was {target}"
        )));
    }
    if target > current.saturating_mul(2) {
        return Err(KinesisError::invalid(format!(
            "`TargetShardCount` {target} is more than double the open shard count, {current}"
        )));
    }
    if target.saturating_mul(2) < current {
        return Err(KinesisError::invalid(format!(
            "`TargetShardCount` {target} is less than half the open shard count, {current}"
        )));
    }
    Ok(())
}

fn check_reshardable<P>(stream: &Stream<P>, config: &ModelConfig) -> Result<(), KinesisError> {
    stream.check_changeable(config)?;
    if stream.mode == StreamMode::OnDemand {
        return Err(KinesisError::validation(format!(
            "stream `{}` is ON_DEMAND: only a PROVISIONED stream can be resharded",
            stream.name
        )));
    }
    Ok(())
}

fn open_range<P>(
    stream: &Stream<P>,
    id: ShardId,
    config: &ModelConfig,
) -> Result<HashKeyRange, KinesisError> {
    let shard: &Shard<P> = stream.shard(id, config)?;
    if shard.is_open() {
        return Ok(shard.range);
    }
    Err(KinesisError::invalid(format!(
        "shard `{id}` in stream `{}` is closed: it was split or merged before",
        stream.name
    )))
}

fn split<P>(
    stream: &mut Stream<P>,
    now_ms: u64,
    id: ShardId,
    range: HashKeyRange,
    at: HashKey,
    config: &ModelConfig,
) {
    let parents = Parents::Split(id);
    stream.close_shards(now_ms, parents);
    let low = HashKeyRange {
        start: range.start,
        end: HashKey(at.0 - 1),
    };
    let high = HashKeyRange {
        start: at,
        end: range.end,
    };
    stream.open_shard(now_ms, parents, low, config);
    stream.open_shard(now_ms, parents, high, config);
}

fn merge<P>(
    stream: &mut Stream<P>,
    now_ms: u64,
    (parent, first): (ShardId, HashKeyRange),
    (adjacent, second): (ShardId, HashKeyRange),
    config: &ModelConfig,
) -> ShardId {
    let parents = Parents::Merge { parent, adjacent };
    stream.close_shards(now_ms, parents);
    let range = HashKeyRange {
        start: first.start.min(second.start),
        end: first.end.max(second.end),
    };
    stream.open_shard(now_ms, parents, range, config)
}

fn split_at_boundary<P>(stream: &mut Stream<P>, now_ms: u64, at: HashKey, config: &ModelConfig) {
    let shard = stream
        .route(at)
        .and_then(|id| stream.shards.get(&id))
        .map(|shard| (shard.id, shard.range));
    if let Some((id, range)) = shard
        && range.start < at
    {
        split(stream, now_ms, id, range, at, config);
    }
}

fn merge_into<P>(stream: &mut Stream<P>, now_ms: u64, range: HashKeyRange, config: &ModelConfig) {
    let pieces: Vec<_> = stream
        .open_shards()
        .filter(|shard| range.contains(shard.range.start))
        .map(|shard| (shard.id, shard.range))
        .collect();
    let mut pieces = pieces.into_iter();
    let Some((mut id, mut merged)) = pieces.next() else {
        return;
    };
    for (next_id, next) in pieces {
        id = merge(stream, now_ms, (id, merged), (next_id, next), config);
        merged.end = next.end;
    }
}
