//! Rows with a checksum.

/// Appends the CRC-32C over key and row (four bytes, big endian), so that a row found under another key fails.
#[must_use]
pub fn seal(mut row: Vec<u8>, key: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &row);
    row.extend_from_slice(&crc.to_be_bytes());
    row
}

/// The row that was sealed under `key`; `None` when it is not that any more.
#[must_use]
pub fn unseal<'a>(row: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let (body, crc) = row.split_last_chunk::<4>()?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(key), body);
    (u32::from_be_bytes(*crc) == expected).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fails_on_any_flipped_bit_when_cut_and_under_another_key() {
        let row = seal(b"how far".to_vec(), b"a");
        assert_eq!(unseal(&row, b"a"), Some(&b"how far"[..]));
        assert_eq!(unseal(&row, b"b"), None);
        for cut in 0..row.len() {
            assert_eq!(unseal(&row[..cut], b"a"), None, "cut at {cut}");
        }
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&bad, b"a"), None, "bit {bit}");
        }
    }
}
