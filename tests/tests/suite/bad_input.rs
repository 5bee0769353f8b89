//! What bad input gets, where a user meets it.

use std::collections::HashMap;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use millpond_fault_proxy::{Plan, Service};
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::process::{self, Running, command};
use millpond_tests::{announce_skipped, config};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::Value;

use crate::MILLPOND;

/// The process failed, without a panic, and said all of these.
fn refused(output: &Output, texts: &[&str]) -> Result<()> {
    let log = process::stderr(output);
    let code = output.status.code().context("ended by a signal")?;
    ensure!((1..100).contains(&code), "exit code {code}\n{log}");
    ensure!(!log.contains("panicked"), "{log}");
    for text in texts {
        ensure!(log.contains(text), "no `{text}` in\n{log}");
    }
    Ok(())
}

#[test]
fn ten_mistakes_are_reported_at_once_with_their_places() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = config::write(
        dir.path(),
        "\
apiVersion: 0.1.0
meta:
  name: events-source
  type: kinesis-sourec
  topic: events
  version: 0.1.0
kinesis:
  stream: events
---
apiVersion: 0.9.0
meta:
  name: events-sink
  type: dynamodb-sink
  topic: evnets
  version: 0.1.0
  producer:
    linger: soon
transforms:
  - uses: millpond/pakc@0.1.0
    with:
      group-by: job_id
dynamodb:
  tabel: events
  create-table: maybe
  max-item-bytes: 500000
  max-age: 0s
  partition-key: ${{ secrets.MISSING }}
",
    )?;
    let path = path.to_str().context("UTF-8 path")?;
    let output = process::run(&mut command(MILLPOND, &["validate", path], &[]))?;
    let said = format!("{}{}", process::stdout(&output), process::stderr(&output));
    ensure!(output.status.code() == Some(3), "{}\n{said}", output.status);
    for (line, column, texts) in [
        (4, 9, &["kinesis-sourec", "kinesis-source"][..]),
        (5, 10, &["emptied by no sink"]),
        (10, 13, &["0.9.0"]),
        (14, 10, &["evnets", "events"]),
        (17, 13, &["soon"]),
        (19, 11, &["millpond/pakc", "millpond/pack"]),
        (22, 1, &["`dynamodb.table` is missing"]),
        (23, 3, &["tabel", "table"]),
        (24, 17, &["maybe"]),
        (25, 19, &["500000", "400 KiB"]),
        (26, 12, &["0s"]),
        (27, 18, &["MISSING"]),
    ] {
        told_at(&said, line, column, texts)?;
    }
    ensure!(said.matches(": error: ").count() == 12, "{said}");
    Ok(())
}

/// One of these lines is about this place, and says all of these.
fn told_at(said: &str, line: u32, column: u32, texts: &[&str]) -> Result<()> {
    let place = format!("Connector.yaml:{line}:{column}: ");
    let told = said
        .lines()
        .find(|told| told.contains(&place))
        .with_context(|| format!("nothing about {line}:{column} in\n{said}"))?;
    for text in texts {
        ensure!(told.contains(text), "no `{text}` in\n{told}");
    }
    Ok(())
}

