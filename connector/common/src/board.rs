//! Where things stand that come and go: shards, topic partitions.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The latest word on each of several things, by what it is called. Who works on a thing writes,
/// who shows them reads; as many entries as things are worked on.
#[derive(Debug)]
pub struct Board<K, V>(Mutex<BTreeMap<K, V>>);

impl<K, V> Default for Board<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V: Clone + Default> Board<K, V> {
    /// Changes what is said of a thing; what was not there begins with the default.
    pub fn update(&self, key: K, change: impl FnOnce(&mut V)) {
        change(self.entries().entry(key).or_default());
    }

    /// The thing is not worked on any more.
    pub fn remove(&self, key: &K) {
        self.entries().remove(key);
    }

    /// All of them now, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(K, V)> {
        let entries = self.entries();
        entries
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// What is said of one.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries().get(key).cloned()
    }

    /// Nothing panics between two changes, so what a panic elsewhere left is whole.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
