//! Walks one chain of items in stored order and checks that it is whole. Pure.
//!
//! Every item tells the totals of its chain up to and including itself, so the next one shows
//! whether something between them is missing or there twice.

use std::collections::BTreeMap;

use millpond_format::frame::FrameDecoder;
use millpond_format::header::{ChainTotals, Header, Kind, Part};
use millpond_format::keys::SortKey;
use millpond_format::origin::Origin;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::census::{Census, Thresholds};
use super::finding::{Finding, ShardKey};
use crate::damage::Check;
use crate::event::ItemKey;
use crate::item::{FIRST_TIME, FRAMES, HEADER, ORIGIN, VALUE, binary, read_header};
use crate::table::{Attributes, integer, text};

/// Findings of one chain that are told; of more only the number.
const MAX_FINDINGS: usize = 100;

/// Items beyond the committed offset that are looked at again.
const MAX_BEYOND: usize = 16;

/// What a walk needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkRules<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic_partition: u32,
    /// First topic offset that was not committed when the walk began.
    pub(crate) committed: u64,
    /// Bound on sort time minus first event time.
    pub(crate) late_ms: i64,
    /// Frames are there to be decoded.
    pub(crate) is_deep: bool,
    pub(crate) thresholds: &'a Thresholds,
}

/// What a walk counted.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) census: Census,
    pub(crate) findings: Vec<Finding>,
    /// Findings that are not among them.
    pub(crate) more_findings: u64,
    pub(crate) items: u64,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    /// Items from the committed offset on: of a plan that is being written.
    pub(crate) open_items: u64,
    /// The first of them, with their topic offsets.
    pub(crate) beyond: Vec<(ItemKey, u64)>,
    pub(crate) first_time_ms: Option<i64>,
    pub(crate) last_time_ms: Option<i64>,
}

