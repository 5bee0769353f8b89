//! What the topic on a cluster holds, whatever its servers do: the same assertions run on the scripted
//! servers, always, and on Fluvio's own, where they are to be had. Each trap of Fluvio's consumer and
//! producer that needs no fault on command is here; the others are beside the scripted servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millpond_connector::meta::{Compression, TopicSettings};
use millpond_connector::topic::{
    Chunk, Offset, PartitionId, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_embedded_topic::{EmbeddedTopic, SmartModules, TopicConfig, conformance};
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_fluvio_topic::{
    Cluster, ClusterSettings, FluvioTopic, TopicOptions, digest, smartmodule_name,
};
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::SequenceNumber;

use crate::scripted_cluster::{ScriptedCluster, Server};
use crate::{PACK_WASM, eventually};

/// How long what must come may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// As the packer is named in `transforms`.
pub const PACK: &str = "millpond/pack@0.1.0";

/// Bytes of an answer that hold everything a test stores.
pub const PLENTY: u32 = 8 << 20;

/// One SC and one SPU.
pub enum Servers {
    /// Of `scripted_cluster`.
    Scripted(ScriptedCluster),
    /// Fluvio's own.
    Real(LocalCluster),
}

impl Servers {
    /// The scripted ones.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn scripted(_rule: &str) -> Option<Self> {
        let servers = ScriptedCluster::start().await.expect("free ports");
        Some(Self::Scripted(servers))
    }

    /// Fluvio's own; `None`, announced, where they are missing.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn real(rule: &str) -> Option<Self> {
        if !LocalCluster::is_available(rule) {
            return None;
        }
        let servers = LocalCluster::start().await.expect("a cluster");
        Some(Self::Real(servers))
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Scripted(servers) => servers.endpoint(),
            Self::Real(servers) => servers.endpoint(),
        }
    }

    async fn stop_spu(&mut self) {
        match self {
            Self::Scripted(servers) => servers.stop(Server::Spu).await,
            Self::Real(servers) => servers.kill_spu().expect("killed"),
        }
    }

    async fn restart_spu(&mut self) {
        match self {
            Self::Scripted(servers) => servers.restart(Server::Spu).await.expect("the same port"),
            Self::Real(servers) => servers.restart_spu().await.expect("restarted"),
        }
    }

    async fn restart_sc(&mut self) {
        match self {
            Self::Scripted(servers) => servers.restart(Server::Sc).await.expect("the same port"),
            Self::Real(servers) => servers.restart_sc().await.expect("restarted"),
        }
    }

    async fn connect(&self) -> Cluster {
        connect(&self.endpoint()).await
    }

    /// A new topic with `batches` of 100 records in partition 0, and the packer.
    async fn filled(&self, batches: u64, max_bytes: u32) -> (Cluster, FluvioTopic) {
        let cluster = self.connect().await;
        upload(&cluster, PACK, PACK_WASM).await;
        let topic = fresh(&cluster, max_bytes).await;
        fill(&topic, batches).await;
        (cluster, topic)
    }
}

/// Makes a test of each rule; `$start` is one of the ways to start [`Servers`].
#[macro_export]
macro_rules! every_topic_rule {
    ($start:path) => {
        $crate::every_topic_rule! { $start:
            it_is_a_topic_like_the_embedded_one,
            answers_cut_in_the_middle_of_a_batch_lose_nothing,
            a_batch_larger_than_an_answer_arrives,
            a_cut_anywhere_is_seen,
            a_record_larger_than_fluvios_client_takes_arrives,
            an_output_larger_than_an_answer_is_not_jumped_over,
            batches_without_output_are_passed_and_not_waited_for,
            a_backlog_comes_segment_by_segment,
            the_packer_gives_the_same_envelopes_as_embedded,
            a_module_that_is_missing_is_named,
            a_module_that_refuses_its_parameters_is_named_with_its_reason,
            a_module_that_fails_is_an_error_with_the_offset_and_stays_one,
            an_spu_that_restarts_costs_nothing_but_time,
            an_spu_that_is_away_is_said_within_the_patience,
            after_a_restart_every_partition_goes_on_at_its_own_offset,
            an_open_topic_outlives_a_restart_of_the_sc,
            offsets_are_released_while_a_next_was_dropped,
            a_refused_batch_is_an_error_of_that_append_alone,
            a_topic_is_made_as_the_file_says,
        }
    };
    ($start:path: $($rule:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            if let Some(mut servers) = $start(stringify!($rule)).await {
                millpond_tests::topic_rules::$rule(&mut servers).await;
            }
        }
    )*};
}

