//! Randomness of adapters: jitter of waits, names of processes.
//!
//! Nothing that decides what is read or written depends on it. A simulation gives its thread a
//! seed, and gets the same numbers again for the same seed.

use std::cell::RefCell;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Uniform in `0.0..1.0`, for [`Backoff::next_wait`](crate::backoff::Backoff::next_wait).
#[must_use]
pub fn unit() -> f64 {
    with(|random| random.random(), rand::random)
}

/// Any number, to tell processes apart.
#[must_use]
pub fn number() -> u64 {
    with(|random| random.random(), rand::random)
}

/// From now on this thread's numbers follow from `seed`.
pub fn seed_this_thread(seed: u64) {
    SEEDED.set(Some(SmallRng::seed_from_u64(seed)));
}

fn with<T>(seeded: impl FnOnce(&mut SmallRng) -> T, ambient: impl FnOnce() -> T) -> T {
    SEEDED.with_borrow_mut(|random| match random {
        Some(random) => seeded(random),
        None => ambient(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_repeats_itself_and_leaves_others_alone() {
        let run = || {
            seed_this_thread(7);
            (unit(), number(), number())
        };
        let first = run();
        assert_eq!(first, run());
        let other = std::thread::spawn(|| (unit(), number(), number())).join();
        assert_ne!(first, other.expect("no panic"));
    }
}
