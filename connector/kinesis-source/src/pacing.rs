//! When a shard may be read next, and how much to ask for. Pure: `now` is an argument.
//!
//! Two limits hold: reads a second, and bytes a second. Both are the shard's, for all who poll it together, so
//! throttles are met with fewer and larger reads (interval doubled at once, shortened slowly), down to half a read a second. The bytes of an answer are known only
//! afterwards. So the next read waits until the last answer is paid for, and until an answer of the expected
//! size fits into the second that it would end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{FIRST_READ_LIMIT, LONGEST_THROTTLED_INTERVAL, MAX_RECORDS_PER_READ};

/// Consecutive empty answers after which a shard counts as quiet.
const QUIET_AFTER: u32 = 20;

/// Consecutive answers after which a shard that throttled is read more often again.
const CALM_ANSWERS: u32 = 8;

/// Time between two reads, at least, after a throttle: one of the shard's 2 MiB a second.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);

/// Whoever reads a backlog takes all that the shard gives, in a rhythm that leaves no room to others: they
/// would be throttled for ever, and it never. So after this many answers
const YIELD_AFTER: u32 = 8;

/// it leaves a read and a quarter of one out (250 ms at five reads a second). Alone that costs a sixteenth of its speed.
const YIELD_QUARTERS: u32 = 5;

/// How often and how much one shard is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Reads a second, at most.
    pub reads_per_second: u32,
    /// Bytes a second, at most, over any time longer than one answer.
    pub bytes_per_second: u64,
    /// Bytes that one answer is aimed at.
    pub target_bytes: u64,
    /// Time between two reads once the newest record was read.
    pub idle_interval: Duration,
}

impl Pace {
    fn read_interval(self) -> Duration {
        Duration::from_secs(1) / self.reads_per_second.max(1)
    }
}

/// What one answer brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSize {
    /// Records in the answer.
    pub records: u32,
    /// Their bytes, partition keys included.
    pub bytes: u64,
    /// The newest record was read.
    pub caught_up: bool,
}

/// The pace of one shard.
#[derive(Debug, Clone)]
pub struct Pacer {
    pace: Pace,
    next_read: Option<Instant>,
    /// The end of a wait that is no failure: what was read is to be paid for, or the service asked for it.
    rests_until: Option<Instant>,
    record_bytes: Option<u64>,
    empty_answers: u32,
    /// Time between two reads; longer than the pace says while others read the shard, too.
    interval: Duration,
    /// Answers since the last throttle, or since the interval was last shortened.
    calm_answers: u32,
    /// Answers since the newest record was read last.
    busy_answers: u32,
    /// Reads of the last second: when each began, and its bytes.
    recent: VecDeque<(Instant, u64)>,
}

