//! Damaged files: what was acknowledged is read back as it was, or the damage is reported by its
//! place. Nothing else ever comes out, and nothing panics.
//!
//! `MILLPOND_SEED=…` repeats a run.

#![expect(clippy::print_stdout, reason = "seed and tally of the random tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millpond_connector::topic::{Topic, TopicError};
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig, conformance};
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng, rngs::StdRng};

const PARTITIONS: u32 = 2;
const PAGE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(20);
const STORE: &str = "topic.redb";
const ENDS: &str = "topic.ends";

/// The files of a topic's directory at one moment.
#[derive(Debug, Clone)]
struct Image {
    store: Vec<u8>,
    ends: Vec<u8>,
}

impl Image {
    fn of(dir: &Path) -> Self {
        let read = |name| std::fs::read(dir.join(name)).expect("readable");
        Self {
            store: read(STORE),
            ends: read(ENDS),
        }
    }

    fn write(&self, dir: &Path) {
        std::fs::write(dir.join(STORE), &self.store).expect("written");
        std::fs::write(dir.join(ENDS), &self.ends).expect("written");
    }
}

/// What a process left behind, and what it had acknowledged.
struct Master {
    how: &'static str,
    image: Image,
    /// Before the last few commits.
    earlier: Image,
    /// First offsets of the batches of each partition, and the end.
    batches: [Vec<u64>; PARTITIONS as usize],
}

/// Appends, and takes the files as a kill leaves them (`killed`: copied while the topic is open and
/// every append is answered) or as a close does.
async fn master(rng: &mut StdRng, killed: bool, quick_repair: bool) -> Master {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = TopicConfig::new(dir.path(), "events", PARTITIONS);
    config.quick_repair_bytes = if quick_repair { 0 } else { u64::MAX };
    let topic = EmbeddedTopic::open(config).expect("opens");
    let mut batches = [vec![0], vec![0]];
    let mut earlier = None;
    for round in 0..40 {
        if round == 37 {
            earlier = Some(Image::of(dir.path()));
        }
        for (partition, batches) in (0..).zip(&mut batches) {
            let first = batches.last().copied().unwrap_or_default();
            // Some in a page, some over many.
            let count = *[3, 40, 900].choose(rng).expect("a size");
            let batch = conformance::batch(partition, first, count);
            let range = topic.append(partition, batch).await.expect("stored");
            batches.push(range.end);
        }
    }
    if !killed {
        topic.close();
    }
    Master {
        how: match (killed, quick_repair) {
            (true, true) => "killed, quick repair",
            (true, false) => "killed",
            (false, _) => "closed",
        },
        image: Image::of(dir.path()),
        earlier: earlier.expect("taken"),
        batches,
    }
}

impl Master {
    /// Pages that the last commits wrote: the log's tail, wherever in the file it is.
    fn tail_pages(&self) -> Vec<usize> {
        let (now, then) = (&self.image.store, &self.earlier.store);
        let page = |bytes: &[u8], page: usize| bytes.chunks(PAGE).nth(page).map(<[u8]>::to_vec);
        (0..now.len() / PAGE)
            .filter(|at| page(now, *at) != page(then, *at))
            .collect()
    }
}

/// What is done to the files.
#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    Truncated,
    FlippedInTail,
    FlippedAnywhere,
    ZeroedPage,
    /// A page of the last commits, whose second part is what was there before.
    TornPage,
    /// The whole file as it was before the last commits.
    OlderCopy,
    /// The file of what was acknowledged.
    Ends,
}

const DAMAGES: [Damage; 8] = [
    Damage::None,
    Damage::Truncated,
    Damage::FlippedInTail,
    Damage::FlippedAnywhere,
    Damage::ZeroedPage,
    Damage::TornPage,
    Damage::OlderCopy,
    Damage::Ends,
];

fn damaged(master: &Master, damage: Damage, rng: &mut StdRng) -> Image {
    let mut image = master.image.clone();
    let store = &mut image.store;
    let tail = master.tail_pages();
    let tail_page = tail.choose(rng).copied().unwrap_or_default() * PAGE;
    let mut flip = |bytes: &mut [u8], from: usize, len: usize| {
        for _ in 0..rng.random_range(1..4) {
            let at = from + rng.random_range(0..len);
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
    };
    match damage {
        Damage::None => {}
        Damage::Truncated => {
            // Half of them near the end.
            let from = if rng.random() {
                0
            } else {
                store.len() * 9 / 10
            };
            store.truncate(rng.random_range(from..store.len()));
        }
        Damage::FlippedInTail => flip(store, tail_page, PAGE),
        Damage::FlippedAnywhere => {
            let len = store.len();
            flip(store, 0, len);
        }
        Damage::ZeroedPage => {
            let page = if rng.random() {
                tail_page
            } else {
                rng.random_range(0..store.len() / PAGE) * PAGE
            };
            store[page..page + PAGE].fill(0);
        }
        Damage::TornPage => {
            let cut = tail_page + rng.random_range(1..8) * 512;
            let end = (tail_page + PAGE).min(master.earlier.store.len());
            if cut < end {
                store[cut..end].copy_from_slice(&master.earlier.store[cut..end]);
            } else {
                store[cut..tail_page + PAGE].fill(0);
            }
        }
        Damage::OlderCopy => *store = master.earlier.store.clone(),
        Damage::Ends => {
            let len = image.ends.len();
            flip(&mut image.ends, 0, len);
        }
    }
    image
}

/// What came of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// All that was acknowledged.
    Whole,
    /// Some batches, by partition and offset.
    Batches,
    /// The end of a partition, at opening.
    End,
    /// The file, at opening.
    Refused,
}

