use super::*;
use crate::checkpoint::{Aggregated, ChainState, PinnedStart, Progress, ShardCheckpoint};
use crate::checkpoint_memory::MemoryCheckpoints;

fn sample(stream: &str) -> StreamCheckpoint {
    let chain = ChainState {
        epoch: 1_763_885_999_000,
        next_ordinals: vec![42, 0, 7],
    };
    let states = [
        Progress::NotBegun,
        Progress::Begun {
            first: "495".to_owned(),
            chain: chain.clone(),
        },
        Progress::Delivered {
            sequence: "49590338271490256608559692538361571095921575989136588898".to_owned(),
            sub_sequence: 3,
            partial: false,
            chain,
        },
        Progress::Finished,
    ];
    let shards = states.into_iter().enumerate().map(|(n, progress)| {
        let shard = ShardCheckpoint {
            parents: vec!["shardId-000000000000".into()],
            progress,
            unread_since_ms: (n > 0).then_some(1_763_886_000_123),
        };
        (format!("shardId-{n:012}").into(), shard)
    });
    StreamCheckpoint {
        stream: stream.to_owned(),
        stream_created_ms: 1_763_880_000_000,
        start: PinnedStart::Timestamp {
            ms: 1_763_881_000_000,
        },
        aggregated: Aggregated::KeepStray.into(),
        shards: shards.collect(),
    }
}

async fn keeps_its_promises(store: &dyn CheckpointStore) {
    assert_eq!(store.load("a").await.expect("loads"), None);
    let first = sample("a");
    store.save(&first).await.expect("saves");
    assert_eq!(store.load("a").await.expect("loads"), Some(first.clone()));
    let mut second = first;
    second.shards.pop_first();
    second.start = PinnedStart::TrimHorizon;
    store.save(&second).await.expect("saves");
    assert_eq!(store.load("a").await.expect("loads"), Some(second.clone()));
    store.save(&sample("b")).await.expect("saves");
    assert_eq!(store.load("a").await.expect("loads"), Some(second));
    assert_eq!(store.load("c").await.expect("loads"), None);
}

#[tokio::test]
async fn both_stores_keep_the_same_promises() {
    keeps_its_promises(&MemoryCheckpoints::default()).await;
    let dir = tempfile::tempdir().expect("directory");
    keeps_its_promises(&FileCheckpoints::new(
        dir.path().join("made").join("when needed"),
    ))
    .await;
}

fn written() -> Vec<u8> {
    encode(&sample("a")).expect("encodes").into_bytes()
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let bytes = written();
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
    let text = String::from_utf8(written()).expect("text");
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

#[tokio::test]
async fn a_file_of_another_stream_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let store = FileCheckpoints::new(dir.path());
    store.save(&sample("a")).await.expect("saves");
    std::fs::copy(store.path("a"), store.path("b")).expect("copies");
    let error = store.load("b").await.expect_err("refused").to_string();
    assert!(
        error.ends_with("belongs to the stream `a`, not to `b`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_half_written_save_leaves_the_old_checkpoint() {
    let dir = tempfile::tempdir().expect("directory");
    let store = FileCheckpoints::new(dir.path());
    store.save(&sample("a")).await.expect("saves");
    // What a crash in the middle of a save leaves behind.
    std::fs::write(store.path("a").with_extension("json.new"), "{\"form").expect("writes");
    assert_eq!(store.load("a").await.expect("loads"), Some(sample("a")));
    store.save(&sample("a")).await.expect("saves over it");
    // A directory in its place makes the next save fail, and says where.
    std::fs::create_dir(store.path("a").with_extension("json.new")).expect("directory");
    let error = store
        .save(&sample("a"))
        .await
        .expect_err("cannot")
        .to_string();
    assert!(
        error.starts_with("cannot write the checkpoint `"),
        "{error}"
    );
    assert_eq!(store.load("a").await.expect("loads"), Some(sample("a")));
}
