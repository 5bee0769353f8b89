//! Why bytes are not what they should be.

use crate::varint::VarintError;

/// A failed check while decoding an envelope, an item or a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("truncated in {what}")]
    Truncated {
        /// The part that is cut.
        what: &'static str,
    },
    /// The bytes are no envelope at all.
    #[error("not an envelope: it does not start with `MPE`")]
    BadMagic,
    /// Written by a later version of the format.
    #[error(
        "envelope version {found} is newer than {known}, the newest known here; upgrade Millpond"
    )]
    NewerVersion {
        /// Version found.
        found: u8,
        /// Newest version that this build reads.
        known: u8,
    },
    /// A checksum does not match: the bytes were changed.
    #[error("checksum mismatch in {what}: stored {stored:08x}, computed {computed:08x}")]
    ChecksumMismatch {
        /// The part that was checked.
        what: &'static str,
        /// Checksum that is written.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// A declared size or count is over its limit.
    #[error("{what} is {value}, over the limit of {limit}")]
    OverLimit {
        /// The size or count.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Its limit.
        limit: u64,
    },
    /// The bytes contradict themselves.
    #[error("corrupt {what}")]
    Corrupt {
        /// The contradictory part.
        what: &'static str,
    },
    /// A frame needs a dictionary that was not given.
    #[error("frame was compressed with dictionary {id}, which is not at hand")]
    UnknownDictionary {
        /// Dictionary id.
        id: u64,
    },
}

/// Reads primitive values off a byte slice, naming what is read in every error.
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A varint in its shortest form: another one would be a second encoding of the same value.
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let before = self.rest.len();
        let value =
            crate::varint::take(&mut self.rest).map_err(|error| varint_error(error, what))?;
        if before - self.rest.len() != crate::varint::size(value) {
            return Err(DecodeError::Corrupt { what });
        }
        Ok(value)
    }

    /// A zigzag varint in its shortest form.
    pub(crate) fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let value = self.varint(what)?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    /// A varint that must not exceed `limit`.
    pub(crate) fn bounded(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<usize, DecodeError> {
        let value = self.varint(what)?;
        match usize::try_from(value) {
            Ok(small) if small <= limit => Ok(small),
            _ => Err(DecodeError::OverLimit {
                what,
                value,
                limit: limit as u64,
            }),
        }
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self
            .rest
            .split_first()
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    pub(crate) fn slice(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (slice, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(slice)
    }

    /// Length-prefixed bytes of at most `limit`.
    pub(crate) fn bytes(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let length = self.bounded(what, limit)?;
        self.slice(length, what)
    }

    /// Length-prefixed UTF-8 text of at most `limit` bytes.
    pub(crate) fn text(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(what, limit)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Corrupt { what })
    }
}

fn varint_error(error: VarintError, what: &'static str) -> DecodeError {
    match error {
        VarintError::Truncated => DecodeError::Truncated { what },
        VarintError::Overflow => DecodeError::Corrupt { what },
    }
}
