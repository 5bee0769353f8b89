//! Records of an answer as bytes that need not end with a whole batch.

use bytes::{Buf, BufMut, Bytes};
use fluvio_protocol::{Decoder, Encoder, Version};

/// A part of a log: a length, then that many bytes, as Fluvio's own record sets are encoded.
#[derive(Debug, Default, Clone)]
pub(super) struct LogSlice(pub(super) Bytes);

impl Encoder for LogSlice {
    fn write_size(&self, _version: Version) -> usize {
        4 + self.0.len()
    }

    fn encode<T: BufMut>(&self, dest: &mut T, _version: Version) -> std::io::Result<()> {
        dest.put_u32(u32::try_from(self.0.len()).map_err(std::io::Error::other)?);
        dest.put_slice(&self.0);
        Ok(())
    }
}

impl Decoder for LogSlice {
    fn decode<T: Buf>(&mut self, src: &mut T, _version: Version) -> std::io::Result<()> {
        let short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        if src.remaining() < 4 {
            return Err(short());
        }
        let len = src.get_u32() as usize;
        if src.remaining() < len {
            return Err(short());
        }
        self.0 = src.copy_to_bytes(len);
        Ok(())
    }
}
