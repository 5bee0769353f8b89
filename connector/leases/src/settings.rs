//! Timings.

use std::time::Duration;

/// Timings of the workers of one pipeline; all of them should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    lease_duration: Duration,
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease duration of `{given:?}` is not within {min:?} and {max:?}: shorter, and a slow answer \
     of the store costs a lease; longer, and the work of a dead process waits",
    min = Settings::MIN, max = Settings::MAX
)]
pub struct SettingsError {
    /// What was given.
    pub given: Duration,
}

impl Settings {
    /// Shortest lease duration.
    pub const MIN: Duration = Duration::from_secs(2);
    /// Longest lease duration.
    pub const MAX: Duration = Duration::from_secs(300);
    /// Default lease duration.
    pub const DEFAULT: Duration = Duration::from_secs(6);

    /// Settings with this lease duration.
    ///
    /// # Errors
    /// [`SettingsError`] outside of [`Settings::MIN`] to [`Settings::MAX`].
    pub fn new(lease_duration: Duration) -> Result<Self, SettingsError> {
        if (Self::MIN..=Self::MAX).contains(&lease_duration) {
            Ok(Self { lease_duration })
        } else {
            Err(SettingsError {
                given: lease_duration,
            })
        }
    }

    /// A worker whose row did not change for so long is dead.
    #[must_use]
    pub fn lease_duration(self) -> Duration {
        self.lease_duration
    }

    /// A worker trusts its own leases for so long after the start of a confirmed beat.
    #[must_use]
    pub fn validity(self) -> Duration {
        self.lease_duration * 3 / 4
    }

    /// Longest time between two beats.
    #[must_use]
    pub fn beat(self) -> Duration {
        self.lease_duration / 4
    }

    /// How long to wait before the next step: up to a fifth less than [`Settings::beat`], so that
    /// workers started together do not stay in step. `random` is any number.
    #[must_use]
    pub fn pause(self, random: u32) -> Duration {
        self.beat() - self.beat() / 1000 * (random % 200)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_duration: Self::DEFAULT,
        }
    }
}
