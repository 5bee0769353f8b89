//! The packer: a stored batch in, envelopes out.

use millpond_format::frame::CompressError;
use millpond_format::header::{Kind, Part, Place, Reject};
use millpond_format::limits;
use millpond_format::record::RecordError;

use crate::batch::{Batch, Chain, Event, Rejected};
use crate::draft::{Draft, Frame, FramePacker, slice_bytes};
use crate::params::Params;
use crate::route::cut_at;

/// Most chains that feed one frame; more would make its index entry the larger part of it.
const MAX_FRAME_CHAINS: usize = 64;

/// Bytes that an event takes in a frame besides its value, about.
const COLUMN_BYTES: usize = 8;

/// A record that leaves the packer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedRecord {
    /// Group key; empty for a rejected event.
    pub key: Vec<u8>,
    /// The envelope.
    pub value: Vec<u8>,
}

/// Why a batch could not be packed. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The batch is not in Fluvio's record encoding.
    #[error("the batch at topic offset {base_offset} cannot be read: {error}")]
    Records {
        /// First topic offset of the batch.
        base_offset: u64,
        /// What is wrong with it.
        error: RecordError,
    },
    /// Compression failed, for lack of memory.
    #[error("the batch at topic offset {base_offset} cannot be compressed: {error}")]
    Compress {
        /// First topic offset of the batch.
        base_offset: u64,
        /// What zstd says.
        error: CompressError,
    },
}

/// Groups, packs and compresses stored batches.
///
/// Memory is kept from one batch to the next, data is not: the result depends on the batch
/// and the parameters alone.
#[derive(Debug)]
pub struct Packer {
    params: Params,
    frames: FramePacker,
}

impl Packer {
    /// A packer with the given parameters.
    ///
    /// # Errors
    /// [`CompressError`] when zstd cannot be set up.
    pub fn new(params: Params) -> Result<Self, CompressError> {
        let frames = FramePacker::new(params.level)?;
        Ok(Self { params, frames })
    }

    /// Packs one stored batch, given as raw records in Fluvio's encoding.
    ///
    /// Answers envelopes: those of a group in the order of its events, groups in the order of
    /// their first event, then one envelope for each rejected event. The counts of all
    /// sources add up to the records of the batch. An envelope of events or of a part fits an
    /// item of `max-item-bytes` alone; that of a rejected event may be larger.
    ///
    /// # Errors
    /// [`PackError`] for a batch that cannot be read; a bad event is no error.
    pub fn pack(
        &mut self,
        raw_records: &[u8],
        base_offset: u64,
        base_timestamp_ms: i64,
    ) -> Result<Vec<PackedRecord>, PackError> {
        let batch = Batch::read(&self.params, raw_records, base_offset, base_timestamp_ms)
            .map_err(|error| PackError::Records { base_offset, error })?;
        let drafts = draft_all(&batch, &self.params, &mut self.frames)
            .map_err(|error| PackError::Compress { base_offset, error })?;
        let last_offset = base_offset.saturating_add(batch.record_count.saturating_sub(1).into());
        let total = drafts.len() as u32;
        let codec = self.frames.codec();
        let finish = |(index, draft): (usize, Draft)| {
            let index = index as u32;
            let (group, value) = draft.finish(
                codec,
                (base_offset, last_offset),
                Place::Batch { index, total },
            );
            PackedRecord {
                key: group.into_bytes(),
                value,
            }
        };
        Ok(drafts.into_iter().enumerate().map(finish).collect())
    }
}

fn draft_all(
    batch: &Batch<'_>,
    params: &Params,
    frames: &mut FramePacker,
) -> Result<Vec<Draft>, CompressError> {
    let mut finished = Vec::new();
    for (group, events) in batch.groups() {
        let limit = params.max_item_bytes - limits::ITEM_RESERVE_BYTES - group.len();
        let mut writer = GroupWriter {
            frames,
            chains: &batch.chains,
            group,
            limit,
            draft: Draft::new(Kind::Events, group),
            finished: &mut finished,
        };
        writer.write(events)?;
    }
    for rejected in &batch.rejected {
        finished.push(draft_reject(rejected, &batch.chains, frames)?);
    }
    Ok(finished)
}

/// Writes the events of one group.
struct GroupWriter<'w, 'a> {
    frames: &'w mut FramePacker,
    chains: &'w [Chain<'a>],
    group: &'w str,
    /// Largest envelope in bytes.
    limit: usize,
    draft: Draft,
    finished: &'w mut Vec<Draft>,
}

