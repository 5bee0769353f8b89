//! Answers of `GetRecords` as bytes: how fast the server makes them, and what decoding one costs.

use std::borrow::Cow;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

/// One `GetRecords` call over an open connection; answers the bytes of its body.
fn call(stream: &mut BufReader<TcpStream>, host: &str, iterator: &str, limit: u32) -> Vec<u8> {
    let body = format!("{{\"ShardIterator\":\"{iterator}\",\"Limit\":{limit}}}");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: Kinesis_20131202.GetRecords\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .get_mut()
        .write_all(request.as_bytes())
        .expect("sent");
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a header");
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
    }
    assert!(length > 0, "an answer without a length");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).expect("an answer");
    assert!(
        answer.starts_with(b"{"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    answer
}

fn connect(endpoint: &str) -> (BufReader<TcpStream>, String) {
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(host).expect("connected");
    stream.set_nodelay(true).expect("set");
    (BufReader::with_capacity(1 << 16, stream), host.to_owned())
}

/// The first answer of a shard.
pub fn recorded(endpoint: &str, iterator: &str, limit: u32) -> Bytes {
    let (mut stream, host) = connect(endpoint);
    call(&mut stream, &host, iterator, limit).into()
}

/// Reads so many bytes of answers, over one connection for each iterator; answers how many they were, and the time.
pub fn ceiling(
    endpoint: &str,
    iterators: &[String],
    limit: u32,
    bytes: usize,
) -> (usize, Duration) {
    let began = Instant::now();
    let readers = iterators.iter().map(|iterator| {
        let (endpoint, iterator) = (endpoint.to_owned(), iterator.clone());
        let wanted = bytes / iterators.len();
        std::thread::spawn(move || {
            let (mut stream, host) = connect(&endpoint);
            let mut read = 0;
            while read < wanted {
                read += call(&mut stream, &host, &iterator, limit).len();
            }
            read
        })
    });
    let readers: Vec<_> = readers.collect();
    let read = readers
        .into_iter()
        .map(|reader| reader.join().expect("read"));
    (read.sum(), began.elapsed())
}

/// Seconds that one decoding of an answer takes.
pub struct Decoding {
    /// Bytes of the records' data in it.
    pub data_bytes: usize,
    /// The SDK's call, but for the network: it signs, and decodes the body.
    pub sdk: f64,
    /// By `serde_json` into borrowed text, and base64 of each record's data.
    pub borrowed: f64,
    /// The second of these alone.
    pub base64: f64,
}

#[derive(Debug)]
struct Replay(Bytes);

impl HttpConnector for Replay {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let status = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(self.0.clone()))))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    approximate_arrival_timestamp: f64,
}

fn per_round(seconds: f64, mut round: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || began.elapsed().as_secs_f64() < seconds {
        round();
        rounds += 1;
    }
    began.elapsed().as_secs_f64() / f64::from(rounds)
}

/// Decodes an answer in each way, for so many seconds each.
pub async fn decoding(body: &Bytes, seconds: f64) -> Decoding {
    let replay = SharedHttpConnector::new(Replay(body.clone()));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .http_client(http_client_fn(move |_, _| replay.clone()))
        .build();
    let client = Client::from_conf(config);
    let began = Instant::now();
    let (mut rounds, mut data_bytes) = (0, 0);
    while rounds == 0 || began.elapsed().as_secs_f64() < seconds {
        let answer = client.get_records().shard_iterator("i").send().await;
        let answer = answer.expect("decoded");
        data_bytes = answer
            .records
            .iter()
            .map(|record| record.data.as_ref().len())
            .sum();
        std::hint::black_box(&answer);
        rounds += 1;
    }
    let sdk = began.elapsed().as_secs_f64() / f64::from(rounds);
    let borrowed = per_round(seconds, || {
        let answer: Answer<'_> = serde_json::from_slice(body).expect("decoded");
        for record in &answer.records {
            let data = STANDARD.decode(record.data.as_bytes()).expect("base64");
            std::hint::black_box((
                data,
                &record.partition_key,
                &record.sequence_number,
                record.approximate_arrival_timestamp,
            ));
        }
    });
    let answer: Answer<'_> = serde_json::from_slice(body).expect("decoded");
    let base64 = per_round(seconds, || {
        for record in &answer.records {
            std::hint::black_box(STANDARD.decode(record.data.as_bytes()).expect("base64"));
        }
    });
    Decoding {
        data_bytes,
        sdk,
        borrowed,
        base64,
    }
}
