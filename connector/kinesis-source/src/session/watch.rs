//! The part of a session that watches the clock on data loss, and acts on it where it is told to.
//!
//! What it does to the stream is decided by pure parts: [`crate::clock`], [`crate::retention_guard`] and
//! [`crate::shard_scaling`]. A failed call stops nothing: the next look at the stream decides again. Where the
//! shards are shared, only the reader of the first one that is not read to its end acts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::stream_clock::{LossLevel, ShardReading, StreamClock};
use tokio::time::Instant;

use super::{Done, Session};
use crate::admin::{StreamAdmin, StreamShape};
use crate::classify::Failure;
use crate::client::StreamSummary;
use crate::clock::ShardClock;
use crate::delivery::ShardIndex;
use crate::limits::{
    CLOCK_INTERVAL, DESCRIBE_INTERVAL, SHARD_READ_BYTES_PER_SECOND, SHARD_WRITE_BYTES_PER_SECOND,
    WARNING_INTERVAL,
};
use crate::retention_guard::{GuardAction, GuardSettings, RetentionGuard};
use crate::shard::ShardId;
use crate::shard_scaling::{Advice, Load, ScalingMode, ScalingSettings, ShardScaling};

/// What the source may do about its stream.
#[derive(Clone, Default)]
pub(crate) struct WatchSettings {
    pub(crate) guard: GuardSettings,
    pub(crate) scaling: ScalingSettings,
    pub(crate) admin: Option<Arc<dyn StreamAdmin>>,
}

/// What became of a call that was to change the stream.
pub(super) enum Changed {
    Retention(GuardAction, Result<(), Failure>),
    Shards(Advice, Result<(), Failure>),
}

/// What a look at the stream told.
pub(super) enum Look {
    Summary(Result<StreamSummary, Failure>),
    Shape(Result<StreamShape, Failure>),
}

pub(super) struct Watch {
    settings: WatchSettings,
    clocks: BTreeMap<ShardId, ShardClock>,
    /// Levels that were said, and when.
    said: BTreeMap<ShardId, (LossLevel, Instant)>,
    guard: RetentionGuard,
    scaling: ShardScaling,
    advised: Option<Advice>,
    shape: Option<StreamShape>,
    next_reading: Instant,
    next_look: Instant,
    is_looking: bool,
    is_changing: bool,
}

impl Watch {
    pub(super) fn new(settings: WatchSettings, now: Instant) -> Self {
        Self {
            guard: RetentionGuard::new(settings.guard),
            scaling: ShardScaling::new(settings.scaling),
            settings,
            clocks: BTreeMap::new(),
            said: BTreeMap::new(),
            advised: None,
            shape: None,
            next_reading: now + CLOCK_INTERVAL,
            next_look: now + DESCRIBE_INTERVAL,
            is_looking: false,
            is_changing: false,
        }
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Instant {
        match self.is_looking {
            true => self.next_reading,
            false => self.next_reading.min(self.next_look),
        }
    }

    pub(super) fn answered(&mut self, id: &ShardId, behind_ms: i64, bytes: u64, records: u64) {
        let clock = self.clocks.entry(id.clone()).or_default();
        clock.answered(behind_ms);
        clock.took(bytes, records);
    }

    pub(super) fn forget(&mut self, id: &ShardId) {
        self.clocks.remove(id);
        self.said.remove(id);
    }

    /// Warns when a level is reached, and again from time to time while it lasts.
    fn warn(&mut self, id: &ShardId, reading: &ShardReading, now: Instant) {
        let before = self.said.get(id).copied();
        let is_worse = before.is_none_or(|(level, _)| reading.level > level);
        let is_old = before.is_some_and(|(_, at)| now >= at + WARNING_INTERVAL);
        if reading.level == LossLevel::Fine {
            if before.is_some_and(|(level, _)| level > LossLevel::Fine) {
                tracing::info!(shard = %id, "no longer near a loss");
            }
            self.said.remove(id);
            return;
        }
        if !is_worse && !is_old {
            return;
        }
        self.said.insert(id.clone(), (reading.level, now));
        let ShardReading {
            millis_behind_latest,
            seconds_until_trim,
            drain_seconds,
            seconds_until_loss,
            ..
        } = *reading;
        if reading.level == LossLevel::Critical {
            tracing::error!(
                shard = %id, level = reading.level.name(), millis_behind_latest, seconds_until_trim, drain_seconds,
                seconds_until_loss, "unread events are about to be removed from the stream"
            );
        } else {
            tracing::warn!(
                shard = %id, level = reading.level.name(), millis_behind_latest, seconds_until_trim, drain_seconds,
                seconds_until_loss, "unread events use up the stream's retention"
            );
        }
    }
}

impl Session {
    /// What of a shard is durable changed.
    pub(super) fn clock_moved(&mut self, index: ShardIndex) {
        let since_ms = self.delivery.durable(index).unread_since_ms;
        let id = self.delivery.shard_id(index);
        if let Some(clock) = self.watch.clocks.get_mut(id) {
            clock.moved(Instant::now().into_std(), since_ms);
        }
    }

