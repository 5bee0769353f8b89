//! The topic on a cluster against a scripted SC and SPU: what an embedded topic holds, and every trap of
//! the cluster path on command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use millpond_connector::meta::TopicSettings;
use millpond_connector::topic::{
    Chunk, Offset, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_embedded_topic::{EmbeddedTopic, SmartModules, TopicConfig, conformance};
use millpond_fluvio_topic::{
    Cluster, ClusterSettings, FluvioTopic, TopicOptions, smartmodule_name,
};
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::SequenceNumber;
use millpond_tests::PACK_WASM;
use millpond_tests::eventually;
use millpond_tests::scripted_cluster::{Fault, ScriptedCluster, Server};

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// As the packer is named in `transforms`.
const PACK: &str = "millpond/pack@0.1.0";

async fn connect(servers: &ScriptedCluster) -> Cluster {
    let settings = ClusterSettings {
        endpoint: Some(servers.endpoint()),
        ..ClusterSettings::default()
    };
    Cluster::connect(&settings).await.expect("the SC is there")
}

/// A new topic of two partitions.
async fn fresh(cluster: &Cluster, max_bytes: u32) -> FluvioTopic {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut settings = TopicSettings::named(format!("events{number}"));
    settings.partitions = Some(2);
    cluster.create_topic(&settings).await.expect("created");
    let options = TopicOptions {
        max_bytes,
        ..TopicOptions::default()
    };
    cluster
        .open_topic(&settings.name, options)
        .await
        .expect("opens")
}

/// Servers and a topic with `batches` of 100 records in partition 0.
async fn filled(batches: u64, max_bytes: u32) -> (ScriptedCluster, Cluster, FluvioTopic) {
    let servers = ScriptedCluster::start().await.expect("free ports");
    let cluster = connect(&servers).await;
    let name = smartmodule_name(PACK);
    cluster
        .upload_smartmodule(&name, PACK_WASM)
        .await
        .expect("kept");
    let topic = fresh(&cluster, max_bytes).await;
    fill(&topic, batches).await;
    (servers, cluster, topic)
}

/// A batch of 100 records as the source makes them.
fn events(first: u64) -> StoredBatch {
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

async fn fill_events(topic: &dyn Topic, batches: u64) {
    for first in (0..batches * 100).step_by(100) {
        topic.append(0, events(first)).await.expect("stored");
    }
}

async fn fill(topic: &dyn Topic, batches: u64) {
    for batch in 0..batches {
        let first = batch * 100;
        let stored = topic.append(0, conformance::batch(0, first, 100)).await;
        assert_eq!(stored.expect("stored"), first..first + 100);
    }
}

fn pack() -> Vec<Transform> {
    vec![Transform {
        uses: PACK.to_owned(),
        with: BTreeMap::from([("group-by".to_owned(), "constant:all".to_owned())]),
    }]
}

/// The values of all chunks up to `end`, which must join up.
async fn values_to(reader: &mut dyn PartitionReader, end: Offset) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut position = 0;
    while position < end {
        let next = reader.next(PATIENCE).await.expect("reads");
        let Chunk { offsets, records } = next.expect("in time");
        assert_eq!(offsets.start, position, "chunks join up");
        values.extend(records.into_iter().map(|record| record.value.to_vec()));
        position = offsets.end;
    }
    values
}

/// What a reader fails with.
async fn failure(reader: &mut dyn PartitionReader) -> TopicError {
    match reader.next(PATIENCE).await {
        Err(error) => error,
        Ok(chunk) => panic!("no error but {chunk:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_topic_like_the_embedded_one() {
    let servers = ScriptedCluster::start().await.expect("free ports");
    let cluster = connect(&servers).await;
    conformance::all(|| async { Arc::new(fresh(&cluster, 8 << 20).await) as Arc<dyn Topic> }).await;
}

/// Every answer ends in the middle of a batch: Fluvio's own consumer takes what is left for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_in_the_middle_of_a_batch_lose_nothing() {
    let (_servers, _cluster, topic) = filled(20, 15_000).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 2_000).await;
}

/// Not even one batch fits.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_an_answer_arrives() {
    let (_servers, _cluster, topic) = filled(3, 1_024).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 300).await;
}

