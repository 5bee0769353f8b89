//! Envelopes of every released format version are read for ever.
//!
//! `golden/v<version>/<name>.bin` is header section and frames, `<name>.json` what must be read
//! from it. With `MILLPOND_BLESS=1` missing files are written; existing ones are never changed.

#[expect(dead_code, reason = "the page's example is of another test")]
mod support;

use std::path::{Path, PathBuf};

use millpond_format::error::DecodeError;
use millpond_format::header::{Header, Place};
use support::{corpus, describe};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

#[test]
fn every_golden_envelope_reads_as_expected() {
    let bless = std::env::var_os("MILLPOND_BLESS").is_some();
    for (name, built) in corpus() {
        let bin = folder().join(format!("{name}.bin"));
        let expectation = folder().join(format!("{name}.json"));
        if bless && !bin.exists() {
            let text = serde_json::to_string_pretty(&describe(&built)).expect("JSON");
            std::fs::write(&bin, &built).expect("written");
            std::fs::write(&expectation, text + "\n").expect("written");
        }
        let bytes = std::fs::read(&bin).unwrap_or_else(|e| panic!("{}: {e}", bin.display()));
        let text = std::fs::read_to_string(&expectation).expect("an expectation");
        let expected: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(describe(&bytes), expected, "{name}");

        let (header, length) = Header::decode(&bytes).expect("decodes");
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, bytes[..length], "{name}");
        assert_eq!(Header::peek_codec(&bytes), Some(header.codec), "{name}");
    }
}

#[test]
fn the_encoder_still_writes_the_same_headers() {
    for (name, built) in corpus() {
        let bytes = std::fs::read(folder().join(format!("{name}.bin"))).expect("golden");
        // Frames may come out otherwise with another zstd: what they hold must not.
        let (mut built, golden) = (describe(&built), describe(&bytes));
        let frames = golden["frames"].as_array().expect("frames");
        for (index, frame) in frames.iter().enumerate() {
            for field in ["packed_bytes", "crc32c"] {
                built["frames"][index][field] = frame[field].clone();
            }
        }
        built["header_bytes"] = golden["header_bytes"].clone();
        assert_eq!(built, golden, "{name}");
    }
}

#[test]
fn no_golden_file_is_without_its_test() {
    let known: Vec<_> = corpus()
        .iter()
        .flat_map(|(name, _)| [format!("{name}.bin"), format!("{name}.json")])
        .collect();
    let mut found = 0;
    for entry in std::fs::read_dir(folder()).expect("the corpus") {
        let name = entry
            .expect("readable")
            .file_name()
            .to_string_lossy()
            .into_owned();
        assert!(known.contains(&name), "{name}");
        found += 1;
    }
    assert_eq!(found, known.len());
}

#[test]
fn an_envelope_in_a_batch_has_no_dictionary() {
    let (name, bytes) = corpus().swap_remove(0);
    assert_eq!(name, "dictionary");
    let (mut header, _) = Header::decode(&bytes).expect("an item");
    header.place = Place::Batch { index: 0, total: 1 };
    let mut envelope = Vec::new();
    header.encode(&mut envelope);
    let what = "dictionary of an envelope";
    assert_eq!(
        Header::decode(&envelope),
        Err(DecodeError::Corrupt { what })
    );
}

#[test]
fn a_number_in_a_longer_form_is_refused() {
    let (_, bytes) = corpus().swap_remove(1);
    let (header, length) = Header::decode(&bytes).expect("decodes");
    // Behind prefix, kind and codec stands the length of the group, below 128: one byte.
    let at = 8 + 1 + 2;
    assert_eq!(usize::from(bytes[at]), header.group.len());
    let mut longer = bytes[..length - 4].to_vec();
    longer[at] |= 0x80;
    longer.insert(at + 1, 0);
    let body = (longer.len() - 8) as u32;
    longer[4..8].copy_from_slice(&body.to_le_bytes());
    let crc = crc32c::crc32c(&longer);
    longer.extend(crc.to_le_bytes());
    let refused = Header::decode(&longer);
    assert_eq!(refused, Err(DecodeError::Corrupt { what: "group" }));
}
