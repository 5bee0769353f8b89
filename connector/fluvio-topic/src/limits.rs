//! Limits in one place.

use std::time::Duration;

/// Longest wait for a connection to be made and greeted.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for the answer to a request other than a produce.
pub const REQUEST: Duration = Duration::from_secs(20);

/// Longest that a leader may wait for its replicas before it answers a produce.
pub const COMMIT: Duration = Duration::from_secs(15);

/// Longest wait for the answer to a produce.
pub const PRODUCE: Duration = Duration::from_secs(30);

/// Waits between attempts to reach a leader.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// Answers that may be waiting in a stream: the server sends the next one only when told to.
pub const STREAM_QUEUE: usize = 2;

/// Bytes of an answer, unless the connector says otherwise: several packed batches of 1 MiB, and little
/// enough that a backlog does not take long to its first answer.
pub const ANSWER: u32 = 8 << 20;

/// Size of a topic's segments where the file says none (Fluvio's own default is 1 GiB). SmartModules
/// that leave little are given a whole segment before the SPU answers, and retention removes whole
/// segments, so they are kept small; a batch of Fluvio's largest size fits four times.
pub const SEGMENT: u64 = 128 << 20;

/// How much larger an answer is asked for when one batch did not fit. Few steps: each stream that is
/// opened has the SPU compile the SmartModules anew.
pub const ANSWER_GROWTH: u32 = 32;

/// Largest answer ever asked for: eight times the largest batch that Fluvio stores (32 MiB).
pub const LARGEST_ANSWER: u32 = 256 << 20;

/// A stream that brought nothing for so long is looked after.
pub const QUIET: Duration = Duration::from_millis(500);

/// How long SmartModules may be silent about what is there to read until the SPU is asked. The
/// question ends the stream, and the next one has the modules compiled anew: 1.7 CPU seconds for the
/// packer, so that an impatient reader would keep a busy SPU from everything else.
pub const MODULE_QUIET: Duration = Duration::from_secs(5);

/// Longest that other streams wait for one whose SmartModules an SPU compiles: when nothing is there to
/// read, no answer says that it has.
pub const COMPILING: Duration = Duration::from_secs(60);

/// The same where an SPU turned out to need longer.
pub const MODULE_QUIET_MAX: Duration = Duration::from_secs(60);

/// A stream with room for every output goes back to the usual room when a reader keeps it waiting
/// for so long: what piles up meanwhile would come in one answer.
pub const BACKLOG: Duration = Duration::from_secs(1);

/// Longest that an SPU may work on one answer, its SmartModules included.
pub const SILENCE: Duration = Duration::from_secs(120);

/// How long a SmartModule that an SPU does not know is looked for.
pub const MODULE_PATIENCE: Duration = Duration::from_millis(1500);

/// Bytes of stored batches looked at to see where they end.
pub const SURVEY: u32 = 1 << 20;
