//! What the sink notes beside the items, as `verify` needs it: ledger rows, gaps, dead letters.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millpond_format::gap::Gap;
use millpond_format::header::Header;
use millpond_format::keys;
use millpond_format::marks::Marks;
use millpond_format::origin::Origin;
use millpond_format::stream_gap::StreamGap;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::census::{Census, Thresholds};
use super::finding::Finding;
use super::judge::Ledger;
use crate::directory::{Pipeline, ledger_table};
use crate::error::ReadError;
use crate::item::{ORIGIN, VALUE, binary};
use crate::table::{Attributes, PageRequest, SortKeys, Table, integer, text};

/// Reason of a dead letter that is a whole item which the table refused.
const ITEM_REFUSED: &str = "item-refused";

/// How the reasons of those begin whose place a recorded gap has: the gap accounts for them, and they may be in the table.
const AFTER_GAP: &str = "after-gap";

/// Readings of ledger rows whose snapshots are being replaced.
const SNAPSHOT_TRIES: u32 = 5;

/// Why a ledger row cannot be used.
enum Unusable {
    /// Its snapshot was replaced since, or is gone.
    Snapshot,
    Malformed(String),
}

/// Ledgers by topic partition, what cannot be read of them, and the read units that took.
pub(crate) async fn ledgers(
    table: &Table,
    pipeline: &Pipeline,
) -> Result<(BTreeMap<u32, Ledger>, Vec<Finding>, f64), ReadError> {
    let mut ledgers = BTreeMap::new();
    let mut findings = Vec::new();
    let mut units = 0.0;
    let Some(topic) = &pipeline.topic else {
        return Ok((ledgers, findings, units));
    };
    let mut request = PageRequest::all(keys::ledger_pk(&pipeline.name, topic));
    let other = ledger_table(table, pipeline).await?;
    let table = other.as_ref().unwrap_or(table);
    loop {
        let page = table.query(&request).await?;
        units += page.read_units;
        for row in &page.items {
            let sk = text(row, &table.sk_name).unwrap_or_default();
            match ledger(table, &pipeline.name, topic, sk, row).await? {
                Ok(ledger) => {
                    ledgers.insert(ledger.topic_partition, ledger);
                }
                Err(what) => findings.push(Finding::LedgerRow {
                    sk: sk.to_owned(),
                    what,
                }),
            }
        }
        match page.next_after {
            Some(after) => request.after = Some(after),
            None => return Ok((ledgers, findings, units)),
        }
    }
}

/// A ledger row with all its marks; else why there is none.
async fn ledger(
    table: &Table,
    pipeline: &str,
    topic: &str,
    sk: &str,
    row: &Attributes,
) -> Result<Result<Ledger, String>, ReadError> {
    let pk = keys::ledger_pk(pipeline, topic);
    let marks_pk = keys::marks_pk(pipeline, topic);
    let mut row = row.clone();
    for _ in 0..SNAPSHOT_TRIES {
        match whole_ledger(table, &marks_pk, sk, &row).await? {
            Ok(ledger) => return Ok(Ok(ledger)),
            Err(Unusable::Malformed(what)) => return Ok(Err(what)),
            Err(Unusable::Snapshot) => match table.get(&pk, sk).await? {
                Some(again) => row = again,
                None => return Ok(Err("it is gone".into())),
            },
        }
    }
    Ok(Err(
        "the snapshot of marks that it names is not there".into()
    ))
}

async fn whole_ledger(
    table: &Table,
    marks_pk: &str,
    sk: &str,
    row: &Attributes,
) -> Result<Result<Ledger, Unusable>, ReadError> {
    let malformed = |what: &str| Err(Unusable::Malformed(what.to_owned()));
    let mut ledger = match bare_ledger(sk, row) {
        Ok(ledger) => ledger,
        Err(what) => return Ok(malformed(&what)),
    };
    let Some(name) = text(row, "resting") else {
        return Ok(Ok(ledger));
    };
    // `<epoch>/<place>/<plan>/<rows>`
    let numbers: Option<Vec<u64>> = name.split('/').map(|text| text.parse().ok()).collect();
    let Some(&[epoch, place, plan, rows]) = numbers.as_deref() else {
        return Ok(malformed("malformed `resting`"));
    };
    let mut marks = Marks::default();
    for index in 0..rows as usize {
        let sk = keys::marks_sk(ledger.topic_partition, epoch, place as u8, index);
        let Some(row) = table.get(marks_pk, &sk).await? else {
            return Ok(Err(Unusable::Snapshot));
        };
        if integer(&row, "plan").and_then(|plan| u64::try_from(plan).ok()) != Some(plan) {
            return Ok(Err(Unusable::Snapshot));
        }
        match Marks::decode(binary(&row, "marks").unwrap_or_default()) {
            Ok(part) => marks = marks.with(&part),
            Err(error) => return Ok(malformed(&format!("snapshot `{sk}`: {error}"))),
        }
    }
    ledger.marks = marks.with(&ledger.marks);
    Ok(Ok(ledger))
}

