//! Chains of pure SmartModules share instances; all others have one for each reader.

mod smartmodules;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use millpond_connector::topic::{Chunk, PartitionReader, Topic, TopicError};
use millpond_embedded_topic::{EmbeddedTopic, SmartModules, TopicConfig, conformance};
use smartmodules::{IDENTITY, chain, identity, module, position, refusing_init};

const PATIENCE: Duration = Duration::from_secs(60);
const READERS: u32 = 4;
const BATCHES: u64 = 12;

type Reader = Box<dyn PartitionReader>;

/// One record for each batch: how often this instance has been called.
fn counter() -> Vec<u8> {
    module(
        r#"(global $calls (mut i32) (i32.const 0))
           (data (i32.const 1024) "\00\00\00\01\14\00\00\00\00\08")"#,
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (i32.store (i32.const 1034) (global.get $calls))
         (call $copy (i32.const 1024) (i32.const 16))
         (i32.const 1)",
    )
}

/// The identity, except for the batch at offset 20.
fn identity_but_at_20(at_20: &str) -> Vec<u8> {
    let low_byte = "(i32.load8_u (i32.add (local.get $ptr) (i32.const 7)))";
    module(
        "",
        &format!("(if (i32.eq {low_byte} (i32.const 20)) (then {at_20})) {IDENTITY}"),
    )
}

/// A topic whose partitions hold `batches` batches of ten records each.
async fn filled(dir: &Path, limit: usize, modules: SmartModules, batches: &[u64]) -> EmbeddedTopic {
    let count = u32::try_from(batches.len()).expect("few");
    let topic = EmbeddedTopic::open(TopicConfig {
        modules,
        shared_instances: limit,
        transform_time_limit: Duration::from_secs(1),
        ..TopicConfig::new(dir, "events", count)
    })
    .expect("opens");
    for (partition, batches) in (0..).zip(batches) {
        for batch in 0..*batches {
            let batch = conformance::batch(partition, batch * 10, 10);
            topic.append(partition, batch).await.expect("stored");
        }
    }
    topic
}

/// Opens a reader on each partition, all at once.
async fn open_all(topic: &EmbeddedTopic, names: &[&str]) -> Vec<Result<Reader, TopicError>> {
    let chain = chain(names);
    let open = |partition| topic.reader(partition, 0, &chain);
    let (a, b, c, d) = tokio::join!(open(0), open(1), open(2), open(3));
    vec![a, b, c, d]
}

async fn next(reader: &mut Reader) -> Result<Chunk, TopicError> {
    reader
        .next(PATIENCE)
        .await
        .map(|chunk| chunk.expect("in time"))
}

