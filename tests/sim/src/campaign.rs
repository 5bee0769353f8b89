//! Many seeds, on several threads; each seed still runs on a thread of its own.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use crate::run::{Outcome, run};
use crate::scenario::Cuts;
use crate::world::lock;

/// Runs seeds in order until one breaks a rule; `seen` is told of every outcome, in any order.
///
/// Answers the lowest seed that broke a rule: every seed before it was run and broke none.
pub fn campaign(
    seeds: Range<u64>,
    cuts: &Cuts,
    threads: usize,
    seen: &(dyn Fn(&Outcome) + Sync),
) -> Option<Outcome> {
    keep_quiet();
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let found: Mutex<Option<Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(seed, cuts);
                    seen(&outcome);
                    if outcome.violation.is_some() {
                        end.fetch_min(seed, Ordering::Relaxed);
                        let mut found = lock(&found);
                        if found.as_ref().is_none_or(|found| seed < found.seed) {
                            *found = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or(None)
}

/// Cores to use.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A panic within a run is its outcome; it need not be printed as well.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("seed ")) {
                usual(info);
            }
        }));
    });
}
