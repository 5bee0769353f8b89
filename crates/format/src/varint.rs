//! Variable-length integers: LEB128, and zigzag for signed values.
//!
//! The same encoding as Protocol Buffers, and as Fluvio's record fields.

/// Longest encoding of a `u64`.
pub const MAX_VARINT_BYTES: usize = 10;

/// Why a varint could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The input ends inside the number.
    Truncated,
    /// More than ten bytes, or bits above the 64th.
    Overflow,
}

/// Appends `value` as LEB128.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag-encoded.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bytes that [`put`] would write.
#[must_use]
pub const fn size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Bytes that [`put_signed`] would write.
#[must_use]
pub const fn size_signed(value: i64) -> usize {
    size(((value << 1) ^ (value >> 63)) as u64)
}

/// Reads one LEB128 number from the front of `input`.
#[inline]
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, VarintError> {
    // Most numbers have one byte.
    match **input {
        [byte, ref rest @ ..] if byte < 0x80 => {
            *input = rest;
            Ok(byte.into())
        }
        _ => take_long(input),
    }
}

fn take_long(input: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate().take(MAX_VARINT_BYTES) {
        if index == MAX_VARINT_BYTES - 1 && byte > 1 {
            return Err(VarintError::Overflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(if input.len() < MAX_VARINT_BYTES {
        VarintError::Truncated
    } else {
        VarintError::Overflow
    })
}

/// Reads one zigzag-encoded number from the front of `input`.
#[inline]
pub(crate) fn take_signed(input: &mut &[u8]) -> Result<i64, VarintError> {
    let value = take(input)?;
    Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_survives_and_every_prefix_is_truncated() {
        for shift in 0..64 {
            for value in [
                1u64 << shift,
                (1u64 << shift).wrapping_sub(1),
                u64::MAX >> shift,
            ] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), size(value), "{value}");
                assert_eq!(take(&mut bytes.as_slice()), Ok(value));
                for cut in 0..bytes.len() {
                    assert_eq!(take(&mut &bytes[..cut]), Err(VarintError::Truncated));
                }
                let signed = value as i64;
                let mut bytes = Vec::new();
                put_signed(&mut bytes, signed);
                assert_eq!(bytes.len(), size_signed(signed));
                assert_eq!(take_signed(&mut bytes.as_slice()), Ok(signed));
            }
        }
    }

    #[test]
    fn an_eleventh_byte_or_a_65th_bit_is_an_overflow() {
        assert_eq!(take(&mut [0xff; 11].as_slice()), Err(VarintError::Overflow));
        let mut too_wide = [0x80; 10];
        too_wide[9] = 2;
        assert_eq!(take(&mut too_wide.as_slice()), Err(VarintError::Overflow));
    }
}
