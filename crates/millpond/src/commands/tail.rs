//! `millpond tail`: events as they come.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};
use millpond_reader::{TailEvent, TailRequest, TailStart};

use crate::cli::TailArgs;
use crate::commands::Damaged;
use crate::exit::Exit;
use crate::signals::Signals;

/// Runs `millpond tail`.
///
/// # Errors
/// What the reader meets; a damaged item, unless `--skip-damaged`.
pub async fn run(args: TailArgs) -> Result<Exit> {
    let mut signals = Signals::listen()?;
    let damaged = Damaged::default();
    let reader = args.table.open(damaged.policy(args.skip_damaged)).await?;
    let request = TailRequest {
        start: args.from.map_or(TailStart::Now, TailStart::At),
        poll: Duration::from_secs_f64(args.poll),
        ..TailRequest::new(args.group)
    };
    let mut out = BufWriter::new(io::stdout());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut tail = tokio::select! {
        biased;
        () = signals.next() => return Ok(Exit::Success),
        tail = reader.tail(request) => tail?,
    };
    while left > 0 {
        let event = tokio::select! {
            biased;
            () = signals.next() => break,
            event = tail.next() => event?,
        };
        write_event(&mut out, &event, args.group_names).context("cannot write to stdout")?;
        left -= 1;
    }
    Ok(damaged.exit())
}

/// Flushed at once: whoever follows wants to see it now.
fn write_event(out: &mut impl Write, event: &TailEvent, name: bool) -> io::Result<()> {
    if name {
        // A group key is any text: control characters must not tear the line.
        write!(out, "{}\t", event.group.escape_debug())?;
    }
    out.write_all(&event.event.value)?;
    out.write_all(b"\n")?;
    out.flush()
}
