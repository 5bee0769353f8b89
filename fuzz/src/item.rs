//! Check of the reader's item decoder.

use millpond_reader::fuzzing;

/// An item: length of the sort key (one byte), sort key, length of the header section
/// (two bytes, little endian), header section, frames. Its header checksum is made right in a
/// second try, so that changed bytes reach what lies behind it.
pub fn item(bytes: &[u8]) {
    let Some((&sort_key_bytes, rest)) = bytes.split_first() else {
        return;
    };
    let Some((sort_key, rest)) = rest.split_at_checked(sort_key_bytes.into()) else {
        return;
    };
    let Some((header_bytes, rest)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let header_bytes = usize::from(u16::from_le_bytes(*header_bytes)).min(rest.len());
    let (header, frames) = rest.split_at(header_bytes);
    let sort_key = String::from_utf8_lossy(sort_key);
    fuzzing::item(&sort_key, header, frames);
    if let Some(body) = header.len().checked_sub(12) {
        let mut sealed = header.to_vec();
        sealed[..4].copy_from_slice(b"MPE\x01");
        sealed[4..8].copy_from_slice(&(body as u32).to_le_bytes());
        let crc = crc32c::crc32c(&sealed[..8 + body]);
        sealed[8 + body..].copy_from_slice(&crc.to_le_bytes());
        fuzzing::item(&sort_key, &sealed, frames);
    }
}
