//! Kills at random moments; the long run in release mode is `just kill N`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millpond_tests::config;
use millpond_tests::kill_run::{self, Settings};
use millpond_tests::seed::{announce, seed};

use crate::MILLPOND;

const KILLS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_loses_and_repeats_nothing() -> Result<()> {
    let seed = seed();
    announce(seed);
    let settings = Settings {
        kills: KILLS,
        seed,
        rate: 0.4,
        config: config::pipeline(),
        pipeline: "events-sink".to_owned(),
        longest: Duration::from_secs(2),
    };
    let report = kill_run::run(MILLPOND, &settings).await;
    let report = report.with_context(|| format!("MILLPOND_SEED={seed}"))?;
    ensure!(report.events > 0, "nothing was put");
    ensure!(
        report.recoveries.len() > 1,
        "no run wrote anything: {report:?}"
    );
    Ok(())
}
