//! What was read from the topic, checked for holes: every offset, every envelope of every batch.

use std::ops::Range;

use bytes::Bytes;
use millpond_connector::mutation::{self, Mutation};
use millpond_connector::topic::{ConsumedRecord, Offset};
use millpond_format::error::DecodeError;
use millpond_format::header::{Header, Place};
use millpond_format::origin::Origin;
use xxhash_rust::xxh3::Xxh3;

/// One record of the topic, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An envelope that a SmartModule made.
    Envelope(Envelope),
    /// A record as it is stored.
    Plain(PlainRecord),
}

/// An envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Its header section.
    pub header: Header,
    /// Its frames.
    pub frames: Bytes,
}

/// An event that is not packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its key, the origin.
    pub key: Option<Bytes>,
    /// The event.
    pub value: Bytes,
}

impl Entry {
    /// Reads a record: one with an offset is plain, one without must be an envelope.
    ///
    /// # Errors
    /// [`DecodeError`] for an envelope whose header or frames fail their checks.
    pub fn decode(record: ConsumedRecord) -> Result<Self, DecodeError> {
        if let Some(offset) = record.offset {
            return Ok(Self::Plain(PlainRecord {
                offset,
                key: record.key,
                value: record.value,
            }));
        }
        let (header, length) = Header::decode(&record.value)?;
        let frames = record.value.slice(length..);
        header.check_frames(&frames)?;
        Ok(Self::Envelope(Envelope { header, frames }))
    }

    /// The same; what an envelope says of its offsets, which are the topic's, is raised to those of a ledger that
    /// counts `shift` more. A record as it is stored got its offset from the reader.
    #[must_use]
    pub fn shifted(mut self, shift: u64) -> Self {
        if let Self::Envelope(envelope) = &mut self {
            let header = &mut envelope.header;
            header.base_offset = header.base_offset.saturating_add(shift);
            header.last_offset = header.last_offset.saturating_add(shift);
        }
        self
    }

    /// First topic offset that the entry stands for.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::Envelope(envelope) => envelope.header.base_offset,
            Self::Plain(record) => record.offset,
        }
    }

    /// Time of its earliest event, milliseconds since the Unix epoch; of a record as it is stored,
    /// when it arrived in the stream. `None` for a record without an origin.
    #[must_use]
    pub fn first_time_ms(&self) -> Option<i64> {
        match self {
            Self::Envelope(envelope) => Some(envelope.header.first_time_ms()),
            Self::Plain(record) => {
                let origin = Origin::parse(record.key.as_deref()?).ok()?;
                Some(origin.arrival_ms)
            }
        }
    }

    /// Bytes that the entry holds in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Envelope(envelope) => {
                let header = &envelope.header;
                envelope.frames.len() + 256 + header.frames.len() * 80 + header.sources.len() * 300
            }
            Self::Plain(record) => {
                record.value.len() + record.key.as_ref().map_or(0, Bytes::len) + 96
            }
        }
    }
}

/// The envelopes of one stored batch, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit<'a> {
    /// Every envelope that the batch became, in order.
    Batch(Vec<&'a Envelope>),
    /// One plain record.
    Plain(&'a PlainRecord),
}

impl Unit<'_> {
    /// First topic offset that it stands for.
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::Batch(batch) => batch.first().map_or(0, |first| first.header.base_offset),
            Self::Plain(record) => record.offset,
        }
    }
}

/// Tells what units stand for from anything else: places, origins and checksums. A plan that is made again is made of
/// the same, or its offsets are those of another topic.
#[must_use]
pub fn digest(units: &[Unit<'_>]) -> u64 {
    let mut hash = Xxh3::new();
    let mut section = Vec::new();
    for unit in units {
        match unit {
            Unit::Batch(batch) => {
                for envelope in batch {
                    section.clear();
                    envelope.header.encode(&mut section);
                    hash.update(&section);
                }
            }
            Unit::Plain(record) => {
                hash.update(&record.offset.to_le_bytes());
                hash.update(record.key.as_deref().unwrap_or_default());
            }
        }
    }
    hash.digest()
}

/// A hole in what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContiguityError {
    /// Offsets are missing or come twice.
    #[error("expected offset {expected}, found {found}")]
    Offset {
        /// The offset that should have followed.
        expected: Offset,
        /// The offset that did.
        found: Offset,
    },
    /// An envelope of a batch is missing.
    #[error(
        "batch at offset {base_offset}: expected envelope {expected} of {total}, found {found}"
    )]
    Envelope {
        /// First offset of the batch.
        base_offset: Offset,
        /// Index that should have followed.
        expected: u32,
        /// What did.
        found: String,
        /// Envelopes of the batch.
        total: u32,
    },
    /// An envelope that is not one of a batch.
    #[error("record at offset {0} is an item of a table, not an envelope of a batch")]
    NotOfABatch(Offset),
}

/// What entries stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage<'a> {
    /// Whole batches and plain records, in order.
    pub units: Vec<Unit<'a>>,
    /// Stored records that SmartModules removed, or took the origin from.
    pub removed: u64,
    /// Offsets that are lost and were passed over.
    pub gaps: Vec<Range<Offset>>,
}

