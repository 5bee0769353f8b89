//! Gaps: events that were lost before they could be written, with their bounds.
//!
//! As text, one after the other with `;` between them; fields are separated by `/`:
//! `offsets/<from>/<to>`, `plan/<from>/<to>`, and
//! `chain/<stream>/<shard>/<epoch>/<first>/<last>/<missing>/<before>/<after>/<offset>`.

use std::fmt;

use crate::sequence::{Position, SequenceNumber};

/// Events that are lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Gap {
    /// Records that the topic held and does not hold any more, before anything of them was written.
    Offsets {
        /// First offset.
        from: u64,
        /// End, exclusive.
        to: u64,
    },
    /// A plan that was being written when the topic lost some of its records: part of its events
    /// may be in the table, none is there twice.
    Plan {
        /// First offset.
        from: u64,
        /// End, exclusive.
        to: u64,
    },
    /// Ordinals of a shard that the topic never held, or that went with offsets.
    Chain(Box<ChainGap>),
}

/// Missing ordinals of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainGap {
    /// Stream name.
    pub stream: String,
    /// Shard id.
    pub shard: String,
    /// Numbering.
    pub epoch: u64,
    /// First ordinal that may be missing.
    pub first: u64,
    /// Last ordinal that may be missing.
    pub last: u64,
    /// How many of them are.
    pub missing: u64,
    /// Position of the last event before; `None` at the start of a shard.
    pub before: Option<Position>,
    /// Position of the first event after.
    pub after: Position,
    /// Topic offset at which it was found.
    pub offset: u64,
}

impl Gap {
    /// Records known to be lost, at most: of a plan some may have been written.
    #[must_use]
    pub fn records(&self) -> u64 {
        match self {
            Self::Offsets { from, to } | Self::Plan { from, to } => to.saturating_sub(*from),
            Self::Chain(gap) => gap.missing,
        }
    }

    /// Reads the text of one gap.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('/');
        let kind = fields.next()?;
        let gap = match kind {
            "offsets" | "plan" => {
                let from = number(fields.next())?;
                let to = number(fields.next())?;
                if to <= from {
                    return None;
                }
                match kind {
                    "plan" => Self::Plan { from, to },
                    _ => Self::Offsets { from, to },
                }
            }
            "chain" => Self::Chain(Box::new(ChainGap {
                stream: fields.next()?.to_owned(),
                shard: fields.next()?.to_owned(),
                epoch: number(fields.next())?,
                first: number(fields.next())?,
                last: number(fields.next())?,
                missing: number(fields.next())?,
                before: match fields.next()? {
                    "" => None,
                    text => Some(position(text)?),
                },
                after: position(fields.next()?)?,
                offset: number(fields.next())?,
            })),
            _ => return None,
        };
        fields.next().is_none().then_some(gap)
    }

    /// The text that [`Gap::parse`] reads.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Offsets { from, to } => format!("offsets/{from}/{to}"),
            Self::Plan { from, to } => format!("plan/{from}/{to}"),
            Self::Chain(gap) => {
                let ChainGap {
                    stream,
                    shard,
                    epoch,
                    first,
                    last,
                    missing,
                    offset,
                    ..
                } = &**gap;
                let before = gap.before.as_ref().map(position_text).unwrap_or_default();
                let after = position_text(&gap.after);
                format!(
                    "chain/{stream}/{shard}/{epoch}/{first}/{last}/{missing}/{before}/{after}/{offset}"
                )
            }
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offsets { from, to } => {
                write!(f, "topic offsets {from} to {} are lost", to - 1)
            }
            Self::Plan { from, to } => write!(
                f,
                "the plan of topic offsets {from} to {} could not be finished: some of it may be missing",
                to - 1
            ),
            Self::Chain(gap) => {
                let before = gap
                    .before
                    .as_ref()
                    .map_or("the start".to_owned(), position_text);
                write!(
                    f,
                    "shard `{}` of stream `{}`: {} events are lost, ordinals within {} to {} of \
                     numbering {}, between positions {before} and {}, found at topic offset {}",
                    gap.shard,
                    gap.stream,
                    gap.missing,
                    gap.first,
                    gap.last,
                    gap.epoch,
                    position_text(&gap.after),
                    gap.offset,
                )
            }
        }
    }
}

/// Text of several gaps.
#[must_use]
pub fn list_text(gaps: &[Gap]) -> String {
    let texts: Vec<String> = gaps.iter().map(Gap::text).collect();
    texts.join(";")
}

/// Reads the text of several gaps, at least one.
#[must_use]
pub fn parse_list(text: &str) -> Option<Vec<Gap>> {
    text.split(';').map(Gap::parse).collect()
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

/// `<sequence number>.<sub-sequence number>`.
#[must_use]
pub fn position_text(position: &Position) -> String {
    format!("{}.{}", position.sequence, position.sub_sequence)
}

fn position(text: &str) -> Option<Position> {
    let (sequence, sub_sequence) = text.split_once('.')?;
    let sequence = SequenceNumber::parse(sequence)?;
    Some(Position::new(sequence, sub_sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: &str) -> Position {
        Position::new(SequenceNumber::parse(number).expect("canonical"), 2)
    }

    #[test]
    fn gaps_survive_their_text() {
        let chain = ChainGap {
            stream: "events".into(),
            shard: "shardId-000000000003".into(),
            epoch: 9,
            first: 4,
            last: 7,
            missing: 2,
            before: None,
            after: at("1005"),
            offset: 70,
        };
        let later = ChainGap {
            before: Some(at("1001")),
            ..chain.clone()
        };
        let gaps = vec![
            Gap::Offsets { from: 3, to: 9 },
            Gap::Plan { from: 10, to: 20 },
            Gap::Chain(Box::new(chain)),
            Gap::Chain(Box::new(later)),
        ];
        let text = list_text(&gaps);
        assert_eq!(parse_list(&text), Some(gaps.clone()), "{text}");
        assert_eq!(gaps.iter().map(Gap::records).sum::<u64>(), 6 + 10 + 2 + 2);
        assert!(text.starts_with(
            "offsets/3/9;plan/10/20;chain/events/shardId-000000000003/9/4/7/2//1005.2/70;"
        ));
        for bad in [
            "",
            "offsets/3",
            "offsets/9/9",
            "offsets/3/9/1",
            "hole/1/2",
            "chain/s/a/1/2",
        ] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}
