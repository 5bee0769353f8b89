//! Whether frames of small items are worth a new dictionary, and that dictionary. Pure.

use millpond_format::dictionary::Dictionary;
use millpond_format::frame::{CompressError, FrameEncoder};

use crate::plan::repack::LEVEL;

/// Bytes of one sample for the trainer: more samples of a frame tell it more than one long one.
const PIECE_BYTES: usize = 4 << 10;

/// A new dictionary must save one in so many of the bytes that there are without it.
const WORTH: u64 = 20;

/// A dictionary of at most `most_bytes` for frames like these, if it is worth it: trained on every other one, it must
/// save a twentieth of the packed bytes of the others against `current`.
#[must_use]
pub fn trained(
    frames: &[Vec<u8>],
    current: Option<&Dictionary>,
    id: u64,
    most_bytes: usize,
) -> Option<Dictionary> {
    let every_other = |first: usize| frames.iter().skip(first).step_by(2);
    let mut samples = Vec::new();
    let mut sizes = Vec::new();
    for piece in every_other(0).flat_map(|frame| frame.chunks(PIECE_BYTES)) {
        samples.extend_from_slice(piece);
        sizes.push(piece.len());
    }
    // Refused: too few samples, or nothing that they have in common.
    let bytes = zstd::dict::from_continuous(&samples, &sizes, most_bytes).ok()?;
    let candidate = Dictionary::new(id, bytes).ok()?;
    let now = packed_bytes(every_other(1), current).ok()?;
    let then = packed_bytes(every_other(1), Some(&candidate)).ok()?;
    (then * WORTH <= now * (WORTH - 1) && then < now).then_some(candidate)
}

fn packed_bytes<'a>(
    frames: impl Iterator<Item = &'a Vec<u8>>,
    dictionary: Option<&Dictionary>,
) -> Result<u64, CompressError> {
    let mut encoder = match dictionary {
        Some(dictionary) => FrameEncoder::with_dictionary(LEVEL, dictionary)?,
        None => FrameEncoder::new(LEVEL)?,
    };
    let mut bytes = 0;
    for raw in frames {
        bytes += encoder.pack(raw)?.len() as u64;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one event each, of a kind of event.
    fn frames(kind: &str, count: u64) -> Vec<Vec<u8>> {
        let frame = |n: u64| {
            let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let event = format!(
                r#"{{"id":"{id:016x}","kind":"{kind}-{}","region":"eu-{kind}-{}","customer":{{"tier":"{kind}","id":{}}}}}"#,
                n % 5,
                n % 3,
                id % 100_000
            );
            event.into_bytes()
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn a_dictionary_is_made_when_it_is_worth_it_and_not_otherwise() {
        let orders = frames("order", 2_000);
        let first = trained(&orders, None, 1, 4_096).expect("worth it");
        assert!(first.id() == 1 && first.bytes().len() <= 4_096);
        // The same again: the same bytes, and nothing to gain from another one.
        let again = trained(&orders, None, 1, 4_096).expect("worth it");
        assert_eq!(first.bytes(), again.bytes());
        assert!(trained(&orders, Some(&first), 2, 4_096).is_none());
        // Other events: another dictionary.
        let others = frames("a-wholly-different-measurement-of-temperature", 2_000);
        assert!(trained(&others, Some(&first), 2, 4_096).is_some());
    }

    #[test]
    fn too_little_or_nothing_in_common_gives_none() {
        assert!(trained(&[], None, 1, 4_096).is_none());
        assert!(trained(&frames("order", 3), None, 1, 4_096).is_none());
        let mut state = 1u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        };
        let noise: Vec<Vec<u8>> = (0..500)
            .map(|_| (0..300).map(|_| noise()).collect())
            .collect();
        assert!(trained(&noise, None, 1, 4_096).is_none());
    }
}
