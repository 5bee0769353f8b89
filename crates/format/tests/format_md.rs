//! The worked example of `FORMAT.md` is what the encoder writes, and reads as the page says.

#[expect(dead_code, reason = "the corpus is of another test")]
mod support;

use millpond_format::keys::{self, SortKey};
use support::{describe, example, hex};

const PAGE: &str = include_str!("../../../FORMAT.md");

/// Lines of the code block that follows the marker.
fn block(marker: &str) -> Vec<&'static str> {
    let after = PAGE
        .split_once(marker)
        .unwrap_or_else(|| panic!("no `{marker}`"))
        .1;
    let body = after.split_once("```").expect("a block").1;
    let body = body.split_once("```").expect("its end").0;
    body.lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .collect()
}

#[test]
fn the_example_is_what_the_encoder_writes() {
    let mut written = String::new();
    let mut offset = 0;
    for line in block("<!-- example: hex -->") {
        let (at, rest) = line.trim_start().split_once("  ").expect("an offset");
        assert_eq!(
            usize::from_str_radix(at, 16),
            Ok(offset),
            "offset in `{line}`"
        );
        // Bytes end at two spaces; what follows is the annotation.
        let bytes = rest.trim_start().split("  ").next().expect("bytes");
        let bytes: String = bytes.split(' ').collect();
        assert!(bytes.bytes().all(|b| b.is_ascii_hexdigit()), "{line}");
        offset += bytes.len() / 2;
        written.push_str(&bytes);
    }
    assert_eq!(written, hex(&example()));
}

#[test]
fn the_example_reads_as_the_page_says() {
    let json = block("<!-- example: json -->").join("\n");
    let expected: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(describe(&example()), expected);
}

#[test]
fn the_keys_of_write_shards_are_those_of_the_page() {
    let mut items = Vec::new();
    for line in block("<!-- example: write shards -->").into_iter().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [number, pk, sk] = fields.as_slice() else {
            panic!("{line}");
        };
        let number: u64 = number.parse().expect("a number");
        let shards = if number < 3 { 1 } else { 2 };
        let shard = ((number - 1) % shards) as u32;
        assert_eq!(*pk, keys::shard_pk("events", "job-17", 3, shard), "{line}");
        let key = keys::parse_chain_pk(pk).expect("a key of items");
        assert_eq!(
            (key.group, key.partition, key.write_shard),
            ("job-17", 3, shard)
        );
        items.push((SortKey::parse(sk).expect("a sort key"), *pk, number));
    }
    // Read as a reader does: one write shard after the other, merged by sort key.
    let mut merged = items.clone();
    merged.sort_by_key(|(_, pk, _)| *pk);
    merged.sort_by_key(|(sk, ..)| *sk);
    assert_eq!(merged, items);
    assert!(merged.iter().map(|(.., number)| *number).eq(1..=6));
    for (shard, row) in [(0, "`job-17#3`"), (1, "`job-17#3.1`")] {
        let sk = keys::directory_sk("job-17", 3, shard);
        assert_eq!(row, format!("`{sk}`"));
        assert!(PAGE.contains(row));
    }
}
