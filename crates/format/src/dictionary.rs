//! What the events of small items have in common: a zstd dictionary, stored once beside the items that name it.

use zstd::zstd_safe::DDict;

use crate::error::DecodeError;
use crate::limits;

/// Four bytes that every zstd dictionary begins with (RFC 8878, section 5).
const MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// A dictionary that frames may be compressed with; to be shared, not copied.
pub struct Dictionary {
    id: u64,
    bytes: Vec<u8>,
    prepared: DDict<'static>,
}

impl Dictionary {
    /// A dictionary under its id, 1 to [`limits::MAX_DICTIONARY_ID`].
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are no zstd dictionary, or over a limit.
    pub fn new(id: u64, bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let limit = |what, value, limit| match value > limit {
            true => Err(DecodeError::OverLimit { what, value, limit }),
            false => Ok(()),
        };
        limit("dictionary id", id, limits::MAX_DICTIONARY_ID)?;
        let most = limits::MAX_DICTIONARY_BYTES as u64;
        limit("dictionary size", bytes.len() as u64, most)?;
        let corrupt = DecodeError::Corrupt { what: "dictionary" };
        if id == 0 || !bytes.starts_with(&MAGIC) {
            return Err(corrupt);
        }
        let prepared = DDict::try_create(&bytes).ok_or(corrupt)?;
        Ok(Self {
            id,
            bytes,
            prepared,
        })
    }

    /// The same, once its checksum is that of the bytes.
    ///
    /// # Errors
    /// As [`Dictionary::new`], and [`DecodeError::ChecksumMismatch`].
    pub fn checked(id: u64, bytes: Vec<u8>, stored: u32) -> Result<Self, DecodeError> {
        let computed = crc32c::crc32c(&bytes);
        if computed != stored {
            return Err(DecodeError::ChecksumMismatch {
                what: "dictionary",
                stored,
                computed,
            });
        }
        Self::new(id, bytes)
    }

    /// Its id within the pipeline.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// CRC-32C of its bytes.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        crc32c::crc32c(&self.bytes)
    }

    pub(crate) fn prepared(&self) -> &DDict<'static> {
        &self.prepared
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary")
            .field("id", &self.id)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