/// A cut within the header of the second batch, within its records, and one byte before its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_is_seen() {
    let (_servers, cluster, topic) = filled(2, 8 << 20).await;
    for max_bytes in [1, 30, 70, 500, 6_759, 6_799, 7_000, 12_000] {
        let options = TopicOptions {
            max_bytes,
            ..TopicOptions::default()
        };
        let cut = cluster.open_topic(topic.name(), options).await;
        let mut reader = cut.expect("opens").reader(0, 0, &[]).await.expect("opens");
        conformance::read_to(&mut *reader, 0, 0, 200).await;
    }
}

/// A server that gives less than a batch although there is room: no end, no jump, but an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_without_need_is_an_error_with_the_offset() {
    let (servers, _cluster, topic) = filled(2, 8 << 20).await;
    servers.script(Fault::Cut(500));
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    let error = failure(&mut *reader).await.to_string();
    for part in [topic.name(), "partition 0", "offset 0"] {
        assert!(error.contains(part), "{error}");
    }
}

/// The output of one batch is above `max_bytes`: the SPU sends nothing and goes on at the end of the log.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_larger_than_an_answer_is_not_jumped_over() {
    let (_servers, _cluster, topic) = filled(0, 64).await;
    fill_events(&topic, 5).await;
    let mut reader = topic.reader(0, 0, &pack()).await.expect("opens");
    assert_eq!(values_to(&mut *reader, 500).await.len(), 5);
}

