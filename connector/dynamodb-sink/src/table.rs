//! The table itself: made if asked for, waited for, checked; and the registry of pipelines in it.

use std::time::Duration;

use millpond_connector::backoff::{Backoff, BackoffPolicy};
use millpond_connector::random;
use millpond_format::keys;
use millpond_sink::registration::Registration;
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::client::{Capacity, Condition, TableDescription};
use crate::error::DynamoError;
use crate::form::ItemForm;
use crate::limits::TABLE_ACTIVE_WITHIN;
use crate::row::{Key, KeyNames, Row, Value, names as row_names};
use crate::writer::TableWriter;

/// Newest version of the table layout, see `FORMAT.md`: that of items with names of attributes, or a prefix of
/// keys, of the user's choosing.
pub const LAYOUT_VERSION: i64 = 2;

/// Version of the layout where all of that is as in `FORMAT.md`.
const FIRST_LAYOUT_VERSION: i64 = 1;

/// Pipelines that are read at once.
const PIPELINES_PAGE: usize = 1_000;

/// Makes the table if need be (`create`), waits until it is active and checks its keys.
///
/// # Errors
/// [`DynamoError::Schema`] for a table that is missing, never becomes active, or has other keys.
pub async fn prepare(table: &TableWriter, create: Option<Capacity>) -> Result<(), DynamoError> {
    let mut backoff = Backoff::new(BackoffPolicy::endless(
        Duration::from_millis(100),
        Duration::from_secs(3),
    ));
    let begun = Instant::now();
    let mut created = false;
    loop {
        let status = match table.describe().await? {
            Some(found) if found.active => return check_keys(table, &found),
            Some(found) => {
                // A table with other keys will not get better by waiting.
                check_keys(table, &found)?;
                found.status
            }
            None => match create {
                Some(capacity) if !created => {
                    info!(table = table.name(), ?capacity, "creating the table");
                    table.create(capacity).await?;
                    created = true;
                    continue;
                }
                Some(_) => "not listed yet".to_owned(),
                None => {
                    return Err(DynamoError::Schema(format!(
                        "table `{}` does not exist: create it with partition key `{}` and sort key \
                         `{}`, both strings, or set `create-table: true`",
                        table.name(),
                        table.keys().partition,
                        table.keys().sort,
                    )));
                }
            },
        };
        if begun.elapsed() > TABLE_ACTIVE_WITHIN {
            return Err(DynamoError::Schema(format!(
                "table `{}` is `{status}` after {} s: look at it in the AWS console",
                table.name(),
                TABLE_ACTIVE_WITHIN.as_secs(),
            )));
        }
        sleep(backoff.next_wait(random::unit()).unwrap_or_default()).await;
    }
}

fn check_keys(table: &TableWriter, found: &TableDescription) -> Result<(), DynamoError> {
    match key_problem(table.keys(), found) {
        None => Ok(()),
        Some(problem) => Err(DynamoError::Schema(format!(
            "table `{}` {problem}; set `partition-key` and `sort-key` to its names, or use another table",
            table.name(),
        ))),
    }
}

/// What differs between the keys needed and those found.
#[must_use]
pub fn key_problem(keys: &KeyNames, found: &TableDescription) -> Option<String> {
    let wanted = [(&keys.partition, "HASH"), (&keys.sort, "RANGE")];
    let same = found.keys.len() == wanted.len()
        && wanted.iter().all(|(name, role)| {
            let mut keys = found.keys.iter();
            keys.any(|(found, is, kind)| found == *name && is == role && kind == "S")
        });
    if same {
        return None;
    }
    let text = |(name, role, kind): (&str, &str, &str)| format!("{role} `{name}` ({kind})");
    let wanted = wanted.map(|(name, role)| text((name, role, "S")));
    let found: Vec<String> = found.keys.iter().map(|(n, r, k)| text((n, r, k))).collect();
    Some(format!(
        "has the keys {}, needed are {}",
        found.join(", "),
        wanted.join(", ")
    ))
}

/// A pipeline that is to be registered.
#[derive(Debug, Clone, Copy)]
pub struct Registered<'a> {
    /// Its name.
    pub pipeline: &'a str,
    /// What feeds it.
    pub registration: &'a Registration,
    /// What its items look like. Those that a mapping makes are no chains that can be read and proven.
    pub form: &'a ItemForm,
}

