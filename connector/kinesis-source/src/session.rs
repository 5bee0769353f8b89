//! One run of the source: readers, appends, listings and saves around the pure parts.
//!
//! Everything that decides lives in one task and needs no lock; readers, appends, listings
//! and saves are tasks of their own that report back. Where the shards are shared with other
//! processes, [`sharing`] says which of them are read here.

pub(crate) mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::{Offset, PartitionId, StoredBatch, Topic, TopicError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::checkpoint::CheckpointError;
use crate::client::StreamApi;
use crate::consumer::Consumer;
use crate::delivery::{Accepted, Delivery, ShardIndex};
use crate::error::SourceError;
use crate::feed::ShardFeed;
use crate::limits::{
    CHECKPOINT_INTERVAL, DRAIN_LIMIT, LISTING_INTERVAL, LISTING_SPACING,
    SHARED_CHECKPOINT_INTERVAL, STALL_PATIENCE,
};
use crate::lineage::{ListingTicket, Stage};
use crate::listing::{Listing, list_all};
use crate::numbering::Decompress;
use crate::pacing::Pace;
use crate::polling::PollingFeed;
use crate::progress::Progress;
use crate::reader::{FromReader, ShardReader, WallClock};
use crate::roster::Roster;
use crate::shard::{ShardId, ShardInfo};
use crate::shard_table::{ShardRow, ShardTable, ShardWrite, WriteIf};
use crate::subscribing::SubscribedFeed;
use sharing::Shared;

/// Waits between tries of an append or a save: the disk may have room again.
const LOCAL: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(100), Duration::from_secs(5));

/// What a session works with.
pub(crate) struct Parts {
    pub(crate) api: Arc<dyn StreamApi>,
    pub(crate) table: Arc<dyn ShardTable>,
    pub(crate) topic: Arc<dyn Topic>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: WallClock,
    pub(crate) pace: Pace,
    pub(crate) retention_ms: i64,
    pub(crate) decompress: Decompress,
    /// Where shards are read by fan-out.
    pub(crate) consumer: Option<Arc<Consumer>>,
}

impl Parts {
    /// Where a shard's records come from.
    fn feed(&self, shard: &ShardId) -> Box<dyn ShardFeed> {
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let (api, shard) = (self.api.clone(), shard.clone());
        let polling = PollingFeed::new(api, shard.clone(), self.pace, clock, metrics);
        let Some(consumer) = self.consumer.clone() else {
            return Box::new(polling);
        };
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let target = self.api.target();
        Box::new(SubscribedFeed::new(
            consumer, target, shard, polling, clock, metrics,
        ))
    }
}

/// What a task of the session reports.
enum Done {
    Appended(PartitionId, Result<Range<Offset>, TopicError>),
    AppendAgain(PartitionId),
    Listed(ListingTicket, Result<Listing, SourceError>),
    Saved(Result<Vec<ShardId>, CheckpointError>),
    Claimed(ShardId, u64, Result<Option<ShardRow>, CheckpointError>),
}

/// A shard that is read here.
struct Active {
    index: ShardIndex,
    reader: AbortHandle,
    progress: Progress,
}

/// First records to be remembered, and whom to tell.
type Pins = Vec<(ShardId, oneshot::Sender<()>)>;

/// Which shards have ended, and what they still wait for.
#[derive(Default)]
struct Endings {
    /// Children named by the last answer, until that answer is durable.
    named: BTreeMap<ShardIndex, Vec<ShardInfo>>,
    /// Delivered, but no children were named: waiting for a listing to begin.
    unlisted: Vec<ShardIndex>,
    /// The same, and a listing that began since is under way.
    in_listing: Vec<ShardIndex>,
}

impl Endings {
    fn forget(&mut self, index: ShardIndex) {
        self.named.remove(&index);
        self.unlisted.retain(|other| *other != index);
        self.in_listing.retain(|other| *other != index);
    }
}

pub(crate) struct Session {
    parts: Parts,
    roster: Roster,
    delivery: Delivery,
    shared: Option<Shared>,
    active: BTreeMap<ShardId, Active>,
    caught_up: BTreeSet<ShardId>,
    readers: JoinSet<(ShardId, Result<(), SourceError>)>,
    tasks: JoinSet<Done>,
    messages: mpsc::Receiver<FromReader>,
    to_session: mpsc::Sender<FromReader>,
    append_backoffs: BTreeMap<PartitionId, Backoff>,
    endings: Endings,
    listing: bool,
    last_listing: Instant,
    listing_wanted: bool,
    /// What is being saved.
    saving: Option<Vec<ShardWrite>>,
    /// Somebody waits for what is not saved yet.
    urgent: bool,
    next_save: Instant,
    save_backoff: Backoff,
    /// First records to be remembered by the next save, and by the one under way.
    pins: Pins,
    pins_in_save: Pins,
    /// When a drain must be over; `None` before it began.
    drain_until: Option<Instant>,
    failure: Option<SourceError>,
    recount: bool,
    /// When this session began, milliseconds since the Unix epoch.
    started_ms: i64,
}

