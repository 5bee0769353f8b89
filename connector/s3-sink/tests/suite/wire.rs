//! `object_store` over our HTTP client against `s3s-fs`, an S3 server that nobody here wrote: signatures,
//! names, conditions and errors as they travel.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use millpond_connector::aws::AwsSettings;
use millpond_s3_sink::client::store::Bucket;
use millpond_s3_sink::client::{ObjectApi, Verdict, connect};
use millpond_sink::conformance::events::{check, read_letters};
use millpond_sink::conformance::storm::LETTERS;
use millpond_sink::conformance::topic::MemoryTopic;
use millpond_sink::conformance::workload::{Shape, Workload};
use millpond_sink::conformance::{pack, rules};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{NDJSON, PARQUET, Real, files, run};
use crate::reader::read_events;
use crate::rules::assert_rules;

const BUCKET: &str = "lake-1";
const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI";

/// A server on loopback; dropped with its data.
struct Server {
    url: String,
    root: TempDir,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket");
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).expect("a folder"));
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(socket);
                    // A client may go away at any time.
                    let _ = server.serve_connection(io, service).await;
                });
            }
        });
        Self { url, root, task }
    }

    async fn bucket(&self, name: &str, key: &str, secret: &str) -> Arc<dyn ObjectApi> {
        bucket(&self.url, name, key, secret).await
    }

    /// What the server keeps for the bucket, without its own files about objects.
    fn objects(&self) -> Vec<(String, bytes::Bytes)> {
        let mut found = files(&self.folder());
        found.retain(|(name, _)| !is_of_the_server(Path::new(name)));
        found
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }
}

/// A bucket at an endpoint, with the client that the sink uses.
async fn bucket(url: &str, name: &str, key: &str, secret: &str) -> Arc<dyn ObjectApi> {
    let settings = AwsSettings {
        region: Some("eu-central-1".into()),
        endpoint: Some(url.to_owned()),
        profile: None,
    };
    let credentials = Credentials::new(key, secret, None, None, "test");
    let sdk = settings.load().await.expect("configuration");
    let sdk = sdk
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let store = connect::s3(&sdk, name).expect("a client");
    Arc::new(Bucket::new(store, format!("bucket `{name}`")))
}

fn is_of_the_server(name: &Path) -> bool {
    let file = name.file_name().and_then(|name| name.to_str());
    file.is_none_or(|name| name.starts_with('.'))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_bucket_on_the_wire_keeps_the_rules() {
    let server = Server::start().await;
    assert_rules(&*server.bucket(BUCKET, KEY, SECRET).await).await;
}

#[tokio::test]
async fn the_rules_of_a_store_hold_on_the_wire() {
    let server = Server::start().await;
    let subject = Real {
        api: server.bucket(BUCKET, KEY, SECRET).await,
        format: NDJSON,
        objects: || server.objects(),
    };
    // The server looks first and writes then, so of claims at the same time several may win there:
    // what depends on one winner is held to the service's promise by the other buckets.
    rules::assert_rules_in_turn(&subject).await;
}

#[tokio::test]
async fn every_event_is_in_the_bucket_once() {
    for (format, packed) in [(NDJSON, true), (PARQUET, true), (NDJSON, false)] {
        let server = Server::start().await;
        let api = server.bucket(BUCKET, KEY, SECRET).await;
        let folder = tempfile::tempdir().expect("tempdir");
        let topic = MemoryTopic::new(1);
        let mut workload = Workload::new(1, Shape::default());
        for _ in 0..2 {
            for _ in 0..20 {
                workload.send(&topic);
            }
            let transforms = if packed { pack() } else { Vec::new() };
            let limits = (format, 1 << 20);
            run(api.clone(), limits, &topic, transforms, folder.path()).await;
        }
        let letters = read_letters(&folder.path().join(LETTERS));
        check(&workload, &read_events(&server.objects()), &letters);
    }
}

#[tokio::test]
async fn what_the_service_refuses_says_what_to_do() {
    let server = Server::start().await;
    for (key, secret) in [("AKIDOTHER", SECRET), (KEY, "wrong")] {
        let api = server.bucket(BUCKET, key, secret).await;
        let put = api.put("a", bytes::Bytes::from_static(b"x")).await;
        let failure = put.expect_err("refused");
        let Verdict::Fatal(help) = failure.verdict else {
            panic!("{failure:?}");
        };
        assert!(help.contains("credentials"), "{failure}: {help}");
        assert!(failure.message.contains("service answered `"), "{failure}");
    }
    assert_eq!(server.objects(), []);
    // A port that nothing listens on any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let api = bucket(&url, BUCKET, KEY, SECRET).await;
    let failure = api.get("a").await.expect_err("away");
    assert_eq!(failure.verdict, Verdict::Transient, "{failure}");
}
