//! `millpond verify` on tables that a run has written: a whole one, and every kind of damage. A
//! checker that shares no code with the product looks at the same tables.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_format::frame::{FrameBuilder, FrameDecoder, FrameEncoder};
use millpond_format::header::Header;
use millpond_format::marks::Marks;
use millpond_tests::checker::{Checked, ExpectedEvent, Item, check};
use millpond_tests::pipeline::{EVENTS, Pipeline, workload_arguments};
use millpond_tests::process::{self, Running};
use millpond_tests::{config, dead_letter_file};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;

const EVENT_COUNT: u64 = 4_000;

/// The exit code of `verify` with findings.
const FINDINGS: i32 = 6;

fn small_items() -> String {
    config::pipeline()
        .replace(
            "      group-by: /job_id\n",
            "      group-by: /job_id\n      max-item-bytes: \"8192\"\n",
        )
        .replace(
            "  max-age: 500ms\n",
            "  max-age: 500ms\n  max-item-bytes: 8192\n",
        )
}

/// A written table and what `verify` says of it.
struct Written {
    pipeline: Pipeline,
    items: Vec<Item>,
}

/// What `verify` printed.
struct Said {
    code: Option<i32>,
    findings: Vec<(String, String)>,
    summary: Value,
    text: String,
}

impl Written {
    async fn new(config: &str) -> Result<Self> {
        let pipeline = Pipeline::new(MILLPOND, 3, config).await?;
        pipeline.emit(EVENT_COUNT, 5)?;
        pipeline.catch_up()?;
        let items = pipeline.aws.scan(EVENTS).await?;
        Ok(Self { pipeline, items })
    }

    fn verify(&self, arguments: &[&str]) -> Result<Said> {
        let all = [&["verify", "--table", EVENTS, "--json"], arguments].concat();
        let output = self.pipeline.millpond(&all)?;
        let text = format!("{}{}", process::stdout(&output), process::stderr(&output));
        let mut said = Said {
            code: output.status.code(),
            findings: Vec::new(),
            summary: Value::Null,
            text,
        };
        for line in process::stdout(&output).lines() {
            let line: Value = serde_json::from_str(line)?;
            if let Some(kind) = line["finding"].as_str() {
                let message = line["message"].as_str().context("message")?;
                said.findings.push((kind.to_owned(), message.to_owned()));
            }
            if !line["complete"].is_null() {
                said.summary = line;
            }
        }
        Ok(said)
    }

    /// `verify` finds nothing.
    fn is_complete(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.verify(arguments)?;
        ensure!(said.code == Some(0), "{arguments:?}: {}", said.text);
        ensure!(said.summary["complete"] == true, "{}", said.text);
        Ok(said.summary)
    }

    /// `verify` finds something of this kind that says this.
    fn finds(&self, arguments: &[&str], kind: &str, words: &str) -> Result<()> {
        let said = self.verify(arguments)?;
        ensure!(said.code == Some(FINDINGS), "{arguments:?}: {}", said.text);
        let found = said.findings.iter();
        let mut found = found.filter(|(found, _)| found == kind);
        ensure!(
            found.any(|(_, message)| message.contains(words)),
            "no {kind} `{words}` in {}",
            said.text
        );
        Ok(())
    }

    async fn put(&self, item: &Item) -> Result<()> {
        let put = self.pipeline.aws.dynamodb.put_item();
        let put = put.table_name(EVENTS).set_item(Some(item.clone()));
        put.send().await?;
        Ok(())
    }

    async fn delete(&self, item: &Item) -> Result<()> {
        let delete = self.pipeline.aws.dynamodb.delete_item();
        let delete = delete.table_name(EVENTS).key("pk", item["pk"].clone());
        delete.key("sk", item["sk"].clone()).send().await?;
        Ok(())
    }

    async fn checked(&self) -> Result<Checked> {
        Ok(check(&self.pipeline.aws.scan(EVENTS).await?, "events-sink"))
    }

