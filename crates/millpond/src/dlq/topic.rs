//! Dead letters in a topic, embedded or of a cluster. What was put back is noted in the same topic, in records
//! of their own, so that a note is where its letter is.
//!
//! Records of one partition have an order that all see alike. A note says which one of the same letter it was made
//! after, and counts only when that one still is the last: of two replays at once the first one begins, and the
//! other one sees it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millpond_connector::topic::{
    ConsumedRecord, Offset, PartitionId, PartitionReader, StoredBatch, Topic,
};
use millpond_format::record::BatchBuilder;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::file::entry_of_line;
use super::{Entry, State};
use crate::time::{now_ms, text_ms};

/// Partition that sinks put dead letters into.
const PARTITION: PartitionId = 0;

/// With this and the id begins the key of a note. No id does: it begins with the name of a pipeline.
const NOTE_PREFIX: &str = "millpond:replayed/";

/// A read that brings nothing for so long does not go on.
const READ_WAIT: Duration = Duration::from_secs(30);

/// A note as it is in the topic.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: String,
    state: State,
    at: String,
    /// Offset of the note of this letter that counted when this one was made.
    after: Option<Offset>,
    /// Tells a note that was stored twice, because an answer was lost, from one of somebody else.
    token: u64,
}

/// The last note of a letter that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noted {
    state: State,
    offset: Offset,
    token: u64,
}

/// Dead letters of a topic.
pub struct TopicLetters {
    topic: Arc<dyn Topic>,
    /// First record that was there when the topic was opened.
    earliest: Offset,
    /// Letters: where the next ones are, and where they end.
    reader: Option<Box<dyn PartitionReader>>,
    next: Offset,
    end: Offset,
    waiting: VecDeque<ConsumedRecord>,
    seen: HashSet<String>,
    /// Notes that count, and up to where they were read.
    notes: HashMap<String, Noted>,
    noted_to: Offset,
}

impl TopicLetters {
    /// Opens the letters that are in a topic now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(topic: Arc<dyn Topic>) -> Result<Self> {
        let bounds = topic.bounds(PARTITION).await?;
        let mut letters = Self {
            topic,
            earliest: bounds.earliest,
            reader: None,
            next: bounds.earliest,
            end: bounds.end,
            waiting: VecDeque::new(),
            seen: HashSet::new(),
            notes: HashMap::new(),
            noted_to: bounds.earliest,
        };
        letters.read_notes(bounds.end).await?;
        Ok(letters)
    }

    /// The next entry, each id once.
    ///
    /// # Errors
    /// When the topic cannot be read, or a record is no dead letter.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some(record) = self.waiting.pop_front() else {
                if self.next >= self.end {
                    return Ok(None);
                }
                let reader = match &mut self.reader {
                    Some(reader) => reader,
                    None => {
                        let reader = self.topic.reader(PARTITION, self.next, &[]).await?;
                        self.reader.insert(reader)
                    }
                };
                let (records, next) = chunk(&*self.topic, reader.as_mut(), self.next).await?;
                self.next = next;
                self.waiting.extend(records);
                continue;
            };
            let named = || {
                let offset = record.offset.unwrap_or_default();
                format!("topic `{}` offset {offset}", self.topic.name())
            };
            let key = record.key.as_deref().unwrap_or_default();
            if key.starts_with(NOTE_PREFIX.as_bytes()) {
                continue;
            }
            let mut entry = entry_of_line(&record.value)
                .with_context(|| format!("{} is no dead letter", named()))?;
            if !self.seen.insert(entry.id.clone()) {
                continue;
            }
            entry.state = self.state(&entry.id);
            return Ok(Some(entry));
        }
    }

    /// Notes that an entry is begun, unless somebody else noted something meanwhile.
    ///
    /// # Errors
    /// When the topic does not take the note.
    pub async fn begin(&mut self, id: &str) -> Result<bool> {
        self.note(id, State::Begun).await
    }

    /// Notes what became of an entry that was begun.
    ///
    /// # Errors
    /// When the topic does not take the note.
    pub async fn end(&mut self, id: &str, state: State) -> Result<()> {
        // Where somebody else began meanwhile, what that one says counts.
        self.note(id, state).await.map(drop)
    }

    fn state(&self, id: &str) -> State {
        self.notes.get(id).map_or(State::New, |noted| noted.state)
    }

    /// Puts a note into the topic; true when it counts.
    async fn note(&mut self, id: &str, state: State) -> Result<bool> {
        let token = SmallRng::from_os_rng().random();
        let note = Note {
            id: id.to_owned(),
            state,
            at: text_ms(now_ms()),
            after: self.notes.get(id).map(|noted| noted.offset),
            token,
        };
        let mut batch = BatchBuilder::new();
        let key = format!("{NOTE_PREFIX}{id}");
        batch.push(Some(key.as_bytes()), &serde_json::to_vec(&note)?, now_ms());
        let (record_count, base_timestamp_ms) = (batch.record_count(), batch.base_timestamp_ms());
        let stored = StoredBatch {
            raw: batch.finish().into(),
            record_count,
            base_timestamp_ms,
        };
        let at = self.topic.append(PARTITION, stored).await?;
        self.read_notes(at.end).await?;
        Ok(self.notes.get(id).is_some_and(|noted| noted.token == token))
    }

    /// Takes in the notes before `end`.
    async fn read_notes(&mut self, end: Offset) -> Result<()> {
        if self.noted_to >= end {
            return Ok(());
        }
        let mut reader = self.topic.reader(PARTITION, self.noted_to, &[]).await?;
        while self.noted_to < end {
            let (records, next) = chunk(&*self.topic, reader.as_mut(), self.noted_to).await?;
            for record in records {
                let key = record.key.as_deref().unwrap_or_default();
                if key.starts_with(NOTE_PREFIX.as_bytes()) {
                    let offset = record.offset.context("a stored record without an offset")?;
                    let note: Note = serde_json::from_slice(&record.value).with_context(|| {
                        format!("topic `{}` offset {offset} is no note", self.topic.name())
                    })?;
                    self.take(offset, note);
                }
            }
            self.noted_to = next;
        }
        Ok(())
    }

    fn take(&mut self, offset: Offset, note: Note) {
        let last = self.notes.get(&note.id).map(|noted| noted.offset);
        // The note before it may have gone with the topic's retention.
        let is_gone = last.is_none() && note.after.is_some_and(|after| after < self.earliest);
        if note.after == last || is_gone {
            let noted = Noted {
                state: note.state,
                offset,
                token: note.token,
            };
            self.notes.insert(note.id, noted);
        }
    }
}

