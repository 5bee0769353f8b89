//! How long to wait before the next try: a pure state machine, randomness is an argument.
//!
//! The two shapes are those of the AWS Architecture Blog, "Exponential Backoff And Jitter"
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>, read 2025-11).

use std::time::Duration;

/// How a wait is spread, so that writers that failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Anything from zero to the exponential bound: the least work for a crowded service.
    Full,
    /// From `first` to three times the wait before: never an immediate return.
    Decorrelated,
}

/// The bounds of a backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Bound of the first wait; also the least wait of [`Jitter::Decorrelated`].
    pub first: Duration,
    /// No wait is longer than this.
    pub cap: Duration,
    /// How a wait is spread.
    pub jitter: Jitter,
    /// Give up after this many waits; `None` goes on for ever.
    pub max_attempts: Option<u32>,
}

impl BackoffPolicy {
    /// Decorrelated jitter without an end: for loops that must come back when the service does.
    #[must_use]
    pub const fn endless(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            jitter: Jitter::Decorrelated,
            max_attempts: None,
        }
    }
}

/// The waits of one run of failures.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: BackoffPolicy,
    previous: Duration,
    attempts: u32,
}

impl Backoff {
    /// Before the first failure.
    #[must_use]
    pub const fn new(policy: BackoffPolicy) -> Self {
        Self {
            policy,
            previous: policy.first,
            attempts: 0,
        }
    }

    /// Waits handed out since the last success.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// After a success: the next failure waits as the first did.
    pub const fn reset(&mut self) {
        self.previous = self.policy.first;
        self.attempts = 0;
    }

    /// The wait before the next try; `None` once the policy gives up.
    ///
    /// `random` is uniform in `0.0..1.0`; anything outside is taken as the nearest bound, NaN as 0.
    pub fn next_wait(&mut self, random: f64) -> Option<Duration> {
        if self
            .policy
            .max_attempts
            .is_some_and(|limit| self.attempts >= limit)
        {
            return None;
        }
        let random = match random.is_nan() {
            true => 0.0,
            false => random.clamp(0.0, 1.0),
        };
        let BackoffPolicy { first, cap, .. } = self.policy;
        let wait = match self.policy.jitter {
            Jitter::Full => {
                let bound = first
                    .saturating_mul(2u32.saturating_pow(self.attempts))
                    .min(cap);
                bound.mul_f64(random)
            }
            Jitter::Decorrelated => {
                let bound = self.previous.saturating_mul(3).min(cap);
                first + bound.saturating_sub(first).mul_f64(random)
            }
        }
        .min(cap);
        self.previous = wait.max(first);
        self.attempts = self.attempts.saturating_add(1);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(5);

    fn policy(jitter: Jitter) -> BackoffPolicy {
        BackoffPolicy {
            first: FIRST,
            cap: CAP,
            jitter,
            max_attempts: None,
        }
    }

    #[test]
    fn full_jitter_doubles_its_bound_up_to_the_cap() {
        let mut backoff = Backoff::new(policy(Jitter::Full));
        let bounds: Vec<u128> = (0..9)
            .filter_map(|_| backoff.next_wait(1.0))
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(bounds, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.next_wait(0.0), Some(Duration::ZERO));
    }

    #[test]
    fn decorrelated_jitter_never_returns_at_once() {
        let mut backoff = Backoff::new(policy(Jitter::Decorrelated));
        assert_eq!(backoff.next_wait(0.0), Some(FIRST));
        assert_eq!(backoff.next_wait(1.0), Some(FIRST * 3));
        assert_eq!(backoff.next_wait(1.0), Some(FIRST * 9));
        assert_eq!(backoff.next_wait(0.0), Some(FIRST));
        for _ in 0..100 {
            assert!(backoff.next_wait(0.999).is_some_and(|wait| wait <= CAP));
        }
        assert_eq!(backoff.next_wait(1.0), Some(CAP));
    }

    #[test]
    fn gives_up_and_starts_again_after_a_success() {
        let mut backoff = Backoff::new(BackoffPolicy {
            max_attempts: Some(2),
            ..policy(Jitter::Full)
        });
        assert!(backoff.next_wait(0.5).is_some());
        assert!(backoff.next_wait(f64::NAN).is_some());
        assert_eq!(backoff.next_wait(0.5), None);
        assert_eq!(backoff.attempts(), 2);
        backoff.reset();
        assert_eq!(backoff.next_wait(1.0), Some(FIRST));
    }

    #[test]
    fn very_long_runs_do_not_overflow() {
        let mut backoff = Backoff::new(BackoffPolicy {
            first: Duration::from_secs(u64::MAX / 2),
            cap: Duration::from_secs(u64::MAX / 2),
            ..policy(Jitter::Full)
        });
        for _ in 0..200 {
            assert!(backoff.next_wait(0.5).is_some());
        }
    }
}