    fn expected(&self) -> Result<Vec<ExpectedEvent>> {
        let events = self.pipeline.expected(EVENT_COUNT, 5)?;
        events
            .into_iter()
            .map(|text| {
                let event: Value = serde_json::from_str(&text)?;
                Ok(ExpectedEvent {
                    partition_key: format!("{}/{}", event["job_id"], event["worker"]),
                    value: text.into_bytes(),
                })
            })
            .collect()
    }

    /// Items of the chain that has most of them, in order.
    fn longest_chain(&self) -> Vec<Item> {
        let mut chains: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
        for item in self.items.iter().filter(|item| item.contains_key("h")) {
            chains.entry(string(item, "pk")).or_default().push(item);
        }
        let longest = chains.into_values().max_by_key(Vec::len);
        let mut items: Vec<Item> = longest.into_iter().flatten().cloned().collect();
        items.sort_by(|a, b| string(a, "sk").cmp(string(b, "sk")));
        items
    }

    fn row(&self, prefix: &str) -> Result<Item> {
        let mut rows = self.items.iter();
        let row = rows.find(|item| string(item, "pk").starts_with(prefix));
        Ok(row.with_context(|| format!("no row `{prefix}`"))?.clone())
    }
}

fn string<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map_or("", String::as_str)
}

fn binary(item: &Item, name: &str) -> Vec<u8> {
    let value = item.get(name).and_then(|value| value.as_b().ok());
    value.map_or(Vec::new(), |bytes| bytes.as_ref().to_vec())
}

fn with(item: &Item, name: &str, value: AttributeValue) -> Item {
    let mut item = item.clone();
    item.insert(name.to_owned(), value);
    item
}

