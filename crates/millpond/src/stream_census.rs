//! Counts what a stream still holds, for `verify`: shard by shard, as the source would read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_format::keys::topic_partition;
use millpond_format::sequence::{Position, SequenceNumber};
use millpond_kinesis_source::aggregate::{Aggregate, is_aggregated};
use millpond_kinesis_source::checkpoint::Aggregated;
use millpond_kinesis_source::classify::{Failure, Operation, Verdict, classify};
use millpond_kinesis_source::client::{
    Continuation, ReadFrom, ShardScope, StreamApi, StreamRecord,
};
use millpond_kinesis_source::shard::ShardInfo;
use millpond_reader::verify::{Held, Ledger};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// What a stream holds by topic partition, stream and shard.
pub type Holdings = BTreeMap<(u32, Box<str>, Box<str>), Held>;

/// Shards that are read at once; each answer holds up to 10 MiB.
const SHARDS_AT_ONCE: usize = 4;

/// A shard gives five answers a second (Kinesis API reference, `GetRecords`, read 2026-11-23),
/// and somebody else may be reading it too.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// Records of one answer.
const READ_LIMIT: u32 = 10_000;

const TRIES: BackoffPolicy = BackoffPolicy {
    max_attempts: Some(10),
    ..BackoffPolicy::endless(Duration::from_millis(200), Duration::from_secs(5))
};

/// How a stream is counted.
#[derive(Debug, Clone)]
pub struct Counting {
    /// What is made of aggregated records.
    pub aggregated: Aggregated,
    /// Partitions of the topic.
    pub topic_partitions: u32,
    /// How far the table is.
    pub ledgers: Arc<BTreeMap<u32, Ledger>>,
}

/// Reads every shard from the oldest record kept to the newest at the time of reading.
///
/// # Errors
/// When the stream cannot be read.
pub async fn count(api: Arc<dyn StreamApi>, counting: Counting) -> Result<Holdings> {
    let mut waiting = shards(&*api).await?.into_iter();
    let mut running: JoinSet<Result<Holdings>> = JoinSet::new();
    let mut all = Holdings::new();
    loop {
        while running.len() < SHARDS_AT_ONCE
            && let Some(shard) = waiting.next()
        {
            let (api, counting) = (api.clone(), counting.clone());
            running.spawn(async move { count_shard(&*api, &shard, &counting).await });
        }
        match running.join_next().await {
            None => return Ok(all),
            Some(ended) => all.extend(ended.context("reading a shard")??),
        }
    }
}

async fn shards(api: &dyn StreamApi) -> Result<Vec<ShardInfo>> {
    let mut shards = Vec::new();
    let mut next = None;
    loop {
        let mut backoff = Backoff::new(TRIES);
        let page = loop {
            match api.list_shards(ShardScope::All, next.clone()).await {
                Ok(page) => break page,
                Err(failure) => again(api, Operation::ListShards, &failure, &mut backoff).await?,
            };
        };
        shards.extend(page.shards);
        next = page.next;
        if next.is_none() {
            return Ok(shards);
        }
    }
}

async fn count_shard(
    api: &dyn StreamApi,
    shard: &ShardInfo,
    counting: &Counting,
) -> Result<Holdings> {
    let mut held = Holdings::new();
    let mut from = ReadFrom::TrimHorizon;
    let mut iterator = None;
    let mut backoff = Backoff::new(TRIES);
    let mut next_read = Instant::now();
    loop {
        let current = match iterator.take() {
            Some(current) => current,
            None => match api.shard_iterator(&shard.id, &from).await {
                Ok(current) => current,
                Err(failure) => {
                    again(api, Operation::ShardIterator, &failure, &mut backoff).await?;
                    continue;
                }
            },
        };
        sleep_until(next_read).await;
        next_read = Instant::now() + READ_INTERVAL;
        let answer = match api.read(&current, READ_LIMIT).await {
            Ok(answer) => answer,
            Err(failure) => {
                if again(api, Operation::Read, &failure, &mut backoff).await? {
                    iterator = Some(current);
                }
                continue;
            }
        };
        backoff.reset();
        for record in &answer.records {
            take(&mut held, api, shard, record, counting)?;
            from = ReadFrom::After(record.sequence.clone());
        }
        match answer.continuation {
            Continuation::Next(next) if answer.millis_behind_latest > 0 => iterator = Some(next),
            Continuation::Next(_) | Continuation::End(_) => return Ok(held),
        }
    }
}

/// Waits after a failure; true when the same iterator serves again.
async fn again(
    api: &dyn StreamApi,
    operation: Operation,
    failure: &Failure,
    backoff: &mut Backoff,
) -> Result<bool> {
    let verdict = classify(operation, failure);
    let wait = match verdict {
        Verdict::Fatal(_) => None,
        _ => backoff.next_wait(rand::random::<f64>()),
    };
    let Some(wait) = wait else {
        bail!("{}: {}: {failure}", api.target(), operation.name());
    };
    sleep(wait).await;
    Ok(verdict != Verdict::Refresh)
}

/// Counts the events of a record where the source sends them.
fn take(
    held: &mut Holdings,
    api: &dyn StreamApi,
    shard: &ShardInfo,
    record: &StreamRecord,
    counting: &Counting,
) -> Result<()> {
    let sequence = SequenceNumber::parse(&record.sequence)
        .with_context(|| format!("sequence number `{}`", record.sequence))?;
    let stream = api.target().stream.as_str();
    let mut event = |sub_sequence: u32, partition_key: &str, value: &[u8]| {
        let partition = topic_partition(partition_key, counting.topic_partitions);
        let position = Position::new(sequence, sub_sequence);
        let ledger = counting.ledgers.get(&partition);
        let mark = ledger.and_then(|ledger| ledger.marks.get(stream, shard.id.as_str()));
        let is_marked = mark.is_some_and(|mark| position <= mark.highest);
        let place = (partition, stream.into(), shard.id.as_str().into());
        held.entry(place)
            .or_default()
            .take(&position, value, is_marked);
    };
    let data = record.data.as_ref();
    if counting.aggregated != Aggregated::Off && is_aggregated(data) {
        // The source makes a dead letter of a broken one, which no chain counts.
        let Ok(aggregate) = Aggregate::parse(data) else {
            return Ok(());
        };
        let range = match counting.aggregated {
            Aggregated::Auto => shard.hash_keys,
            Aggregated::KeepStray | Aggregated::Off => None,
        };
        let users = aggregate.events();
        for user in users.filter(|user| user.belongs_to(range)) {
            event(user.sub_sequence, user.partition_key, user.data);
        }
        return Ok(());
    }
    event(0, &record.partition_key, data);
    Ok(())
}