/// How jumps in the offsets are taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jumps<'a> {
    /// SmartModules before the packer may have removed records: a jump is no hole, but for `holes`.
    pub filtered: bool,
    /// Offsets that the topic did not give, in order.
    pub holes: &'a [Range<Offset>],
    /// A hole is passed over; else it is an error.
    pub pass: bool,
}

/// Like [`units`], where SmartModules before the packer may have removed records.
///
/// The packer counts what it is given from the base offset of the stored batch, so an envelope
/// ends where its events would end if they had stood at the head of the batch: never beyond the
/// batch. That `offsets` were all read is known from the chunks, which cover them without a
/// hole; what they hold beyond the units was removed. A batch that is left empty has no unit. A record
/// whose key a SmartModule replaced is there, but its ordinal is not: it is counted as removed.
///
/// # Errors
/// [`ContiguityError`] for units that overlap, lie outside `offsets` or are not whole.
pub fn filtered_units(
    entries: &[Entry],
    offsets: Range<Offset>,
) -> Result<Coverage<'_>, ContiguityError> {
    let filtered = Jumps {
        filtered: true,
        ..Jumps::default()
    };
    cover(entries, offsets, filtered)
}

/// Events of an envelope that have no origin; a slice of one counts with the last.
fn without_origin(entry: &Entry) -> u64 {
    let Entry::Envelope(envelope) = entry else {
        return 0;
    };
    let sources = envelope.header.sources.iter();
    sources
        .filter(|source| source.stream.is_empty())
        .map(|source| source.count)
        .sum()
}

/// Groups entries into whole batches and checks that they cover `offsets` without a hole.
///
/// # Errors
/// [`ContiguityError`] names the first hole.
pub fn units(entries: &[Entry], offsets: Range<Offset>) -> Result<Vec<Unit<'_>>, ContiguityError> {
    cover(entries, offsets, Jumps::default()).map(|coverage| coverage.units)
}

/// Groups entries into whole batches and checks that they cover `offsets` as `jumps` allow.
///
/// # Errors
/// [`ContiguityError`] names the first hole.
pub fn cover<'a>(
    entries: &'a [Entry],
    offsets: Range<Offset>,
    jumps: Jumps<'_>,
) -> Result<Coverage<'a>, ContiguityError> {
    let mut removed = 0;
    let mut gaps = Vec::new();
    let mut check_offset = |expected: Offset, found: Offset| {
        if found <= expected {
            return check_offset(expected, found);
        }
        let jump = expected..found;
        let lost: Vec<Range<Offset>> = match jumps.filtered {
            false => vec![jump],
            true => {
                let within =
                    |hole: &&Range<Offset>| jump.start <= hole.start && hole.end <= jump.end;
                let lost: Vec<_> = jumps.holes.iter().filter(within).cloned().collect();
                removed += found - expected - lost.iter().map(|h| h.end - h.start).sum::<u64>();
                lost
            }
        };
        match lost.first() {
            Some(first) if !jumps.pass => Err(ContiguityError::Offset {
                expected: first.start,
                found: first.end,
            }),
            _ => {
                gaps.extend(lost);
                Ok(())
            }
        }
    };
    let mut units = Vec::new();
    let mut expected = offsets.start;
    let mut batch: Vec<&Envelope> = Vec::new();
    for entry in entries {
        match entry {
            Entry::Plain(record) => {
                complete(&batch, "a plain record")?;
                check_offset(expected, record.offset)?;
                expected = record.offset + 1;
                units.push(Unit::Plain(record));
            }
            Entry::Envelope(envelope) => {
                let header = &envelope.header;
                let Place::Batch { index, total } = header.place else {
                    return Err(ContiguityError::NotOfABatch(header.base_offset));
                };
                if let Some(first) = batch.first() {
                    let same = first.header.base_offset == header.base_offset
                        && first.header.last_offset == header.last_offset;
                    let next = batch.len() as u32;
                    if !same || index != next {
                        complete(&batch, &format!("{index} of {}", header.base_offset))?;
                    }
                } else {
                    check_offset(expected, header.base_offset)?;
                    if index != 0 {
                        return Err(missing(header.base_offset, 0, index.to_string(), total));
                    }
                }
                batch.push(envelope);
                if index + 1 >= total {
                    expected = header.last_offset + 1;
                    units.push(Unit::Batch(std::mem::take(&mut batch)));
                }
            }
        }
    }
    complete(&batch, "the end")?;
    check_offset(expected, offsets.end)?;
    if jumps.filtered {
        removed += entries.iter().map(without_origin).sum::<u64>();
    }
    Ok(Coverage {
        units,
        removed,
        gaps,
    })
}

fn check_offset(expected: Offset, found: Offset) -> Result<(), ContiguityError> {
    if expected == found || mutation::is(Mutation::GapCheckOff) {
        return Ok(());
    }
    Err(ContiguityError::Offset { expected, found })
}

