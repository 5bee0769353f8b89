//! Limits of the platforms and of the format, in one place.

/// Largest DynamoDB item, attribute names included: 400 KB
/// (DynamoDB developer guide, "Quotas", read 2026-11-23).
pub const MAX_ITEM_BYTES: usize = 409_600;

/// Smallest `max-item-bytes` that still leaves room for keys, header and a frame.
pub const MIN_ITEM_BYTES: usize = 8_192;

/// Largest event: a Kinesis record of 10 MiB (Kinesis developer guide, "Quotas", read 2026-11-23).
pub const MAX_EVENT_BYTES: usize = 10 << 20;

/// Largest dictionary: the size that zstd trains by default, and far below an item's limit.
pub const MAX_DICTIONARY_BYTES: usize = 112 << 10;

/// Largest id of a dictionary: its row's sort key has so many digits.
pub const MAX_DICTIONARY_ID: u64 = 99_999;

/// Longest group key. A sort key of the directory must hold it with its suffix in
/// DynamoDB's 1,024 bytes, and a partition key with the pipeline name in 2,048.
pub const MAX_GROUP_BYTES: usize = 1_000;

/// Raw bytes after which a frame is closed. Smaller frames compress worse (16 KiB: ratio 4.6
/// where 64 KiB gives 5.5 on 550-byte JSON events), larger ones make small slices dearer.
pub const FRAME_TARGET_BYTES: usize = 64 << 10;

/// Largest raw frame that a decoder accepts: one event of up to 1 MiB, its columns,
/// and what stood in the frame before it.
pub const MAX_FRAME_BYTES: usize = (1 << 20) + 2 * FRAME_TARGET_BYTES;

/// Largest event that is kept in one frame; a larger one is split into parts.
pub const MAX_WHOLE_EVENT_BYTES: usize = 1 << 20;

/// Most frames of one envelope or item.
pub const MAX_FRAMES: usize = 65_536;

/// Most source ranges of one envelope or item.
pub const MAX_SOURCES: usize = 4_096;

/// Most parts of one event.
pub const MAX_PARTS: u32 = 16_384;

/// Longest header section.
pub const MAX_HEADER_BYTES: usize = 4 << 20;

/// Longest detail text of a rejected event.
pub const MAX_DETAIL_BYTES: usize = 1_024;

/// Longest record key kept with a rejected event.
pub const MAX_RECORD_KEY_BYTES: usize = 4_096;

/// Last event time that a sort key can hold: 9999-12-30T21:59:59.999Z, which every time zone
/// can show as a year of four digits.
pub const MAX_TIME_MS: i64 = 253_402_207_199_999;

/// Longest pipeline name.
pub const MAX_PIPELINE_BYTES: usize = 64;

/// Bytes of an item that a producer of envelopes leaves for what the sink adds besides the
/// group key: key and attribute names, pipeline, partition, sort key, counts, chain totals.
pub const ITEM_RESERVE_BYTES: usize = 1_024;

/// Shards that one ledger row can mark (1,000 shards and several generations of reshards): such
/// a row stays below an item's limit.
pub const MAX_MARKS: usize = 8_192;

/// Bytes of all gaps that one plan may pass over: with its marks the ledger row stays below an
/// item's limit.
pub const MAX_GAPS_BYTES: usize = 64 << 10;
