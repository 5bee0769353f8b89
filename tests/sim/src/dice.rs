//! Randomness that stays put: each question has its own sequence, which depends on the seed and
//! on how often that question was asked before, and on nothing else.
//!
//! So a run from which one kind of fault is taken away throws the same dice everywhere else, at
//! first; that is what makes a failing run worth shortening.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The dice of one seed.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    asked: Mutex<BTreeMap<&'static str, u64>>,
}

impl Dice {
    /// The dice of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            asked: Mutex::default(),
        }
    }

    /// The next number for a question.
    pub fn roll(&self, question: &'static str) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.entry(question).or_insert(0);
        *count += 1;
        let name = question
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        mix(mix(self.seed ^ mix(name)).wrapping_add(*count))
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&self, question: &'static str, end: u64) -> u64 {
        self.roll(question) % end.max(1)
    }

    /// A number of a range, both ends inclusive.
    pub fn between(&self, question: &'static str, first: u64, last: u64) -> u64 {
        first + self.below(question, last - first + 1)
    }

    /// True `per_mille` times of a thousand.
    pub fn chance(&self, question: &'static str, per_mille: u64) -> bool {
        self.below(question, 1_000) < per_mille
    }

    /// One of these.
    pub fn pick<T: Copy>(&self, question: &'static str, of: &[T]) -> T {
        of[self.below(question, of.len() as u64) as usize]
    }
}

/// SplitMix64's finaliser.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