impl Session {
    /// `roster` has taken in a first listing.
    pub(crate) fn new(
        parts: Parts,
        roster: Roster,
        delivery: Delivery,
        shared: Option<Shared>,
    ) -> Self {
        let (to_session, messages) = mpsc::channel(1);
        let now = Instant::now();
        let started_ms = (parts.clock)();
        Self {
            started_ms,
            parts,
            roster,
            delivery,
            shared,
            active: BTreeMap::new(),
            caught_up: BTreeSet::new(),
            readers: JoinSet::new(),
            tasks: JoinSet::new(),
            messages,
            to_session,
            append_backoffs: BTreeMap::new(),
            endings: Endings::default(),
            listing: false,
            last_listing: now,
            listing_wanted: false,
            saving: None,
            urgent: false,
            next_save: now,
            save_backoff: Backoff::new(LOCAL),
            pins: Vec::new(),
            pins_in_save: Vec::new(),
            drain_until: None,
            failure: None,
            recount: true,
        }
    }

    /// Runs until drained or failed.
    pub(crate) async fn run(mut self, drain: CancellationToken) -> Result<(), SourceError> {
        while !self.is_over() {
            self.start_work();
            let wake = self.next_wake();
            tokio::select! {
                // In this order, so that a run can be repeated: what is done goes before what is new.
                biased;
                () = drain.cancelled(), if self.drain_until.is_none() => self.begin_drain(),
                Some(done) = self.tasks.join_next() => self.task_done(done),
                Some(done) = self.readers.join_next() => self.reader_done(done),
                Some(message) = self.messages.recv(),
                    if self.drain_until.is_none() && !self.delivery.is_full() =>
                    self.take_message(message),
                news = sharing::next(&mut self.shared) => self.hear(news),
                () = sleep_until(wake) => {}
            }
        }
        self.readers.shutdown().await;
        self.tasks.shutdown().await;
        if let Some(shared) = self.shared.take() {
            shared.leave().await;
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn is_over(&mut self) -> bool {
        let Some(until) = self.drain_until else {
            return false;
        };
        if Instant::now() >= until {
            self.failure.get_or_insert(SourceError::DrainTooSlow {
                limit_seconds: DRAIN_LIMIT.as_secs(),
            });
            return true;
        }
        // A topic that failed for good takes nothing more: only the checkpoint is left to save.
        let delivered = self.delivery.is_empty()
            || (matches!(self.failure, Some(SourceError::Topic(_))) && self.tasks.is_empty());
        delivered && self.saving.is_none() && !self.roster.is_dirty()
    }

    fn next_wake(&self) -> Instant {
        let linger = self.delivery.next_due().map(Instant::from_std);
        let save = (self.roster.is_dirty() && self.saving.is_none()).then_some(self.next_save);
        let listing = (!self.listing && self.drain_until.is_none()).then(|| self.next_listing());
        let shared = self.shared.as_ref().filter(|_| self.drain_until.is_none());
        let stall = shared.and_then(|shared| self.next_stall(shared));
        [linger, save, listing, stall, self.drain_until]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + LISTING_INTERVAL)
    }

    fn next_listing(&self) -> Instant {
        let urgent = self.listing_wanted || self.roster.needs_listing();
        self.last_listing
            + if urgent {
                LISTING_SPACING
            } else {
                LISTING_INTERVAL
            }
    }

    fn start_work(&mut self) {
        let now = Instant::now();
        if self.drain_until.is_none() {
            self.start_readers();
            if !self.listing && now >= self.next_listing() {
                self.start_listing(now);
            }
        }
        self.delivery.seal_due(now.into_std());
        if self.delivery.is_full() {
            self.delivery.seal_all();
        }
        self.start_appends();
        if self.recount {
            self.count_shards();
        }
        let urgent = self.urgent || !self.pins.is_empty() || self.drain_until.is_some();
        let due = now >= self.next_save || (urgent && self.save_backoff.attempts() == 0);
        if self.roster.is_dirty() && self.saving.is_none() && due {
            self.start_save(now);
        }
        if self.drain_until.is_none() {
            self.give_up_stalled(now.into_std());
            self.refresh_wanted();
            self.finish_leaving();
        }
    }

    /// True for a shard that may be begun: ours, and what it will mean is saved.
    fn may_begin(&self, id: &ShardId) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let mut saving = self.saving.iter().flatten();
        shared.is_ready(id)
            && !self.roster.is_changed(id)
            && saving.all(|write| write.shard != *id || write.condition == WriteIf::Absent)
    }

