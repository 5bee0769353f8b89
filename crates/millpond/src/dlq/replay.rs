//! Puts the events of dead letters back into the stream that they came from.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use millpond_connector::aws::{FailureKind, describe, failure_kind};
use millpond_connector::backoff::{Backoff, BackoffPolicy};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::{Destination, Entry, Letters, State};
use crate::put_records::is_retryable_code;

/// A stream that takes nothing for so long ends the replay.
const STUCK_LIMIT: Duration = Duration::from_secs(60);

const BACKOFF: BackoffPolicy =
    BackoffPolicy::endless(Duration::from_millis(50), Duration::from_secs(3));

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the stream, under this sequence number.
    Replayed(String),
    /// It may be in the stream: it stays begun.
    Uncertain(String),
    /// The stream does not take it: it is new again.
    Refused(String),
    /// Somebody else is putting it back.
    Taken,
}

/// How many entries became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Put back.
    pub replayed: u64,
    /// Put back before.
    pub replayed_before: u64,
    /// Of an unknown outcome, now or of an earlier replay.
    pub uncertain: u64,
    /// Refused by the stream.
    pub refused: u64,
    /// No events, or nowhere to put them.
    pub without_event: u64,
}

impl Summary {
    /// True when everything that was asked for is in the stream.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.uncertain + self.refused + self.without_event == 0
    }
}

/// Puts one event back: noted as begun, sent, noted as replayed.
///
/// # Errors
/// When a note cannot be made, or the stream takes nothing for a minute.
pub async fn replay(
    letters: &mut Letters,
    entry: &Entry,
    to: &Destination,
    kinesis: &Client,
) -> Result<Outcome> {
    if !letters.begin(entry).await? {
        return Ok(Outcome::Taken);
    }
    let outcome = send(entry, to, kinesis).await;
    match &outcome {
        Ok(Outcome::Replayed(_)) => letters.end(entry, State::Replayed).await?,
        Ok(Outcome::Refused(_)) | Err(_) => letters.end(entry, State::New).await?,
        Ok(Outcome::Uncertain(_) | Outcome::Taken) => {}
    }
    outcome
}

async fn send(entry: &Entry, to: &Destination, kinesis: &Client) -> Result<Outcome> {
    let mut backoff = Backoff::new(BACKOFF);
    let mut random = SmallRng::from_os_rng();
    let begun = Instant::now();
    loop {
        let put = kinesis
            .put_record()
            .stream_name(&to.stream)
            .partition_key(&to.partition_key)
            .data(Blob::new(entry.value.clone()));
        let error = match put.send().await {
            Ok(answer) if answer.sequence_number().is_empty() => {
                return Ok(Outcome::Uncertain("the answer was cut".into()));
            }
            Ok(answer) => return Ok(Outcome::Replayed(answer.sequence_number().to_owned())),
            Err(error) => error,
        };
        let words = describe(&error);
        let code = error.as_service_error().and_then(|service| service.code());
        match code {
            Some(code) if is_retryable_code(code) && is_throttle(code) => {}
            // The service may fail after it has taken the record.
            Some(code) if is_retryable_code(code) => return Ok(Outcome::Uncertain(words)),
            Some(_) => return Ok(Outcome::Refused(words)),
            None if failure_kind(&error) == FailureKind::Unreachable => {}
            None if failure_kind(&error).is_transient() => return Ok(Outcome::Uncertain(words)),
            None => bail!("cannot put into stream `{}`: {words}", to.stream),
        }
        if begun.elapsed() > STUCK_LIMIT {
            bail!("stream `{}` takes nothing for a minute: {words}", to.stream);
        }
        let wait = backoff.next_wait(random.random()).unwrap_or_default();
        tokio::time::sleep(wait).await;
    }
}

/// Codes of requests that had no effect.
fn is_throttle(code: &str) -> bool {
    code.contains("Throttling") || code.contains("Exceeded")
}
