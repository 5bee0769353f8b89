//! Checks of the format crate; each panics when its promise does not hold.

use millpond_format::frame::{DecodedFrame, FrameBuilder, FrameDecoder, FrameEncoder};
use millpond_format::header::{Codec, FrameInfo, Header};
use millpond_format::join::{Joiner, trim};
use millpond_format::keys::{self, SortKey};
use millpond_format::origin::Origin;
use millpond_format::record::{BatchBuilder, Records};
use millpond_format::{header, limits};

/// An envelope: header section, then frames. Also with its checksums made right, so that
/// changed bytes reach what lies behind them.
pub fn envelope(bytes: &[u8]) {
    one_envelope(bytes);
    if let Some(sealed) = seal(bytes) {
        one_envelope(&sealed);
    }
}

/// The envelope with body length and header checksum corrected; `None` for what is too short.
fn seal(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let declared = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let room = bytes.len().checked_sub(12)?;
    let body = declared.min(room);
    sealed[..3].copy_from_slice(&header::MAGIC);
    sealed[4..8].copy_from_slice(&u32::try_from(body).ok()?.to_le_bytes());
    let crc = crc32c::crc32c(&sealed[..8 + body]);
    sealed[8 + body..12 + body].copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}

fn one_envelope(bytes: &[u8]) {
    let Ok((mut header, length)) = Header::decode(bytes) else {
        return;
    };
    let mut again = Vec::new();
    header.encode(&mut again);
    assert_eq!(
        again,
        bytes[..length],
        "a decoded header encodes to its own bytes"
    );
    assert_eq!(header.encoded_len(), length);
    for cut in [0, 1, length / 2, length - 1] {
        assert!(
            Header::decode(&bytes[..cut]).is_err(),
            "a prefix is no header"
        );
    }
    let payload = &bytes[length..];
    if header.check_frames(payload).is_ok() {
        assert_eq!(header.packed_bytes(), payload.len());
    }
    // Frames one by one, their checksums made right.
    let mut start = 0usize;
    for info in &mut header.frames {
        let Some(packed) = payload.get(start..start + info.packed_bytes as usize) else {
            return;
        };
        start += packed.len();
        info.crc32c = crc32c::crc32c(packed);
    }
    let mut decoder = FrameDecoder::new().expect("a zstd context");
    for (info, range) in header.frame_ranges() {
        if let Ok(frame) = decoder.decode(header.codec, info, &payload[range]) {
            check_frame(&frame, info);
        }
    }
    let mut encoder = FrameEncoder::new(1).expect("a zstd context");
    if let Ok(Some((trimmed, frames))) = trim(
        &header,
        payload,
        &mut decoder,
        &mut encoder,
        |_, ordinal| ordinal % 2 == 0,
    ) {
        trimmed
            .check_frames(&frames)
            .expect("trimmed frames agree with their index");
    }
    let mut joiner = Joiner::new(header.clone());
    if joiner.try_push(&header, limits::MAX_ITEM_BYTES) {
        assert_eq!(joiner.header().frames.len(), 2 * header.frames.len());
    }
}

fn check_frame(frame: &DecodedFrame, info: &FrameInfo) {
    assert!(frame.raw.len() <= limits::MAX_FRAME_BYTES);
    let mut bytes = 0;
    for event in &frame.events {
        bytes += frame.value(event).len();
        assert!((info.first_time_ms..=info.last_time_ms).contains(&event.time_ms));
        assert!(info.sources.contains(&event.source));
    }
    assert!(bytes <= frame.raw.len());
}

