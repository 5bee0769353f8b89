//! Deciding by origin keys which events of a stored batch were delivered before.
//!
//! Envelopes carry ordinals, not positions, event by event. Where a new numbering repeats old
//! events and the end of the repetition falls inside a batch, the stored records are read again
//! without transforms, and their keys tell.

use std::collections::BTreeMap;

use millpond_connector::topic::Offset;
use millpond_format::origin::Origin;
use millpond_format::sequence::Position;

/// Which ordinal of a batch is the first that lies beyond a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginQuestion {
    /// First offset of the stored batch.
    pub base_offset: Offset,
    /// Last offset of it.
    pub last_offset: Offset,
    /// Chain asked about.
    pub chain: BatchChain,
    /// The position.
    pub highest: Position,
}

/// A shard's numbering within one stored batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchChain {
    /// First offset of the batch.
    pub base_offset: Offset,
    /// Stream name.
    pub stream: String,
    /// Shard id.
    pub shard: String,
    /// Numbering.
    pub epoch: u64,
}

/// Answers so far: first ordinal beyond the position, per chain of a batch.
pub type Cutoffs = BTreeMap<BatchChain, u64>;

impl OriginQuestion {
    /// The answer from the record keys of the batch; `None` when no key lies beyond.
    #[must_use]
    pub fn answer<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
        let beyond = |key: &'a [u8]| {
            let origin = Origin::parse(key).ok()?;
            let here = origin.stream == self.chain.stream
                && origin.shard == self.chain.shard
                && origin.chain.epoch == self.chain.epoch;
            let order = self.highest.cmp_to(origin.sequence, origin.sub_sequence);
            (here && order.is_lt()).then_some(origin.chain.ordinal)
        };
        keys.into_iter().filter_map(beyond).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ordinal_beyond_the_position_of_that_chain() {
        let question = OriginQuestion {
            base_offset: 7,
            last_offset: 12,
            chain: BatchChain {
                base_offset: 7,
                stream: "s".into(),
                shard: "a".into(),
                epoch: 9,
            },
            highest: Position {
                sequence: "1005".into(),
                sub_sequence: 1,
            },
        };
        let keys = [
            "mp1/s/a/999/0/1/9.0/k",
            "mp1/s/b/2000/0/1/9.0/k",
            "mp1/s/a/1005/1/1/9.1/k",
            "no origin",
            "mp1/s/a/1005/2/1/9.2/k",
            "mp1/s/a/1006/0/1/9.3/k",
            "mp1/s/a/1007/0/1/8.1/k",
        ];
        assert_eq!(question.answer(keys.map(str::as_bytes)), Some(2));
        assert_eq!(
            question.answer(keys[..4].iter().map(|key| key.as_bytes())),
            None
        );
    }
}