impl Walked {
    fn beyond(&mut self, key: &ItemKey, offset: u64) {
        self.open_items += 1;
        if self.beyond.len() < MAX_BEYOND {
            self.beyond.push((key.clone(), offset));
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// An event in parts, as far as it has come.
struct OpenPart {
    item: ItemKey,
    part: Part,
    base_offset: u64,
    /// Of the values so far, where frames are decoded.
    bytes: u64,
    crc: u32,
    hash: Xxh3,
}

/// A walk under way.
pub(crate) struct Walk<'a> {
    rules: WalkRules<'a>,
    walked: Walked,
    totals: ChainTotals,
    /// Key of the item before; its totals were read.
    before: Option<(ItemKey, SortKey)>,
    /// The part that must be followed by the next one of its event.
    part: Option<OpenPart>,
    decoder: Option<FrameDecoder>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rules: WalkRules<'a>) -> Self {
        Self {
            rules,
            walked: Walked::default(),
            totals: ChainTotals::default(),
            before: None,
            part: None,
            decoder: None,
        }
    }

    /// Takes the next item of the chain.
    pub(crate) fn take(&mut self, key: ItemKey, item: &Attributes) {
        let is_plain = !item.contains_key(HEADER) && item.contains_key(ORIGIN);
        let taken = match is_plain {
            true => self.plain(&key, item),
            false => self.packed(&key, item),
        };
        if let Err(check) = taken {
            self.walked.find(Finding::DamagedItem { item: key, check });
        }
    }

    fn plain(&mut self, key: &ItemKey, item: &Attributes) -> Result<(), Check> {
        let sort_key = SortKey::parse(&key.sk).ok_or(Check::SortKey)?;
        let origin = text(item, ORIGIN).ok_or(Check::AttributeType {
            name: ORIGIN,
            expected: 'S',
        })?;
        let origin = Origin::parse(origin.as_bytes()).map_err(Check::Origin)?;
        let time_ms = integer(item, FIRST_TIME).ok_or(Check::AttributeType {
            name: FIRST_TIME,
            expected: 'N',
        })?;
        let value = match self.rules.is_deep {
            true => Some(binary(item, VALUE)?),
            false => None,
        };
        self.end_parts();
        // Totals begin anew after such items.
        self.totals = ChainTotals::default();
        self.place(key, sort_key, time_ms);
        let walked = &mut self.walked;
        walked.items += 1;
        walked.events += 1;
        walked.event_bytes += value.map_or(0, |value| value.len() as u64);
        widen(walked, time_ms, time_ms);
        if sort_key.base_offset >= self.rules.committed {
            walked.beyond(key, sort_key.base_offset);
            return Ok(());
        }
        let (partition, thresholds) = (self.rules.topic_partition, self.rules.thresholds);
        let census = &mut walked.census;
        census.origin(partition, &origin, false, value, thresholds);
        Ok(())
    }

    fn packed(&mut self, key: &ItemKey, item: &Attributes) -> Result<(), Check> {
        let read = read_header(item, key, self.rules.group)?;
        let header = read.header;
        let counted: u64 = header.sources.iter().map(|source| source.count).sum();
        if header.kind == Kind::Events && counted != header.event_count() {
            return Err(Check::SourceCount {
                sources: counted,
                frames: header.event_count(),
            });
        }
        self.follow(key, &header, read.totals);
        self.place(key, read.sort_key, header.first_time_ms());
        self.next_part(key, &header);
        let walked = &mut self.walked;
        walked.items += 1;
        walked.events += header.event_count();
        walked.event_bytes += header.event_bytes();
        widen(walked, header.first_time_ms(), header.last_time_ms());
        let is_open = header.base_offset >= self.rules.committed;
        if is_open {
            walked.beyond(key, header.base_offset);
        } else {
            let partition = self.rules.topic_partition;
            walked.census.header(partition, &header, false);
        }
        if self.rules.is_deep {
            let frames = binary(item, FRAMES);
            let decoded = frames.and_then(|frames| self.frames(&header, frames, is_open));
            if decoded.is_err() && !is_open {
                let partition = self.rules.topic_partition;
                self.walked.census.undecoded(partition, &header);
            }
            return decoded;
        }
        Ok(())
    }

    /// Holds the totals of an item against those before it.
    fn follow(&mut self, key: &ItemKey, header: &Header, found: ChainTotals) {
        let must = ChainTotals {
            items: self.totals.items + 1,
            events: self.totals.events + header.event_count(),
            event_bytes: self.totals.event_bytes + header.event_bytes(),
            packed_bytes: self.totals.packed_bytes + header.packed_bytes() as u64,
        };
        self.totals = found;
        // Those of a plan that is being written may show in any order.
        if found == must || header.base_offset >= self.rules.committed {
            return;
        }
        let is_ahead = found.items > must.items
            && found.events >= must.events
            && found.packed_bytes >= must.packed_bytes;
        self.walked.find(match is_ahead {
            true => Finding::MissingItems {
                item: key.clone(),
                after: self.before.as_ref().map(|(key, _)| key.sk.to_string()),
                items: found.items - must.items,
                events: found.events - must.events,
            },
            false => Finding::RepeatedItem {
                item: key.clone(),
                found_items: found.items,
                found_events: found.events,
                items: must.items,
                events: must.events,
            },
        });
    }

    /// Checks where an item lies.
    fn place(&mut self, key: &ItemKey, sort_key: SortKey, first_time_ms: i64) {
        let late_ms = sort_key.sort_time_ms - first_time_ms;
        if late_ms > self.rules.late_ms {
            self.walked.find(Finding::Late {
                item: key.clone(),
                late_ms,
                bound_ms: self.rules.late_ms,
            });
        }
        let start = |key: &SortKey| (key.base_offset, key.envelope_index);
        if let Some((_, before)) = &self.before
            && start(before) >= start(&sort_key)
        {
            self.walked.find(Finding::Overlap {
                item: key.clone(),
                offset: sort_key.base_offset,
            });
        }
        self.before = Some((key.clone(), sort_key));
    }

    fn next_part(&mut self, key: &ItemKey, header: &Header) {
        let Kind::Part(part) = header.kind else {
            self.end_parts();
            return;
        };
        let goes_on = |open: &OpenPart| identity(&open.part) == identity(&part);
        if !self.part.as_ref().is_some_and(goes_on) {
            self.end_parts();
        }
        let open = self.part.take();
        let expected = open.as_ref().map_or(0, |open| open.part.index + 1);
        if part.index != expected {
            self.walked.find(Finding::DamagedItem {
                item: key.clone(),
                check: Check::PartOrder {
                    found: part.index,
                    expected,
                    count: part.count,
                },
            });
        }
        let open = open.unwrap_or_else(|| OpenPart {
            item: key.clone(),
            part,
            base_offset: header.base_offset,
            bytes: 0,
            crc: 0,
            hash: Xxh3::new(),
        });
        self.part = Some(OpenPart {
            item: key.clone(),
            part,
            ..open
        });
    }

    /// An event whose parts do not go on is broken, unless it is being written.
    fn end_parts(&mut self) {
        let Some(open) = self.part.take() else {
            return;
        };
        if !open.part.is_last() && open.base_offset < self.rules.committed {
            let check = Check::PartsMissing {
                missing: open.part.index + 1,
                count: open.part.count,
            };
            let item = open.item;
            self.walked.find(Finding::DamagedItem { item, check });
        }
    }

    /// Takes the value of a part; with the last one, the hash of the whole event.
    fn part_value(&mut self, part: Part, value: &[u8]) -> Result<Option<u128>, Check> {
        let Some(open) = &mut self.part else {
            return Ok(None);
        };
        open.bytes += value.len() as u64;
        open.crc = crc32c::crc32c_append(open.crc, value);
        open.hash.update(value);
        if !part.is_last() {
            return Ok(None);
        }
        if (open.bytes, open.crc) != (part.event_bytes, part.event_crc32c) {
            return Err(Check::PartsChanged {
                count: part.count,
                found: open.bytes,
                expected: part.event_bytes,
                computed: open.crc,
                stored: part.event_crc32c,
            });
        }
        Ok(Some(open.hash.digest128()))
    }

    fn frames(&mut self, header: &Header, frames: &[u8], is_open: bool) -> Result<(), Check> {
        let expected = header.packed_bytes();
        if frames.len() != expected {
            return Err(Check::PayloadLength {
                found: frames.len(),
                expected,
            });
        }
        let mut counted: BTreeMap<u32, u64> = BTreeMap::new();
        for (index, (info, range)) in header.frame_ranges().enumerate() {
            let broken = |error| Check::Frame { index, error };
            let decoder = match &mut self.decoder {
                Some(decoder) => decoder,
                empty => empty.insert(FrameDecoder::new().map_err(broken)?),
            };
            let packed = frames.get(range).unwrap_or_default();
            let frame = decoder.decode(header.codec, info, packed).map_err(broken)?;
            for event in &frame.events {
                let source = &header.sources[event.source as usize];
                let within = source.first_ordinal..=source.last_ordinal;
                if !within.contains(&event.ordinal) {
                    return Err(Check::Ordinal {
                        ordinal: event.ordinal,
                    });
                }
                let value = frame.value(event);
                // Parts of an event count with the last; its value is in all of them.
                let hash = match header.kind {
                    Kind::Part(part) => self.part_value(part, value)?,
                    _ => Some(xxh3_128(value)),
                };
                let (Some(hash), false) = (hash, is_open || source.stream.is_empty()) else {
                    continue;
                };
                *counted.entry(event.source).or_default() += 1;
                let shard = ShardKey {
                    topic_partition: self.rules.topic_partition,
                    stream: source.stream.as_str().into(),
                    shard: source.shard.as_str().into(),
                    epoch: source.epoch,
                };
                let thresholds = self.rules.thresholds;
                let census = &mut self.walked.census;
                census.decoded(&shard, event.ordinal, hash, thresholds);
            }
        }
        let is_as_said = |(source, count): (&u32, &u64)| {
            header.kind != Kind::Events || header.sources[*source as usize].count == *count
        };
        if !counted.iter().all(is_as_said) {
            let frames = counted.values().sum();
            return Err(Check::SourceCount {
                sources: header.event_count(),
                frames,
            });
        }
        Ok(())
    }

    /// What was counted, once the chain has ended.
    pub(crate) fn finish(mut self) -> Walked {
        self.end_parts();
        self.walked
    }
}

fn identity(part: &Part) -> (u32, u64, u32) {
    (part.count, part.event_bytes, part.event_crc32c)
}

fn widen(walked: &mut Walked, first_ms: i64, last_ms: i64) {
    let first = walked.first_time_ms.get_or_insert(first_ms);
    *first = (*first).min(first_ms);
    walked.last_time_ms = walked.last_time_ms.max(Some(last_ms));
}

/// Attributes that a walk needs.
pub(crate) fn attributes(is_deep: bool) -> &'static [&'static str] {
    const HEADERS: &[&str] = &[HEADER, ORIGIN, "n", FIRST_TIME, "t1"];
    const ALL: &[&str] = &[HEADER, ORIGIN, "n", FIRST_TIME, "t1", FRAMES, VALUE];
    if is_deep { ALL } else { HEADERS }
}
