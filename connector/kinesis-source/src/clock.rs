//! The clock on data loss of one shard: how far behind it is, and when its oldest unread event is trimmed.
//! Pure: `now` is an argument.
//!
//! Everything follows from one measure: how fast the position moves through the stream's own time. At speed
//! 1 the shard keeps up; at 3 it catches up with two seconds of backlog each second; below 1 the
//! trim horizon, which always moves at 1, comes nearer. Bytes need not be known for that, nor the producers' rate.
//! The same measure says what came into the shard: what was read, over the stream's time that it was read from.
//!
//! A clock is read for every shard of the stream. Of one that is read elsewhere, or by nobody, the position is that of
//! its row, and what was read of it is for its owner to say.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millpond_connector::stream_clock::{LossLevel, ShardReading};

use crate::retention_guard::Danger;
use crate::shard_figures::ShardFigures;

/// Speeds are means of so long: long enough for positions that move by leaps, and what was before is forgotten.
const WINDOW: Duration = Duration::from_secs(180);

/// With little time left the last minute counts alone.
const SHORT_WINDOW: Duration = Duration::from_secs(60);

/// A mean over less than this says too little.
const SETTLED: Duration = Duration::from_secs(60);

/// Time between two samples at least.
const SAMPLE: Duration = Duration::from_secs(5);

/// Behind by less than this counts as caught up: one read's worth.
const AT_TIP_MS: i64 = 5_000;

/// The position is as good as at the newest record: a silent shard is asked each two minutes at most.
pub const NEAR_MS: i64 = 5 * 60 * 1_000;

/// Below this speed a position says too little about what comes in.
const SLOWEST: f64 = 0.1;

/// What a record takes of a shard at least: 1 MB a second are 1,000 records.
const BYTES_PER_RECORD: u64 = 1_000;

/// From these shares of the retention period on, in thousandths, that the oldest unread event has used up.
const USED: [(i64, LossLevel); 3] = [
    (900, LossLevel::Critical),
    (750, LossLevel::Urgent),
    (500, LossLevel::Notable),
];

/// Where the position stood, and what had been read by then.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    position_ms: i64,
    bytes: u64,
    load: u64,
}

/// What is measured of one shard.
#[derive(Debug, Clone, Default)]
pub struct ShardClock {
    /// As the service said last.
    behind_ms: Option<i64>,
    position_ms: Option<i64>,
    /// Of the last while, each [`SAMPLE`] after the one before.
    samples: VecDeque<Sample>,
    /// Read since the beginning: bytes, and what they took of a shard.
    bytes: u64,
    load: u64,
}

impl ShardClock {
    /// An answer said how far it is behind the newest record.
    pub fn answered(&mut self, millis_behind_latest: i64) {
        // What an answer does not say is no number.
        self.behind_ms = (millis_behind_latest < i64::MAX).then_some(millis_behind_latest.max(0));
    }

    /// So much was read.
    pub fn took(&mut self, bytes: u64, records: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        // A shard takes 1,000 records a second, however small.
        let load = bytes.max(records.saturating_mul(BYTES_PER_RECORD));
        self.load = self.load.saturating_add(load);
    }

