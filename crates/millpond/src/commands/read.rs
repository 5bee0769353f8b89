//! `millpond read`: the events of a group as they were produced.

use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use millpond_reader::ReadRequest;

use crate::cli::ReadArgs;
use crate::commands::{Damaged, say};
use crate::exit::Exit;

/// Runs `millpond read`.
///
/// # Errors
/// What the reader meets; a damaged item, unless `--skip-damaged`.
pub async fn run(args: ReadArgs) -> Result<Exit> {
    let damaged = Damaged::default();
    let reader = args.table.open(damaged.policy(args.skip_damaged)).await?;
    let mut events = reader
        .read(ReadRequest {
            group: args.group,
            from_ms: args.from,
            to_ms: args.to,
            limit: args.limit,
            page_token: args.page_token,
            committed_only: args.committed,
        })
        .await?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    let failure = loop {
        match events.next().await {
            Ok(Some(event)) => write_event(&mut out, &event.value, args.raw)?,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // What was read before a failure is still a result.
    out.flush().context("cannot write to stdout")?;
    let given = events.stats().events;
    if given > 0 && (failure.is_some() || Some(given) == args.limit) {
        say(&format!("page token: {}", events.page_token()));
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(damaged.exit()),
    }
}

fn write_event(out: &mut impl Write, event: &[u8], raw: bool) -> Result<()> {
    let written = if raw {
        let length = u32::try_from(event.len()).context("event of 4 GiB or more")?;
        out.write_all(&length.to_be_bytes())
            .and_then(|()| out.write_all(event))
    } else {
        out.write_all(event).and_then(|()| out.write_all(b"\n"))
    };
    written.context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_raw_events() {
        let mut out = Vec::new();
        write_event(&mut out, b"{}", false).expect("line");
        write_event(&mut out, b"a\nb", true).expect("raw");
        assert_eq!(out, b"{}\n\x00\x00\x00\x03a\nb");
    }
}
