//! Payload through the server's wire: `PutRecords` in, `GetRecords` out.
//!
//! The client is a bare HTTP/1.1 connection with ready-made bodies, so that what is
//! measured is the server and the loopback. Figures are bytes of data, not of base64.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use millpond_kinesis_local::{Server, ServerConfig, ServerHandle};
use tokio::runtime::Runtime;

/// Two connections at once: one core for them, one for the server.
const CONNECTIONS: usize = 2;
const RECORDS: usize = 500;
const START_MS: u64 = 1_700_000_000_000;

/// A server whose clock the bench moves, so that what was put can expire.
struct Bed {
    _runtime: Runtime,
    server: ServerHandle,
    now_ms: Arc<AtomicU64>,
}

impl Bed {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let clock = now_ms.clone();
        let config = ServerConfig {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            seed: Some(1),
            ..ServerConfig::default()
        };
        let server = runtime.block_on(Server::start(config)).unwrap();
        Connection::new(server.addr).call("CreateStream", r#"{"StreamName":"s","ShardCount":4}"#);
        Self {
            _runtime: runtime,
            server,
            now_ms,
        }
    }

    fn forget_everything(&self) {
        self.now_ms.fetch_add(25 * 3_600_000, Ordering::Relaxed);
        Connection::new(self.server.addr).call("DescribeStreamSummary", r#"{"StreamName":"s"}"#);
    }

    /// The same call `times` times on each connection, all at once.
    fn run(&self, times: usize, call: impl Fn(&mut Connection, usize) + Sync) -> Duration {
        let mut connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| Connection::new(self.server.addr))
            .collect();
        let started = Instant::now();
        std::thread::scope(|scope| {
            for (index, connection) in connections.iter_mut().enumerate() {
                let call = &call;
                scope.spawn(move || (0..times).for_each(|_| call(connection, index)));
            }
        });
        started.elapsed()
    }
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    fn new(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            answer: Vec::new(),
        }
    }

    /// Sends one request; the body of its answer, which must be good.
    fn call(&mut self, operation: &str, body: &str) -> &[u8] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: local\r\nContent-Type: application/x-amz-json-1.1\r\n\
             X-Amz-Target: Kinesis_20131202.{operation}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).unwrap();
        self.stream.write_all(body.as_bytes()).unwrap();
        self.answer.resize(64 * 1024, 0);
        let (mut filled, mut end) = (0, usize::MAX);
        let mut start = 0;
        while filled < end {
            filled += self.stream.read(&mut self.answer[filled..]).unwrap();
            if start == 0
                && let Some(at) = self.answer[..filled]
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n")
            {
                start = at + 4;
                let head = std::str::from_utf8(&self.answer[..at])
                    .unwrap()
                    .to_ascii_lowercase();
                let (_, length) = head.split_once("content-length: ").unwrap();
                end = start
                    + length
                        .split("\r\n")
                        .next()
                        .unwrap()
                        .parse::<usize>()
                        .unwrap();
                self.answer.resize(end.max(filled), 0);
            }
        }
        assert!(
            self.answer.starts_with(b"HTTP/1.1 200"),
            "{:?}",
            String::from_utf8_lossy(&self.answer[..filled])
        );
        &self.answer[start..end]
    }
}

/// A request of 500 records; the partition keys spread over the shards.
fn put_body(record_bytes: usize) -> String {
    let data = vec![0x5a; record_bytes];
    let data = base64_simd::STANDARD.encode_to_string(&data);
    let records: Vec<_> = (0..RECORDS)
        .map(|n| format!(r#"{{"Data":"{data}","PartitionKey":"job-{n}"}}"#))
        .collect();
    format!(r#"{{"StreamName":"s","Records":[{}]}}"#, records.join(","))
}

fn put(criterion: &mut Criterion) {
    let bed = Bed::new();
    let mut group = criterion.benchmark_group("put_records");
    for record_bytes in [600, 10_000] {
        let body = put_body(record_bytes);
        group.throughput(Throughput::Bytes(
            (CONNECTIONS * RECORDS * record_bytes) as u64,
        ));
        group.bench_function(format!("{record_bytes}_byte_records"), |bencher| {
            bencher.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                // In portions, so that what is held stays well below the machine's memory.
                let portion = (200_000_000 / (CONNECTIONS * RECORDS * record_bytes)).max(1);
                let mut left = times as usize;
                while left > 0 {
                    let now = left.min(portion);
                    spent += bed.run(now, |connection, _| {
                        connection.call("PutRecords", &body);
                    });
                    bed.forget_everything();
                    left -= now;
                }
                spent
            });
        });
    }
    group.finish();
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get_records");
    for record_bytes in [600, 10_000] {
        let bed = Bed::new();
        let body = put_body(record_bytes);
        let requests = 60_000_000 / (RECORDS * record_bytes);
        bed.run(requests / CONNECTIONS, |connection, _| {
            connection.call("PutRecords", &body);
        });
        let iterators: Vec<String> = (0..CONNECTIONS)
            .map(|shard| {
                let body = format!(
                    r#"{{"StreamName":"s","ShardId":"shardId-{shard:012}","ShardIteratorType":"TRIM_HORIZON"}}"#
                );
                let mut connection = Connection::new(bed.server.addr);
                let answer = connection.call("GetShardIterator", &body);
                let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
                format!(r#"{{"ShardIterator":{}}}"#, answer["ShardIterator"])
            })
            .collect();
        let read: usize = iterators
            .iter()
            .map(|body| {
                let mut connection = Connection::new(bed.server.addr);
                let answer = connection.call("GetRecords", body);
                let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
                answer["Records"].as_array().unwrap().len() * record_bytes
            })
            .sum();
        group.throughput(Throughput::Bytes(read as u64));
        group.bench_function(format!("{record_bytes}_byte_records"), |bencher| {
            bencher.iter_custom(|times| {
                bed.run(times as usize, |connection, index| {
                    connection.call("GetRecords", &iterators[index]);
                })
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    put(&mut criterion);
    get(&mut criterion);
    criterion.final_summary();
}
