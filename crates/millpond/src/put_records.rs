//! One lane of the emitter: `PutRecords` calls one after the other, so that the events of a
//! partition key stay in order. Several lanes run side by side.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use millpond_connector::aws::{FailureKind, describe, failure_kind};
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use crate::time::now_ms;

/// Most records of one call (Kinesis API reference, `PutRecords`, read 2026-11-23).
pub const MAX_CALL_RECORDS: usize = 500;

/// Most bytes of one call, data and partition keys. The service takes 10 MiB since 2025; half of
/// that keeps a call within what older stand-ins take.
pub const MAX_CALL_BYTES: usize = 5 * 1024 * 1024;

/// An emitter that gets no record through for so long gives up.
const STUCK_LIMIT: Duration = Duration::from_secs(60);

/// So many tries of a call in a row without a record put are said; a throttle has passed by then.
const TOLD_AFTER: u32 = 3;

const BACKOFF: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(50), Duration::from_secs(3));

/// A record to put, and the index of its event.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Index of the event in the workload.
    pub index: u64,
    /// The record.
    pub entry: PutRecordsRequestEntry,
}

/// What the lanes counted.
#[derive(Debug, Default)]
pub struct PutStatistics {
    /// Calls made.
    pub calls: AtomicU64,
    /// Records that were put again.
    pub resent: AtomicU64,
    /// Calls whose outcome is not known, so that their events may be in the stream twice.
    pub uncertain_calls: AtomicU64,
    /// Records that failed while a later one of their partition key in the same call did not:
    /// the stream itself has them in another order.
    pub reordered: AtomicU64,
    /// It was said that calls fail, and none has got through since.
    pub is_failure_said: AtomicBool,
}

/// Told of every call before it is first sent: the time and the event indices.
pub type SentHook = Arc<dyn Fn(i64, &[u64]) -> std::io::Result<()> + Send + Sync>;

/// Puts records in the order in which they come.
#[derive(Clone)]
pub struct Lane {
    /// Kinesis client with its own retries off.
    pub client: Client,
    /// Stream name.
    pub stream: String,
    /// Where it is, for messages.
    pub place: String,
    /// Shared counters.
    pub statistics: Arc<PutStatistics>,
    /// Told of every call.
    pub sent: Option<SentHook>,
}

impl Lane {
    /// Puts every call's records until the channel closes.
    ///
    /// # Errors
    /// When the stream refuses for good, or nothing gets through for a minute.
    pub async fn run(self, mut calls: mpsc::Receiver<Vec<Pending>>) -> Result<()> {
        while let Some(records) = calls.recv().await {
            self.put_all(records).await?;
        }
        Ok(())
    }

    async fn put_all(&self, mut records: Vec<Pending>) -> Result<()> {
        if let Some(sent) = &self.sent {
            let indices: Vec<u64> = records.iter().map(|record| record.index).collect();
            sent(now_ms(), &indices).context("cannot write the emit log")?;
        }
        let mut backoff = Backoff::new(BACKOFF);
        let mut random = SmallRng::from_os_rng();
        let mut last_progress = Instant::now();
        loop {
            let before = records.len();
            let failure;
            (records, failure) = self.put_once(records).await?;
            if records.len() < before {
                self.statistics
                    .is_failure_said
                    .store(false, Ordering::Relaxed);
            }
            if records.is_empty() {
                return Ok(());
            }
            self.statistics
                .resent
                .fetch_add(records.len() as u64, Ordering::Relaxed);
            if records.len() < before {
                last_progress = Instant::now();
                backoff.reset();
            } else if last_progress.elapsed() > STUCK_LIMIT {
                bail!(
                    "nothing got into stream `{}` at {} for {} s: {failure}",
                    self.stream,
                    self.place,
                    STUCK_LIMIT.as_secs()
                );
            }
            tracing::debug!(stream = %self.stream, records = records.len(), %failure, "putting again");
            if backoff.attempts() == TOLD_AFTER && !self.is_said_before() {
                tracing::warn!(
                    stream = %self.stream,
                    place = %self.place,
                    %failure,
                    give_up_after_s = STUCK_LIMIT.as_secs(),
                    "nothing gets into the stream, trying again"
                );
            }
            let wait = backoff.next_wait(random.random()).unwrap_or_default();
            tokio::time::sleep(wait).await;
        }
    }

    /// One lane says it for all.
    fn is_said_before(&self) -> bool {
        self.statistics
            .is_failure_said
            .swap(true, Ordering::Relaxed)
    }

    /// One call; answers the records to put again, in order, and why.
    async fn put_once(&self, records: Vec<Pending>) -> Result<(Vec<Pending>, String)> {
        self.statistics.calls.fetch_add(1, Ordering::Relaxed);
        let entries = records.iter().map(|record| record.entry.clone()).collect();
        let answer = self
            .client
            .put_records()
            .stream_name(&self.stream)
            .set_records(Some(entries))
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(self.failed_parts(records, &answer)),
            Err(error) => {
                let kind = failure_kind(&error);
                let code = error
                    .as_service_error()
                    .and_then(|e| e.code())
                    .unwrap_or("");
                let words = describe(&error);
                if !kind.is_transient() && !is_retryable_code(code) {
                    bail!(
                        "cannot put into stream `{}` at {}: {words}",
                        self.stream,
                        self.place
                    );
                }
                if matches!(kind, FailureKind::Timeout | FailureKind::Answer) {
                    self.statistics
                        .uncertain_calls
                        .fetch_add(1, Ordering::Relaxed);
                }
                Ok((records, words))
            }
        }
    }

    fn failed_parts(
        &self,
        records: Vec<Pending>,
        answer: &PutRecordsOutput,
    ) -> (Vec<Pending>, String) {
        let mut failed = Vec::new();
        let mut failed_keys = HashSet::new();
        let mut reason = String::new();
        let mut reordered = 0;
        for (record, result) in records.into_iter().zip(answer.records()) {
            match result.error_code() {
                Some(code) => {
                    reason = format!("{code}: {}", result.error_message().unwrap_or_default());
                    failed_keys.insert(record.entry.partition_key.clone());
                    failed.push(record);
                }
                None if failed_keys.contains(&record.entry.partition_key) => reordered += 1,
                None => {}
            }
        }
        self.statistics
            .reordered
            .fetch_add(reordered, Ordering::Relaxed);
        (failed, reason)
    }
}

/// Kinesis API reference, `PutRecords` and "Common errors", read 2026-11-23.
pub(crate) fn is_retryable_code(code: &str) -> bool {
    matches!(
        code,
        "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "ThrottlingException"
            | "KMSThrottlingException"
            | "InternalFailure"
            | "InternalFailureException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
    )
}
