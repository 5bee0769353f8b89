use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn gzip(data: &[u8]) -> Vec<u8> {
    gzip_at(Compression::fast(), data)
}

fn gzip_at(level: Compression, data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(data).expect("written");
    encoder.finish().expect("finished")
}

fn zstd_of(data: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("a checksum");
    encoder.write_all(data).expect("written");
    encoder.finish().expect("finished")
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn open(decompress: Decompress, payload: &[u8]) -> Result<Vec<u8>, NotOpened> {
    let mut allowance = Allowance::default();
    let mut opener = Opener::new(decompress);
    opener.open(payload, &mut allowance).map(<[u8]>::to_vec)
}

#[test]
fn each_setting_opens_what_it_says() {
    let event = b"{\"n\":1}".repeat(100);
    let (gz, zst) = (gzip(&event), zstd_of(&event));
    use Decompress::{Auto, Gzip, None, Zstd};
    for (setting, payload, expected) in [
        (None, &gz, Ok(&gz)),
        (None, &zst, Ok(&zst)),
        (Auto, &gz, Ok(&event)),
        (Auto, &zst, Ok(&event)),
        (Auto, &event, Ok(&event)),
        (Gzip, &gz, Ok(&event)),
        (Gzip, &zst, Err(NotOpened::Other("gzip"))),
        (Gzip, &event, Err(NotOpened::Other("gzip"))),
        (Zstd, &zst, Ok(&event)),
        (Zstd, &gz, Err(NotOpened::Other("zstd"))),
    ] {
        assert_eq!(open(setting, payload), expected.cloned(), "{setting:?}");
        assert_eq!(open(setting, b""), Ok(Vec::new()), "{setting:?}");
    }
}

#[test]
fn several_members_and_frames_are_one_event() {
    let (a, b) = (noise(100_000), noise(70_000));
    let both = [a.clone(), b.clone()].concat();
    let empty = [gzip(&a), gzip(&[]), gzip(&b)].concat();
    assert!(open(Decompress::Auto, &empty).as_ref() == Ok(&both));
    let frames = [zstd_of(&a), zstd_of(&[]), zstd_of(&b)].concat();
    assert!(open(Decompress::Auto, &frames) == Ok(both));
    // What is behind them is not left out in silence.
    for whole in [gzip(&a), zstd_of(&a)] {
        let more = [whole, b"more".to_vec()].concat();
        let failed = open(Decompress::Auto, &more);
        assert!(
            matches!(failed, Err(NotOpened::Damaged { .. })),
            "{failed:?}"
        );
    }
}

#[test]
fn bombs_are_refused_and_what_is_allowed_is_opened() {
    let largest = vec![b'x'; MAX_EVENT_BYTES];
    for packed in [gzip_at(Compression::best(), &largest), zstd_of(&largest)] {
        let limit = (packed.len() * MAX_RATIO).max(FREE_RATIO_BYTES);
        assert!(
            limit < MAX_EVENT_BYTES,
            "{} bytes are no bomb",
            packed.len()
        );
        let refused = NotOpened::TooLarge {
            compressed: packed.len(),
            limit,
        };
        assert!(open(Decompress::Auto, &packed) == Err(refused));
    }
    // Without a suspicious ratio the size alone decides.
    let too_large = noise(MAX_EVENT_BYTES + 1);
    for pack in [gzip, zstd_of] {
        let event = &too_large[..MAX_EVENT_BYTES];
        assert!(open(Decompress::Auto, &pack(event)).as_deref() == Ok(event));
        let packed = pack(&too_large);
        let refused = NotOpened::TooLarge {
            compressed: packed.len(),
            limit: MAX_EVENT_BYTES,
        };
        assert!(open(Decompress::Auto, &packed) == Err(refused));
    }
    let small = vec![0; FREE_RATIO_BYTES];
    for packed in [gzip(&small), zstd_of(&small)] {
        assert!(open(Decompress::Auto, &packed).as_ref() == Ok(&small));
    }
}

#[test]
fn the_events_of_a_record_share_what_it_may_be_opened_to() {
    let event = vec![7; 60_000];
    let packed = gzip(&event);
    let mut opener = Opener::new(Decompress::Auto);
    let mut allowance = Allowance::default();
    let mut opened = 0;
    for _ in 0..1_000 {
        match opener.open(&packed, &mut allowance) {
            Ok(event) => opened += event.len(),
            Err(error) => assert!(matches!(error, NotOpened::TooLarge { .. }), "{error}"),
        }
    }
    assert!(opened <= MAX_OPENED_RECORD_BYTES);
    assert!(opened > MAX_OPENED_RECORD_BYTES - event.len());
}

#[test]
fn an_answer_is_cut_so_that_a_piece_is_bounded() {
    let cut = |decompress, count: usize, payload: &[u8]| {
        piece(decompress, std::iter::repeat_n(payload, count))
    };
    let zeros = vec![0; 10 << 20];
    assert_eq!(cut(Decompress::None, 10_000, &zeros[..1 << 20]), 10_000);
    assert_eq!(cut(Decompress::Auto, 10_000, &zeros[..200]), 128);
    assert_eq!(cut(Decompress::Gzip, 10, &zeros), 1);
    assert_eq!(cut(Decompress::Zstd, 0, &[]), 0);
    // What is taken apart, whatever is opened.
    let mut aggregated = crate::aggregate::MAGIC.to_vec();
    aggregated.resize(64 << 10, 0);
    assert_eq!(cut(Decompress::None, 100, &aggregated), 4);
    aggregated.resize(1 << 20, 0);
    assert_eq!(cut(Decompress::None, 10, &aggregated), 1);
}

proptest! {
    #[test]
    fn what_was_packed_is_opened_and_every_damage_is_found(
        event in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5_000),
        is_gzip in any::<bool>(),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
    ) {
        let whole = if is_gzip { gzip(&event) } else { zstd_of(&event) };
        prop_assert_eq!(open(Decompress::Auto, &whole), Ok(event.clone()));
        let cut = at.index(whole.len());
        // Cut within its magic it is something else, which is passed on.
        if cut >= 4 {
            prop_assert!(open(Decompress::Auto, &whole[..cut]).is_err(), "cut at {}", cut);
        }
        let mut damaged = whole;
        damaged[cut] ^= change;
        // Some bits of a header mean nothing; the event itself is covered by a checksum.
        if let Ok(opened) = open(Decompress::Auto, &damaged) {
            prop_assert!(opened == event || opened == damaged, "flipped at {}", cut);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        kind in 0u8..3,
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let magic: &[u8] = match kind {
            0 => &GZIP_MAGIC,
            1 => &ZSTD_MAGIC,
            _ => &[],
        };
        let payload = [magic, &bytes].concat();
        for setting in [Decompress::Auto, Decompress::Gzip, Decompress::Zstd] {
            let _ = open(setting, &payload);
        }
    }
}
