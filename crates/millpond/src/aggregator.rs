//! Puts events together as the Kinesis Producer Library does: in records made for one shard.

use anyhow::{Context as _, Result, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use millpond_connector::aws::describe;
use millpond_kinesis_source::aggregate::{AggregateBuilder, hash_key};

/// Most bytes of a record, whatever number of events was asked for.
const MAX_RECORD_BYTES: usize = 512 * 1024;

/// A shard, and the record that is being filled for it.
struct Shard {
    /// Last hash key of the shard.
    last: u128,
    id: String,
    first: String,
    open: AggregateBuilder,
}

/// One open record for each shard of a stream.
pub struct Aggregator {
    /// By hash key range.
    shards: Vec<Shard>,
    events: usize,
}

impl Aggregator {
    /// For the shards that are open now, with `events` events in a record.
    ///
    /// # Errors
    /// When the stream does not tell its shards.
    pub async fn new(client: &Client, stream: &str, events: usize) -> Result<Self> {
        let mut shards = Vec::new();
        let mut next = None;
        loop {
            let call = match next.take() {
                Some(next) => client.list_shards().next_token(next),
                None => client.list_shards().stream_name(stream),
            };
            let page = call.send().await.map_err(|error| {
                anyhow::anyhow!(
                    "cannot list the shards of stream `{stream}`: {}",
                    describe(&error)
                )
            })?;
            for shard in page.shards.unwrap_or_default() {
                let open = shard.sequence_number_range;
                if open.is_some_and(|range| range.ending_sequence_number.is_some()) {
                    continue;
                }
                let range = shard.hash_key_range.context("a shard has no hash keys")?;
                shards.push(Shard {
                    last: range.ending_hash_key.parse()?,
                    id: shard.shard_id,
                    first: range.starting_hash_key,
                    open: AggregateBuilder::default(),
                });
            }
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        shards.sort_by_key(|shard| shard.last);
        if shards.last().is_none_or(|shard| shard.last != u128::MAX) {
            bail!("stream `{stream}` has no open shard for every hash key, it is being changed");
        }
        Ok(Self { shards, events })
    }

    /// Takes an event; answers the record that it filled up.
    ///
    /// # Errors
    /// None that is known; what the SDK's builder says.
    pub fn push(
        &mut self,
        partition_key: &str,
        data: Bytes,
    ) -> Result<Option<PutRecordsRequestEntry>> {
        let hash_key = hash_key(partition_key);
        let at = self.shards.partition_point(|shard| shard.last < hash_key);
        let Some(shard) = self.shards.get_mut(at) else {
            return Ok(None);
        };
        shard.open.push(partition_key, None, data);
        let full = shard.open.len() >= self.events || shard.open.max_bytes() >= MAX_RECORD_BYTES;
        full.then(|| shard.take()).transpose()
    }

    /// The records that are open.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn take_open(&mut self) -> Result<Vec<PutRecordsRequestEntry>> {
        let open = self
            .shards
            .iter_mut()
            .filter(|shard| !shard.open.is_empty());
        open.map(Shard::take).collect()
    }
}

impl Shard {
    fn take(&mut self) -> Result<PutRecordsRequestEntry> {
        let record = std::mem::take(&mut self.open).finish();
        Ok(PutRecordsRequestEntry::builder()
            .partition_key(&self.id)
            .explicit_hash_key(&self.first)
            .data(Blob::new(record))
            .build()?)
    }
}
