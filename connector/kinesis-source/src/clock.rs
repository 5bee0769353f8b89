//! The clock on data loss of one shard: how far behind it is, and when its oldest unread event is trimmed.
//! Pure: `now` is an argument.
//!
//! Everything follows from one measure: how fast the position moves through the stream's own time. At speed
//! 1 the shard keeps up; at 3 it catches up with two seconds of backlog each second; below 1 the
//! trim horizon, which always moves at 1, comes nearer. Bytes need not be known for that, nor the producers' rate.

use std::time::{Duration, Instant};

use millpond_connector::stream_clock::{LossLevel, ShardReading};

/// The mean speed reaches back about so long.
const MEMORY: Duration = Duration::from_secs(180);

/// A speed is measured over at least so long.
const SAMPLE: Duration = Duration::from_secs(5);

/// Behind by less than this counts as caught up: one read's worth.
const AT_TIP_MS: i64 = 5_000;

/// What a record takes of a shard at least: 1 MB a second are 1,000 records.
const BYTES_PER_RECORD: u64 = 1_000;

/// From these shares of the retention period on, in thousandths, that the oldest unread event has used up.
const USED: [(u64, LossLevel); 3] = [
    (900, LossLevel::Critical),
    (750, LossLevel::Urgent),
    (500, LossLevel::Notable),
];

/// The same from the time that is left at the present speed, in seconds.
const LEFT: [(u64, LossLevel); 2] = [(3_600, LossLevel::Critical), (6 * 3_600, LossLevel::Urgent)];

/// What is measured of one shard.
#[derive(Debug, Clone, Default)]
pub struct ShardClock {
    /// As the service said last.
    behind_ms: Option<i64>,
    /// Position at the beginning of the sample: when, and arrival time of what is not durable.
    sample: Option<(Instant, i64)>,
    position_ms: Option<i64>,
    speed: Option<f64>,
    /// Read since the sample began: bytes, and what they took of a shard.
    bytes: u64,
    load: u64,
    bytes_per_second: f64,
    load_per_second: f64,
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

    /// Bytes that come into the shard a second, small records counted as what they take of it. At another speed than
    /// 1, those of the time that is being read.
    #[must_use]
    pub fn in_per_second(&self) -> f64 {
        // Below that the position says too little.
        let speed = self.speed.unwrap_or(1.0).max(0.1);
        self.load_per_second / speed
    }

    /// Bytes that are read a second, once the newest record is read: behind, a source reads as fast as it may.
    #[must_use]
    pub fn out_per_second(&self) -> f64 {
        let is_at_tip = self.behind_ms.is_some_and(|behind| behind < AT_TIP_MS);
        if is_at_tip {
            self.bytes_per_second
        } else {
            0.0
        }
    }

    /// Everything that is not durable arrived at `unread_since_ms` (milliseconds since the Unix epoch) or later.
    pub fn moved(&mut self, now: Instant, unread_since_ms: Option<i64>) {
        let Some(position_ms) = unread_since_ms else {
            return;
        };
        self.position_ms = Some(position_ms.max(self.position_ms.unwrap_or(position_ms)));
        let Some((begun, from_ms)) = self.sample else {
            self.sample = Some((now, position_ms));
            return;
        };
        let wall = now.saturating_duration_since(begun);
        if wall < SAMPLE {
            return;
        }
        let latest = position_ms.saturating_sub(from_ms) as f64 / wall.as_millis().max(1) as f64;
        let per_second = |amount: u64| amount as f64 / wall.as_secs_f64();
        let (bytes, load) = (per_second(self.bytes), per_second(self.load));
        (self.bytes, self.load) = (0, 0);
        let weight = 1.0 - (-wall.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        if self.speed.is_none() {
            (self.bytes_per_second, self.load_per_second) = (bytes, load);
        }
        self.bytes_per_second += weight * (bytes - self.bytes_per_second);
        self.load_per_second += weight * (load - self.load_per_second);
        self.speed = Some(match self.speed {
            Some(speed) => speed + weight * (latest - speed),
            None => latest,
        });
        self.sample = Some((now, position_ms));
    }

    /// How fast the position moves through the stream's time, seconds a second; `None` before it was measured.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        self.speed
    }

