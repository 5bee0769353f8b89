//! The plan: what each group was given, in the order of the topic.

use std::collections::BTreeMap;

use millpond_connector::topic::PartitionId;
use millpond_format::header::{Kind, Place};
use millpond_sink::contiguity::Envelope;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::dedup::Admitted;
use millpond_sink::letters::Letters;

use crate::encode::Format;
use crate::events::Piece;
use crate::names::Names;

/// What decides names and bytes of objects besides their events.
#[derive(Debug, Clone)]
pub struct PlanConfig {
    /// Pipeline name.
    pub pipeline: String,
    /// Topic name.
    pub topic: String,
    /// Topic partition.
    pub partition: PartitionId,
    /// Names of objects.
    pub names: Names,
    /// How events are written.
    pub format: Format,
    /// Bytes of events at which an object is closed.
    pub max_object_bytes: u64,
}

impl PlanConfig {
    pub(crate) fn letters(&self) -> Letters<'_> {
        Letters {
            pipeline: &self.pipeline,
            topic: &self.topic,
            partition: self.partition,
        }
    }
}

/// A plan: what each group was given, in the order of the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By group.
    pub groups: BTreeMap<String, Vec<Piece>>,
    /// What is no event of any group.
    pub dead_letters: Vec<DeadLetter>,
}

/// Makes the plan of entries that were not delivered before.
#[must_use]
pub fn plan(entries: &[Admitted<'_>], config: &PlanConfig) -> Plan {
    let letters = config.letters();
    let mut plan = Plan::default();
    for entry in entries {
        match entry {
            Admitted::Envelope(envelope) => plan.envelope(envelope, &letters),
            Admitted::Plain(record, origin) => match letters.without_group(record, origin) {
                Some(letter) => plan.dead_letters.push(letter),
                None => plan.add(origin.partition_key, Piece::Record((*record).clone())),
            },
            Admitted::Unknown(record, error) => {
                plan.dead_letters
                    .push(letters.without_origin(record, *error));
            }
        }
    }
    plan
}

impl Plan {
    fn envelope(&mut self, envelope: &Envelope, letters: &Letters<'_>) {
        let header = &envelope.header;
        let index = match header.place {
            Place::Batch { index, .. } => index,
            Place::Chain(_) => 0,
        };
        if let Kind::Reject(reject) = &header.kind {
            let letter = letters.rejected(envelope, reject, index);
            self.dead_letters.push(letter);
            return;
        }
        let piece = Piece::Envelope {
            header: header.clone(),
            frames: envelope.frames.clone(),
            index,
        };
        self.add(&header.group, piece);
    }

    fn add(&mut self, group: &str, piece: Piece) {
        match self.groups.get_mut(group) {
            Some(pieces) => pieces.push(piece),
            None => {
                self.groups.insert(group.to_owned(), vec![piece]);
            }
        }
    }
}
