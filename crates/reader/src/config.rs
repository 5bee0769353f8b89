//! What a reader is told.

use std::sync::Arc;
use std::time::Duration;

use crate::damage::Damage;

/// Which table and pipeline to read, and how.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// Table name or ARN.
    pub table: String,
    /// Pipeline that wrote the table; needed only when several did.
    pub pipeline: Option<String>,
    /// Where the table is, for messages (an endpoint, a region); `None` names the client's region.
    pub place: Option<String>,
    /// Name of the partition key attribute; `None` takes the table's own.
    pub partition_key: Option<String>,
    /// Name of the sort key attribute; `None` takes the table's own.
    pub sort_key: Option<String>,
    /// Strongly consistent reads of items: see every write that was acknowledged, at twice the
    /// read units. Directory, registry and ledger are always read so.
    pub consistent: bool,
    /// What to do with an item that does not pass its checks.
    pub on_damage: OnDamage,
    /// Most queries in flight at once.
    pub parallel_queries: usize,
    /// Most read units a second, over all calls; `None` for no limit.
    pub max_read_units: Option<ReadUnits>,
    /// How throttling and passing failures are retried.
    pub retry: RetryPolicy,
}

impl ReaderConfig {
    /// The defaults for a table: its own key names, its only pipeline, eventually consistent
    /// reads, 16 queries at once, damage is an error.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            pipeline: None,
            place: None,
            partition_key: None,
            sort_key: None,
            consistent: false,
            on_damage: OnDamage::Fail,
            parallel_queries: 16,
            max_read_units: None,
            retry: RetryPolicy::default(),
        }
    }
}

/// A pace in read units a second, above zero.
///
/// Of calls that start within any `w` seconds no more than `w` times as many are consumed, and once
/// those of one second (or of one page, 256, if that is more).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ReadUnits(f64);

impl ReadUnits {
    /// `None` unless the number is above zero and finite.
    #[must_use]
    pub fn per_second(units: f64) -> Option<Self> {
        (units.is_finite() && units > 0.0).then_some(Self(units))
    }

    pub(crate) fn get(self) -> f64 {
        self.0
    }
}

/// What to do with an item, or a frame of one, that does not pass its checks.
#[derive(Clone, Default)]
pub enum OnDamage {
    /// The read ends with [`ReadError::Damaged`](crate::ReadError::Damaged).
    #[default]
    Fail,
    /// The function is told, and the read goes on with the rest: the next frame when the header
    /// is whole, else the next item.
    Skip(Arc<dyn Fn(&Damage) + Send + Sync>),
}

impl std::fmt::Debug for OnDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fail => "Fail",
            Self::Skip(_) => "Skip",
        })
    }
}

/// Exponential backoff with full jitter; the only retry of a read, the SDK's own is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Longest wait before the second attempt; it doubles with each further one.
    pub first_wait: Duration,
    /// Longest wait before any attempt.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// Ten attempts over at most about 16 seconds.
    fn default() -> Self {
        Self {
            attempts: 10,
            first_wait: Duration::from_millis(50),
            longest_wait: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// Upper bound of the wait after failed attempt number `attempt`, counted from 1.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let factor = 1u32 << (attempt.saturating_sub(1)).min(16);
        self.first_wait
            .saturating_mul(factor)
            .min(self.longest_wait)
    }
}
