//! The main job in whole processes: from the stream to the table and back.

use anyhow::{Context as _, Result, ensure};
use millpond_fault_proxy::{Plan, Service};
use millpond_tests::config;
use millpond_tests::pipeline::Pipeline;
use millpond_tests::process::{self, command};
use rustix::process::Signal;
use serde_json::Value;

use crate::MILLPOND;

fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort_unstable();
    events
}

#[test]
fn the_demo_reads_back_what_it_emitted() -> Result<()> {
    // Some thousands of events a job, as with the default: what is still open when the demo drains is little.
    let [events, jobs] = ["--events=40000", "--jobs=5"];
    let arguments = ["demo", events, jobs, "--seed=3", "--json"];
    let output = process::run(&mut command(MILLPOND, &arguments, &[]))?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |path: &str| -> Result<f64> {
        let value = report
            .pointer(path)
            .with_context(|| format!("no {path} in {report}"))?;
        value
            .as_f64()
            .with_context(|| format!("{path} is no number"))
    };
    for (path, expected) in [
        ("/events/emitted", 40_000.0),
        ("/events/read", 40_000.0),
        ("/events/lost", 0.0),
        ("/events/duplicated", 0.0),
        ("/events/changed", 0.0),
        ("/events/out_of_order", 0.0),
    ] {
        ensure!(figure(path)? == expected, "{path} in {report}");
    }
    for path in [
        "/items",
        "/mean_item_bytes",
        "/write_units/reported",
        "/write_units/computed",
        "/write_units/per_event",
        "/usd_per_tb/packed",
        "/usd_per_tb/per_event",
        "/availability_ms/p50",
        "/availability_ms/p99",
        "/availability_ms/max",
        "/events_per_second",
        "/megabytes_per_second",
        "/cpu_seconds_per_gb",
    ] {
        ensure!(figure(path)? > 0.0, "{path} in {report}");
    }
    ensure!(figure("/compression_ratio")? > 5.0, "{report}");
    ensure!(figure("/fill")? >= 0.95, "{report}");
    ensure!(figure("/write_units/saving")? >= 10.0, "{report}");
    ensure!(
        figure("/write_units/reported")? == figure("/write_units/computed")?,
        "the server bills what we compute: {report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_catches_up_and_the_next_one_goes_on() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 3, &config::pipeline()).await?;
    pipeline.emit(3_000, 1)?;
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(3_000, 1)?;
    assert_eq!(pipeline.read_all()?, sorted(expected.clone()));

    pipeline.emit(2_000, 2)?;
    pipeline.catch_up()?;
    expected.extend(pipeline.expected(2_000, 2)?);
    assert_eq!(pipeline.read_all()?, sorted(expected.clone()));

    // Nothing new: nothing changes.
    pipeline.catch_up()?;
    assert_eq!(pipeline.read_all()?, sorted(expected));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_partition_key_come_back_in_order() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 4, &config::pipeline()).await?;
    pipeline.emit(4_000, 5)?;
    pipeline.catch_up()?;
    let mut emitted: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    let key = |event: &str| -> Result<String> {
        let event: Value = serde_json::from_str(event)?;
        Ok(format!("{}/{}", event["job_id"], event["worker"]))
    };
    for event in pipeline.expected(4_000, 5)? {
        emitted.entry(key(&event)?).or_default().push(event);
    }
    let mut read: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for group in pipeline.groups()?.keys() {
        for event in pipeline.read(group)? {
            read.entry(key(&event)?).or_default().push(event);
        }
    }
    assert_eq!(read, emitted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_and_nothing_is_read_twice_afterwards() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 2, &config::pipeline()).await?;
    let mut running = pipeline.start()?;
    pipeline.emit(3_000, 7)?;
    pipeline.first_item().await?;
    running.signal(Signal::TERM)?;
    let status = running.wait()?;
    let (_, log) = running.rest();
    ensure!(status.code() == Some(0), "{status}\n{log}");
    pipeline.catch_up()?;
    assert_eq!(pipeline.read_all()?, sorted(pipeline.expected(3_000, 7)?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_drain_at_once() -> Result<()> {
    let mut pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    let proxy = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
    let mut running = pipeline.start()?;
    pipeline.emit(500, 1)?;
    pipeline.first_item().await?;
    proxy.cut();
    pipeline.emit(500, 2)?;
    running.signal(Signal::TERM)?;
    running.stderr_line("drain")?;
    running.signal(Signal::TERM)?;
    let status = running.wait()?;
    let (_, log) = running.rest();
    ensure!(status.code() == Some(130), "{status}\n{log}");

    proxy.restore();
    pipeline.catch_up()?;
    let mut expected = pipeline.expected(500, 1)?;
    expected.extend(pipeline.expected(500, 2)?);
    assert_eq!(pipeline.read_all()?, sorted(expected));
    Ok(())
}
