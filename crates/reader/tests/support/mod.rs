//! A local DynamoDB, and items built by hand as the sink would write them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::primitives::Blob;
pub use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PutRequest, ScalarAttributeType,
    WriteRequest,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use futures_util::stream::{self, StreamExt};
use millpond_format::frame::{FrameBuilder, FrameEncoder};
use millpond_format::header::{
    ChainTotals, Codec, FrameInfo, Header, Kind, Part, Place, SourceRange,
};
use millpond_format::keys::{self, SortKey};
use millpond_format::sequence::Position;
use millpond_reader::{Event, Events, ReadError, Reader, ReaderConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// `MILLPOND_SEED`, or a new one, shown when the test fails.
#[expect(clippy::print_stderr, reason = "shown when the test fails")]
pub fn seed() -> u64 {
    let given = std::env::var("MILLPOND_SEED").ok();
    let seed = given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| SmallRng::from_os_rng().random());
    eprintln!("MILLPOND_SEED={seed}");
    seed
}

pub const TABLE: &str = "events";
pub const TOPIC: &str = "topic";

pub type Item = HashMap<String, AttributeValue>;

/// A DynamoDB in this process; ends with the value.
pub struct Local {
    pub client: Client,
    pub endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Local {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let database = dynoxide::Database::memory().expect("a database");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let until = async {
                let _ = stopped.await;
            };
            dynoxide::server::serve_with_shutdown(listener, database, until)
                .await
                .expect("serves");
        });
        let client = Client::from_conf(config(&endpoint, http()).build());
        Self {
            client,
            endpoint,
            stop: Some(stop),
            server,
        }
    }

    /// One with the table and pipeline `p` in it.
    pub async fn with_table() -> Self {
        let local = Self::start().await;
        local
            .create_table(TABLE, "pk", "sk", ScalarAttributeType::S)
            .await;
        local.put_all([registry_row("p")]).await;
        local
    }

    pub async fn create_table(&self, name: &str, pk: &str, sk: &str, kind: ScalarAttributeType) {
        let attribute = |name: &str, kind: ScalarAttributeType| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(kind)
                .build()
                .expect("complete")
        };
        let key = |name: &str, kind: KeyType| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .expect("complete")
        };
        self.client
            .create_table()
            .table_name(name)
            .attribute_definitions(attribute(pk, ScalarAttributeType::S))
            .attribute_definitions(attribute(sk, kind))
            .key_schema(key(pk, KeyType::Hash))
            .key_schema(key(sk, KeyType::Range))
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    }

    pub async fn put(&self, item: Item) {
        self.put_into(TABLE, item).await;
    }

    pub async fn put_into(&self, table: &str, item: Item) {
        self.client
            .put_item()
            .table_name(table)
            .set_item(Some(item))
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    }

    pub async fn delete(&self, item: &Item) {
        self.client
            .delete_item()
            .table_name(TABLE)
            .key("pk", item["pk"].clone())
            .key("sk", item["sk"].clone())
            .send()
            .await
            .unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
    }

    /// Puts many items, 25 a request and some requests at once.
    pub async fn put_all(&self, items: impl IntoIterator<Item = Item>) {
        let requests: Vec<_> = items
            .into_iter()
            .map(|item| {
                let put = PutRequest::builder()
                    .set_item(Some(item))
                    .build()
                    .expect("an item");
                WriteRequest::builder().put_request(put).build()
            })
            .collect();
        let chunks: Vec<Vec<_>> = requests.chunks(25).map(<[_]>::to_vec).collect();
        stream::iter(chunks)
            .for_each_concurrent(4, |chunk| async {
                let answer = self
                    .client
                    .batch_write_item()
                    .request_items(TABLE, chunk)
                    .send()
                    .await
                    .unwrap_or_else(|error| panic!("{}", DisplayErrorContext(error)));
                assert!(answer.unprocessed_items().is_none_or(HashMap::is_empty));
            })
            .await;
    }

    pub async fn reader(&self) -> Reader {
        self.reader_with(ReaderConfig::new(TABLE))
            .await
            .expect("opens")
    }

    pub async fn reader_with(&self, config: ReaderConfig) -> Result<Reader, ReadError> {
        Reader::open(self.client.clone(), config).await
    }

    pub async fn stop(mut self) {
        drop(self.client);
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.server.await.expect("ends");
    }
}

