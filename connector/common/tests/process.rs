//! What needs a process of its own: signals, and an environment without AWS settings.
//!
//! Each test starts this very binary again with itself as the only test.

#![expect(
    clippy::print_stdout,
    reason = "a child tells its parent how far it is"
)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use millpond_connector::aws::{self, AwsError, AwsSettings, FailureKind};
use millpond_connector::drain;
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "MILLPOND_TEST_CHILD";

/// This test again, in a process with this environment alone.
fn child(test: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args([test, "--exact", "--nocapture"])
        .env_clear()
        .env(ROLE, "1")
        // Neither the machine's own settings nor the metadata service of a cloud machine.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/nonexistent/config")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")
        .envs(environment.iter().copied());
    command
}

fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

fn passes(test: &str, environment: &[(&str, &str)]) {
    let output = child(test, environment).output().expect("started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}{errors}");
}

#[test]
fn the_first_signal_drains_and_the_second_ends() {
    if is_child() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(async {
            let token = drain::on_signals().expect("handlers");
            println!("\nready");
            token.cancelled().await;
            println!("\ndraining");
            std::future::pending::<()>().await;
        });
    }
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut child = child("the_first_signal_drains_and_the_second_ends", &[])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut wait_for = |word: &str| {
            let found = lines.any(|line| line.is_ok_and(|line| line == word));
            assert!(found, "the child ended without saying `{word}`");
        };
        let pid = Pid::from_child(&child);
        wait_for("ready");
        kill_process(pid, first).expect("sent");
        wait_for("draining");
        assert_eq!(
            child.try_wait().expect("asked"),
            None,
            "one signal does not end it"
        );
        kill_process(pid, second).expect("sent");
        let status = child.wait().expect("ended");
        assert_eq!(status.code(), Some(drain::FORCED_EXIT_CODE));
    }
}

#[test]
fn a_missing_region_names_what_was_looked_at() {
    if !is_child() {
        return passes("a_missing_region_names_what_was_looked_at", &[]);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let error = runtime
        .block_on(AwsSettings::default().load())
        .expect_err("no region");
    assert!(matches!(error, AwsError::NoRegion { .. }));
    let said = error.to_string();
    for word in ["`region`", "`AWS_REGION`", "profile `default`"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn missing_credentials_name_what_was_looked_at() {
    if !is_child() {
        let environment = [("AWS_REGION", "eu-central-1"), ("AWS_PROFILE", "lake")];
        return passes("missing_credentials_name_what_was_looked_at", &environment);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let settings = AwsSettings::default();
        let config = settings.load().await.expect("a region");
        assert_eq!(config.region().map(AsRef::as_ref), Some("eu-central-1"));
        let error = settings.check_credentials(&config).await.expect_err("none");
        let said = error.to_string();
        for word in ["`AWS_ACCESS_KEY_ID`", "profile `lake`"] {
            assert!(said.contains(word), "{said}");
        }
        let client = aws_sdk_dynamodb::Client::new(&config);
        let failed = client.list_tables().send().await.expect_err("none");
        assert_eq!(
            aws::failure_kind(&failed),
            FailureKind::Credentials,
            "{failed:?}"
        );
        let said = aws::describe(&failed);
        assert!(
            said.starts_with("AWS credentials cannot be had: "),
            "{said}"
        );
    });
}

#[test]
fn a_dead_endpoint_and_a_service_error_in_words() {
    if !is_child() {
        let environment = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        return passes("a_dead_endpoint_and_a_service_error_in_words", &environment);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // A port on which nobody listens: it was ours a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        drop(listener);
        let failed = list_tables(port).await;
        assert_eq!(aws::failure_kind(&failed), FailureKind::Unreachable);
        let said = aws::describe(&failed);
        assert!(said.starts_with("endpoint cannot be reached: "), "{said}");
        assert!(said.contains("refused"), "{said}");
        assert!(!said.contains('{'), "no dump: {said}");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut calls = 0_u32;
            let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"too fast"}"#;
            loop {
                let (mut stream, _) = listener.accept().await.expect("a call");
                calls += 1;
                let mut buffer = [0; 8192];
                let _ = stream.read(&mut buffer).await;
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                assert_eq!(calls, 1, "the SDK must not retry");
            }
        });
        let failed = list_tables(port).await;
        assert_eq!(aws::failure_kind(&failed), FailureKind::Service);
        assert_eq!(
            aws::describe(&failed),
            "service answered `ThrottlingException`: too fast"
        );
        assert!(!server.is_finished(), "a second call was made");
        server.abort();
    });
}

async fn list_tables(
    port: u16,
) -> aws_sdk_dynamodb::error::SdkError<aws_sdk_dynamodb::operation::list_tables::ListTablesError> {
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        profile: None,
    };
    let config = settings.load().await.expect("settings");
    settings
        .check_credentials(&config)
        .await
        .expect("from the environment");
    let client = aws_sdk_dynamodb::Client::new(&config);
    client.list_tables().send().await.expect_err("a failure")
}

#[test]
fn the_environment_names_a_services_endpoint_and_the_section_wins() {
    const SELF: &str = "the_environment_names_a_services_endpoint_and_the_section_wins";
    if !is_child() {
        // Two listeners that only close what they accept; who was called is what counts.
        let (named, own) = (Listener::start(), Listener::start());
        let for_dynamodb = format!("http://127.0.0.1:{}", named.port);
        let environment = [
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_DYNAMODB", for_dynamodb.as_str()),
        ];
        passes(SELF, &environment);
        assert_eq!((named.calls(), own.calls()), (1, 0));
        let port = own.port.to_string();
        let with_own = [environment.as_slice(), &[("OWN_PORT", port.as_str())]].concat();
        passes(SELF, &with_own);
        assert_eq!((named.calls(), own.calls()), (1, 1));
        return;
    }
    let own = std::env::var("OWN_PORT").ok();
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: own.map(|port| format!("http://127.0.0.1:{port}")),
        profile: None,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = settings.load().await.expect("settings");
        let client = aws_sdk_dynamodb::Client::new(&config);
        let failed = client.list_tables().send().await.expect_err("closed");
        assert_eq!(aws::failure_kind(&failed), FailureKind::Unreachable);
    });
}

/// Accepts, counts and closes; ends with the process.
struct Listener {
    port: u16,
    calls: Arc<AtomicU32>,
}

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { port, calls }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}