/// Connects to an SC that is there.
pub async fn connect(endpoint: &str) -> Cluster {
    let settings = ClusterSettings {
        endpoint: Some(endpoint.to_owned()),
        ..ClusterSettings::default()
    };
    Cluster::connect(&settings).await.expect("the SC is there")
}

/// Puts a SmartModule on the cluster under the name that `uses` has there.
pub async fn upload(cluster: &Cluster, uses: &str, wasm: &[u8]) {
    let name = smartmodule_name(uses);
    let uploaded = cluster.upload_smartmodule(&name, wasm).await;
    uploaded.expect("kept");
    let found = cluster.smartmodule(&name).await.expect("listed");
    assert_eq!(found.expect("there").digest, digest(wasm));
}

/// How tests use a topic: an SPU is asked soon whether it is done.
pub fn options(max_bytes: u32) -> TopicOptions {
    TopicOptions {
        max_bytes,
        module_quiet: Duration::from_millis(700),
        ..TopicOptions::default()
    }
}

fn settings(partitions: u32) -> TopicSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut settings = TopicSettings::named(format!("events{number}"));
    settings.partitions = Some(partitions);
    settings
}

async fn made(cluster: &Cluster, settings: &TopicSettings, options: TopicOptions) -> FluvioTopic {
    cluster.create_topic(settings).await.expect("created");
    let opened = cluster.open_topic(&settings.name, options).await;
    opened.expect("opens")
}

/// A new topic of two partitions.
pub async fn fresh(cluster: &Cluster, max_bytes: u32) -> FluvioTopic {
    made(cluster, &settings(2), options(max_bytes)).await
}

/// A batch of 100 records as the source makes them.
pub fn events(first: u64) -> StoredBatch {
    let mut builder = BatchBuilder::new();
    for ordinal in first..first + 100 {
        let sequence = format!("{}", 1_000_000_000 + ordinal);
        let origin = Origin {
            stream: "events",
            shard: "shardId-000000000000",
            sequence: SequenceNumber::parse(&sequence).expect("a number"),
            sub_sequence: 0,
            arrival_ms: 1_763_886_000_000,
            chain: ChainLink { epoch: 1, ordinal },
            partition_key: "job-1",
        };
        let mut key = String::new();
        origin.write_to(&mut key);
        let value = format!("event {ordinal} of job-1");
        builder.push(Some(key.as_bytes()), value.as_bytes(), 1_763_886_000_000);
    }
    StoredBatch {
        base_timestamp_ms: builder.base_timestamp_ms(),
        record_count: builder.record_count(),
        raw: builder.finish().into(),
    }
}

/// Stores batches of [`events`] in partition 0.
pub async fn fill_events(topic: &dyn Topic, batches: u64) {
    for first in (0..batches * 100).step_by(100) {
        topic.append(0, events(first)).await.expect("stored");
    }
}

/// Stores batches of 100 records in partition 0.
pub async fn fill(topic: &dyn Topic, batches: u64) {
    for batch in 0..batches {
        let first = batch * 100;
        let stored = topic.append(0, conformance::batch(0, first, 100)).await;
        assert_eq!(stored.expect("stored"), first..first + 100);
    }
}