/// The next records of a reader that stands at `at`, and the offset behind them.
async fn chunk(
    topic: &dyn Topic,
    reader: &mut dyn PartitionReader,
    at: Offset,
) -> Result<(Vec<ConsumedRecord>, Offset)> {
    match reader.next(READ_WAIT).await? {
        Some(chunk) => Ok((chunk.records, chunk.offsets.end)),
        None => bail!("topic `{}` offset {at} does not come", topic.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_embedded_topic::{EmbeddedTopic, TopicConfig};

    fn id(offset: u64) -> String {
        format!("p/t/0/{offset}/0")
    }

    /// Puts letters there as a sink does.
    async fn put(topic: &Arc<dyn Topic>, offsets: &[u64]) {
        let mut batch = BatchBuilder::new();
        for offset in offsets {
            let line = format!(
                "{{\"id\":\"{}\",\"time\":\"\",\"time_ms\":5,\"reason\":\"not-json\",\"detail\":\"d\",\
                 \"origin\":null,\"group\":null,\"offset\":{offset},\"value_base64\":\"/wA=\"}}",
                id(*offset)
            );
            batch.push(Some(id(*offset).as_bytes()), line.as_bytes(), 5);
        }
        let (record_count, base_timestamp_ms) = (batch.record_count(), batch.base_timestamp_ms());
        let raw = batch.finish().into();
        let stored = StoredBatch {
            raw,
            record_count,
            base_timestamp_ms,
        };
        topic.append(PARTITION, stored).await.expect("appended");
    }

    async fn states(topic: &Arc<dyn Topic>) -> Vec<State> {
        let mut letters = TopicLetters::open(topic.clone()).await.expect("opens");
        let mut states = Vec::new();
        while let Some(entry) = letters.next().await.expect("readable") {
            assert_eq!(entry.value, [0xff, 0]);
            states.push(entry.state);
        }
        states
    }

    #[tokio::test]
    async fn each_letter_is_there_once_and_of_two_replays_one_begins() {
        let folder = tempfile::tempdir().expect("tempdir");
        let config = TopicConfig::new(folder.path(), "dead", 1);
        let topic: Arc<dyn Topic> = Arc::new(EmbeddedTopic::open(config).expect("opens"));
        put(&topic, &[1, 2]).await;
        assert_eq!(states(&topic).await, [State::New, State::New]);
        let mut one = TopicLetters::open(topic.clone()).await.expect("opens");
        let mut other = TopicLetters::open(topic.clone()).await.expect("opens");
        let first = id(1);
        assert!(one.begin(&first).await.expect("noted"));
        assert!(
            !other.begin(&first).await.expect("noted"),
            "somebody else has begun"
        );
        assert_eq!(states(&topic).await, [State::Begun, State::New]);
        one.end(&first, State::Replayed).await.expect("noted");
        // What did not begin cannot end it either; and a sink that writes the letter again undoes nothing.
        other.end(&first, State::New).await.expect("noted");
        put(&topic, &[1, 3]).await;
        let expected = [State::Replayed, State::New, State::New];
        assert_eq!(states(&topic).await, expected);
        // Of one that was begun and never ended, a second one that knows of it may begin.
        let mut dead = TopicLetters::open(topic.clone()).await.expect("opens");
        assert!(dead.begin(&id(2)).await.expect("noted"));
        drop(dead);
        let mut again = TopicLetters::open(topic.clone()).await.expect("opens");
        assert!(again.begin(&id(2)).await.expect("noted"));
        again.end(&id(2), State::New).await.expect("noted");
        assert_eq!(states(&topic).await, expected);
    }
}