/// What a ledger row says itself.
fn bare_ledger(sk: &str, row: &Attributes) -> Result<Ledger, String> {
    let number = |name: &str| {
        let number = integer(row, name).and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| format!("no `{name}`"))
    };
    if number("version")? != 1 {
        return Err("unknown `version`".into());
    }
    let marks = binary(row, "marks").map_err(|check| check.to_string())?;
    Ok(Ledger {
        topic_partition: sk.parse().map_err(|_| "no topic partition".to_owned())?,
        committed: number("committed")?,
        start: number("start")?,
        is_open: row.contains_key("intent"),
        marks: Marks::decode(marks).map_err(|error| error.to_string())?,
    })
}

/// Gaps with their topic partitions, what cannot be read of them, and the read units that took.
pub(crate) async fn gaps(
    table: &Table,
    pipeline: &Pipeline,
) -> Result<(Vec<(u32, Gap)>, Vec<Finding>, f64), ReadError> {
    let mut gaps = Vec::new();
    let mut findings = Vec::new();
    let mut units = 0.0;
    let Some(topic) = &pipeline.topic else {
        return Ok((gaps, findings, units));
    };
    let mut request = PageRequest::all(keys::gaps_pk(&pipeline.name, topic));
    loop {
        let page = table.query(&request).await?;
        units += page.read_units;
        for row in &page.items {
            let sk = text(row, &table.sk_name).unwrap_or_default();
            let gap = text(row, "gap").and_then(Gap::parse);
            match (keys::parse_gap_sk(sk), gap) {
                (Some(partition), Some(gap)) => gaps.push((partition, gap)),
                _ => findings.push(Finding::GapRow { sk: sk.to_owned() }),
            }
        }
        match page.next_after {
            Some(after) => request.after = Some(after),
            None => return Ok((gaps, findings, units)),
        }
    }
}

/// Counts dead letters, each id once, wherever it is kept.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) census: Census,
    pub(crate) findings: Vec<Finding>,
    /// Entries.
    pub(crate) count: u64,
    /// Hashes of their ids.
    known: HashSet<u64>,
    /// What sources say that the stream removed before they read it, by key: a source that died may
    /// have said it twice.
    pub(crate) stream_gaps: BTreeMap<String, (u32, StreamGap)>,
}

/// A dead letter as it is counted.
struct Letter<'a> {
    id: &'a str,
    reason: &'a str,
    origin: Option<&'a str>,
    value: Option<&'a [u8]>,
}

/// A line of a dead-letter file.
#[derive(Deserialize)]
struct Line<'a> {
    id: &'a str,
    reason: &'a str,
    origin: Option<String>,
    value_base64: &'a str,
}

impl Letters {
    /// Counts a line of a dead-letter file.
    pub(crate) fn line(&mut self, line: &str, topic: Option<&str>, thresholds: &Thresholds) {
        let parsed: Option<Line<'_>> = serde_json::from_str(line).ok();
        let value = parsed
            .as_ref()
            .map(|line| STANDARD.decode(line.value_base64));
        let (Some(line), Some(Ok(value))) = (&parsed, &value) else {
            let which = format!("line `{}`", line.chars().take(80).collect::<String>());
            self.findings.push(Finding::DeadLetter { which });
            return;
        };
        let letter = Letter {
            id: line.id,
            reason: line.reason,
            origin: line.origin.as_deref(),
            value: Some(value),
        };
        self.take(&letter, topic, thresholds);
    }

