//! Calls to a store, tried until there is an answer or no try can succeed.

use std::fmt::Display;
use std::future::Future;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;
use tokio::time::sleep;
use tracing::{info, warn};

/// After this many failures the success is worth a line, too.
const QUIET_TRIES: u32 = 4;

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait by this policy, then send the same again.
    Again(BackoffPolicy),
    /// No try can succeed.
    GiveUp,
}

/// Calls until there is an answer or `judge` gives up; `store` and `operation` name the call in
/// the log. An outage is said at tries 1, 2, 4, 8 and so on, not repeated.
///
/// # Errors
/// The failure that `judge` gave up on.
pub async fn until_answered<T, E, F>(
    store: &str,
    operation: &'static str,
    mut call: impl FnMut() -> F,
    mut judge: impl FnMut(&E) -> Next,
) -> Result<T, E>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff: Option<(BackoffPolicy, Backoff)> = None;
    let mut tries = 0u32;
    loop {
        let failure = match call().await {
            Ok(answer) => {
                if tries > QUIET_TRIES {
                    info!(store, operation, tries, "call succeeds again");
                }
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        let Next::Again(policy) = judge(&failure) else {
            return Err(failure);
        };
        tries = tries.saturating_add(1);
        if tries.is_power_of_two() {
            warn!(store, operation, tries, error = %failure, "call failed, trying again");
        }
        if backoff.as_ref().is_none_or(|(known, _)| *known != policy) {
            backoff = Some((policy, Backoff::new(policy)));
        }
        if let Some((_, backoff)) = &mut backoff
            && let Some(wait) = backoff.next_wait(random::unit())
        {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const SHORT: BackoffPolicy =
        BackoffPolicy::endless(Duration::from_millis(50), Duration::from_secs(5));
    const LONG: BackoffPolicy =
        BackoffPolicy::endless(Duration::from_secs(1), Duration::from_secs(10));

    #[tokio::test(start_paused = true)]
    async fn the_same_is_called_until_it_is_answered_or_refused_for_good() {
        let answers = RefCell::new(vec![Ok(7), Err("away"), Err("crowded"), Err("away")]);
        let judge = |failure: &&str| match *failure {
            "away" => Next::Again(SHORT),
            "crowded" => Next::Again(LONG),
            _ => Next::GiveUp,
        };
        let start = Instant::now();
        let call = || async { answers.borrow_mut().pop().unwrap_or(Err("no")) };
        assert_eq!(until_answered("s", "Get", call, judge).await, Ok(7));
        // One wait of each policy, from its first.
        let waited = start.elapsed();
        assert!(
            (1_100..=3_300).contains(&waited.as_millis()),
            "{waited:?} for two short waits and a long one"
        );
        assert_eq!(until_answered("s", "Get", call, judge).await, Err("no"));
    }
}
