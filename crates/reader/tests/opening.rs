//! What a reader says of a table that is not as it should be, and how it bears a bad service.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::types::ScalarAttributeType;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use millpond_reader::{
    GroupsRequest, ReadError, ReadRequest, Reader, ReaderConfig, RetryPolicy, TailRequest,
    TailStart,
};
use support::{ChainWriter, Local, TABLE, drain, http, n, registry_row, row, s, values};

const FAST: RetryPolicy = RetryPolicy {
    attempts: 4,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(2),
};

#[tokio::test]
async fn a_table_that_is_missing_or_has_another_key_is_named() {
    let local = Local::start().await;
    let missing = local.reader_with(ReaderConfig::new("nowhere")).await;
    assert_eq!(
        missing.err(),
        Some(ReadError::NoSuchTable {
            table: "nowhere".into(),
            place: "region `eu-central-1`".into(),
        })
    );

    local
        .create_table("numbers", "id", "at", ScalarAttributeType::N)
        .await;
    let error = local
        .reader_with(ReaderConfig::new("numbers"))
        .await
        .expect_err("another key");
    assert_eq!(
        error.to_string(),
        "table `numbers` has the key (`id` HASH S, `at` RANGE N), \
         needed is (`any name` HASH S, `any name` RANGE S)"
    );

    local
        .create_table(TABLE, "id", "at", ScalarAttributeType::S)
        .await;
    let named = ReaderConfig {
        partition_key: Some("pk".into()),
        ..ReaderConfig::new(TABLE)
    };
    let error = local.reader_with(named).await.expect_err("another name");
    assert!(matches!(error, ReadError::KeySchema { .. }), "{error}");
    // Its own names are taken when none are given.
    let error = local
        .reader_with(ReaderConfig::new(TABLE))
        .await
        .expect_err("empty");
    assert_eq!(
        error,
        ReadError::NoPipeline {
            table: TABLE.into()
        }
    );
    local.stop().await;
}

