//! An item that is read, and the frame of it that is decoded.

use std::sync::Arc;

use bytes::Bytes;
use millpond_format::frame::FrameEvent;
use millpond_format::header::Header;
use millpond_format::limits;

use super::Decoding;
use crate::damage::Check;
use crate::event::EventOrigin;
use crate::item::PackedItem;

/// An item of which frames are decoded one after the other.
#[derive(Debug)]
pub(super) struct OpenItem {
    pub(super) item: PackedItem,
    pub(super) frame_index: usize,
    pub(super) frame_start: usize,
    /// Stream and shard of each source of the header.
    streams: Vec<(Arc<str>, Arc<str>)>,
}

/// A decoded frame of which events are given out.
#[derive(Debug)]
pub(super) struct OpenFrame {
    pub(super) raw: Bytes,
    pub(super) index: usize,
    pub(super) count: usize,
    pub(super) events: std::vec::IntoIter<FrameEvent>,
}

impl OpenItem {
    pub(super) fn new(item: PackedItem) -> Self {
        let sources = item.header.sources.iter();
        let streams = sources
            .map(|source| (source.stream.as_str().into(), source.shard.as_str().into()))
            .collect();
        Self {
            item,
            frame_index: 0,
            frame_start: 0,
            streams,
        }
    }

    pub(super) fn origin(&self, event: &FrameEvent) -> EventOrigin {
        let number = event.source as usize;
        // The decoder answers only sources that the header has.
        let (stream, shard) = self.streams[number].clone();
        EventOrigin {
            stream,
            shard,
            epoch: self.item.header.sources[number].epoch,
            ordinal: event.ordinal,
        }
    }

    /// All values of all frames back to back, and the last frame event.
    pub(super) fn decode_all(
        &self,
        decoding: &mut Decoding<'_>,
    ) -> Result<(Vec<u8>, FrameEvent), Check> {
        let header: &Header = &self.item.header;
        let mut bytes = Vec::new();
        let mut last = None;
        for (index, (info, range)) in header.frame_ranges().enumerate() {
            decoding.stats.frames_decoded += 1;
            let frame = decoding
                .decoder
                .decode(header.codec, info, &self.item.frames[range])
                .map_err(|error| Check::Frame { index, error })?;
            for event in &frame.events {
                bytes.extend_from_slice(frame.value(event));
            }
            if bytes.len() > limits::MAX_EVENT_BYTES {
                break;
            }
            last = frame.events.into_iter().last().or(last);
        }
        let event = last.ok_or(Check::NotAnItem {
            found: "a part without bytes",
        })?;
        Ok((bytes, event))
    }
}
