//! Dead letters in a topic of their own: records that any consumer can read.
//!
//! The key of a record is the letter's id, its value the line that a dead-letter file would have,
//! without its end. All of them are in partition 0, in the order in which they were put away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::topic::{StoredBatch, Topic, TopicError};
use millpond_format::record::BatchBuilder;

use crate::dead_letters::DeadLetter;

/// Partition of the topic that they go to.
const PARTITION: u32 = 0;

/// Bytes at which a batch is closed; one letter may be larger.
const BATCH_BYTES: usize = 1 << 20;

/// A read that brings nothing for so long has reached the end.
const READ_WAIT: Duration = Duration::from_secs(5);

/// A topic for dead letters; clones write to the same one.
#[derive(Clone)]
pub struct LetterTopic(Arc<dyn Topic>);

impl LetterTopic {
    /// Dead letters go to this topic.
    #[must_use]
    pub fn new(topic: Arc<dyn Topic>) -> Self {
        Self(topic)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Appends letters and waits until they are durable. With `search`, those whose ids are in the topic
    /// already are passed over.
    ///
    /// # Errors
    /// What the topic says; some of the letters may be there.
    pub async fn append(&self, letters: &[DeadLetter], search: bool) -> Result<(), TopicError> {
        let known = match search {
            true => self.known(letters).await?,
            false => HashSet::new(),
        };
        let mut batch = BatchBuilder::new();
        for letter in letters.iter().filter(|letter| !known.contains(&letter.id)) {
            let mut line = letter.line().map_err(|error| TopicError::Storage {
                topic: self.name().to_owned(),
                context: format!("dead letter `{}`: {error}", letter.id),
                retryable: false,
            })?;
            line.pop();
            if batch.record_count() > 0 && batch.raw_len() + line.len() > BATCH_BYTES {
                self.send(std::mem::take(&mut batch)).await?;
            }
            batch.push(Some(letter.id.as_bytes()), &line, letter.time_ms);
        }
        match batch.record_count() {
            0 => Ok(()),
            _ => self.send(batch).await,
        }
    }

    async fn send(&self, batch: BatchBuilder) -> Result<(), TopicError> {
        let (record_count, base_timestamp_ms) = (batch.record_count(), batch.base_timestamp_ms());
        let stored = StoredBatch {
            raw: batch.finish().into(),
            record_count,
            base_timestamp_ms,
        };
        self.0.append(PARTITION, stored).await.map(drop)
    }

    /// Ids of these letters that are in the topic.
    async fn known(&self, letters: &[DeadLetter]) -> Result<HashSet<String>, TopicError> {
        let wanted: HashSet<&[u8]> = letters.iter().map(|letter| letter.id.as_bytes()).collect();
        let mut known = HashSet::new();
        let bounds = self.0.bounds(PARTITION).await?;
        let mut next = bounds.earliest;
        let mut reader = self.0.reader(PARTITION, next, &[]).await?;
        while next < bounds.end {
            let Some(chunk) = reader.next(READ_WAIT).await? else {
                return Err(TopicError::Storage {
                    topic: self.name().to_owned(),
                    context: format!("offset {next} of dead letters does not come"),
                    retryable: true,
                });
            };
            next = chunk.offsets.end;
            for record in chunk.records {
                let key = record.key.unwrap_or_default();
                if wanted.contains(&key[..]) {
                    known.insert(String::from_utf8_lossy(&key).into_owned());
                }
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use millpond_connector::topic::{
        Chunk, ConsumedRecord, Offset, OffsetBounds, PartitionReader, Transform,
    };
    use millpond_format::record::Records;

    use super::*;
    use crate::dead_letters::Payload;

    #[derive(Default)]
    struct Fake(Mutex<Vec<(Bytes, Bytes)>>);

    struct FakeReader(Option<Chunk>);

    #[async_trait]
    impl PartitionReader for FakeReader {
        async fn next(&mut self, _: Duration) -> Result<Option<Chunk>, TopicError> {
            Ok(self.0.take())
        }
    }

    #[async_trait]
    impl Topic for Fake {
        fn name(&self) -> &str {
            "dead"
        }

        fn partition_count(&self) -> u32 {
            1
        }

        async fn append(&self, _: u32, batch: StoredBatch) -> Result<Range<Offset>, TopicError> {
            let mut stored = self.0.lock().expect("lock");
            let from = stored.len() as u64;
            for record in Records::new(&batch.raw).expect("a batch") {
                let record = record.expect("a record");
                let key = Bytes::copy_from_slice(record.key.expect("a key"));
                stored.push((key, Bytes::copy_from_slice(record.value)));
            }
            Ok(from..stored.len() as u64)
        }

        async fn reader(
            &self,
            _: u32,
            _: Offset,
            _: &[Transform],
        ) -> Result<Box<dyn PartitionReader>, TopicError> {
            let stored = self.0.lock().expect("lock");
            let record = |(offset, (key, value)): (usize, &(Bytes, Bytes))| ConsumedRecord {
                offset: Some(offset as u64),
                key: Some(key.clone()),
                value: value.clone(),
                timestamp_ms: None,
            };
            let records: Vec<_> = stored.iter().enumerate().map(record).collect();
            let offsets = 0..records.len() as u64;
            Ok(Box::new(FakeReader(Some(Chunk { offsets, records }))))
        }

        async fn bounds(&self, _: u32) -> Result<OffsetBounds, TopicError> {
            let end = self.0.lock().expect("lock").len() as u64;
            Ok(OffsetBounds { earliest: 0, end })
        }

        async fn release(&self, _: u32, _: &str, _: Offset) -> Result<(), TopicError> {
            Ok(())
        }
    }

    fn letter(offset: u64, bytes: usize) -> DeadLetter {
        DeadLetter {
            id: format!("p/t/0/{offset}/0"),
            offset,
            time_ms: 1_763_886_000_123,
            reason: "not-json".into(),
            detail: "d".into(),
            group: None,
            record_key: None,
            payload: Payload::Raw(vec![7; bytes].into()),
        }
    }

    #[tokio::test]
    async fn a_replay_appends_only_what_is_missing() {
        let fake = Arc::new(Fake::default());
        let topic = LetterTopic::new(fake.clone());
        let letters = [letter(1, 3), letter(2, 2 << 20), letter(3, 0)];
        topic.append(&letters[..2], false).await.expect("appended");
        topic.append(&letters, true).await.expect("appended");
        topic.append(&letters, true).await.expect("appended");
        let stored = fake.0.lock().expect("lock");
        let ids: Vec<_> = stored.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(ids, ["p/t/0/1/0", "p/t/0/2/0", "p/t/0/3/0"]);
        for ((_, value), letter) in stored.iter().zip(&letters) {
            let line = letter.line().expect("a line");
            assert_eq!(value[..], line[..line.len() - 1]);
        }
    }
}
