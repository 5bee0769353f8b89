//! A bucket in memory with the same rules, and faults on command.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_sink::claim::{Claim, StaleWrites};
use tokio::task::yield_now;

use super::{ApiFailure, Found, ObjectApi, Verdict, Version, Wanted, check_size};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Fail(Verdict),
    /// It takes effect and its answer is lost.
    LoseAnswer,
}

/// What is sent to a bucket in memory arrives soon.
const STALE_WRITES: StaleWrites = StaleWrites {
    look_again: Duration::from_secs(2),
    arrives_within: Duration::from_secs(3),
};

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Bytes, u64)>,
    faults: VecDeque<Option<Fault>>,
    writes: u64,
    /// Objects that were put in place of another content.
    changed: Vec<String>,
    ignores_conditions: bool,
}

/// A bucket; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryBucket(Arc<Mutex<State>>);

impl MemoryBucket {
    /// A bucket that takes every conditional write, as a store does that does not know them.
    #[must_use]
    pub fn unconditional() -> Self {
        let bucket = Self::default();
        bucket.lock().ignores_conditions = true;
        bucket
    }

    /// Faults of the next calls, one each; `None` is none.
    pub fn inject(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.lock().faults = faults.into_iter().collect();
    }

    /// Every object in the order of their names.
    #[must_use]
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        let state = self.lock();
        let all = state.objects.iter();
        all.map(|(name, (bytes, _))| (name.clone(), bytes.clone()))
            .collect()
    }

    /// Takes an object away.
    pub fn remove(&self, name: &str) {
        self.lock().objects.remove(name);
    }

    /// Names of objects that were put without a condition in place of another content.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        self.lock().changed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: crash points before and after, and its fault.
    async fn call<T>(&self, act: impl FnOnce(&mut State) -> T + Send) -> Result<T, ApiFailure> {
        yield_now().await;
        let answer = {
            let mut state = self.lock();
            match state.faults.pop_front().flatten() {
                None => Ok(act(&mut state)),
                Some(Fault::Fail(verdict)) => Err(ApiFailure {
                    verdict,
                    message: "injected".into(),
                }),
                Some(Fault::LoseAnswer) => {
                    act(&mut state);
                    Err(ApiFailure {
                        verdict: Verdict::Transient,
                        message: "answer lost".into(),
                    })
                }
            }
        };
        yield_now().await;
        answer
    }
}

impl State {
    fn write(&mut self, name: &str, bytes: Bytes) -> Version {
        self.writes += 1;
        self.objects.insert(name.to_owned(), (bytes, self.writes));
        Version(self.writes.to_string())
    }

    fn version(&self, name: &str) -> Option<Version> {
        let found = self.objects.get(name);
        found.map(|(_, number)| Version(number.to_string()))
    }
}

#[async_trait]
impl ObjectApi for MemoryBucket {
    fn name(&self) -> &str {
        "bucket in memory"
    }

    async fn get(&self, name: &str) -> Result<Option<Found>, ApiFailure> {
        let read = |state: &mut State| {
            let found = state.objects.get(name);
            found.map(|(bytes, number)| Found {
                bytes: bytes.clone(),
                version: Version(number.to_string()),
            })
        };
        let found = self.call(read).await?;
        if let Some(found) = &found {
            check_size(found.bytes.len() as u64)?;
        }
        Ok(found)
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ApiFailure> {
        self.call(|state| {
            let before = state.objects.get(name);
            if before.is_some_and(|(before, _)| *before != bytes) {
                state.changed.push(name.to_owned());
            }
            state.write(name, bytes);
        })
        .await
    }

    async fn put_under(
        &self,
        name: &str,
        bytes: Bytes,
        claim: &Arc<Claim>,
    ) -> Result<(), ApiFailure> {
        match claim.is_fresh() {
            true => self.put(name, bytes).await,
            false => Err(ApiFailure::unsent()),
        }
    }

    fn stale_writes(&self) -> StaleWrites {
        STALE_WRITES
    }

    async fn list(&self, folder: &str, is_wanted: &Wanted<'_>) -> Result<Vec<String>, ApiFailure> {
        let below = format!("{folder}/");
        self.call(|state| {
            let names = state.objects.keys();
            let names = names.filter(|name| name.starts_with(&below) && is_wanted(name));
            names.cloned().collect()
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<(), ApiFailure> {
        self.call(|state| drop(state.objects.remove(name))).await
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, ApiFailure> {
        self.call(|state| {
            let is_free = state.version(name).is_none() || state.ignores_conditions;
            is_free.then(|| state.write(name, bytes))
        })
        .await
    }

    async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, ApiFailure> {
        self.call(|state| {
            let is_seen = state.version(name).as_ref() == Some(seen) || state.ignores_conditions;
            is_seen.then(|| state.write(name, bytes))
        })
        .await
    }
}
