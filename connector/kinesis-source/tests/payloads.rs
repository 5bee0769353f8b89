//! Compressed payloads through the source, asked for and pushed.

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use millpond_connector::connector::Source;
use millpond_format::origin::Origin;
use millpond_kinesis_local::model::NewRecord;
use millpond_kinesis_source::aggregate::AggregateBuilder;
use millpond_kinesis_source::checkpoint::Aggregated;
use millpond_kinesis_source::config::SourceConfig;
use millpond_kinesis_source::numbering::Decompress;
use support::fan_out::fan_out;
use support::world::World;
use support::{Running, context, spawn, until};

fn gzip(data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(data).expect("written");
    encoder.finish().expect("finished")
}

fn zstd_of(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 1).expect("packed")
}

struct Case {
    world: World,
    is_pushed: bool,
}

impl Case {
    fn new(is_pushed: bool) -> Self {
        Self {
            world: World::new(2, 3),
            is_pushed,
        }
    }

    /// Puts a record; `event` is what should come of it.
    fn put(&self, key: &str, payload: Vec<u8>, event: Option<&[u8]>) {
        let record = NewRecord::new(key, None, payload).expect("a record");
        self.world
            .stream
            .with_model(|model, now| model.put_record(now, "events", record, None))
            .expect("accepted");
        let mut put = self.world.stream.put.lock().expect("not poisoned");
        if let Some(event) = event {
            put.entry(key.to_owned()).or_default().push(event.to_vec());
        }
    }

    fn run(&self, decompress: Decompress) -> Running {
        let mut config = SourceConfig::default();
        config.batching.batch_bytes = 2_000;
        config.batching.max_buffered_bytes = 4 << 20;
        config.aggregated = Aggregated::KeepStray;
        config.decompress = decompress;
        let source = self.world.source(config);
        let source = match self.is_pushed {
            true => source.with_fan_out(fan_out(&self.world.stream)),
            false => source,
        };
        let source: Box<dyn Source> = Box::new(source);
        spawn(source, context(&self.world.topic))
    }
}

/// Plain, gzip, zstd, aggregated ones that hold either, and two that cannot be opened.
fn put_mixed(case: &Case, round: usize) -> Vec<(String, Vec<u8>)> {
    for n in 0..30 {
        let event = format!("{{\"round\":{round},\"n\":{n}}}")
            .repeat(n)
            .into_bytes();
        let key = format!("key-{}", n % 7);
        case.put(&key, event.clone(), Some(&event));
        case.put(&key, gzip(&event), Some(&event));
        case.put(&key, zstd_of(&event), Some(&event));
        let halves = [gzip(&event), gzip(&event)].concat();
        case.put(&key, halves, Some(&event.repeat(2)));
    }
    let cut = gzip(b"an event that was cut")[..20].to_vec();
    case.put("key-1", cut.clone(), None);
    let bomb = zstd_of(&vec![0; 30 << 20]);
    case.put("key-2", bomb.clone(), None);
    let mut builder = AggregateBuilder::default();
    builder.push("key-3", None, Bytes::from(gzip(b"within")));
    builder.push("key-3", None, Bytes::from(cut.clone()));
    builder.push("key-3", None, Bytes::from_static(b"plain"));
    case.put("key-3", builder.finish(), Some(b"within"));
    let mut put = case.world.stream.put.lock().expect("not poisoned");
    put.get_mut("key-3").expect("some").push(b"plain".to_vec());
    vec![
        ("damaged".to_owned(), cut.clone()),
        ("damaged".to_owned(), cut),
        ("opens-too-large".to_owned(), bomb),
    ]
}

#[tokio::test(start_paused = true)]
async fn payloads_are_opened_and_what_cannot_be_costs_itself_alone() {
    for is_pushed in [false, true] {
        let case = Case::new(is_pushed);
        let expected = put_mixed(&case, 0);
        let running = case.run(Decompress::Auto);
        running.caught_up().await;
        let metrics = running.metrics.clone();
        running.drained().await;
        assert_eq!(case.world.verify(), 0);
        let mut letters = case.world.topic.letters();
        letters.sort();
        assert_eq!(letters, expected);
        assert_eq!(metrics.payloads_unopened.get(), 3);
        assert_eq!(metrics.aggregates_broken.get(), 0);
        // Behind the checkpoint, letters too.
        let before = case.world.topic.len();
        let running = case.run(Decompress::Auto);
        running.caught_up().await;
        running.drained().await;
        assert_eq!(case.world.topic.len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn kills_repeat_the_same_origins_and_lose_no_letter() {
    let case = Case::new(false);
    case.world.topic.delay_ms.store(300, Ordering::Relaxed);
    let mut expected = BTreeSet::new();
    for (round, life_ms) in (50..2_500).step_by(350).enumerate() {
        expected.extend(put_mixed(&case, round));
        let running = case.run(Decompress::Auto);
        tokio::time::sleep(Duration::from_millis(life_ms)).await;
        running.killed().await;
    }
    let running = case.run(Decompress::Auto);
    running.caught_up().await;
    running.drained().await;
    assert!(case.world.verify() > 0, "no kill repeated anything");
    let letters: BTreeSet<_> = case.world.topic.letters().into_iter().collect();
    assert_eq!(letters, expected);
}

/// An event of ten mebibytes is in a few kilobytes: what is opened must not outgrow the memory that the
/// source may use, whatever it is sent.
#[tokio::test(start_paused = true)]
async fn what_is_opened_is_bounded() {
    for is_pushed in [false, true] {
        let case = Case::new(is_pushed);
        let event = vec![b'x'; 60_000];
        let packed = gzip(&event);
        assert!(packed.len() < 1_000);
        for n in 0..3_000 {
            let key = format!("key-{}", n % 7);
            case.put(&key, packed.clone(), Some(&event));
        }
        case.world.topic.held.store(true, Ordering::Relaxed);
        let running = case.run(Decompress::Gzip);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let taken = running.metrics.source_bytes.get();
        // `max-buffered`, and the piece that crossed it.
        assert!(taken >= 4 << 20, "{taken}");
        assert!(taken < (4 << 20) + (16 << 20), "{taken}");
        case.world.topic.held.store(false, Ordering::Relaxed);
        running.caught_up().await;
        running.drained().await;
        assert_eq!(case.world.verify(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn another_setting_begins_another_numbering() {
    let case = Case::new(false);
    put_mixed(&case, 0);
    let running = case.run(Decompress::Auto);
    until("something is durable", || case.world.topic.len() > 0).await;
    running.killed().await;
    let epochs = |case: &Case| -> BTreeSet<u64> {
        let records = case.world.topic.records().into_iter();
        let keys = records.map(|(_, _, key, _)| key);
        keys.filter_map(|key| {
            Origin::parse(key.as_bytes())
                .ok()
                .map(|origin| origin.chain.epoch)
        })
        .collect()
    };
    let before = epochs(&case);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let running = case.run(Decompress::None);
    running.caught_up().await;
    running.drained().await;
    assert!(epochs(&case).len() > before.len(), "{before:?}");
    // As they are: nothing is looked at.
    let after = case.world.topic.letters().len();
    let running = case.run(Decompress::None);
    running.caught_up().await;
    running.drained().await;
    assert_eq!(case.world.topic.letters().len(), after);
}
