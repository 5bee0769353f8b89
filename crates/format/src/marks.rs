//! Per-shard high-water marks: how far each shard's events are in the table.
//!
//! Written compactly into the ledger row: `MPM`, version, streams (count, names), marks (count;
//! each: stream number, shard, epoch, ordinal, position, highest position), CRC-32C of all
//! before it. Integers are LEB128; a shard id of the usual form `shardId-%012d` is its number
//! plus one, any other is 0 and its text; a sequence number is its length and its value in
//! base 256. Version 3 ends with two counts of removed records, before the checksum; without
//! such records version 1 is written. A usual mark takes about 40 bytes.

use std::cmp::Ordering;

use crate::limits::MAX_MARKS;
use crate::sequence::{MAX_SEQUENCE_DIGITS, Position, SequenceNumber};

const MAGIC: [u8; 3] = *b"MPM";
const VERSION: u8 = 3;
/// Without the count of all records that were removed.
const PENDING_VERSION: u8 = 2;
/// Without removed records.
const PLAIN_VERSION: u8 = 1;

/// Longest name that is read back: longer ones than Kinesis allows were not written here.
const MAX_NAME_BYTES: usize = 128;

/// How far one shard's events are in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Stream name.
    pub stream: Box<str>,
    /// Shard id.
    pub shard: Box<str>,
    /// Newest numbering seen.
    pub epoch: u64,
    /// Last ordinal of that numbering.
    pub ordinal: u64,
    /// Position of the event with that ordinal.
    pub last: Position,
    /// Highest position in the table; beyond `last` while a new numbering repeats old events.
    pub highest: Position,
}

impl Mark {
    /// True while a new numbering repeats events that an older one delivered.
    #[must_use]
    pub fn is_catching_up(&self) -> bool {
        self.highest > self.last
    }
}

/// Why marks could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarksError {
    /// The bytes end too early.
    #[error("marks are truncated")]
    Truncated,
    /// The bytes are no marks.
    #[error("marks do not start with `MPM`")]
    BadMagic,
    /// Written by a later version.
    #[error(
        "marks have version {0}, newer than {VERSION}, the newest known here; upgrade Millpond"
    )]
    NewerVersion(u8),
    /// The checksum does not match.
    #[error("marks do not match their checksum")]
    Checksum,
    /// The bytes contradict themselves.
    #[error("marks are corrupt: {0}")]
    Corrupt(&'static str),
    /// More shards than the ledger row can hold.
    #[error("{0} shards are marked, over the limit of {MAX_MARKS}")]
    TooMany(usize),
}

/// Marks of one topic partition, sorted by stream and shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    marks: Vec<Mark>,
    /// Records that a SmartModule removed and whose ordinals no later event has shown to be
    /// absent yet: so many may still be missing in the chains.
    pub removed: u64,
    /// All records that SmartModules removed from this topic partition so far.
    pub removed_ever: u64,
}

impl Marks {
    /// Number of shards.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// True without a shard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Takes note of records that a SmartModule removed.
    pub fn remove(&mut self, records: u64) {
        self.removed = self.removed.saturating_add(records);
        self.removed_ever = self.removed_ever.saturating_add(records);
    }

    /// The mark of a shard.
    #[must_use]
    pub fn get(&self, stream: &str, shard: &str) -> Option<&Mark> {
        self.find(stream, shard)
            .ok()
            .map(|index| &self.marks[index])
    }

