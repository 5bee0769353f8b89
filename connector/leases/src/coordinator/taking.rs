//! Which leases a worker takes and asks for, by their number or, where it was measured, by their work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{CHANGES_PER_STEP, Coordinator};
use crate::balance::{Balance, hashed};
use crate::load::Loads;
use crate::row::{Change, LeaseId, LeaseRow, View, WorkerId};

impl Coordinator {
    /// Takes free leases whose turn it is for this worker, and asks others for some of theirs.
    pub(super) fn take_and_ask(
        &self,
        read: Duration,
        view: &View,
        leases: &BTreeSet<LeaseId>,
        live: &BTreeSet<&WorkerId>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut free = Vec::new();
        for lease in leases {
            let row = view.leases.get(lease);
            let owner = row.and_then(|row| row.owner.as_ref());
            if owner.is_some_and(|owner| *owner == self.me || !self.is_dead(owner, read)) {
                continue;
            }
            match row {
                Some(row) if row.wanted_by.as_ref() == Some(&self.me) => {
                    changes.push(self.take(lease, Some(row)));
                }
                Some(row) if self.is_wanted(row, live) => {}
                row => free.push((lease, row)),
            }
        }
        if let Some(loads) = Loads::new(view, leases, live) {
            changes.extend(self.by_load(read, view, free, loads, changes.is_empty()));
            return changes;
        }
        let mut balance = Balance::new(view, leases, live);
        free.sort_by_key(|(lease, _)| hashed(&self.me, lease.as_str()));
        let (turn, rest) = free.split_at(balance.room(&self.me).min(free.len()));
        let overdue = rest
            .iter()
            .filter(|(lease, _)| self.is_overdue(lease, read));
        let before = changes.len();
        let taken = turn.iter().chain(overdue);
        changes.extend(taken.map(|(lease, row)| self.take(lease, *row)));
        // As long as something is free the counts will change: asking now could be regretted.
        if changes.len() == before && free.is_empty() {
            changes.extend(self.ask(view, leases, live, &mut balance));
        }
        changes
    }

    /// The same where work was measured.
    fn by_load(
        &self,
        read: Duration,
        view: &View,
        free: Vec<(&LeaseId, Option<&LeaseRow>)>,
        mut loads: Loads<'_>,
        may_ask: bool,
    ) -> Vec<Change> {
        if free.is_empty() {
            let asked = std::iter::from_fn(|| loads.ask(&self.me, view));
            let asked = asked.take(if may_ask { CHANGES_PER_STEP } else { 0 });
            let asked = asked.filter_map(|lease| Some((lease, view.leases.get(lease)?)));
            return asked.map(|(lease, row)| self.want(lease, row)).collect();
        }
        let rows: BTreeMap<&LeaseId, Option<&LeaseRow>> = free.iter().copied().collect();
        let names = free.iter().map(|(lease, _)| *lease);
        let mut ours: BTreeSet<&LeaseId> = names
            .clone()
            .filter(|lease| self.is_overdue(lease, read))
            .collect();
        ours.extend(loads.share_out(&self.me, names.collect()));
        ours.into_iter()
            .map(|lease| self.take(lease, rows[lease]))
            .collect()
    }

    fn want(&self, lease: &LeaseId, row: &LeaseRow) -> Change {
        Change::Lease {
            id: lease.clone(),
            seen: Some(row.clone()),
            new: LeaseRow {
                wanted_by: Some(self.me.clone()),
                ..row.clone()
            },
        }
    }

    fn ask(
        &self,
        view: &View,
        leases: &BTreeSet<LeaseId>,
        live: &BTreeSet<&WorkerId>,
        balance: &mut Balance<'_>,
    ) -> Vec<Change> {
        let mut rows: Vec<(&LeaseId, &LeaseRow)> = leases
            .iter()
            .filter_map(|lease| Some((lease, view.leases.get(lease)?)))
            .filter(|(_, row)| row.wanted_by.as_ref().is_none_or(|by| !live.contains(by)))
            .collect();
        rows.sort_by_key(|(lease, _)| hashed(&self.me, lease.as_str()));
        let mut changes = Vec::new();
        while let Some(richest) = balance.ask(&self.me) {
            let found = rows
                .iter()
                .position(|(_, row)| row.owner.as_ref() == Some(&richest));
            let Some(found) = found else {
                break;
            };
            let (lease, row) = rows.remove(found);
            changes.push(self.want(lease, row));
        }
        changes
    }

    pub(super) fn take(&self, lease: &LeaseId, seen: Option<&LeaseRow>) -> Change {
        Change::Lease {
            id: lease.clone(),
            seen: seen.cloned(),
            new: LeaseRow {
                epoch: seen.map_or(1, |row| row.epoch + 1),
                owner: Some(self.me.clone()),
                wanted_by: None,
            },
        }
    }

    /// True for a free lease that those whose turn it was did not take: they may not want it.
    fn is_overdue(&self, lease: &LeaseId, read: Duration) -> bool {
        let since = self.free.get(lease);
        since.is_some_and(|since| read >= *since + self.settings.lease_duration())
    }
}
