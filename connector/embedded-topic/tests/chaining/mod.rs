//! SmartModules as users write them (`smartmodules/examples`), alone and before the packer.

use std::collections::BTreeMap;
use std::path::Path;

use millpond_connector::topic::{
    Chunk, PartitionReader, StoredBatch, Topic, TopicError, Transform,
};
use millpond_embedded_topic::{EmbeddedTopic, SmartModules, TopicConfig};
use millpond_format::frame::FrameDecoder;
use millpond_format::header::{Header, Kind, RejectReason};
use millpond_format::record::BatchBuilder;

use crate::PATIENCE;

const ARRIVAL_MS: i64 = 1_763_886_000_000;

fn step(uses: &str, with: &[(&str, &str)]) -> Transform {
    Transform {
        uses: uses.into(),
        with: with
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn pack(with: &[(&str, &str)]) -> Transform {
    step(millpond_pack::NAME, with)
}

fn keep(values: &str) -> Transform {
    let with = [("pointer", "/kind"), ("keep", values)];
    step("filter-events.wasm", &with)
}

fn key(ordinal: u64) -> String {
    format!(
        "mp1/s/shardId-000000000000/{}/0/{ARRIVAL_MS}/7.{ordinal}/k",
        100 + ordinal
    )
}

/// A topic of one partition; `batches` hold events.
async fn topic(dir: &Path, batches: &[&[&str]]) -> EmbeddedTopic {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../smartmodules/examples");
    let mut config = TopicConfig::new(dir, "events", 1);
    config.modules = SmartModules::new()
        .with_pure_builtin(millpond_pack::NAME, millpond_pack::WASM)
        .with_base_dir(modules);
    let topic = EmbeddedTopic::open(config).expect("opens");
    let mut ordinal = 0;
    for events in batches {
        let mut builder = BatchBuilder::new();
        for event in *events {
            builder.push(Some(key(ordinal).as_bytes()), event.as_bytes(), ARRIVAL_MS);
            ordinal += 1;
        }
        let batch = StoredBatch {
            record_count: builder.record_count(),
            base_timestamp_ms: builder.base_timestamp_ms(),
            raw: builder.finish().into(),
        };
        topic.append(0, batch).await.expect("stored");
    }
    topic
}

async fn next(reader: &mut Box<dyn PartitionReader>) -> Result<Chunk, TopicError> {
    let chunk = reader.next(PATIENCE).await?;
    Ok(chunk.expect("in time"))
}

/// Events by group.
type Groups = BTreeMap<String, Vec<String>>;

/// Groups with their events, and the rejected, of the envelopes of a chunk.
fn unpacked(chunk: &Chunk) -> (Groups, Vec<(RejectReason, String)>) {
    let mut decoder = FrameDecoder::new().expect("zstd");
    let (mut groups, mut rejects) = (Groups::new(), Vec::new());
    for record in &chunk.records {
        let (header, length) = Header::decode(&record.value).expect("an envelope");
        assert_eq!(header.base_offset, chunk.offsets.start);
        if let Kind::Reject(reject) = &header.kind {
            rejects.push((reject.reason, reject.detail.clone()));
            continue;
        }
        for (info, range) in header.frame_ranges() {
            let packed = &record.value[length..][range];
            let frame = decoder.decode(header.codec, info, packed).expect("a frame");
            for event in &frame.events {
                let value = String::from_utf8_lossy(frame.value(event)).into_owned();
                groups.entry(header.group.clone()).or_default().push(value);
            }
        }
    }
    (groups, rejects)
}

const A1: &str = r#"{"job":"a","kind":"keep","secret":1}"#;
const A2: &str = r#"{"job":"a","kind":"drop","secret":2}"#;
const B1: &str = r#"{"job":"b","kind":"keep","secret":3}"#;

#[tokio::test]
async fn a_filter_before_the_packer_removes_and_leaves_the_rest_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic(dir.path(), &[&[A2, A1, A2, B1], &[A2, A2], &[A1]]).await;
    let chain = [keep("keep"), pack(&[("group-by", "/job")])];
    let mut reader = topic.reader(0, 0, &chain).await.expect("opens");

    let chunk = next(&mut reader).await.expect("filtered");
    assert_eq!(chunk.offsets, 0..4);
    let (groups, rejects) = unpacked(&chunk);
    let expected = [("a", vec![A1]), ("b", vec![B1])];
    let expected = expected.map(|(group, events)| {
        let events: Vec<String> = events.into_iter().map(str::to_owned).collect();
        (group.to_owned(), events)
    });
    assert_eq!(groups, expected.into());
    assert!(rejects.is_empty());
    let (header, _) = Header::decode(&chunk.records[1].value).expect("an envelope");
    assert_eq!(header.sources[0].first_ordinal, 3, "its own, not its index");

    let emptied = next(&mut reader).await.expect("filtered");
    assert_eq!((emptied.offsets, emptied.records.len()), (4..6, 0));
    let last = next(&mut reader).await.expect("filtered");
    assert_eq!((last.offsets, last.records.len()), (6..7, 1));
}

#[tokio::test]
async fn a_map_changes_events_under_their_origin() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic(dir.path(), &[&[A1, A2]]).await;
    let redact = step(
        "redact-json.wasm",
        &[("remove", "secret"), ("rename", "kind=type")],
    );
    let chain = [redact.clone(), pack(&[("group-by", "/job")])];
    let mut reader = topic.reader(0, 0, &chain).await.expect("opens");
    let (groups, rejects) = unpacked(&next(&mut reader).await.expect("mapped"));
    let events = [
        r#"{"job":"a","type":"keep"}"#,
        r#"{"job":"a","type":"drop"}"#,
    ];
    assert_eq!(groups["a"], events);
    assert!(rejects.is_empty());

    // Alone: bare records, with their keys.
    let mut reader = topic.reader(0, 0, &[redact]).await.expect("opens");
    let chunk = next(&mut reader).await.expect("mapped");
    for (ordinal, record) in (0..).zip(&chunk.records) {
        assert_eq!((record.offset, record.timestamp_ms), (None, None));
        assert_eq!(record.key.as_deref(), Some(key(ordinal).as_bytes()));
    }
}

