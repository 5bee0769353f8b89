//! A plan that is open, as its ledger row says it.

use millpond_connector::topic::Offset;
use millpond_format::gap::{Gap, list_text, parse_list};

use crate::marks::Marks;

/// A plan that was begun: everything in these offsets is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// First offset.
    pub from: Offset,
    /// End, exclusive.
    pub to: Offset,
    /// Fingerprint of the configuration that decides the bytes; without `/`.
    pub fingerprint: String,
    /// What the store's writer said of the plan, to make it again; without `/`.
    pub note: String,
    /// What is lost and was passed over: a replay passes over the same.
    pub gaps: Vec<Gap>,
    /// The marks that the plan moves, as they are after it: what is given up with it is known by them, and
    /// nobody writes it any more. `None` where the source sends it again, since the topic was lost with it.
    pub moved: Option<Marks>,
    /// Digest of the records that it is made of ([`digest`](crate::contiguity::digest)); `None` in rows of older versions.
    pub digest: Option<u64>,
}

impl Intent {
    /// True when nothing of the plan is written any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        matches!(self.gaps.as_slice(), [Gap::Plan { .. }])
    }

    /// First offset that a replay reads.
    pub(super) fn first_needed(&self) -> Offset {
        match self.gaps.first() {
            Some(Gap::Offsets { from, to }) if *from == self.from => *to,
            _ => self.from,
        }
    }

    /// Offsets that the plan passes over.
    #[must_use]
    pub fn holes(&self) -> Vec<std::ops::Range<Offset>> {
        let hole = |gap: &Gap| match gap {
            Gap::Offsets { from, to } => Some(*from..*to),
            Gap::Plan { .. } | Gap::Chain(_) => None,
        };
        self.gaps.iter().filter_map(hole).collect()
    }

    /// `<from>/<to>/<fingerprint>`, with a digest `#` and its 16 hexadecimal digits, with a note `*` and its text, with
    /// gaps `/` and theirs.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}/{}/{}", self.from, self.to, self.fingerprint);
        if let Some(digest) = self.digest {
            text.push_str(&format!("#{digest:016x}"));
        }
        if !self.note.is_empty() {
            text.push('*');
            text.push_str(&self.note);
        }
        if !self.gaps.is_empty() {
            text.push('/');
            text.push_str(&list_text(&self.gaps));
        }
        text
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, rest) = text.split_once('/')?;
        let (to, rest) = rest.split_once('/')?;
        let (fingerprint, gaps) = match rest.split_once('/') {
            None => (rest, Vec::new()),
            Some((fingerprint, gaps)) => (fingerprint, parse_list(gaps)?),
        };
        let (fingerprint, note) = fingerprint.split_once('*').unwrap_or((fingerprint, ""));
        let (fingerprint, digest) = match fingerprint.split_once('#') {
            None => (fingerprint, None),
            Some((fingerprint, digits)) => {
                (fingerprint, Some(u64::from_str_radix(digits, 16).ok()?))
            }
        };
        Some(Self {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            fingerprint: fingerprint.to_owned(),
            note: note.to_owned(),
            gaps,
            moved: None,
            digest,
        })
    }
}
