//! `millpond run` at the settings of the root `Connector.yaml`, under load, killed with SIGKILL at
//! random moments and started again: that nothing is lost or repeated, and how long it takes until
//! it writes again.
//!
//! `cargo bench -p millpond-tests --bench kill [-- --kills N --seed S --rate MB/S]`, or `just kill N`. The
//! clock of a recovery runs from the start of the process to the first write of items that the table
//! acknowledged. Pipeline, stand-ins and emitter share the machine's cores.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use millpond::connectors::CONNECTOR_YAML;
use millpond_tests::kill_run::{self, Settings};
use millpond_tests::seed::{announce, seed};

const BUILT: &str = env!("CARGO_BIN_EXE_millpond-under-test");

#[derive(Parser)]
struct Arguments {
    /// How often it is killed
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Seed of the moments and the workload [default: `MILLPOND_SEED`, or a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// MB (10^6 bytes) of events a second
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the report")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(seed);
    announce(seed);
    let settings = Settings {
        kills: arguments.kills,
        seed,
        rate: arguments.rate,
        config: CONNECTOR_YAML.to_owned(),
        pipeline: "events".to_owned(),
        longest: Duration::from_secs(4),
    };
    let begun = Instant::now();
    let report = kill_run::run(BUILT, &settings).await?;
    println!(
        "{} kills in {:.0} s, {} of them before anything was written",
        settings.kills,
        begun.elapsed().as_secs_f64(),
        report.silent
    );
    println!(
        "{} events: none lost, repeated, changed or out of order; `verify` and the checker agree",
        report.events
    );
    println!(
        "until it writes again, {} runs: p50 {:.2} s, p99 {:.2} s, longest {:.2} s",
        report.recoveries.len(),
        report.recovery(0.5)?.as_secs_f64(),
        report.recovery(0.99)?.as_secs_f64(),
        report.recovery(1.0)?.as_secs_f64()
    );
    Ok(())
}
