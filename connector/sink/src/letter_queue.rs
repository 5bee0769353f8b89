//! Where dead letters go, and the waiting until they are there.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use millpond_connector::topic::TopicError;
use tokio::time::sleep;
use tracing::{error, warn};

use crate::dead_letters::{DeadLetter, DeadLetterFile};
use crate::error::SinkError;
use crate::letter_topic::LetterTopic;
use crate::store::{Store, StoreError};

/// Where dead letters go.
#[derive(Clone)]
pub enum DeadLetters {
    /// A file of JSON lines.
    File(DeadLetterFile),
    /// Another topic.
    Topic(LetterTopic),
    /// The store's own place for them.
    Store(Arc<dyn Store>),
}

impl DeadLetters {
    /// Puts entries away durably; waits as long as that takes. With `replay` some of them may
    /// be there already.
    ///
    /// # Errors
    /// [`SinkError`] when no try can succeed.
    pub async fn put_away(&self, letters: Vec<DeadLetter>, replay: bool) -> Result<(), SinkError> {
        if letters.is_empty() || mutation::is(Mutation::DeadLettersDropped) {
            return Ok(());
        }
        match self {
            Self::Store(store) => {
                let put = store.put_dead_letters(&letters).await;
                put.map_err(|error| match error {
                    StoreError::Plan(source) | StoreError::Refused(source) => {
                        SinkError::Store(source)
                    }
                })
            }
            Self::Topic(topic) => send(topic, &letters, replay).await,
            Self::File(file) => append(file.clone(), Arc::new(letters), replay).await,
        }
    }
}

/// How tries follow each other.
fn backoff() -> Backoff {
    Backoff::new(BackoffPolicy::endless(
        Duration::from_millis(200),
        Duration::from_secs(10),
    ))
}

/// Tries until the topic has the entries.
async fn send(topic: &LetterTopic, letters: &[DeadLetter], replay: bool) -> Result<(), SinkError> {
    let mut backoff = backoff();
    // Once a try failed, some of the entries may be there.
    let mut search = replay;
    loop {
        let error = match topic.append(letters, search).await {
            Ok(()) => return Ok(()),
            Err(
                error @ TopicError::Storage {
                    retryable: true, ..
                },
            ) => error,
            Err(error) => return Err(SinkError::DeadLetters(error.to_string())),
        };
        warn!(topic = topic.name(), %error, "dead letters cannot be written, trying again");
        search = true;
        sleep(backoff.next_wait(random::unit()).unwrap_or_default()).await;
    }
}

/// Tries until the file has the entries; blocks another thread meanwhile.
async fn append(
    file: DeadLetterFile,
    letters: Arc<Vec<DeadLetter>>,
    replay: bool,
) -> Result<(), SinkError> {
    let mut backoff = backoff();
    // Once a try failed, some of the entries may be there.
    let mut search = replay;
    loop {
        let (file, path, letters) = (
            file.clone(),
            file.path().display().to_string(),
            letters.clone(),
        );
        let task = tokio::task::spawn_blocking(move || file.append(&letters, search));
        let error = match task.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(error) => return Err(SinkError::DeadLetters(format!("`{path}`: {error}"))),
        };
        error!(path, %error, "dead letters cannot be written, trying again: free space or fix the path");
        search = true;
        sleep(backoff.next_wait(random::unit()).unwrap_or_default()).await;
    }
}