/// A frame: flags (bit 0: zstd), number of sources, raw size (little endian), packed bytes.
pub fn frame(bytes: &[u8]) {
    let Some((&[flags, sources, a, b, c, d], packed)) = bytes.split_first_chunk::<6>() else {
        return;
    };
    let info = FrameInfo {
        packed_bytes: packed.len() as u32,
        raw_bytes: u32::from_le_bytes([a, b, c, d]),
        event_count: 0,
        event_bytes: 0,
        first_time_ms: 0,
        last_time_ms: limits::MAX_TIME_MS,
        crc32c: crc32c::crc32c(packed),
        sources: (0..u32::from(sources % 8)).collect(),
    };
    let codec = if flags & 1 == 1 {
        Codec::Zstd { dictionary: 0 }
    } else {
        Codec::Stored
    };
    let mut decoder = FrameDecoder::new().expect("a zstd context");
    let Ok(decoded) = decoder.decode(codec, &info, packed) else {
        return;
    };
    check_frame(&decoded, &info);
    // Packed anew, the events are the same: values, times, sources and ordinals.
    let mut builder = FrameBuilder::default();
    for event in &decoded.events {
        builder.push(
            decoded.value(event),
            event.time_ms,
            event.source,
            event.ordinal,
        );
    }
    let raw = builder.take();
    let (info, packed) = FrameEncoder::new(1)
        .and_then(|mut encoder| encoder.encode(raw))
        .expect("packs");
    if info.raw_bytes as usize > limits::MAX_FRAME_BYTES {
        return;
    }
    let again = decoder
        .decode(Codec::Zstd { dictionary: 0 }, &info, &packed)
        .expect("what was packed is read");
    let events = |frame: &DecodedFrame| -> Vec<_> {
        let events = frame.events.iter();
        events
            .map(|e| (frame.value(e).to_vec(), e.time_ms, e.source, e.ordinal))
            .collect()
    };
    assert_eq!(events(&decoded), events(&again));
}

/// An origin key, and the same bytes as each of the table's keys.
pub fn origin(bytes: &[u8]) {
    if let Ok(origin) = Origin::parse(bytes) {
        let mut again = String::new();
        origin.write_to(&mut again);
        assert_eq!(again.as_bytes(), bytes, "an origin has one text");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(key) = SortKey::parse(text) {
        assert_eq!(key.to_text(), text, "a sort key has one text");
    }
    if let Some(key) = keys::parse_chain_pk(text) {
        let again = keys::shard_pk(key.pipeline, key.group, key.partition, key.write_shard);
        assert_eq!(again, text, "a key of items has one text");
    }
    if let Some((group, partition, shard)) = keys::parse_directory_sk(text) {
        let again = keys::directory_sk(group, partition, shard);
        assert_eq!(again, text, "a key of the directory has one text");
    }
    if let Some(time_ms) = keys::parse_time(text) {
        assert_eq!(keys::parse_time(&keys::time_text(time_ms)), Some(time_ms));
    }
}

/// The records of a stored batch.
pub fn records(bytes: &[u8]) {
    let Ok(records) = Records::new(bytes) else {
        return;
    };
    let declared = records.declared_count() as usize;
    // No more items than bytes, whatever the count says; one error at most, and it is the last.
    let mut read = Vec::new();
    let mut failed = false;
    for record in records {
        assert!(!failed, "nothing follows an error");
        match record {
            Ok(record) => read.push(record),
            Err(_) => failed = true,
        }
    }
    assert!(read.len() <= bytes.len());
    if failed {
        return;
    }
    assert_eq!(read.len(), declared);
    let mut batch = BatchBuilder::new();
    for record in &read {
        batch.push(record.key, record.value, record.timestamp_delta_ms);
    }
    let raw = batch.finish();
    let again: Result<Vec<_>, _> = Records::new(&raw).and_then(Iterator::collect);
    let pairs = |records: &[millpond_format::record::Record<'_>]| -> Vec<_> {
        let records = records.iter();
        records
            .map(|r| (r.key.map(<[u8]>::to_vec), r.value.to_vec()))
            .collect()
    };
    assert_eq!(
        pairs(&again.expect("what was written is read")),
        pairs(&read)
    );
}
