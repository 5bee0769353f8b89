//! What one answer of a stream means: a pure function of the answer and of where the reader is.
//!
//! Without SmartModules an answer is a slice of one segment: whole stored batches from the one that
//! holds the offset asked for, and perhaps one that is cut at `max_bytes`.
//!
//! With SmartModules (`process_batch` of the SPU) it is one batch, put together from whole stored
//! batches of one segment. Its base is that of the first stored batch that left records, and its
//! `last_offset_delta` counts every offset from there to the last stored batch worked on, filtered
//! or not: it covers `position..last offset + 1`. Stored batches before its base left nothing.
//! Its records are numbered anew and say nothing about where they came from.
//!
//! When no record is left, or when the first batch that leaves some leaves more than `max_bytes`,
//! the SPU sends nothing and goes on behind the *log's* last offset. So an answer that starts
//! behind `position` is only believed when its base is below an end of the log known before the
//! answer was made: after such a jump it could not be.
//!
//! With more room than any output can take, silence means that nothing was left, of the rest of one
//! segment. Then an answer behind `position` is believed when the stored batches, looked at without
//! SmartModules, show that all before it are of one segment.

use bytes::Bytes;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{RawRecords, RecordSet};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use millpond_connector::topic::{Chunk, ConsumedRecord, Offset};
use millpond_format::record::Records;

use crate::error::{Remedy, classify};
use crate::record_set::{Damage, decode, is_cut};

/// The answer of one partition, raw.
pub(crate) type Answer = FetchablePartitionResponse<RecordSet<RawRecords>>;

/// An offset that no log holds, above it the two that mean something to an SPU (-1 and -2).
///
/// Acknowledged on a stream it is answered with an error, and only after all that the SPU had to
/// send before: a way to know that it has nothing to send.
pub(crate) const BARRIER: i64 = -1_000;

/// Bytes before the fields that `batch_len` counts: base offset and `batch_len` itself.
const BATCH_PREAMBLE: u64 = 12;

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The next offset.
    pub next: Offset,
    /// The committed end of the log at some time before the next answer was begun.
    pub known_end: Offset,
    /// Whether the stream has SmartModules.
    pub transforms: bool,
}

/// What an answer means.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// Records, and the reader is at their end.
    Chunk(Chunk),
    /// The first batch is larger than the answer may be; its bytes, when they could be seen.
    TooSmall(Option<u64>),
    /// Stored batches may have been passed over before `base`; the answer would be `chunk`.
    Gap { base: Offset, chunk: Chunk },
    /// The SPU has come to [`BARRIER`].
    Barrier,
    /// Ask again.
    Again(String),
    /// The offset is not stored.
    NotStored,
    /// A SmartModule is missing or failed, perhaps on the record at an offset.
    Module {
        offset: Option<Offset>,
        missing: Option<String>,
        reason: String,
    },
    /// A batch failed its checks.
    Damaged(Offset, String),
    /// It will not get better.
    Refused(String),
}

impl Position {
    /// Takes an answer in.
    ///
    /// On a SmartModule's error the records that came with it are not used: those of the failed
    /// batch cannot be told from those before it.
    pub(crate) fn take(&mut self, answer: Answer) -> Meaning {
        if answer.error_code != ErrorCode::None {
            return failure(&answer.error_code);
        }
        let meaning = match self.transforms {
            false => self.stored(&answer.records),
            true => self.transformed(&answer),
        };
        if let Meaning::Chunk(chunk) = &meaning {
            self.next = chunk.offsets.end;
            // Read before this answer was made, so before the next one too.
            let end = u64::try_from(answer.high_watermark).unwrap_or_default();
            self.known_end = self.known_end.max(end);
        }
        meaning
    }

    /// Takes in a chunk behind a gap that turned out to be none.
    pub(crate) fn believe(&mut self, chunk: &Chunk) {
        self.next = chunk.offsets.end;
        self.known_end = self.known_end.max(chunk.offsets.end);
    }

    fn stored(&self, answer: &RecordSet<RawRecords>) -> Meaning {
        let mut records = Vec::new();
        let mut next = self.next;
        let mut too_small = None;
        for batch in &answer.batches {
            if is_cut(batch) {
                too_small = u64::try_from(batch.batch_len).ok();
                break;
            }
            let base = u64::try_from(batch.base_offset).unwrap_or_default();
            let end = u64::try_from(batch.get_last_offset() + 1).unwrap_or_default();
            if end <= next {
                continue;
            }
            let stored = |base, from| Stored {
                base,
                from,
                base_timestamp_ms: batch.get_base_timestamp(),
            };
            if base > next {
                let reason = format!("the log goes on at {base}, offset {next} is missing");
                return Meaning::Damaged(next, reason);
            }
            match decode(batch)
                .map_err(|damage| damage.reason)
                .and_then(|raw| take_records(&raw, Some(stored(base, next)), &mut records))
            {
                Ok(count) if count == end - base => {}
                Ok(count) => {
                    let reason = format!("it holds {count} records for {} offsets", end - base);
                    return Meaning::Damaged(base, reason);
                }
                Err(reason) => return Meaning::Damaged(base, reason),
            }
            next = end;
        }
        if next == self.next {
            return Meaning::TooSmall(too_small.map(|bytes| bytes + BATCH_PREAMBLE));
        }
        Meaning::Chunk(Chunk {
            offsets: self.next..next,
            records,
        })
    }

