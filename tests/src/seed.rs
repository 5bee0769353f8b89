//! Seeds of randomised tests: drawn, printed, and taken again from the environment.

/// `MILLPOND_SEED`, or a new one.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>)
}

/// Prints a seed: a failing run is replayed from it.
#[expect(clippy::print_stderr, reason = "shown when the test fails")]
pub fn announce(seed: u64) {
    eprintln!("MILLPOND_SEED={seed}");
}