/// All that the readers give for their batches, reading side by side.
async fn read_all(readers: Vec<Result<Reader, TopicError>>) -> Vec<Vec<Bytes>> {
    let tasks: Vec<_> = readers
        .into_iter()
        .map(|reader| {
            let mut reader = reader.expect("opens");
            tokio::spawn(async move {
                let mut values = Vec::new();
                for batch in 0..BATCHES {
                    let chunk = next(&mut reader).await.expect("transformed");
                    assert_eq!(chunk.offsets, batch * 10..batch * 10 + 10);
                    values.extend(chunk.records.into_iter().map(|record| record.value));
                }
                values
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("reads"));
    }
    all
}

fn calls(value: &Bytes) -> u32 {
    u32::from_le_bytes(value[..].try_into().expect("four bytes"))
}

#[tokio::test]
async fn readers_of_a_pure_chain_share_instances_and_get_what_their_own_would_give() {
    let dir = tempfile::tempdir().expect("a directory");
    for limit in [1, 2, 16] {
        let modules = SmartModules::new()
            .with_pure_builtin("pure-identity", identity())
            .with_pure_builtin("pure-position", position())
            .with_builtin("identity", identity())
            .with_builtin("position", position());
        let dir = dir.path().join(limit.to_string());
        let topic = filled(&dir, limit, modules, &[BATCHES; READERS as usize]).await;
        for (distinct, last) in [(1, "position"), (2, "identity")] {
            let shared = ["pure-identity", &format!("pure-{last}")];
            let shared = read_all(open_all(&topic, &shared).await).await;
            let built = topic.shared_instances_built();
            let most = distinct * (limit as u64).min(READERS.into());
            assert!((distinct..=most).contains(&built), "{built} of {most}");
            let own = read_all(open_all(&topic, &["identity", last]).await).await;
            assert_eq!(shared, own);
            assert!(own.iter().all(|values| values.len() >= BATCHES as usize));
            // One module that is not pure, and nothing is shared.
            let mixed = read_all(open_all(&topic, &["pure-identity", last]).await).await;
            assert_eq!(mixed, own);
            assert_eq!(
                topic.shared_instances_built(),
                built,
                "these are not shared"
            );
        }
    }
}

#[tokio::test]
async fn a_reader_of_an_impure_chain_sees_its_own_state_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = SmartModules::new()
        .with_builtin("counter", counter())
        // A lie, which shows that this test can see shared state.
        .with_pure_builtin("called-pure", counter())
        .with_base_dir(dir.path());
    std::fs::write(dir.path().join("counter.wasm"), counter()).expect("written");
    let batches = [BATCHES; READERS as usize];
    let topic = filled(&dir.path().join("topic"), 1, modules, &batches).await;
    let own: Vec<u32> = (1..=BATCHES as u32).collect();
    for name in ["counter", "counter.wasm"] {
        for values in read_all(open_all(&topic, &[name]).await).await {
            assert_eq!(values.iter().map(calls).collect::<Vec<_>>(), own, "{name}");
        }
    }
    assert_eq!(topic.shared_instances_built(), 0);
    let shared = read_all(open_all(&topic, &["called-pure"]).await).await;
    let mut shared: Vec<_> = shared.iter().flatten().map(calls).collect();
    shared.sort_unstable();
    let all = BATCHES as u32 * READERS;
    assert_eq!(shared, (1..=all).collect::<Vec<_>>());
    assert_eq!(topic.shared_instances_built(), 1);
}

#[tokio::test]
async fn a_failure_costs_its_instance_and_no_other_reader() {
    let dir = tempfile::tempdir().expect("a directory");
    let trap = identity_but_at_20("unreachable");
    let modules = SmartModules::new().with_pure_builtin("trap", trap);
    let topic = filled(dir.path(), 1, modules, &[3, 2]).await;
    let trap = chain(&["trap"]);
    let mut failing = topic.reader(0, 0, &trap).await.expect("opens");
    let mut other = topic.reader(1, 0, &trap).await.expect("opens");
    for first in [0, 10] {
        let chunk = next(&mut failing).await.expect("transformed");
        assert_eq!(chunk.offsets, first..first + 10);
    }
    for _ in 0..3 {
        match next(&mut failing).await {
            Err(TopicError::Transform {
                offset: Some(20),
                reason,
                ..
            }) => assert!(reason.contains("unreachable"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    for first in [0u64, 10] {
        let chunk = next(&mut other).await.expect("transformed");
        assert_eq!(chunk.offsets, first..first + 10);
        for (number, record) in (first..).zip(&chunk.records) {
            assert_eq!(record.value, conformance::value(1, number));
        }
    }
    // The first, and one after each failure but the last, unless the other reader came then.
    let built = topic.shared_instances_built();
    assert!((3..=4).contains(&built), "{built}");
}

#[tokio::test]
async fn a_stuck_instance_holds_up_others_no_longer_than_a_call_may_take() {
    let dir = tempfile::tempdir().expect("a directory");
    // Never returns: its thread ends with the test program.
    let stuck = identity_but_at_20("(loop $again (br $again))");
    let modules = SmartModules::new().with_pure_builtin("stuck", stuck);
    let topic = filled(dir.path(), 1, modules, &[3, 0]).await;
    let names = chain(&["stuck"]);
    let mut other = topic.reader(1, 0, &names).await.expect("opens");
    let mut stuck = topic.reader(0, 20, &names).await.expect("opens");
    let batch = conformance::batch(1, 0, 10);
    topic.append(1, batch).await.expect("stored");
    let (failed, passed) = tokio::join!(next(&mut stuck), next(&mut other));
    match failed {
        Err(TopicError::Transform {
            offset: Some(20),
            reason,
            ..
        }) => assert!(reason.contains("has not returned"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(passed.expect("passed").offsets, 0..10);
    // A reader that is opened now does not wait for it either.
    let mut late = topic.reader(1, 0, &names).await.expect("opens");
    assert_eq!(next(&mut late).await.expect("passed").offsets, 0..10);
    drop((stuck, other, late));
    topic.close();
}

#[tokio::test]
async fn every_reader_is_told_why_its_chain_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = SmartModules::new()
        .with_pure_builtin("identity", identity())
        .with_pure_builtin("refusing", refusing_init());
    let topic = filled(dir.path(), 2, modules, &[0; READERS as usize]).await;
    for reader in open_all(&topic, &["identity", "refusing"]).await {
        match reader.err() {
            Some(TopicError::Transform {
                uses,
                offset: None,
                reason,
            }) => {
                assert_eq!(uses, "refusing");
                assert_eq!(reason, "parameter `level` must be 1 to 22, not `99`");
            }
            other => panic!("{other:?}"),
        }
    }
}