    fn start_readers(&mut self) {
        for id in self.roster.startable() {
            if !self.may_begin(&id) {
                continue;
            }
            let order = self.roster.begin(&id, (self.parts.clock)());
            tracing::info!(shard = %id, from = ?order.from, "shard begun");
            let index = self.delivery.add_shard(
                id.clone(),
                order.position,
                order.chain,
                order.unread_since_ms,
                order.hash_keys,
            );
            if let Some(position) = order.skip {
                self.delivery.skip_to(index, position);
            }
            self.recount = true;
            let reader = ShardReader {
                feed: self.parts.feed(&id),
                target: self.parts.api.target().clone(),
                shard: id.clone(),
                index,
                from: order.from,
                unpinned: order.unpinned,
                unread_since_ms: order.unread_since_ms,
                retention_ms: self.parts.retention_ms,
                decompress: self.parts.decompress,
                clock: self.parts.clock.clone(),
                out: self.to_session.clone(),
            };
            let name = id.clone();
            let reader = self
                .readers
                .spawn(async move { (name, reader.run().await) });
            // A silent shard is asked half as often.
            let patience = STALL_PATIENCE + 2 * self.parts.pace.idle_interval;
            let before = self.roster.bytes_per_second(&id);
            let progress = Progress::new(Instant::now().into_std(), patience, before);
            let active = Active {
                index,
                reader,
                progress,
            };
            self.active.insert(id, active);
        }
    }

    fn start_listing(&mut self, now: Instant) {
        self.listing = true;
        self.listing_wanted = false;
        self.last_listing = now;
        self.endings.in_listing.append(&mut self.endings.unlisted);
        let ticket = self.roster.begin_listing();
        let scope = self.roster.scope();
        let api = self.parts.api.clone();
        self.tasks
            .spawn(async move { Done::Listed(ticket, list_all(api.as_ref(), scope).await) });
    }

    fn start_appends(&mut self) {
        while let Some((partition, batch)) = self.delivery.next_append() {
            let topic = self.parts.topic.clone();
            self.tasks.spawn(append(topic, partition, batch));
        }
    }

    fn start_save(&mut self, now: Instant) {
        let interval = match self.shared {
            None => CHECKPOINT_INTERVAL,
            Some(_) => SHARED_CHECKPOINT_INTERVAL,
        };
        self.next_save = now + interval;
        self.urgent = false;
        for (id, active) in &mut self.active {
            let rate = active.progress.bytes_per_second(now.into_std());
            self.roster.measured(id, rate);
        }
        let shared = self.shared.as_ref();
        let writes = self
            .roster
            .take_writes(|id| shared.map_or(Some(0), |shared| shared.epoch(id)));
        if writes.is_empty() && self.shared.is_some() {
            return;
        }
        self.pins_in_save.append(&mut self.pins);
        let table = self.parts.table.clone();
        self.saving = Some(writes.clone());
        self.tasks
            .spawn(async move { Done::Saved(table.save(&writes).await) });
    }

    /// True for a shard that was not let go since.
    fn is_active(&self, index: ShardIndex) -> bool {
        let active = self.active.get(self.delivery.shard_id(index));
        active.is_some_and(|active| active.index == index)
    }

    /// True for a shard whose answers are still to be taken in.
    fn is_read(&self, index: ShardIndex) -> bool {
        let id = self.delivery.shard_id(index);
        let shared = self.shared.as_ref();
        self.is_active(index) && shared.is_none_or(|shared| shared.is_ready(id))
    }

    fn take_message(&mut self, message: FromReader) {
        match message {
            FromReader::First { shard, .. } | FromReader::Answer { shard, .. }
                if !self.is_read(shard) => {}
            FromReader::First {
                shard,
                sequence,
                arrival_ms,
                remembered,
            } => {
                let id = self.delivery.shard_id(shard).clone();
                let chain = self.delivery.durable(shard).chain.clone();
                self.roster.first_read(&id, sequence, arrival_ms, chain);
                self.pins.push((id, remembered));
            }
            FromReader::Answer {
                shard,
                records,
                end,
                children,
            } => {
                if end.closed {
                    self.endings.named.insert(shard, children);
                }
                let now = Instant::now().into_std();
                match self.delivery.accept(shard, &records, end, now) {
                    Ok(accepted) => {
                        self.moved(shard, accepted.bytes);
                        self.count(shard, accepted);
                    }
                    Err(error) => self.fail(error.into()),
                }
                self.note_progress();
            }
        }
    }

