//! The item decoder, for fuzz targets only.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_format::frame::FrameDecoder;

use crate::event::ItemKey;
use crate::item::{FRAMES, HEADER, StoredItem, read_item};
use crate::table::Attributes;

/// Reads an item of group `g` with these attributes, and every frame of it.
///
/// # Panics
/// When the decoder accepts what it must not.
pub fn item(sort_key: &str, header: &[u8], frames: &[u8]) {
    let binary = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    let attributes = Attributes::from([
        (HEADER.to_owned(), binary(header)),
        (FRAMES.to_owned(), binary(frames)),
    ]);
    let key = ItemKey {
        pk: "p/g#0".into(),
        sk: sort_key.into(),
    };
    let Ok(StoredItem::Packed(item)) = read_item(attributes, &key, "g", 0) else {
        return;
    };
    assert_eq!(item.header.group, "g");
    assert_eq!(item.header.packed_bytes(), frames.len());
    let Ok(mut decoder) = FrameDecoder::new() else {
        return;
    };
    for (info, range) in item.header.frame_ranges() {
        let Ok(frame) = decoder.decode(item.header.codec, info, &frames[range]) else {
            continue;
        };
        for event in &frame.events {
            assert!((event.source as usize) < item.header.sources.len());
            assert!(frame.value(event).len() <= frame.raw.len());
        }
    }
}
