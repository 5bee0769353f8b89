//! Joins envelopes into items as the sink does: each is read and its frames are checked, headers are merged, frames laid
//! side by side. CPU time of one thread, in bytes of envelopes.

#![expect(clippy::print_stdout, reason = "a report is for whoever ran it")]

use std::hint::black_box;
use std::time::Duration;

use millpond_format::frame::{FrameBuilder, FrameEncoder};
use millpond_format::header::{ChainTotals, Header, Kind, Place, SourceRange};
use millpond_format::join::Joiner;
use millpond_format::limits::MAX_ITEM_BYTES;
use millpond_format::sequence::Position;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 15;
const BYTES_OF_ROUND: usize = 64 << 20;
const EVENT_BYTES: usize = 550;

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An event that compresses about as well as JSON does: words out of a few.
fn event(rng: &mut SmallRng) -> Vec<u8> {
    let mut value = Vec::with_capacity(EVENT_BYTES);
    while value.len() < EVENT_BYTES {
        let word: u16 = rng.random_range(0..2_000);
        value.extend(format!("\"field{word}\":{},", word % 97).bytes());
    }
    value.truncate(EVENT_BYTES);
    value
}

/// One envelope of so many events and so many shards.
fn envelope(rng: &mut SmallRng, encoder: &mut FrameEncoder, events: usize, shards: u32) -> Vec<u8> {
    let (mut frames, mut packed) = (Vec::new(), Vec::new());
    let mut builder = FrameBuilder::default();
    for index in 0..events {
        let value = event(rng);
        if !builder.is_empty() && builder.raw_len() + value.len() > 64 << 10 {
            let (info, bytes) = encoder.encode(builder.take()).expect("compresses");
            frames.push(info);
            packed.extend(bytes);
        }
        let time_ms = 1_763_886_000_000 + index as i64;
        builder.push(&value, time_ms, index as u32 % shards, index as u64);
    }
    let (info, bytes) = encoder.encode(builder.take()).expect("compresses");
    frames.push(info);
    packed.extend(bytes);
    let position = |sub_sequence| Position {
        sequence: "49590338271490256608559692538361571095921575989136588898".into(),
        sub_sequence,
    };
    let sources = (0..shards).map(|shard| SourceRange {
        stream: "events".into(),
        shard: format!("shardId-{shard:012}"),
        epoch: 1_763_885_999_000,
        first_ordinal: 0,
        last_ordinal: events as u64,
        first: position(0),
        last: position(1),
        count: events as u64 / u64::from(shards),
    });
    let header = Header {
        kind: Kind::Events,
        codec: encoder.codec(),
        group: "job-17".into(),
        base_offset: 1_000,
        last_offset: 1_000 + events as u64,
        place: Place::Batch { index: 0, total: 1 },
        sources: sources.collect(),
        frames,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.extend(packed);
    bytes
}

/// Joins envelopes into full items; answers the items' bytes, so that nothing is left out.
fn join(envelopes: &[Vec<u8>]) -> usize {
    let mut made = 0;
    let mut open: Option<(Joiner, Vec<u8>)> = None;
    let mut finish = |(joiner, frames): (Joiner, Vec<u8>)| {
        let header = joiner.finish(Place::Chain(ChainTotals::default()));
        let mut section = Vec::new();
        header.encode(&mut section);
        made += section.len() + black_box(&frames).len();
    };
    for bytes in envelopes {
        let (header, length) = Header::decode(bytes).expect("whole");
        let frames = &bytes[length..];
        header.check_frames(frames).expect("unchanged");
        if let Some((joiner, all)) = &mut open
            && joiner.try_push(&header, MAX_ITEM_BYTES - 1_024)
        {
            all.extend_from_slice(frames);
            continue;
        }
        let full = open.replace((Joiner::new(header), frames.to_vec()));
        full.into_iter().for_each(&mut finish);
    }
    open.into_iter().for_each(&mut finish);
    made
}

fn main() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut encoder = FrameEncoder::new(1).expect("a context");
    println!(
        "{:>16} {:>8} {:>8} {:>10}",
        "envelope bytes", "events", "shards", "MB/s"
    );
    for (events, shards) in [(10, 1), (100, 1), (100, 4), (1_000, 4), (3_000, 4)] {
        let one: Vec<Vec<u8>> = (0..8)
            .map(|_| envelope(&mut rng, &mut encoder, events, shards))
            .collect();
        let bytes: usize = one.iter().map(Vec::len).sum();
        let envelopes: Vec<Vec<u8>> = one
            .iter()
            .cycle()
            .take(8 * (BYTES_OF_ROUND / bytes))
            .cloned()
            .collect();
        let bytes: usize = envelopes.iter().map(Vec::len).sum();
        let mut seconds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let start = cpu_time();
                black_box(join(&envelopes));
                (cpu_time() - start).as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let rate = bytes as f64 / seconds[ROUNDS / 2] / 1e6;
        println!(
            "{:>16} {events:>8} {shards:>8} {rate:>10.0}",
            bytes / envelopes.len()
        );
    }
}
