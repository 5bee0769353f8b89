//! Seeded mutations of a corpus: the short run that the tests make without a fuzzer.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Runs `check` on `rounds` mutations of the corpus. The seed is printed, and taken from
/// `MILLPOND_SEED` when that is set; `context` goes before it. `MILLPOND_FUZZ_FACTOR` multiplies
/// the rounds.
pub fn run(context: &str, corpus: &[Vec<u8>], rounds: u32, mut check: impl FnMut(&[u8])) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = u64::from(rounds) * number("MILLPOND_FUZZ_FACTOR").unwrap_or(1);
    let seed = number("MILLPOND_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos() as u64)
    });
    announce(context, seed);
    let mut rng = SmallRng::seed_from_u64(seed);
    for input in corpus {
        check(input);
    }
    for _ in 0..rounds {
        check(&mutation(&mut rng, corpus));
    }
}

#[allow(
    clippy::print_stderr,
    reason = "the harness shows it when the test fails"
)]
fn announce(context: &str, seed: u64) {
    eprintln!("{context}: MILLPOND_SEED={seed}");
}

/// One input of the corpus with a few changes.
fn mutation(rng: &mut SmallRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            5 if at + 8 <= bytes.len() => rng.fill(&mut bytes[at..at + 8]),
            6 => {
                // A piece of another input, or of this one.
                let other = &corpus[rng.random_range(0..corpus.len())];
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(0..64)).min(other.len());
                let end = (at + to - from).min(bytes.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let piece = [0xff; 10];
                let end = (at + rng.random_range(1..=10)).min(bytes.len());
                bytes.splice(at..end, piece[..rng.random_range(1..=10)].iter().copied());
            }
        }
    }
    bytes
}