/// Stores records 100 at a time in a topic whose connections may be gone: the first try may meet a closed
/// one, says so, and nothing of it is stored.
async fn append_again(topic: &dyn Topic, partition: PartitionId, first: u64) {
    eventually("an append", async || {
        let batch = conformance::batch(partition, first, 100);
        match topic.append(partition, batch).await {
            Ok(stored) => {
                assert_eq!(stored, first..first + 100);
                Ok(Some(()))
            }
            Err(TopicError::Storage {
                retryable: true, ..
            }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
    .expect("stored");
}

/// The packer, with everything in one group.
pub fn pack() -> Vec<Transform> {
    vec![Transform {
        uses: PACK.to_owned(),
        with: BTreeMap::from([("group-by".to_owned(), "constant:all".to_owned())]),
    }]
}

/// One SmartModule without parameters.
pub fn step(uses: &str) -> [Transform; 1] {
    [Transform {
        uses: uses.to_owned(),
        with: BTreeMap::new(),
    }]
}

/// A module that hands back `copies` records of `bytes` zero bytes (8,192 to 1,048,575) for a batch.
pub fn module(copies: u32, bytes: u32) -> Vec<u8> {
    records_module(0, copies, bytes)
}

/// A module that hands back a record for each batch of so many records, and nothing for others.
pub fn only_batches_of(count: u8) -> Vec<u8> {
    records_module(count, 1, 10_000)
}

fn records_module(wanted: u8, copies: u32, bytes: u32) -> Vec<u8> {
    let text = include_str!("records.wat")
        .replace("WANTED", &wanted.to_string())
        .replace("COPIES", &copies.to_string())
        .replace("BYTES", &bytes.to_string());
    wat::parse_str(text).expect("a module")
}

async fn reader(topic: &dyn Topic, from: Offset, steps: &[Transform]) -> Box<dyn PartitionReader> {
    topic.reader(0, from, steps).await.expect("opens")
}

/// The next chunk, which comes.
pub async fn next(reader: &mut dyn PartitionReader) -> Chunk {
    let next = reader.next(PATIENCE).await.expect("reads");
    next.expect("in time")
}

/// The values of all chunks up to `end`, which must join up.
pub async fn values_to(reader: &mut dyn PartitionReader, end: Offset) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut position = 0;
    while position < end {
        let Chunk { offsets, records } = next(reader).await;
        assert_eq!(offsets.start, position, "chunks join up");
        values.extend(records.into_iter().map(|record| record.value.to_vec()));
        position = offsets.end;
    }
    values
}

/// What a reader fails with.
pub async fn failure(reader: &mut dyn PartitionReader) -> TopicError {
    match reader.next(PATIENCE).await {
        Err(error) => error,
        Ok(chunk) => panic!("no error but {chunk:?}"),
    }
}

/// The traits' own assertions.
pub async fn it_is_a_topic_like_the_embedded_one(servers: &mut Servers) {
    let cluster = servers.connect().await;
    conformance::all(|| async { Arc::new(fresh(&cluster, PLENTY).await) as Arc<dyn Topic> }).await;
}

/// Every answer ends in the middle of a batch: Fluvio's own consumer takes what is left for all of it.
pub async fn answers_cut_in_the_middle_of_a_batch_lose_nothing(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(20, 15_000).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 2_000).await;
}

/// Not even one batch fits.
pub async fn a_batch_larger_than_an_answer_arrives(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(3, 1_024).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 300).await;
}

/// A cut within the header of the second batch, within its records, and one byte before its end.
pub async fn a_cut_anywhere_is_seen(servers: &mut Servers) {
    let (cluster, topic) = servers.filled(2, PLENTY).await;
    for max_bytes in [1, 30, 70, 500, 6_759, 6_799, 7_000, 12_000] {
        let cut = cluster.open_topic(topic.name(), options(max_bytes)).await;
        let mut reader = reader(&cut.expect("opens"), 0, &[]).await;
        conformance::read_to(&mut *reader, 0, 0, 200).await;
    }
}

/// Fluvio's own producer refuses records above 1 MiB; Kinesis has them up to 10 MiB.
pub async fn a_record_larger_than_fluvios_client_takes_arrives(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(0, 1 << 20).await;
    let value = vec![b'x'; 10 << 20];
    let mut builder = BatchBuilder::new();
    builder.push(None, &value, 1_763_886_000_000);
    let batch = StoredBatch {
        base_timestamp_ms: builder.base_timestamp_ms(),
        record_count: builder.record_count(),
        raw: builder.finish().into(),
    };
    assert_eq!(topic.append(0, batch).await.expect("stored"), 0..1);
    let mut reader = reader(&topic, 0, &[]).await;
    assert!(values_to(&mut *reader, 1).await == [value], "as it was");
}

/// The output of one batch is above `max_bytes`: the SPU sends nothing and goes on at the end of the log.
pub async fn an_output_larger_than_an_answer_is_not_jumped_over(servers: &mut Servers) {
    const LARGE: &str = "test/large@0.1.0";
    let (cluster, topic) = servers.filled(0, 64).await;
    fill_events(&topic, 5).await;
    let mut packed = reader(&topic, 0, &pack()).await;
    assert_eq!(values_to(&mut *packed, 500).await.len(), 5);
    upload(&cluster, LARGE, &module(3, 100_000)).await;
    let opened = cluster.open_topic(topic.name(), options(50_000)).await;
    let mut large = reader(&opened.expect("opens"), 0, &step(LARGE)).await;
    assert_eq!(values_to(&mut *large, 500).await.len(), 5 * 3);
}

/// Nothing is left of any batch: the SPU says nothing, as it does when it jumps.
pub async fn batches_without_output_are_passed_and_not_waited_for(servers: &mut Servers) {
    const NONE: &str = "test/none@0.1.0";
    let (cluster, topic) = servers.filled(3, PLENTY).await;
    upload(&cluster, NONE, &module(0, 0)).await;
    let mut reader = reader(&topic, 0, &step(NONE)).await;
    assert_eq!(values_to(&mut *reader, 300).await, Vec::<Vec<u8>>::new());
    // And those that come later.
    let more = topic.append(0, conformance::batch(0, 300, 100)).await;
    assert_eq!(more.expect("stored"), 300..400);
    let Chunk { offsets, records } = next(&mut *reader).await;
    assert_eq!((offsets, records.len()), (300..400, 0));
}

/// With small outputs an SPU works through all it can get hold of before it answers, which is a segment.
pub async fn a_backlog_comes_segment_by_segment(servers: &mut Servers) {
    let cluster = servers.connect().await;
    upload(&cluster, PACK, PACK_WASM).await;
    let mut settings = settings(1);
    settings.segment_bytes = Some(64 << 10);
    let topic = made(&cluster, &settings, options(PLENTY)).await;
    fill_events(&topic, 20).await;
    let mut reader = reader(&topic, 0, &pack()).await;
    let first = next(&mut *reader).await;
    assert!(first.offsets.end < 2_000, "{:?}", first.offsets);
    let mut envelopes = first.records.len();
    let mut position = first.offsets.end;
    while position < 2_000 {
        let Chunk { offsets, records } = next(&mut *reader).await;
        assert_eq!(offsets.start, position, "chunks join up");
        envelopes += records.len();
        position = offsets.end;
    }
    assert_eq!(envelopes, 20);
}

/// A pure function of the stored batch, and offsets are in the envelopes: the numbers that an SPU gives its
/// output say nothing.
pub async fn the_packer_gives_the_same_envelopes_as_embedded(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(0, PLENTY).await;
    fill_events(&topic, 8).await;
    let directory = tempfile::tempdir().expect("a directory");
    let modules = SmartModules::new().with_pure_builtin(PACK, PACK_WASM);
    let mut config = TopicConfig::new(directory.path(), topic.name(), 2);
    config.modules = modules;
    let embedded = EmbeddedTopic::open(config).expect("opens");
    fill_events(&embedded, 8).await;
    let mut on_servers = reader(&topic, 0, &pack()).await;
    let mut local = reader(&embedded, 0, &pack()).await;
    let on_servers = values_to(&mut *on_servers, 800).await;
    assert_eq!(on_servers.len(), 8);
    assert_eq!(on_servers, values_to(&mut *local, 800).await);
    // Asked for in the middle of a batch it is the same: a batch goes in whole.
    let mut from = reader(&topic, 450, &pack()).await;
    let Chunk { records, .. } = next(&mut *from).await;
    let first = records.first().expect("an envelope");
    assert_eq!(first.offset, None, "the SPU's number is not passed on");
    assert_eq!(first.value, on_servers[4]);
}

/// Fluvio's own consumer warns and connects again, for ever.
pub async fn a_module_that_is_missing_is_named(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(1, PLENTY).await;
    let Err(error) = topic.reader(0, 0, &step("test/gone@0.1.0")).await else {
        panic!("found");
    };
    assert!(
        matches!(&error, TopicError::Transform { uses, .. } if uses == "test/gone@0.1.0"),
        "{error}"
    );
}

/// The packer says what is wrong.
pub async fn a_module_that_refuses_its_parameters_is_named_with_its_reason(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(1, PLENTY).await;
    let mut chain = pack();
    chain[0].with = BTreeMap::from([("group-by".to_owned(), "no such thing".to_owned())]);
    let Err(error) = topic.reader(0, 0, &chain).await else {
        panic!("accepted");
    };
    let text = error.to_string();
    assert!(text.contains(PACK) && text.contains("group-by"), "{text}");
}

/// Fluvio's own consumer warns and connects again, for ever.
pub async fn a_module_that_fails_is_an_error_with_the_offset_and_stays_one(servers: &mut Servers) {
    const TRAPS: &str = "test/traps@0.1.0";
    let (cluster, topic) = servers.filled(2, PLENTY).await;
    let wasm = wat::parse_str(
        r#"(module
          (import "env" "copy_records" (func $copy_records (param i32 i32)))
          (memory (export "memory") 64)
          (func (export "alloc") (param i32) (result i32) (i32.const 65536))
          (func (export "array_map") (param i32 i32 i32) (result i32) unreachable))"#,
    );
    upload(&cluster, TRAPS, &wasm.expect("a module")).await;
    let mut reader = reader(&topic, 100, &step(TRAPS)).await;
    for _ in 0..2 {
        let error = failure(&mut *reader).await;
        assert!(
            matches!(&error, TopicError::Transform { uses, offset: Some(100), .. } if uses == TRAPS),
            "{error}"
        );
    }
}

