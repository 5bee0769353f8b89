//! Leases as one process sees them: the rows are in memory, the way to them fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millpond_leases::{Beat, Change, LeaseStore, Outcome, StoreError, View, WorkerId};
use tokio::time::{Instant, sleep};

use crate::process::Process;
use crate::scenario::Fault;
use crate::world::lock;

/// The rows for one process.
pub struct FakeLeases {
    process: Arc<Process>,
    me: WorkerId,
    rows: Arc<dyn LeaseStore>,
    standing: Mutex<Option<Standing>>,
}

/// The other workers as this process goes on seeing them, as if its clock ran far too fast.
struct Standing {
    until: Instant,
    workers: BTreeMap<WorkerId, Beat>,
}

impl FakeLeases {
    /// `rows` as `me` sees them from a process.
    #[must_use]
    pub fn new(process: Arc<Process>, me: WorkerId, rows: Arc<dyn LeaseStore>) -> Self {
        Self {
            process,
            me,
            rows,
            standing: Mutex::default(),
        }
    }

    async fn there(&self) -> Result<(), StoreError> {
        self.process.step().await;
        match self.process.fault(Fault::Throttle) || self.process.fault(Fault::Unreachable) {
            true => Err(no_answer()),
            false => Ok(()),
        }
    }

    async fn back<T>(&self, answer: T) -> Result<T, StoreError> {
        self.process.step().await;
        match self.process.fault(Fault::LostAnswer) {
            true => Err(no_answer()),
            false => Ok(answer),
        }
    }

    /// Shows the others as they were, while they are to seem dead.
    fn let_others_stand(&self, view: &mut View) {
        let mut standing = lock(&self.standing);
        if standing.is_none() && self.process.fault(Fault::TwoOwners) {
            let ms = self
                .process
                .world
                .dice
                .between("stand still for", 1_000, 15_000);
            let mut workers = view.workers.clone();
            workers.remove(&self.me);
            *standing = Some(Standing {
                until: Instant::now() + Duration::from_millis(ms),
                workers,
            });
        }
        match &*standing {
            Some(still) if Instant::now() < still.until => {
                for (worker, beat) in &still.workers {
                    view.workers.insert(worker.clone(), *beat);
                }
            }
            _ => *standing = None,
        }
    }
}

fn no_answer() -> StoreError {
    StoreError::Transient("no answer".to_owned())
}

#[async_trait]
impl LeaseStore for FakeLeases {
    async fn view(&self) -> Result<View, StoreError> {
        self.there().await?;
        let mut view = self.rows.view().await?;
        self.let_others_stand(&mut view);
        self.back(view).await
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        self.there().await?;
        let world = self.process.world.clone();
        if self.process.fault(Fault::LateEffect) {
            let (rows, change) = (self.rows.clone(), change.clone());
            let ms = world.dice.between("lease effect after", 50, 20_000);
            tokio::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                // Nobody waits for the answer.
                let _ = rows.change(&change).await;
            });
            return Err(no_answer());
        }
        let outcome = self.rows.change(change).await?;
        if let Change::Lease { id, new, .. } = change
            && outcome == Outcome::Applied
        {
            let (name, epoch) = (&self.process.name, new.epoch);
            let owner = new.owner.as_ref().map_or("nobody", WorkerId::as_str);
            let wanted = new.wanted_by.as_ref().map_or("nobody", WorkerId::as_str);
            world.note(format!(
                "{name}: lease {id} is {owner}'s, epoch {epoch}, wanted by {wanted}"
            ));
        }
        self.back(outcome).await
    }
}