    fn take(&mut self, letter: &Letter<'_>, topic: Option<&str>, thresholds: &Thresholds) {
        // `<pipeline>/<topic>/<topic partition>/...`
        let mut fields = letter.id.split('/');
        let of = (
            fields.nth(1),
            fields.next().and_then(|text| text.parse().ok()),
        );
        let (Some(found), Some(partition)) = of else {
            let which = format!("id `{}`", letter.id);
            self.findings.push(Finding::DeadLetter { which });
            return;
        };
        let is_ours = topic == Some(found) && letter.reason != "gap";
        if !is_ours || !self.known.insert(xxh3_64(letter.id.as_bytes())) {
            return;
        }
        if let Some(origin) = letter.origin
            && let Some(gap) = StreamGap::parse(origin.as_bytes())
        {
            self.stream_gaps.insert(origin.to_owned(), (partition, gap));
            return;
        }
        self.count += 1;
        if letter.reason.starts_with(AFTER_GAP) {
            return;
        }
        if letter.reason == ITEM_REFUSED && letter.origin.is_none() {
            match letter.value.map(Header::decode) {
                Some(Ok((header, _))) => self.census.header(partition, &header, true),
                _ => {
                    let which = format!("id `{}`: its header cannot be read", letter.id);
                    self.findings.push(Finding::DeadLetter { which });
                }
            }
            return;
        }
        match letter.origin.map(|origin| Origin::parse(origin.as_bytes())) {
            Some(Ok(origin)) => {
                let census = &mut self.census;
                census.origin(partition, &origin, true, letter.value, thresholds);
            }
            _ => self.census.unnumbered += 1,
        }
    }

    /// Counts the dead letters in a table; answers the read units that took.
    pub(crate) async fn table(
        &mut self,
        table: &Table,
        pipeline: &Pipeline,
        is_deep: bool,
        thresholds: &Thresholds,
    ) -> Result<f64, ReadError> {
        const SMALL: &[&str] = &[ORIGIN, "reason"];
        let topic = pipeline.topic.as_deref();
        let pk = keys::dead_letters_pk(&pipeline.name);
        let mut units = 0.0;
        let mut request = PageRequest {
            attributes: (!is_deep).then_some(SMALL),
            ..PageRequest::all(pk.clone())
        };
        loop {
            let page = table.query(&request).await?;
            units += page.read_units;
            for row in &page.items {
                let sk = text(row, &table.sk_name).unwrap_or_default();
                let Some((id, number)) = letter_id(sk) else {
                    let which = format!("sort key `{sk}`");
                    self.findings.push(Finding::DeadLetter { which });
                    continue;
                };
                if number != 0 {
                    continue;
                }
                let reason = text(row, "reason").unwrap_or_default();
                let mut value = None;
                if is_deep || reason == ITEM_REFUSED {
                    let (bytes, cost) = whole_value(table, &pk, sk).await?;
                    units += cost;
                    value = Some(bytes);
                }
                let letter = Letter {
                    id,
                    reason,
                    origin: text(row, ORIGIN),
                    value: value.as_deref(),
                };
                self.take(&letter, topic, thresholds);
            }
            match page.next_after {
                Some(after) => request.after = Some(after),
                None => return Ok(units),
            }
        }
    }
}

/// Id and row number of a dead letter's sort key `<time>/<id>/<number>`.
fn letter_id(sk: &str) -> Option<(&str, u32)> {
    let (_, rest) = sk.split_once('/')?;
    let (id, number) = rest.rsplit_once('/')?;
    Some((id, number.parse().ok()?))
}

/// The bytes of a dead letter, over all its rows.
async fn whole_value(table: &Table, pk: &str, first: &str) -> Result<(Vec<u8>, f64), ReadError> {
    let stem = first.rsplit_once('/').map_or(first, |(stem, _)| stem);
    let mut request = PageRequest {
        sort_keys: SortKeys::Prefix(format!("{stem}/")),
        attributes: Some(&[VALUE]),
        ..PageRequest::all(pk.to_owned())
    };
    let mut bytes = Vec::new();
    let mut units = 0.0;
    loop {
        let page = table.query(&request).await?;
        units += page.read_units;
        for row in &page.items {
            bytes.extend_from_slice(binary(row, VALUE).unwrap_or_default());
        }
        match page.next_after {
            Some(after) => request.after = Some(after),
            None => return Ok((bytes, units)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_its_gap_counts_as_a_letter_and_accounts_for_no_ordinal() {
        let mut letters = Letters::default();
        for (id, reason) in [
            ("p/t/0/5/0", "not-json"),
            ("p/t/0/s/a/105/0", "after-gap"),
            ("p/t/0/s/a/106/0", "after-gap-in-doubt"),
        ] {
            let line = format!(
                "{{\"id\":\"{id}\",\"reason\":\"{reason}\",\"origin\":\"mp1/s/a/105/0/1/1.5/k\",\"value_base64\":\"\"}}"
            );
            letters.line(&line, Some("t"), &Thresholds::default());
        }
        assert_eq!((letters.count, letters.findings.len()), (3, 0));
        let accounted: u64 = letters
            .census
            .shards
            .values()
            .map(|tally| tally.dead_letters)
            .sum();
        assert_eq!(accounted, 1);
    }
}