/// Registers the pipeline; answers the registration that was there before.
///
/// It is registered with its items, where a reader looks, and says there where its ledger is. A ledger
/// in another table is registered there too, with the table of its items: two pipelines of one name
/// with one table or one ledger in common would otherwise write into each other's.
///
/// # Errors
/// [`DynamoError::Registry`] for a registration of another layout, with other tables, or of another
/// kind of items.
pub async fn register(
    table: &TableWriter,
    ledger: Option<&TableWriter>,
    of: Registered<'_>,
) -> Result<Option<Registration>, DynamoError> {
    let Registered {
        pipeline,
        registration,
        form,
    } = of;
    let is_mapped = form.mapping.is_some();
    let (names, prefix) = (form.names.text(), Some(form.key_prefix.as_str()));
    let prefix = prefix.filter(|prefix| !prefix.is_empty());
    let version = match (&names, prefix) {
        (None, None) => FIRST_LAYOUT_VERSION,
        _ => LAYOUT_VERSION,
    };
    let key = Key {
        pk: keys::PIPELINES_PK.to_owned(),
        sk: pipeline.to_owned(),
    };
    let row = Row::new(key)
        .with(row_names::VERSION, Value::N(version))
        .with(row_names::TOPIC, Value::S(registration.topic.clone()))
        .with(
            row_names::PARTITIONS,
            Value::N(registration.partitions.into()),
        )
        .with(
            row_names::FINGERPRINT,
            Value::S(registration.fingerprint.clone()),
        );
    let row = match is_mapped {
        true => row.with(row_names::MAPPED, Value::N(1)),
        false => row,
    };
    let mut with_items = row.clone();
    for (name, text) in [
        (row_names::NAMES, names.as_deref()),
        (row_names::PREFIX, prefix),
    ] {
        if let Some(text) = text {
            with_items = with_items.with(name, Value::S(text.to_owned()));
        }
    }
    if let Some(ledger) = ledger {
        with_items = with_items.with(row_names::LEDGER, Value::S(ledger.name().to_owned()));
        let has_ledger = ledger.get(&row.key).await?.is_some();
        if has_ledger && table.get(&row.key).await?.is_none() {
            return Err(refusal(
                pipeline,
                table,
                &format!(
                    "is not registered, although its ledger is in `{}`: the table was made anew; restore it, \
                     or use another name under `pipeline`",
                    ledger.name()
                ),
            ));
        }
    }
    let found = registered(table, pipeline, with_items).await?;
    if let Some(found) = &found {
        check_place(table, ledger, pipeline, found)?;
        let (was, is) = match (found.integer(row_names::MAPPED).is_some(), is_mapped) {
            (true, false) => ("mapped events", "items in chains"),
            (false, true) => ("items in chains", "mapped events"),
            _ => ("", ""),
        };
        if was != is {
            let what = format!(
                "holds {was}, and `plain` is about {is}: use another name under `pipeline`",
            );
            return Err(refusal(pipeline, table, &what));
        }
        // Readers find all items by what the registration says.
        if found.string(row_names::NAMES) != names.as_deref()
            || found.string(row_names::PREFIX) != prefix
        {
            let what = "has items with other names of attributes, or another prefix of keys: set `attribute-names` \
                 and `key-prefix` as they were, or use another name under `pipeline`";
            return Err(refusal(pipeline, table, what));
        }
    }
    if let Some(ledger) = ledger {
        let row = row.with(row_names::ITEMS, Value::S(table.name().to_owned()));
        let found = registered(ledger, pipeline, row).await?;
        if let Some(found) = &found {
            check_items(table, ledger, pipeline, found)?;
        }
    }
    Ok(found.as_ref().map(read_registration))
}

fn read_registration(row: &Row) -> Registration {
    let text = |name| row.string(name).unwrap_or_default().to_owned();
    let partitions = row.integer(row_names::PARTITIONS);
    Registration {
        topic: text(row_names::TOPIC),
        partitions: partitions.and_then(|n| n.try_into().ok()).unwrap_or(0),
        fingerprint: text(row_names::FINGERPRINT),
    }
}

/// Registrations of all pipelines of the table.
///
/// # Errors
/// [`DynamoError`] when the table cannot be read.
pub async fn registrations(
    table: &TableWriter,
) -> Result<Vec<(String, Registration)>, DynamoError> {
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let page = table
            .tail(
                keys::PIPELINES_PK,
                before.as_deref(),
                PIPELINES_PAGE,
                row_names::TOPIC,
            )
            .await?;
        for listed in &page.rows {
            // A listing has the keys; they are few.
            if let Some(row) = table.get(&listed.key).await? {
                found.push((row.key.sk.clone(), read_registration(&row)));
            }
        }
        match page.rows.last().filter(|_| page.more) {
            Some(last) => before = Some(last.key.sk.clone()),
            None => return Ok(found),
        }
    }
}

