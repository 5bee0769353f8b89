//! What a sink does with the topic partitions that it leases: decided here, without I/O.
//!
//! The states of one partition, which is not in the map before and after:
//!
//! | state | its loop | ends with |
//! |---|---|---|
//! | *running* | runs | the lease is wanted by another sink, lost, the loop has ended, or a drain takes too long |
//! | *leaving* | finishes its plan and ends | the loop has ended: the lease is given back |
//! | *stopping* | was told to stop at once | the loop has ended; begins anew if the lease was taken again meanwhile |
//! | *halted* | has ended: its records do not allow to go on | the lease is wanted by another sink, lost, or the sink drains |
//!
//! A lease is given back only when its loop has ended, and a loop begins only when the one before it
//! has ended: within a process nobody writes a partition twice at a time. Between processes the
//! ledger's epoch sees to that (I11); leases only spare them the quarrel.

use std::collections::{BTreeMap, BTreeSet};

use millpond_connector::topic::PartitionId;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The lease is ours.
    Taken(PartitionId, u64),
    /// Another sink is to have it.
    Wanted(PartitionId, u64),
    /// It is no longer ours.
    Lost(PartitionId, u64),
    /// The loop of this holding has ended.
    Ended(PartitionId, u64, Ending),
    /// All that is in the topic now is to be committed, and then no more.
    Drain,
    /// That takes too long: the rest is for others.
    Leave,
}