    fn transformed(&self, answer: &Answer) -> Meaning {
        let [batch] = answer.records.batches.as_slice() else {
            return Meaning::Again(format!(
                "an answer of {} batches from SmartModules",
                answer.records.batches.len()
            ));
        };
        if is_cut(batch) {
            return Meaning::Again("an answer from SmartModules was cut short".into());
        }
        let base = u64::try_from(batch.base_offset).unwrap_or_default();
        let end = u64::try_from(batch.get_last_offset() + 1).unwrap_or_default();
        let told = u64::try_from(answer.next_filter_offset).unwrap_or_default();
        if end <= self.next || (told > 0 && told != end) {
            return Meaning::Again(format!(
                "an answer for {base} to {end} (next {told}), asked for {}",
                self.next
            ));
        }
        let mut records = Vec::new();
        let taken = decode(batch)
            .map_err(|Damage { reason, .. }| reason)
            .and_then(|raw| take_records(&raw, None, &mut records));
        match taken {
            Ok(_) => {
                let chunk = Chunk {
                    offsets: base.min(self.next)..end,
                    records,
                };
                match base > self.next && base >= self.known_end {
                    true => Meaning::Gap { base, chunk },
                    false => Meaning::Chunk(chunk),
                }
            }
            Err(reason) => Meaning::Damaged(base, reason),
        }
    }

    /// Moves to the end of the stored batches that an answer without SmartModules shows, cut ones
    /// included: only those that were in the log before [`Position::known_end`] was learned. True
    /// when the segment may go on behind them.
    pub(crate) fn look(&mut self, answer: &Answer) -> bool {
        let before = self.next;
        let mut goes_on = false;
        for batch in &answer.records.batches {
            let end = u64::try_from(batch.get_last_offset() + 1).unwrap_or_default();
            if end > self.known_end {
                return false;
            }
            self.next = self.next.max(end);
            goes_on = is_cut(batch);
        }
        goes_on && self.next > before
    }
}

/// Where the records of a stored batch are.
struct Stored {
    base: Offset,
    /// Those before this offset are not wanted.
    from: Offset,
    base_timestamp_ms: i64,
}

/// Records of a whole batch; of a stored one only those from `from` on.
fn take_records(
    raw: &Bytes,
    stored: Option<Stored>,
    records: &mut Vec<ConsumedRecord>,
) -> Result<u64, String> {
    let mut count = 0;
    for record in Records::new(raw).map_err(|error| error.to_string())? {
        let record = record.map_err(|error| error.to_string())?;
        let offset = stored.as_ref().map(|stored| stored.base + count);
        count += 1;
        if let Some(stored) = &stored
            && offset.is_some_and(|offset| offset < stored.from)
        {
            continue;
        }
        let time = |stored: &Stored| {
            stored
                .base_timestamp_ms
                .saturating_add(record.timestamp_delta_ms)
        };
        records.push(ConsumedRecord {
            offset,
            key: record.key.map(|key| raw.slice_ref(key)),
            value: raw.slice_ref(record.value),
            timestamp_ms: stored.as_ref().map(time),
        });
    }
    Ok(count)
}

fn failure(code: &ErrorCode) -> Meaning {
    if matches!(code, ErrorCode::OffsetEvicted { offset, .. } if *offset == BARRIER) {
        return Meaning::Barrier;
    }
    match classify(code) {
        Remedy::FindLeader | Remedy::Repeat => Meaning::Again(code.to_string()),
        Remedy::OffsetOutOfRange => Meaning::NotStored,
        Remedy::SmartModule => Meaning::Module {
            offset: match code {
                ErrorCode::SmartModuleRuntimeError(error) => u64::try_from(error.offset).ok(),
                _ => None,
            },
            missing: match code {
                ErrorCode::SmartModuleNotFound { name } => Some(name.clone()),
                _ => None,
            },
            reason: code.to_string(),
        },
        // What the storage says while a leader recovers its log.
        Remedy::GiveUp if matches!(code, ErrorCode::Other(_)) => Meaning::Again(code.to_string()),
        Remedy::GiveUp => Meaning::Refused(code.to_string()),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