/// A reader and an open topic go on where they were.
pub async fn an_spu_that_restarts_costs_nothing_but_time(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(1, PLENTY).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    for first in [100, 200] {
        servers.restart_spu().await;
        append_again(&topic, 0, first).await;
        conformance::read_to(&mut *reader, 0, first, first + 100).await;
    }
}

/// Fluvio's own client connects for ever.
pub async fn an_spu_that_is_away_is_said_within_the_patience(servers: &mut Servers) {
    let cluster = servers.connect().await;
    let mut options = options(PLENTY);
    options.patience = Duration::from_secs(1);
    let topic = made(&cluster, &settings(1), options).await;
    fill(&topic, 1).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    servers.stop_spu().await;
    let begun = Instant::now();
    for batch in 0..2 {
        let error = topic.append(0, conformance::batch(0, 100, 100)).await;
        let error = error.expect_err("nobody is there");
        assert!(
            matches!(
                &error,
                TopicError::Storage {
                    retryable: true,
                    ..
                }
            ),
            "{batch}: {error}"
        );
    }
    let error = failure(&mut *reader).await;
    assert!(
        matches!(
            &error,
            TopicError::Storage {
                retryable: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    servers.restart_spu().await;
    append_again(&topic, 0, 100).await;
    conformance::read_to(&mut *reader, 0, 100, 200).await;
}

/// Fluvio's own client opens every partition of a stream again at one offset.
pub async fn after_a_restart_every_partition_goes_on_at_its_own_offset(servers: &mut Servers) {
    let (_cluster, topic) = servers.filled(3, PLENTY).await;
    let stored = topic.append(1, conformance::batch(1, 0, 100)).await;
    assert_eq!(stored.expect("stored"), 0..100);
    let mut readers = [
        topic.reader(0, 0, &[]).await.expect("opens"),
        topic.reader(1, 0, &[]).await.expect("opens"),
    ];
    conformance::read_to(&mut *readers[0], 0, 0, 300).await;
    conformance::read_to(&mut *readers[1], 1, 0, 100).await;
    servers.restart_spu().await;
    append_again(&topic, 0, 300).await;
    append_again(&topic, 1, 100).await;
    conformance::read_to(&mut *readers[0], 0, 300, 400).await;
    conformance::read_to(&mut *readers[1], 1, 100, 200).await;
}

/// What is open does not need the SC, and administration connects again.
pub async fn an_open_topic_outlives_a_restart_of_the_sc(servers: &mut Servers) {
    let (cluster, topic) = servers.filled(1, PLENTY).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    servers.restart_sc().await;
    append_again(&topic, 0, 100).await;
    conformance::read_to(&mut *reader, 0, 100, 200).await;
    let found = cluster.topic_description(topic.name()).await;
    assert_eq!(found.expect("reconnects").expect("kept").partitions, 2);
}

/// Fluvio's own consumer never commits again once a pending `next` was dropped.
pub async fn offsets_are_released_while_a_next_was_dropped(servers: &mut Servers) {
    let (cluster, topic) = servers.filled(1, PLENTY).await;
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    for end in [200, 300] {
        let pending = tokio::time::timeout(Duration::from_millis(20), reader.next(PATIENCE)).await;
        assert!(pending.is_err(), "there is nothing to read: {pending:?}");
        // The first release has the cluster make a topic for offsets.
        eventually("released offset", async || {
            let released = tokio::time::timeout(PATIENCE, topic.release(0, "sink", end - 100));
            released.await.expect("no deadlock")?;
            let shown = cluster.consumer_offsets().await?;
            let [only] = shown.as_slice() else {
                return Ok(None);
            };
            assert_eq!((only.topic.as_str(), only.partition), (topic.name(), 0));
            assert_eq!(only.consumer, "sink");
            Ok((only.offset == end - 100).then_some(()))
        })
        .await
        .expect("released");
        let stored = topic.append(0, conformance::batch(0, end - 100, 100)).await;
        stored.expect("stored");
        conformance::read_to(&mut *reader, 0, end - 100, end).await;
    }
}

/// Fluvio's own producer says so only in that send's own future, drops the batch, and then refuses every
/// send of the partition.
pub async fn a_refused_batch_is_an_error_of_that_append_alone(servers: &mut Servers) {
    let cluster = servers.connect().await;
    let mut settings = settings(1);
    settings.compression = Some(Compression::Gzip);
    // Without a choice of its own a producer makes what the topic takes.
    let topic = made(&cluster, &settings, options(PLENTY)).await;
    fill(&topic, 1).await;
    let mut options = options(PLENTY);
    options.compression = Some(Compression::Zstd);
    let other = cluster.open_topic(&settings.name, options).await;
    let other = other.expect("opens");
    for _ in 0..2 {
        let refused = other.append(0, conformance::batch(0, 100, 100)).await;
        let error = refused.expect_err("the topic takes no zstd");
        assert!(
            matches!(&error, TopicError::Storage { topic: name, context, retryable: false }
                if name == topic.name() && context.contains("partition 0")),
            "{error}"
        );
    }
    let stored = topic.append(0, conformance::batch(0, 100, 100)).await;
    assert_eq!(stored.expect("nothing of it was stored"), 100..200);
    let mut reader = reader(&topic, 0, &[]).await;
    conformance::read_to(&mut *reader, 0, 0, 200).await;
}

/// Partitions, copies, retention, sizes and compression; what cannot be made is refused.
pub async fn a_topic_is_made_as_the_file_says(servers: &mut Servers) {
    let cluster = servers.connect().await;
    let mut settings = settings(3);
    settings.replication = Some(1);
    settings.ignore_rack_assignment = Some(true);
    settings.retention_time = Some(Duration::from_secs(3_600));
    settings.max_partition_bytes = Some(10 << 20);
    settings.compression = Some(Compression::Zstd);
    cluster.create_topic(&settings).await.expect("created");
    let found = cluster.topic_description(&settings.name).await;
    let found = found.expect("listed").expect("there");
    assert_eq!((found.partitions, found.replication), (3, Some(1)));
    assert_eq!(found.retention, Duration::from_secs(3_600));
    assert_eq!(found.max_partition_bytes, Some(10 << 20));
    assert_eq!(found.segment_bytes, Some(10 << 20), "no more than that");
    assert_eq!(found.compression, Some(Compression::Zstd));
    let mut other = TopicSettings::named(format!("{}-other", settings.name));
    other.not_made = vec!["deduplication"];
    let refused = cluster.create_topic(&other).await.expect_err("not made");
    assert!(refused.to_string().contains("deduplication"), "{refused}");
    other.not_made.clear();
    other.replication = Some(3);
    let refused = cluster.create_topic(&other).await.expect_err("one SPU");
    assert!(refused.to_string().contains("3 copies"), "{refused}");
    other.replication = None;
    cluster.create_topic(&other).await.expect("created");
    let found = cluster.topic_description(&other.name).await;
    let found = found.expect("listed").expect("there");
    assert_eq!(found.replication, Some(1));
    assert_eq!(found.segment_bytes, Some(128 << 20), "said, not left open");
}
