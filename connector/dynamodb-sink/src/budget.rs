//! The pace of a table, shared by whoever writes to it in this process: the pacer with a clock.

use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_connector::mutation::{self, Mutation};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::client::Throttle;
use crate::pacing::{KeyId, KeyUse, PaceSettings, Pacer, Turn, WriteCapacity};

/// A partition key whose limit holds its writers back. See [`Budget::on_hot_key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotPartitionKey {
    /// Its value.
    pub pk: String,
    /// Units that it took in the last second, about.
    pub units_per_second: u64,
}

/// Called for every key that is found hot; must be quick and must not block.
pub type HotKeyHook = Box<dyn Fn(&HotPartitionKey) + Send + Sync>;

/// What a request is going to consume, and where.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// Write units, all keys together.
    pub units: u64,
    /// The same by partition key.
    pub keys: Vec<KeyUse>,
    /// Values of these keys, in the same order.
    names: Vec<Arc<str>>,
}

impl Reservation {
    /// Of rows, given by partition key and units.
    pub fn new<'a>(rows: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut of = Self {
            units: 0,
            keys: Vec::new(),
            names: Vec::new(),
        };
        for (pk, units) in rows {
            of.units = of.units.saturating_add(units);
            // A request has 25 rows at most.
            match of.names.iter().position(|name| **name == *pk) {
                Some(at) => of.keys[at].units += units,
                None => {
                    let key = KeyId::of(pk);
                    of.keys.push(KeyUse { key, units });
                    of.names.push(pk.into());
                }
            }
        }
        of
    }

    fn name(&self, key: KeyId) -> &str {
        let at = self.keys.iter().position(|of| of.key == key);
        at.map_or("?", |at| &self.names[at])
    }
}

/// Requests that wait one after the other, such as those of one topic partition.
#[derive(Debug, Default)]
pub struct Line(tokio::sync::Mutex<()>);

/// Write units a second that this process may use of a table, shared by its topic partitions.
pub struct Budget {
    pacer: Mutex<Pacer>,
    /// Held by the request that starts next: they start in the order in which they ask,
    turn: tokio::sync::Mutex<()>,
    /// and of all lines one asks at a time.
    lines: tokio::sync::Mutex<()>,
    made: Instant,
    metrics: Arc<Metrics>,
    hook: Mutex<Option<HotKeyHook>>,
}

impl Budget {
    /// Nothing is used yet.
    #[must_use]
    pub fn new(settings: PaceSettings, metrics: Arc<Metrics>) -> Self {
        let budget = Self {
            pacer: Mutex::new(Pacer::new(settings, Duration::ZERO)),
            turn: tokio::sync::Mutex::default(),
            lines: tokio::sync::Mutex::default(),
            made: Instant::now(),
            metrics,
            hook: Mutex::default(),
        };
        budget.with(|_, _| ());
        budget
    }

    /// From now on `hook` is told of partition keys whose group should be spread over more keys, twice as
    /// many as it has; again each 30 s while it lasts.
    pub fn on_hot_key(&self, hook: HotKeyHook) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    /// Units a second that may be spent now.
    #[must_use]
    pub fn units_per_second(&self) -> f64 {
        self.with(|pacer, _| pacer.budget())
    }

    /// Units that one request should not exceed: to several keys, and to one.
    #[must_use]
    pub fn request_units(&self) -> (u64, u64) {
        self.with(|pacer, _| (pacer.request_units(), pacer.key_request_units()))
    }

    /// This process holds `held` of the `all` topic partitions among which the budget is divided.
    pub fn hold(&self, held: usize, all: usize) {
        self.with(|pacer, now| pacer.hold(held, all, now));
    }

    /// True when the table is to be asked for its capacity.
    #[must_use]
    pub fn is_look_due(&self) -> bool {
        self.with(|pacer, now| pacer.is_look_due(now))
    }

    /// The table was asked; `None` when it did not answer.
    pub fn looked(&self, found: Option<WriteCapacity>) {
        let (before, after) = self.with(|pacer, now| {
            let before = pacer.budget();
            pacer.looked(found, now);
            (before, pacer.budget())
        });
        if (before - after).abs() >= 1.0 {
            info!(
                before,
                after,
                ?found,
                "write budget by the table's capacity"
            );
        }
    }

    /// Waits until the keys of the request owe nothing. Others may go first meanwhile.
    pub async fn keys(&self, of: &Reservation) {
        loop {
            let wait = self.with(|pacer, now| pacer.key_wait(&of.keys, now));
            self.tell_hot(of);
            if wait.is_zero() || mutation::is(Mutation::BudgetIgnored) {
                return;
            }
            sleep(wait).await;
        }
    }

    /// Waits until the request may start, and starts it; answers when that was. What waits is nothing yet:
    /// after a pause of the process it is asked anew how much may start.
    ///
    /// Of each line one request at a time waits for the table's budget, so that the lines share it evenly. Requests
    /// without a line, and those to pressed keys, do not wait behind the lines.
    pub async fn start(&self, of: &Reservation, line: Option<&Line>) -> Duration {
        loop {
            let is_pressed = self.with(|pacer, now| pacer.is_pressed(&of.keys, now));
            let of_keys = {
                let _waits = match line {
                    Some(line) if !is_pressed => {
                        Some((line.0.lock().await, self.lines.lock().await))
                    }
                    _ => None,
                };
                let _turn = self.turn.lock().await;
                loop {
                    let (turn, now) =
                        self.with(|pacer, now| (pacer.take(of.units, &of.keys, now), now));
                    match turn {
                        _ if mutation::is(Mutation::BudgetIgnored) => return now,
                        Turn::Start => return now,
                        Turn::Table(wait) => sleep(wait).await,
                        Turn::Keys(wait) => break wait,
                    }
                }
            };
            self.tell_hot(of);
            sleep(of_keys).await;
        }
    }

    /// A request was answered: so many units were consumed, and of its keys' these were not.
    pub fn settle(&self, of: &Reservation, consumed: f64, left: &[KeyUse]) {
        self.with(|pacer, now| pacer.settle(of.units, consumed, left, now));
    }

    /// Rows of the request that began at `began` were refused.
    pub fn refused(&self, why: Throttle, of: &Reservation, keys: &[KeyUse], began: Duration) {
        self.with(|pacer, now| pacer.refused(why, keys, began, now));
        self.tell_hot(of);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pacer, Duration) -> T) -> T {
        let mut pacer = self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut pacer, self.made.elapsed());
        let milli = (pacer.budget() * 1_000.0) as u64;
        self.metrics.write_budget_milli.set(milli);
        answer
    }

    fn tell_hot(&self, of: &Reservation) {
        for hot in self.with(|pacer, _| pacer.take_hot()) {
            let key = HotPartitionKey {
                pk: of.name(hot.key).to_owned(),
                units_per_second: hot.units_per_second,
            };
            warn!(
                pk = key.pk,
                units_per_second = key.units_per_second,
                "a partition key is at its limit: its group should have more keys"
            );
            self.metrics.hot_keys.add(1);
            let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(hook) = hook.as_ref() {
                hook(&key);
            }
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("units_per_second", &self.units_per_second())
            .finish_non_exhaustive()
    }
}