    /// Everything that is not durable arrived at `unread_since_ms` (milliseconds since the Unix epoch) or later.
    pub fn moved(&mut self, now: Instant, unread_since_ms: Option<i64>) {
        let Some(since_ms) = unread_since_ms else {
            return;
        };
        let position_ms = since_ms.max(self.position_ms.unwrap_or(since_ms));
        self.position_ms = Some(position_ms);
        let passed = |sample: &Sample| now.saturating_duration_since(sample.at);
        if self
            .samples
            .back()
            .is_some_and(|sample| passed(sample) < SAMPLE)
        {
            return;
        }
        self.samples.push_back(Sample {
            at: now,
            position_ms,
            bytes: self.bytes,
            load: self.load,
        });
        while self
            .samples
            .get(1)
            .is_some_and(|next| passed(next) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// First and last sample of the last while, as far as it was measured, and the seconds between them.
    fn span(&self, back: Duration) -> Option<(Sample, Sample, f64)> {
        let last = *self.samples.back()?;
        let is_within = |sample: &&Sample| last.at.saturating_duration_since(sample.at) <= back;
        let first = *self.samples.iter().find(is_within)?;
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }

    fn speed_over(&self, back: Duration) -> Option<f64> {
        let (first, last, seconds) = self.span(back)?;
        let moved_ms = last.position_ms.saturating_sub(first.position_ms);
        Some(moved_ms as f64 / 1_000.0 / seconds)
    }

    /// How fast the position moves through the stream's time, seconds a second; `None` before it was measured.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        self.speed_over(WINDOW + SAMPLE)
    }

    fn is_settled(&self) -> bool {
        let span = self.span(WINDOW + SAMPLE);
        span.is_some_and(|(.., seconds)| seconds >= SETTLED.as_secs_f64())
    }

    /// What the shard carries; `None` while that was not measured for a minute, or hardly anything moves.
    #[must_use]
    pub fn figures(&self, now_ms: i64) -> Option<ShardFigures> {
        if !self.is_settled() {
            return None;
        }
        let (first, last, seconds) = self.span(WINDOW + SAMPLE)?;
        let speed = self.speed().filter(|speed| *speed >= SLOWEST)?;
        let per_second = |amount: u64| amount as f64 / seconds;
        let is_at_tip = self.behind_ms.is_some_and(|behind| behind < AT_TIP_MS);
        let out = match is_at_tip {
            true => per_second(last.bytes.saturating_sub(first.bytes)),
            // A source that is behind reads as fast as it may.
            false => 0.0,
        };
        // The casts saturate.
        Some(ShardFigures {
            at_ms: now_ms,
            in_per_second: (per_second(last.load.saturating_sub(first.load)) / speed) as u64,
            out_per_second: out as u64,
        })
    }

    /// How near the shard is to a loss; `None` while nothing is known of its position.
    #[must_use]
    pub fn danger(&self, now_ms: i64, retention_ms: i64) -> Option<Danger> {
        let behind_ms = now_ms.saturating_sub(self.position_ms?).max(0);
        let left_ms = retention_ms.saturating_sub(behind_ms).max(0);
        Some(Danger {
            behind: Duration::from_millis(behind_ms.unsigned_abs()),
            left: Duration::from_millis(left_ms.unsigned_abs()),
            speed: self.speed().filter(|_| self.is_settled()),
            latest_speed: self.speed_over(SHORT_WINDOW + SAMPLE),
        })
    }

    /// What the clock shows. `now_ms` is milliseconds since the Unix epoch.
    #[must_use]
    pub fn reading(&self, shard: &str, now_ms: i64, retention_ms: i64) -> Option<ShardReading> {
        let lag_ms = now_ms.saturating_sub(self.position_ms?).max(0);
        // Idle, the newest record is read and the position moves with the reads only. What was read and does not
        // become durable is not safe.
        let is_at_tip = lag_ms < NEAR_MS && self.behind_ms.is_none_or(|behind| behind < AT_TIP_MS);
        let behind_ms = self.behind_ms.unwrap_or(lag_ms);
        let left_s = retention_ms.saturating_sub(lag_ms).max(0) / 1_000;
        let seconds_until_trim = left_s.unsigned_abs();
        let speed = self.speed().unwrap_or(1.0);
        let unread_ms = behind_ms.max(lag_ms);
        let drain_seconds = match (is_at_tip, speed > 1.0) {
            (true, _) => Some(0),
            // The casts saturate: never is as good as in the far future.
            (false, true) => Some((unread_ms as f64 / 1_000.0 / (speed - 1.0)) as u64),
            (false, false) => None,
        };
        let seconds_until_loss = match (seconds_until_trim, speed < 1.0 && !is_at_tip) {
            (0, _) => Some(0),
            (left, true) => Some((left as f64 / (1.0 - speed)) as u64),
            (_, false) => None,
        };
        Some(ShardReading {
            shard: shard.to_owned(),
            millis_behind_latest: behind_ms.unsigned_abs(),
            seconds_until_trim,
            drain_seconds,
            seconds_until_loss,
            level: level(lag_ms, retention_ms),
        })
    }
}

/// By the used share alone: a loss is never estimated sooner than when nothing more is read, so an estimate adds nothing.
fn level(lag_ms: i64, retention_ms: i64) -> LossLevel {
    let used = lag_ms.saturating_mul(1_000) / retention_ms.max(1);
    let found = USED.iter().find(|(from, _)| used >= *from);
    found.map(|(_, level)| *level).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    const BEGIN_MS: i64 = 1_763_880_000_000;

    /// A shard whose position starts `behind_ms` back and moves at `speed` for `seconds`.
    fn run(behind_ms: i64, speed: f64, seconds: u64) -> (ShardClock, i64) {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        let mut now_ms = BEGIN_MS;
        for second in 0..=seconds {
            now_ms = BEGIN_MS + second as i64 * 1_000;
            let position = BEGIN_MS - behind_ms + (second as f64 * 1_000.0 * speed) as i64;
            let position = position.min(now_ms);
            clock.answered(now_ms - position);
            clock.moved(start + Duration::from_secs(second), Some(position));
        }
        (clock, now_ms)
    }

    fn reading(behind_ms: i64, speed: f64, seconds: u64) -> ShardReading {
        let (clock, now_ms) = run(behind_ms, speed, seconds);
        clock.reading("s", now_ms, DAY_MS).expect("measured")
    }

    #[test]
    fn catching_up_it_says_when() {
        let found = reading(10 * HOUR_MS, 3.0, 600);
        // Two seconds of backlog each second: 600 s have taken 1,200 s of 36,000.
        assert_eq!(found.millis_behind_latest, 34_800_000);
        let drain = found.drain_seconds.expect("an estimate");
        assert!((17_300..=17_500).contains(&drain), "{drain}");
        assert_eq!(found.seconds_until_loss, None);
        assert_eq!(found.seconds_until_trim, 24 * 3_600 - 34_800);
        assert_eq!(found.level, LossLevel::Fine);
    }

    #[test]
    fn falling_behind_it_says_when_data_is_lost() {
        let found = reading(20 * HOUR_MS, 0.5, 600);
        assert_eq!(found.drain_seconds, None);
        // 4 h left, less 300 s; they go at half a second a second.
        let loss = found.seconds_until_loss.expect("an estimate");
        assert!((28_000..=28_300).contains(&loss), "{loss}");
        assert_eq!(found.level, LossLevel::Urgent);
        assert_eq!(reading(22 * HOUR_MS, 0.9, 600).level, LossLevel::Critical);
        assert_eq!(reading(13 * HOUR_MS, 1.0, 600).level, LossLevel::Notable);
        assert_eq!(reading(25 * HOUR_MS, 1.0, 60).seconds_until_loss, Some(0));
    }

    #[test]
    fn standing_still_is_measured_too() {
        // Half the retention is left, and nothing moves: 12 h, less what passed.
        let found = reading(12 * HOUR_MS, 0.0, 600);
        let loss = found.seconds_until_loss.expect("an estimate");
        assert!((42_000..=43_000).contains(&loss), "{loss}");
        assert_eq!(reading(60_000, 0.0, 60).level, LossLevel::Fine);
    }

    #[test]
    fn at_the_tip_nothing_is_in_danger() {
        let found = reading(0, 1.0, 600);
        assert_eq!(
            (found.millis_behind_latest, found.drain_seconds),
            (0, Some(0))
        );
        assert_eq!(found.seconds_until_loss, None);
        assert_eq!(found.seconds_until_trim, 24 * 3_600);
        assert!(
            ShardClock::default()
                .reading("s", BEGIN_MS, DAY_MS)
                .is_none()
        );
    }

    #[test]
    fn what_was_read_and_is_not_safe_is_in_danger() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        for second in 0..120u64 {
            // Read to the newest record, and nothing of it gets into the topic.
            clock.answered(0);
            clock.moved(
                start + Duration::from_secs(second),
                Some(BEGIN_MS - 20 * HOUR_MS),
            );
        }
        let found = clock.reading("s", BEGIN_MS, DAY_MS).expect("measured");
        assert_eq!(found.seconds_until_loss, Some(4 * 3_600));
        assert_eq!(
            (found.drain_seconds, found.level),
            (None, LossLevel::Urgent)
        );
    }

