//! How long the stream keeps records, as it was said last: shared by all who need it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The retention period. Clones share it.
#[derive(Debug, Clone)]
pub struct Retention(Arc<AtomicI64>);

impl Retention {
    /// A period of so many milliseconds.
    #[must_use]
    pub fn new(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    /// The period in milliseconds.
    #[must_use]
    pub fn ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The stream says another one.
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}
