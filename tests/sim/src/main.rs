//! `millpond-sim run` runs many seeds, `millpond-sim seed` one, again and whole.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use millpond_connector::mutation::Mutation;
use millpond_sim::campaign::{campaign, threads};
use millpond_sim::run::run;
use millpond_sim::scenario::{Cuts, Fault};
use millpond_sim::shrink::{Shrunk, shrink};

/// Runs the whole pipeline on virtual time, with faults, from seeds.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds until one breaks a rule; that one is shortened and told. Exit code 1 then.
    Run {
        /// Number of seeds.
        #[arg(default_value_t = 2_000)]
        count: u64,
        /// First seed.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Threads; default: one for each core.
        #[arg(long)]
        threads: Option<usize>,
        #[command(flatten)]
        cuts: CutArguments,
    },
    /// Runs one seed and prints its trace. Exit code 1 when it breaks a rule.
    Seed {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        cuts: CutArguments,
        /// Look for a shorter run that breaks the same rule, and tell that one.
        #[arg(long)]
        shorten: bool,
    },
}

#[derive(Args)]
struct CutArguments {
    /// Put at most so many events.
    #[arg(long)]
    events: Option<usize>,
    /// After so many faults nothing goes wrong any more.
    #[arg(long)]
    max_faults: Option<u64>,
    /// Of those, these do not happen: numbers from 0, separated by commas.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<u64>,
    /// Kinds of faults that do not happen, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    without: Vec<Fault>,
    /// A deliberate mistake, such as `NoIntent`.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

fn fault(text: &str) -> Result<Fault, String> {
    let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    let found = Fault::ALL.iter().find(|fault| fault.name() == text);
    found
        .copied()
        .ok_or(format!("known are {}", names.join(", ")))
}

fn mutation(text: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL
        .into_iter()
        .find(|mutation| format!("{mutation:?}") == text);
    found.ok_or(format!("known are {:?}", Mutation::ALL))
}

impl From<CutArguments> for Cuts {
    fn from(arguments: CutArguments) -> Self {
        Self {
            events: arguments.events,
            without: arguments.without.into_iter().collect(),
            max_faults: arguments.max_faults,
            skip: arguments.skip.into_iter().collect(),
            mutation: arguments.mutation,
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run {
            count,
            first,
            threads: wanted,
            cuts,
        } => many(first, count, wanted.unwrap_or_else(threads), &cuts.into()),
        Command::Seed {
            seed,
            cuts,
            shorten,
        } => one(seed, &cuts.into(), shorten),
    }
}

fn many(first: u64, count: u64, threads: usize, cuts: &Cuts) -> ExitCode {
    let bar = ProgressBar::new(count);
    if let Ok(style) =
        ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let (events, faults, steps) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let found = campaign(
        first..first.saturating_add(count),
        cuts,
        threads,
        &|outcome| {
            events.fetch_add(outcome.events as u64, Ordering::Relaxed);
            faults.fetch_add(outcome.faults, Ordering::Relaxed);
            steps.fetch_add(outcome.steps, Ordering::Relaxed);
            bar.inc(1);
        },
    );
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(outcome) = found {
        eprintln!(
            "seed {} broke a rule, looking for a shorter run",
            outcome.seed
        );
        println!("{}", shrink(&outcome, cuts).story());
        return ExitCode::FAILURE;
    }
    println!(
        "{count} seeds from {first} on {threads} threads in {seconds:.1} s, {:.0} seeds/s: {} events, \
         {} steps, {} faults, no rule broken",
        count as f64 / seconds,
        events.into_inner(),
        steps.into_inner(),
        faults.into_inner(),
    );
    ExitCode::SUCCESS
}

fn one(seed: u64, cuts: &Cuts, shorten: bool) -> ExitCode {
    let outcome = run(seed, cuts);
    let broken = outcome.violation.is_some();
    if broken && shorten {
        println!("{}", shrink(&outcome, cuts).story());
        return ExitCode::FAILURE;
    }
    for line in &outcome.trace {
        println!("{line}");
    }
    if !broken {
        return ExitCode::SUCCESS;
    }
    let told = Shrunk {
        cuts: cuts.clone(),
        outcome,
        runs: 0,
    };
    eprintln!("again: {}", told.command());
    ExitCode::FAILURE
}
