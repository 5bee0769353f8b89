//! The ledger and the gaps that are recorded beside it: neither says what is not so (I6, I7, I11).

use millpond_connector::topic::{Offset, PartitionId};
use millpond_dynamodb_sink::ledger_row;
use millpond_dynamodb_sink::row::{Row, names};
use millpond_format::gap::Gap;
use millpond_format::keys::{self, SortKey};
use millpond_sink::gaps::OnGap;
use millpond_sink::ledger::LedgerRow;

use super::Items;
use crate::oracle::{Fate, Oracle, broken};
use crate::world::Violation;

impl Items {
    /// Whoever replaces the ledger row must have held it, and must not pass what is not there.
    pub(super) fn ledger_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        let read = |row: &Row| {
            ledger_row::decode(row).or_else(|error| broken("I6", format!("ledger row: {error}")))
        };
        let partition: PartitionId = new.key.sk.parse().unwrap_or_default();
        let (old, new) = (old.map(read).transpose()?, read(new)?);
        let mut committed = new.start;
        if let Some(old) = &old {
            let fenced = new.epoch < old.epoch
                || (new.epoch == old.epoch && (new.owner != old.owner || new.plan < old.plan));
            if fenced {
                return broken(
                    "I11",
                    format!(
                        "partition {partition}: `{}` replaced epoch {} of `{}` by epoch {}",
                        new.owner, old.epoch, old.owner, new.epoch
                    ),
                );
            }
            if new.committed < old.committed {
                return broken("I6", format!("partition {partition}: the ledger went back"));
            }
            committed = old.committed;
        }
        match &old {
            // It goes on in another topic: what an open plan was to write is taken back, and comes again.
            Some(old) if old.log != new.log && !old.log.identity.is_empty() => {
                if let Some(open) = &old.intent {
                    let shift = old.log.shift;
                    let offsets = (open.from - shift) as usize..(open.to - shift) as usize;
                    let log = oracle.log_of(&old.log.identity, partition);
                    let events = log.get(offsets).unwrap_or_default();
                    self.taken_back.extend(events);
                    // Its dead letters stay, and count no more; those of earlier plans do.
                    self.dead.retain(|index, letter| {
                        let at = letter
                            .split('/')
                            .filter_map(|part| part.parse().ok())
                            .nth(1);
                        let is_of_it = at.is_some_and(|at| (open.from..open.to).contains(&at));
                        !(is_of_it && events.contains(index))
                    });
                    let left = self.items.keys().find(|key| {
                        let of = keys::parse_chain_pk(&key.pk).map(|key| key.partition);
                        let at = SortKey::parse(&key.sk).map(|key| key.base_offset);
                        of == Some(partition)
                            && at.is_some_and(|at| (open.from..open.to).contains(&at))
                    });
                    if let Some(key) = left {
                        return broken("I2", format!("{key:?} is left of a plan that ended"));
                    }
                }
            }
            _ => {
                for offset in committed..new.committed {
                    self.is_safe(oracle, &new, partition, offset)?;
                }
            }
        }
        let intent = new.intent.as_ref();
        self.noted += usize::from(intent.is_some_and(|intent| !intent.note.is_empty()));
        self.ledgers.insert(partition, new);
        Ok(())
    }

    /// The event at an offset is in the table or a dead letter (I6).
    fn is_safe(
        &self,
        oracle: &Oracle,
        ledger: &LedgerRow,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), Violation> {
        let log = oracle.log_of(&ledger.log.identity, partition);
        let event = log.get(offset.saturating_sub(ledger.log.shift) as usize);
        let Some(index) = event else {
            return broken(
                "I6",
                format!("the ledger passed offset {offset}, which does not exist"),
            );
        };
        let may_be_removed = oracle.events[*index].fates.contains(&Fate::Removed);
        if self.place.contains_key(index)
            || self.dead.contains_key(index)
            || self.late.contains_key(index)
            || may_be_removed
            || self.gaps.has(partition, offset)
        {
            return Ok(());
        }
        broken(
            "I6",
            format!("the ledger passed event {index} at offset {offset} of partition {partition}"),
        )
    }

    /// A gap is true: what it says is lost is lost.
    pub(super) fn gap_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        if let Some(old) = old {
            return match old == new {
                true => Ok(()),
                false => broken("I11", format!("gap {:?} was replaced by another", new.key)),
            };
        }
        let partition = keys::parse_gap_sk(&new.key.sk);
        let gap = new.string(names::GAP).and_then(Gap::parse);
        let (Some(partition), Some(gap)) = (partition, gap) else {
            return broken("I7", format!("{:?} is no gap", new.key));
        };
        if oracle.on_gap == OnGap::Halt {
            return broken("I7", format!("{gap}, though nobody may pass it"));
        }
        let is_true = match &gap {
            Gap::Offsets { to, .. } => *to <= oracle.lost_to(partition),
            Gap::Plan { from, .. } => *from < oracle.lost_to(partition),
            Gap::Chain(chain) => {
                // The rows of a plan that is given up may come in any order.
                let ledger = self.ledgers.get(&partition);
                let given_up =
                    ledger.and_then(|row| row.intent.as_ref().filter(|i| i.is_given_up()));
                let is_lost = |offset| {
                    offset < oracle.lost_to(partition)
                        || self.gaps.has(partition, offset)
                        || given_up.is_some_and(|plan| (plan.from..plan.to).contains(&offset))
                };
                oracle.ordinals_at(partition, chain, is_lost) >= chain.missing
            }
        };
        if !is_true {
            return broken("I7", format!("{gap}, and they are not"));
        }
        self.gaps.add(partition, gap);
        Ok(())
    }
}
