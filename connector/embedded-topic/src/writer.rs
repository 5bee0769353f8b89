//! The thread that writes: appends of all partitions share a commit, and what every
//! consumer has released is removed along the way.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{AGE_CHECK, GROUP_BYTES, RELEASE_DELAY, REMOVE_BYTES};
use crate::ends::Ends;
use crate::shared::{Life, QueuedAppend, Shared, State};
use crate::store::{Change, PlacedBatch, StoreError};

/// A file is compacted when it is larger than this, and what it holds smaller than that.
const COMPACT_FILE_BYTES: u64 = 256 << 20;
const COMPACT_LIVE_BYTES: u64 = 32 << 20;
/// Nothing may have happened for so long before a compaction.
const COMPACT_IDLE: Duration = Duration::from_secs(2);

/// Runs until the topic is closed.
pub(crate) fn run(shared: &Arc<Shared>, ends: Ends) {
    let mut writer = Writer {
        ends,
        shared: Arc::clone(shared),
        fullness: Fullness::Room,
        compacted_bytes: 0,
    };
    while let Some(step) = writer.next_step() {
        match step {
            Step::Commit(group) => writer.commit(group),
            Step::Compact => writer.compact(),
        }
    }
    let mut state = shared.state();
    state.life = Life::Closed;
    let rest = std::mem::take(&mut state.queue);
    drop(state);
    shared.store.close();
    shared.news.notify_all();
    for append in rest {
        let _ = append.reply.send(Err(shared.closed()));
    }
}

enum Step {
    /// Appends to store; none when only releases are to be written.
    Commit(Vec<QueuedAppend>),
    Compact,
}

/// What was done about an append that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fullness {
    Room,
    Asked,
    Said,
}

struct Writer {
    shared: Arc<Shared>,
    ends: Ends,
    fullness: Fullness,
    /// File size after the last compaction, so that one that gains nothing is not repeated.
    compacted_bytes: u64,
}

