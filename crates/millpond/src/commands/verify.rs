//! `millpond verify`: proves from the table that nothing is missing and nothing is there twice.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use millpond_format::gap::position_text;
use millpond_format::sequence::Position;
use millpond_kinesis_source::checkpoint::Aggregated;
use millpond_kinesis_source::sdk::SdkStream;
use millpond_reader::verify::{
    Finding, GroupCount, ShardCount, Verification, VerifyNote, VerifyReport, VerifyRequest,
};
use millpond_reader::{OnDamage, Reader};
use serde_json::{Value, json};

use crate::cli::{AggregatedArg, AwsArgs, VerifyArgs};
use crate::exit::Exit;
use crate::report::grouped;
use crate::stream_census::{Counting, count};
use crate::time::text_ms;

/// What of the stream was counted.
#[derive(Debug, Clone, Copy)]
struct InStream {
    marked: u64,
    waiting: u64,
}

/// Runs `millpond verify`.
///
/// # Errors
/// When table, stream or a file cannot be read; what is wrong with the data is a finding.
pub async fn run(args: VerifyArgs) -> Result<Exit> {
    let consistent = !args.eventual;
    let reader = args.table.open_as(OnDamage::Fail, consistent).await?;
    let request = VerifyRequest {
        group: args.group.clone(),
        deep: args.deep,
        dead_letter_table: args.dead_letter_table.clone(),
    };
    let mut verification = reader.verify(request).await?;
    let in_stream = match &args.stream {
        None => None,
        Some(stream) => Some(hold(&args, stream, &reader, &mut verification).await?),
    };
    for path in &args.dead_letters {
        let context = || format!("dead letters `{}`", path.display());
        let file = File::open(path).with_context(context)?;
        for line in BufReader::new(file).lines() {
            verification.dead_letter_line(&line.with_context(context)?);
        }
    }
    let mut printer = Printer {
        json: args.json,
        failed: None,
        others: 0,
    };
    let mut tell = |note: VerifyNote| printer.note(&note);
    let report = verification.run(&mut tell).await?;
    printer.report(&report, in_stream)?;
    if let Some(error) = printer.failed {
        return Err(error).context("cannot write to stdout");
    }
    let is_complete = match args.accept_gaps {
        true => {
            printer.others == 0 && report.findings == report.gaps.len() as u64 + report.stream_gaps
        }
        false => report.findings == 0,
    };
    Ok(match is_complete {
        true => Exit::Success,
        false => Exit::Findings,
    })
}

/// Counts the stream and tells the verification.
async fn hold(
    args: &VerifyArgs,
    stream: &str,
    reader: &Reader,
    verification: &mut Verification,
) -> Result<InStream> {
    let aws = AwsArgs {
        // An endpoint of DynamoDB is none of Kinesis.
        endpoint_url: args.kinesis_endpoint_url.clone(),
        ..args.table.aws.clone()
    };
    let api = Arc::new(SdkStream::new(&aws.load().await?, stream));
    let held = count(
        api,
        Counting {
            aggregated: match args.aggregated {
                AggregatedArg::Auto => Aggregated::Auto,
                AggregatedArg::KeepStray => Aggregated::KeepStray,
                AggregatedArg::Off => Aggregated::Off,
            },
            topic_partitions: reader
                .topic_partitions()
                .context("the pipeline's row does not say how many partitions its topic has")?,
            ledgers: Arc::new(verification.ledgers().clone()),
        },
    )
    .await?;
    let in_stream = InStream {
        marked: held.values().map(|held| held.events).sum(),
        waiting: held.values().map(|held| held.waiting).sum(),
    };
    verification.hold(held);
    Ok(in_stream)
}

/// Writes what is told as it comes.
struct Printer {
    json: bool,
    /// Writing failed: nothing more is written.
    failed: Option<io::Error>,
    /// Findings besides recorded gaps.
    others: u64,
}

impl Printer {
    fn line(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(io::stdout().lock(), "{line}").err();
        }
    }

    fn note(&mut self, note: &VerifyNote) {
        let line = match note {
            VerifyNote::Group(group) if self.json => group_json(group).to_string(),
            VerifyNote::Group(group) => group_line(group),
            VerifyNote::Finding(finding) => {
                if !matches!(finding, Finding::Gap { .. } | Finding::StreamGap { .. }) {
                    self.others += 1;
                }
                match self.json {
                    true => finding.json().to_string(),
                    false => format!("FOUND  {}: {finding}", finding.kind()),
                }
            }
        };
        self.line(&line);
    }

    fn report(&mut self, report: &VerifyReport, in_stream: Option<InStream>) -> Result<()> {
        for shard in &report.shards {
            let line = match self.json {
                true => shard_json(shard).to_string(),
                false => shard_line(shard),
            };
            self.line(&line);
        }
        let line = match self.json {
            true => summary_json(report, in_stream).to_string(),
            false => summary(report, in_stream),
        };
        self.line(&line);
        Ok(())
    }
}

fn group_json(group: &GroupCount) -> Value {
    json!({
        "group": group.group,
        "chains": group.chains,
        "items": group.items,
        "events": group.events,
        "event_bytes": group.event_bytes,
        "first_time": group.first_time_ms.map(text_ms),
        "last_time": group.last_time_ms.map(text_ms),
    })
}