#[tokio::test]
async fn a_pipeline_is_found_or_the_known_ones_are_listed() {
    let local = Local::with_table().await;
    assert_eq!(local.reader().await.pipeline(), "p");
    let asked = |name: &str| ReaderConfig {
        pipeline: Some(name.into()),
        ..ReaderConfig::new(TABLE)
    };
    let error = local.reader_with(asked("q")).await.expect_err("not there");
    assert!(
        matches!(&error, ReadError::NoSuchPipeline { known, .. } if known == &["p"]),
        "{error}"
    );

    local.put(registry_row("other")).await;
    let error = local
        .reader_with(ReaderConfig::new(TABLE))
        .await
        .expect_err("several");
    assert_eq!(
        error.to_string(),
        "table `events` holds several pipelines, name one of `other`, `p`"
    );
    let mut writer = ChainWriter::new("g", 0);
    local.put(writer.item(&[vec![(1, b"of p".to_vec())]])).await;
    local.put(writer.directory_row()).await;
    let reader = local.reader_with(asked("p")).await.expect("named");
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    assert_eq!(values(&drain(&mut read).await.expect("whole")), ["of p"]);
    let reader = local.reader_with(asked("other")).await.expect("named");
    assert_eq!(reader.topic(), Some(support::TOPIC));
    let error = reader
        .read(ReadRequest::group("g"))
        .await
        .expect_err("another's group");
    assert!(matches!(error, ReadError::NoSuchGroup { .. }), "{error}");
    let error = reader
        .inspect_group("g")
        .await
        .expect_err("another's group");
    assert!(matches!(error, ReadError::NoSuchGroup { .. }), "{error}");
    assert_eq!(
        reader.groups(GroupsRequest::default()).next().await,
        Ok(None)
    );

    local
        .put(row(
            millpond_format::keys::PIPELINES_PK,
            "later",
            &[("version", n(3))],
        ))
        .await;
    let error = local.reader_with(asked("later")).await.expect_err("newer");
    assert!(
        matches!(
            error,
            ReadError::NewerFormat {
                found: 3,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
    local.stop().await;
}

/// Items as the page has them, under other names and behind a prefix: every way of reading gives the same.
#[tokio::test]
async fn names_and_a_prefix_of_the_users_choosing_are_in_the_registration() {
    let local = Local::with_table().await;
    let names = [
        ("h", "head"),
        ("d", "data"),
        ("n", "count"),
        ("t0", "first"),
        ("t1", "last"),
        ("v", "value"),
        ("o", "from"),
    ];
    let json = serde_json::to_string(&std::collections::BTreeMap::from(names)).expect("text");
    let mut registration = registry_row("p");
    registration.extend([
        ("version".to_owned(), n(2)),
        ("names".to_owned(), s(json)),
        ("prefix".to_owned(), s("events#")),
    ]);
    local.put(registration).await;
    let mut writer = ChainWriter::new("g", 0);
    let mut items = vec![writer.item(&[vec![(1, b"one".to_vec())], vec![(5, b"two".to_vec())]])];
    items.extend(writer.parts(6, b"three", 2));
    items.push(writer.plain(7, b"four"));
    let mut sks = Vec::new();
    for item in items {
        let mut stored: support::Item = item
            .into_iter()
            .map(|(name, value)| {
                let renamed = names.iter().find(|(known, _)| *known == name);
                (renamed.map_or(name, |(_, is)| (*is).to_owned()), value)
            })
            .collect();
        sks.push(support::text_of(&stored, "sk"));
        stored.insert("pk".into(), s(format!("events#{}", writer.pk())));
        // Another program's, under names that are free.
        stored.extend([("h".to_owned(), s("height")), ("t1".to_owned(), n(1))]);
        local.put(stored).await;
    }
    local.put(writer.directory_row()).await;
    local
        .put(support::ledger_row("p", 0, writer.offset()))
        .await;
    let reader = local.reader().await;
    let mut read = reader.read(ReadRequest::group("g")).await.expect("reads");
    let found = drain(&mut read).await.expect("whole");
    assert_eq!(values(&found), ["one", "two", "three", "four"]);
    assert_eq!(*found[0].item.pk, *format!("events#{}", writer.pk()));
    let slice = ReadRequest {
        from_ms: Some(5),
        to_ms: Some(6),
        ..ReadRequest::group("g")
    };
    let mut read = reader.read(slice).await.expect("reads");
    assert_eq!(values(&drain(&mut read).await.expect("whole")), ["two"]);
    let listed = reader
        .groups(GroupsRequest { first_times: true })
        .next()
        .await;
    let listed = listed.expect("lists").expect("a group");
    assert_eq!((listed.events, listed.first_time_ms), (4, Some(1)));
    let shown = reader
        .inspect(&format!("events#{}", writer.pk()), &sks[0])
        .await;
    let shown = shown.expect("shows");
    assert_eq!(shown["events"], 2);
    let from_the_start = TailRequest {
        start: TailStart::At(0),
        ..TailRequest::new(Some("g".into()))
    };
    let mut tail = reader.tail(from_the_start).await.expect("follows");
    let mut followed = Vec::new();
    while followed.len() < 4 {
        let event = tokio::time::timeout(Duration::from_secs(30), tail.next()).await;
        followed.push(event.expect("in time").expect("readable").event);
    }
    assert_eq!(values(&followed), ["one", "two", "three", "four"]);
    local.stop().await;
}

/// Answers the first requests itself, and hands the others on.
#[derive(Debug, Clone)]
struct Faulty {
    left: Arc<AtomicU32>,
    code: &'static str,
    next: SharedHttpConnector,
}

impl HttpConnector for Faulty {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let taken = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if taken.is_err() {
            return self.next.call(request);
        }
        let status = StatusCode::try_from(400).expect("a status");
        let body = format!(
            "{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{}\",\"message\":\"by the test\"}}",
            self.code
        );
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

async fn open_faulty(
    local: &Local,
    faults: u32,
    code: &'static str,
) -> (Result<Reader, ReadError>, Arc<AtomicU32>) {
    let left = Arc::new(AtomicU32::new(faults));
    let counter = Arc::clone(&left);
    let real = http();
    let client = http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Faulty {
            left: Arc::clone(&counter),
            code,
            next: real.http_connector(settings, components),
        })
    });
    let conf = support::config(&local.endpoint, client).build();
    let config = ReaderConfig {
        retry: FAST,
        ..ReaderConfig::new(TABLE)
    };
    (Reader::open(Client::from_conf(conf), config).await, left)
}

#[tokio::test]
async fn throttling_is_waited_out_and_named_when_it_lasts() {
    let local = Local::with_table().await;
    let throttled = "ProvisionedThroughputExceededException";
    let (reader, left) = open_faulty(&local, 3, throttled).await;
    assert_eq!(reader.expect("opens after three refusals").pipeline(), "p");
    assert_eq!(left.load(Ordering::SeqCst), 0);

    let (reader, left) = open_faulty(&local, 100, throttled).await;
    let error = reader.expect_err("throttled to the end");
    assert!(
        matches!(&error, ReadError::Throttled { attempts: 4, message, .. } if message.contains("by the test")),
        "{error}"
    );
    // The SDK did not retry on its own.
    assert_eq!(left.load(Ordering::SeqCst), 96);

    let (reader, left) = open_faulty(&local, 100, "AccessDeniedException").await;
    let error = reader.expect_err("not allowed");
    assert!(matches!(error, ReadError::AccessDenied { .. }), "{error}");
    assert_eq!(left.load(Ordering::SeqCst), 99, "no second attempt");
    local.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_named() {
    // Bound once and closed again: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let client = Client::from_conf(support::config(&endpoint, http()).build());
    let config = ReaderConfig {
        retry: FAST,
        ..ReaderConfig::new(TABLE)
    };
    let error = Reader::open(client, config).await.expect_err("down");
    assert!(
        matches!(error, ReadError::Unavailable { attempts: 4, .. }),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("`DescribeTable` at region `") && said.contains("refused"),
        "{said}"
    );
    assert!(!said.contains("DispatchFailure"), "a dump: {said}");
}

#[tokio::test]
async fn missing_credentials_are_named_at_once() {
    let conf = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url("http://127.0.0.1:9")
        .http_client(http())
        .build();
    let error = Reader::open(Client::from_conf(conf), ReaderConfig::new(TABLE))
        .await
        .expect_err("no credentials");
    assert!(matches!(error, ReadError::Credentials { .. }), "{error}");
}