fn refusal(pipeline: &str, table: &TableWriter, what: &str) -> DynamoError {
    DynamoError::Registry(format!(
        "pipeline `{pipeline}` in table `{}` {what}",
        table.name()
    ))
}

/// Puts a registration if there is none; answers the one that was there, once its layout is known.
async fn registered(
    table: &TableWriter,
    pipeline: &str,
    row: Row,
) -> Result<Option<Row>, DynamoError> {
    if table.put(&row, &Condition::Absent).await? {
        return Ok(None);
    }
    let refuse = |what: &str| Err(refusal(pipeline, table, what));
    let Some(found) = table.get(&row.key).await? else {
        return refuse("lost its registration under way: start again");
    };
    match found.integer(row_names::VERSION) {
        Some(FIRST_LAYOUT_VERSION..=LAYOUT_VERSION) => Ok(Some(found)),
        Some(newer) if newer > LAYOUT_VERSION => refuse(&format!(
            "has layout version {newer}, newer than {LAYOUT_VERSION}, the newest known here: \
             upgrade Millpond or use another name under `pipeline`"
        )),
        _ => refuse("was not registered by Millpond; use another name under `pipeline`"),
    }
}

/// The ledger is where the registration with the items says.
fn check_place(
    table: &TableWriter,
    ledger: Option<&TableWriter>,
    pipeline: &str,
    found: &Row,
) -> Result<(), DynamoError> {
    let there = found.string(row_names::LEDGER);
    let here = ledger.map(TableWriter::name);
    if there.map(bare_name) == here.map(bare_name) {
        return Ok(());
    }
    let place = |name: Option<&str>| {
        name.map_or("the same table".to_owned(), |name| {
            format!("table `{name}`")
        })
    };
    let what = format!(
        "has its ledger in {}, not in {}: set `ledger-table` as it was, or use another name under `pipeline`",
        place(there),
        place(here)
    );
    Err(refusal(pipeline, table, &what))
}

/// The items of the ledger are where the registration with the ledger says.
fn check_items(
    table: &TableWriter,
    ledger: &TableWriter,
    pipeline: &str,
    found: &Row,
) -> Result<(), DynamoError> {
    let there = found
        .string(row_names::ITEMS)
        .unwrap_or_else(|| ledger.name());
    if bare_name(there) == bare_name(table.name()) {
        return Ok(());
    }
    let what = format!(
        "is the ledger of items in table `{there}`, not in `{}`: use another name under `pipeline`",
        table.name()
    );
    Err(refusal(pipeline, ledger, &what))
}

/// A table's name, given as such or within its ARN.
fn bare_name(name: &str) -> &str {
    match name.split_once(":table/") {
        Some((_, rest)) => rest.split('/').next().unwrap_or(rest),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_keys_are_named_beside_those_needed() {
        let found = |keys: &[(&str, &str, &str)]| TableDescription {
            active: true,
            status: "ACTIVE".into(),
            keys: keys
                .iter()
                .map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into()))
                .collect(),
            capacity: crate::pacing::WriteCapacity::OnDemand { max: None },
        };
        let names = KeyNames::default();
        let good = found(&[("pk", "HASH", "S"), ("sk", "RANGE", "S")]);
        assert_eq!(key_problem(&names, &good), None);
        for bad in [
            found(&[("pk", "HASH", "S")]),
            found(&[("pk", "HASH", "S"), ("sk", "RANGE", "N")]),
            found(&[("id", "HASH", "S"), ("sk", "RANGE", "S")]),
            found(&[("sk", "HASH", "S"), ("pk", "RANGE", "S")]),
        ] {
            let problem = key_problem(&names, &bad).expect("differs");
            assert!(
                problem.contains("needed are HASH `pk` (S), RANGE `sk` (S)"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_table_is_the_same_by_name_and_by_arn() {
        let arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/events";
        assert_eq!(bare_name(arn), "events");
        assert_eq!(bare_name("events"), "events");
        assert_eq!(bare_name(&format!("{arn}/index/i")), "events");
    }
}
