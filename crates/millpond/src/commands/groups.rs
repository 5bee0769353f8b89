//! `millpond groups`: the groups of a table with their totals.

use std::io::{self, BufWriter, Write as _};

use anyhow::{Context as _, Result};
use millpond_reader::{GroupSummary, GroupsRequest};
use serde_json::json;

use crate::cli::GroupsArgs;
use crate::commands::Damaged;
use crate::exit::Exit;
use crate::time::text_ms;

/// Runs `millpond groups`.
///
/// # Errors
/// What the reader meets; a damaged item, unless `--skip-damaged`.
pub async fn run(args: GroupsArgs) -> Result<Exit> {
    let damaged = Damaged::default();
    let reader = args.table.open(damaged.policy(args.skip_damaged)).await?;
    let mut groups = reader.groups(GroupsRequest::default());
    let mut out = BufWriter::new(io::stdout());
    if !args.json {
        writeln!(
            out,
            "{:>12} {:>15} {:>15} {:>8}  {:<24}  group",
            "events", "event bytes", "packed bytes", "items", "last event"
        )
        .context("cannot write to stdout")?;
    }
    while let Some(group) = groups.next().await? {
        let line = if args.json {
            json_line(&group)
        } else {
            text_line(&group)
        };
        writeln!(out, "{line}").context("cannot write to stdout")?;
    }
    out.flush().context("cannot write to stdout")?;
    Ok(damaged.exit())
}

fn json_line(group: &GroupSummary) -> String {
    json!({
        "group": group.group,
        "events": group.events,
        "event_bytes": group.event_bytes,
        "packed_bytes": group.packed_bytes,
        "items": group.items,
        "last_time": group.last_time_ms.map(text_ms),
    })
    .to_string()
}

fn text_line(group: &GroupSummary) -> String {
    // A group key is any text: control characters must not reach the terminal.
    let name: String = group
        .group
        .chars()
        .flat_map(|letter| {
            let control = letter.is_control();
            let escaped = control.then(|| letter.escape_default());
            let plain = (!control).then_some(letter);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    format!(
        "{:>12} {:>15} {:>15} {:>8}  {:<24}  {name}",
        group.events,
        group.event_bytes,
        group.packed_bytes,
        group.items,
        group.last_time_ms.map_or_else(|| "-".to_owned(), text_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_totals_and_no_control_characters() {
        let group = GroupSummary {
            group: "job\u{1b}[31m".to_owned(),
            events: 12,
            event_bytes: 3_400,
            last_time_ms: Some(1_763_886_000_123),
            ..GroupSummary::default()
        };
        let line = text_line(&group);
        assert!(
            line.contains("  2025-11-23T08:20:00.123Z  job\\u{1b}[31m"),
            "{line}"
        );
        let json: serde_json::Value = serde_json::from_str(&json_line(&group)).expect("JSON");
        assert_eq!(json["events"], 12);
        assert_eq!(json["group"], "job\u{1b}[31m");
    }
}
