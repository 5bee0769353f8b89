//! `kill -9` at random moments: what was acknowledged is there, and is what was appended.
//!
//! Without the test harness, because the program is also the child that is killed.

#![expect(
    clippy::print_stdout,
    reason = "the pipe to the parent, and the test's report"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::topic::Topic;
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig, conformance};
use rand::{Rng, SeedableRng, rngs::StdRng};

const KILLS: u32 = 20;
const PARTITIONS: u32 = 2;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let [_, mode, dir, seed] = &args[..]
        && mode == "child"
    {
        runtime.block_on(child(Path::new(dir), seed.parse().expect("a number")));
        return;
    }
    if args.iter().any(|arg| arg == "--list") {
        return;
    }
    runtime.block_on(parent());
}

fn open(dir: &Path, quick_repair: bool) -> EmbeddedTopic {
    let mut config = TopicConfig::new(dir, "events", PARTITIONS);
    config.quick_repair_bytes = if quick_repair { 0 } else { u64::MAX };
    EmbeddedTopic::open(config).expect("opens")
}

/// Appends until killed; says on stdout what was acknowledged and, before it does so, what
/// it is about to release.
async fn child(dir: &Path, seed: u64) {
    // Both ways of recovery.
    let topic = Arc::new(open(dir, seed.is_multiple_of(2)));
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..PARTITIONS {
        let topic = Arc::clone(&topic);
        let mut rng = StdRng::seed_from_u64(seed ^ u64::from(partition));
        tasks.spawn(async move {
            loop {
                let first = topic.bounds(partition).await.expect("known").end;
                let count = rng.random_range(1..3_000);
                let batch = conformance::batch(partition, first, count);
                let range = topic.append(partition, batch).await.expect("stored");
                say(&format!("acknowledged {partition} {}", range.end));
                if rng.random_bool(0.1) {
                    let released = rng.random_range(0..=range.end);
                    say(&format!("released {partition} {released}"));
                    let done = topic.release(partition, "sink", released).await;
                    done.expect("in range");
                }
            }
        });
    }
    // None of them ends by itself.
    if let Some(Err(panic)) = tasks.join_next().await {
        std::panic::resume_unwind(panic.into_panic());
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

async fn parent() {
    let seed: u64 = StdRng::from_os_rng().random();
    println!("kill -9, {KILLS} times, seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = [0u64; PARTITIONS as usize];
    let mut released = [0u64; PARTITIONS as usize];
    let mut grew = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["child", &dir.path().display().to_string()])
            .arg((seed ^ u64::from(kill)).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The moment counts from the first acknowledgement: starting up takes its own time.
        let first = lines.next();
        let pause = Duration::from_micros(rng.random_range(0..150_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            child.kill().expect("kill -9");
            let status = child.wait().expect("reaped");
            assert_eq!(status.signal(), Some(9), "the child failed by itself");
        });
        let before = acknowledged;
        for line in first.into_iter().chain(lines) {
            let line = line.expect("text");
            let words: Vec<&str> = line.split(' ').collect();
            // The last line may be cut short by the kill.
            let [what, partition, offset] = words[..] else {
                continue;
            };
            let (Ok(partition), Ok(offset)) = (partition.parse::<usize>(), offset.parse::<u64>())
            else {
                continue;
            };
            let list = if what == "acknowledged" {
                &mut acknowledged
            } else {
                &mut released
            };
            list[partition] = offset.max(list[partition]);
        }
        killer.join().expect("killed");
        grew += u32::from(acknowledged != before);
        check(dir.path(), &acknowledged, &released).await;
    }
    println!("acknowledged {acknowledged:?}, released up to {released:?}");
    assert!(grew > KILLS / 2, "most children must get to append: {grew}");
}

async fn check(dir: &Path, acknowledged: &[u64], released: &[u64]) {
    let topic = open(dir, false);
    for partition in 0..PARTITIONS {
        let bounds = topic.bounds(partition).await.expect("known");
        let index = partition as usize;
        assert!(
            bounds.end >= acknowledged[index],
            "partition {partition}: {} acknowledged, {} stored",
            acknowledged[index],
            bounds.end
        );
        assert!(
            bounds.earliest <= released[index],
            "partition {partition}: removed up to {}, released up to {}",
            bounds.earliest,
            released[index]
        );
        let from = bounds.earliest;
        let mut reader = topic.reader(partition, from, &[]).await.expect("opens");
        conformance::read_to(&mut *reader, partition, from, bounds.end).await;
    }
}
