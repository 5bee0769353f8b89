//! A look at every shard of the stream: those that are read here, those that others read, and those that nobody reads.
//!
//! Whoever decides about the stream must see all of it. The shards that may be read now take every hash key
//! between them, so what stands behind them, children of a shard that is not read to its end, needs no look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond_connector::stream_clock::StreamClock;
use tokio::time::Instant;

use super::Session;
use super::watch::Watch;
use crate::clock::ShardClock;
use crate::limits::{SHARD_READ_BYTES_PER_SECOND, SHARD_WRITE_BYTES_PER_SECOND};
use crate::retention_guard::Danger;
use crate::shard::ShardId;
use crate::shard_figures::{Heard, ShardFigures};

/// A shard that was not begun by then is not just being begun.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);

/// The reader of a shard that says nothing for so long does not decide anything either.
const SILENT_AFTER: Duration = Duration::from_secs(240);

/// What is known of shards, whoever reads them.
#[derive(Default)]
pub(super) struct Overview {
    /// By their positions alone: a shard that changes hands keeps its speed.
    clocks: BTreeMap<ShardId, ShardClock>,
    heard: BTreeMap<ShardId, Heard>,
    /// When a reader of the shard was heard of last, or the shard was noticed.
    told: BTreeMap<ShardId, Instant>,
    /// Never begun: since when that is known, and since when something may be unread, milliseconds since the Unix
    /// epoch.
    unbegun: BTreeMap<ShardId, (Instant, i64)>,
}

impl Overview {
    pub(super) fn keep(&mut self, ids: &BTreeSet<ShardId>) {
        self.clocks.retain(|id, _| ids.contains(id));
        self.heard.retain(|id, _| ids.contains(id));
        self.told.retain(|id, _| ids.contains(id));
        self.unbegun.retain(|id, _| ids.contains(id));
    }

    fn is_told(&mut self, id: &ShardId, is_told: bool, now: Instant) {
        let at = self.told.entry(id.clone()).or_insert(now);
        if is_told {
            *at = now;
        }
    }

    /// True for a shard of whose reader nothing was heard for long.
    pub(super) fn is_silent(&self, id: &ShardId, now: Instant) -> bool {
        self.told
            .get(id)
            .is_some_and(|at| now >= *at + SILENT_AFTER)
    }

    fn believed(
        &mut self,
        id: &ShardId,
        figures: Option<ShardFigures>,
        now: Instant,
    ) -> Option<ShardFigures> {
        let figures = figures?;
        let heard = self.heard.entry(id.clone());
        let heard = heard.or_insert_with(|| Heard::new(figures));
        heard.is_fresh(now.into_std(), figures).then_some(figures)
    }

    /// Of a shard that was never begun, and that nobody is just beginning: it may hold what was the oldest of the stream when
    /// that was noticed, and that grows old.
    fn unbegun_since_ms(&mut self, id: &ShardId, oldest_ms: i64, now: Instant) -> Option<i64> {
        let unbegun = self.unbegun.entry(id.clone());
        let (noticed, since_ms) = *unbegun.or_insert((now, oldest_ms));
        (now >= noticed + BEGUN_WITHIN).then_some(since_ms)
    }
}

/// What all shards together say.
pub(super) struct Survey {
    pub(super) clock: StreamClock,
    pub(super) dangers: Vec<Danger>,
}

impl Survey {
    /// How long the shard that has least time left has, seconds.
    pub(super) fn least_left_seconds(&self) -> Option<u64> {
        let left = self.dangers.iter().map(|danger| danger.left.as_secs());
        left.min()
    }
}

impl Session {
    pub(super) fn survey(&mut self, now: Instant) -> Survey {
        let now_ms = (self.parts.clock)();
        let retention_ms = self.parts.retention.ms();
        let leads = self.leads(now);
        let mut ids: BTreeSet<ShardId> = self.roster.readable().cloned().collect();
        ids.extend(self.active.keys().cloned());
        self.watch.keep(&ids);
        let mut survey = Survey {
            clock: StreamClock::default(),
            dangers: Vec::with_capacity(ids.len()),
        };
        let (mut incoming, mut outgoing, mut unknown) = (0u64, 0u64, 0u32);
        for id in &ids {
            let since_ms = self.unread_since_ms(id, now, now_ms, retention_ms);
            let told = self.roster.figures(id);
            let is_here = self.active.contains_key(id);
            let Watch {
                clocks, overview, ..
            } = &mut self.watch;
            let told = overview.believed(id, told, now);
            overview.is_told(id, is_here || told.is_some(), now);
            let position = overview.clocks.entry(id.clone()).or_default();
            position.moved(now.into_std(), since_ms);
            survey.dangers.extend(position.danger(now_ms, retention_ms));
            let clock = match is_here {
                true => clocks.entry(id.clone()).or_default(),
                false => position,
            };
            if is_here {
                clock.moved(now.into_std(), since_ms);
            }
            // One that was only just taken over carries what its last reader said.
            let measured = is_here.then(|| clock.figures(now_ms)).flatten();
            match measured.or(told) {
                Some(figures) => {
                    incoming = incoming.saturating_add(figures.in_per_second);
                    outgoing = outgoing.saturating_add(figures.out_per_second);
                }
                None => unknown += 1,
            }
            let Some(reading) = clock.reading(id.as_str(), now_ms, retention_ms) else {
                continue;
            };
            // Of shards that nobody reads nobody else would warn.
            if is_here || leads {
                self.watch.warn(id, &reading, is_here, now);
            }
            if is_here {
                survey.clock.shards.push(reading);
            }
        }
        let open = self.watch.open_shards();
        let counted = u64::from(open.unwrap_or_else(|| self.roster.unfinished()).max(1));
        let share = |rate: u64, each: u64| {
            let milli = u128::from(rate) * 1_000 / u128::from(counted * each);
            u32::try_from(milli).unwrap_or(u32::MAX)
        };
        survey.clock = StreamClock {
            at_ms: now_ms,
            retention_hours: u32::try_from(retention_ms / 3_600_000).unwrap_or(0),
            open_shards: open,
            advised_shards: None,
            utilisation_in_milli: share(incoming, SHARD_WRITE_BYTES_PER_SECOND),
            utilisation_out_milli: share(outgoing, SHARD_READ_BYTES_PER_SECOND),
            unknown_shards: unknown,
            shards: survey.clock.shards,
        };
        survey
    }

    /// Since when something of a shard may not be durable, milliseconds since the Unix epoch.
    fn unread_since_ms(
        &mut self,
        id: &ShardId,
        now: Instant,
        now_ms: i64,
        retention_ms: i64,
    ) -> Option<i64> {
        let here = self.active.get(id);
        let here = here.and_then(|active| self.delivery.durable(active.index).unread_since_ms);
        let known = here.or_else(|| self.roster.unread_since_ms(id));
        let overview = &mut self.watch.overview;
        if known.is_some() {
            overview.unbegun.remove(id);
            return known;
        }
        let created_ms = self.roster.checkpoint().stream_created_ms;
        let oldest_ms = created_ms.max(now_ms.saturating_sub(retention_ms));
        overview.unbegun_since_ms(id, oldest_ms, now)
    }
}
