//! The fuzz targets' checks on mutations of the golden corpus, seeded, for some seconds.
//!
//! Besides: no decoder allocates beyond its bounds, whatever sizes the bytes declare.

#[path = "../../../fuzz/src/checks.rs"]
mod checks;
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use millpond_format::header::{Codec, Header};
use millpond_format::record::BatchBuilder;

/// Counts what each thread holds, and the most it held.
struct Counting;

thread_local! {
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // Without the thread's cell, at its end, nothing is measured.
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + bytes;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: every call goes to the system allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most memory that a check may hold besides a small multiple of its input: two raw frames of at
/// most 1.2 MB with their event lists, which are 48 bytes for four bytes of columns.
const MAX_HELD_BYTES: isize = 48 << 20;

fn bounded(bytes: &[u8], check: fn(&[u8])) {
    let before = HELD.with(|held| {
        let now = held.get().0;
        held.set((now, now));
        now
    });
    check(bytes);
    let most = HELD.with(|held| held.get().1) - before;
    let limit = MAX_HELD_BYTES + 64 * bytes.len() as isize;
    assert!(most <= limit, "{most} bytes held, at most {limit} allowed");
}

fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "bin"))
        .collect();
    // Directory order is no part of a replay.
    paths.sort();
    assert!(paths.len() >= 5);
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("readable"))
        .collect()
}

#[test]
fn envelopes() {
    mutate::run("envelope", &golden(), 4_000, |bytes| {
        bounded(bytes, checks::envelope)
    });
}

#[test]
fn frames() {
    let mut corpus = Vec::new();
    for bytes in golden() {
        let (header, length) = Header::decode(&bytes).expect("golden");
        for (info, range) in header.frame_ranges() {
            let flags = match header.codec {
                Codec::Stored => 0,
                Codec::Zstd { dictionary: 0 } => 1,
                Codec::Zstd { .. } => 3,
            };
            let mut input = vec![flags, info.sources.len() as u8];
            input.extend(info.raw_bytes.to_le_bytes());
            input.extend(&bytes[length..][range]);
            corpus.push(input);
        }
    }
    // Raw columns take mutations better than compressed ones.
    let mut builder = millpond_format::frame::FrameBuilder::default();
    for n in 0..40u64 {
        builder.push(&n.to_le_bytes(), 1_000 + n as i64 * 3, (n % 3) as u32, n);
    }
    let raw = builder.take().raw;
    let mut input = vec![0, 3];
    input.extend((raw.len() as u32).to_le_bytes());
    input.extend(raw);
    corpus.push(input);
    mutate::run("frame", &corpus, 6_000, |bytes| {
        bounded(bytes, checks::frame);
        // The same with the raw size made right, so that the columns are reached.
        if let Some((_, rest)) = bytes.split_first_chunk::<6>() {
            let mut sized = vec![0, bytes[1]];
            sized.extend((rest.len() as u32).to_le_bytes());
            sized.extend(rest);
            bounded(&sized, checks::frame);
        }
    });
}

#[test]
fn origins() {
    let corpus: Vec<Vec<u8>> = [
        "mp1/events/shardId-000000000003/49590338271490256608559692538361571095921575989136588898/0/1763886000123/1763885999000.42/job-17/w3",
        "mp1/s/x/0/4294967295/-1/0.18446744073709551615/",
        "2025-11-23T08:20:00.123Z/0000000000000000042/00003",
        "pipe/a/b#c#9#12",
        "2025-11-23T09:20:00.1239+01:00",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    mutate::run("origin", &corpus, 60_000, |bytes| {
        bounded(bytes, checks::origin)
    });
}

#[test]
fn records() {
    let mut batch = BatchBuilder::new();
    for n in 0..20i64 {
        batch.push(
            Some(b"mp1/key"),
            &vec![b'v'; n as usize * 7],
            1_000 - n * 13,
        );
        batch.push(None, b"", n);
    }
    let corpus = [batch.finish(), BatchBuilder::new().finish()];
    mutate::run("records", &corpus, 30_000, |bytes| {
        bounded(bytes, checks::records)
    });
}

#[test]
fn dictionaries() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dictionary-1.zdict");
    let known = std::fs::read(path).expect("the dictionary");
    mutate::run("dictionary", &[known], 1_500, |bytes| {
        bounded(bytes, checks::dictionary)
    });
}