impl<'a> GroupWriter<'_, 'a> {
    fn write<'b>(
        &mut self,
        events: impl Iterator<Item = &'b Event<'a>>,
    ) -> Result<(), CompressError>
    where
        'a: 'b,
    {
        // A frame that may not fit an envelope of its own would be compressed twice.
        let target = limits::FRAME_TARGET_BYTES.min(self.limit);
        let mut pending: Vec<&Event<'a>> = Vec::new();
        let mut pending_bytes = 0;
        let mut chains: Vec<u32> = Vec::new();
        for event in events {
            let bytes = event.value.len() + COLUMN_BYTES;
            let is_new_chain = !chains.contains(&event.chain);
            let full =
                pending_bytes + bytes > target || is_new_chain && chains.len() == MAX_FRAME_CHAINS;
            if full && !pending.is_empty() {
                self.write_frame(&pending)?;
                pending.clear();
                pending_bytes = 0;
                chains.clear();
            }
            if event.value.len() > limits::MAX_WHOLE_EVENT_BYTES {
                self.write_parts(event)?;
            } else {
                if is_new_chain || chains.is_empty() {
                    chains.push(event.chain);
                }
                pending.push(event);
                pending_bytes += bytes;
            }
        }
        if !pending.is_empty() {
            self.write_frame(&pending)?;
        }
        self.close();
        Ok(())
    }

    /// Writes events as one frame, or as several when one would not fit an envelope.
    fn write_frame(&mut self, events: &[&Event<'a>]) -> Result<(), CompressError> {
        let frame = self.frames.pack(events)?;
        let Some(_unfit) = self.place(frame) else {
            return Ok(());
        };
        match events {
            [event] => self.write_parts(event),
            _ => {
                let (head, tail) = events.split_at(events.len() / 2);
                self.write_frame(head)?;
                self.write_frame(tail)
            }
        }
    }

    /// Puts a frame into this envelope or the next; gives it back when no envelope holds it.
    fn place(&mut self, frame: Frame<'a>) -> Option<Frame<'a>> {
        let frame = self.draft.try_push(frame, self.chains, self.limit).err()?;
        self.close();
        self.draft.try_push(frame, self.chains, self.limit).err()
    }

    /// Writes an event as slices, each in an envelope of its own.
    fn write_parts(&mut self, event: &Event<'a>) -> Result<(), CompressError> {
        self.close();
        let slice_bytes = slice_bytes(self.group, &self.chains[event.chain as usize], self.limit);
        let count = event.value.len().div_ceil(slice_bytes).max(1);
        let event_crc32c = crc32c::crc32c(event.value);
        for (index, slice) in event.value.chunks(slice_bytes).enumerate() {
            let kind = Kind::Part(Part {
                index: index as u32,
                count: count as u32,
                event_bytes: event.value.len() as u64,
                event_crc32c,
            });
            let frame = self.frames.pack_slice(event, slice, index + 1 == count)?;
            let mut draft = Draft::new(kind, self.group);
            draft.push(frame, self.chains);
            self.finished.push(draft);
        }
        Ok(())
    }

    fn close(&mut self) {
        if !self.draft.is_empty() {
            let next = Draft::new(Kind::Events, self.group);
            self.finished.push(std::mem::replace(&mut self.draft, next));
        }
    }
}

/// An envelope for one rejected event; an event too large for one frame lies in several.
fn draft_reject(
    rejected: &Rejected<'_>,
    chains: &[Chain<'_>],
    frames: &mut FramePacker,
) -> Result<Draft, CompressError> {
    let key = rejected.record_key;
    let kept_key = key.map(|key| &key[..key.len().min(limits::MAX_RECORD_KEY_BYTES)]);
    let mut detail = rejected.rejection.detail.clone();
    if let (Some(key), Some(kept)) = (key, kept_key)
        && kept.len() < key.len()
    {
        detail.push_str(&format!("; record key cut from {} bytes", key.len()));
    }
    let kind = Kind::Reject(Reject {
        reason: rejected.rejection.reason,
        detail: cut_at(&detail, limits::MAX_DETAIL_BYTES).to_owned(),
        record_key: kept_key.map(<[u8]>::to_vec),
    });
    let event = &rejected.event;
    let mut draft = Draft::new(kind, "");
    let mut rest = event.value;
    loop {
        let (slice, next) = rest.split_at(rest.len().min(limits::MAX_WHOLE_EVENT_BYTES));
        draft.push(frames.pack_slice(event, slice, next.is_empty())?, chains);
        if next.is_empty() {
            return Ok(draft);
        }
        rest = next;
    }
}
