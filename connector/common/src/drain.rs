//! SIGTERM and Ctrl-C: the first one drains, the second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was told twice to end: what was in flight is left to the restart.
pub const FORCED_EXIT_CODE: i32 = 130;

/// A token that the first SIGTERM or SIGINT cancels.
///
/// A second signal of either kind, seen by the signal handler itself and so even with a stuck
/// runtime, ends the process with [`FORCED_EXIT_CODE`]. Call once, inside the runtime.
///
/// # Errors
/// The handlers cannot be installed.
pub fn on_signals() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let told = Arc::new(AtomicBool::new(false));
    let mut streams = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    for number in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(number, FORCED_EXIT_CODE, Arc::clone(&told))?;
        flag::register(number, Arc::clone(&told))?;
    }
    let cancel = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = streams.0.recv() => "SIGTERM",
            _ = streams.1.recv() => "SIGINT",
        };
        tracing::info!(
            signal = name,
            "draining: what is in flight is finished and committed; a second signal ends at once"
        );
        cancel.cancel();
    });
    Ok(token)
}
