//! Where dead letters go, and the waiting until they are there.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::random;
use tokio::time::sleep;
use tracing::error;

use crate::dead_letters::{DeadLetter, DeadLetterFile};
use crate::error::SinkError;
use crate::store::{Store, StoreError};

/// Where dead letters go.
#[derive(Clone)]
pub enum DeadLetters {
    /// A file of JSON lines.
    File(DeadLetterFile),
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
            Self::File(file) => append(file.clone(), Arc::new(letters), replay).await,
        }
    }
}

/// Tries until the file has the entries; blocks another thread meanwhile.
async fn append(
    file: DeadLetterFile,
    letters: Arc<Vec<DeadLetter>>,
    replay: bool,
) -> Result<(), SinkError> {
    let mut backoff = Backoff::new(BackoffPolicy::endless(
        Duration::from_millis(200),
        Duration::from_secs(10),
    ));
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
