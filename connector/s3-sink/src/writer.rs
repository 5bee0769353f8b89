//! The one place where calls are counted and tried again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millpond_connector::backoff::BackoffPolicy;
use millpond_connector::metrics::{Metrics, WrittenItem};
use millpond_sink::claim::{Claim, StaleWrites};
use millpond_sink::retry::{Next, until_answered};

use crate::client::{ApiFailure, Found, ObjectApi, Verdict, Version, Wanted};
use crate::error::CallError;

/// Waits after a broken connection or an error of the service.
const AGAIN: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(100), Duration::from_secs(5));

/// Waits after a throttle: a prefix is given more capacity only slowly.
const THROTTLED: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(250), Duration::from_secs(10));

/// Waits for new credentials.
const EXPIRED: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_secs(1), Duration::from_secs(10));

/// An object of events that is ready to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub bytes: Bytes,
    /// Events in it.
    pub events: u64,
    /// Bytes of those events as they were produced.
    pub event_bytes: u64,
}

/// A bucket with counters and retries; clones share them.
#[derive(Clone)]
pub struct Objects {
    api: Arc<dyn ObjectApi>,
    metrics: Arc<Metrics>,
}

impl Objects {
    /// A bucket whose calls are counted in `metrics`.
    #[must_use]
    pub fn new(api: Arc<dyn ObjectApi>, metrics: Arc<Metrics>) -> Self {
        Self { api, metrics }
    }

    /// Names it in messages.
    #[must_use]
    pub fn store(&self) -> &str {
        self.api.name()
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn get(&self, name: &str) -> Result<Option<Found>, CallError> {
        self.call("GetObject", name, || self.api.get(name)).await
    }

    /// Puts an object, in place of one that may be there.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), CallError> {
        self.call("PutObject", name, || self.api.put(name, bytes.clone()))
            .await
    }

    /// Names below a folder that are wanted.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn list(
        &self,
        folder: &str,
        is_wanted: &Wanted<'_>,
    ) -> Result<Vec<String>, CallError> {
        let call = || self.api.list(folder, is_wanted);
        self.call("ListObjectsV2", folder, call).await
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn delete(&self, name: &str) -> Result<(), CallError> {
        self.call("DeleteObject", name, || self.api.delete(name))
            .await
    }

    /// When what a stale process put has an end.
    #[must_use]
    pub fn stale_writes(&self) -> StaleWrites {
        self.api.stale_writes()
    }

    /// Puts an object of events while the claim stands, and counts it.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed, or it stands no more.
    pub async fn put_object(&self, object: Object, claim: &Arc<Claim>) -> Result<(), CallError> {
        let (name, bytes) = (&object.name, &object.bytes);
        let call = || async move {
            let failure = |verdict, message: String| Err(ApiFailure { verdict, message });
            match claim.stands().await {
                Ok(true) => self.api.put_under(name, bytes.clone(), claim).await,
                Ok(false) => failure(
                    Verdict::Fenced,
                    "another process has taken the topic partition".to_owned(),
                ),
                // Whatever may pass was tried again there.
                Err(error) => failure(
                    Verdict::Fatal("the ledger cannot be read"),
                    error.to_string(),
                ),
            }
        };
        self.call("PutObject", name, call).await?;
        self.metrics.items.add(1);
        self.metrics.item_bytes.add(object.bytes.len() as u64);
        self.metrics.sink_events.add(object.events);
        self.metrics.sink_event_bytes.add(object.event_bytes);
        let (folder, file) = object.name.rsplit_once('/').unwrap_or_default();
        self.metrics.item_written(&WrittenItem {
            pk: folder.to_owned(),
            sk: file.to_owned(),
            acknowledged_ms: now_ms(),
        });
        Ok(())
    }

    /// Puts an object where none is; `None` when one is there, which may be this one, from an
    /// earlier try whose answer was lost.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, CallError> {
        self.call("PutObject", name, || self.api.create(name, bytes.clone()))
            .await
    }

    /// Puts an object in place of the version `seen`; `None` when another is there, which may be
    /// this one, from an earlier try whose answer was lost.
    ///
    /// # Errors
    /// [`CallError`] when no try can succeed.
    pub async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, CallError> {
        let call = || self.api.replace(name, bytes.clone(), seen);
        self.call("PutObject", name, call).await
    }

    async fn call<T, F>(
        &self,
        operation: &'static str,
        name: &str,
        call: impl FnMut() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, ApiFailure>>,
    {
        let judge = |failure: &ApiFailure| match failure.verdict {
            Verdict::Throttled => {
                self.metrics.sink_throttles.add(1);
                Next::Again(THROTTLED)
            }
            Verdict::Transient | Verdict::Unsent => Next::Again(AGAIN),
            Verdict::Expired => Next::Again(EXPIRED),
            Verdict::Fatal(_) | Verdict::Fenced => Next::GiveUp,
        };
        let answered = until_answered(self.store(), operation, call, judge).await;
        answered.map_err(|failure| CallError {
            store: self.store().to_owned(),
            operation,
            name: name.to_owned(),
            message: failure.message,
            help: match failure.verdict {
                Verdict::Fatal(help) => Some(help),
                _ => None,
            },
        })
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
