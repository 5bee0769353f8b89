//! One run of the source: readers, appends, listings and saves around the pure parts.
//!
//! Everything that decides lives in one task and needs no lock; readers, appends, listings
//! and saves are tasks of their own that report back. Where the shards are shared with other
//! processes, [`sharing`] says which of them are read here.

mod intake;
pub(crate) mod losses;
mod outcomes;
mod releases;
pub(crate) mod sharing;
mod stalls;
mod survey;
pub(crate) mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::{Offset, PartitionId, Topic, TopicError};
use millpond_format::stream_gap::StreamGap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::CheckpointError;
use crate::client::StreamApi;
use crate::consumer::Consumer;
use crate::delivery::{Delivery, ShardIndex};
use crate::error::SourceError;
use crate::feed::ShardFeed;
use crate::limits::{
    CHECKPOINT_INTERVAL, DRAIN_LIMIT, LISTING_INTERVAL, LISTING_SPACING, SHARED_CHECKPOINT_INTERVAL,
};
use crate::lineage::ListingTicket;
use crate::listing::{Listing, list_all};
use crate::loss::OnLoss;
use crate::numbering::Decompress;
use crate::pacing::Pace;
use crate::polling::PollingFeed;
use crate::progress::{Progress, Rest};
use crate::reader::{FromReader, ShardReader, WallClock};
use crate::retention::Retention;
use crate::roster::Roster;
use crate::shard::{ShardId, ShardInfo};
use crate::shard_table::{ShardRow, ShardTable, ShardWrite, WriteIf};
use crate::subscribing::SubscribedFeed;
use intake::Stray;
use losses::Losses;
use outcomes::append;
use releases::Releases;
use sharing::Shared;
use stalls::Stalls;
use watch::{Changed, Look, Watch, WatchSettings};

/// Most that is taken in one turn.
const TAKEN_AT_ONCE: usize = 64;

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
    pub(crate) retention: Retention,
    pub(crate) on_loss: OnLoss,
    pub(crate) watch: WatchSettings,
    /// The checkpoint follows what the topic's consumers have released.
    pub(crate) awaits_release: bool,
    pub(crate) decompress: Decompress,
    /// Where shards are read by fan-out.
    pub(crate) consumer: Option<Arc<Consumer>>,
}

impl Parts {
    /// Where a shard's records come from.
    fn feed(&self, shard: &ShardId, rest: Rest) -> Box<dyn ShardFeed> {
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let (api, shard) = (self.api.clone(), shard.clone());
        let polling = PollingFeed::new(api, shard.clone(), self.pace, rest, clock, metrics);
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
    LossTold(ShardId, ShardIndex, Result<StreamGap, TopicError>),
    UnseenTold(Result<StreamGap, TopicError>),
    Looked(Look),
    Released(Result<Vec<Option<Offset>>, TopicError>),
    Changed(Changed),
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
    /// End of the last append to each topic partition.
    ends: BTreeMap<PartitionId, Offset>,
    endings: Endings,
    stalls: Stalls,
    losses: Losses,
    stray: Stray,
    watch: Watch,
    releases: Releases,
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
        let watch = Watch::new(parts.watch.clone(), now);
        let releases = Releases::new(parts.awaits_release, now);
        let started_ms = (parts.clock)();
        let stalls = Stalls::new();
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
            ends: BTreeMap::new(),
            endings: Endings::default(),
            stalls,
            losses: Losses::default(),
            stray: Stray::default(),
            watch,
            releases,
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
            self.take_ready();
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

    /// Takes what else is there by now: what follows a turn looks at every shard, and with many of them there is
    /// much to take at once.
    fn take_ready(&mut self) {
        for _ in 0..TAKEN_AT_ONCE {
            if let Some(done) = self.tasks.try_join_next() {
                self.task_done(done);
                continue;
            }
            if self.drain_until.is_some() || self.delivery.is_full() {
                return;
            }
            match self.messages.try_recv() {
                Ok(message) => self.take_message(message),
                Err(_) => return,
            }
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
        let may_save = self.saving.is_none() && !self.losses.hold_saves();
        let save = (self.roster.is_dirty() && may_save).then_some(self.next_save);
        let listing = (!self.listing && self.drain_until.is_none()).then(|| self.next_listing());
        let stall = self.next_stall().filter(|_| self.drain_until.is_none());
        let watch = self.drain_until.is_none().then(|| self.watch.next());
        let awaits = self.delivery.awaits();
        let release = self.releases.next().filter(|_| awaits);
        [
            linger,
            save,
            listing,
            stall,
            watch,
            release,
            self.drain_until,
        ]
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
        self.tell_losses();
        self.ask_released(now);
        if self.recount {
            self.count_shards();
        }
        let urgent = self.urgent || !self.pins.is_empty() || self.drain_until.is_some();
        let due = now >= self.next_save || (urgent && self.save_backoff.attempts() == 0);
        let may_save = self.saving.is_none() && !self.losses.hold_saves();
        if self.roster.is_dirty() && may_save && due {
            self.start_save(now);
        }
        if self.drain_until.is_none() {
            self.keep_watch(now);
            self.give_up_stalled(now);
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
            self.give_up_places();
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
            let rest = Rest::default();
            let reader = ShardReader {
                feed: self.parts.feed(&id, rest.clone()),
                api: self.parts.api.clone(),
                shard: id.clone(),
                index,
                from: order.from,
                unpinned: order.unpinned,
                unread_since_ms: order.unread_since_ms,
                retention: self.parts.retention.clone(),
                on_loss: self.parts.on_loss,
                decompress: self.parts.decompress,
                is_resumed: true,
                started_ms: self.started_ms,
                out: self.to_session.clone(),
            };
            let name = id.clone();
            let reader = self
                .readers
                .spawn(async move { (name, reader.run().await) });
            let stands_at = self.roster.progress(&id);
            let patience = self.stalls.patience(&id, stands_at);
            let before = self.roster.bytes_per_second(&id);
            let now = Instant::now().into_std();
            let progress = Progress::new(now, patience, before, rest);
            let active = Active {
                index,
                reader,
                progress,
            };
            self.active.insert(id, active);
        }
    }

    /// Lets the delivery forget shards that are not read here any more.
    fn give_up_places(&mut self) {
        let read: BTreeSet<ShardIndex> = self.active.values().map(|active| active.index).collect();
        self.delivery.retain(|index| read.contains(&index));
    }

    fn start_listing(&mut self, now: Instant) {
        self.listing = true;
        self.listing_wanted = false;
        self.last_listing = now;
        self.losses.listing_begins();
        self.endings.in_listing.append(&mut self.endings.unlisted);
        let ticket = self.roster.begin_listing();
        let scope = self.roster.scope();
        let api = self.parts.api.clone();
        self.tasks
            .spawn(async move { Done::Listed(ticket, list_all(api.as_ref(), scope).await) });
    }

    fn start_appends(&mut self) {
        while let Some((partition, batch)) = self.delivery.next_append() {
            self.stalls.offered(partition, Instant::now());
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
            let figures = self.watch.figures(id, (self.parts.clock)());
            self.roster.measured(id, rate, figures);
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
}
