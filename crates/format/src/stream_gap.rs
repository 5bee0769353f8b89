//! Events that a stream removed before they were read, as a record of the topic.
//!
//! A source that goes on after such a loss puts one record with this key into the topic:
//!
//! `mp1/<stream>/<shard>/gap/<after>/<before>/<from ms>/<to ms>/<kind>`
//!
//! It claims to be an origin and is none, so every packer and sink, older ones too, keeps it as a
//! dead letter, and the loss is recorded where the events are.

use std::fmt;

use crate::origin::{MAX_SHARD_ID_BYTES, MAX_STREAM_NAME_BYTES, ORIGIN_VERSION};
use crate::sequence::SequenceNumber;

/// Fourth segment of the key, where an origin has its sequence number.
const GAP: &str = "gap";

/// A field that nothing is known of.
const UNKNOWN: &str = "-";

/// How the loss was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamGapKind {
    /// What was unread may be older than the stream keeps it: events may be lost.
    Expired,
    /// The record that was to be read next is gone.
    Missing,
    /// The shard left the stream before it was read to its end.
    Gone,
    /// The shard was closed and removed before it was ever heard of; a child named it.
    Unseen,
}

impl StreamGapKind {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Expired, "expired"),
        (Self::Missing, "missing"),
        (Self::Gone, "gone"),
        (Self::Unseen, "unseen"),
    ];

    /// Stable name, as in the key.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(kind, _)| *kind == self);
        found.map_or("unknown", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| *kind)
    }
}

/// Events of one shard that are lost, with their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamGap {
    /// Stream name.
    pub stream: String,
    /// Shard id.
    pub shard: String,
    /// Sequence number of the last record before the gap; `None` where nothing of the shard was read.
    pub after: Option<String>,
    /// Sequence number of the first record after it; `None` where none was left.
    pub before: Option<String>,
    /// What is lost arrived at this time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// What is lost arrived at this time or earlier, milliseconds since the Unix epoch.
    pub to_ms: Option<i64>,
    /// How it was noticed.
    pub kind: StreamGapKind,
}

impl StreamGap {
    /// The record key.
    #[must_use]
    pub fn key(&self) -> String {
        let time = |ms: Option<i64>| ms.map_or(UNKNOWN.to_owned(), |ms| ms.to_string());
        format!(
            "{ORIGIN_VERSION}/{}/{}/{GAP}/{}/{}/{}/{}/{}",
            self.stream,
            self.shard,
            self.after.as_deref().unwrap_or(UNKNOWN),
            self.before.as_deref().unwrap_or(UNKNOWN),
            time(self.from_ms),
            time(self.to_ms),
            self.kind.name()
        )
    }

    /// Reads a record key; `None` for any that [`StreamGap::key`] would not write.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(key).ok()?.split('/');
        if fields.next()? != ORIGIN_VERSION {
            return None;
        }
        let named = |text: &str, most: usize| (1..=most).contains(&text.len());
        let stream = fields
            .next()
            .filter(|name| named(name, MAX_STREAM_NAME_BYTES))?;
        let shard = fields.next().filter(|id| named(id, MAX_SHARD_ID_BYTES))?;
        if fields.next()? != GAP {
            return None;
        }
        let (after, before) = (sequence(fields.next()?)?, sequence(fields.next()?)?);
        let (from_ms, to_ms) = (time(fields.next()?)?, time(fields.next()?)?);
        let gap = Self {
            stream: stream.to_owned(),
            shard: shard.to_owned(),
            after,
            before,
            from_ms,
            to_ms,
            kind: StreamGapKind::from_name(fields.next()?)?,
        };
        let is_whole = fields.next().is_none() && gap.key().as_bytes() == key;
        is_whole.then_some(gap)
    }
}

fn sequence(text: &str) -> Option<Option<String>> {
    if text == UNKNOWN {
        return Some(None);
    }
    SequenceNumber::parse(text).map(|number| Some(number.as_str().to_owned()))
}

fn time(text: &str) -> Option<Option<i64>> {
    if text == UNKNOWN {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

impl fmt::Display for StreamGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StreamGapKind::Expired => "events may be lost to the stream's retention",
            StreamGapKind::Missing => "events are lost to the stream's retention",
            StreamGapKind::Gone => {
                "it left the stream before it was read to its end, events may be lost"
            }
            StreamGapKind::Unseen => {
                "it was closed and left the stream before it was ever read, events may be lost"
            }
        };
        write!(
            f,
            "shard `{}` of stream `{}`: {what}, after ",
            self.shard, self.stream
        )?;
        match &self.after {
            Some(sequence) => write!(f, "record {sequence}")?,
            None => f.write_str("its start")?,
        }
        match &self.before {
            Some(sequence) => write!(f, " and before record {sequence}")?,
            None => f.write_str(", nothing of them is left")?,
        }
        let time = |ms: Option<i64>| ms.map_or("unknown".to_owned(), |ms| format!("{ms} ms"));
        write!(
            f,
            " (arrived from {} to {} since 1970)",
            time(self.from_ms),
            time(self.to_ms)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;

    fn gap() -> StreamGap {
        StreamGap {
            stream: "events".into(),
            shard: "shardId-000000000003".into(),
            after: Some("4959".into()),
            before: Some("4970".into()),
            from_ms: Some(1_763_880_000_000),
            to_ms: Some(1_763_886_000_000),
            kind: StreamGapKind::Expired,
        }
    }

    #[test]
    fn a_gap_survives_its_key_and_is_no_origin() {
        let key = gap().key();
        assert_eq!(
            key,
            "mp1/events/shardId-000000000003/gap/4959/4970/1763880000000/1763886000000/expired"
        );
        let mut gaps = vec![gap()];
        for (kind, _) in StreamGapKind::ALL {
            gaps.push(StreamGap {
                after: None,
                before: None,
                from_ms: None,
                to_ms: None,
                kind,
                ..gap()
            });
        }
        for gap in gaps {
            let key = gap.key();
            assert_eq!(StreamGap::parse(key.as_bytes()), Some(gap), "{key}");
            assert!(Origin::parse(key.as_bytes()).is_err(), "{key}");
        }
    }

    #[test]
    fn what_is_no_gap_is_refused() {
        let key = gap().key();
        for end in 0..key.len() {
            assert_eq!(StreamGap::parse(&key.as_bytes()[..end]), None, "{end}");
        }
        for (from, to) in [
            ("mp1", "mp2"),
            ("/gap/", "/4958/"),
            ("4959", "04959"),
            ("1763880000000", "+1763880000000"),
            ("expired", "other"),
            ("expired", "expired/"),
        ] {
            let bad = key.replacen(from, to, 1);
            assert_eq!(StreamGap::parse(bad.as_bytes()), None, "{bad}");
        }
        let origin = "mp1/events/shardId-000000000003/49/0/17/1.4/k";
        assert_eq!(StreamGap::parse(origin.as_bytes()), None);
    }
}