#[tokio::test]
async fn a_key_that_was_changed_is_a_dead_letter_that_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic(dir.path(), &[&[A1, B1, "{}"]]).await;
    let rekey = step("key-by-field.wasm", &[("pointer", "/job")]);
    let by_key = [rekey.clone(), pack(&[])];
    let mut reader = topic.reader(0, 0, &by_key).await.expect("opens");
    let (groups, rejects) = unpacked(&next(&mut reader).await.expect("mapped"));
    assert_eq!(groups.len(), 1, "the one that kept its key: {groups:?}");
    assert_eq!(rejects.len(), 2);
    for (reason, detail) in rejects {
        assert_eq!(reason, RejectReason::OriginInvalid);
        assert!(detail.contains("must keep the keys"), "{detail}");
    }

    // Where others fill the topic, keys may be made.
    let foreign = [rekey, pack(&[("on-missing-origin", "topic-offset")])];
    let mut reader = topic.reader(0, 0, &foreign).await.expect("opens");
    let (groups, rejects) = unpacked(&next(&mut reader).await.expect("mapped"));
    assert!(rejects.is_empty());
    assert_eq!(groups.keys().collect::<Vec<_>>(), ["a", "b", "k"]);
}

#[tokio::test]
async fn a_module_that_fails_on_a_record_is_named_with_the_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic(dir.path(), &[&[A1], &[A1, "poison", B1]]).await;
    let redact = step("redact-json.wasm", &[("remove", "secret")]);
    for chain in [
        vec![redact.clone(), pack(&[])],
        vec![keep("keep"), redact.clone(), pack(&[])],
        vec![redact],
    ] {
        let mut reader = topic.reader(0, 0, &chain).await.expect("opens");
        next(&mut reader).await.expect("the batch before");
        let Err(TopicError::Transform {
            uses,
            offset,
            reason,
        }) = next(&mut reader).await
        else {
            panic!("passed")
        };
        assert_eq!((uses.as_str(), offset), ("redact-json.wasm", Some(1)));
        assert!(reason.contains("not a JSON object, at line 1"), "{reason}");
        assert!(reason.contains("(record at offset 2)"), "{reason}");
        assert!(!reason.contains("poison"), "{reason}");
    }
}

#[tokio::test]
async fn a_module_that_refuses_its_parameters_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let topic = topic(dir.path(), &[&[A1]]).await;
    let chain = [keep("x"), step("redact-json.wasm", &[]), pack(&[])];
    let Some(TopicError::Transform {
        uses,
        offset,
        reason,
    }) = topic.reader(0, 0, &chain).await.err()
    else {
        panic!("opened")
    };
    assert_eq!((uses.as_str(), offset), ("redact-json.wasm", None));
    assert!(reason.contains("`remove` and `rename`"), "{reason}");
}
