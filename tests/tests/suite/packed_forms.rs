//! Tables in the forms that need more of a reader than items one after the other: chains over several write shards,
//! which grew while they were written, and items packed anew with dictionaries. Every reader gives what was emitted.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use millpond_format::header::Header;
use millpond_format::keys;
use millpond_tests::checker::{self, ExpectedEvent, Item};
use millpond_tests::pipeline::{EVENTS, Pipeline, START_MS};
use millpond_tests::process::Running;
use millpond_tests::{announce_skipped, config, eventually, python};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;
use crate::readers::{
    PYTHON_READ, PYTHON_SLICE, by_group, by_producer, export_with_kills, lines, rows, run_python,
};

/// Name of the sink in the configuration.
const PIPELINE: &str = "events-sink";

/// Events that are written before those that are emitted at a rate.
const FIRST_EVENTS: u64 = 200;

/// Seed of those.
const FIRST_SEED: u64 = 9;

/// `millpond run` that has written its first items. Until it has compiled the packer it would not see the rate.
async fn begun(pipeline: &Pipeline) -> Result<Running> {
    pipeline.emit(FIRST_EVENTS, FIRST_SEED)?;
    let run = pipeline.start()?;
    pipeline.first_item().await?;
    Ok(run)
}

/// Numbers of the write shards of each chain, by group and topic partition.
async fn write_shards(pipeline: &Pipeline) -> Result<BTreeMap<(String, u32), BTreeSet<u32>>> {
    let mut found: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    // There is no table before the sink has made one.
    for item in pipeline.aws.scan(EVENTS).await.unwrap_or_default() {
        if let Some(key) = keys::parse_chain_pk(text(&item, "pk")?) {
            let chain = (key.group.to_owned(), key.partition);
            found.entry(chain).or_default().insert(key.write_shard);
        }
    }
    Ok(found)
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value.map(String::as_str).context("a string")
}

/// Events that make one chain hot: 700 write units and more, each of 20 and every third in two parts.
const HOT_EVENTS: u64 = 30;