async fn look(dir: &Path, master: &Master) -> Found {
    let topic = match EmbeddedTopic::open(TopicConfig::new(dir, "events", PARTITIONS)) {
        Ok(topic) => topic,
        Err(TopicError::Storage {
            context, retryable, ..
        }) => {
            assert!(context.contains(STORE) && !retryable, "{context}");
            return Found::Refused;
        }
        Err(TopicError::Damaged {
            partition, offset, ..
        }) => {
            let batches = &master.batches[partition as usize];
            assert!(batches.contains(&offset), "{partition}: {offset}");
            return Found::End;
        }
        Err(other) => panic!("{other}"),
    };
    let mut found = Found::Whole;
    for (partition, batches) in (0..).zip(&master.batches) {
        let bounds = topic.bounds(partition).await.expect("known");
        let end = batches.last().copied();
        assert_eq!(
            (bounds.earliest, Some(bounds.end)),
            (0, end),
            "acknowledged and neither there nor reported"
        );
        for batch in batches.windows(2) {
            if !batch_is_there(&topic, partition, batch[0], batch[1]).await {
                found = Found::Batches;
            }
        }
    }
    found
}

/// True when the batch comes as it was appended, false when it is reported as damaged.
async fn batch_is_there(topic: &EmbeddedTopic, partition: u32, base: u64, end: u64) -> bool {
    let mut reader = topic.reader(partition, base, &[]).await.expect("opens");
    let chunk = match reader.next(PATIENCE).await {
        Ok(chunk) => chunk.expect("a batch or an error"),
        Err(TopicError::Damaged {
            partition: named,
            offset,
            ..
        }) => {
            assert_eq!((named, offset), (partition, base));
            return false;
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(chunk.offsets, base..end);
    assert_eq!(chunk.records.len() as u64, end - base);
    for (offset, record) in (base..).zip(&chunk.records) {
        assert_eq!(record.offset, Some(offset));
        assert_eq!(record.value, conformance::value(partition, offset));
        let key = (!offset.is_multiple_of(3)).then(|| format!("key-{offset}"));
        assert_eq!(record.key.as_deref(), key.as_deref().map(str::as_bytes));
        let timestamp = 1_763_886_000_000 + i64::try_from(offset).expect("small");
        assert_eq!(record.timestamp_ms, Some(timestamp));
    }
    true
}

/// Rounds of each damage on each file.
const ROUNDS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_or_its_damage_is_reported() {
    let seed = std::env::var("MILLPOND_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| StdRng::from_os_rng().random());
    println!("MILLPOND_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let masters = [
        master(&mut rng, false, false).await,
        master(&mut rng, true, false).await,
        master(&mut rng, true, true).await,
    ];
    let mut tally: BTreeMap<(String, Found), u32> = BTreeMap::new();
    for master in &masters {
        for damage in DAMAGES {
            for round in 0..ROUNDS {
                let dir = tempfile::tempdir().expect("a directory");
                damaged(master, damage, &mut rng).write(dir.path());
                let found = look(dir.path(), master).await;
                let what = format!("{}, {damage:?}", master.how);
                if matches!(damage, Damage::None | Damage::Ends) {
                    assert_eq!(found, Found::Whole, "{what}, round {round}");
                }
                if matches!(damage, Damage::OlderCopy) {
                    assert_eq!(found, Found::End, "{what}, round {round}");
                }
                *tally.entry((what, found)).or_default() += 1;
            }
        }
    }
    for ((what, found), count) in &tally {
        println!("{what}: {found:?} {count}");
    }
    for found in [Found::Whole, Found::Batches, Found::End, Found::Refused] {
        assert!(
            tally.keys().any(|(_, other)| *other == found),
            "{found:?} never came"
        );
    }
}

/// The file that an operator moves away, as the message says, takes its acknowledgements with it.
#[tokio::test]
async fn a_new_store_knows_nothing_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || EmbeddedTopic::open(TopicConfig::new(dir.path(), "events", PARTITIONS));
    let topic = open().expect("opens");
    let batch = conformance::batch(0, 0, 10);
    topic.append(0, batch).await.expect("stored");
    topic.close();
    std::fs::remove_file(dir.path().join(STORE)).expect("removed");
    let topic = open().expect("opens");
    assert_eq!(topic.bounds(0).await.expect("known").end, 0);
}
