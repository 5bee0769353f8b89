//! Routes the events of one group to objects: one for each hour, closed when it is full.
//!
//! What becomes of an event depends on the events before it alone, not on how well they were
//! compressed: another version of a library changes bytes, but no name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use millpond_format::origin::Origin;
use millpond_sink::dead_letters::{DeadLetter, Payload};
use tracing::error;

use crate::encode::{Constants, EncodeError, Encoder};
use crate::events::{Damaged, Event, Frame, Piece, Source, Unpacker};
use crate::limits::MAX_OPEN_OBJECTS;
use crate::names::{EventPlace, hour_of};
use crate::plan::PlanConfig;
use crate::writer::Object;

/// An object that still takes events.
struct OpenObject {
    encoder: Encoder,
    first: EventPlace,
    events: u64,
    event_bytes: u64,
    /// When it took its last event, in events.
    used: u64,
}

/// Routes the events of one group.
pub struct Router<'a> {
    config: &'a PlanConfig,
    group: &'a str,
    unpacker: Unpacker,
    /// By hour.
    open: BTreeMap<i64, OpenObject>,
    /// Full ones, to be put.
    full: Vec<Object>,
    taken: u64,
    letters: Vec<DeadLetter>,
}

impl<'a> Router<'a> {
    /// A router of no event yet.
    ///
    /// # Errors
    /// [`EncodeError`] when zstd cannot allocate its context.
    pub fn new(config: &'a PlanConfig, group: &'a str) -> Result<Self, EncodeError> {
        let unpacker = Unpacker::new().map_err(|error| EncodeError(error.to_string()))?;
        Ok(Self {
            config,
            group,
            unpacker,
            open: BTreeMap::new(),
            full: Vec::new(),
            taken: 0,
            letters: Vec::new(),
        })
    }

    /// Objects that are full.
    pub fn full(&mut self) -> Vec<Object> {
        std::mem::take(&mut self.full)
    }

