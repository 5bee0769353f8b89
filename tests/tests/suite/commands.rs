//! What the commands say, and how they end, where something outside is not as it should be.

use std::net::TcpListener;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_tests::config;
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::process::{self, Running, command};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;

/// Each command that reads a table.
const READING: [&[&str]; 6] = [
    &["read", "--group", "g"],
    &["tail", "--group", "g"],
    &["export", "--all", "--format", "ndjson", "--output", "out"],
    &["groups"],
    &["inspect", "--group", "g"],
    &["verify"],
];

/// Names of Rust types, as a debug print of the SDK's errors has them.
const DUMPED: [&str; 5] = ["Failure", "ConnectorError", "Request", "Some(", " { "];

/// Environment of a command with keys and a region, and no endpoint.
fn account() -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A URL at which nobody listens.
fn dead_url() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("http://{}", listener.local_addr()?))
}

fn reading(arguments: &[&'static str], more: &[&str]) -> Vec<String> {
    let table = ["--table", EVENTS];
    let all = arguments.iter().chain(&table).chain(more);
    all.map(|text| (*text).to_owned()).collect()
}

fn millpond(arguments: &[String], environment: &[(String, String)]) -> std::process::Command {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    command(MILLPOND, &arguments, environment)
}

/// It ended with this code; its last line is the only error, says all of these, and nothing is a dump.
fn said(output: &Output, code: i32, texts: &[&str]) -> Result<()> {
    let log = process::stderr(output);
    ensure!(
        output.status.code() == Some(code),
        "{}\n{log}",
        output.status
    );
    for text in texts {
        ensure!(log.contains(text), "no `{text}` in\n{log}");
    }
    for dump in DUMPED {
        ensure!(!log.contains(dump), "`{dump}` in\n{log}");
    }
    let errors = log.lines().filter(|line| line.starts_with("error: "));
    ensure!(errors.count() == 1, "{log}");
    Ok(())
}

#[test]
fn an_endpoint_that_is_down_is_one_clear_line_of_each_reading_command() -> Result<()> {
    let url = dead_url()?;
    let dir = tempfile::tempdir()?;
    let mut running = Vec::new();
    for arguments in READING {
        let arguments = reading(arguments, &["--endpoint-url", &url]);
        let mut command = millpond(&arguments, &account());
        running.push((arguments, Running::start(command.current_dir(dir.path()))?));
    }
    for (arguments, mut running) in running {
        let status = running.wait()?;
        let (_, log) = running.rest();
        let log = format!("{}{log}", running.stderr_so_far());
        let output = Output {
            status,
            stdout: Vec::new(),
            stderr: log.clone().into_bytes(),
        };
        let texts = [
            url.as_str(),
            "`eu-central-1`",
            "refused",
            "10 times",
            "check",
        ];
        said(&output, 1, &texts).with_context(|| format!("{arguments:?}"))?;
        // Tries 1, 2, 4 and 8, and the end.
        let lines: Vec<&str> = log.lines().collect();
        ensure!(lines.len() == 5, "{arguments:?}\n{log}");
        ensure!(lines.iter().all(|line| line.len() < 500), "{log}");
    }
    Ok(())
}

#[test]
fn a_malformed_endpoint_or_region_is_refused_at_once() -> Result<()> {
    for arguments in READING {
        for (option, value, allowed) in [
            ("--endpoint-url", "garbage", "`http://HOST[:PORT]`"),
            ("--endpoint-url", "http://h/x y", "`http://HOST[:PORT]`"),
            ("--endpoint-url", "http://h:port", "`http://HOST[:PORT]`"),
            ("--region", "xx yy", "`eu-central-1`"),
            ("--region", "", "`eu-central-1`"),
        ] {
            let arguments = reading(arguments, &[option, value]);
            let output = process::run(&mut millpond(&arguments, &account()))?;
            said(&output, 2, &[option, allowed])?;
        }
    }
    let mut environment = account();
    environment.push(("AWS_ENDPOINT_URL_DYNAMODB".into(), "garbage".into()));
    let output = process::run(&mut millpond(&reading(READING[0], &[]), &environment))?;
    said(&output, 1, &["`garbage`", "`AWS_ENDPOINT_URL_DYNAMODB`"])
}

#[test]
fn missing_profiles_credentials_and_regions_are_named_by_each_reading_command() -> Result<()> {
    let url = dead_url()?;
    let region = ("AWS_REGION".to_owned(), "eu-central-1".to_owned());
    for arguments in READING {
        let profile = reading(arguments, &["--endpoint-url", &url, "--profile", "nope"]);
        let output = process::run(&mut millpond(&profile, &account()))?;
        said(&output, 1, &["credentials", "profile `nope`"])?;
        let plain = reading(arguments, &["--endpoint-url", &url]);
        let output = process::run(&mut millpond(&plain, std::slice::from_ref(&region)))?;
        said(
            &output,
            1,
            &["`AWS_ACCESS_KEY_ID`", "profile `default`", "`--profile`"],
        )?;
        let output = process::run(&mut millpond(&plain, &account()[..2]))?;
        said(&output, 1, &["no AWS region", "`--region`", "`AWS_REGION`"])?;
    }
    Ok(())
}

/// Three items of group `j`, one of group `other`; the last of `j` is damaged in one way after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_inspect_go_past_a_damaged_item_when_told_to() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline
        .aws
        .put(EVENTS, "k", b"{\"job_id\":\"other\"}")
        .await?;
    for number in 0..3 {
        let event = format!("{{\"job_id\":\"j\",\"n\":{number}}}");
        pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
        pipeline.catch_up()?;
    }
    let text = |item: &std::collections::HashMap<String, AttributeValue>, name: &str| {
        let value = item.get(name).and_then(|value| value.as_s().ok());
        value.cloned().unwrap_or_default()
    };
    let mut items = pipeline.aws.scan(EVENTS).await?;
    items.retain(|item| item.contains_key("d") && text(item, "pk").contains("/j#"));
    items.sort_by_key(|item| text(item, "sk"));
    let last = items.last().context("an item")?;
    ensure!(items.len() == 3, "{} items", items.len());
    let (pk, sk) = (text(last, "pk"), text(last, "sk"));
    let header = last.get("h").and_then(|value| value.as_b().ok());
    let header = header.context("a header")?.as_ref().to_vec();

    let mut flipped = header.clone();
    flipped[header.len() / 2] ^= 1;
    let mut damaged = Vec::new();
    for header in [flipped, header[..header.len() - 1].to_vec()] {
        let mut item = last.clone();
        item.insert("h".into(), AttributeValue::B(Blob::new(header)));
        damaged.push(item);
    }
    let mut foreign = last.clone();
    foreign.retain(|name, _| name == "pk" || name == "sk");
    foreign.insert("note".into(), AttributeValue::S("not by Millpond".into()));
    damaged.push(foreign);

    let groups = ["groups", "--table", EVENTS, "--json"];
    let inspect = ["inspect", "--table", EVENTS, "--group", "j"];
    for item in damaged {
        let put = pipeline.aws.dynamodb.put_item().table_name(EVENTS);
        put.set_item(Some(item)).send().await?;
        for arguments in [&groups[..], &inspect] {
            said(&pipeline.millpond(arguments)?, 1, &[&pk, &sk])?;
            let output = pipeline.millpond(&[arguments, &["--skip-damaged"]].concat())?;
            let log = process::stderr(&output);
            ensure!(output.status.code() == Some(5), "{}\n{log}", output.status);
            ensure!(log.contains(&pk) && log.contains(&sk), "{log}");
            let found = process::stdout(&output);
            let lines: Vec<Value> = found
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            ensure!(lines.len() == 2, "{found}");
            if arguments == groups {
                let of = |name: &str| lines.iter().find(|line| line["group"] == name);
                let counts = ["j", "other"].map(|name| of(name).map(|line| &line["events"]));
                ensure!(counts == [Some(&2.into()), Some(&1.into())], "{found}");
            }
        }
    }
    Ok(())
}