fn bytes(bytes: Vec<u8>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn flipped(item: &Item, name: &str) -> Item {
    let mut changed = binary(item, name);
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    with(item, name, bytes(changed))
}

/// The item with one letter of one event changed, and every checksum in order again.
fn forged(item: &Item) -> Result<Item> {
    let (mut header, _) = Header::decode(&binary(item, "h"))?;
    let frames = binary(item, "d");
    let mut decoder = FrameDecoder::new()?;
    let mut encoder = FrameEncoder::new(1)?;
    let (mut infos, mut packed) = (Vec::new(), Vec::new());
    for (info, range) in header.frame_ranges() {
        let frame = decoder.decode(header.codec, info, &frames[range])?;
        let mut builder = FrameBuilder::default();
        for (index, event) in frame.events.iter().enumerate() {
            let mut value = frame.value(event).to_vec();
            if index == 0 {
                let last = value.len() - 2;
                value[last] ^= 1;
            }
            builder.push(&value, event.time_ms, event.source, event.ordinal);
        }
        let (info, bytes) = encoder.encode(builder.take())?;
        infos.push(info);
        packed.extend(bytes);
    }
    header.frames = infos;
    let mut section = Vec::new();
    header.encode(&mut section);
    Ok(with(&with(item, "h", bytes(section)), "d", bytes(packed)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_table_verifies_and_every_damage_is_found() -> Result<()> {
    let written = Written::new(&small_items()).await?;
    let kinesis = written.pipeline.aws.kinesis_url().to_owned();
    let stream: [&str; 4] = ["--stream", EVENTS, "--kinesis-endpoint-url", &kinesis];
    let deep_stream = [&["--deep"], stream.as_slice()].concat();

    // Whole: in every way of looking, and as the other checker sees it.
    let summary = written.is_complete(&[])?;
    assert_eq!(summary["events"], EVENT_COUNT);
    ensure!(summary["read_units"].as_f64() > Some(0.0), "{summary}");
    let summary = written.is_complete(&deep_stream)?;
    assert_eq!(summary["in_stream"]["up_to_the_ledger"], EVENT_COUNT);
    assert_eq!(summary["in_stream"]["waiting"], 0);
    let half = written.is_complete(&["--eventual"])?;
    ensure!(half["read_units"].as_f64() < summary["read_units"].as_f64());
    let chain = written.longest_chain();
    ensure!(chain.len() >= 4, "{} items", chain.len());
    let group = string(&chain[0], "pk")
        .split_once('/')
        .and_then(|(_, rest)| rest.rsplit_once('#'))
        .map(|(group, _)| group)
        .context("group")?;
    written.is_complete(&["--group", group, "--deep"])?;
    let checked = written.checked().await?;
    assert_eq!(checked.compare(&written.expected()?), Vec::<String>::new());
    assert_eq!(checked.len() as u64, EVENT_COUNT);
    let human = written.pipeline.succeed(&["verify", "--table", EVENTS])?;
    let human = String::from_utf8(human)?;
    for part in [
        "4,000 events in",
        "0 findings",
        "read units",
        "\ncomplete\n",
    ] {
        ensure!(human.contains(part), "{part}: {human}");
    }

    // A finding, with the words and with what has to be said for it to be seen.
    let (second, last) = (&chain[1], &chain[chain.len() - 1]);
    let sees = async || -> Result<bool> {
        let checked = written.checked().await?;
        Ok(!checked.compare(&written.expected()?).is_empty())
    };

    written.delete(second).await?;
    let after = format!("after sort key `{}`", string(&chain[0], "sk"));
    written.finds(&[], "missing-items", &after)?;
    written.finds(&["--group", group], "missing-items", "1 with")?;
    written.finds(&[], "missing-events", "of stream `events`")?;
    ensure!(sees().await?);
    written.put(second).await?;

    written.delete(last).await?;
    written.finds(&[], "missing-events", "of stream `events`")?;
    ensure!(sees().await?);
    written.put(last).await?;

    let sk = format!("2099{}", &string(last, "sk")[4..]);
    let copy = with(last, "sk", AttributeValue::S(sk));
    written.put(&copy).await?;
    written.finds(&[], "repeated-item", "an item is there twice")?;
    ensure!(sees().await?);
    written.delete(&copy).await?;

    written.put(&flipped(second, "h")).await?;
    written.finds(&[], "damaged-item", "header")?;
    ensure!(sees().await?);
    written.put(&flipped(second, "d")).await?;
    written.is_complete(&[])?;
    written.finds(&["--deep"], "damaged-item", "checksum mismatch in frame")?;
    ensure!(sees().await?);
    written.put(&forged(second)?).await?;
    // Only the stream knows better than checksums that fit.
    let said = written.verify(&["--deep"])?;
    let only_totals = said
        .findings
        .iter()
        .all(|(kind, _)| kind == "repeated-item");
    ensure!(only_totals, "{}", said.text);
    written.finds(
        &deep_stream,
        "stream-differs",
        "events differ from those in the stream",
    )?;
    ensure!(sees().await?);
    written
        .put(&with(second, "n", AttributeValue::N("1".into())))
        .await?;
    written.finds(&[], "damaged-item", "attribute `n` is 1")?;
    written.put(second).await?;

    let bucket = written.row("millpond:groups/")?;
    written
        .put(&with(&bucket, "late", AttributeValue::N("0".into())))
        .await?;
    let late = written.verify(&[])?;
    ensure!(
        late.findings.iter().all(|(kind, _)| kind == "late"),
        "{}",
        late.text
    );
    written.put(&bucket).await?;

    let ledger = written.row("millpond:ledger/")?;
    let marks = Marks::decode(&binary(&ledger, "marks"))?;
    let mut lower = marks.clone();
    let mut mark = marks.iter().next().context("a mark")?.clone();
    mark.ordinal -= 1;
    lower.set(mark.clone());
    written
        .put(&with(&ledger, "marks", bytes(lower.encode()?)))
        .await?;
    let words = format!("is marked up to ordinal {}", mark.ordinal);
    written.finds(&[], "mark-behind", &words)?;
    written.put(&flipped(&ledger, "marks")).await?;
    written.finds(&[], "ledger-row", "do not match their checksum")?;
    let early = with(&ledger, "committed", AttributeValue::N("0".into()));
    written.put(&early).await?;
    written.finds(&[], "orphan", "no plan is open")?;
    written.delete(&ledger).await?;
    written.finds(&[], "ledger-missing", "items came through it")?;
    written.put(&ledger).await?;

    let mut gap: Item = HashMap::new();
    let partition = string(&ledger, "sk");
    for (name, value) in [
        ("pk", "millpond:gaps/events-sink/events".to_owned()),
        ("sk", format!("{partition}/0000000000000000000/00000")),
        ("gap", "offsets/3/9".to_owned()),
    ] {
        gap.insert(name.to_owned(), AttributeValue::S(value));
    }
    written.put(&gap).await?;
    written.finds(&[], "gap", "topic offsets 3 to 8 are lost")?;
    let accepted = written.verify(&["--accept-gaps"])?;
    ensure!(accepted.code == Some(0), "{}", accepted.text);
    written.delete(&gap).await?;

    // More in the stream than in the table is no finding: it waits.
    written.pipeline.aws.put(EVENTS, "k", b"{}").await?;
    assert_eq!(written.is_complete(&stream)?["in_stream"]["waiting"], 1);
    written.is_complete(&deep_stream)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_account_for_what_is_not_in_the_table() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    for number in 0..20 {
        let event = match number {
            7 | 13 => "no json".to_owned(),
            _ => format!("{{\"job_id\":\"j\",\"n\":{number}}}"),
        };
        pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
    }
    pipeline.catch_up()?;
    let items = pipeline.aws.scan(EVENTS).await?;
    let written = Written { pipeline, items };
    written.finds(
        &[],
        "missing-events",
        "if dead letters of this pipeline are in a file",
    )?;
    let path = dead_letter_file(&written.pipeline.dir().join("data"))?;
    let path = path.to_str().context("UTF-8 path")?;
    let kinesis = written.pipeline.aws.kinesis_url().to_owned();
    for more in [
        &[][..],
        &[
            "--deep",
            "--stream",
            EVENTS,
            "--kinesis-endpoint-url",
            &kinesis,
        ],
    ] {
        let arguments = [&["--dead-letters", path], more].concat();
        let summary = written.is_complete(&arguments)?;
        assert_eq!(
            (&summary["events"], &summary["dead_letters"]),
            (&18.into(), &2.into())
        );
    }
    Ok(())
}

/// Without the packer every item is an event, exactly known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_plain_items_verifies() -> Result<()> {
    let packed = config::pipeline();
    let (head, rest) = packed.split_once("transforms:\n").context("transforms")?;
    let (_, section) = rest.split_once("dynamodb:\n").context("section")?;
    let written = Written::new(&format!("{head}dynamodb:\n{section}")).await?;
    for arguments in [&[][..], &["--deep"]] {
        let summary = written.is_complete(arguments)?;
        assert_eq!(summary["events"], EVENT_COUNT);
    }
    assert_eq!(
        written.checked().await?.compare(&written.expected()?),
        Vec::<String>::new()
    );
    let plain = written.items.iter().find(|item| item.contains_key("v"));
    written.delete(plain.context("an item")?).await?;
    written.finds(&[], "missing-events", "events are missing: 1 of ordinals")?;
    Ok(())
}

/// The ledger is read first, so what is being written meanwhile is no finding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_verifies_while_it_is_written_and_after_kills() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &small_items()).await?;
    let written = Written {
        pipeline,
        items: Vec::new(),
    };
    let [events, seed, start, jobs] = workload_arguments(EVENT_COUNT, 5);
    let emit = [
        "emit",
        "--stream",
        EVENTS,
        &events,
        &seed,
        &start,
        &jobs,
        "--rate=0.3",
    ];
    let mut emitter = Running::start(&mut written.pipeline.command(&emit))?;
    let mut looks = 0;
    while emitter.is_running()? {
        let mut running = written.pipeline.start()?;
        written.pipeline.first_item().await?;
        for arguments in [&[][..], &["--deep"]] {
            written.is_complete(arguments)?;
            looks += 1;
        }
        running.signal(Signal::KILL)?;
        running.wait()?;
        // Whatever plan is open now is not judged.
        written.is_complete(&["--deep"])?;
    }
    ensure!(looks >= 2, "{looks}");
    ensure!(emitter.wait()?.success(), "{}", emitter.rest().1);
    written.pipeline.catch_up()?;
    let summary = written.is_complete(&["--deep"])?;
    assert_eq!(summary["events"], EVENT_COUNT);
    assert_eq!(summary["open_items"], 0);
    assert_eq!(
        written.checked().await?.compare(&written.expected()?),
        Vec::<String>::new()
    );
    Ok(())
}
