//! Instances that the readers of a pure chain share.
//!
//! Compiling the modules takes most of a second and some ten megabytes for each instance,
//! and no more instances than cores can be at work. A chain whose modules keep nothing
//! between calls gives the same records on any instance, so its readers take turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use millpond_connector::topic::{ConsumedRecord, TopicError};

use crate::chain::{Instance, Recipe};
use crate::store::ReadBatch;

/// The pools of a topic, by chain digest; a pool goes with its last reader.
#[derive(Default)]
pub(crate) struct Pools {
    pools: Mutex<BTreeMap<String, Weak<Pool>>>,
    built: Arc<AtomicU64>,
}

impl Pools {
    /// The pool of a chain, made when there is none.
    pub(crate) fn get(
        &self,
        digest: String,
        limit: usize,
        time_limit: Duration,
        recipe: impl FnOnce() -> Recipe,
    ) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| pool.strong_count() > 0);
        if let Some(pool) = pools.get(&digest).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool {
            recipe: recipe(),
            limit: limit.max(1),
            time_limit,
            state: Mutex::default(),
            news: Condvar::new(),
            built: Arc::clone(&self.built),
        });
        pools.insert(digest, Arc::downgrade(&pool));
        pool
    }

    /// Instances compiled so far, over all pools that there were.
    pub(crate) fn built(&self) -> u64 {
        self.built.load(Ordering::Relaxed)
    }
}

/// The instances of one chain.
pub(crate) struct Pool {
    recipe: Recipe,
    limit: usize,
    time_limit: Duration,
    state: Mutex<State>,
    /// A place was given back, the head of the queue changed, or the chain is proven.
    news: Condvar,
    built: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// An instance was built once: modules and parameters are good.
    is_proven: bool,
    /// At most the limit less those lent, since a lent place takes one of these first.
    idle: Vec<Instance>,
    /// Places in use, and since when.
    lent: BTreeMap<u64, Instant>,
    /// Who waits for a place, first come, first served: no partition falls behind.
    queue: VecDeque<u64>,
    next_ticket: u64,
}

/// A place of a pool, taken for one call; given back when dropped.
pub(crate) struct Place<'a> {
    pool: &'a Pool,
    ticket: u64,
    instance: Option<Instance>,
}

impl Pool {
    /// A place to prove the chain on; `None` when that is done. Waits as [`Self::take`] does.
    pub(crate) fn take_to_prove(&self, is_stopped: &AtomicBool) -> Option<Place<'_>> {
        self.take_unless(|state| state.is_proven || is_stopped.load(Ordering::Acquire))
    }

    /// A place, free for one call; `None` when the reader was stopped meanwhile. Waits while
    /// all are taken, for none longer than the time limit of a call: what has not come back
    /// by then is stuck and counts no more.
    pub(crate) fn take(&self, is_stopped: &AtomicBool) -> Option<Place<'_>> {
        self.take_unless(|_| is_stopped.load(Ordering::Acquire))
    }

    fn take_unless(&self, is_needless: impl Fn(&State) -> bool) -> Option<Place<'_>> {
        let mut state = self.state();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.push_back(ticket);
        loop {
            if is_needless(&state) {
                state.queue.retain(|waiting| *waiting != ticket);
                self.news.notify_all();
                return None;
            }
            let now = Instant::now();
            let time_limit = self.time_limit;
            state
                .lent
                .retain(|_, since| now.duration_since(*since) < time_limit);
            let is_next = state.queue.front() == Some(&ticket);
            if is_next && state.lent.len() < self.limit {
                state.queue.pop_front();
                state.lent.insert(ticket, now);
                let instance = state.idle.pop();
                self.news.notify_all();
                return Some(Place {
                    pool: self,
                    ticket,
                    instance,
                });
            }
            let oldest = state.lent.values().min().copied();
            let patience = oldest.map_or(time_limit, |since| {
                time_limit.saturating_sub(now.duration_since(since))
            });
            let woken = self.news.wait_timeout(state, patience);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whole whatever a panicking thread did: no code of others runs under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Compiles the chain if nobody has.
    pub(crate) fn prove(&mut self) -> Result<(), TopicError> {
        if self.instance.is_none() {
            self.build()?;
        }
        Ok(())
    }

    /// Passes one stored batch through the chain.
    pub(crate) fn process(&mut self, batch: ReadBatch) -> Result<Vec<ConsumedRecord>, TopicError> {
        self.prove()?;
        self.pool.recipe.process(&mut self.instance, batch)
    }

    fn build(&mut self) -> Result<(), TopicError> {
        self.pool.built.fetch_add(1, Ordering::Relaxed);
        self.instance = Some(self.pool.recipe.instantiate()?);
        self.pool.state().is_proven = true;
        self.pool.news.notify_all();
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        // Not if it came back so late that another took its place.
        if state.lent.remove(&self.ticket).is_some() {
            state.idle.extend(self.instance.take());
        }
        drop(state);
        self.pool.news.notify_all();
    }
}
