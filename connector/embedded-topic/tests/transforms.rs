//! SmartModules on stored batches.

mod chaining;
mod fresh;
mod smartmodules;

use std::path::Path;
use std::time::{Duration, Instant};

use fluvio_smartmodule::dataplane::core::Encoder;
use fluvio_smartmodule::dataplane::record::Record;
use fluvio_smartmodule::dataplane::smartmodule::{
    SmartModuleKind, SmartModuleOutput, SmartModuleTransformRuntimeError,
};
use millpond_connector::topic::{Chunk, PartitionReader, Topic, TopicError, Transform};
use millpond_embedded_topic::{EmbeddedTopic, SmartModules, TopicConfig, conformance};
use smartmodules::{
    IDENTITY, SPU_VERSION, chain, data_at_1024, identity, module, position, refusing_init,
};

/// Never comes back from being initialised: its thread ends with the test program.
fn endless_init() -> Vec<u8> {
    let init = r#"(func (export "init") (param i32 i32 i32) (result i32)
        (loop $again (br $again)) (i32.const 0))"#;
    module(init, IDENTITY)
}

const PATIENCE: Duration = Duration::from_secs(60);
/// The identity, except that each instance traps on its second call.
fn trap_on_second_call() -> Vec<u8> {
    module(
        "(global $calls (mut i32) (i32.const 0))",
        &format!(
            "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))
             {IDENTITY}"
        ),
    )
}

/// Answers every batch with an error that names a record.
fn failing() -> Vec<u8> {
    let mut error = SmartModuleTransformRuntimeError {
        hint: "cannot parse `bad`".into(),
        offset: 3,
        ..Default::default()
    };
    error.kind = SmartModuleKind::ArrayMap;
    let output = SmartModuleOutput::with_error(vec![Record::new("partial")], Some(error));
    let mut bytes = Vec::new();
    output.encode(&mut bytes, SPU_VERSION).expect("encodes");
    let body = format!(
        "(call $copy (i32.const 1024) (i32.const {})) (i32.const 0)",
        bytes.len()
    );
    module(&data_at_1024(&bytes), &body)
}

/// Takes a minute or so for each batch.
fn slow() -> Vec<u8> {
    module(
        "(global $n (mut i64) (i64.const 0))",
        "(loop $again
           (global.set $n (i64.add (global.get $n) (i64.const 1)))
           (br_if $again (i64.lt_u (global.get $n) (i64.const 30000000000))))
         (i32.const -1)",
    )
}

fn topic_with(dir: &Path, modules: &[(&str, Vec<u8>)]) -> TopicConfig {
    let mut config = TopicConfig::new(dir, "events", 1);
    config.modules = SmartModules::new();
    for (name, wasm) in modules {
        config.modules = config.modules.with_builtin(*name, wasm.clone());
    }
    config
}

async fn filled(config: TopicConfig) -> EmbeddedTopic {
    let topic = EmbeddedTopic::open(config).expect("opens");
    for first in [0, 10, 20] {
        let batch = conformance::batch(0, first, 10);
        topic.append(0, batch).await.expect("stored");
    }
    topic
}

async fn next(reader: &mut Box<dyn PartitionReader>) -> Result<Chunk, (Option<u64>, String)> {
    match reader.next(PATIENCE).await {
        Ok(chunk) => Ok(chunk.expect("in time")),
        Err(TopicError::Transform { offset, reason, .. }) => Err((offset, reason)),
        Err(other) => panic!("{other}"),
    }
}