impl Writer {
    /// Waits for work; `None` once the topic is closed and nothing is left to write.
    fn next_step(&mut self) -> Option<Step> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let mut waited = Duration::ZERO;
        loop {
            let group = self.take_group(&mut state);
            if !group.is_empty() {
                return Some(Step::Commit(group));
            }
            let closing = state.life != Life::Open;
            let dirty = state.removal_due || !state.dirty_consumers.is_empty();
            // An append that waits for room must not wait for company as well.
            if dirty && (closing || !state.queue.is_empty() || waited >= RELEASE_DELAY) {
                return Some(Step::Commit(Vec::new()));
            }
            if closing {
                // Appends that found no room are answered by `run`.
                return None;
            }
            let pause = self.pause(&state, dirty, waited);
            let Some(pause) = pause else {
                state = shared
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                waited = Duration::ZERO;
                continue;
            };
            let started = Instant::now();
            let (next, timeout) = shared
                .work
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            waited += started.elapsed();
            if timeout.timed_out() && !dirty {
                if self.wants_compaction(&state) && waited >= COMPACT_IDLE {
                    return Some(Step::Compact);
                }
                if shared.config.retention.max_age.is_some() {
                    state.removal_due = true;
                }
            }
        }
    }

    fn pause(&self, state: &State, dirty: bool, waited: Duration) -> Option<Duration> {
        if dirty {
            return Some(RELEASE_DELAY.saturating_sub(waited));
        }
        let compaction = self.wants_compaction(state).then_some(COMPACT_IDLE);
        let ageing = self.shared.config.retention.max_age.map(|_| AGE_CHECK);
        compaction.into_iter().chain(ageing).min()
    }

    /// Takes what fits, in order, up to one group.
    fn take_group(&mut self, state: &mut State) -> Vec<QueuedAppend> {
        let max_bytes = self.shared.config.retention.max_bytes;
        let mut stored = state.stored_bytes();
        let mut group_bytes = 0;
        let mut group = Vec::new();
        while let Some(append) = state.queue.front() {
            let bytes = append.batch.raw.len() as u64;
            // A batch larger than the limit goes in alone, or it would wait for ever.
            let fits = stored == 0 || stored + bytes <= max_bytes;
            if !fits {
                if group.is_empty() {
                    self.wait_for_room(stored, max_bytes, state);
                }
                break;
            }
            if !group.is_empty() && group_bytes + bytes > GROUP_BYTES {
                break;
            }
            stored += bytes;
            group_bytes += bytes;
            group.extend(state.queue.pop_front());
        }
        if !group.is_empty() {
            self.fullness = Fullness::Room;
        }
        group
    }

    /// Asks once for released batches to be removed, then says once that appends wait;
    /// after that a release wakes the writer.
    fn wait_for_room(&mut self, stored: u64, max_bytes: u64, state: &mut State) {
        match self.fullness {
            Fullness::Room => {
                self.fullness = Fullness::Asked;
                state.removal_due = true;
            }
            Fullness::Asked if !state.removal_due => {
                self.fullness = Fullness::Said;
                tracing::warn!(
                    topic = self.shared.config.name,
                    stored_bytes = stored,
                    max_bytes,
                    consumers = state.consumers.len(),
                    "the topic is full of batches that a consumer has not released: appends wait"
                );
            }
            Fullness::Asked | Fullness::Said => {}
        }
    }

    fn commit(&mut self, group: Vec<QueuedAppend>) {
        match self.try_commit(&group) {
            Ok(ranges) => {
                if !group.is_empty() {
                    let ends: Vec<_> = self
                        .shared
                        .state()
                        .partitions
                        .iter()
                        .map(|p| p.end)
                        .collect();
                    self.ends.write(&ends);
                }
                self.shared.news.notify_all();
                let metrics = &self.shared.metrics;
                for (append, range) in group.into_iter().zip(ranges) {
                    metrics.appended_batches.add(1);
                    metrics
                        .appended_records
                        .add(append.batch.record_count.into());
                    metrics.appended_bytes.add(append.batch.raw.len() as u64);
                    let _ = append.reply.send(Ok(range));
                }
            }
            Err(error) => self.fail(group, &error),
        }
    }

    fn try_commit(&self, group: &[QueuedAppend]) -> Result<Vec<std::ops::Range<u64>>, StoreError> {
        let shared = &self.shared;
        let (mut partitions, mut change, mut wanted, mut room_wanted) = {
            let mut state = shared.state();
            let mut change = Change::default();
            for name in std::mem::take(&mut state.dirty_consumers) {
                if let Some(released) = state.consumers.get(&name) {
                    change.consumers.insert(name, released.clone());
                }
            }
            change.forgotten = std::mem::take(&mut state.forgotten_consumers);
            let mut wanted = Vec::new();
            if std::mem::take(&mut state.removal_due) {
                wanted.extend((0..shared.config.partition_count).map(|p| (p, state.released(p))));
            }
            // With an empty group, the append at the front is there because it has no room.
            let next = state.queue.front().filter(|_| group.is_empty());
            let room_wanted = next.map_or(0, |append| {
                let needed = state.stored_bytes() + append.batch.raw.len() as u64;
                needed.saturating_sub(shared.config.retention.max_bytes)
            });
            (state.partitions.clone(), change, wanted, room_wanted)
        };
        let before = partitions.clone();
        let now_ms = unix_ms();
        let mut budget = REMOVE_BYTES;
        let mut more = false;
        for (partition, to) in wanted.drain(..) {
            let Some(bounds) = partitions.get_mut(partition as usize) else {
                continue;
            };
            for batch in shared.store.removable(partition, *bounds, to, budget)? {
                if room_wanted == 0 && !self.is_old(batch.appended_ms, now_ms) {
                    break;
                }
                bounds.earliest = batch.end;
                bounds.bytes = bounds.bytes.saturating_sub(batch.raw_len);
                budget = budget.saturating_sub(batch.raw_len);
                room_wanted = room_wanted.saturating_sub(batch.raw_len);
                change.removals.push((partition, batch));
            }
            if budget == 0 {
                more = true;
                break;
            }
        }
        let mut ranges = Vec::with_capacity(group.len());
        for append in group {
            let Some(bounds) = partitions.get_mut(append.partition as usize) else {
                ranges.push(0..0);
                continue;
            };
            let base = bounds.end;
            bounds.end += u64::from(append.batch.record_count);
            bounds.bytes += append.batch.raw.len() as u64;
            ranges.push(base..bounds.end);
            change.appends.push(PlacedBatch {
                partition: append.partition,
                base,
                appended_ms: now_ms,
                batch: append.batch.clone(),
            });
        }
        change.partitions = (0..)
            .zip(&partitions)
            .zip(&before)
            .filter(|((_, new), old)| new != old)
            .map(|((partition, new), _)| (partition, *new))
            .collect();
        let stored = before.iter().map(|p| p.bytes).sum::<u64>();
        change.quick_repair = stored >= shared.config.quick_repair_bytes;
        if !change.is_empty() {
            shared.store.commit(&change)?;
        }
        let mut state = shared.state();
        state.partitions = partitions;
        state.removal_due |= more;
        Ok(ranges)
    }

    fn is_old(&self, appended_ms: i64, now_ms: i64) -> bool {
        let Some(max_age) = self.shared.config.retention.max_age else {
            return true;
        };
        let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(appended_ms) >= max_age_ms
    }

    /// Fails a group and everything queued behind it: a later append of a partition must
    /// not be stored when an earlier one was not.
    fn fail(&self, group: Vec<QueuedAppend>, error: &StoreError) {
        let shared = &self.shared;
        tracing::warn!(topic = shared.config.name, %error, appends = group.len(), "a commit failed");
        // The failed commit may have reached the disk: the file says what holds.
        let loaded = shared.store.load(shared.config.partition_count);
        let mut state = shared.state();
        if let Ok(loaded) = loaded {
            state.partitions = loaded.partitions;
        }
        if state.life == Life::Open {
            // Releases are still to be written, with the next commit that works.
            state.dirty_consumers = state.consumers.keys().cloned().collect();
        } else {
            // There may be none: a disk that is full must not keep the process. Without them the sinks' ledgers
            // say where to go on, and retention keeps what they have a little longer.
            state.removal_due = false;
        }
        state.failed_commits += 1;
        let queued = std::mem::take(&mut state.queue);
        drop(state);
        shared.news.notify_all();
        for append in group.into_iter().chain(queued) {
            let failure = error.clone().into_topic(&shared.config.name);
            let _ = append.reply.send(Err(failure));
        }
    }

    fn wants_compaction(&self, state: &State) -> bool {
        let file_bytes = self.shared.store.file_bytes();
        state.stored_bytes() < COMPACT_LIVE_BYTES
            && file_bytes > COMPACT_FILE_BYTES.max(self.compacted_bytes * 2)
    }

    fn compact(&mut self) {
        if let Err(error) = self.shared.store.compact() {
            tracing::warn!(topic = self.shared.config.name, %error, "compaction failed");
        }
        self.compacted_bytes = self.shared.store.file_bytes();
    }
}

fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}