/// The first path in a help text that ends so.
fn path_in_help<'a>(help: &'a str, end: &str) -> Result<&'a str> {
    let found = help.split_whitespace().find(|word| word.ends_with(end));
    found.with_context(|| format!("no `{end}` in\n{help}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_where_the_help_says_they_are() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline.aws.put(EVENTS, "k", b"this is not JSON").await?;
    // With the data directory that it has by itself, as in the examples of the help.
    pipeline.succeed(&["run", "Connector.yaml", "--until-caught-up"])?;
    for arguments in [&["verify", "--help"][..], &["dlq", "--help"]] {
        let help = String::from_utf8(pipeline.succeed(arguments)?)?;
        let path = path_in_help(&help, "/dead-letters.jsonl")?;
        let letters = std::fs::read_to_string(pipeline.dir().join(path))?;
        ensure!(letters.lines().count() == 1, "{path}: {letters}");
        let listed = pipeline.succeed(&["dlq", "list", "--file", path])?;
        ensure!(String::from_utf8(listed)?.contains("not-json"));
    }
    let file = millpond::connectors::CONNECTOR_YAML;
    path_in_help(file, ".millpond/connectors/events-sink/dead-letters.jsonl")?;
    Ok(())
}

#[test]
fn an_emitter_says_soon_and_once_that_nothing_gets_through() -> Result<()> {
    let url = dead_url()?;
    let arguments = ["emit", "--stream", EVENTS, "--endpoint-url", &url];
    let mut emit = Running::start(&mut command(MILLPOND, &arguments, &account()))?;
    let line = emit.stderr_line("WARN")?;
    for text in [&url, "`eu-central-1`", "refused", EVENTS] {
        ensure!(line.contains(text), "no `{text}` in\n{line}");
    }
    emit.signal(Signal::KILL)?;
    emit.wait()?;
    let log = emit.stderr_so_far();
    ensure!(log.matches("WARN").count() == 1, "{log}");
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_is_a_wrong_configuration_and_its_reason_is_said_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    config::write(dir.path(), &config::pipeline())?;
    for (arguments, file) in [
        (&["run", "nope.yaml"][..], "nope.yaml"),
        (&["validate", "nope.yaml"], "nope.yaml"),
        (&["run", "Connector.yaml", "--secrets", "nope"], "nope"),
        (&["validate", "Connector.yaml", "--secrets", "nope"], "nope"),
    ] {
        let mut command = command(MILLPOND, arguments, &[]);
        let output = process::run(command.current_dir(dir.path()))?;
        said(&output, 3, &[&format!("`{file}`")])?;
        let log = process::stderr(&output);
        ensure!(log.matches("os error 2").count() == 1, "{log}");
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let arguments = ["local", "--kinesis-port", &port, "--dynamodb-port", "0"];
    let output = process::run(&mut command(MILLPOND, &arguments, &[]))?;
    said(&output, 1, &[&port, "--kinesis-port"])?;
    let log = process::stderr(&output);
    ensure!(log.matches("os error").count() == 1, "{log}");
    Ok(())
}

#[test]
fn a_secret_that_is_not_set_is_no_wrong_value_besides() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let text = config::pipeline()
        .replacen("  producer:", "  secrets: [{name: FOO}]\n  producer:", 1)
        .replace("stream: events", "stream: ${{ secrets.FOO }}");
    config::write(dir.path(), &text)?;
    let mut command = command(MILLPOND, &["validate", "Connector.yaml"], &[]);
    let output = process::run(command.current_dir(dir.path()).env_remove("FOO"))?;
    let log = process::stderr(&output);
    ensure!(output.status.code() == Some(3), "{}\n{log}", output.status);
    for text in [
        "`meta.secrets[0].name`",
        "`kinesis.stream` needs secret `FOO`",
    ] {
        ensure!(log.contains(text), "no `{text}` in\n{log}");
    }
    ensure!(log.matches(": error: ").count() == 2, "{log}");
    Ok(())
}

#[test]
fn the_first_signal_ends_a_demo_as_the_help_says() -> Result<()> {
    let mut demo = Running::start(&mut command(MILLPOND, &["demo"], &[]))?;
    demo.stderr_line("demo: starting")?;
    demo.signal(Signal::INT)?;
    let status = demo.wait()?;
    ensure!(status.code() == Some(130), "{status}");
    let output = process::run(&mut command(MILLPOND, &["--help"], &[]))?;
    let help = process::stdout(&output);
    let line = help
        .lines()
        .find(|line| line.trim_start().starts_with("130 "));
    ensure!(
        line.is_some_and(|line| line.ends_with("demo: the first one")),
        "{help}"
    );
    Ok(())
}
