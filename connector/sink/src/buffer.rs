//! What was read and not planned: as much as one plan may hold.

use std::collections::{HashMap, HashSet};

use millpond_connector::topic::Offset;
use millpond_format::origin::Origin;
use tokio::time::Instant;

use crate::contiguity::Entry;
use crate::limits::{MAX_MOVED_MARKS, PLAN_RECORDS};
use crate::reading::{Input, Read};

/// Shards that entries have events of: what a plan of them moves the marks of, at most.
#[derive(Debug, Default)]
struct Shards {
    by_stream: HashMap<Box<str>, HashSet<Box<str>>>,
    count: usize,
}

impl Shards {
    fn add(&mut self, stream: &str, shard: &str) {
        if !self.by_stream.contains_key(stream) {
            self.by_stream.insert(stream.into(), HashSet::new());
        }
        if let Some(shards) = self.by_stream.get_mut(stream)
            && !shards.contains(shard)
        {
            shards.insert(shard.into());
            self.count += 1;
        }
    }

    fn add_all(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Envelope(envelope) => {
                    for source in &envelope.header.sources {
                        self.add(&source.stream, &source.shard);
                    }
                }
                Entry::Plain(record) => {
                    let key = record.key.as_deref().unwrap_or_default();
                    if let Ok(origin) = Origin::parse(key) {
                        self.add(origin.stream, origin.shard);
                    }
                }
            }
        }
    }
}

/// What was read and not planned.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) input: Input,
    pub(crate) bytes: usize,
    pub(crate) oldest: Option<Instant>,
    /// Time of the oldest event in it, milliseconds since the Unix epoch.
    pub(crate) oldest_event_ms: Option<i64>,
    shards: Shards,
    /// What the next plan begins with, and when it was read: with it this one would move too many marks.
    rest: Option<(Read, Instant)>,
}

impl Buffer {
    pub(crate) fn new(from: Offset) -> Self {
        Self {
            input: Input {
                from,
                to: from,
                ..Input::default()
            },
            bytes: 0,
            oldest: None,
            oldest_event_ms: None,
            shards: Shards::default(),
            rest: None,
        }
    }

    /// The plan ends here, though more was read.
    pub(crate) fn is_cut(&self) -> bool {
        self.rest.is_some()
    }

    /// True while more may be read for this plan.
    pub(crate) fn has_room(&self, plan_bytes: usize) -> bool {
        self.bytes < plan_bytes && self.input.entries.len() < PLAN_RECORDS && !self.is_cut()
    }

    /// Takes in what was read; nothing more until [`Self::take`] once [`Self::is_cut`].
    pub(crate) fn push(&mut self, mut read: Read, now: Instant) {
        let kept = self.kept(&read.entries);
        if kept < read.entries.len() {
            let entries = read.entries.split_off(kept);
            let rest = Read {
                to: read.to,
                entries,
                hole: None,
            };
            read.to = rest.entries.first().map_or(read.to, Entry::offset);
            self.rest = Some((rest, now));
            if kept == 0 {
                return;
            }
        }
        self.bytes += read.entries.iter().map(Entry::bytes).sum::<usize>();
        let times = read.entries.iter().filter_map(Entry::first_time_ms);
        self.oldest_event_ms = times.chain(self.oldest_event_ms).min();
        self.input.entries.extend(read.entries);
        self.input.holes.extend(read.hole);
        self.input.to = read.to;
        self.oldest.get_or_insert(now);
    }

    /// How many of these are of this plan: whole stored batches, of which one alone may move more than a plan should.
    fn kept(&mut self, entries: &[Entry]) -> usize {
        let mut kept = 0;
        for batch in entries.chunk_by(|one, other| one.offset() == other.offset()) {
            let before = self.shards.count;
            self.shards.add_all(batch);
            if self.shards.count > MAX_MOVED_MARKS && before > 0 && self.shards.count > before {
                return kept;
            }
            kept += batch.len();
        }
        kept
    }

    /// What a plan is made of; the buffer goes on behind it.
    pub(crate) fn take(&mut self) -> Input {
        let mut next = Self::new(self.input.to);
        if let Some((rest, since)) = self.rest.take() {
            next.push(rest, since);
        }
        std::mem::replace(self, next).input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    use crate::contiguity::PlainRecord;

    fn record(offset: Offset, shard: usize) -> Entry {
        let key = format!("mp1/s/shardId-{shard:012}/{offset}/0/1/1.0/k");
        Entry::Plain(PlainRecord {
            offset,
            key: Some(key.into()),
            value: Bytes::new(),
        })
    }

    fn read(from: Offset, shards: impl IntoIterator<Item = usize>) -> Read {
        let offsets = from..;
        let entries: Vec<Entry> = offsets
            .zip(shards)
            .map(|(offset, shard)| record(offset, shard))
            .collect();
        Read {
            to: from + entries.len() as u64,
            entries,
            hole: None,
        }
    }

    #[tokio::test]
    async fn a_plan_ends_before_it_moves_too_many_marks() {
        let now = Instant::now();
        let mut buffer = Buffer::new(10);
        let most = MAX_MOVED_MARKS;
        // As often as they like, as long as they are the same.
        buffer.push(read(10, (0..most).chain(0..most)), now);
        assert!(!buffer.is_cut() && buffer.has_room(usize::MAX));
        let at = 10 + 2 * most as u64;
        buffer.push(read(at, (1..5).chain(most - 1..3 * most + 7)), now);
        assert!(buffer.is_cut() && !buffer.has_room(usize::MAX));
        let mut seen = Vec::new();
        let mut from = 10;
        while !buffer.input.entries.is_empty() {
            let input = buffer.take();
            assert_eq!(input.from, from);
            from = input.to;
            let mut shards = Shards::default();
            shards.add_all(&input.entries);
            assert!(shards.count <= most);
            seen.extend(input.entries.iter().map(Entry::offset));
        }
        assert_eq!(from, at + 4 + 2 * most as u64 + 8);
        assert_eq!(seen, (10..from).collect::<Vec<_>>());
    }
}