async fn open_error(topic: &EmbeddedTopic, names: &[&str]) -> (String, String) {
    match topic.reader(0, 0, &chain(names)).await.err() {
        Some(TopicError::Transform {
            uses,
            offset: None,
            reason,
        }) => (uses, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_stored_batch_passes_the_chain_in_one_call() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = [("identity", identity()), ("position", position())];
    let topic = filled(topic_with(dir.path(), &modules)).await;
    for names in [&["identity"][..], &["identity", "identity"]] {
        let mut reader = topic.reader(0, 0, &chain(names)).await.expect("opens");
        for first in [0, 10, 20] {
            let chunk = next(&mut reader).await.expect("transformed");
            assert_eq!(chunk.offsets, first..first + 10);
            assert_eq!(chunk.records.len(), 10);
            for (number, record) in (first..).zip(&chunk.records) {
                assert_eq!(record.value, conformance::value(0, number));
                assert_eq!(record.key.is_some(), !number.is_multiple_of(3));
                assert_eq!(record.offset, None, "made by a transform");
            }
        }
    }
    for names in [&["position"][..], &["identity", "position"]] {
        let mut reader = topic.reader(0, 0, &chain(names)).await.expect("opens");
        for first in [0u64, 10, 20] {
            let chunk = next(&mut reader).await.expect("transformed");
            let [record] = &chunk.records[..] else {
                panic!("{} records", chunk.records.len())
            };
            let timestamp = 1_763_886_000_000 + first;
            let expected = [first.to_be_bytes(), timestamp.to_be_bytes()].concat();
            assert_eq!(record.value, expected, "base offset and timestamp");
        }
    }
    // From the middle of a batch: the module gets the whole batch, as on an SPU.
    let mut reader = topic
        .reader(0, 15, &chain(&["position"]))
        .await
        .expect("opens");
    assert_eq!(next(&mut reader).await.expect("there").offsets, 10..20);
}

#[tokio::test]
async fn a_trap_is_reported_at_its_batch_and_a_new_instance_takes_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = [("trap", trap_on_second_call())];
    let topic = filled(topic_with(dir.path(), &modules)).await;
    let mut reader = topic.reader(0, 0, &chain(&["trap"])).await.expect("opens");
    assert_eq!(next(&mut reader).await.expect("first call").offsets, 0..10);
    let (offset, reason) = next(&mut reader).await.expect_err("second call");
    assert_eq!(offset, Some(10));
    assert!(reason.contains("unreachable"), "{reason}");
    // The same batch again, on an instance that has been called never.
    assert_eq!(next(&mut reader).await.expect("retried").offsets, 10..20);
    let (offset, _) = next(&mut reader).await.expect_err("its second call");
    assert_eq!(offset, Some(20));
}

#[tokio::test]
async fn errors_of_a_module_come_in_its_own_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = [
        ("identity", identity()),
        ("failing", failing()),
        ("refusing", refusing_init()),
    ];
    let topic = filled(topic_with(dir.path(), &modules)).await;
    let mut reader = topic
        .reader(0, 0, &chain(&["failing"]))
        .await
        .expect("opens");
    for _ in 0..3 {
        let (offset, reason) = next(&mut reader).await.expect_err("fails");
        assert_eq!(offset, Some(0));
        assert_eq!(reason, "cannot parse `bad` (record at offset 3)");
    }
    for names in [&["refusing"][..], &["identity", "refusing"]] {
        let (uses, reason) = open_error(&topic, names).await;
        assert_eq!(uses, "refusing");
        assert_eq!(reason, "parameter `level` must be 1 to 22, not `99`");
    }
}

#[tokio::test]
async fn what_is_no_smartmodule_is_named_with_its_defect() {
    let dir = tempfile::tempdir().expect("a directory");
    let wat = |text: &str| wat::parse_str(text).expect("assembles");
    let mut cut = identity();
    cut.truncate(cut.len() - 20);
    let mut size = identity();
    size[9] ^= 0x40;
    let mut opcode = identity();
    let store8 = opcode.windows(3).rposition(|w| w == [0x3A, 0, 0]);
    opcode[store8.expect("in the body")] = 0xFF;
    let memory = r#"(memory (export "memory") 1)"#;
    let alloc = r#"(func (export "alloc") (param i32) (result i32) (i32.const 0))"#;
    let array_map = r#"(func (export "array_map") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let import = r#"(import "env" "copy_records" (func (param i32 i32)))"#;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("text", b"hello".to_vec(), "not a WebAssembly module"),
        ("empty", Vec::new(), "not a WebAssembly module"),
        ("cut", cut, "corrupt WebAssembly"),
        ("size", size, "corrupt WebAssembly"),
        ("opcode", opcode, "illegal opcode"),
        (
            "no-import",
            wat(&format!("(module {memory} {alloc} {array_map})")),
            "`copy_records`",
        ),
        (
            "no-memory",
            wat(&format!("(module {import} {alloc} {array_map})")),
            "no memory",
        ),
        (
            "no-alloc",
            wat(&format!("(module {import} {memory} {array_map})")),
            "`alloc`",
        ),
        (
            "no-entry",
            wat(&format!("(module {import} {memory} {alloc})")),
            "`array_map`",
        ),
        (
            "browser",
            wat(&format!(
                r#"(module {import} (import "js" "now" (func)) {memory} {alloc} {array_map})"#
            )),
            "`js.now`",
        ),
        (
            "signature",
            wat(&format!(
                r#"(module {import} {memory} {alloc} (func (export "array_map") (result i64) (i64.const 0)))"#
            )),
            "type mismatch",
        ),
    ];
    for (name, wasm, _) in &cases {
        std::fs::write(dir.path().join(format!("{name}.wasm")), wasm).expect("written");
    }
    let mut config = topic_with(&dir.path().join("topic"), &[("identity", identity())]);
    config.modules = config.modules.with_base_dir(dir.path());
    let topic = filled(config).await;
    for (name, _, defect) in &cases {
        let file = format!("{name}.wasm");
        let (uses, reason) = open_error(&topic, &["identity", &file]).await;
        assert_eq!(uses, file);
        assert!(reason.contains(defect), "{name}: {reason}");
    }
    let (_, reason) = open_error(&topic, &["missing.wasm"]).await;
    assert!(
        reason.contains("cannot read") && reason.contains("missing.wasm"),
        "{reason}"
    );
    let (_, reason) = open_error(&topic, &["millpond/pakc@0.1.0"]).await;
    assert!(reason.contains("built in: `identity`"), "{reason}");
}

