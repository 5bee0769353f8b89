//! Where dead letters go, and the waiting until they are there.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_format::keys;
use tokio::time::sleep;
use tracing::error;

use crate::dead_letters::{DeadLetter, DeadLetterFile, Payload};
use crate::error::SinkError;
use crate::plan::PlanConfig;
use crate::row::{Pieces, Row, names};
use crate::writer::TableWriter;

/// Where dead letters go.
#[derive(Debug, Clone)]
pub enum DeadLetters {
    /// A file of JSON lines.
    File(DeadLetterFile),
    /// A table.
    Table(TableWriter),
}

impl DeadLetters {
    /// Puts entries away durably; waits as long as that takes. With `replay` some of them may
    /// be there already.
    ///
    /// # Errors
    /// [`SinkError`] when no try can succeed.
    pub async fn put_away(
        &self,
        letters: Vec<DeadLetter>,
        pipeline: &str,
        replay: bool,
    ) -> Result<(), SinkError> {
        match self {
            Self::Table(table) => {
                for letter in &letters {
                    table.write_rows(letter.rows(pipeline)).await?;
                }
                Ok(())
            }
            Self::File(_) if letters.is_empty() => Ok(()),
            Self::File(file) => append(file.clone(), Arc::new(letters), replay).await,
        }
    }
}

/// The dead letter of an item that the table refuses.
#[must_use]
pub fn refused_item(row: &Row, message: String, config: &PlanConfig) -> DeadLetter {
    let key = keys::SortKey::parse(&row.key.sk);
    let offset = key.map_or(0, |key| key.base_offset);
    let index = key.map_or(0, |key| key.envelope_index);
    let mut bytes = Vec::new();
    for name in [names::HEADER, names::FRAMES, names::VALUE] {
        bytes.extend(row.binary(name).map(Pieces::concat).unwrap_or_default());
    }
    let origin = row
        .string(names::ORIGIN)
        .map(|origin| origin.to_owned().into_bytes().into());
    DeadLetter {
        id: format!(
            "{}/{}/{}/{offset}/{index}/item",
            config.pipeline, config.topic, config.partition
        ),
        offset,
        time_ms: row.integer(names::FIRST_TIME).unwrap_or_default(),
        reason: "item-refused".into(),
        detail: message,
        group: keys::parse_chain_pk(&row.key.pk).map(|(_, group, _)| group.to_owned()),
        record_key: origin,
        payload: Payload::Raw(bytes.into()),
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
        sleep(backoff.next_wait(rand::random::<f64>()).unwrap_or_default()).await;
    }
}
