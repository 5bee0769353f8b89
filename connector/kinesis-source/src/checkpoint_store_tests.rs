#![allow(clippy::print_stdout, reason = "seeds are printed")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_connector::random;
use millpond_store_file::FileOperation;
use millpond_store_file::redb::ReadableTable as _;

use super::*;
use crate::checkpoint::{Aggregated, ChainState, PinnedStart, Progress, ShardCheckpoint};
use crate::checkpoint_file::tests::written;
use crate::checkpoint_memory::MemoryCheckpoints;

pub(crate) fn sample(stream: &str) -> StreamCheckpoint {
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
    keeps_its_promises(&StoredCheckpoints::new(
        dir.path().join("made").join("when needed"),
    ))
    .await;
}

/// The last shard of the sample, moved on.
fn moved_on() -> StreamCheckpoint {
    let mut checkpoint = sample("a");
    let (_, shard) = checkpoint.shards.iter_mut().nth(2).expect("delivered");
    shard.progress = Progress::Delivered {
        sequence: "49590338271490256608559692538361571095921575989136588999".to_owned(),
        sub_sequence: 0,
        partial: false,
        chain: ChainState {
            epoch: 1_763_885_999_000,
            next_ordinals: vec![50, 1, 7],
        },
    };
    checkpoint
}

#[test]
fn a_save_writes_what_changed() {
    let (before, mut now) = (sample("a"), moved_on());
    let untouched = changes(Some(&before), &before);
    assert_eq!((untouched.written, untouched.removed), (vec![], vec![]));
    let gone = now.shards.pop_first().expect("a shard").0;
    let changes = changes(Some(&before), &now);
    let written: Vec<_> = changes.written.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(written, ["shardId-000000000002"]);
    assert_eq!(changes.removed, [&gone]);
    assert_eq!(super::changes(None, &now).written.len(), now.shards.len());
}

#[tokio::test]
async fn another_process_finds_what_was_saved_and_cannot_have_the_file_meanwhile() {
    let dir = tempfile::tempdir().expect("directory");
    let store = StoredCheckpoints::new(dir.path());
    store.save(&sample("a")).await.expect("saves");
    store.save(&moved_on()).await.expect("saves");
    let other = StoredCheckpoints::new(dir.path());
    let refused = other.load("a").await.expect_err("locked").to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    drop(store);
    assert_eq!(other.load("a").await.expect("loads"), Some(moved_on()));
    // It goes on from there without having loaded another stream first.
    other.save(&sample("b")).await.expect("saves");
    other.save(&sample("a")).await.expect("saves");
    assert_eq!(other.load("a").await.expect("loads"), Some(sample("a")));
    assert_eq!(other.load("b").await.expect("loads"), Some(sample("b")));
}

#[tokio::test]
async fn a_save_that_fails_leaves_the_checkpoint_and_the_next_one_is_whole() {
    const NO_SPACE: i32 = 28;
    let dir = tempfile::tempdir().expect("directory");
    let full = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&full);
    let hook: DiskHook = Arc::new(move |operation| match operation {
        FileOperation::Write { .. } if fails.load(Ordering::Relaxed) => {
            Err(io::Error::from_raw_os_error(NO_SPACE))
        }
        _ => Ok(()),
    });
    let store = StoredCheckpoints::on(dir.path().to_owned(), Some(hook));
    full.store(true, Ordering::Relaxed);
    store
        .save(&sample("a"))
        .await
        .expect_err("no room to begin");
    full.store(false, Ordering::Relaxed);
    assert_eq!(store.load("a").await.expect("loads"), None);
    store.save(&sample("a")).await.expect("saves");
    full.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = store.save(&moved_on()).await.expect_err("no room");
        let text = refused.to_string();
        let place = dir.path().join(STORE_FILE).display().to_string();
        assert!(
            text.starts_with("cannot write the checkpoint: no room to write")
                && text.contains(&place),
            "{text}"
        );
    }
    full.store(false, Ordering::Relaxed);
    let found = store.load("a").await.expect("loads").expect("there");
    assert!([sample("a"), moved_on()].contains(&found), "{found:?}");
    // What of it is there is found out again: the next save is whole.
    store.save(&moved_on()).await.expect("saves");
    drop(store);
    let again = StoredCheckpoints::new(dir.path());
    assert_eq!(again.load("a").await.expect("loads"), Some(moved_on()));
}

#[tokio::test]
async fn the_file_of_an_earlier_version_is_taken_over_once() {
    let dir = tempfile::tempdir().expect("directory");
    let file = checkpoint_file::path(dir.path(), "a");
    std::fs::write(&file, written(&sample("a"))).expect("written");
    let open = || StoredCheckpoints::new(dir.path());
    assert_eq!(open().load("a").await.expect("loads"), Some(sample("a")));
    assert!(!file.exists(), "set aside");
    let aside = std::fs::read_to_string(file.with_extension("json.moved")).expect("kept");
    assert_eq!(aside, written(&sample("a")));
    open().save(&moved_on()).await.expect("saves");
    // A process that died before it set the file aside: the store is ahead of it.
    std::fs::write(&file, written(&sample("a"))).expect("written");
    assert_eq!(open().load("a").await.expect("loads"), Some(moved_on()));
    assert!(!file.exists(), "set aside");
}