pub fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

pub fn config(endpoint: &str, http: SharedHttpClient) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .http_client(http)
}

pub fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub fn b(bytes: Vec<u8>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub fn row(pk: &str, sk: &str, attributes: &[(&str, AttributeValue)]) -> Item {
    let mut item: Item = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    item.insert("pk".into(), s(pk));
    item.insert("sk".into(), s(sk));
    item
}

pub fn registry_row(pipeline: &str) -> Item {
    let attributes = [("version", n(1)), ("topic", s(TOPIC)), ("partitions", n(4))];
    row(keys::PIPELINES_PK, pipeline, &attributes)
}

pub fn ledger_row(pipeline: &str, partition: u32, committed: u64) -> Item {
    let pk = keys::ledger_pk(pipeline, TOPIC);
    row(
        &pk,
        &keys::ledger_sk(partition),
        &[("committed", n(committed))],
    )
}

/// An event as a test wants it.
pub type Timed = (i64, Vec<u8>);

/// Builds the items of one chain.
pub struct ChainWriter {
    pub group: String,
    pub partition: u32,
    pub late_ms: i64,
    /// Partition keys that it goes round.
    pub write_shards: u32,
    sort_time_ms: i64,
    offset: u64,
    ordinal: u64,
    totals: ChainTotals,
    encoder: FrameEncoder,
}

impl ChainWriter {
    pub fn new(group: &str, partition: u32) -> Self {
        Self {
            group: group.into(),
            partition,
            late_ms: 0,
            write_shards: 1,
            sort_time_ms: 0,
            offset: 100,
            ordinal: 0,
            totals: ChainTotals::default(),
            encoder: FrameEncoder::new(1).expect("a context"),
        }
    }

    pub fn pk(&self) -> String {
        keys::chain_pk("p", &self.group, self.partition)
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn directory_row(&self) -> Item {
        let pk = keys::directory_pk("p", &self.group);
        let sk = keys::directory_sk(&self.group, self.partition, 0);
        row(&pk, &sk, &[("late", n(self.late_ms))])
    }

    /// One of each write shard.
    pub fn directory_rows(&self) -> Vec<Item> {
        let pk = keys::directory_pk("p", &self.group);
        let of = |shard| {
            let sk = keys::directory_sk(&self.group, self.partition, shard);
            row(&pk, &sk, &[("late", n(self.late_ms))])
        };
        (0..self.write_shards).map(of).collect()
    }

    /// Of the item that is the so many-th, from 1.
    fn item_pk(&self, number: u64) -> String {
        let shard = ((number - 1) % u64::from(self.write_shards)) as u32;
        keys::shard_pk("p", &self.group, self.partition, shard)
    }

    /// An item of whole events, one inner list a frame.
    pub fn item(&mut self, frames: &[Vec<Timed>]) -> Item {
        let first_ordinal = self.ordinal;
        let mut infos = Vec::new();
        let mut packed = Vec::new();
        for events in frames {
            let mut builder = FrameBuilder::default();
            for (time_ms, value) in events {
                builder.push(value, *time_ms, 0, self.ordinal);
                self.ordinal += 1;
            }
            let (info, bytes) = self.encoder.encode(builder.take()).expect("compresses");
            infos.push(info);
            packed.extend(bytes);
        }
        let count = self.ordinal - first_ordinal;
        self.finish(Kind::Events, first_ordinal, count, infos, packed)
    }

    /// One event as several items.
    pub fn parts(&mut self, time_ms: i64, value: &[u8], part_bytes: usize) -> Vec<Item> {
        let count = value.len().div_ceil(part_bytes) as u32;
        let base_offset = self.offset;
        let mut items = Vec::new();
        for (index, slice) in value.chunks(part_bytes).enumerate() {
            let part = Part {
                index: index as u32,
                count,
                event_bytes: value.len() as u64,
                event_crc32c: crc32c::crc32c(value),
            };
            let mut builder = FrameBuilder::default();
            builder.push(slice, time_ms, 0, self.ordinal);
            let (mut info, packed) = self.encoder.encode(builder.take()).expect("compresses");
            info.event_count = part.is_last().into();
            self.offset = base_offset;
            let kind = Kind::Part(part);
            let counted = part.is_last().into();
            items.push(self.finish_at(kind, self.ordinal, counted, vec![info], packed, part.index));
        }
        self.ordinal += 1;
        items
    }

    /// One event as it is, as without the SmartModule.
    pub fn plain(&mut self, time_ms: i64, value: &[u8]) -> Item {
        self.sort_time_ms = self.sort_time_ms.max(time_ms);
        self.late_ms = self.late_ms.max(self.sort_time_ms - time_ms);
        let sk = self.sort_key(0);
        let origin = format!(
            "mp1/stream/shardId-000000000000/{}/0/{time_ms}/7.{}/{}",
            1_000 + self.ordinal,
            self.ordinal,
            self.group
        );
        self.ordinal += 1;
        self.offset += 1;
        let attributes = [
            ("v", b(value.to_vec())),
            ("o", s(origin)),
            ("t0", n(time_ms)),
        ];
        row(&self.item_pk(self.ordinal), &sk, &attributes)
    }

    fn sort_key(&self, envelope_index: u32) -> String {
        SortKey {
            sort_time_ms: self.sort_time_ms,
            base_offset: self.offset,
            envelope_index,
        }
        .to_text()
    }

    fn finish(
        &mut self,
        kind: Kind,
        first_ordinal: u64,
        count: u64,
        frames: Vec<FrameInfo>,
        packed: Vec<u8>,
    ) -> Item {
        self.finish_at(kind, first_ordinal, count, frames, packed, 0)
    }

    fn finish_at(
        &mut self,
        kind: Kind,
        first_ordinal: u64,
        count: u64,
        frames: Vec<FrameInfo>,
        packed: Vec<u8>,
        envelope_index: u32,
    ) -> Item {
        let last_ordinal = first_ordinal + count.saturating_sub(1);
        let position = |ordinal: u64| Position {
            sequence: (1_000 + ordinal).to_string().into(),
            sub_sequence: 0,
        };
        let mut header = Header {
            kind,
            codec: Codec::Zstd { dictionary: 0 },
            group: self.group.clone(),
            base_offset: self.offset,
            last_offset: self.offset + count.saturating_sub(1),
            place: Place::Chain(self.totals),
            sources: vec![SourceRange {
                stream: "stream".into(),
                shard: "shardId-000000000000".into(),
                epoch: 7,
                first_ordinal,
                last_ordinal,
                first: position(first_ordinal),
                last: position(last_ordinal),
                count,
            }],
            frames,
        };
        self.totals.items += 1;
        self.totals.events += header.event_count();
        self.totals.event_bytes += header.event_bytes();
        self.totals.packed_bytes += header.packed_bytes() as u64;
        header.place = Place::Chain(self.totals);
        self.sort_time_ms = self.sort_time_ms.max(header.last_time_ms());
        self.late_ms = self.late_ms.max(self.sort_time_ms - header.first_time_ms());
        let sk = self.sort_key(envelope_index);
        self.offset += count.max(1);
        let mut section = Vec::new();
        header.encode(&mut section);
        let attributes = [
            ("h", b(section)),
            ("d", b(packed)),
            ("n", n(header.event_count())),
            ("t0", n(header.first_time_ms())),
            ("t1", n(header.last_time_ms())),
        ];
        row(&self.item_pk(self.totals.items), &sk, &attributes)
    }
}

/// Changes a binary attribute.
pub fn change(item: &mut Item, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let Some(AttributeValue::B(blob)) = item.get(name) else {
        panic!("no binary `{name}`");
    };
    let mut bytes = blob.as_ref().to_vec();
    change(&mut bytes);
    item.insert(name.into(), b(bytes));
}

pub fn text_of(item: &Item, name: &str) -> String {
    item[name].as_s().expect("a string").clone()
}

pub async fn drain(events: &mut Events) -> Result<Vec<Event>, ReadError> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await? {
        all.push(event);
    }
    Ok(all)
}

pub fn values(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| String::from_utf8_lossy(&event.value).into_owned())
        .collect()
}
