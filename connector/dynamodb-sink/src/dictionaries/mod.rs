//! The dictionaries of a pipeline: trained from small items, stored once, used only after that.
//!
//! What is in the table is what counts: a version that another process stored first is taken over.

mod samples;
mod training;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use millpond_connector::metrics::Metrics;
use millpond_format::dictionary::Dictionary;
use millpond_format::error::DecodeError;
use millpond_format::keys;
use tracing::{info, warn};

use crate::client::Condition;
use crate::error::DynamoError;
use crate::row::{Key, Pieces, Row, Value, names};
use crate::writer::TableWriter;
use samples::Samples;

pub use training::trained;

/// Most dictionaries of a pipeline; none is ever deleted, since items name it.
const MAX_VERSIONS: u64 = 64;

/// How dictionaries are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Most bytes of samples that are kept.
    pub sample_bytes: usize,
    /// Raw bytes of small items before the first training; twice as many before each further one.
    pub first_after_bytes: u64,
    /// Most raw bytes between two trainings.
    pub longest_wait_bytes: u64,
    /// Most bytes of a dictionary.
    pub dictionary_bytes: usize,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            sample_bytes: 4 << 20,
            first_after_bytes: 4 << 20,
            longest_wait_bytes: 4 << 30,
            dictionary_bytes: 32 << 10,
        }
    }
}

/// The dictionaries of a pipeline.
pub struct Dictionaries {
    table: TableWriter,
    pipeline: String,
    metrics: Arc<Metrics>,
    /// Those that were read or stored, at most [`MAX_VERSIONS`].
    known: Mutex<BTreeMap<u64, Arc<Dictionary>>>,
    auto: Option<Auto>,
}

/// What `dictionary: auto` adds.
struct Auto {
    training: Training,
    /// The newest dictionary; `None` before the first.
    current: Mutex<Option<Arc<Dictionary>>>,
    samples: Mutex<Samples>,
    /// Held by who trains.
    busy: tokio::sync::Mutex<()>,
}

impl Dictionaries {
    /// Those of a pipeline; without `training` none is made or used, but for plans that were begun with one.
    #[must_use]
    pub fn new(
        table: TableWriter,
        pipeline: String,
        metrics: Arc<Metrics>,
        training: Option<Training>,
    ) -> Self {
        let auto = training.map(|training| Auto {
            training,
            current: Mutex::default(),
            samples: Mutex::new(Samples::new(training)),
            busy: tokio::sync::Mutex::default(),
        });
        Self {
            table,
            pipeline,
            metrics,
            known: Mutex::default(),
            auto,
        }
    }

    /// Goes on with the newest dictionary in the table.
    ///
    /// # Errors
    /// [`DynamoError`] when the table cannot be read, or holds one that cannot be used.
    pub async fn resume(&self) -> Result<(), DynamoError> {
        let Some(auto) = &self.auto else {
            return Ok(());
        };
        let pk = keys::dictionaries_pk(&self.pipeline);
        let newest = self.table.tail(&pk, None, 1, names::HEADER).await?;
        if let Some(row) = newest.rows.first() {
            let id = keys::parse_dictionary_sk(&row.key.sk);
            let id = id.ok_or_else(|| row_error(&row.key, "is no id of a dictionary"))?;
            self.adopt(auto, self.get(id).await?);
        }
        Ok(())
    }

