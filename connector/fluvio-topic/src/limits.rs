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

/// How much larger an answer is asked for when one batch did not fit.
pub const ANSWER_GROWTH: u32 = 4;

/// Largest answer ever asked for: eight times the largest batch that Fluvio stores (32 MiB).
pub const LARGEST_ANSWER: u32 = 256 << 20;

/// A stream that brought nothing for so long is checked on.
pub const QUIET: Duration = Duration::from_millis(500);

/// Longest that an SPU may work on one answer, its SmartModules included.
pub const SILENCE: Duration = Duration::from_secs(120);

/// How long a SmartModule that an SPU does not know is looked for.
pub const MODULE_PATIENCE: Duration = Duration::from_millis(1500);

/// Bytes of stored batches looked at to see where they end.
pub const SURVEY: u32 = 1 << 20;
