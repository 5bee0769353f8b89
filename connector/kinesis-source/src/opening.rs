//! Opens compressed payloads, within bounds (I9). Pure.
//!
//! Whether a payload opens, and what to, follows from its bytes and from constants alone: a replay
//! must number its events as before.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use millpond_format::limits::MAX_EVENT_BYTES;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use crate::aggregate::is_aggregated;
use crate::numbering::Decompress;

/// What all events of one record may be opened to, together: more than the largest event.
pub const MAX_OPENED_RECORD_BYTES: usize = 16 << 20;

/// A payload may be opened to so many times its bytes: text repeats itself ten or twenty times, a
/// bomb thousands of times.
pub const MAX_RATIO: usize = 256;

/// Below this any ratio is accepted.
pub const FREE_RATIO_BYTES: usize = 64 << 10;

/// Largest window of a zstd frame, as a power of two: 32 MiB, which all levels but the last two stay
/// within. It is memory for the time of one payload.
const MAX_WINDOW_LOG: u32 = 25;

/// Bytes that are opened at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Largest of what all records in one piece of an answer may be opened to, unless it is one record:
/// so much may be taken in at once beyond `max-buffered`.
const PIECE_BYTES: usize = 8 << 20;

/// An aggregated record is taken apart to so many times its bytes: an event of nothing has six there, and the key that
/// it gets about 140. Long partition keys, which each of those keys repeats, make it more.
pub(crate) const TAKEN_APART_RATIO: usize = 32;

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a payload was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It does not begin as it should.
    #[error("it is no {0}")]
    Other(&'static str),
    /// It begins so and cannot be read to its end.
    #[error("it is damaged {kind}: {reason}")]
    Damaged {
        /// What it is.
        kind: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// It would be too large.
    #[error("its {compressed} bytes open to more than the {limit} that are allowed for it")]
    TooLarge {
        /// Bytes that it has.
        compressed: usize,
        /// Bytes that it may have.
        limit: usize,
    },
}

impl NotOpened {
    /// The reason in the key of the dead letter.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Other(_) => "not-compressed",
            Self::Damaged { .. } => "damaged",
            Self::TooLarge { .. } => "opens-too-large",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zstd,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn of(payload: &[u8]) -> Option<Self> {
        if payload.starts_with(&GZIP_MAGIC) {
            Some(Self::Gzip)
        } else if payload.starts_with(&ZSTD_MAGIC) {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// What is left for the events of one record.
#[derive(Debug, Clone, Copy)]
pub struct Allowance(usize);

impl Default for Allowance {
    fn default() -> Self {
        Self(MAX_OPENED_RECORD_BYTES)
    }
}

/// Opens payloads, one after the other, with the same memory.
pub struct Opener {
    decompress: Decompress,
    zstd: Option<Decoder<'static>>,
    chunk: Vec<u8>,
    opened: Vec<u8>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("decompress", &self.decompress)
            .finish_non_exhaustive()
    }
}

impl Opener {
    /// Opens what the setting says.
    #[must_use]
    pub const fn new(decompress: Decompress) -> Self {
        Self {
            decompress,
            zstd: None,
            chunk: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// The event in a payload; the payload itself where it is not to be opened. An empty payload is an
    /// empty event.
    ///
    /// # Errors
    /// [`NotOpened`]; the payload is then to be passed on as it is, as a dead letter.
    pub fn open<'a>(
        &'a mut self,
        payload: &'a [u8],
        allowance: &mut Allowance,
    ) -> Result<&'a [u8], NotOpened> {
        let found = Kind::of(payload);
        let kind = match (self.decompress, found) {
            (Decompress::None, _) | (Decompress::Auto, None) => return Ok(payload),
            _ if payload.is_empty() => return Ok(payload),
            (Decompress::Auto, Some(kind)) => kind,
            (Decompress::Gzip, Some(Kind::Gzip)) => Kind::Gzip,
            (Decompress::Zstd, Some(Kind::Zstd)) => Kind::Zstd,
            (Decompress::Gzip, _) => return Err(NotOpened::Other("gzip")),
            (Decompress::Zstd, _) => return Err(NotOpened::Other("zstd")),
        };
        let limit = most_of(payload.len()).min(MAX_EVENT_BYTES).min(allowance.0);
        self.opened.clear();
        let done = match kind {
            Kind::Gzip => gunzip(payload, limit, &mut self.opened),
            Kind::Zstd => self.unzstd(payload, limit),
        };
        let damaged = |reason: std::io::Error| NotOpened::Damaged {
            kind: kind.name(),
            reason: reason.to_string(),
        };
        if !done.map_err(damaged)? {
            return Err(NotOpened::TooLarge {
                compressed: payload.len(),
                limit,
            });
        }
        allowance.0 -= self.opened.len();
        Ok(&self.opened)
    }

    /// Frames one after the other. False when there would be more than `limit` bytes.
    fn unzstd(&mut self, payload: &[u8], limit: usize) -> std::io::Result<bool> {
        let mut decoder = match self.zstd.take() {
            Some(mut decoder) => {
                decoder.reinit()?;
                decoder
            }
            None => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
                decoder
            }
        };
        self.chunk.resize(CHUNK_BYTES, 0);
        let mut input = InBuffer::around(payload);
        loop {
            let mut output = OutBuffer::around(self.chunk.as_mut_slice());
            // 0: a frame is over, and all of it is in the output.
            let wanted = decoder.run(&mut input, &mut output)?;
            let written = output.pos();
            if self.opened.len() + written > limit {
                return Ok(false);
            }
            self.opened.extend_from_slice(&self.chunk[..written]);
            if input.pos() < payload.len() || written == CHUNK_BYTES && wanted != 0 {
                continue;
            }
            if wanted != 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.zstd = Some(decoder);
            return Ok(true);
        }
    }
}

/// Members one after the other, each with its checksum. False when there would be more than `limit` bytes.
fn gunzip(payload: &[u8], limit: usize, opened: &mut Vec<u8>) -> std::io::Result<bool> {
    let decoder = MultiGzDecoder::new(payload);
    decoder.take(limit as u64 + 1).read_to_end(opened)?;
    Ok(opened.len() <= limit)
}

/// What so many bytes may be opened to.
fn most_of(compressed: usize) -> usize {
    compressed
        .saturating_mul(MAX_RATIO)
        .clamp(FREE_RATIO_BYTES, MAX_OPENED_RECORD_BYTES)
}

/// Where to cut an answer, so that what its pieces may be opened to, and taken apart into, is bounded: after so many
/// records.
#[must_use]
pub fn piece<'a>(decompress: Decompress, payloads: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut most = 0usize;
    let mut count = 0;
    for payload in payloads {
        most += match decompress {
            Decompress::None => 0,
            Decompress::Auto | Decompress::Gzip | Decompress::Zstd => most_of(payload.len()),
        };
        if is_aggregated(payload) {
            most += payload.len().saturating_mul(TAKEN_APART_RATIO);
        }
        if count > 0 && most > PIECE_BYTES {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
