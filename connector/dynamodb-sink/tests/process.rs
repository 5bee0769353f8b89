//! The connector as a process of its own, where no cluster is needed.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what any wait here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const DOCUMENT: &str = "\
apiVersion: 0.1.0
meta: {name: out, type: dynamodb-sink, topic: events, version: 0.1.0, secrets: [{name: TABLE}]}
transforms:
  - uses: millpond/pack@0.1.0
    with: {group-by: /job_id}
dynamodb: {table: \"${{ secrets.TABLE }}\", region: eu-central-1}
";

struct Place {
    dir: TempDir,
}

impl Place {
    fn new(document: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("c.yaml"), document).expect("written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary with an environment of its own.
    fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond-dynamodb-sink"));
        command
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("FLV_PROFILE_PATH", self.path("no-profile"))
            .env("MILLPOND_DATA_DIR", self.path("data"))
            .env("FLUVIO_METRIC_CONNECTOR", self.path("m.sock"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn command(&self) -> Command {
        let mut command = self.bare();
        command.arg("--config").arg(self.path("c.yaml"));
        command.env("TABLE", "events");
        command
    }
}

fn ended(command: &mut Command) -> (Option<i32>, String) {
    finish(command.spawn().expect("started"))
}

/// Waits for a process to end.
fn finish(mut child: Child) -> (Option<i32>, String) {
    until("the process ends", || {
        child.try_wait().expect("asked").is_some()
    });
    let Output { status, stderr, .. } = child.wait_with_output().expect("ended");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn metrics(path: &Path) -> Option<Value> {
    let mut text = String::new();
    let mut stream = UnixStream::connect(path).ok()?;
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Greets nobody: a cluster that hangs.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("sent");
}

#[test]
fn a_wrong_command_line_says_what_is_right() {
    let place = Place::new(DOCUMENT);
    let (code, said) = ended(&mut place.bare());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`--config PATH` is missing"), "{said}");
    assert!(said.contains("Usage:"), "{said}");
    let (code, said) = ended(place.bare().args(["--config", "/nonexistent.yaml"]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("/nonexistent.yaml"), "{said}");
}

#[test]
fn all_mistakes_of_a_file_at_once() {
    let wrong = DOCUMENT
        .replace("group-by", "group-bye")
        .replace("region:", "regoin:")
        .replace("topic: events", "topic: Events!");
    let place = Place::new(&wrong);
    let (code, said) = ended(&mut place.command());
    assert_eq!(code, Some(3), "{said}");
    for part in ["group-bye", "regoin", "Events!", "errors"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!place.path("data").exists(), "nothing was touched");
}

#[test]
fn another_connectors_file_and_a_whole_pipeline_are_refused() {
    let source = DOCUMENT.replace("dynamodb-sink", "kinesis-source");
    let (code, said) = ended(&mut Place::new(&source).command());
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("`dynamodb-sink`"), "{said}");
    let second = DOCUMENT.replace("name: out", "name: other");
    let (code, said) = ended(&mut Place::new(&format!("{DOCUMENT}---\n{second}")).command());
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("holds 2 connectors"), "{said}");
}

#[test]
fn secrets_come_from_the_file_or_the_environment() {
    let place = Place::new(DOCUMENT);
    let (code, said) = ended(place.command().env_remove("TABLE"));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("TABLE"), "{said}");

    // With it, the file is right, and the next thing missing is the cluster.
    std::fs::write(place.path("s.env"), "TABLE=events\n").expect("written");
    let mut with_file = place.command();
    with_file.env_remove("TABLE");
    with_file.arg("--secrets").arg(place.path("s.env"));
    for command in [&mut with_file, &mut place.command()] {
        let (code, said) = ended(command);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("fluvio profile"), "{said}");
    }
    let (code, said) = ended(place.command().args(["--secrets", "/nonexistent.env"]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("/nonexistent.env"), "{said}");
}

#[test]
fn a_cluster_that_is_away_is_tried_for_so_long() {
    let (listener, address) = silent();
    drop(listener);
    let place = Place::new(DOCUMENT);
    let mut command = place.command();
    command.env("MILLPOND_FLUVIO_ENDPOINT", &address);
    command.env("MILLPOND_CONNECT_LIMIT", "1s");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("gave up after"), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[test]
fn alive_but_not_ready_while_connecting_and_ended_by_one_signal() {
    let (_listener, address) = silent();
    for first in [Signal::TERM, Signal::INT] {
        let place = Place::new(DOCUMENT);
        let socket = place.path("m.sock");
        let mut command = place.command();
        command.env("MILLPOND_FLUVIO_ENDPOINT", &address);
        let child = command.spawn().expect("started");
        let mut found = None;
        until("the metrics socket answers", || {
            found = metrics(&socket);
            found.is_some()
        });
        let found = found.expect("an answer");
        for counter in ["consumer", "producer_connector", "producer_client"] {
            assert_eq!(found[counter]["records"], 0, "{found}");
            assert_eq!(found[counter]["bytes"], 0, "{found}");
        }
        assert_eq!(found["millpond"]["name"], "out");
        assert_eq!(found["millpond"]["state"], "connecting");
        let (alive, said) = ended(place.bare().arg("--health"));
        assert_eq!(alive, Some(0), "{said}");
        let (ready, said) = ended(place.bare().arg("--ready"));
        assert_eq!(ready, Some(1), "{said}");
        assert!(said.contains("connecting"), "{said}");

        signal(&child, first);
        let (code, said) = finish(child);
        assert_eq!(code, Some(0), "{said}");
        assert!(!socket.exists(), "its socket goes with it");
        let (alive, said) = ended(place.bare().arg("--health"));
        assert_eq!(alive, Some(1), "{said}");
    }
}

#[test]
fn one_process_holds_the_state_and_its_socket() {
    let (_listener, address) = silent();
    let place = Place::new(DOCUMENT);
    let start = || {
        let mut command = place.command();
        command.env("MILLPOND_FLUVIO_ENDPOINT", &address);
        command.spawn().expect("started")
    };
    let mut first = start();
    until("it listens", || metrics(&place.path("m.sock")).is_some());
    let (code, said) = finish(start());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("in use by another millpond process"),
        "{said}"
    );
    assert!(metrics(&place.path("m.sock")).is_some(), "the first has it");

    // Another connector of this machine leaves it the socket, and works without one.
    let other = DOCUMENT.replace("name: out", "name: other");
    std::fs::write(place.path("c.yaml"), other).expect("written");
    let mut command = place.command();
    command.env("MILLPOND_FLUVIO_ENDPOINT", &address);
    command.env("MILLPOND_CONNECT_LIMIT", "1ms");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no metrics and no probes"), "{said}");
    let named = metrics(&place.path("m.sock")).expect("the first has it still");
    assert_eq!(named["millpond"]["name"], "out", "{said}");

    // What a killed process leaves is taken over.
    first.kill().expect("killed");
    first.wait().expect("ended");
    assert!(place.path("m.sock").exists());
    let third = start();
    until("it took the socket over", || {
        metrics(&place.path("m.sock")).is_some_and(|found| found["millpond"]["name"] == "other")
    });
    signal(&third, Signal::TERM);
    let (code, said) = finish(third);
    assert_eq!(code, Some(0), "{said}");
}