/// How a loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was told to, or found its lease lost.
    Told,
    /// Another process took the partition in the ledger.
    Fenced,
    /// The records of the partition do not allow to go on.
    Halted(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Begin its loop.
    Start(PartitionId, u64),
    /// Tell its loop to finish what is in flight.
    Finish(PartitionId),
    /// Tell its loop to stop at once.
    Stop(PartitionId),
    /// Nothing is in flight under this holding any more: give it back.
    GiveBack(PartitionId, u64),
    /// From now on, take none but these.
    Want(BTreeSet<PartitionId>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Running,
    Leaving,
    /// `next` is the holding that begins once the loop has ended.
    Stopping {
        next: Option<u64>,
    },
    Halted(String),
}

#[derive(Debug, Clone)]
struct Holding {
    epoch: u64,
    phase: Phase,
}

/// The topic partitions that this sink holds.
#[derive(Debug, Default)]
pub struct Holdings {
    held: BTreeMap<PartitionId, Holding>,
    is_draining: bool,
    /// Partitions that were halted when the drain gave them back.
    failures: BTreeMap<PartitionId, String>,
}

impl Holdings {
    /// True when nothing is held and no loop runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many are held, halted ones among them.
    #[must_use]
    pub fn len(&self) -> usize {
        let phases = self.held.values().map(|holding| &holding.phase);
        let is_ours = |phase: &&Phase| !matches!(phase, Phase::Stopping { next: None });
        phases.filter(is_ours).count()
    }

    /// All holdings, to be given back without ceremony once no loop runs.
    pub fn all(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        self.held
            .iter()
            .map(|(partition, holding)| (*partition, holding.epoch))
    }

    /// Why partitions that were ours until the drain did not go on.
    #[must_use]
    pub fn failures(&self) -> Vec<&str> {
        self.failures.values().map(String::as_str).collect()
    }

    /// What to do about an event, in order.
    #[must_use]
    pub fn on(&mut self, event: Event) -> Vec<Act> {
        match event {
            Event::Taken(partition, epoch) => self.taken(partition, epoch),
            Event::Wanted(partition, epoch) => self.wanted(partition, epoch),
            Event::Lost(partition, epoch) => self.lost(partition, epoch),
            Event::Ended(partition, epoch, ending) => self.ended(partition, epoch, ending),
            Event::Drain => self.drain(),
            Event::Leave => self.leave(),
        }
    }

    fn taken(&mut self, partition: PartitionId, epoch: u64) -> Vec<Act> {
        if self.is_draining {
            // Taken before the driver heard that no more are wanted.
            return vec![Act::GiveBack(partition, epoch)];
        }
        if let Some(holding) = self.held.get_mut(&partition)
            && !matches!(holding.phase, Phase::Halted(_))
        {
            let is_told = matches!(holding.phase, Phase::Stopping { .. });
            holding.phase = Phase::Stopping { next: Some(epoch) };
            return if is_told {
                Vec::new()
            } else {
                vec![Act::Stop(partition)]
            };
        }
        self.start(partition, epoch)
    }

    fn start(&mut self, partition: PartitionId, epoch: u64) -> Vec<Act> {
        let phase = Phase::Running;
        self.held.insert(partition, Holding { epoch, phase });
        vec![Act::Start(partition, epoch)]
    }

    fn wanted(&mut self, partition: PartitionId, epoch: u64) -> Vec<Act> {
        let Some(holding) = self.held.get_mut(&partition) else {
            return Vec::new();
        };
        match &mut holding.phase {
            Phase::Stopping { next } if *next == Some(epoch) => {
                *next = None;
                vec![Act::GiveBack(partition, epoch)]
            }
            _ if holding.epoch != epoch => Vec::new(),
            Phase::Running => {
                holding.phase = Phase::Leaving;
                vec![Act::Finish(partition)]
            }
            // The next owner finds out by itself that it cannot go on, or can.
            Phase::Halted(_) => {
                self.held.remove(&partition);
                vec![Act::GiveBack(partition, epoch)]
            }
            Phase::Leaving | Phase::Stopping { .. } => Vec::new(),
        }
    }

    fn lost(&mut self, partition: PartitionId, epoch: u64) -> Vec<Act> {
        let Some(holding) = self.held.get_mut(&partition) else {
            return Vec::new();
        };
        match &mut holding.phase {
            Phase::Stopping { next } => {
                if *next == Some(epoch) {
                    *next = None;
                }
                Vec::new()
            }
            _ if holding.epoch != epoch => Vec::new(),
            Phase::Running | Phase::Leaving => {
                holding.phase = Phase::Stopping { next: None };
                vec![Act::Stop(partition)]
            }
            Phase::Halted(_) => {
                self.held.remove(&partition);
                Vec::new()
            }
        }
    }

    fn ended(&mut self, partition: PartitionId, epoch: u64, ending: Ending) -> Vec<Act> {
        let Some(holding) = self.held.get_mut(&partition) else {
            return Vec::new();
        };
        if holding.epoch != epoch {
            return Vec::new();
        }
        match (&holding.phase, ending) {
            (Phase::Halted(_), _) => return Vec::new(),
            (Phase::Stopping { next: Some(next) }, _) => {
                let next = *next;
                return self.start(partition, next);
            }
            (Phase::Stopping { next: None }, _) => {
                self.held.remove(&partition);
                return Vec::new();
            }
            (Phase::Running, Ending::Halted(why)) if !self.is_draining => {
                holding.phase = Phase::Halted(why);
                return Vec::new();
            }
            (Phase::Running, Ending::Halted(why)) => {
                self.failures.insert(partition, why);
            }
            (Phase::Running | Phase::Leaving, _) => {}
        }
        self.held.remove(&partition);
        let mut acts = self.want_no_more();
        acts.push(Act::GiveBack(partition, epoch));
        acts
    }

    fn drain(&mut self) -> Vec<Act> {
        self.is_draining = true;
        let mut returned = Vec::new();
        self.held
            .retain(|partition, holding| match &mut holding.phase {
                Phase::Halted(why) => {
                    self.failures.insert(*partition, std::mem::take(why));
                    returned.push(Act::GiveBack(*partition, holding.epoch));
                    false
                }
                Phase::Stopping { next } => {
                    let epoch = next.take();
                    returned.extend(epoch.map(|epoch| Act::GiveBack(*partition, epoch)));
                    true
                }
                Phase::Running | Phase::Leaving => true,
            });
        let mut acts = self.want_no_more();
        acts.extend(returned);
        acts
    }

    fn leave(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (partition, holding) in &mut self.held {
            if holding.phase == Phase::Running {
                holding.phase = Phase::Leaving;
                acts.push(Act::Finish(*partition));
            }
        }
        acts
    }

    /// While draining, what was given back is for others.
    fn want_no_more(&self) -> Vec<Act> {
        if !self.is_draining {
            return Vec::new();
        }
        let held = self.held.iter();
        let mine = held.filter(|(_, holding)| !matches!(holding.phase, Phase::Stopping { .. }));
        vec![Act::Want(mine.map(|(partition, _)| *partition).collect())]
    }
}

#[cfg(test)]
#[path = "holdings_tests.rs"]
mod tests;
