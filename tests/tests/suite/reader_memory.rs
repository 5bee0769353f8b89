//! What `millpond read` takes of memory: it does not grow with the group.

use std::io::Read as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::config;
use millpond_tests::pipeline::{EVENTS, Pipeline};

use crate::MILLPOND;

/// Bytes of an event, which hardly become fewer than three quarters of that.
const EVENT_BYTES: u64 = 20_000;

/// Events of the smaller group: 9 MB packed, of which a reader holds nearly all at one time.
const FEW: u64 = 600;

/// Bytes of memory that a group four times larger may take more. It is 27 MB more packed, and 36 MB more of events, so
/// that whatever kept either is seen. Measured were 1 to 9 MB: how pages that come at the same time meet, with their
/// bodies of 1.4 MB and what the SDK makes of them, differs from run to run.
const MOST_MORE: u64 = 18_000_000;

/// Event number `number` of a group, and the partition key that it goes under.
fn event(group: &str, number: u64) -> (String, Vec<u8>) {
    let mut noise = number + 1;
    let letters = (0..EVENT_BYTES).map(|_| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005);
        noise = noise.wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
                [(noise >> 58) as usize],
        )
    });
    let pad: String = letters.collect();
    let key = format!("{group}/{}", number % 16);
    let value = format!(r#"{{"job_id":"{group}","number":{number},"pad":"{pad}"}}"#);
    (key, value.into_bytes())
}

/// A group of so many events in the stream; answers the bytes of its lines.
async fn put(pipeline: &Pipeline, group: &str, events: u64) -> Result<u64> {
    let mut bytes = 0;
    let numbers: Vec<u64> = (0..events).collect();
    for numbers in numbers.chunks(100) {
        let records: Vec<_> = numbers.iter().map(|number| event(group, *number)).collect();
        bytes += records
            .iter()
            .map(|(_, value)| value.len() as u64 + 1)
            .sum::<u64>();
        pipeline.aws.put_all(EVENTS, records).await?;
    }
    Ok(bytes)
}

/// The most memory that `read` of a group had, bytes, shortly before the end of its `bytes`.
fn peak(pipeline: &Pipeline, group: &str, bytes: u64) -> Result<u64> {
    // More than a pipe and the buffer before it hold, so that it is still there when it is asked.
    const LEFT: u64 = 500_000;
    let mut command = pipeline.command(&["read", "--table", EVENTS, "--group", group]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().context("stdout is piped")?;
    let mut seen = std::io::copy(&mut out.by_ref().take(bytes - LEFT), &mut std::io::sink())?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    seen += std::io::copy(&mut out, &mut std::io::sink())?;
    ensure!(
        child.wait()?.success() && seen == bytes,
        "{seen} of {bytes}"
    );
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("VmHWM")?.parse::<u64>()? * 1_024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "figures are for whoever asks for them")]
async fn memory_of_a_read_does_not_grow_with_the_group() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 4, &config::pipeline()).await?;
    let few = put(&pipeline, "few", FEW).await?;
    let many = put(&pipeline, "many", 4 * FEW).await?;
    pipeline.catch_up()?;
    // 256 partition keys, of which each has a page of one item.
    let spread = config::pipeline().replace(
        "group-by: /job_id\n",
        "group-by: /job_id\n      max-item-bytes: \"32768\"\n",
    );
    pipeline.set_config(&format!(
        "{spread}  max-item-bytes: 32768\n  write-shards: 64\n"
    ))?;
    put(&pipeline, "few-spread", FEW).await?;
    put(&pipeline, "many-spread", 4 * FEW).await?;
    pipeline.catch_up()?;
    for end in ["", "-spread"] {
        let more = end.len() as u64;
        let of_few = peak(&pipeline, &format!("few{end}"), few + FEW * more)?;
        let of_many = peak(&pipeline, &format!("many{end}"), many + 4 * FEW * more)?;
        println!("few{end}: {of_few} bytes, many{end}: {of_many} bytes");
        ensure!(
            of_many < of_few + MOST_MORE,
            "many{end}: {of_many} bytes of memory, few{end}: {of_few}"
        );
    }
    Ok(())
}