fn group_line(group: &GroupCount) -> String {
    let time = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), text_ms);
    format!(
        "group  {}: {} events in {} items, {} to {}",
        group.group.escape_debug(),
        grouped(group.events),
        grouped(group.items),
        time(group.first_time_ms),
        time(group.last_time_ms),
    )
}

fn shard_json(count: &ShardCount) -> Value {
    let ShardCount {
        key,
        tally,
        in_gaps,
        missing,
    } = count;
    let position = |position: &Option<Position>| position.as_ref().map(position_text);
    json!({
        "shard": &*key.shard,
        "stream": &*key.stream,
        "epoch": key.epoch,
        "topic_partition": key.topic_partition,
        "events": tally.events,
        "dead_letters": tally.dead_letters,
        "in_gaps": in_gaps,
        "missing": missing,
        "ordinals": {"first": tally.first, "last": tally.last},
        "first_position": position(&tally.first_position),
        "last_position": position(&tally.last_position),
    })
}

fn shard_line(count: &ShardCount) -> String {
    let ShardCount {
        key,
        tally,
        in_gaps,
        missing,
    } = count;
    let position = |position: &Option<Position>| {
        position
            .as_ref()
            .map_or_else(|| "-".to_owned(), position_text)
    };
    let mut line = format!(
        "shard  {key}: {} events, ordinals {} to {}, positions {} to {}",
        grouped(tally.events),
        tally.first,
        tally.last,
        position(&tally.first_position),
        position(&tally.last_position),
    );
    for (number, what) in [
        (tally.dead_letters, "dead letters"),
        (*in_gaps, "lost in recorded gaps"),
        (*missing, "not there"),
    ] {
        if number > 0 {
            line.push_str(&format!(", {} {what}", grouped(number)));
        }
    }
    line
}

fn summary_json(report: &VerifyReport, in_stream: Option<InStream>) -> Value {
    json!({
        "complete": report.findings == 0,
        "findings": report.findings,
        "gaps": report.gaps.len(),
        "stream_gaps": report.stream_gaps,
        "groups": report.groups,
        "items": report.items,
        "open_items": report.open_items,
        "events": report.events,
        "event_bytes": report.event_bytes,
        "dead_letters": report.dead_letters,
        "unnumbered": report.unnumbered,
        "removed": report.removed,
        "in_stream": in_stream.map(|in_stream| json!({
            "up_to_the_ledger": in_stream.marked,
            "waiting": in_stream.waiting,
        })),
        "read_units": report.read_units,
    })
}

fn summary(report: &VerifyReport, in_stream: Option<InStream>) -> String {
    let mut text = format!(
        "{} events in {} items of {} groups, {} shards; {} findings; {} read units",
        grouped(report.events),
        grouped(report.items),
        grouped(report.groups),
        report.shards.len(),
        grouped(report.findings),
        report.read_units,
    );
    for (number, what) in [
        (report.open_items, "items are being written and not judged"),
        (report.dead_letters, "dead letters"),
        (report.gaps.len() as u64, "recorded gaps"),
        (
            report.stream_gaps,
            "gaps of the stream, recorded by the source",
        ),
        (report.removed, "records were removed by SmartModules"),
        (report.unnumbered, "events without a numbering, not judged"),
    ] {
        if number > 0 {
            text.push_str(&format!("\n{} {what}", grouped(number)));
        }
    }
    if let Some(InStream { marked, waiting }) = in_stream {
        text.push_str(&format!(
            "\nthe stream holds {} events up to the ledger's marks and {} beyond",
            grouped(marked),
            grouped(waiting),
        ));
    }
    text.push_str(match report.findings {
        0 => "\ncomplete",
        _ => "\nNOT complete",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_reader::verify::{ShardKey, Tally};

    #[test]
    fn lines_say_what_is_there_and_what_is_not() {
        let group = GroupCount {
            group: "job\u{1b}[31m".into(),
            events: 1_200,
            items: 3,
            first_time_ms: Some(1_763_886_000_123),
            ..GroupCount::default()
        };
        let line = group_line(&group);
        assert!(
            line.starts_with(
                "group  job\\u{1b}[31m: 1,200 events in 3 items, 2025-11-23T08:20:00.123Z to -"
            ),
            "{line}"
        );
        let mut tally = Tally::default();
        tally.events = 7;
        tally.last = 9;
        let shard = ShardCount {
            key: ShardKey {
                topic_partition: 2,
                stream: "s".into(),
                shard: "a".into(),
                epoch: 9,
            },
            tally,
            in_gaps: 0,
            missing: 3,
        };
        let line = shard_line(&shard);
        assert!(
            line.contains("7 events, ordinals 0 to 9") && line.ends_with(", 3 not there"),
            "{line}"
        );
        assert_eq!(shard_json(&shard)["missing"], 3);
        let report = VerifyReport {
            findings: 1,
            ..VerifyReport::default()
        };
        assert!(summary(&report, None).ends_with("NOT complete"));
        assert_eq!(summary_json(&report, None)["complete"], false);
    }
}