    /// What a plan that is begun now is made with: `None` with `dictionary: none`, else the id of the newest
    /// dictionary, 0 before there is one.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        let auto = self.auto.as_ref()?;
        let current = auto.current.lock().unwrap_or_else(PoisonError::into_inner);
        Some(current.as_ref().map_or(0, |current| current.id()))
    }

    /// A dictionary that items or an intent name.
    ///
    /// # Errors
    /// [`DynamoError`] when it is not in the table, or not as it was stored.
    pub async fn get(&self, id: u64) -> Result<Arc<Dictionary>, DynamoError> {
        if let Some(known) = self.known().get(&id) {
            return Ok(known.clone());
        }
        let key = self.key(id);
        let row = self.table.get(&key).await?;
        let missing = "is missing, and a plan that is open names it: restore the row";
        let row = row.ok_or_else(|| row_error(&key, missing))?;
        let found = dictionary_of(id, &row).map_err(|error| row_error(&key, &error.to_string()))?;
        let found = Arc::new(found);
        self.known().insert(id, found.clone());
        Ok(found)
    }

    /// Shows what a small item holds, for the next training.
    pub fn offer(&self, raw: &[u8]) {
        if let Some(auto) = &self.auto {
            let samples = auto.samples.lock();
            let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
            samples.offer(raw);
        }
    }

    /// Trains when enough was seen, and stores what came out of it if that is worth it.
    ///
    /// It takes some hundred milliseconds, as long as a large plan, and comes ever more seldom, so it is done where
    /// it is asked for. A table that does not take the dictionary stops nothing: there is none then.
    pub async fn learn(&self) {
        let Some(auto) = &self.auto else {
            return;
        };
        // Other topic partitions go on with what there is.
        let Ok(_held) = auto.busy.try_lock() else {
            return;
        };
        let samples = {
            let samples = auto.samples.lock();
            let mut samples = samples.unwrap_or_else(PoisonError::into_inner);
            if !samples.is_due() {
                return;
            }
            samples.take()
        };
        let current = {
            let current = auto.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.clone()
        };
        let id = current.as_ref().map_or(0, |current| current.id()) + 1;
        if id > MAX_VERSIONS {
            return;
        }
        let most = auto.training.dictionary_bytes;
        let Some(made) = trained(&samples, current.as_deref(), id, most) else {
            return;
        };
        let pipeline = &self.pipeline;
        match self.keep(made).await {
            Ok(kept) => {
                let bytes = kept.bytes().len();
                info!(pipeline, id, bytes, "a new dictionary for small items");
                self.adopt(auto, kept);
            }
            Err(error) => {
                warn!(pipeline, id, %error, "a dictionary for small items cannot be stored, goes on without it");
            }
        }
    }

    /// Stores a dictionary under its id; answers the one that is in the table then, which may be another
    /// process's.
    async fn keep(&self, made: Dictionary) -> Result<Arc<Dictionary>, DynamoError> {
        let id = made.id();
        let crc = made.crc32c().into();
        let row = Row::new(self.key(id))
            .with(names::DICTIONARY, Value::B(made.bytes().to_vec().into()))
            .with(names::CRC, Value::N(crc));
        if self.table.put(&row, &Condition::Absent).await? {
            let made = Arc::new(made);
            self.known().insert(id, made.clone());
            return Ok(made);
        }
        self.get(id).await
    }

    fn adopt(&self, auto: &Auto, dictionary: Arc<Dictionary>) {
        self.metrics.dictionary.set(dictionary.id());
        let mut current = auto.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(dictionary);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Dictionary>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, id: u64) -> Key {
        Key {
            pk: keys::dictionaries_pk(&self.pipeline),
            sk: keys::dictionary_sk(id),
        }
    }
}

/// The note of an intent whose plan is made with a dictionary, 0 for none: `d<id>`, and behind `;` what else it says.
#[must_use]
pub fn joined_note(id: u64, rest: &str) -> String {
    match rest {
        "" => format!("d{id}"),
        rest => format!("d{id};{rest}"),
    }
}

/// The dictionary that a note names, if it names one, and what else it says; `None` for one that says neither.
#[must_use]
pub fn split_note(note: &str) -> Option<(Option<u64>, &str)> {
    let Some(named) = note.strip_prefix('d') else {
        return Some((None, note));
    };
    let (id, rest) = named.split_once(';').unwrap_or((named, ""));
    Some((Some(id.parse().ok()?), rest))
}

/// The dictionary in a row.
fn dictionary_of(id: u64, row: &Row) -> Result<Dictionary, DecodeError> {
    let bytes = row.binary(names::DICTIONARY).map(Pieces::concat);
    let crc = row
        .integer(names::CRC)
        .and_then(|crc| u32::try_from(crc).ok());
    match (bytes, crc) {
        (Some(bytes), Some(crc)) => Dictionary::checked(id, bytes, crc),
        _ => Err(DecodeError::Corrupt {
            what: "row of a dictionary",
        }),
    }
}

fn row_error(key: &Key, what: &str) -> DynamoError {
    DynamoError::Row {
        pk: key.pk.clone(),
        sk: key.sk.clone(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_dictionary_and_the_rest() {
        for (id, rest) in [(0, ""), (7, ""), (99_999, "0:2,4:8")] {
            let note = joined_note(id, rest);
            assert_eq!(split_note(&note), Some((Some(id), rest)), "{note}");
        }
        for rest in ["", "0:2,4:8"] {
            assert_eq!(split_note(rest), Some((None, rest)));
        }
        for malformed in ["d", "dx", "d-1;0:2", "d;"] {
            assert_eq!(split_note(malformed), None, "{malformed}");
        }
    }
}
