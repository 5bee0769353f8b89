//! Which topic the offsets of a ledger belong to.

use millpond_connector::topic::OffsetBounds;

/// The log that a ledger counts in.
///
/// Offsets of a ledger, and all that follows from them (sort keys, ids of dead letters), only rise. Those of a topic
/// that was made anew begin at 0 again, so they are shifted, and nothing is ever named twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// [`Topic::identity`](millpond_connector::topic::Topic::identity) of the topic; empty where nothing was known.
    pub identity: String,
    /// An offset of the ledger minus the same one of the topic.
    pub shift: u64,
}

impl Log {
    /// Bounds of the topic as offsets of the ledger.
    #[must_use]
    pub fn shifted(&self, bounds: OffsetBounds) -> OffsetBounds {
        OffsetBounds {
            earliest: bounds.earliest.saturating_add(self.shift),
            end: bounds.end.saturating_add(self.shift),
        }
    }

    /// `<shift>/<identity>`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}/{}", self.shift, self.identity)
    }

    /// Reads what [`Self::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (shift, identity) = text.split_once('/')?;
        Some(Self {
            identity: identity.to_owned(),
            shift: shift.parse().ok()?,
        })
    }
}
