//! Items of small frames packed anew: few frames, with a dictionary where there is one.
//!
//! An envelope holds what one stored batch had of a group. Where that is little, an item is many frames that
//! compress badly, each by itself.

use std::sync::Arc;

use millpond_format::dictionary::Dictionary;
use millpond_format::frame::{CompressError, FrameDecoder, FrameEncoder, RawFrame};
use millpond_format::header::{Header, Kind};
use millpond_format::join::{TrimError, unite};
use millpond_format::limits::FRAME_TARGET_BYTES;
use millpond_sink::dedup::{TRIM_LEVEL, Workbench};

use crate::plan::PlanConfig;
use crate::row::{Pieces, Row, Value, names};

/// Zstd level. It decides bytes of plans, as the bounds below do: whoever changes one raises the planner's version in
/// the fingerprint.
pub const LEVEL: i32 = 3;

/// Raw bytes up to which an item is small, however its frames are: what the packer puts into one frame.
const SMALL_BYTES: u64 = FRAME_TARGET_BYTES as u64;

/// Frames that have less than this on average are small, however many they are: a quarter of what the packer puts
/// into one.
const SMALL_FRAME_BYTES: u64 = SMALL_BYTES / 4;

/// Raw bytes above which an item stays as it is: what is held at a time has a bound (I9).
const MOST_BYTES: u64 = 4 << 20;

/// Packs items anew while a plan is made.
pub struct Repack<'a> {
    /// What is used; `None` before there is one.
    pub dictionary: Option<&'a Dictionary>,
    /// Is shown the raw frame of each small item.
    pub offer: &'a (dyn Fn(&[u8]) + Sync),
}

/// True for an item that is packed anew where that saves something.
pub(super) fn is_worth_a_try(header: &Header) -> bool {
    let frames = header.frames.len() as u64;
    let raw_bytes: u64 = header.frames.iter().map(|f| u64::from(f.raw_bytes)).sum();
    let has_small_frames = raw_bytes <= MOST_BYTES && raw_bytes < frames * SMALL_FRAME_BYTES;
    header.kind == Kind::Events && (raw_bytes <= SMALL_BYTES || has_small_frames)
}

/// The same with what it needs for that, made once per plan that needs it.
pub(super) struct Repacker<'a> {
    of: Repack<'a>,
    encoder: Option<FrameEncoder>,
}

impl<'a> Repacker<'a> {
    pub(super) fn new(of: Repack<'a>) -> Self {
        Self { of, encoder: None }
    }

    /// An item packed anew; `None` for one that cannot be read: it stays as it is.
    pub(super) fn anew(
        &mut self,
        header: &Header,
        frames: &Pieces,
        tools: &mut Workbench,
    ) -> Option<(Header, Vec<u8>)> {
        let united = tools.unite(header, &frames.concat()).ok()?;
        if let [small] = united.as_slice() {
            (self.of.offer)(&small.raw);
        }
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            empty => empty.insert(encoder(self.of.dictionary).ok()?),
        };
        packed(header.clone(), united, encoder).ok()
    }
}

fn encoder(dictionary: Option<&Dictionary>) -> Result<FrameEncoder, CompressError> {
    match dictionary {
        Some(dictionary) => FrameEncoder::with_dictionary(LEVEL, dictionary),
        None => FrameEncoder::new(LEVEL),
    }
}

/// The header with these frames, and their bytes.
fn packed(
    mut header: Header,
    frames: Vec<RawFrame>,
    encoder: &mut FrameEncoder,
) -> Result<(Header, Vec<u8>), CompressError> {
    header.codec = encoder.codec();
    header.frames.clear();
    let mut payload = Vec::new();
    for frame in frames {
        let (info, bytes) = encoder.encode(frame)?;
        header.frames.push(info);
        payload.extend_from_slice(&bytes);
    }
    Ok((header, payload))
}

/// An item in a form for which no dictionary is needed, for the dead-letter queue: a dead letter must be readable alone.
///
/// # Errors
/// [`TrimError`] when it cannot be read.
pub fn self_contained(
    row: &Row,
    dictionary: &Arc<Dictionary>,
    config: &PlanConfig,
) -> Result<Row, TrimError> {
    let (header_name, frames_name) = (config.name(names::HEADER), config.name(names::FRAMES));
    let bytes = |name| row.binary(name).map(Pieces::concat).unwrap_or_default();
    let (header, _) = Header::decode(&bytes(header_name))?;
    let mut decoder = FrameDecoder::new()?;
    decoder.learn(dictionary.clone());
    let united = unite(&header, &bytes(frames_name), &mut decoder)?;
    let mut encoder = FrameEncoder::new(TRIM_LEVEL)?;
    let (header, payload) = packed(header, united, &mut encoder)?;
    let mut section = Vec::new();
    header.encode(&mut section);
    let row = row.clone();
    Ok(row
        .with(header_name, Value::B(section.into()))
        .with(frames_name, Value::B(payload.into())))
}

/// The dictionary that the frames of an item need, if they need one.
#[must_use]
pub fn dictionary_named(row: &Row, config: &PlanConfig) -> Option<u64> {
    let section = row.binary(config.name(names::HEADER))?.concat();
    Header::decode(&section).ok()?.0.codec.dictionary()
}
