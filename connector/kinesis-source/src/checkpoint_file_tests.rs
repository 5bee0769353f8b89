use super::*;
use crate::checkpoint_store::tests::sample;
use crate::shard::ShardId;

/// The file of a checkpoint, as it was written once.
pub(crate) fn written(checkpoint: &StreamCheckpoint) -> String {
    let body = serde_json::to_string(checkpoint).expect("encodes");
    let crc = crc32c::crc32c(body.as_bytes());
    format!(
        "{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"crc32c\":{crc},\"checkpoint\":{body}}}"
    )
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let bytes = written(&sample("a")).into_bytes();
    decode(&bytes, "here").expect("whole");
    for cut in 0..bytes.len() {
        let error = decode(&bytes[..cut], "here").expect_err("cut");
        assert!(error.to_string().contains("`here`"), "{error}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            // Only the case of a hexadecimal escape could change without a difference: there is none.
            decode(&changed, "here").expect_err("changed");
        }
    }
}

#[test]
fn foreign_newer_and_damaged_files_are_told_apart() {
    let text = written(&sample("a"));
    let message = |text: &str| {
        decode(text.as_bytes(), "here")
            .expect_err("refused")
            .to_string()
    };
    assert!(message("").contains("is damaged (the file is empty)"));
    assert!(message("hello").contains("is no checkpoint of a Kinesis source"));
    assert!(message("{\"format\":\"other\",\"version\":1}").contains("its format is `other`"));
    assert!(message(&text[..text.len() - 9]).contains("is damaged"));
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(message(&newer).contains("has version 2, and this program reads up to version 1"));
    let moved = text.replacen("[42,0,7]", "[43,0,7]", 1);
    assert!(message(&moved).contains("checksum"), "{}", message(&moved));
}

#[test]
fn a_file_of_another_stream_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let file = path(dir.path(), "b");
    std::fs::write(&file, written(&sample("a"))).expect("written");
    let error = load(&file, "b").expect_err("refused").to_string();
    assert!(
        error.ends_with("belongs to the stream `a`, not to `b`"),
        "{error}"
    );
}

/// Made by version 0.1.0 as it was before the store.
const EARLIER: &str = include_str!("../tests/golden/checkpoint-1.json");

#[test]
fn what_an_earlier_version_wrote_is_read() {
    let found = decode(EARLIER.as_bytes(), "here").expect("whole");
    assert_eq!(found.stream, "events");
    assert_eq!(written(&found), EARLIER);
    let next = |id: &str| {
        let chain = found.shards[&ShardId::from(id)].progress.chain();
        chain.expect("begun").next_ordinals.clone()
    };
    assert_eq!(found.shards.len(), 4);
    assert_eq!(next("shardId-000000000000").len(), 4);
    let events: u64 = (0..4).flat_map(|n| next(&format!("shardId-{n:012}"))).sum();
    assert_eq!(events, 20_000, "what the stream held then");
}