#[tokio::test]
async fn a_damaged_file_of_an_earlier_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let file = checkpoint_file::path(dir.path(), "a");
    let text = written(&sample("a")).replacen("[42,0,7]", "[43,0,7]", 1);
    std::fs::write(&file, &text).expect("written");
    let refused = StoredCheckpoints::new(dir.path()).load("a").await;
    let refused = refused.expect_err("damaged").to_string();
    let place = file.display().to_string();
    assert!(
        refused.contains(&place) && refused.contains("checksum"),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("there"), text);
    assert!(!dir.path().join(STORE_FILE).exists(), "nothing was begun");
}

/// Changes a row behind the store's back.
fn tamper(dir: &std::path::Path, work: impl FnOnce(&Database) -> Result<(), Fault<Broken>>) {
    let file = StoreFile::new(dir.join(STORE_FILE), CACHE_BYTES, None);
    assert!(file.run(work).is_ok(), "tampered with");
}

#[tokio::test]
async fn newer_foreign_and_changed_stores_are_told_apart() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join(STORE_FILE);
    let refusal = async || {
        let refused = StoredCheckpoints::new(dir.path()).load("a").await;
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        text
    };
    std::fs::write(&path, "not a store, and long enough to look like one\n").expect("written");
    let text = refusal().await;
    assert!(
        text.contains("is damaged") && text.contains("move it away"),
        "{text}"
    );
    std::fs::write(&path, "").expect("emptied");
    assert!(refusal().await.contains("holds no checkpoints"));

    std::fs::remove_file(&path).expect("removed");
    StoredCheckpoints::new(dir.path())
        .save(&sample("a"))
        .await
        .expect("saves");
    // A row that is sound and lies under another key.
    tamper(dir.path(), |db| {
        let tx = db.begin_write()?;
        {
            let mut shards = tx.open_table(SHARDS)?;
            let row = shards
                .get(("a", "shardId-000000000002"))?
                .map(|row| row.value().to_vec());
            shards.insert(
                ("a", "shardId-000000000003"),
                row.expect("there").as_slice(),
            )?;
        }
        Ok(tx.commit()?)
    });
    let text = refusal().await;
    assert!(
        text.contains("the row of `a/shardId-000000000003` fails its checksum"),
        "{text}"
    );
    tamper(dir.path(), |db| {
        let tx = db.begin_write()?;
        let newer = seal(2u32.to_be_bytes().to_vec(), LAYOUT_KEY.as_bytes());
        tx.open_table(META)?.insert(LAYOUT_KEY, newer.as_slice())?;
        Ok(tx.commit()?)
    });
    assert!(
        refusal()
            .await
            .contains("has version 2, and this program reads up to version 1")
    );
}

/// Rounds of each damage.
const ROUNDS: u32 = 60;

#[tokio::test]
async fn what_was_saved_is_found_or_its_damage_is_reported() {
    let seed = std::env::var("MILLPOND_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(random::number);
    println!("MILLPOND_SEED={seed}");
    random::seed_this_thread(seed);
    let master = tempfile::tempdir().expect("directory");
    let store = StoredCheckpoints::new(master.path());
    let mut saved = vec![sample("a")];
    store.save(&saved[0]).await.expect("saves");
    saved.push(moved_on());
    store.save(&saved[1]).await.expect("saves");
    drop(store);
    let whole = std::fs::read(master.path().join(STORE_FILE)).expect("readable");
    let mut found = [0; 3];
    for _ in 0..ROUNDS {
        for cuts in [false, true] {
            let mut bytes = whole.clone();
            let at = usize::try_from(random::number()).expect("64 bits") % bytes.len();
            match cuts {
                true => bytes.truncate(at),
                // Where rows are few a flip mostly meets free space: whole blocks are changed.
                false => {
                    let end = (at + 4096).min(bytes.len());
                    bytes[at..end].fill(0xA5);
                }
            }
            let dir = tempfile::tempdir().expect("directory");
            std::fs::write(dir.path().join(STORE_FILE), &bytes).expect("written");
            match StoredCheckpoints::new(dir.path()).load("a").await {
                Ok(Some(checkpoint)) => {
                    let which = saved.iter().position(|saved| *saved == checkpoint);
                    found[which.expect("one that was saved")] += 1;
                }
                Ok(None) => panic!("forgotten (block at {at}, cut: {cuts})"),
                Err(error) => {
                    assert!(error.to_string().contains(STORE_FILE), "{error}");
                    found[2] += 1;
                }
            }
        }
    }
    println!("the one before, the last one, refused: {found:?}");
    assert!(found[1] > 0 && found[2] > 0, "{found:?}");
}