    /// Every mark in order.
    pub fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter()
    }

    /// The marks that `base` has not, or has otherwise; counts of removed records as here.
    #[must_use]
    pub fn changed_since(&self, base: &Self) -> Self {
        // Both are sorted: one walk.
        let mut others = base.marks.iter().peekable();
        let changed = |mark: &&Mark| {
            let key = (&mark.stream, &mark.shard);
            while others
                .next_if(|other| (&other.stream, &other.shard) < key)
                .is_some()
            {}
            others.peek() != Some(mark)
        };
        let changed = self.marks.iter().filter(changed).cloned().collect();
        Self {
            marks: changed,
            ..self.counts()
        }
    }

    /// These marks with those of `recent` in place of older ones, and its counts.
    #[must_use]
    pub fn with(&self, recent: &Self) -> Self {
        let mut all = Self {
            marks: self.marks.clone(),
            ..recent.counts()
        };
        recent.iter().for_each(|mark| all.set(mark.clone()));
        all
    }

    /// The marks in pieces of at most `most`, without counts.
    #[must_use]
    pub fn parts(&self, most: usize) -> Vec<Self> {
        let part = |marks: &[Mark]| Self {
            marks: marks.to_vec(),
            ..Self::default()
        };
        self.marks.chunks(most.max(1)).map(part).collect()
    }

    fn counts(&self) -> Self {
        Self {
            marks: Vec::new(),
            removed: self.removed,
            removed_ever: self.removed_ever,
        }
    }

    /// Sets the mark of its shard.
    pub fn set(&mut self, mark: Mark) {
        match self.find(&mark.stream, &mark.shard) {
            Ok(index) => self.marks[index] = mark,
            Err(index) => self.marks.insert(index, mark),
        }
    }

    fn find(&self, stream: &str, shard: &str) -> Result<usize, usize> {
        let order =
            |mark: &Mark| -> Ordering { (&*mark.stream, &*mark.shard).cmp(&(stream, shard)) };
        self.marks.binary_search_by(order)
    }

    /// The compact form.
    ///
    /// # Errors
    /// [`MarksError::TooMany`] above [`MAX_MARKS`].
    pub fn encode(&self) -> Result<Vec<u8>, MarksError> {
        if self.marks.len() > MAX_MARKS {
            return Err(MarksError::TooMany(self.marks.len()));
        }
        let mut out = MAGIC.to_vec();
        let is_plain = self.removed == 0 && self.removed_ever == 0;
        out.push(if is_plain { PLAIN_VERSION } else { VERSION });
        let mut streams: Vec<&str> = self.marks.iter().map(|mark| &*mark.stream).collect();
        streams.dedup();
        put(&mut out, streams.len() as u64);
        for stream in &streams {
            put_bytes(&mut out, stream.as_bytes());
        }
        put(&mut out, self.marks.len() as u64);
        for mark in &self.marks {
            let stream = streams.iter().position(|stream| **stream == *mark.stream);
            put(&mut out, stream.unwrap_or(0) as u64);
            match shard_number(&mark.shard) {
                Some(number) => put(&mut out, number + 1),
                None => {
                    put(&mut out, 0);
                    put_bytes(&mut out, mark.shard.as_bytes());
                }
            }
            put(&mut out, mark.epoch);
            put(&mut out, mark.ordinal);
            put_position(&mut out, &mark.last);
            if mark.is_catching_up() {
                out.push(1);
                put_position(&mut out, &mark.highest);
            } else {
                out.push(0);
            }
        }
        if !is_plain {
            put(&mut out, self.removed);
            put(&mut out, self.removed_ever);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Reads the compact form.
    ///
    /// # Errors
    /// [`MarksError`] for any bytes that [`Marks::encode`] would not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarksError> {
        let (head, crc) = bytes.split_last_chunk::<4>().ok_or(MarksError::Truncated)?;
        let mut rest = head.strip_prefix(&MAGIC).ok_or(MarksError::BadMagic)?;
        let version = take_byte(&mut rest)?;
        match version {
            PLAIN_VERSION | PENDING_VERSION | VERSION => {}
            newer if newer > VERSION => return Err(MarksError::NewerVersion(newer)),
            _ => return Err(MarksError::Corrupt("version")),
        }
        if crc32c::crc32c(head) != u32::from_le_bytes(*crc) {
            return Err(MarksError::Checksum);
        }
        let mut streams = Vec::new();
        for _ in 0..take_count(&mut rest)? {
            streams.push(take_text(&mut rest)?);
        }
        let count = take_count(&mut rest)?;
        let mut marks = Self::default();
        for _ in 0..count {
            let stream = usize::try_from(take(&mut rest)?).ok();
            let stream: &str = stream
                .and_then(|number| streams.get(number).copied())
                .ok_or(MarksError::Corrupt("stream number"))?;
            let shard = match take(&mut rest)? {
                0 => take_text(&mut rest)?.into(),
                number => format!("shardId-{:012}", number - 1).into_boxed_str(),
            };
            let epoch = take(&mut rest)?;
            let ordinal = take(&mut rest)?;
            let last = take_position(&mut rest)?;
            let highest = match take_byte(&mut rest)? {
                0 => last.clone(),
                1 => take_position(&mut rest)?,
                _ => return Err(MarksError::Corrupt("highest position")),
            };
            marks.marks.push(Mark {
                stream: stream.into(),
                shard,
                epoch,
                ordinal,
                last,
                highest,
            });
        }
        if version >= PENDING_VERSION {
            marks.removed = take(&mut rest)?;
            marks.removed_ever = match version {
                PENDING_VERSION => marks.removed,
                _ => take(&mut rest)?,
            };
            if marks.removed_ever == 0 || marks.removed > marks.removed_ever {
                return Err(MarksError::Corrupt("removed records"));
            }
        }
        if !rest.is_empty() {
            return Err(MarksError::Corrupt("length"));
        }
        let sorted = marks
            .marks
            .windows(2)
            .all(|pair| (&pair[0].stream, &pair[0].shard) < (&pair[1].stream, &pair[1].shard));
        if !sorted {
            return Err(MarksError::Corrupt("order"));
        }
        Ok(marks)
    }
}