    fn moved(&mut self, shard: ShardIndex, bytes: u64) {
        let now = Instant::now().into_std();
        if let Some(active) = self.active.get_mut(self.delivery.shard_id(shard)) {
            active.progress.moved(now, bytes);
        }
    }

    fn count(&self, shard: ShardIndex, accepted: Accepted) {
        let metrics = &self.parts.metrics;
        metrics.source_events.add(accepted.events);
        metrics.source_bytes.add(accepted.bytes);
        metrics.aggregates_broken.add(accepted.broken.len() as u64);
        metrics.aggregates_stray.add(accepted.stray);
        let shard = self.delivery.shard_id(shard);
        for (sequence, error) in accepted.broken {
            tracing::warn!(
                %shard,
                sequence,
                %error,
                "a record begins like an aggregated one and is none, it is a dead letter"
            );
        }
        metrics
            .payloads_unopened
            .add(accepted.unopened.len() as u64);
        for (sequence, error) in accepted.unopened {
            tracing::warn!(%shard, sequence, %error, "a payload cannot be opened, it is a dead letter");
        }
        if accepted.stray > 0 {
            tracing::debug!(%shard, events = accepted.stray, "events of other shards dropped");
        }
    }

    /// The topic takes events: shards whose events are on their way are not stalled, nor those that wait for room.
    fn topic_moved(&mut self) {
        let now = Instant::now().into_std();
        let all = self.delivery.is_full();
        for active in self.active.values_mut() {
            if all || !self.delivery.is_settled(active.index) {
                active.progress.moved(now, 0);
            }
        }
    }

    fn note_progress(&mut self) {
        let now = Instant::now().into_std();
        for index in self.delivery.take_changed() {
            let durable = self.delivery.durable(index);
            let id = self.delivery.shard_id(index);
            if !self.is_active(index) {
                continue;
            }
            self.roster.delivered(id, durable);
            if let Some(active) = self.active.get_mut(id) {
                active.progress.moved(now, 0);
            }
            // A shard at its end counts once its children are known: they may hold older events.
            if !durable.finished {
                if durable.caught_up && self.caught_up.insert(id.clone()) {
                    self.recount = true;
                }
                continue;
            }
            match self.endings.named.remove(&index) {
                Some(children) if children.is_empty() => {
                    self.endings.unlisted.push(index);
                    self.listing_wanted = true;
                }
                Some(children) => self.finish(index, &children),
                None => {}
            }
        }
    }

    fn finish(&mut self, index: ShardIndex, children: &[ShardInfo]) {
        let id = self.delivery.shard_id(index).clone();
        let durable = self.delivery.durable(index);
        self.roster.finished(&id, children, durable);
        self.caught_up.remove(&id);
        self.active.remove(&id);
        self.recount = true;
        // Others may wait for the children.
        self.urgent |= self.shared.is_some();
        tracing::info!(shard = %id, children = children.len(), "shard read to its end");
    }

