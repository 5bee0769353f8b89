//! Names of objects: functions of the pipeline and of where the events come from, nothing else.
//!
//! ```text
//! <prefix>/<pipeline>/group=<group>/date=<YYYY-MM-DD>/hour=<HH>/<topic partition>-<offset>-<envelope>-<event>.<extension>
//! <prefix>/<pipeline>/_millpond/pipeline.json
//! <prefix>/<pipeline>/_millpond/ledger/<topic>/<topic partition>.json
//! <prefix>/<pipeline>/_millpond/dead-letters/<topic>/<topic partition>/<offset>/<index>.json
//! <prefix>/_millpond/pipelines/<topic>.json
//! ```
//!
//! The file name is the position of the object's first event, so no two objects of a pipeline
//! share one, whatever becomes of the folders before it.

use std::fmt::Write as _;

use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::keys::time_text;
use xxhash_rust::xxh3::xxh3_128;

use crate::limits::MAX_SEGMENT_BYTES;

/// Folder of what is no data; query engines pass over names that begin with `_`.
const OWN_FOLDER: &str = "_millpond";

/// Marks a segment that was cut and ends with a hash; never left bare in one that was not.
const CUT: char = '~';

/// Hexadecimal digits of the hash.
const HASH_DIGITS: usize = 32;

const HOUR_MS: i64 = 3_600_000;

/// Place of an event among all of its topic partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    /// Offset of the record, or first offset of the stored batch.
    pub offset: Offset,
    /// Index of the envelope among those of its batch; 0 for a plain record.
    pub envelope: u32,
    /// Number of the event in the envelope; 0 for a plain record and for an event in parts.
    pub event: u64,
}

/// Hour that an event time is in, counted from the Unix epoch.
#[must_use]
pub fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOUR_MS)
}

/// The names of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    root: String,
    /// Of all pipelines.
    shared: String,
}

impl Names {
    /// Names below `prefix`, which may be empty.
    #[must_use]
    pub fn new(prefix: &str, pipeline: &str) -> Self {
        let below = |name: &str| match prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        Self {
            root: below(pipeline),
            shared: below(OWN_FOLDER),
        }
    }

    /// The list of the pipelines that a topic feeds.
    #[must_use]
    pub fn pipelines(&self, topic: &str) -> String {
        format!("{}/pipelines/{}.json", self.shared, segment(topic))
    }

    /// The folder of all that is the pipeline's.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Where the first event of an object comes from; `None` for the name of anything else.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<(PartitionId, Offset)> {
        let below = name.strip_prefix(self.root.as_str())?.strip_prefix('/')?;
        if !below.starts_with("group=") {
            return None;
        }
        let (_, file) = below.rsplit_once('/')?;
        let (place, _) = file.split_once('.')?;
        let mut numbers = place.split('-').map(|digits| digits.parse::<u64>().ok());
        let (partition, offset) = (numbers.next()??, numbers.next()??);
        let is_whole = numbers.next()?.is_some() && numbers.next()?.is_some();
        let is_last = numbers.next().is_none();
        let partition = PartitionId::try_from(partition).ok()?;
        (is_whole && is_last).then_some((partition, offset))
    }

    /// The registration of the pipeline.
    #[must_use]
    pub fn registration(&self) -> String {
        format!("{}/{OWN_FOLDER}/pipeline.json", self.root)
    }

    /// The ledger of a topic partition.
    #[must_use]
    pub fn ledger(&self, topic: &str, partition: PartitionId) -> String {
        let topic = segment(topic);
        format!(
            "{}/{OWN_FOLDER}/ledger/{topic}/{partition:05}.json",
            self.root
        )
    }

    /// The gaps of a topic partition.
    #[must_use]
    pub fn gaps(&self, topic: &str, partition: PartitionId) -> String {
        let topic = segment(topic);
        format!(
            "{}/{OWN_FOLDER}/gaps/{topic}/{partition:05}.json",
            self.root
        )
    }

    /// A dead letter, by its id without the pipeline.
    #[must_use]
    pub fn dead_letter(&self, id: &str) -> String {
        let id = id.split_once('/').map_or(id, |(_, rest)| rest);
        let parts: Vec<String> = id.split('/').map(segment).collect();
        format!(
            "{}/{OWN_FOLDER}/dead-letters/{}.json",
            self.root,
            parts.join("/")
        )
    }

    /// An object of a group's events of one hour, by its first event.
    #[must_use]
    pub fn object(
        &self,
        group: &str,
        hour: i64,
        partition: PartitionId,
        first: EventPlace,
        extension: &str,
    ) -> String {
        let time = time_text(hour.saturating_mul(HOUR_MS));
        let (date, hour) = (&time[..10], &time[11..13]);
        let EventPlace {
            offset,
            envelope,
            event,
        } = first;
        format!(
            "{}/group={}/date={date}/hour={hour}/{partition:05}-{offset:019}-{envelope:05}-{event:07}.{extension}",
            self.root,
            segment(group)
        )
    }
}