fn shard_number(shard: &str) -> Option<u64> {
    let digits = shard.strip_prefix("shardId-")?;
    let usual = digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_digit());
    if usual { digits.parse().ok() } else { None }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_position(out: &mut Vec<u8>, position: &Position) {
    // Decimal numeral to base 256, least significant byte first.
    let mut value: Vec<u8> = Vec::with_capacity(24);
    for digit in position.sequence.bytes() {
        let mut carry = u32::from(digit.wrapping_sub(b'0'));
        for byte in &mut value {
            let next = u32::from(*byte) * 10 + carry;
            *byte = next as u8;
            carry = next >> 8;
        }
        if carry > 0 {
            value.push(carry as u8);
        }
    }
    put_bytes(out, &value);
    put(out, position.sub_sequence.into());
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, MarksError> {
    let (byte, after) = rest.split_first().ok_or(MarksError::Truncated)?;
    *rest = after;
    Ok(*byte)
}

fn take(rest: &mut &[u8]) -> Result<u64, MarksError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(MarksError::Corrupt("integer"))
}

fn take_count(rest: &mut &[u8]) -> Result<usize, MarksError> {
    let value = take(rest)?;
    let count = usize::try_from(value)
        .ok()
        .filter(|count| *count <= MAX_MARKS);
    count.ok_or(MarksError::Corrupt("count"))
}

fn take_bytes<'a>(rest: &mut &'a [u8], limit: usize) -> Result<&'a [u8], MarksError> {
    let length = usize::try_from(take(rest)?).unwrap_or(usize::MAX);
    if length > limit {
        return Err(MarksError::Corrupt("length of a part"));
    }
    let (bytes, after) = rest.split_at_checked(length).ok_or(MarksError::Truncated)?;
    *rest = after;
    Ok(bytes)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, MarksError> {
    let bytes = take_bytes(rest, MAX_NAME_BYTES)?;
    std::str::from_utf8(bytes).map_err(|_| MarksError::Corrupt("name"))
}

