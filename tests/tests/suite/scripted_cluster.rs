//! The topic on a cluster against a scripted SC and SPU: every rule that real servers are held to, and the
//! traps that only a script can show on command.

use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use millpond_connector::topic::{Chunk, Topic as _, TopicError};
use millpond_embedded_topic::conformance;
use millpond_fluvio_topic::{Cluster, ClusterSettings, FluvioTopic};
use millpond_tests::scripted_cluster::{Fault, ScriptedCluster, Server};
use millpond_tests::topic_rules::{
    self, PACK, PATIENCE, PLENTY, Servers, events, failure, fill, fresh, next, options, pack,
    values_to,
};
use millpond_tests::{PACK_WASM, eventually, every_topic_rule};

every_topic_rule!(Servers::scripted);

async fn connect(servers: &ScriptedCluster) -> Cluster {
    topic_rules::connect(&servers.endpoint()).await
}

/// Servers and a topic with `batches` of 100 records in partition 0.
async fn filled(batches: u64, max_bytes: u32) -> (ScriptedCluster, Cluster, FluvioTopic) {
    let servers = ScriptedCluster::start().await.expect("free ports");
    let cluster = connect(&servers).await;
    topic_rules::upload(&cluster, PACK, PACK_WASM).await;
    let topic = fresh(&cluster, max_bytes).await;
    fill(&topic, batches).await;
    (servers, cluster, topic)
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

/// Opening a stream again has the SPU compile the modules once more: one that is at work is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_spu_that_takes_its_time_is_waited_for() {
    let (servers, cluster, _) = filled(0, PLENTY).await;
    let mut patient = options(PLENTY);
    patient.module_quiet = Duration::from_secs(30);
    let topic = fresh(&cluster, PLENTY).await;
    let opened = cluster.open_topic(topic.name(), patient).await;
    let topic = opened.expect("opens");
    topic_rules::fill_events(&topic, 3).await;
    let mut reader = topic.reader(0, 0, &pack()).await.expect("opens");
    let before = servers.streams();
    servers.script(Fault::SlowModules(Duration::from_secs(2)));
    assert_eq!(values_to(&mut *reader, 300).await.len(), 3);
    topic.append(0, events(300)).await.expect("stored");
    assert_eq!(next(&mut *reader).await.offsets, 300..400);
    assert_eq!(servers.streams() - before, 1);
}

/// Asked too early it has to begin anew; so each time it is asked later.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_spu_is_asked_ever_later() {
    const ONE: &str = "test/one@0.1.0";
    let (servers, cluster, topic) = filled(0, PLENTY).await;
    topic_rules::upload(&cluster, ONE, &topic_rules::module(1, 10_000)).await;
    topic.append(0, events(0)).await.expect("stored");
    let reader = topic.reader(0, 0, &topic_rules::step(ONE)).await;
    let mut reader = reader.expect("opens");
    let before = servers.streams();
    // Longer than `module_quiet` of these tests and the look before it, and shorter than with twice that.
    for _ in 0..6 {
        servers.script(Fault::SlowModules(Duration::from_millis(1_700)));
    }
    let mut position = 0;
    for round in 0..5 {
        topic
            .append(0, events(100 + round * 100))
            .await
            .expect("stored");
        while position < 200 + round * 100 {
            let chunk = next(&mut *reader).await;
            assert_eq!(chunk.offsets.start, position, "chunks join up");
            position = chunk.offsets.end;
        }
    }
    let opened = servers.streams() - before;
    assert!(opened <= 3, "{opened} streams for one reader");
}

/// Where modules leave nothing of whole batches it is found out once how that looks.
#[tokio::test(flavor = "multi_thread")]
async fn batches_without_output_between_others_need_no_new_stream() {
    const MOST: &str = "test/most@0.1.0";
    const ROUNDS: u64 = 12;
    let (servers, cluster, topic) = filled(0, PLENTY).await;
    // A record for a batch of 100, and nothing for others.
    topic_rules::upload(&cluster, MOST, &topic_rules::only_batches_of(100)).await;
    let mut patient = options(PLENTY);
    patient.module_quiet = Duration::from_secs(30);
    let opened = cluster.open_topic(topic.name(), patient).await;
    let topic = opened.expect("opens");
    let mut reader = topic
        .reader(0, 0, &topic_rules::step(MOST))
        .await
        .expect("opens");
    let mut end = 0;
    let mut position = 0;
    for _ in 0..ROUNDS {
        for count in [7, 100] {
            let batch = conformance::batch(0, end, count);
            end = topic.append(0, batch).await.expect("stored").end;
        }
        while position < end {
            let chunk = next(&mut *reader).await;
            assert_eq!(chunk.offsets.start, position, "chunks join up");
            position = chunk.offsets.end;
        }
    }
    // Four to find out; on a machine that stalls for a second it may be found out once more.
    let streams = servers.streams();
    assert!(streams < ROUNDS, "{streams} streams in {ROUNDS} rounds");
}

/// Each stream has the SPU compile the modules, on the threads that answer everything else.
#[tokio::test(flavor = "multi_thread")]
async fn modules_are_tried_once_and_compiled_one_after_the_other() {
    const ONE: &str = "test/one@0.1.0";
    let (servers, cluster, topic) = filled(1, PLENTY).await;
    topic_rules::upload(&cluster, ONE, &topic_rules::module(1, 10_000)).await;
    let stored = topic.append(1, conformance::batch(1, 0, 100)).await;
    stored.expect("stored");
    let before = servers.streams();
    let steps = topic_rules::step(ONE);
    let mut readers = [
        topic.reader(0, 0, &steps).await.expect("opens"),
        topic.reader(1, 0, &steps).await.expect("opens"),
    ];
    assert_eq!(servers.streams() - before, 1, "streams to try the chain");
    servers.script(Fault::SlowModules(Duration::from_secs(1)));
    let [first, second] = &mut readers;
    let begun = std::time::Instant::now();
    let (one, other) = tokio::join!(next(&mut **first), next(&mut **second));
    assert_eq!((one.offsets, other.offsets), (0..100, 0..100));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(servers.streams() - before, 3);
    assert_eq!(servers.most_streams_at_work(), 1);
}