/// The same in the middle of a stream that went well so far.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_on_a_running_stream_is_seen() {
    let (servers, _cluster, topic) = filled(0, 8 << 20).await;
    topic.append(0, events(0)).await.expect("stored");
    let mut reader = topic.reader(0, 0, &pack()).await.expect("opens");
    let first = reader.next(PATIENCE).await.expect("reads");
    assert_eq!(first.expect("in time").offsets, 0..100);
    servers.script(Fault::Jump);
    topic.append(0, events(100)).await.expect("stored");
    // It has jumped to the log's end before that moves: what comes next is answered.
    let jumped = eventually("jump", async || {
        Ok(servers.pending().is_empty().then_some(()))
    });
    jumped.await.expect("the fault happened");
    topic.append(0, events(200)).await.expect("stored");
    let (mut position, mut envelopes) = (100, 0);
    while position < 300 {
        let chunk = reader.next(PATIENCE).await.expect("reads");
        let Chunk { offsets, records } = chunk.expect("in time");
        assert_eq!(offsets.start, position, "nothing is jumped over");
        envelopes += records.len();
        position = offsets.end;
    }
    assert_eq!(envelopes, 2, "one for each batch, the jumped one too");
    assert_eq!(servers.pending(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packer_gives_the_same_envelopes_as_embedded() {
    let (_servers, _cluster, topic) = filled(0, 8 << 20).await;
    fill_events(&topic, 8).await;
    let directory = tempfile::tempdir().expect("a directory");
    let modules = SmartModules::new().with_pure_builtin(PACK, PACK_WASM);
    let mut config = TopicConfig::new(directory.path(), topic.name(), 2);
    config.modules = modules;
    let embedded = EmbeddedTopic::open(config).expect("opens");
    fill_events(&embedded, 8).await;
    let mut scripted = topic.reader(0, 0, &pack()).await.expect("opens");
    let mut local = embedded.reader(0, 0, &pack()).await.expect("opens");
    let scripted = values_to(&mut *scripted, 800).await;
    assert_eq!(scripted.len(), 8);
    assert_eq!(scripted, values_to(&mut *local, 800).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_missing_is_named() {
    let (_servers, cluster, topic) = filled(1, 8 << 20).await;
    let kept = smartmodule_name(PACK);
    cluster.delete_smartmodule(&kept).await.expect("deleted");
    let Err(error) = topic.reader(0, 0, &pack()).await else {
        panic!("found");
    };
    assert!(
        matches!(&error, TopicError::Transform { uses, .. } if uses == PACK),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_refuses_its_parameters_is_named_with_its_reason() {
    let (_servers, _cluster, topic) = filled(1, 8 << 20).await;
    let mut chain = pack();
    chain[0].with = BTreeMap::from([("group-by".to_owned(), "no such thing".to_owned())]);
    let Err(error) = topic.reader(0, 0, &chain).await else {
        panic!("accepted");
    };
    let text = error.to_string();
    assert!(text.contains(PACK) && text.contains("group-by"), "{text}");
}

/// Fluvio's own consumer warns and connects again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_fails_on_a_batch_is_an_error_with_the_offset() {
    let (servers, _cluster, topic) = filled(1, 8 << 20).await;
    let mut reader = topic.reader(0, 0, &pack()).await.expect("opens");
    let said = ErrorCode::Other("SmartModule err wasm trap: unreachable".into());
    servers.script(Fault::StreamError(said));
    let error = failure(&mut *reader).await;
    assert!(
        matches!(&error, TopicError::Transform { uses, offset: Some(0), reason }
            if uses == PACK && reason.contains("unreachable")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_spu_that_restarts_costs_nothing_but_time() {
    let (mut servers, _cluster, topic) = filled(1, 8 << 20).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    for first in [100, 200, 300] {
        servers.restart(Server::Spu).await.expect("the same port");
        // The first append may meet the closed connection: it says so, and nothing of it is stored.
        while servers.log_end(topic.name(), 0) == i64::try_from(first).expect("small") {
            match topic.append(0, conformance::batch(0, first, 100)).await {
                Ok(stored) => assert_eq!(stored, first..first + 100),
                Err(TopicError::Storage {
                    retryable: true, ..
                }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        conformance::read_to(&mut *reader, 0, first, first + 100).await;
    }
}

/// Fluvio's own client opens every partition of a stream again at one offset.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_every_partition_goes_on_at_its_own_offset() {
    let (mut servers, _cluster, topic) = filled(3, 8 << 20).await;
    let stored = topic.append(1, conformance::batch(1, 0, 100)).await;
    assert_eq!(stored.expect("stored"), 0..100);
    let mut readers = [
        topic.reader(0, 0, &[]).await.expect("opens"),
        topic.reader(1, 0, &[]).await.expect("opens"),
    ];
    conformance::read_to(&mut *readers[0], 0, 0, 300).await;
    conformance::read_to(&mut *readers[1], 1, 0, 100).await;
    servers.restart(Server::Spu).await.expect("the same port");
    for (partition, first) in [(0, 300), (1, 100)] {
        while servers.log_end(topic.name(), partition) == i64::try_from(first).expect("small") {
            let batch = conformance::batch(partition, first, 100);
            match topic.append(partition, batch).await {
                Ok(stored) => assert_eq!(stored, first..first + 100),
                Err(TopicError::Storage {
                    retryable: true, ..
                }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    conformance::read_to(&mut *readers[0], 0, 300, 400).await;
    conformance::read_to(&mut *readers[1], 1, 100, 200).await;
}

/// Fluvio's own consumer never commits again once a pending `next` was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_released_while_a_next_was_dropped() {
    let (_servers, cluster, topic) = filled(1, 8 << 20).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    for end in [200, 300] {
        let pending = tokio::time::timeout(Duration::from_millis(20), reader.next(PATIENCE)).await;
        assert!(pending.is_err(), "there is nothing to read: {pending:?}");
        let released = tokio::time::timeout(PATIENCE, topic.release(0, "sink", end - 100)).await;
        released.expect("no deadlock").expect("released");
        let shown = cluster.consumer_offsets().await.expect("listed");
        assert_eq!(shown[0].offset, end - 100);
        let stored = topic.append(0, conformance::batch(0, end - 100, 100)).await;
        stored.expect("stored");
        conformance::read_to(&mut *reader, 0, end - 100, end).await;
    }
}

/// Nothing is left of any batch: the SPU says nothing, as it does when it jumps.
#[tokio::test(flavor = "multi_thread")]
async fn batches_without_output_are_passed_and_not_waited_for() {
    const NONE: &str = "test/none@0.1.0";
    let (_servers, cluster, topic) = filled(3, 8 << 20).await;
    let text = include_str!("../../../connector/fluvio-topic/tests/records.wat");
    let text = text.replace("COPIES", "0").replace("BYTES", "0");
    let wasm = wat::parse_str(text).expect("a module");
    let name = smartmodule_name(NONE);
    let kept = cluster.upload_smartmodule(&name, &wasm).await;
    kept.expect("kept");
    let chain = [Transform {
        uses: NONE.to_owned(),
        with: BTreeMap::new(),
    }];
    let mut reader = topic.reader(0, 0, &chain).await.expect("opens");
    assert_eq!(values_to(&mut *reader, 300).await, Vec::<Vec<u8>>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_is_looked_for() {
    let (servers, _cluster, topic) = filled(1, 8 << 20).await;
    servers.script(Fault::ProduceNotLeader);
    servers.script(Fault::StreamNotLeader);
    let stored = topic.append(0, conformance::batch(0, 100, 100)).await;
    assert_eq!(stored.expect("stored after all"), 100..200);
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 200).await;
    assert_eq!(servers.pending(), []);
}

/// The batch is stored and nobody was told: the caller must hear that this is not known, and the
/// producer must not send it again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_append_is_said_and_not_repeated() {
    let (servers, _cluster, topic) = filled(1, 8 << 20).await;
    servers.script(Fault::AnswerLost);
    let error = topic.append(0, conformance::batch(0, 100, 100)).await;
    let error = error.expect_err("no answer came");
    let TopicError::Storage {
        topic: name,
        context,
        retryable,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(name, topic.name());
    assert!(*retryable && context.contains("partition 0"), "{error}");
    assert_eq!(servers.log_end(topic.name(), 0), 200);
    let again = topic.append(0, conformance::batch(0, 200, 100)).await;
    assert_eq!(again.expect("stored"), 200..300);
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_is_an_error_of_that_append() {
    let (servers, _cluster, topic) = filled(1, 8 << 20).await;
    servers.script(Fault::ProduceError(ErrorCode::MessageTooLarge));
    let error = topic.append(0, conformance::batch(0, 100, 100)).await;
    let error = error.expect_err("refused");
    assert!(
        matches!(&error, TopicError::Storage { topic: name, context, retryable: false }
            if name == topic.name() && context.contains("partition 0")),
        "{error}"
    );
    assert_eq!(servers.log_end(topic.name(), 0), 100);
    let next = topic.append(0, conformance::batch(0, 100, 100)).await;
    assert_eq!(next.expect("the partition is not blocked"), 100..200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sc_that_is_down_is_said_with_its_address() {
    let mut servers = ScriptedCluster::start().await.expect("free ports");
    let settings = ClusterSettings {
        endpoint: Some(servers.endpoint()),
        ..ClusterSettings::default()
    };
    servers.stop(Server::Sc).await;
    let error = Cluster::connect(&settings)
        .await
        .expect_err("nothing listens");
    assert!(error.to_string().contains(&servers.endpoint()), "{error}");
    assert!(error.is_transient());
    servers.resume(Server::Sc).await.expect("the same port");
    Cluster::connect(&settings).await.expect("there again");
}

/// A reader that has its stream does not need the SC.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_outlives_the_sc() {
    let (mut servers, _cluster, topic) = filled(1, 8 << 20).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, 100).await;
    servers.stop(Server::Sc).await;
    let stored = topic.append(0, conformance::batch(0, 100, 100)).await;
    assert_eq!(stored.expect("stored"), 100..200);
    conformance::read_to(&mut *reader, 0, 100, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_named() {
    let servers = ScriptedCluster::start().await.expect("free ports");
    servers.script(Fault::OtherVersion(Server::Sc));
    let settings = ClusterSettings {
        endpoint: Some(servers.endpoint()),
        ..ClusterSettings::default()
    };
    let error = Cluster::connect(&settings)
        .await
        .expect_err("speaks nothing");
    assert!(error.to_string().contains("0.9.0"), "{error}");
    assert!(!error.is_transient());
}

/// Accepted, and then nothing: bounded by the client's own limit of 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_answers_is_given_up() {
    let servers = ScriptedCluster::start().await.expect("free ports");
    servers.script(Fault::Silent(Server::Sc));
    let settings = ClusterSettings {
        endpoint: Some(servers.endpoint()),
        ..ClusterSettings::default()
    };
    let connecting = tokio::time::timeout(PATIENCE, Cluster::connect(&settings)).await;
    let error = connecting.expect("bounded").expect_err("no greeting");
    assert!(error.to_string().contains(&servers.endpoint()), "{error}");
}

/// A stream that was accepted and is silent while there is something to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_noticed() {
    let (servers, _cluster, topic) = filled(2, 8 << 20).await;
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    servers.script(Fault::SilentStream);
    conformance::read_to(&mut *reader, 0, 0, 200).await;
    assert_eq!(servers.pending(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_has_released_is_shown() {
    let (_servers, cluster, topic) = filled(2, 8 << 20).await;
    topic.release(0, "sink", 150).await.expect("released");
    let shown = cluster.consumer_offsets().await.expect("listed");
    let shown: Vec<_> = shown
        .iter()
        .map(|found| {
            (
                found.topic.as_str(),
                found.partition,
                found.consumer.as_str(),
            )
        })
        .collect();
    assert_eq!(shown, [(topic.name(), 0, "sink")]);
}
