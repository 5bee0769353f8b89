//! What readers tell a session, and what became durable of it.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Session;
use crate::delivery::{Accepted, ShardIndex};
use crate::limits::WARNING_INTERVAL;
use crate::lineage::Stage;
use crate::reader::FromReader;
use crate::shard::{ShardId, ShardInfo};

/// Stray events that were dropped and not said yet.
#[derive(Default)]
pub(super) struct Stray {
    events: u64,
    said: Option<Instant>,
}

impl Stray {
    /// How many to say: all since it was said last, at once and then each ten minutes at most.
    fn dropped(&mut self, now: Instant, events: u64) -> Option<u64> {
        self.events += events;
        if self.said.is_some_and(|said| now < said + WARNING_INTERVAL) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.events))
    }
}

impl Session {
    /// True for a shard that was not let go since.
    pub(super) fn is_active(&self, index: ShardIndex) -> bool {
        if !self.delivery.is_current(index) {
            return false;
        }
        let active = self.active.get(self.delivery.shard_id(index));
        active.is_some_and(|active| active.index == index)
    }

    /// True for a shard whose answers are still to be taken in.
    pub(super) fn is_read(&self, index: ShardIndex) -> bool {
        let shared = self.shared.as_ref();
        let is_ready = |id| shared.is_none_or(|shared| shared.is_ready(id));
        self.is_active(index) && is_ready(self.delivery.shard_id(index))
    }

    pub(super) fn take_message(&mut self, message: FromReader) {
        match message {
            FromReader::First { shard, .. }
            | FromReader::Answer { shard, .. }
            | FromReader::Lost { shard, .. }
                if !self.is_read(shard) => {}
            FromReader::First {
                shard,
                sequence,
                arrival_ms,
                remembered,
            } => {
                self.delivery.begins_at(shard, arrival_ms);
                let id = self.delivery.shard_id(shard).clone();
                let chain = self.delivery.durable(shard).chain.clone();
                self.roster.first_read(&id, sequence, arrival_ms, chain);
                self.pins.push((id, remembered));
            }
            FromReader::Lost { shard, lost, noted } => self.lost(shard, lost, noted),
            FromReader::Answer {
                shard,
                records,
                end,
                children,
                millis_behind_latest,
            } => {
                if end.closed {
                    self.endings.named.insert(shard, children);
                }
                let now = Instant::now().into_std();
                match self.delivery.accept(shard, &records, end, now) {
                    Ok(accepted) => {
                        let id = self.delivery.shard_id(shard);
                        self.watch.answered(id, millis_behind_latest, &records);
                        self.moved(shard, accepted.bytes);
                        self.count(shard, accepted);
                    }
                    Err(error) => self.fail(error.into()),
                }
                self.note_progress();
            }
        }
    }

    pub(super) fn moved(&mut self, shard: ShardIndex, bytes: u64) {
        let now = Instant::now().into_std();
        if let Some(active) = self.active.get_mut(self.delivery.shard_id(shard)) {
            active.progress.moved(now, bytes);
        }
    }

    pub(super) fn count(&mut self, shard: ShardIndex, accepted: Accepted) {
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
            let now = Instant::now();
            if let Some(events) = self.stray.dropped(now, accepted.stray) {
                tracing::warn!(
                    %shard,
                    events,
                    "events whose hash key is not of their shard are dropped: the Kinesis Producer Library sends them                      again. Another producer does not, and its events are lost: then set `aggregated: keep-stray`"
                );
            }
        }
    }

    /// The topic takes events: shards whose events are on their way are not stalled, nor those that wait for room.
    pub(super) fn topic_moved(&mut self) {
        let now = Instant::now().into_std();
        let all = self.delivery.is_full();
        for active in self.active.values_mut() {
            if all || !self.delivery.is_settled(active.index) {
                active.progress.moved(now, 0);
            }
        }
    }

    pub(super) fn note_progress(&mut self) {
        let now = Instant::now().into_std();
        for index in self.delivery.take_changed() {
            self.clock_moved(index);
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

    pub(super) fn finish(&mut self, index: ShardIndex, children: &[ShardInfo]) {
        let id = self.delivery.shard_id(index).clone();
        let durable = self.delivery.durable(index);
        self.roster.finished(&id, children, durable);
        self.caught_up.remove(&id);
        self.active.remove(&id);
        self.watch.forget(&id);
        self.recount = true;
        // Others may wait for the children.
        self.urgent |= self.shared.is_some();
        tracing::info!(shard = %id, children = children.len(), "shard read to its end");
    }

    /// True when another process says that it delivered what was in the shard at our start.
    pub(super) fn is_caught_up_elsewhere(&self, id: &ShardId) -> bool {
        let row = self.roster.checkpoint().shards.get(id);
        let since_ms = row.and_then(|row| row.unread_since_ms);
        self.shared.is_some() && !self.active.contains_key(id) && since_ms >= Some(self.started_ms)
    }

    pub(super) fn count_shards(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_events_are_said_seldom_and_all_of_them() {
        let mut stray = Stray::default();
        let start = Instant::now();
        let said: Vec<_> = (0..1_201)
            .map(|second| stray.dropped(start + std::time::Duration::from_secs(second), 2))
            .collect();
        let said = said.iter().enumerate();
        let said: Vec<_> = said
            .filter_map(|(at, events)| Some((at, (*events)?)))
            .collect();
        assert_eq!(said, [(0, 2), (600, 1_200), (1_200, 1_200)]);
    }
}
