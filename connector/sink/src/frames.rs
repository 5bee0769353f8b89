//! A walk over the frames of an envelope.

use millpond_format::error::DecodeError;
use millpond_format::frame::{DecodedFrame, FrameDecoder};
use millpond_format::header::Header;

/// Shows each frame, taken apart, in order.
///
/// # Errors
/// [`DecodeError`] when one is damaged; those before it were shown.
pub(crate) fn each_frame(
    decoder: &mut FrameDecoder,
    header: &Header,
    frames: &[u8],
    mut show: impl FnMut(&DecodedFrame),
) -> Result<(), DecodeError> {
    for (info, range) in header.frame_ranges() {
        let packed = frames.get(range).unwrap_or_default();
        show(&decoder.decode(header.codec, info, packed)?);
    }
    Ok(())
}
