//! Rows in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{LeaseStore, Outcome, StoreError};
use crate::row::{Change, View};

/// Rows in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    rows: Arc<Mutex<View>>,
}

impl MemoryStore {
    fn rows(&self) -> MutexGuard<'_, View> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows.
    #[must_use]
    pub fn snapshot(&self) -> View {
        self.rows().clone()
    }

    /// Makes one change if the row is as it was seen.
    pub fn apply(&self, change: &Change) -> Outcome {
        let mut rows = self.rows();
        match change {
            Change::Worker { id, seen, new } => put(&mut rows.workers, id, seen, new.as_ref()),
            Change::Lease { id, seen, new } => put(&mut rows.leases, id, seen, Some(new)),
        }
    }
}

fn put<K: Ord + Clone, V: PartialEq + Clone>(
    rows: &mut BTreeMap<K, V>,
    id: &K,
    seen: &Option<V>,
    new: Option<&V>,
) -> Outcome {
    if rows.get(id) != seen.as_ref() {
        return Outcome::Refused;
    }
    match new {
        Some(new) => rows.insert(id.clone(), new.clone()),
        None => rows.remove(id),
    };
    Outcome::Applied
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn view(&self) -> Result<View, StoreError> {
        Ok(self.snapshot())
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        Ok(self.apply(change))
    }
}
