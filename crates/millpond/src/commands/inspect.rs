//! `millpond inspect`: envelopes as JSON, without their payload.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result, bail};

use crate::cli::InspectArgs;
use crate::commands::Damaged;
use crate::exit::Exit;

/// Runs `millpond inspect`.
///
/// # Errors
/// What the reader meets; a damaged header, unless `--skip-damaged`.
pub async fn run(args: InspectArgs) -> Result<Exit> {
    let damaged = Damaged::default();
    let reader = args.table.open(damaged.policy(args.skip_damaged)).await?;
    let mut out = io::stdout();
    match (args.group, args.pk, args.sk) {
        (Some(group), ..) => {
            let mut items = reader.inspect_group(&group).await?;
            for _ in 0..args.limit {
                let Some(item) = items.next().await? else {
                    break;
                };
                writeln!(out, "{item}").context("cannot write to stdout")?;
            }
        }
        (None, Some(pk), Some(sk)) => {
            let item = reader.inspect(&pk, &sk).await?;
            writeln!(out, "{item:#}").context("cannot write to stdout")?;
        }
        _ => bail!("give `--group`, or `--pk` and `--sk`"),
    }
    Ok(damaged.exit())
}