/// An error if a batch is open: something else came where its next envelope should be.
fn complete(batch: &[&Envelope], found: &str) -> Result<(), ContiguityError> {
    let Some(first) = batch
        .first()
        .filter(|_| !mutation::is(Mutation::GapCheckOff))
    else {
        return Ok(());
    };
    let total = match first.header.place {
        Place::Batch { total, .. } => total,
        Place::Chain(_) => 0,
    };
    let expected = batch.len() as u32;
    Err(missing(
        first.header.base_offset,
        expected,
        found.to_owned(),
        total,
    ))
}

fn missing(base_offset: Offset, expected: u32, found: String, total: u32) -> ContiguityError {
    ContiguityError::Envelope {
        base_offset,
        expected,
        found,
        total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_format::header::{Codec, Kind};

    fn envelope(base: u64, last: u64, index: u32, total: u32) -> Entry {
        Entry::Envelope(Envelope {
            header: Header {
                kind: Kind::Events,
                codec: Codec::Zstd { dictionary: 0 },
                group: "g".into(),
                base_offset: base,
                last_offset: last,
                place: Place::Batch { index, total },
                sources: vec![],
                frames: vec![],
            },
            frames: Bytes::new(),
        })
    }

    fn plain(offset: u64) -> Entry {
        Entry::Plain(PlainRecord {
            offset,
            key: None,
            value: Bytes::new(),
        })
    }

    #[test]
    fn whole_batches_and_plain_records_pass() {
        let entries = [
            envelope(5, 9, 0, 2),
            envelope(5, 9, 1, 2),
            plain(10),
            envelope(11, 11, 0, 1),
        ];
        let units = units(&entries, 5..12).expect("no hole");
        assert_eq!(units.len(), 3);
        assert!(matches!(&units[0], Unit::Batch(batch) if batch.len() == 2));
    }

    #[test]
    fn what_a_filter_removed_is_counted() {
        // Batches 5..10 (three kept), 10..15 (none kept), 15..18 (all kept).
        let entries = [
            envelope(5, 7, 0, 2),
            envelope(5, 7, 1, 2),
            envelope(15, 17, 0, 1),
        ];
        assert!(units(&entries, 5..18).is_err());
        let coverage = filtered_units(&entries, 5..18).expect("no hole");
        assert_eq!((coverage.units.len(), coverage.removed), (2, 7));
        let empty = filtered_units(&[], 5..18).expect("all removed");
        assert_eq!((empty.units.len(), empty.removed), (0, 13));
        // Part of a batch, an overlap, and an end beyond what was read.
        assert!(filtered_units(&entries[1..], 5..18).is_err());
        assert!(filtered_units(&[envelope(5, 9, 0, 1), envelope(9, 9, 0, 1)], 5..18).is_err());
        assert!(filtered_units(&entries, 5..17).is_err());
    }

    #[test]
    fn a_hole_is_passed_over_only_when_told_to() {
        let entries = [envelope(5, 7, 0, 1), envelope(15, 17, 0, 1)];
        let (hole, pass) = (8..12, true);
        let holes = std::slice::from_ref(&hole);
        let jumps = |filtered| Jumps {
            filtered,
            holes,
            pass,
        };
        let found = cover(&entries, 5..18, jumps(false)).expect("passes");
        assert_eq!(
            (found.removed, found.gaps.as_slice()),
            (0, std::slice::from_ref(&(8..15)))
        );
        // What a filter removed beside the hole is no gap.
        let found = cover(&entries, 5..18, jumps(true)).expect("passes");
        assert_eq!((found.removed, found.gaps.as_slice()), (3, holes));
        for filtered in [false, true] {
            let strict = Jumps {
                pass: false,
                ..jumps(filtered)
            };
            let error = cover(&entries, 5..18, strict).expect_err("a hole");
            assert!(matches!(error, ContiguityError::Offset { expected: 8, .. }));
        }
        // Half a batch is still stored: no gap.
        assert!(cover(&[envelope(5, 7, 1, 2)], 5..8, jumps(false)).is_err());
        assert!(
            cover(
                &[envelope(5, 7, 0, 1), envelope(6, 8, 0, 1)],
                5..9,
                jumps(false)
            )
            .is_err()
        );
    }

    #[test]
    fn every_hole_is_found() {
        let whole = [
            envelope(5, 9, 0, 3),
            envelope(5, 9, 1, 3),
            envelope(5, 9, 2, 3),
            plain(10),
            plain(11),
            envelope(12, 20, 0, 2),
            envelope(12, 20, 1, 2),
        ];
        assert!(units(&whole, 5..21).is_ok());
        for drop in 0..whole.len() {
            let mut entries = whole.to_vec();
            entries.remove(drop);
            assert!(units(&entries, 5..21).is_err(), "dropped {drop}");
            let mut entries = whole.to_vec();
            entries.insert(drop, whole[drop].clone());
            assert!(units(&entries, 5..21).is_err(), "doubled {drop}");
        }
        assert!(units(&whole, 4..21).is_err());
        assert!(units(&whole, 5..22).is_err());
        assert!(units(&[], 5..6).is_err());
    }
}