#[tokio::test]
async fn memory_and_time_of_a_module_are_limited() {
    let dir = tempfile::tempdir().expect("a directory");
    let modules = [("identity", identity()), ("slow", slow())];
    let mut config = topic_with(dir.path(), &modules);
    config.transform_memory_bytes = 2 << 20;
    // The limit holds for making an instance, too, which a busy machine may take a second for.
    config.transform_time_limit = Duration::from_secs(4);
    let topic = filled(config).await;
    let mut builder = millpond_format::record::BatchBuilder::new();
    builder.push(None, &vec![b'x'; 3 << 20], 0);
    let big = millpond_connector::topic::StoredBatch {
        record_count: 1,
        base_timestamp_ms: 0,
        raw: builder.finish().into(),
    };
    topic.append(0, big).await.expect("stored");
    let mut reader = topic
        .reader(0, 30, &chain(&["identity"]))
        .await
        .expect("opens");
    let (offset, reason) = next(&mut reader).await.expect_err("too large");
    assert_eq!(offset, Some(30));
    assert!(reason.contains("2097152"), "{reason}");

    let mut reader = topic.reader(0, 0, &chain(&["slow"])).await.expect("opens");
    let started = Instant::now();
    let (offset, reason) = next(&mut reader).await.expect_err("too slow");
    assert_eq!(offset, Some(0));
    assert!(reason.contains("has not returned"), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(30));
    // Not even then does closing the topic wait for it.
    drop(reader);
    topic.close();
}

#[tokio::test]
async fn a_module_that_never_ends_its_init_is_told_with_the_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = topic_with(dir.path(), &[("endless", endless_init())]);
    config.transform_time_limit = Duration::from_millis(500);
    let topic = filled(config).await;
    let (uses, reason) = open_error(&topic, &["endless"]).await;
    assert_eq!(uses, "endless");
    assert!(
        reason.contains("has not returned") && reason.contains("limit 500ms"),
        "{reason}"
    );
    topic.close();
}

#[test]
fn a_digest_covers_bytes_parameters_and_order() {
    let modules = SmartModules::new()
        .with_builtin("one", identity())
        .with_builtin("two", position());
    let digest = |transforms: &[Transform]| modules.chain_digest(transforms).expect("resolves");
    let plain = digest(&chain(&["one"]));
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, digest(&chain(&["one"])));
    let mut with = chain(&["one"]);
    with[0].with.insert("level".into(), "3".into());
    let others = [
        digest(&with),
        digest(&chain(&["two"])),
        digest(&chain(&["one", "two"])),
        digest(&chain(&["two", "one"])),
        digest(&[]),
    ];
    for (n, other) in others.iter().enumerate() {
        assert_ne!(*other, plain);
        assert!(!others[..n].contains(other));
    }
    let renamed = SmartModules::new().with_builtin("other-name", identity());
    let same = renamed.chain_digest(&chain(&["other-name"]));
    assert_eq!(same.expect("resolves"), plain, "names do not matter");
}