fn take_position(rest: &mut &[u8]) -> Result<Position, MarksError> {
    let value = take_bytes(rest, 64)?;
    let sub_sequence = u32::try_from(take(rest)?).map_err(|_| MarksError::Corrupt("position"))?;
    // Base 256 to decimal, least significant digit first.
    let mut digits: Vec<u8> = vec![0];
    for byte in value.iter().rev() {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            let next = u32::from(*digit) * 256 + carry;
            *digit = (next % 10) as u8;
            carry = next / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    while digits.len() > 1 && digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.len() > MAX_SEQUENCE_DIGITS {
        return Err(MarksError::Corrupt("sequence number"));
    }
    let text: String = digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect();
    let sequence = SequenceNumber::parse(&text).ok_or(MarksError::Corrupt("sequence number"))?;
    Ok(Position::new(sequence, sub_sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position() -> impl Strategy<Value = Position> {
        ("0|[1-9][0-9]{0,128}", any::<u32>()).prop_map(|(text, sub)| Position {
            sequence: text.into(),
            sub_sequence: sub,
        })
    }

    fn marks() -> impl Strategy<Value = Marks> {
        let shard = prop_oneof![
            "shardId-[0-9]{12}",
            "shardId-[0-9]{1,13}",
            "[a-zA-Z0-9_.-]{1,128}"
        ];
        let mark = (
            "[a-c]{1,3}",
            shard,
            any::<u64>(),
            any::<u64>(),
            position(),
            position(),
        );
        let removed = prop_oneof![Just((0, 0)), any::<(u64, u64)>()];
        (prop::collection::vec(mark, 0..12), removed).prop_map(|(list, (a, b))| {
            let mut marks = Marks {
                removed: a.min(b),
                removed_ever: a.max(b),
                ..Marks::default()
            };
            for (stream, shard, epoch, ordinal, a, b) in list {
                let (last, highest) = if a <= b { (a, b) } else { (b, a) };
                marks.set(Mark {
                    stream: stream.into(),
                    shard: shard.into(),
                    epoch,
                    ordinal,
                    last,
                    highest,
                });
            }
            marks
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(marks in marks()) {
            let bytes = marks.encode().expect("few");
            prop_assert_eq!(Marks::decode(&bytes), Ok(marks));
        }

        #[test]
        fn what_changed_and_what_did_not_are_all(base in marks(), recent in marks()) {
            let all = base.with(&recent);
            let changed = all.changed_since(&base);
            prop_assert!(changed.len() <= recent.len());
            prop_assert_eq!(base.with(&changed), all.clone());
            prop_assert!(all.changed_since(&all).is_empty());
            let mut together = Marks::default();
            for part in all.parts(3) {
                prop_assert!(part.len() <= 3);
                together = together.with(&part);
            }
            prop_assert_eq!(together.with(&recent), all);
        }

        #[test]
        fn any_change_is_an_error(marks in marks(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = marks.encode().expect("few");
            let at = at.index(bytes.len());
            prop_assert!(Marks::decode(&bytes[..at]).is_err());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(Marks::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Marks::decode(&bytes);
        }
    }

    /// Marks as a stream leaves them whose every shard was replaced some times over: the numbers
    /// of Kinesis itself (56 digits), ordinals of some hours.
    fn resharded(shards: u64, generations: u64) -> Marks {
        let mut marks = Marks::default();
        for number in 0..shards * generations {
            let sequence = format!("4959033827149025660855969253836157109592157598{number:010}");
            let last = Position {
                sequence: sequence.into(),
                sub_sequence: 3,
            };
            marks.set(Mark {
                stream: "events".into(),
                shard: format!("shardId-{number:012}").into(),
                epoch: 1_763_885_999_000,
                ordinal: 1_234_567 + number,
                highest: last.clone(),
                last,
            });
        }
        marks
    }

    /// The figures that ARCHITECTURE.md states.
    #[test]
    fn a_thousand_shards_take_thirty_nine_bytes_each() {
        for (generations, bytes, units) in [(1, 38_891, 38), (8, 311_891, 305)] {
            let found = resharded(1_000, generations).encode().expect("few").len();
            assert_eq!((found, found.div_ceil(1_024)), (bytes, units));
        }
        let most = (crate::limits::MAX_MARKS as u64 / 1_000) + 1;
        assert!(matches!(
            resharded(1_000, most).encode(),
            Err(MarksError::TooMany(_))
        ));
    }

    #[test]
    fn version_2_is_read() {
        let marks = Marks {
            removed: 7,
            removed_ever: 7,
            ..resharded(1, 1)
        };
        let mut bytes = marks.encode().expect("few");
        bytes[3] = PENDING_VERSION;
        bytes.truncate(bytes.len() - 5);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(Marks::decode(&bytes), Ok(marks));
    }
}
