//! Reads a table back and works out the figures of the report.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::Client;
use millpond_connector::metrics::Metrics;
use millpond_format::origin::ChainLink;
use millpond_reader::{Event, GroupsRequest, ReadRequest, Reader, ReaderConfig};

use crate::baseline::{PlainEvent, plain_item_units};
use crate::progress::Progress;
use crate::report::{Figures, grouped};
use crate::runtime::Watched;
use crate::verify::{Recognised, Verifier};
use crate::workload::Workload;

/// What was emitted, and when.
#[derive(Debug)]
pub struct Emitted {
    /// The workload.
    pub workload: Workload,
    /// Events of it that the stream accepted.
    pub events: u64,
    bytes: u64,
    start_ms: i64,
    /// Milliseconds after `start_ms` at which each event was first sent.
    sent: Vec<u32>,
}

impl Emitted {
    /// Nothing is known yet about when.
    #[must_use]
    pub fn new(workload: Workload, events: u64, bytes: u64, start_ms: i64) -> Self {
        Self {
            workload,
            events,
            bytes,
            start_ms,
            sent: vec![0; usize::try_from(events).unwrap_or(0)],
        }
    }

    /// Event `index` was first sent at `ms`.
    pub fn sent(&mut self, index: u64, ms: i64) {
        let slot = usize::try_from(index)
            .ok()
            .and_then(|index| self.sent.get_mut(index));
        if let Some(slot) = slot {
            *slot = u32::try_from(ms - self.start_ms).unwrap_or(0);
        }
    }

    fn sent_ms(&self, index: u64) -> Option<i64> {
        let index = usize::try_from(index).ok()?;
        Some(self.start_ms + i64::from(*self.sent.get(index)?))
    }

    fn first_sent_ms(&self) -> i64 {
        self.start_ms + i64::from(self.sent.iter().copied().min().unwrap_or(0))
    }
}

/// When each item was first acknowledged, by partition key and sort key.
type Acknowledged = HashMap<String, HashMap<String, i64>>;

/// When each item was acknowledged by the table.
#[derive(Debug, Clone, Default)]
pub struct WrittenItems(Arc<Mutex<Acknowledged>>);

impl WrittenItems {
    /// Notes every item that a sink with these metrics writes.
    #[must_use]
    pub fn watching(metrics: &Metrics) -> Self {
        let items = Self::default();
        let noted = items.clone();
        metrics.on_written(Box::new(move |item| {
            let mut by_pk = noted.lock();
            let by_sk = match by_pk.get_mut(&item.pk) {
                Some(by_sk) => by_sk,
                None => by_pk.entry(item.pk.clone()).or_default(),
            };
            by_sk.entry(item.sk.clone()).or_insert(item.acknowledged_ms);
        }));
        items
    }

    fn lock(&self) -> MutexGuard<'_, Acknowledged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A table to read back.
pub struct ReadBack<'a> {
    /// Client of the table's endpoint.
    pub client: Client,
    /// The table.
    pub table: &'a str,
    /// The pipeline that wrote it.
    pub pipeline: &'a str,
    /// What must be in it.
    pub emitted: &'a Emitted,
    /// When its items were acknowledged.
    pub written: &'a WrittenItems,
}

impl ReadBack<'_> {
    /// Reads every group and compares.
    ///
    /// # Errors
    /// What the reader meets, a damaged item included.
    pub async fn compare(self, progress: &mut Progress) -> Result<Figures> {
        let config = ReaderConfig {
            pipeline: Some(self.pipeline.to_owned()),
            consistent: true,
            ..ReaderConfig::new(self.table)
        };
        let reader = Reader::open(self.client.clone(), config).await?;
        let mut names = Vec::new();
        let mut groups = reader.groups(GroupsRequest::default());
        while let Some(group) = groups.next().await? {
            names.push(group.group);
        }
        let mut verifier = Verifier::new(self.emitted.workload, self.emitted.events);
        let mut tally = Tally::default();
        for group in names {
            verifier.next_group(&group);
            let mut events = reader.read(ReadRequest::group(group.as_str())).await?;
            while let Some(event) = events
                .next()
                .await
                .with_context(|| format!("cannot read group `{group}` back"))?
            {
                if let Some(recognised) = verifier.take(&event.value) {
                    self.add(&mut tally, &event, &recognised);
                }
                tally.read += 1;
                let read = tally.read;
                progress.update(read, || format!("{} events read back", grouped(read)));
            }
        }
        let last_ms = self
            .written
            .lock()
            .values()
            .flat_map(HashMap::values)
            .copied()
            .max();
        let elapsed_ms = last_ms.map_or(0, |last| (last - self.emitted.first_sent_ms()).max(0));
        Ok(Figures {
            events: verifier.finish(),
            event_bytes: self.emitted.bytes,
            per_event_units: tally.per_event_units,
            availability_ms: tally.availability_ms,
            seconds: elapsed_ms as f64 / 1e3,
            ..Figures::default()
        })
    }

    fn add(&self, tally: &mut Tally, event: &Event, recognised: &Recognised) {
        let plain = PlainEvent {
            event_bytes: event.value.len(),
            partition_key: &recognised.partition_key,
            topic_partition: event.topic_partition,
            time_ms: event.time_ms,
            stream: &event.origin.stream,
            shard: &event.origin.shard,
            chain: ChainLink {
                epoch: event.origin.epoch,
                ordinal: event.origin.ordinal,
            },
        };
        tally.per_event_units += plain_item_units(self.pipeline, &plain);
        let written = self.written.lock();
        let by_sk = written.get(&*event.item.pk);
        let acknowledged = by_sk.and_then(|by_sk| by_sk.get(&*event.item.sk));
        if let (Some(acknowledged), Some(sent)) =
            (acknowledged, self.emitted.sent_ms(recognised.index))
        {
            let waited = u64::try_from(acknowledged - sent).unwrap_or(0);
            *tally.availability_ms.entry(waited).or_insert(0) += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    read: u64,
    per_event_units: u64,
    availability_ms: BTreeMap<u64, u64>,
}

impl Figures {
    /// Adds what the pipeline itself counted.
    pub fn add_pipeline(&mut self, watched: &[Watched]) {
        for Watched { metrics, .. } in watched {
            self.items += metrics.items.get();
            self.item_bytes += metrics.item_bytes.get();
            self.item_units += metrics.write_units_items.get();
            self.overhead_units += metrics.write_units_overhead.get();
            self.ledger_units += metrics.write_units_ledger.get();
            self.flush_micros += metrics.flush_micros.get();
            self.ledger_micros += metrics.ledger_micros.get();
            self.reported_units_milli += metrics.write_units_reported_milli.get();
        }
    }
}
