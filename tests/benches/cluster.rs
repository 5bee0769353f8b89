//! The whole way of the demo's workload over a real Fluvio cluster, as processes: what arrives, how
//! fast, and what it costs each of them.
//!
//! `cargo bench -p millpond-tests --bench cluster [-- --events N]`, with Fluvio's programs in
//! `MILLPOND_FLUVIO_BIN` or PATH. The events are in the stream before the connectors start; the
//! stand-ins for Kinesis and DynamoDB, which share the machine's cores, are not counted. CPU is
//! user and system time of a process, memory its largest resident set.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use millpond::connectors::CONNECTOR_YAML;
use millpond_tests::on_cluster::{Binaries, OnCluster};
use rustix::process::Pid;

const BUILT: Binaries = millpond_tests::binaries!();
const SEED: u64 = 1;
/// Between two looks at the table: each costs the stand-in a query of every directory row.
const LOOK: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(1_200);

#[derive(Parser)]
struct Arguments {
    /// Events of the demo's workload
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A process whose use is counted.
struct Counted {
    name: &'static str,
    pid: Pid,
    before: Duration,
}

/// User and system time of a process.
fn cpu(pid: Pid) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| Ok(field.parse::<u64>()?))
        .sum::<Result<u64>>()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Largest resident set so far, in MB (10^6 bytes).
fn peak_mb(pid: Pid) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmHWM")?.parse::<f64>()? * 1024.0 / 1e6)
}

fn counted(on: &OnCluster) -> Result<Vec<Counted>> {
    let [sc, spu] = on.cluster.processes();
    let server = |pid: Option<u32>| {
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.context("a server has ended")
    };
    let connector = |name| on.pid(name)?.with_context(|| format!("`{name}` has ended"));
    let processes = [
        ("source", connector("events-source")?, true),
        ("SPU", server(spu)?, false),
        ("SC", server(sc)?, false),
        ("sink", connector("events-sink")?, true),
    ];
    processes
        .into_iter()
        .map(|(name, pid, is_new)| {
            let before = if is_new { Duration::ZERO } else { cpu(pid)? };
            Ok(Counted { name, pid, before })
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "the report")]
async fn measure(arguments: &Arguments) -> Result<()> {
    // Stand-ins have no limits of a shard, so the source need not keep to them.
    let config = CONNECTOR_YAML
        .replacen("# reads-per-second: 5", "reads-per-second: 50", 1)
        .replacen(
            "# read-bytes-per-second: 2 MiB",
            "read-bytes-per-second: 64 MiB",
            1,
        );
    let Some(on) = OnCluster::new(BUILT, "cluster benchmark", &config).await? else {
        return Ok(());
    };
    let events = arguments.events;
    let bytes = on.pipeline.emit(events, SEED)?;
    on.deploy()?;
    let started = Instant::now();
    let processes = counted(&on)?;
    while on.events() < events {
        ensure!(started.elapsed() < LIMIT, "not done: {}", on.logs());
        tokio::time::sleep(LOOK).await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    println!(
        "{events} events, {:.1} MB, in {elapsed:.1} s:",
        bytes as f64 / 1e6
    );
    println!(
        "{:.0} events/s, {:.1} MB/s",
        events as f64 / elapsed,
        bytes as f64 / 1e6 / elapsed
    );
    println!("{:<8} {:>12} {:>12}", "", "CPU s/GB", "peak MB");
    for Counted { name, pid, before } in processes {
        let used = (cpu(pid)?.saturating_sub(before)).as_secs_f64();
        let per_gb = used / (bytes as f64 / 1e9);
        println!("{name:<8} {per_gb:>12.2} {:>12.0}", peak_mb(pid)?);
    }
    on.down()?;
    on.pipeline.verify(events, SEED)?;
    println!("all read back: none lost, repeated, changed or out of order");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    measure(&Arguments::parse()).await
}