    /// Reads the clocks, looks at the stream, and acts, as far as each is due.
    pub(super) fn keep_watch(&mut self, now: Instant) {
        if now >= self.watch.next_look && !self.watch.is_looking {
            self.watch.next_look = now + DESCRIBE_INTERVAL;
            self.watch.is_looking = true;
            let (api, admin) = (self.parts.api.clone(), self.watch.settings.admin.clone());
            self.tasks.spawn(async move {
                Done::Looked(match admin {
                    Some(admin) => Look::Shape(admin.shape().await),
                    None => Look::Summary(api.describe().await),
                })
            });
        }
        if now < self.watch.next_reading {
            return;
        }
        self.watch.next_reading = now + CLOCK_INTERVAL;
        let clock = self.read_clocks(now);
        self.act(now, &clock);
        self.parts.metrics.set_stream_clock(StreamClock {
            advised_shards: self.watch.advised.map(|advice| advice.to),
            ..clock
        });
    }

    fn read_clocks(&mut self, now: Instant) -> StreamClock {
        let now_ms = (self.parts.clock)();
        let retention_ms = self.parts.retention.ms();
        let mut shards = Vec::with_capacity(self.active.len());
        let (mut incoming, mut outgoing) = (0.0, 0.0);
        for (id, active) in &self.active {
            let since_ms = self.delivery.durable(active.index).unread_since_ms;
            let clock = self.watch.clocks.entry(id.clone()).or_default();
            clock.moved(now.into_std(), since_ms);
            incoming += clock.in_per_second();
            outgoing += clock.out_per_second();
            let Some(reading) = clock.reading(id.as_str(), now_ms, retention_ms) else {
                continue;
            };
            self.watch.warn(id, &reading, now);
            shards.push(reading);
        }
        for id in self
            .roster
            .read_elsewhere(|id| self.active.contains_key(id))
        {
            let rate = self.roster.bytes_per_second(id) as f64;
            incoming += rate;
            outgoing += rate;
        }
        let open = self.watch.shape.map(|shape| shape.open_shards);
        let counted = open.unwrap_or_else(|| self.roster.unfinished());
        let share = |rate: f64, each: u64| {
            let most = f64::from(counted.max(1)) * each as f64;
            // The cast saturates.
            (rate * 1_000.0 / most) as u32
        };
        StreamClock {
            at_ms: now_ms,
            retention_hours: u32::try_from(retention_ms / 3_600_000).unwrap_or(0),
            open_shards: open,
            advised_shards: None,
            utilisation_in_milli: share(incoming, SHARD_WRITE_BYTES_PER_SECOND),
            utilisation_out_milli: share(outgoing, SHARD_READ_BYTES_PER_SECOND),
            shards,
        }
    }