    #[test]
    fn what_comes_in_is_known_while_catching_up() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        for second in 0..900u64 {
            // Read at four times the speed of time: 400,000 bytes a second came in then.
            let position = BEGIN_MS + second as i64 * 4_000;
            clock.answered(3_600_000);
            clock.took(1_600_000, 100);
            clock.moved(start + Duration::from_secs(second), Some(position));
            if second == 50 {
                assert_eq!(clock.figures(BEGIN_MS), None, "too early");
            }
        }
        let figures = clock.figures(BEGIN_MS).expect("measured");
        let incoming = figures.in_per_second;
        assert!((399_000..=401_000).contains(&incoming), "{incoming}");
        assert_eq!(figures.out_per_second, 0);
        clock.answered(0);
        let figures = clock.figures(BEGIN_MS).expect("measured");
        assert!(figures.out_per_second > 1_500_000, "{figures:?}");
        let mut small = ShardClock::default();
        for second in 0..900u64 {
            let now_ms = BEGIN_MS + second as i64 * 1_000;
            small.took(500 * 20, 500);
            small.moved(start + Duration::from_secs(second), Some(now_ms));
        }
        let figures = small.figures(BEGIN_MS).expect("measured");
        let incoming = figures.in_per_second;
        assert!((499_000..=501_000).contains(&incoming), "{incoming}");
        // Of a shard that stands still it is not known what comes in.
        for second in 900..1_200u64 {
            small.moved(start + Duration::from_secs(second), Some(BEGIN_MS));
        }
        assert_eq!(small.figures(BEGIN_MS), None);
    }

    #[test]
    fn what_was_before_is_forgotten_within_minutes() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        let mut position = BEGIN_MS;
        for second in 0..800u64 {
            // Hours without a record are passed in a moment.
            position += match second {
                0..600 => 4_000,
                600 => 20 * HOUR_MS,
                _ => 500,
            };
            clock.moved(start + Duration::from_secs(second), Some(position));
        }
        let speed = clock.speed().expect("measured");
        assert!((0.49..=0.51).contains(&speed), "{speed}");
        assert!(clock.samples.len() <= 40, "{}", clock.samples.len());
    }

    #[test]
    fn leaps_are_a_speed_too() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        for second in 0..900u64 {
            // A row that is written each minute.
            let position = BEGIN_MS + (second / 60 * 60) as i64 * 1_000;
            clock.moved(start + Duration::from_secs(second), Some(position));
            let speed = clock.speed().unwrap_or(1.0);
            assert!(
                second < 180 || (0.6..=1.4).contains(&speed),
                "{second}: {speed}"
            );
        }
    }
}
