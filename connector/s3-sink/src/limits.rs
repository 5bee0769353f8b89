//! Limits of the bucket and of the calls to it, in one place.

use std::time::Duration;

/// Longest name of an object (S3 user guide, "Naming Amazon S3 objects": 1,024 bytes of UTF-8,
/// read 2026-11-23).
pub const MAX_NAME_BYTES: usize = 1_024;

/// Longest prefix of the `url`: leaves room for pipeline, group, hour and position.
pub const MAX_PREFIX_BYTES: usize = 512;

/// Longest segment of a name that is made of text of the user's. A file name has 255 bytes at
/// most, and the segment may be preceded by `group=` and followed by the suffix of a temporary file.
pub const MAX_SEGMENT_BYTES: usize = 200;

/// Objects of one group that are open at one time: one for each hour that its events are of.
/// The one that was used least recently is closed for another.
pub const MAX_OPEN_OBJECTS: usize = 4;

/// Uploads of one topic partition that are under way at one time.
pub const MAX_IN_FLIGHT_PUTS: usize = 4;

/// Dead letters that are put at one time.
pub const MAX_IN_FLIGHT_LETTERS: usize = 16;

/// Objects that are deleted at one time.
pub const MAX_IN_FLIGHT_DELETES: usize = 16;

/// Bytes of events that make a row group of a Parquet object: they are held until it is written.
pub const ROW_GROUP_BYTES: usize = 8 << 20;

/// Times that the list of pipelines is read and written again, because another sink wrote it meanwhile.
pub const ENLIST_ATTEMPTS: u32 = 20;

/// Rows that make a row group: bounds what small events take besides their bytes.
pub const ROW_GROUP_ROWS: usize = 100_000;

/// Largest ledger or registration that is read; marks of 8,192 shards take a quarter of it.
pub const MAX_STATE_BYTES: u64 = 4 << 20;

/// Most of an answer that is read: a page of a list or a ledger.
pub const MAX_ANSWER_BYTES: usize = 8 << 20;

/// A request whose signature is older is refused, and so is one that is from further in the future (S3 user guide,
/// "Authenticating Requests": "within 15 minutes of the AWS system time"; error `RequestTimeTooSkewed`; read 2026-11-26).
pub const SIGNATURE_LIFE: Duration = Duration::from_secs(15 * 60);

/// A call that is not finished by then, object sent and answer read, counts as failed.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);