    fn act(&mut self, now: Instant, clock: &StreamClock) {
        let Some(admin) = self.watch.settings.admin.clone() else {
            return;
        };
        let Some(shape) = self.watch.shape.filter(|_| self.leads()) else {
            return;
        };
        let oldest = self.roster.oldest_unread_ms().unwrap_or(clock.at_ms);
        let behind_ms = u64::try_from(clock.at_ms.saturating_sub(oldest)).unwrap_or(0);
        if self.watch.is_changing || !shape.is_active {
            return;
        }
        if let Some(action) = self.watch.guard.decide(now.into_std(), clock, behind_ms) {
            tracing::warn!(
                ?action,
                hours = shape.retention_hours,
                "changing the stream's retention period"
            );
            self.watch.is_changing = true;
            self.tasks.spawn(async move {
                let done = admin.change_retention(action).await;
                Done::Changed(Changed::Retention(action, done))
            });
            return;
        }
        self.scale(now, clock, shape, admin);
    }

    fn scale(
        &mut self,
        now: Instant,
        clock: &StreamClock,
        shape: StreamShape,
        admin: Arc<dyn StreamAdmin>,
    ) {
        let scaling = &mut self.watch.scaling;
        let mode = scaling.settings().mode;
        if mode == ScalingMode::Off || !shape.is_provisioned {
            return;
        }
        let load = Load {
            open_shards: shape.open_shards,
            in_milli: clock.utilisation_in_milli,
            out_milli: clock.utilisation_out_milli,
        };
        let advice = match mode {
            ScalingMode::Auto => scaling.decide(now.into_std(), load),
            ScalingMode::Advise | ScalingMode::Off => scaling.advise(now.into_std(), load),
        };
        if advice.map(|advice| (advice.from, advice.to))
            != self.watch.advised.map(|advice| (advice.from, advice.to))
            && let Some(Advice {
                from,
                to,
                utilisation_milli,
            }) = advice
        {
            tracing::warn!(
                open_shards = from,
                advised_shards = to,
                utilisation_milli,
                in_milli = load.in_milli,
                out_milli = load.out_milli,
                "the stream should have another number of shards"
            );
        }
        self.watch.advised = advice;
        if mode == ScalingMode::Auto
            && let Some(advice) = advice
        {
            self.watch.is_changing = true;
            self.tasks.spawn(async move {
                let done = admin.change_shard_count(advice.to).await;
                Done::Changed(Changed::Shards(advice, done))
            });
        }
    }

    /// True for the one process that acts.
    fn leads(&self) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let first = self.roster.leasable().into_iter().next();
        first.is_some_and(|first| shared.is_ready(&first))
    }

    pub(super) fn looked(&mut self, look: Look) {
        self.watch.is_looking = false;
        let hours = match look {
            Look::Summary(Ok(summary)) => {
                self.parts.retention.set(summary.retention_ms);
                return;
            }
            Look::Shape(Ok(shape)) => {
                self.watch.shape = Some(shape);
                shape.retention_hours
            }
            Look::Summary(Err(error)) | Look::Shape(Err(error)) => {
                tracing::warn!(%error, "the stream's retention period cannot be read, it will be tried again");
                return;
            }
        };
        if hours > 0 {
            self.parts.retention.set(i64::from(hours) * 3_600_000);
        }
    }

    pub(super) fn changed(&mut self, changed: Changed) {
        self.watch.is_changing = false;
        // What it is now is to be seen soon.
        self.watch.next_look = Instant::now() + Duration::from_secs(5);
        if let Some(shape) = &mut self.watch.shape {
            shape.is_active = false;
        }
        match changed {
            Changed::Retention(action, Ok(())) => {
                self.parts.metrics.retention_changes.add(1);
                tracing::warn!(?action, "the stream's retention period was changed");
            }
            Changed::Shards(advice, Ok(())) => {
                self.parts.metrics.shard_count_changes.add(1);
                self.watch.scaling.called(Instant::now().into_std(), advice);
                tracing::warn!(
                    from = advice.from,
                    to = advice.to,
                    "the stream's shards are being changed"
                );
            }
            Changed::Retention(action, Err(error)) => {
                tracing::error!(?action, %error, "the stream's retention period could not be changed");
            }
            Changed::Shards(advice, Err(error)) => {
                self.watch.scaling.refused(Instant::now().into_std());
                tracing::error!(from = advice.from, to = advice.to, %error, "the number of shards could not be changed");
            }
        }
    }
}
