//! The part of a session that watches the clock on data loss, and acts on it where it is told to.
//!
//! What it does to the stream is decided by pure parts: [`crate::clock`], [`crate::retention_guard`] and
//! [`crate::shard_scaling`]. A failed call stops nothing: the next look at the stream decides again. Where the
//! shards are shared, only the reader of the first one that is not read to its end and whose reader is heard of acts, from what [`super::survey`] says of
//! all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::stream_clock::{LossLevel, ShardReading, StreamClock};
use tokio::time::Instant;

use super::survey::{Overview, Survey};
use super::{Done, Session};
use crate::admin::{StreamAdmin, StreamShape, is_refused_for_long};
use crate::classify::Failure;
use crate::client::{StreamRecord, StreamSummary};
use crate::clock::ShardClock;
use crate::delivery::ShardIndex;
use crate::limits::{CLOCK_INTERVAL, DESCRIBE_INTERVAL, WARNING_INTERVAL};
use crate::retention_guard::{GuardAction, GuardSettings, RetentionGuard};
use crate::shard::ShardId;
use crate::shard_figures::ShardFigures;
use crate::shard_scaling::{Advice, Load, ScalingMode, ScalingSettings, ShardScaling};

/// After a change the stream is looked at soon.
const LOOK_AFTER_CHANGE: Duration = Duration::from_secs(5);

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
    /// Of the shards that are read here.
    pub(super) clocks: BTreeMap<ShardId, ShardClock>,
    pub(super) overview: Overview,
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
            overview: Overview::default(),
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

    /// An answer was taken in: what its records took of the shard counts, not what was made of them.
    pub(super) fn answered(&mut self, id: &ShardId, behind_ms: i64, records: &[StreamRecord]) {
        let sizes = records
            .iter()
            .map(|record| record.data.as_ref().len() + record.partition_key.len());
        let clock = self.clocks.entry(id.clone()).or_default();
        clock.answered(behind_ms);
        clock.took(sizes.sum::<usize>() as u64, records.len() as u64);
    }

    /// What a shard that is read here carries.
    pub(super) fn figures(&self, id: &ShardId, now_ms: i64) -> Option<ShardFigures> {
        self.clocks.get(id)?.figures(now_ms)
    }

    pub(super) fn open_shards(&self) -> Option<u32> {
        self.shape.map(|shape| shape.open_shards)
    }

    /// What is known of shards that are not in the stream any more, or read to their end, is forgotten.
    pub(super) fn keep(&mut self, ids: &BTreeSet<ShardId>) {
        self.overview.keep(ids);
        self.said.retain(|id, _| ids.contains(id));
    }

    pub(super) fn forget(&mut self, id: &ShardId) {
        self.clocks.remove(id);
        self.said.remove(id);
    }

    /// Warns when a level is reached, and again from time to time while it lasts.
    pub(super) fn warn(
        &mut self,
        id: &ShardId,
        reading: &ShardReading,
        is_here: bool,
        now: Instant,
    ) {
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
                shard = %id, is_here, level = reading.level.name(), millis_behind_latest, seconds_until_trim, drain_seconds,
                seconds_until_loss, "unread events of the stream are about to be removed"
            );
        } else {
            tracing::warn!(
                shard = %id, is_here, level = reading.level.name(), millis_behind_latest, seconds_until_trim, drain_seconds,
                seconds_until_loss, "unread events of the stream use up its retention"
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
        let survey = self.survey(now);
        self.act(now, &survey);
        self.parts.metrics.set_stream_clock(StreamClock {
            advised_shards: self.watch.advised.map(|advice| advice.to),
            ..survey.clock
        });
    }

    fn act(&mut self, now: Instant, survey: &Survey) {
        let Some(admin) = self.watch.settings.admin.clone() else {
            return;
        };
        let Some(shape) = self.watch.shape.filter(|_| self.leads(now)) else {
            return;
        };
        // Both see every reading, also while they may not act.
        let hours = survey.clock.retention_hours;
        let guard = &mut self.watch.guard;
        let action = guard.decide(now.into_std(), hours, &survey.dangers);
        let advice = self.advice(now, &survey.clock, shape);
        if self.watch.is_changing || !shape.is_active {
            return;
        }
        if let Some(action) = action {
            tracing::warn!(
                ?action,
                hours,
                nearest_seconds = survey.least_left_seconds(),
                "changing the stream's retention period"
            );
            self.watch.is_changing = true;
            self.tasks.spawn(async move {
                let done = admin.change_retention(action).await;
                Done::Changed(Changed::Retention(action, done))
            });
        } else if let Some(advice) = advice
            && self.watch.scaling.settings().mode == ScalingMode::Auto
        {
            self.watch.is_changing = true;
            self.tasks.spawn(async move {
                let done = admin.change_shard_count(advice.to).await;
                Done::Changed(Changed::Shards(advice, done))
            });
        }
    }

    /// How many shards there should be, which is said when it changes.
    fn advice(&mut self, now: Instant, clock: &StreamClock, shape: StreamShape) -> Option<Advice> {
        let scaling = &mut self.watch.scaling;
        let mode = scaling.settings().mode;
        if mode == ScalingMode::Off || !shape.is_provisioned {
            return None;
        }
        let load = Load {
            open_shards: shape.open_shards,
            in_milli: clock.utilisation_in_milli,
            out_milli: clock.utilisation_out_milli,
            unknown_shards: clock.unknown_shards,
        };
        let was_blind = scaling.is_blind();
        let advice = match mode {
            ScalingMode::Auto => scaling.decide(now.into_std(), load),
            ScalingMode::Advise | ScalingMode::Off => scaling.advise(now.into_std(), load),
        };
        match (was_blind, scaling.is_blind()) {
            (false, true) => tracing::warn!(
                unknown_shards = load.unknown_shards,
                "it is not known what some shards carry: nothing is scaled in, and they count as nothing"
            ),
            (true, false) => tracing::info!("it is known again what all shards carry"),
            _ => {}
        }
        let counts = |advice: Advice| (advice.from, advice.to);
        let said = self.watch.advised.map(counts);
        if let Some(Advice {
            from,
            to,
            utilisation_milli,
        }) = advice
            && said != Some((from, to))
        {
            tracing::warn!(
                open_shards = from,
                advised_shards = to,
                utilisation_milli,
                in_milli = load.in_milli,
                out_milli = load.out_milli,
                unknown_shards = load.unknown_shards,
                "the stream should have another number of shards"
            );
        }
        self.watch.advised = advice;
        advice
    }

    /// True for the one process that acts: it reads the first shard, of those whose readers are heard of.
    pub(super) fn leads(&self, now: Instant) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let overview = &self.watch.overview;
        let mut shards = self.roster.leasable().into_iter();
        let first = shards.find(|id| shared.is_ready(id) || !overview.is_silent(id, now));
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
        let is_done = match &changed {
            Changed::Retention(_, done) | Changed::Shards(_, done) => done.is_ok(),
        };
        // Nothing is decided before what it is now was seen: at once after a change, else in its time.
        let wait = if is_done {
            LOOK_AFTER_CHANGE
        } else {
            DESCRIBE_INTERVAL
        };
        self.watch.next_look = Instant::now() + wait;
        if let Some(shape) = &mut self.watch.shape {
            shape.is_active = false;
        }
        let now = Instant::now().into_std();
        match changed {
            Changed::Retention(action, Ok(())) => {
                self.parts.metrics.retention_changes.add(1);
                self.watch.guard.changed(now);
                tracing::warn!(?action, "the stream's retention period was changed");
            }
            Changed::Shards(advice, Ok(())) => {
                self.parts.metrics.shard_count_changes.add(1);
                self.watch.scaling.called(now, advice);
                tracing::warn!(
                    from = advice.from,
                    to = advice.to,
                    "the stream's shards are being changed"
                );
            }
            Changed::Retention(action, Err(error)) => {
                tracing::error!(
                    ?action, %error, again_in_seconds = wait.as_secs(),
                    "the stream's retention period could not be changed"
                );
            }
            Changed::Shards(advice, Err(error)) => {
                if is_refused_for_long(&error) {
                    self.watch.scaling.refused(now);
                }
                tracing::error!(from = advice.from, to = advice.to, %error, "the number of shards could not be changed");
            }
        }
    }
}
