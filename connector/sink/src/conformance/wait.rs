//! Waiting for a condition, by whatever clock a test runs on.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a wait may take where nothing is said of that; generous, because machines are slow and shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks where nothing is said of that.
const LOOK: Duration = Duration::from_millis(1);

/// Looks again and again until something is so.
///
/// # Panics
/// With `what` was waited for, when it is not so within a minute.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    until_within(PATIENCE, LOOK, || (!is_so()).then(|| what.to_owned())).await;
}

/// Looks again and again, with a pause between, until nothing is `missing`; answers how long that took.
///
/// # Panics
/// With what is missing, after `limit`.
pub async fn until_within(
    limit: Duration,
    pause: Duration,
    mut missing: impl FnMut() -> Option<String>,
) -> Duration {
    let start = Instant::now();
    while let Some(missing) = missing() {
        assert!(start.elapsed() < limit, "{missing}: not in {limit:?}");
        sleep(pause).await;
    }
    start.elapsed()
}
