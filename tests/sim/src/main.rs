//! Runs seeds.
#![allow(clippy::print_stdout)]

use millpond_sim::run::run;
use millpond_sim::scenario::Cuts;

fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = args.next().and_then(|s| s.parse().ok()).unwrap_or(1);
    let verbose = args.next().is_some();
    let start = std::time::Instant::now();
    let mut bad = 0;
    for seed in from..from + count {
        let a = run(seed, &Cuts::default());
        if verbose { for l in &a.trace { println!("{l}"); } }
        if let Some(v) = &a.violation {
            bad += 1;
            println!("seed {seed} {} {} steps {} faults {} events {}", v.rule, v.what, a.steps, a.faults, a.events);
        }
        if count < 30 { println!("seed {seed}: steps {} faults {} events {} items {} dead {} lines {}", a.steps, a.faults, a.events, a.items, a.dead, a.trace.len()); }
    }
    println!("{bad} bad of {count} in {:?}", start.elapsed());
}