    /// Closes what is open; answers these objects, and the events that are in none.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn finish(mut self) -> Result<(Vec<Object>, Vec<DeadLetter>), EncodeError> {
        let hours: Vec<i64> = self.open.keys().copied().collect();
        for hour in hours {
            self.close(hour)?;
        }
        Ok((self.full, self.letters))
    }

    /// Takes one part of a piece, see [`Piece::parts`]; `next` is the number of its first event.
    /// Answers the number after its last.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn take(&mut self, piece: &Piece, part: usize, next: u64) -> Result<u64, EncodeError> {
        let Piece::Envelope {
            header,
            frames,
            index,
        } = piece
        else {
            return self.record(piece).map(|()| next + 1);
        };
        let range = header.frame_ranges().nth(part).map(|(_, range)| range);
        let frame = Frame {
            header,
            index: *index,
            number: part,
            packed: frames.slice(range.unwrap_or(0..0)),
            first: next,
        };
        // Moved out and back, because what it hands on is routed here.
        let mut unpacker = std::mem::take(&mut self.unpacker);
        let taken = unpacker.frame(&frame, |event| self.event(event));
        self.unpacker = unpacker;
        Ok(taken?.unwrap_or_else(|damaged| {
            self.damaged(damaged);
            next + frame.events()
        }))
    }

    fn record(&mut self, piece: &Piece) -> Result<(), EncodeError> {
        let Piece::Record(record) = piece else {
            return Ok(());
        };
        // It was read as an origin before it was admitted.
        let Ok(origin) = Origin::parse(record.key.as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        if let Some((reason, detail)) = self.config.format.refuses(&record.value) {
            let letters = self.config.letters();
            let letter = letters.plain(record, &origin, reason, detail);
            self.letters.push(letter);
            return Ok(());
        }
        let sequence = origin.sequence.to_string();
        self.route(&Event {
            place: EventPlace {
                offset: record.offset,
                envelope: 0,
                event: 0,
            },
            time_ms: origin.arrival_ms,
            source: Source {
                stream: origin.stream,
                shard: origin.shard,
                epoch: origin.chain.epoch,
                ordinal: origin.chain.ordinal,
                sequence: Some((&sequence, origin.sub_sequence)),
            },
            value: &record.value,
        })
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), EncodeError> {
        match self.config.format.refuses(event.value) {
            None => self.route(event),
            Some((reason, detail)) => {
                self.refused(event, reason, &detail);
                Ok(())
            }
        }
    }

    /// Puts an event into the object of its hour.
    fn route(&mut self, event: &Event<'_>) -> Result<(), EncodeError> {
        let hour = hour_of(event.time_ms);
        let bytes = event.value.len() as u64;
        let limit = self.config.max_object_bytes;
        let is_full = |open: &OpenObject| open.event_bytes.saturating_add(bytes) > limit;
        if self.open.get(&hour).is_some_and(is_full) {
            self.close(hour)?;
        }
        if !self.open.contains_key(&hour) && self.open.len() >= MAX_OPEN_OBJECTS {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used);
            if let Some(hour) = oldest.map(|(hour, _)| *hour) {
                self.close(hour)?;
            }
        }
        let open = match self.open.entry(hour) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(empty) => empty.insert(OpenObject {
                encoder: self.config.format.encoder()?,
                first: event.place,
                events: 0,
                event_bytes: 0,
                used: 0,
            }),
        };
        let constants = Constants {
            group: self.group,
            partition: self.config.partition,
        };
        open.encoder.push(event, constants)?;
        open.events += 1;
        open.event_bytes += bytes;
        self.taken += 1;
        open.used = self.taken;
        Ok(())
    }

    fn close(&mut self, hour: i64) -> Result<(), EncodeError> {
        if let Some(open) = self.open.remove(&hour) {
            let object = self.closed(hour, open)?;
            self.full.push(object);
        }
        Ok(())
    }

    fn closed(&self, hour: i64, open: OpenObject) -> Result<Object, EncodeError> {
        let PlanConfig {
            names,
            partition,
            format,
            ..
        } = self.config;
        let extension = format.extension();
        Ok(Object {
            name: names.object(self.group, hour, *partition, open.first, extension),
            bytes: open.encoder.finish()?.into(),
            events: open.events,
            event_bytes: open.event_bytes,
        })
    }

    fn letter(&mut self, place: EventPlace, time_ms: i64, reason: &str, what: (String, Bytes)) {
        let letters = self.config.letters();
        let (detail, bytes) = what;
        self.letters.push(DeadLetter {
            id: format!(
                "{}/{}",
                letters.id(place.offset, place.envelope),
                place.event
            ),
            offset: place.offset,
            time_ms,
            reason: reason.to_owned(),
            detail,
            group: Some(self.group.to_owned()),
            record_key: None,
            payload: Payload::Raw(bytes),
        });
    }

    fn refused(&mut self, event: &Event<'_>, reason: &str, detail: &str) {
        let Source {
            stream,
            shard,
            epoch,
            ordinal,
            ..
        } = event.source;
        let detail = format!(
            "{detail} (shard `{shard}` of stream `{stream}`, ordinal {ordinal} of numbering {epoch})"
        );
        let bytes = Bytes::copy_from_slice(event.value);
        self.letter(event.place, event.time_ms, reason, (detail, bytes));
    }

    /// What passed its checksum and still cannot be read is kept as it is: going on is no loss then.
    fn damaged(&mut self, damaged: Damaged) {
        let Damaged {
            place,
            time_ms,
            bytes,
            error,
        } = damaged;
        error!(
            partition = self.config.partition,
            offset = place.offset,
            envelope = place.envelope,
            %error,
            "frame cannot be read, it goes to the dead-letter queue as it is"
        );
        self.letter(place, time_ms, "damaged", (error.to_string(), bytes));
    }
}