    fn task_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Appended(partition, Ok(_))) => {
                self.append_backoffs.remove(&partition);
                let events = self.delivery.appended(partition);
                self.parts.metrics.topic_events.add(u64::from(events));
                self.topic_moved();
                self.note_progress();
            }
            Ok(Done::Appended(partition, Err(error))) => self.append_failed(partition, error),
            Ok(Done::AppendAgain(partition)) => self.delivery.append_failed(partition),
            Ok(Done::Listed(ticket, listing)) => self.listed(ticket, listing),
            Ok(Done::Saved(result)) => self.saved(result),
            Ok(Done::Claimed(id, epoch, row)) => self.claimed(id, epoch, row),
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(SourceError::Task(error.to_string())),
        }
    }

    fn append_failed(&mut self, partition: PartitionId, error: TopicError) {
        if !matches!(
            error,
            TopicError::Storage {
                retryable: true,
                ..
            }
        ) {
            self.fail(error.into());
            return;
        }
        let backoff = self
            .append_backoffs
            .entry(partition)
            .or_insert_with(|| Backoff::new(LOCAL));
        let wait = backoff.next_wait(random::unit()).unwrap_or(LOCAL.cap);
        tracing::warn!(
            partition,
            attempt = backoff.attempts(),
            wait_ms = wait.as_millis() as u64,
            %error,
            "append to the topic failed, it will be repeated"
        );
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::AppendAgain(partition)
        });
    }

    fn listed(&mut self, ticket: ListingTicket, listing: Result<Listing, SourceError>) {
        self.listing = false;
        match listing {
            Ok(listing) => {
                let vanished = self.roster.listed(ticket, &listing.shards, listing.pages);
                for id in vanished {
                    // Its reader finds out whether anything is missing.
                    tracing::debug!(shard = %id, "shard is no longer listed");
                }
                for index in std::mem::take(&mut self.endings.in_listing) {
                    self.finish(index, &[]);
                }
                self.recount = true;
            }
            Err(error) => self.fail(error),
        }
    }

    fn saved(&mut self, result: Result<Vec<ShardId>, CheckpointError>) {
        let writes = self.saving.take().unwrap_or_default();
        match result {
            Ok(refused) => {
                self.save_backoff.reset();
                for (id, pin) in self.pins_in_save.drain(..) {
                    // A reader that is gone needs no answer, and one whose lease is gone gets none.
                    if !refused.contains(&id) {
                        let _ = pin.send(());
                    }
                }
                for write in &writes {
                    if let WriteIf::Held { epoch } = write.condition
                        && refused.contains(&write.shard)
                    {
                        self.refused(&write.shard, epoch);
                    }
                }
            }
            Err(error) => {
                let wait = self.save_backoff.next_wait(random::unit());
                let wait = wait.unwrap_or(LOCAL.cap);
                tracing::warn!(
                    attempt = self.save_backoff.attempts(),
                    wait_ms = wait.as_millis() as u64,
                    %error,
                    "checkpoint not saved, it will be repeated"
                );
                self.next_save = Instant::now() + wait;
                self.roster.put_back(&writes);
                self.pins.append(&mut self.pins_in_save);
            }
        }
    }

    fn reader_done(&mut self, done: Result<(ShardId, Result<(), SourceError>), JoinError>) {
        match done {
            Ok((_, Ok(()))) => {}
            Ok((_, Err(error))) => self.fail(error),
            Err(error) if error.is_cancelled() => {}
            Err(error) => self.fail(SourceError::Task(error.to_string())),
        }
    }

    /// Ends the session, but brings what was read to safety first.
    fn fail(&mut self, error: SourceError) {
        if self.drain_until.is_none() {
            self.begin_drain();
        }
        // The first failure is the cause.
        if self.failure.is_none() {
            tracing::error!(%error, "source stops");
            self.failure = Some(error);
        }
    }

    fn begin_drain(&mut self) {
        self.drain_until = Some(Instant::now() + DRAIN_LIMIT);
        self.readers.abort_all();
        self.delivery.seal_all();
        self.pins.clear();
        tracing::info!(
            buffered_bytes = self.delivery.buffered_bytes(),
            "source drains"
        );
    }

    /// True when another process says that it delivered what was in the shard at our start.
    fn is_caught_up_elsewhere(&self, id: &ShardId) -> bool {
        let row = self.roster.checkpoint().shards.get(id);
        let since_ms = row.and_then(|row| row.unread_since_ms);
        self.shared.is_some() && !self.active.contains_key(id) && since_ms >= Some(self.started_ms)
    }

    fn count_shards(&mut self) {
        self.recount = false;
        let (mut known, mut done) = (0, 0);
        for (id, stage) in self.roster.shards() {
            known += 1;
            let is_done = stage == Stage::Finished || self.caught_up.contains(id);
            done += u64::from(is_done || self.is_caught_up_elsewhere(id));
        }
        let metrics = &self.parts.metrics;
        metrics.shards_known.store(known, Ordering::Relaxed);
        metrics.shards_caught_up.store(done, Ordering::Relaxed);
        if known > 0 && known == done && metrics.caught_up.swap(1, Ordering::Release) == 0 {
            tracing::info!(
                shards = known,
                events = metrics.source_events.get(),
                "caught up: what was in the stream at start is durable in the topic"
            );
        }
    }
}

async fn append(topic: Arc<dyn Topic>, partition: PartitionId, batch: StoredBatch) -> Done {
    let span = tracing::debug_span!("append", partition, records = batch.record_count);
    let mut appended = topic.append(partition, batch).instrument(span).await;
    if mutation::is(Mutation::AppendErrorIgnored) {
        appended = appended.or(Ok(0..0));
    }
    Done::Appended(partition, appended)
}
