//! Frames of small items, a fair choice of them in bounded memory, and when they are enough to train on. Pure.

use super::Training;

/// Raw frames of small items since the last training.
#[derive(Debug)]
pub struct Samples {
    frames: Vec<Vec<u8>>,
    bytes: usize,
    most_bytes: usize,
    /// Frames offered.
    seen: u64,
    /// Bytes offered.
    offered: u64,
    /// Bytes that must be offered before the next training.
    wait: u64,
    longest_wait: u64,
    draws: u64,
}

impl Samples {
    /// No samples yet.
    #[must_use]
    pub fn new(training: Training) -> Self {
        Self {
            frames: Vec::new(),
            bytes: 0,
            most_bytes: training.sample_bytes,
            seen: 0,
            offered: 0,
            wait: training.first_after_bytes,
            longest_wait: training.longest_wait_bytes.max(training.first_after_bytes),
            draws: 0,
        }
    }

    /// Takes a frame in, or not: each one offered since the last training is kept with the same chance.
    pub fn offer(&mut self, raw: &[u8]) {
        self.seen += 1;
        self.offered += raw.len() as u64;
        if raw.len() > self.most_bytes {
            return;
        }
        if self.bytes + raw.len() > self.most_bytes {
            let place = self.draw(self.seen);
            if place >= self.frames.len() {
                return;
            }
            self.drop_one(place);
            while self.bytes + raw.len() > self.most_bytes {
                let place = self.draw(self.frames.len() as u64);
                self.drop_one(place);
            }
        }
        self.bytes += raw.len();
        self.frames.push(raw.to_vec());
    }

    fn drop_one(&mut self, place: usize) {
        self.bytes -= self.frames.swap_remove(place).len();
    }

    /// A number below `bound`. No secret and no ambient randomness: a run can be repeated (SplitMix64).
    fn draw(&mut self, bound: u64) -> usize {
        self.draws = self.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.draws;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as usize
    }

    /// True when enough went by for a training.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.offered >= self.wait
    }

    /// The samples, for a training; begins anew, and twice as much must go by before the next one.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.wait = self.wait.saturating_mul(2).min(self.longest_wait);
        (self.bytes, self.seen, self.offered) = (0, 0, 0);
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAINING: Training = Training {
        sample_bytes: 1_000,
        first_after_bytes: 2_000,
        longest_wait_bytes: 9_000,
        dictionary_bytes: 1_024,
    };

    #[test]
    fn samples_stay_bounded_and_fair() {
        let mut kept = [0u32; 100];
        let mut samples = Samples::new(TRAINING);
        for _ in 0..200 {
            for n in 0..100u8 {
                samples.offer(&vec![n; 10 + usize::from(n % 7)]);
                assert!(samples.bytes <= 1_000);
            }
            samples.offer(&[0; 1_001]);
            for frame in samples.take() {
                kept[usize::from(frame[0])] += 1;
            }
        }
        // About 77 of 100 fit; early and late ones alike.
        let (early, late): (u32, u32) = (kept[..50].iter().sum(), kept[50..].iter().sum());
        assert!(
            early * 10 > late * 9 && late * 10 > early * 9,
            "{early} {late}"
        );
    }

    #[test]
    fn trainings_come_ever_more_seldom() {
        let mut samples = Samples::new(TRAINING);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let mut offered = 0;
            while !samples.is_due() {
                samples.offer(&[7; 100]);
                offered += 100;
            }
            waits.push(offered);
            assert!(!samples.take().is_empty());
            assert!(!samples.is_due());
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 9_000, 9_000]);
    }
}
