//! What the source may do and how it gets there: policies, endpoints, proxies.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use millpond_connector::aws::{AwsSettings, AwsSwitches};
use millpond_kinesis_source::client::StreamApi as _;
use millpond_kinesis_source::fan_out::FanOutApi as _;
use millpond_kinesis_source::operations::{Mode, policy};
use millpond_kinesis_source::sdk::SdkStream;
use millpond_kinesis_source::sdk_fan_out::SdkFanOut;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push_str(&std::fs::read_to_string(&path).expect("text"));
        }
    }
}

fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    };
    name.split('_').map(word).collect()
}

/// An SDK call is a method of a `client` without arguments.
#[test]
fn every_call_in_the_code_is_in_the_list_and_the_other_way_round() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    text.retain(|char| !char.is_whitespace());
    let calls = text.split("client.").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (is_name && !name.is_empty() && rest.starts_with(')')).then_some(name)
    });
    let calls: BTreeSet<String> = calls
        .filter(|name| *name != "clone")
        .map(camel_case)
        .collect();
    let listed = Mode::ALL.into_iter().flat_map(Mode::operations);
    let listed: BTreeSet<String> = listed.map(|name| (*name).to_owned()).collect();
    assert!(calls.len() >= 10, "the search finds nothing: {calls:?}");
    assert_eq!(
        calls, listed,
        "left: in the code; right: in `operations.rs`"
    );
}

#[test]
fn the_policies_in_the_readme_are_those_of_the_list() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("text");
    let blocks = readme.split("```json\n").skip(1);
    let found: Vec<serde_json::Value> = blocks
        .map(|block| block.split("```").next().unwrap_or_default())
        .map(|block| serde_json::from_str(block).expect("JSON"))
        .collect();
    let expected: Vec<serde_json::Value> = Mode::ALL.map(policy).into();
    assert_eq!(found, expected);
}

const ROLE: &str = "MILLPOND_TEST_CALL";

/// Not a test of its own: what the child process of the next ones does.
#[test]
fn one_call() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: role.starts_with("http").then(|| role.clone()),
        profile: None,
    };
    let switches = AwsSwitches {
        fips: role.contains("fips").then_some(true),
        dual_stack: role.contains("dual").then_some(true),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = settings.load_with(switches).await.expect("configured");
        let credentials = Credentials::new("test", "test", None, None, "test");
        let builder = config.into_builder();
        let config = builder
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        // The proxy answers nothing useful.
        if role.contains("fan-out") {
            let described = SdkFanOut::new(&config, "events")
                .describe_consumer("c")
                .await;
            described.expect_err("no consumer behind the proxy");
        } else {
            let described = SdkStream::new(&config, "events").describe().await;
            described.expect_err("no stream behind the proxy");
        }
    });
}

/// A proxy that notes what it is asked for and refuses it.
fn proxy() -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accepts");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("a line");
        let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = (&stream).write_all(answer);
        line
    });
    (url, thread)
}

fn call(role: &str, environment: &[(&str, &str)]) -> bool {
    let mut child = Command::new(std::env::current_exe().expect("a program"));
    child.args(["--exact", "one_call"]).env(ROLE, role);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        child.env_remove(name);
    }
    let output = child.envs(environment.iter().copied()).output();
    output.expect("it runs").status.success()
}

#[test]
fn the_proxy_of_the_environment_is_used_and_the_switches_choose_the_endpoint() {
    for (role, host) in [
        ("plain", "kinesis.us-east-1.amazonaws.com:443"),
        ("fips", "kinesis-fips.us-east-1.amazonaws.com:443"),
        ("dual", "kinesis.us-east-1.api.aws:443"),
        ("fips dual", "kinesis-fips.us-east-1.api.aws:443"),
        ("fan-out fips dual", "kinesis-fips.us-east-1.api.aws:443"),
    ] {
        let (url, asked) = proxy();
        assert!(call(role, &[("HTTPS_PROXY", &url)]), "{role}");
        let asked = asked.join().expect("asked");
        assert_eq!(
            asked.split(' ').take(2).collect::<Vec<_>>(),
            ["CONNECT", host],
            "{role}"
        );
    }
    let (url, asked) = proxy();
    assert!(call("http://kinesis.example:9", &[("HTTP_PROXY", &url)]));
    let asked = asked.join().expect("asked");
    assert!(
        asked.starts_with("POST http://kinesis.example:9/"),
        "{asked}"
    );
}

#[test]
fn this_machine_is_never_looked_for_behind_a_proxy() {
    // What the endpoint itself is asked for: a path, as no proxy is.
    let (endpoint, asked) = proxy();
    assert!(call(&endpoint, &[("HTTP_PROXY", "http://proxy.invalid:1")]));
    let asked = asked.join().expect("asked");
    assert!(asked.starts_with("POST / "), "{asked}");
}