impl Pacer {
    /// A shard that was never read may be read at once.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            next_read: None,
            rests_until: None,
            record_bytes: None,
            empty_answers: 0,
            interval: pace.read_interval(),
            calm_answers: 0,
            busy_answers: 0,
            recent: VecDeque::new(),
        }
    }

    /// When the next read may begin; a moment in the past means now.
    #[must_use]
    pub fn next_read(&self, now: Instant) -> Instant {
        self.next_read.unwrap_or(now)
    }

    /// Until when the next read waits, where that is no failure.
    #[must_use]
    pub fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// When a read of one record may begin, in between: as long after the last read as any.
    #[must_use]
    pub fn next_look(&self, now: Instant) -> Instant {
        let last = self.recent.back();
        last.map_or(now, |(began, _)| *began + self.interval)
    }

    /// Such a read, which began at `began`, gave so many bytes.
    pub fn looked(&mut self, began: Instant, bytes: u64) {
        self.recent.push_back((began, bytes));
        let earliest = began + self.interval;
        let earliest = self.next_read.map_or(earliest, |next| next.max(earliest));
        self.next_read = Some(self.window_has_room(earliest));
    }

    /// `Limit` of the next read: as many records as fill the target.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let Some(record_bytes) = self.record_bytes else {
            return FIRST_READ_LIMIT;
        };
        let records = self.target() / record_bytes.max(1);
        u32::try_from(records).map_or(MAX_RECORDS_PER_READ, |records| {
            records.clamp(1, MAX_RECORDS_PER_READ)
        })
    }

    /// A read that began at `began` was answered.
    pub fn answered(&mut self, began: Instant, answer: AnswerSize) {
        self.learn_size(answer);
        self.calm_answers += 1;
        if self.calm_answers >= CALM_ANSWERS {
            self.calm_answers = 0;
            self.interval = (self.interval * 3 / 4).max(self.pace.read_interval());
        }
        let quiet = answer.records == 0 && answer.caught_up;
        self.empty_answers = if quiet {
            self.empty_answers.saturating_add(1)
        } else {
            0
        };
        let pause = match (answer.caught_up, self.empty_answers >= QUIET_AFTER) {
            (true, true) => self.pace.idle_interval * 2,
            (true, false) => self.pace.idle_interval,
            (false, _) => Duration::ZERO,
        };
        let paid =
            Duration::from_secs_f64(answer.bytes as f64 / self.pace.bytes_per_second.max(1) as f64);
        let mut earliest = began + pause.max(paid).max(self.interval);
        self.busy_answers = if answer.caught_up {
            0
        } else {
            self.busy_answers.wrapping_add(1)
        };
        if self.busy_answers > 0 && self.busy_answers.is_multiple_of(YIELD_AFTER) {
            earliest += self.pace.read_interval() * YIELD_QUARTERS / 4;
        }
        self.recent.push_back((began, answer.bytes));
        self.next_read = Some(self.window_has_room(earliest));
        self.rests_until = self.next_read;
    }

    /// Bytes that one answer is aimed at.
    fn target(&self) -> u64 {
        let bytes_per_second = self.pace.bytes_per_second;
        // Fewer reads are larger ones: half of what the shard gives in between, to leave the other half.
        let half = (bytes_per_second as f64 * self.interval.as_secs_f64() / 2.0) as u64;
        self.pace.target_bytes.max(half).min(bytes_per_second)
    }

    /// The first moment from `earliest` on at which the expected answer fits into its second.
    fn window_has_room(&mut self, earliest: Instant) -> Instant {
        let expected = self.record_bytes.map_or(0, |bytes| {
            bytes
                .saturating_mul(u64::from(self.limit()))
                .min(self.target())
        });
        let mut used: u64 = self.recent.iter().map(|(_, bytes)| bytes).sum();
        let mut room_from = earliest;
        while let Some((began, bytes)) = self.recent.front().copied() {
            let leaves = began + Duration::from_secs(1);
            if leaves > room_from {
                if used.saturating_add(expected) <= self.pace.bytes_per_second {
                    break;
                }
                room_from = leaves;
            }
            used -= bytes;
            self.recent.pop_front();
        }
        room_from
    }

    /// A read was throttled: others read the shard, too. It is read half as often from now on, until it
    /// has answered for some time, and never less than [`LONGEST_THROTTLED_INTERVAL`] says. `asked` is the wait that the
    /// service asks for; `jitter` from 0 to 1 keeps those who were throttled together from coming back together.
    pub fn throttled(&mut self, now: Instant, asked: Duration, jitter: f64) {
        let longest = LONGEST_THROTTLED_INTERVAL.max(self.pace.read_interval());
        self.interval = (self.interval * 2).clamp(SHARED_INTERVAL, longest);
        self.calm_answers = 0;
        self.busy_answers = 0;
        // From a quarter to three quarters of it: who waits for room must look often enough to find some.
        let wait = self.interval.mul_f64(0.25 + jitter.clamp(0.0, 1.0) / 2.0);
        self.next_read = Some(now + wait.max(asked));
        self.rests_until = (!asked.is_zero()).then_some(now + asked);
    }

    /// A read that began at `began` failed; the next one waits for at least `wait` after `now`.
    pub fn failed(&mut self, began: Instant, now: Instant, wait: Duration) {
        self.next_read = Some((now + wait).max(began + self.pace.read_interval()));
        self.rests_until = None;
    }

    /// Grows at once, so that an answer does not exceed the target twice; shrinks slowly.
    fn learn_size(&mut self, answer: AnswerSize) {
        if answer.records == 0 {
            return;
        }
        let mean = answer.bytes.div_ceil(u64::from(answer.records));
        self.record_bytes = Some(match self.record_bytes {
            Some(known) if known > mean => (known * 3 + mean) / 4,
            _ => mean,
        });
    }
}

#[cfg(test)]
#[path = "pacing_tests.rs"]
mod tests;