/// Text as one segment of a name: all but `A-Z a-z 0-9 . _ -` as `%XX`, as Hive does it, and cut
/// at [`MAX_SEGMENT_BYTES`] with a hash of the whole in place of the rest.
#[must_use]
pub fn segment(text: &str) -> String {
    let is_dots = text.bytes().all(|byte| byte == b'.');
    let mut out = String::with_capacity(text.len());
    let mut cut_at = 0;
    for byte in text.bytes() {
        if out.len() < MAX_SEGMENT_BYTES - HASH_DIGITS {
            cut_at = out.len();
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && !is_dots)
        {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() > MAX_SEGMENT_BYTES {
        out.truncate(cut_at);
        let _ = write!(out, "{CUT}{:032x}", xxh3_128(text.as_bytes()));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{MAX_NAME_BYTES, MAX_PREFIX_BYTES};

    const FIRST: EventPlace = EventPlace {
        offset: 42,
        envelope: 3,
        event: 17,
    };

    #[test]
    fn names_say_where_the_events_come_from() {
        let names = Names::new("lake/events", "p");
        assert_eq!(
            names.object("job/17 ü", hour_of(1_763_886_000_123), 4, FIRST, "parquet"),
            "lake/events/p/group=job%2F17%20%C3%BC/date=2025-11-23/hour=08/\
             00004-0000000000000000042-00003-0000017.parquet"
        );
        assert_eq!(
            Names::new("", "p").ledger("events", 7),
            "p/_millpond/ledger/events/00007.json"
        );
        assert_eq!(
            names.dead_letter("p/events/0/42/3/17"),
            "lake/events/p/_millpond/dead-letters/events/0/42/3/17.json"
        );
        assert_eq!(
            names.registration(),
            "lake/events/p/_millpond/pipeline.json"
        );
        assert_eq!((hour_of(0), hour_of(-1), hour_of(HOUR_MS)), (0, -1, 1));
        assert_eq!(
            (segment("."), segment("..")),
            ("%2E".into(), "%2E%2E".into())
        );
    }

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_one() {
        for names in [Names::new("", "p"), Names::new("lake", "p")] {
            let name = names.object("a/b.c-d", 17, 4, FIRST, "ndjson.zst");
            assert_eq!(names.place(&name), Some((4, 42)));
            let root = names.root().to_owned();
            for other in [
                names.ledger("events", 4),
                names.dead_letter("p/events/0/42/3/17"),
                names.registration(),
                names.pipelines("events"),
                Names::new("", "q").object("g", 17, 4, FIRST, "x"),
                format!("{root}/group=g/00004-0000000000000000042.x"),
                format!("{root}/group=g/00004-42-3-17-1.x"),
                format!("{root}/group=g/theirs.csv"),
                format!("{root}/theirs/00004-42-3-17.x"),
            ] {
                assert_eq!(names.place(&other), None, "{other}");
            }
        }
    }

    #[test]
    fn the_longest_name_fits() {
        let names = Names::new(&"x".repeat(MAX_PREFIX_BYTES), &"p".repeat(64));
        let first = EventPlace {
            offset: u64::MAX,
            envelope: u32::MAX,
            event: u64::MAX,
        };
        let name = names.object(&"ü".repeat(500), i64::MAX, u32::MAX, first, "ndjson.zst");
        assert!(name.len() <= MAX_NAME_BYTES, "{}", name.len());
        assert!(name.split('/').skip(1).all(|segment| segment.len() < 240));
    }

    #[test]
    fn long_groups_that_differ_in_their_ends_do_not_meet() {
        let groups: Vec<String> = (0..500)
            .map(|n| format!("{}{n}", "ü".repeat(100)))
            .collect();
        let names: BTreeSet<String> = groups.iter().map(|group| segment(group)).collect();
        assert_eq!(names.len(), groups.len());
    }

    proptest! {
        #[test]
        fn a_segment_is_one_and_tells_its_text(text in any::<String>()) {
            let segment = segment(&text);
            prop_assert!(segment.len() <= MAX_SEGMENT_BYTES);
            prop_assert!(segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\#?".contains(&byte)));
            prop_assert!(segment != "." && segment != "..");
            if !segment.contains(CUT) {
                let mut bytes = Vec::new();
                let mut rest = segment.as_bytes();
                while let Some((first, tail)) = rest.split_first() {
                    if *first == b'%' {
                        let digits = std::str::from_utf8(&tail[..2]).expect("digits");
                        bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                        rest = &tail[2..];
                    } else {
                        bytes.push(*first);
                        rest = tail;
                    }
                }
                prop_assert_eq!(bytes, text.into_bytes());
            }
        }

        #[test]
        fn positions_in_order_are_names_in_order(
            offset in 0..1_000_000_000_000_u64, envelope in 0..99_999_u32, event in 0..9_999_999_u64,
            step in 0..3_u8,
        ) {
            let one = EventPlace { offset, envelope, event };
            let next = match step {
                0 => EventPlace { offset: offset + 1, envelope: 0, event: 0 },
                1 => EventPlace { envelope: envelope + 1, event: 0, ..one },
                _ => EventPlace { event: event + 1, ..one },
            };
            let names = Names::new("", "p");
            let name = |place| names.object("g", 1, 0, place, "x");
            prop_assert!(one < next && name(one) < name(next));
        }
    }
}