    /// What the clock shows. `now_ms` is milliseconds since the Unix epoch.
    #[must_use]
    pub fn reading(&self, shard: &str, now_ms: i64, retention_ms: i64) -> Option<ShardReading> {
        let position_ms = self.position_ms?;
        let lag_ms = now_ms.saturating_sub(position_ms).max(0);
        // Idle, the newest record is read and the position moves with the reads only.
        let is_at_tip = self.behind_ms.is_some_and(|behind| behind < AT_TIP_MS);
        let behind_ms = self.behind_ms.unwrap_or(lag_ms);
        let left_s = retention_ms.saturating_sub(lag_ms).max(0) / 1_000;
        let seconds_until_trim = u64::try_from(left_s).unwrap_or(0);
        let speed = self.speed.unwrap_or(1.0);
        let drain_seconds = match (is_at_tip, speed > 1.0) {
            (true, _) => Some(0),
            (false, true) => Some((behind_ms as f64 / 1_000.0 / (speed - 1.0)) as u64),
            (false, false) => None,
        };
        let seconds_until_loss = match (seconds_until_trim, speed < 1.0 && !is_at_tip) {
            (0, _) => Some(0),
            // The cast saturates: never is as good as in the far future.
            (left, true) => Some((left as f64 / (1.0 - speed)) as u64),
            (_, false) => None,
        };
        Some(ShardReading {
            shard: shard.to_owned(),
            millis_behind_latest: u64::try_from(behind_ms).unwrap_or(0),
            seconds_until_trim,
            drain_seconds,
            seconds_until_loss,
            level: level(lag_ms, retention_ms, seconds_until_loss),
        })
    }
}

fn level(lag_ms: i64, retention_ms: i64, until_loss: Option<u64>) -> LossLevel {
    let used = lag_ms.saturating_mul(1_000) / retention_ms.max(1);
    let used = u64::try_from(used).unwrap_or(0);
    let by_used = USED.iter().find(|(from, _)| used >= *from);
    let left = until_loss.unwrap_or(u64::MAX);
    // A shard that just stands still for a moment is not about to lose anything.
    let by_left = LEFT
        .iter()
        .find(|(below, _)| left < *below && used >= USED[2].0 / 2);
    let found = by_used.into_iter().chain(by_left).map(|(_, level)| *level);
    found.max().unwrap_or_default()
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
    fn what_comes_in_is_known_while_catching_up() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        for second in 0..900u64 {
            // Read at four times the speed of time: 400,000 bytes a second came in then.
            let position = BEGIN_MS + second as i64 * 4_000;
            clock.answered(3_600_000);
            clock.took(1_600_000, 100);
            clock.moved(start + Duration::from_secs(second), Some(position));
        }
        let incoming = clock.in_per_second();
        assert!((380_000.0..420_000.0).contains(&incoming), "{incoming}");
        assert_eq!(clock.out_per_second(), 0.0);
        clock.answered(0);
        assert!(clock.out_per_second() > 1_500_000.0);
        let mut small = ShardClock::default();
        for second in 0..900u64 {
            let now_ms = BEGIN_MS + second as i64 * 1_000;
            small.took(500 * 20, 500);
            small.moved(start + Duration::from_secs(second), Some(now_ms));
        }
        let incoming = small.in_per_second();
        assert!((490_000.0..510_000.0).contains(&incoming), "{incoming}");
    }

    #[test]
    fn the_speed_follows_a_change_within_minutes() {
        let start = Instant::now();
        let mut clock = ShardClock::default();
        let mut position = BEGIN_MS;
        for second in 0..1_200u64 {
            let speed = if second < 600 { 4_000 } else { 500 };
            position += speed;
            clock.moved(start + Duration::from_secs(second), Some(position));
        }
        let speed = clock.speed().expect("measured");
        assert!((0.5..0.7).contains(&speed), "{speed}");
    }
}