/// Each of these could be started: the first ended with the first large event, at every start; the second at
/// once; the third went on, and made every event a dead letter.
#[test]
fn settings_that_do_not_fit_together_are_told_before_anything_starts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let small = format!("{}  max-item-bytes: 8192\n", config::pipeline());
    let larger = small.replace("group-by: /job_id", "max-item-bytes: \"16384\"");
    let second = "topic: events\n  version: 0.1.0\ntransforms:";
    let partition = second.replace("\ntr", "\n  consumer: {partition: 700}\ntr");
    let partitions = second.replace("\ntr", "\n  consumer: {partition: [1, 4]}\ntr");
    let four = config::pipeline().replace("trim-horizon", "trim-horizon\n  topic-partitions: 4");
    let packed = "  - uses: millpond/pack@0.1.0\n";
    for (text, line, column, texts) in [
        (
            small,
            27,
            19,
            &["8 KiB", "409600", "max-item-bytes: \"8192\"", "`with`"][..],
        ),
        (larger, 27, 19, &["8 KiB", "16384", "at most 8192"]),
        (
            config::pipeline().replace(second, &partition),
            19,
            25,
            &["700", "`events` has 4 partitions"],
        ),
        (
            four.replace(second, &partitions),
            20,
            25,
            &["`events` has 4 partitions", "0 to 3"],
        ),
        (
            config::pipeline().replace(packed, &packed.repeat(2)),
            21,
            11,
            &["transforms[0]", "packed already"],
        ),
    ] {
        let path = config::write(dir.path(), &text)?;
        let path = path.to_str().context("UTF-8 path")?;
        let data = dir.path().join("data");
        let data = data.to_str().context("UTF-8 path")?;
        for arguments in [&["validate", path][..], &["run", path, "--data-dir", data]] {
            let output = process::run(&mut command(MILLPOND, arguments, &[]))?;
            let said = process::stderr(&output);
            ensure!(output.status.code() == Some(3), "{}\n{said}", output.status);
            told_at(&said, line, column, texts)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_down_is_waited_for_at_start_and_later() -> Result<()> {
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    let proxy = pipeline.proxy(Service::Kinesis, Plan::none()).await?;
    proxy.cut();
    let mut running = pipeline.start()?;
    running.stderr_line("WARN")?;
    proxy.restore();
    for number in 0..20 {
        let event = format!("{{\"job_id\":\"j\",\"n\":{number}}}");
        pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
    }
    pipeline.first_item().await?;
    proxy.cut();
    running.stderr_line("WARN")?;
    for number in 20..40 {
        let event = format!("{{\"job_id\":\"j\",\"n\":{number}}}");
        pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
    }
    proxy.restore();
    millpond_tests::eventually("all events", async || {
        Ok((pipeline.groups()?.get("j") == Some(&40)).then_some(()))
    })
    .await?;
    ensure!(running.is_running()?, "{}", running.rest().1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_down_at_start_is_waited_for() -> Result<()> {
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    let proxy = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
    proxy.cut();
    pipeline.aws.put(EVENTS, "k", br#"{"job_id":"j"}"#).await?;
    let mut running = pipeline.start()?;
    running.stderr_line("WARN")?;
    proxy.restore();
    pipeline.first_item().await?;
    ensure!(running.is_running()?, "{}", running.rest().1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_credentials_are_named() -> Result<()> {
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline
        .environment
        .retain(|(name, _)| name != "AWS_ACCESS_KEY_ID" && name != "AWS_SECRET_ACCESS_KEY");
    refused(&pipeline.run()?, &["credentials"])?;
    pipeline
        .environment
        .retain(|(name, _)| !name.contains("REGION"));
    refused(&pipeline.run()?, &["region", "AWS_REGION"])
}

/// Answers every request as AWS answers one with wrong credentials.
async fn wrong_credentials_server() -> Result<(String, tokio::task::JoinHandle<()>)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                if stream.read(&mut request).await.is_ok() {
                    let body = r#"{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}"#;
                    let answer = format!(
                        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    Ok((url, task))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_end_the_run_with_the_answer_of_aws() -> Result<()> {
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    let (url, server) = wrong_credentials_server().await?;
    for endpoint in ["AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_DYNAMODB"] {
        pipeline.environment = pipeline.aws.environment_with(endpoint, &url);
        refused(&pipeline.run()?, &["security token", "credentials"])?;
    }
    server.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_another_key_schema_is_refused() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline
        .aws
        .dynamodb
        .create_table()
        .table_name(EVENTS)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("id")
                .attribute_type(ScalarAttributeType::N)
                .build()?,
        )
        .key_schema(
            KeySchemaElement::builder()
                .attribute_name("id")
                .key_type(KeyType::Hash)
                .build()?,
        )
        .send()
        .await?;
    pipeline.aws.put(EVENTS, "k", br#"{"job_id":"j"}"#).await?;
    refused(&pipeline.run()?, &["key", "`id`", "`pk`", "`sk`", EVENTS])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_exist_is_named() -> Result<()> {
    let text = config::pipeline().replace("stream: events", "stream: nowhere");
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    refused(&pipeline.run()?, &["nowhere", "stream", "us-east-1"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_does_not_exist_is_named() -> Result<()> {
    let text = config::pipeline().replace("create-table: true", "create-table: false");
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    pipeline.aws.put(EVENTS, "k", br#"{"job_id":"j"}"#).await?;
    refused(&pipeline.run()?, &["table", EVENTS, "create-table"])?;
    refused(
        &pipeline.millpond(&["read", "--table", "nowhere", "--group", "g"])?,
        &["nowhere"],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_group_costs_one_dead_letter() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    pipeline.emit(1_000, 1)?;
    pipeline
        .aws
        .put(EVENTS, "poison", b"this is not JSON")
        .await?;
    pipeline.emit(1_000, 2)?;
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(1_000, 1)?;
    expected.extend(pipeline.expected(1_000, 2)?);
    expected.sort_unstable();
    assert_eq!(pipeline.read_all()?, expected);

    let letters = dead_letters(&pipeline)?;
    ensure!(letters.len() == 1, "{letters:?}");
    let letter = letters[0].to_string();
    for text in [
        "not-json",
        "/job_id",
        "shardId-",
        "poison",
        "dGhpcyBpcyBub3QgSlNPTg==",
    ] {
        ensure!(letter.contains(text), "no `{text}` in {letter}");
    }
    Ok(())
}

/// Entries of the dead-letter file, wherever below the data directory it is.
fn dead_letters(pipeline: &Pipeline) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    let mut folders = vec![pipeline.dir().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("dead") {
                for line in std::fs::read_to_string(&path)?.lines() {
                    entries.push(serde_json::from_str(line)?);
                }
            }
        }
    }
    Ok(entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_huge_and_incompressible_events_come_back_unchanged() -> Result<()> {
    let text = config::pipeline().replace("group-by: /job_id", "group-by: partition-key");
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    let summary = pipeline
        .aws
        .kinesis
        .describe_stream_summary()
        .stream_name(EVENTS)
        .send()
        .await?;
    let arn = summary
        .stream_description_summary()
        .map(|summary| summary.stream_arn().to_owned())
        .context("stream ARN")?;
    pipeline
        .aws
        .kinesis
        .update_max_record_size()
        .stream_arn(arn)
        .max_record_size_in_kib(10_240)
        .send()
        .await?;
    let mut random = StdRng::seed_from_u64(1);
    let mut noise = |bytes: usize| {
        let mut event = vec![0; bytes];
        random.fill_bytes(&mut event);
        event
    };
    // The partition key counts towards the size of a record.
    let events = [
        b"before".to_vec(),
        Vec::new(),
        noise(300),
        noise(1 << 20),
        vec![b'a'; 3 << 20],
        noise((10 << 20) - 1),
        Vec::new(),
        b"after".to_vec(),
    ];
    for event in &events {
        pipeline.aws.put(EVENTS, "k", event).await?;
    }
    pipeline.catch_up()?;
    let raw = pipeline.succeed(&["read", "--table", EVENTS, "--group", "k", "--raw"])?;
    let mut rest = raw.as_slice();
    let mut read = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (event, tail) = tail
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .context("whole event")?;
        read.push(event.to_vec());
        rest = tail;
    }
    let lengths = |events: &[Vec<u8>]| events.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&read), lengths(&events));
    ensure!(read == events, "an event changed on its way");
    Ok(())
}

type Item = HashMap<String, AttributeValue>;

async fn put_item(pipeline: &Pipeline, item: Item) -> Result<()> {
    pipeline
        .aws
        .dynamodb
        .put_item()
        .table_name(EVENTS)
        .set_item(Some(item))
        .send()
        .await?;
    Ok(())
}

fn binary(item: &Item, name: &str) -> Result<Vec<u8>> {
    let value = item.get(name).and_then(|value| value.as_b().ok());
    Ok(value
        .with_context(|| format!("attribute {name}"))?
        .as_ref()
        .to_vec())
}

fn text(item: &Item, name: &str) -> Result<String> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    Ok(value.with_context(|| format!("attribute {name}"))?.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_item_is_named_and_the_rest_is_read_when_told_to() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    // Three runs, so that the group has at least three items.
    for number in 0..3 {
        let event = format!("{{\"job_id\":\"j\",\"n\":{number}}}");
        pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
        pipeline.catch_up()?;
    }
    let mut items: Vec<Item> = pipeline.aws.scan(EVENTS).await?;
    items.retain(|item| item.contains_key("d"));
    items.sort_by_key(|item| text(item, "sk").unwrap_or_default());
    ensure!(items.len() == 3, "{} items", items.len());
    let read = ["read", "--table", EVENTS, "--group", "j"];
    let skipping = ["read", "--table", EVENTS, "--group", "j", "--skip-damaged"];
    let sk = text(&items[1], "sk")?;
    let expected = "{\"job_id\":\"j\",\"n\":0}\n{\"job_id\":\"j\",\"n\":2}\n";

    let mut flipped = items[1].clone();
    let mut payload = binary(&flipped, "d")?;
    payload[3] ^= 0x10;
    flipped.insert("d".into(), AttributeValue::B(Blob::new(payload)));

    let mut header_flipped = items[1].clone();
    let mut header = binary(&header_flipped, "h")?;
    let middle = header.len() / 2;
    header[middle] ^= 1;
    header_flipped.insert("h".into(), AttributeValue::B(Blob::new(header)));

    let mut truncated = items[1].clone();
    let mut payload = binary(&truncated, "d")?;
    payload.pop();
    truncated.insert("d".into(), AttributeValue::B(Blob::new(payload)));

    let mut foreign = items[1].clone();
    foreign.retain(|name, _| name == "pk" || name == "sk");
    foreign.insert("note".into(), AttributeValue::S("not by Millpond".into()));

    for (item, check) in [
        (flipped, "checksum"),
        (header_flipped, "checksum"),
        (truncated, ""),
        (foreign, ""),
    ] {
        put_item(&pipeline, item).await?;
        refused(&pipeline.millpond(&read)?, &[&sk, check, EVENTS])?;
        let output = pipeline.millpond(&skipping)?;
        refused(&output, &[&sk, check])?;
        ensure!(output.status.code() == Some(5), "{}", output.status);
        assert_eq!(process::stdout(&output), expected);
    }
    put_item(&pipeline, items[1].clone()).await?;
    assert_eq!(pipeline.read("j")?.len(), 3);
    refused(
        &pipeline.millpond(&["read", "--table", EVENTS, "--group", "unknown"])?,
        &["unknown", "groups"],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_or_foreign_module_is_named() -> Result<()> {
    let text = config::pipeline().replace("uses: millpond/pack@0.1.0", "uses: ./module.wasm");
    let pipeline = Pipeline::new(MILLPOND, 1, &text).await?;
    let module = pipeline.dir().join("module.wasm");
    for bytes in [
        b"this is no module".to_vec(),
        // A valid, empty module: magic and version only.
        b"\0asm\x01\0\0\0".to_vec(),
        millpond_tests::PACK_WASM[..1_000].to_vec(),
    ] {
        std::fs::write(&module, bytes)?;
        refused(&pipeline.run()?, &["module.wasm"])?;
    }
    std::fs::remove_file(&module)?;
    refused(&pipeline.run()?, &["module.wasm"])
}

/// Mounts a small file system for one process: needs the right to.
fn small_disk_command(pipeline: &Pipeline, arguments: &[&str]) -> std::process::Command {
    let tool = pipeline.command(arguments);
    let mut command = pipeline.command_by_proxy(&[]);
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--mount", "sh", "-c"]);
    unshare.arg("mkdir -p data && mount -t tmpfs -o size=3m tmpfs data && exec \"$0\" \"$@\"");
    unshare.arg(tool.get_program()).args(tool.get_args());
    unshare.current_dir(pipeline.dir());
    for (name, value) in command.env("NO_COLOR", "1").get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_no_event_is_lost() -> Result<()> {
    let test = "a_full_disk_is_named_and_no_event_is_lost";
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    let probe = std::process::Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=1m tmpfs /mnt",
        ])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        announce_skipped(
            test,
            "mounting a small file system needs privileges that are missing here",
        );
        return Ok(());
    }
    // The table is out of reach, so the topic cannot be emptied and fills the disk.
    let proxy = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
    pipeline.catch_up()?;
    proxy.cut();
    pipeline.emit(12_000, 1)?;
    let config = pipeline.dir().join("Connector.yaml");
    let config = config.to_str().context("UTF-8 path")?;
    let mut running = Running::start(&mut small_disk_command(
        &pipeline,
        &["run", config, "--data-dir", "data/here"],
    ))?;
    let line = running.stderr_line("space")?;
    ensure!(line.contains("WARN") || line.contains("ERROR"), "{line}");
    ensure!(!line.contains("panicked"), "{line}");
    drop(running);
    proxy.restore();
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(12_000, 1)?;
    expected.sort_unstable();
    assert_eq!(pipeline.read_all()?, expected);
    Ok(())
}
