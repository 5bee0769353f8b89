//! The server, spoken to with the real AWS SDK, and with what is not the protocol.

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_sdk_kinesis::{
    Client,
    error::SdkError,
    operation::get_records::GetRecordsError,
    primitives::Blob,
    types::{MetricsName, ShardIteratorType},
};
use common::{client, code, create, entry, iterator, read, read_all, shards, until};
use millpond_kinesis_local::{
    Server, ServerConfig, ServerHandle,
    model::{ModelConfig, ReadLimits, WriteLimits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const FIRST: &str = "shardId-000000000000";
const START_MS: u64 = 1_700_000_000_000;
const MIB: usize = 1024 * 1024;

/// A server whose time the test sets.
async fn start_at(model: ModelConfig) -> (ServerHandle, Client, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(START_MS));
    let clock = now_ms.clone();
    let config = ServerConfig {
        model,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await.unwrap();
    let client = client(&server.endpoint_url());
    (server, client, now_ms)
}

async fn start() -> (ServerHandle, Client) {
    let server = Server::start(ServerConfig::default()).await.unwrap();
    let client = client(&server.endpoint_url());
    (server, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_comes_out() {
    let (server, client) = start().await;
    create(&client, "events", 2).await;
    let entries = (0..100).map(|n| entry(&format!("key-{n}"), format!("value {n}").as_bytes()));
    let put = client
        .put_records()
        .stream_name("events")
        .set_records(Some(entries.collect()));
    assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
    let mut seen = read_all(&client, "events").await;
    seen.sort_by_key(|(key, _)| key["key-".len()..].parse::<u32>().unwrap());
    let wanted: Vec<_> = (0..100)
        .map(|n| (format!("key-{n}"), format!("value {n}").into_bytes()))
        .collect();
    assert_eq!(seen, wanted);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_from_none_to_10_mib_keep_every_byte() {
    let (server, client) = start().await;
    client
        .create_stream()
        .stream_name("s")
        .shard_count(1)
        .max_record_size_in_kib(10_240)
        .send()
        .await
        .unwrap();
    let mut wanted = Vec::new();
    for length in [0, 1, 2, 3, 1_000, MIB, 10 * MIB - 1] {
        let data: Vec<u8> = (0..length).map(|n| (n * 31 / 7) as u8).collect();
        let put = client
            .put_record()
            .stream_name("s")
            .partition_key("k")
            .data(Blob::new(data.clone()));
        put.send().await.unwrap();
        wanted.push(("k".to_owned(), data));
    }
    assert!(read_all(&client, "s").await == wanted);
    let start = iterator(&client, "s", FIRST, ShardIteratorType::TrimHorizon).await;
    assert_eq!(
        read(&client, &start).await.records().len(),
        6,
        "a page holds at most 10 MiB"
    );
    let put = client
        .put_record()
        .stream_name("s")
        .partition_key("k")
        .data(Blob::new(vec![0; 10 * MIB]));
    assert_eq!(code(put.send().await), "ValidationException");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_lose_nothing() {
    const WRITERS: u32 = 8;
    const REQUESTS: u32 = 10;
    const RECORDS: u32 = 100;
    let (server, client) = start().await;
    create(&client, "s", 3).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for request in 0..REQUESTS {
                    let name = |n| format!("{writer}-{request}-{n}");
                    let entries = (0..RECORDS)
                        .map(|n| entry(&name(n), name(n).as_bytes()))
                        .collect();
                    let put = client
                        .put_records()
                        .stream_name("s")
                        .set_records(Some(entries));
                    let answer = put.send().await.unwrap();
                    let place = |answer: &aws_sdk_kinesis::types::PutRecordsResultEntry| {
                        (
                            answer.shard_id().unwrap().to_owned(),
                            answer.sequence_number().unwrap().to_owned(),
                        )
                    };
                    placed.extend(
                        answer
                            .records()
                            .iter()
                            .map(place)
                            .zip((0..RECORDS).map(name)),
                    );
                }
                placed
            })
        })
        .collect();
    let mut wanted = BTreeMap::new();
    for writer in writers {
        wanted.extend(writer.await.unwrap());
    }
    assert_eq!(
        wanted.len() as u32,
        WRITERS * REQUESTS * RECORDS,
        "no position is given twice"
    );
    let mut seen = Vec::new();
    for shard in shards(&client, "s").await {
        let start = iterator(
            &client,
            "s",
            shard.shard_id(),
            ShardIteratorType::TrimHorizon,
        )
        .await;
        for record in read(&client, &start).await.records() {
            let place = (
                shard.shard_id().to_owned(),
                record.sequence_number().to_owned(),
            );
            seen.push((
                place,
                String::from_utf8(record.data().as_ref().to_vec()).unwrap(),
            ));
        }
    }
    // By shard and sequence number, which is the order that the shards give.
    assert!(seen == wanted.into_iter().collect::<Vec<_>>());
    server.shutdown().await;
}

#[tokio::test]
async fn throttled_records_fail_alone_and_with_their_reason() {
    let limits = ModelConfig {
        write_limits: Some(WriteLimits::default()),
        read_limits: Some(ReadLimits::default()),
        ..ModelConfig::default()
    };
    let (server, client, now_ms) = start_at(limits).await;
    create(&client, "s", 1).await;
    let put = || {
        let entries = (0..3).map(|_| entry("k", &vec![7; 400_000])).collect();
        client
            .put_records()
            .stream_name("s")
            .set_records(Some(entries))
            .send()
    };
    let answer = put().await.unwrap();
    assert_eq!(answer.failed_record_count(), Some(1));
    let refused = &answer.records()[2];
    assert_eq!(
        refused.error_code(),
        Some("ProvisionedThroughputExceededException")
    );
    assert!(
        refused.error_message().unwrap().contains(FIRST) && refused.sequence_number().is_none()
    );
    let single = client
        .put_record()
        .stream_name("s")
        .partition_key("k")
        .data(Blob::new(vec![7; 400_000]));
    assert_eq!(
        code(single.send().await),
        "ProvisionedThroughputExceededException"
    );
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(put().await.unwrap().failed_record_count(), Some(1));

    let start = iterator(&client, "s", FIRST, ShardIteratorType::Latest).await;
    for _ in 0..5 {
        read(&client, &start).await;
    }
    let refused = client.get_records().shard_iterator(&start).send().await;
    assert!(matches!(
        service_error(refused),
        GetRecordsError::ProvisionedThroughputExceededException(_)
    ));
    server.shutdown().await;
}

fn service_error<T: std::fmt::Debug>(
    answer: Result<T, SdkError<GetRecordsError>>,
) -> GetRecordsError {
    answer.unwrap_err().into_service_error()
}

#[tokio::test]
async fn time_expires_iterators_and_records() {
    let (server, client, now_ms) = start_at(ModelConfig::default()).await;
    create(&client, "s", 1).await;
    client
        .put_record()
        .stream_name("s")
        .partition_key("k")
        .data(Blob::new("old"))
        .send()
        .await
        .unwrap();
    let start = iterator(&client, "s", FIRST, ShardIteratorType::TrimHorizon).await;
    now_ms.fetch_add(1_234, Ordering::Relaxed);
    let page = client
        .get_records()
        .shard_iterator(&start)
        .limit(1)
        .send()
        .await
        .unwrap();
    assert_eq!(page.millis_behind_latest(), Some(0));
    let arrival = page.records()[0].approximate_arrival_timestamp().unwrap();
    assert_eq!(arrival.to_millis().unwrap(), START_MS as i64);
    now_ms.fetch_add(300_000, Ordering::Relaxed);
    let refused = client.get_records().shard_iterator(&start).send().await;
    assert!(matches!(
        service_error(refused),
        GetRecordsError::ExpiredIteratorException(_)
    ));
    now_ms.fetch_add(24 * 3_600_000, Ordering::Relaxed);
    assert!(read_all(&client, "s").await.is_empty());
    server.shutdown().await;
}

#[tokio::test]
async fn a_full_stream_says_so() {
    let model = ModelConfig {
        max_retained_bytes_per_stream: Some(1_000),
        ..ModelConfig::default()
    };
    let (server, client, _) = start_at(model).await;
    create(&client, "s", 1).await;
    let put = |bytes| {
        client
            .put_record()
            .stream_name("s")
            .partition_key("k")
            .data(Blob::new(vec![0; bytes]))
            .send()
    };
    put(900).await.unwrap();
    assert_eq!(code(put(100).await), "LimitExceededException");
    put(98).await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn requests_out_of_bounds_are_refused() {
    let (server, client) = start().await;
    create(&client, "s", 1).await;
    let put = |count: usize, bytes: usize| {
        let entries = (0..count).map(|_| entry("k", &vec![0; bytes])).collect();
        client
            .put_records()
            .stream_name("s")
            .set_records(Some(entries))
            .send()
    };
    assert_eq!(code(put(0, 0).await), "ValidationException");
    assert_eq!(code(put(501, 0).await), "ValidationException");
    assert_eq!(code(put(11, MIB - 1).await), "InvalidArgumentException");
    assert!(put(500, 1).await.is_ok());
    let dry = client
        .put_records()
        .stream_name("s")
        .records(entry("k", b"x"))
        .dry_run(true);
    assert_eq!(code(dry.send().await), "InvalidArgumentException");
    let foreign = client
        .list_shards()
        .stream_arn("arn:aws:kinesis:eu-west-1:1:stream/s");
    assert_eq!(code(foreign.send().await), "ResourceNotFoundException");
    let nonsense = client.get_records().shard_iterator("nonsense").send().await;
    assert_eq!(code(nonsense), "InvalidArgumentException");
    assert_eq!(
        code(client.list_shards().send().await),
        "InvalidArgumentException"
    );
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    assert!(
        client
            .list_shards()
            .stream_arn(arn)
            .stream_name("s")
            .send()
            .await
            .is_ok()
    );
    assert_eq!(
        code(
            client
                .list_shards()
                .stream_arn(arn)
                .stream_name("t")
                .send()
                .await
        ),
        "InvalidArgumentException"
    );
    assert_eq!(
        code(
            client
                .disable_enhanced_monitoring()
                .stream_arn(arn)
                .shard_level_metrics(MetricsName::All)
                .send()
                .await
        ),
        "UnknownOperationException"
    );
    server.shutdown().await;
}

/// Sends one request as it is; the status and the body of the answer.
async fn raw(
    server: &ServerHandle,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut request = format!("{method} / HTTP/1.1\r\nHost: local\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

#[tokio::test]
async fn what_is_not_the_protocol_gets_a_clear_answer() {
    let (server, client) = start().await;
    create(&client, "s", 1).await;
    let target = |operation: &str| format!("Kinesis_20131202.{operation}");
    let put_record =
        |data: &str| format!(r#"{{"StreamName":"s","PartitionKey":"k","Data":"{data}"}}"#);
    let json = "application/x-amz-json-1.1";
    let cbor = "application/x-amz-cbor-1.1";
    let cases = [
        (
            "GET",
            "",
            json,
            String::new(),
            "UnknownOperationException",
            "X-Amz-Target",
        ),
        (
            "POST",
            "",
            json,
            String::new(),
            "MissingActionException",
            "X-Amz-Target",
        ),
        (
            "POST",
            "StartStreamEncryption",
            json,
            "{}".to_owned(),
            "UnknownOperationException",
            "StartStreamEncryption",
        ),
        (
            "POST",
            "PutRecord",
            cbor,
            "x".to_owned(),
            "SerializationException",
            "CBOR",
        ),
        (
            "POST",
            "PutRecord",
            json,
            "{".to_owned(),
            "SerializationException",
            "JSON",
        ),
        (
            "POST",
            "PutRecord",
            json,
            "{}".to_owned(),
            "ValidationException",
            "Data",
        ),
        (
            "POST",
            "PutRecord",
            json,
            put_record("AAA"),
            "SerializationException",
            "base64",
        ),
        (
            "POST",
            "PutRecords",
            json,
            r#"{"Records":{}}"#.to_owned(),
            "ValidationException",
            "sequence",
        ),
        (
            "POST",
            "GetRecords",
            json,
            r#"{"ShardIterator":7}"#.to_owned(),
            "ValidationException",
            "string",
        ),
        (
            "POST",
            "ListStreams",
            json,
            r#"{"Limit":-1}"#.to_owned(),
            "ValidationException",
            "Limit",
        ),
    ];
    for (method, operation, content_type, body, name, hint) in cases {
        let target = target(operation);
        let mut headers = vec![("Content-Type", content_type)];
        if !operation.is_empty() {
            headers.push(("X-Amz-Target", &target));
        }
        let (status, answer) = raw(&server, method, &headers, &body).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (status, answer["__type"].as_str()),
            (400, Some(name)),
            "{method} {operation} {body}"
        );
        assert!(
            answer["message"].as_str().unwrap().contains(hint),
            "{answer}"
        );
    }
    // Some clients escape the slash.
    let target = target("PutRecord");
    let headers = [("Content-Type", json), ("X-Amz-Target", &*target)];
    let (status, answer) = raw(&server, "POST", &headers, &put_record(r"\/\/\/\/")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        read_all(&client, "s").await,
        [("k".to_owned(), vec![0xff; 3])]
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_ends_when_told_and_when_dropped() {
    let (server, client) = start().await;
    assert!(server.addr.ip().is_loopback());
    create(&client, "s", 1).await;
    let taken = Server::start(ServerConfig {
        port: server.addr.port(),
        ..ServerConfig::default()
    })
    .await
    .unwrap_err();
    assert!(
        taken.to_string().contains(&server.addr.to_string()),
        "{taken}"
    );
    let addr = server.addr;
    server.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
    let again = Server::start(ServerConfig {
        port: addr.port(),
        ..ServerConfig::default()
    })
    .await
    .unwrap();
    assert_eq!(again.addr, addr);
    drop(again);
    until("a dropped server stops listening", async || {
        TcpStream::connect(addr).await.is_err()
    })
    .await;
}
