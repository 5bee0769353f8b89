//! Frames of `application/vnd.amazon.eventstream`.
//!
//! Layout (AWS, "Amazon Event Stream Specification" of Smithy, read 2026-11-26), big endian: length of the frame, length of the headers, CRC-32 of
//! those eight bytes; headers; payload; CRC-32 of all before it. A header is the length of its name, the name, its
//! type, and for text (type 7) a length and the text.

use bytes::Bytes;

const PRELUDE_BYTES: usize = 12;
const CHECK_BYTES: usize = 4;
const TEXT: u8 = 7;

/// The first frame of an answer: the operation has begun.
pub(super) fn initial_response() -> Bytes {
    frame(
        &[
            (":message-type", "event"),
            (":event-type", "initial-response"),
            (":content-type", "application/x-amz-json-1.1"),
        ],
        b"{}",
    )
}

/// An event of a subscription.
pub(super) fn event(payload: &[u8]) -> Bytes {
    frame(
        &[
            (":message-type", "event"),
            (":event-type", "SubscribeToShardEvent"),
            (":content-type", "application/json"),
        ],
        payload,
    )
}

/// An exception that ends a subscription.
pub(super) fn exception(name: &str, message: &str) -> Bytes {
    let payload = serde_json::json!({ "message": message }).to_string();
    frame(
        &[
            (":message-type", "exception"),
            (":exception-type", name),
            (":content-type", "application/json"),
        ],
        payload.as_bytes(),
    )
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut head = Vec::new();
    for (name, value) in headers {
        // Names and values are those above, and names of exceptions: all short.
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let length = PRELUDE_BYTES + head.len() + payload.len() + CHECK_BYTES;
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    frame.extend_from_slice(&(head.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksums were computed with Python's `zlib.crc32`.
    #[test]
    fn a_frame_byte_for_byte() {
        let frame = frame(&[("a", "bc")], b"payload");
        let mut expected = vec![0, 0, 0, 30, 0, 0, 0, 7];
        expected.extend_from_slice(&PRELUDE_CRC.to_be_bytes());
        expected.extend_from_slice(b"\x01a\x07\x00\x02bcpayload");
        expected.extend_from_slice(&FRAME_CRC.to_be_bytes());
        assert_eq!(&frame[..], &expected[..]);
    }

    const PRELUDE_CRC: u32 = 0x2496_6329;
    const FRAME_CRC: u32 = 0x765c_7848;
}