/// An event that hardly becomes smaller, of a tenant of its own.
fn hot_event(number: u64) -> String {
    let words = if number.is_multiple_of(3) {
        4_000
    } else {
        2_500
    };
    let data: String = (0..words)
        .map(|n| {
            format!(
                "{:016x}",
                (number << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        })
        .collect();
    format!(r#"{{"job_id":"hot","worker":"w0","tenant":"hot","number":{number},"data":"{data}"}}"#)
}

/// Puts these, which are expected from now on.
async fn put_hot(
    pipeline: &Pipeline,
    numbers: Range<u64>,
    expected: &mut Vec<String>,
) -> Result<()> {
    for number in numbers {
        let event = hot_event(number);
        pipeline.aws.put(EVENTS, "hot", event.as_bytes()).await?;
        expected.push(event);
    }
    Ok(())
}

/// Groups of the tenants, of which there are few, in small items; whatever else the sink is told.
fn small_items(more: &str) -> String {
    let text = config::pipeline().replace(
        "group-by: /job_id\n",
        "group-by: /tenant\n      max-item-bytes: \"24576\"\n",
    );
    format!("{text}  max-item-bytes: 24576\n{more}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_gives_what_was_emitted_though_write_shards_grew() -> Result<()> {
    // One chain has more than a partition key takes in several seconds, and the sink finds that it needs another.
    let auto = small_items("  write-shards: auto\n  max-write-units-per-key: 40\n");
    let pipeline = Pipeline::new(MILLPOND, 2, &auto).await?;
    let mut run = begun(&pipeline).await?;
    let mut expected = pipeline.expected(FIRST_EVENTS, FIRST_SEED)?;
    pipeline.emit(2_000, 1)?;
    expected.extend(pipeline.expected(2_000, 1)?);
    put_hot(&pipeline, 0..HOT_EVENTS, &mut expected).await?;
    // One more a second, so that there is always something for a next plan.
    let (start, hot) = (Instant::now(), Cell::new(HOT_EVENTS));
    eventually("second write shard", async || {
        let number = hot.get();
        if start.elapsed().as_secs() > number - HOT_EVENTS {
            put_hot(&pipeline, number..number + 1, &mut Vec::new()).await?;
            hot.set(number + 1);
        }
        let chains = write_shards(&pipeline).await?;
        Ok(chains.values().any(|chain| chain.len() > 1).then_some(()))
    })
    .await?;
    let hot = hot.get();
    expected.extend((HOT_EVENTS..hot).map(hot_event));
    // It dies as it is: the plan that is open is finished under the next settings.
    run.signal(Signal::KILL)?;
    run.wait()?;
    for (seed, write_shards, hot) in [(2, 3, hot..hot + 12), (3, 5, hot + 12..hot + 24)] {
        pipeline.set_config(&small_items(&format!("  write-shards: {write_shards}\n")))?;
        pipeline.emit(2_000, seed)?;
        expected.extend(pipeline.expected(2_000, seed)?);
        put_hot(&pipeline, hot, &mut expected).await?;
        pipeline.catch_up()?;
    }
    let chains = write_shards(&pipeline).await?;
    let hot = chains.values().filter(|chain| chain.len() == 5).count();
    ensure!(hot >= 1, "{chains:?}");
    every_reader_gives(&pipeline, &expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_gives_what_was_emitted_though_items_need_dictionaries() -> Result<()> {
    let auto = format!("{}  dictionary: auto\n", config::pipeline());
    let pipeline = Pipeline::new(MILLPOND, 2, &auto).await?;
    let mut run = begun(&pipeline).await?;
    // At this rate a group gives a few events at a flush.
    let mut emit = pipeline.start_emit(12_000, 1, 1.0)?;
    let rows = format!("millpond:dictionaries/{PIPELINE}");
    eventually("dictionary", async || {
        let items = pipeline.aws.scan(EVENTS).await.unwrap_or_default();
        let is_there = items
            .iter()
            .any(|item| text(item, "pk").ok() == Some(&rows));
        Ok(is_there.then_some(()))
    })
    .await?;
    ensure!(emit.wait()?.success(), "{}", emit.stderr_so_far());
    let mut emit = pipeline.start_emit(2_000, 2, 1.0)?;
    ensure!(emit.wait()?.success(), "{}", emit.stderr_so_far());
    // The next process goes on with what the table has.
    run.signal(Signal::KILL)?;
    run.wait()?;
    pipeline.catch_up()?;
    let mut with_and_without = [0, 0];
    for item in pipeline.aws.scan(EVENTS).await? {
        let Some(header) = item.get("h").and_then(|value| value.as_b().ok()) else {
            continue;
        };
        let (header, _) = Header::decode(header.as_ref())?;
        with_and_without[usize::from(header.codec.dictionary().is_none())] += 1;
    }
    ensure!(
        with_and_without.iter().all(|items| *items > 0),
        "{with_and_without:?}"
    );
    let mut expected = pipeline.expected(FIRST_EVENTS, FIRST_SEED)?;
    for (events, seed) in [(12_000, 1), (2_000, 2)] {
        expected.extend(pipeline.expected(events, seed)?);
    }
    every_reader_gives(&pipeline, &expected).await
}

/// All that reads the table gives exactly these events, those of each producer in this order.
async fn every_reader_gives(pipeline: &Pipeline, expected: &[String]) -> Result<()> {
    // Someone who knows the page alone, and whose times of events the rest is held to.
    let items = pipeline.aws.scan(EVENTS).await?;
    let checked = checker::check(&items, PIPELINE);
    let differences = checked.compare(&with_keys(expected)?);
    ensure!(differences.is_empty(), "{differences:?}");
    let events = checked.chains.values().flatten();
    let times: HashMap<&[u8], i64> = events
        .map(|event| (event.value.as_slice(), event.time_ms))
        .collect();
    ensure!(times.len() == expected.len(), "equal events");

    let groups = by_group(pipeline)?;
    let all: Vec<(String, String)> = groups
        .iter()
        .flat_map(|(group, events)| events.iter().map(|event| (group.clone(), event.clone())))
        .collect();
    let whole: Vec<String> = all.iter().map(|(_, event)| event.clone()).collect();
    ensure!(whole.len() == expected.len(), "{} read", whole.len());
    ensure!(by_producer(&whole)? == by_producer(expected)?, "read");
    for (group, count) in pipeline.groups()? {
        ensure!(groups[&group].len() as u64 == count, "{group}: {count}");
    }
    let largest = groups.iter().max_by_key(|(_, events)| events.len());
    let (group, events) = largest.context("a group")?;
    let slice = read_in_parts(pipeline, group, events, &times)?;
    inspect(pipeline, group, events.len(), &items)?;
    tail(pipeline, &all)?;

    for more in [
        &[][..],
        &["--deep"],
        &["--stream", EVENTS],
        &["--deep", "--stream", EVENTS],
    ] {
        let arguments = [&["verify", "--table", EVENTS, "--json"], more].concat();
        let said = lines(&pipeline.succeed(&arguments)?);
        let summary: Value = serde_json::from_str(said.last().context("a summary")?)?;
        ensure!(summary["complete"] == true, "{more:?}: {summary}");
        ensure!(summary["events"] == expected.len(), "{more:?}: {summary}");
    }

    export_with_kills(pipeline, "ndjson", "all.ndjson", 1).await?;
    let exported = lines(&std::fs::read(pipeline.dir().join("all.ndjson"))?);
    ensure!(exported == whole, "{} exported", exported.len());
    export_with_kills(pipeline, "parquet", "all.parquet", 1).await?;
    let exported = rows(&pipeline.dir().join("all.parquet"))?;
    ensure!(exported == all, "{} rows", exported.len());

    match python::with(&["boto3", "zstandard"]) {
        Err(reason) => announce_skipped("the decoder for Python among all readers", &reason),
        Ok(python) => {
            let mut found = run_python(&python, pipeline, PYTHON_READ, &[EVENTS])?;
            // Groups come in an order of their own.
            found.sort_by(|one, other| one.split('\t').next().cmp(&other.split('\t').next()));
            let all = all.iter().map(|(group, event)| format!("{group}\t{event}"));
            ensure!(found.into_iter().eq(all), "Python");
            let (from, to) = (slice.from_ms.to_string(), slice.to_ms.to_string());
            let found = run_python(
                &python,
                pipeline,
                PYTHON_SLICE,
                &[EVENTS, group, &from, &to],
            )?;
            ensure!(found == slice.events, "Python, a slice");
        }
    }
    Ok(())
}

/// The events with their Kinesis partition keys.
fn with_keys(events: &[String]) -> Result<Vec<ExpectedEvent>> {
    let with_key = |text: &String| {
        let event: Value = serde_json::from_str(text)?;
        Ok(ExpectedEvent {
            partition_key: format!("{}/{}", event["job_id"], event["worker"]),
            value: text.clone().into_bytes(),
        })
    };
    events.iter().map(with_key).collect()
}

/// A part of a group by time, and the events in it as they are read.
struct Slice {
    from_ms: i64,
    to_ms: i64,
    events: Vec<String>,
}

/// `read` gives a slice by time, raw events, and the rest behind a page, of these.
fn read_in_parts(
    pipeline: &Pipeline,
    group: &str,
    events: &[String],
    times: &HashMap<&[u8], i64>,
) -> Result<Slice> {
    let read = ["read", "--table", EVENTS, "--group", group];
    let time_of = |event: &String| times.get(event.as_bytes()).copied().context("its time");
    let mut sorted = events.iter().map(time_of).collect::<Result<Vec<_>>>()?;
    sorted.sort_unstable();
    let (from_ms, to_ms) = (sorted[sorted.len() / 3], sorted[sorted.len() * 2 / 3]);
    let in_slice = |event: &&String| (from_ms..to_ms).contains(&times[event.as_bytes()]);
    let expected: Vec<String> = events.iter().filter(in_slice).cloned().collect();
    let part = expected.len();
    ensure!(0 < part && part < events.len(), "{part} in the slice");
    let (from, to) = (format!("--from={from_ms}"), format!("--to={to_ms}"));
    let found = lines(&pipeline.succeed(&[&read[..], &[&from, &to]].concat())?);
    // Topic partitions are merged by the times of their next events, which are others at its beginning.
    ensure!(
        by_producer(&found)? == by_producer(&expected)?,
        "{} of a slice of {part}",
        found.len()
    );
    let slice = Slice {
        from_ms,
        to_ms,
        events: found,
    };

    let raw = pipeline.succeed(&[&read[..], &["--raw"]].concat())?;
    let mut expected = Vec::new();
    for event in events {
        expected.extend_from_slice(&u32::try_from(event.len())?.to_be_bytes());
        expected.extend_from_slice(event.as_bytes());
    }
    ensure!(raw == expected, "raw");

    let limit = format!("--limit={}", events.len() / 2);
    let page = pipeline.millpond(&[&read[..], &[&limit]].concat())?;
    let said = String::from_utf8_lossy(&page.stderr).into_owned();
    let token = said
        .lines()
        .find_map(|line| line.strip_prefix("page token: "));
    let token = token.with_context(|| said.clone())?;
    let rest = pipeline.succeed(&[&read[..], &["--page-token", token]].concat())?;
    let found = [lines(&page.stdout), lines(&rest)].concat();
    ensure!(found == events, "{} in two pages", found.len());
    Ok(slice)
}

/// `inspect` shows every item of a group with its events, and one of each of its keys by itself.
fn inspect(pipeline: &Pipeline, group: &str, events: usize, items: &[Item]) -> Result<()> {
    let of_group = |item: &&Item| {
        let key = text(item, "pk").ok().and_then(keys::parse_chain_pk);
        key.is_some_and(|key| key.group == group)
    };
    let items: Vec<&Item> = items.iter().filter(of_group).collect();
    let arguments = [
        "inspect", "--table", EVENTS, "--group", group, "--limit", "100000",
    ];
    let shown = lines(&pipeline.succeed(&arguments)?);
    let shown: Vec<Value> = shown
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    ensure!(shown.len() == items.len(), "{} items", shown.len());
    let counts = shown.iter().filter_map(|item| item["events"].as_u64());
    ensure!(counts.sum::<u64>() == events as u64, "{events} events");
    let mut keys_seen = BTreeSet::new();
    for item in items {
        let (pk, sk) = (text(item, "pk")?, text(item, "sk")?);
        if keys_seen.insert(pk) {
            let alone = ["inspect", "--table", EVENTS, "--pk", pk, "--sk", sk];
            let alone: Value = serde_json::from_slice(&pipeline.succeed(&alone)?)?;
            ensure!(shown.contains(&alone), "{alone}");
        }
    }
    Ok(())
}

/// `tail` from the beginning gives each event once, under its group, those of a producer in order.
fn tail(pipeline: &Pipeline, all: &[(String, String)]) -> Result<()> {
    let (from, limit) = (
        format!("--from={START_MS}"),
        format!("--limit={}", all.len()),
    );
    let arguments = [
        "tail",
        "--table",
        EVENTS,
        "--all",
        "--group-names",
        &limit,
        &from,
    ];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines(&pipeline.succeed(&arguments)?) {
        let (group, event) = line.split_once('\t').context("group and event")?;
        let of_group = found.entry(group.to_owned()).or_default();
        of_group.push(event.to_owned());
    }
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, event) in all {
        let of_group = expected.entry(group.clone()).or_default();
        of_group.push(event.clone());
    }
    ensure!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    for (group, events) in &found {
        let expected = by_producer(&expected[group])?;
        ensure!(by_producer(events)? == expected, "tail of {group}");
    }
    Ok(())
}
