//! Whatever the file holds: an answer, never a panic, and every place lies in the file.

mod support;

use millpond_connector::manifest::Scope;
use millpond_connector::secret::SecretStore;
use proptest::prelude::*;
use support::{GOOD, check, check_with};

fn holds(bytes: &[u8]) {
    let checked = check_with(bytes, &SecretStore::from_environment(), Scope::Pipeline);
    assert_eq!(checked.pipeline.is_some(), !checked.problems.has_errors());
    for problem in checked.problems.list() {
        if let Some(span) = problem.span {
            assert!(span.line >= 1 && span.column >= 1);
            assert!(
                span.start <= bytes.len() && span.end <= bytes.len(),
                "{span:?}"
            );
        }
    }
    let _ = (checked.problems.plain(), checked.problems.fancy(false, 80));
}

/// Pieces of which broken files are made.
const PIECES: [&str; 32] = [
    "meta:",
    "\n",
    "  ",
    " ",
    "name:",
    "river",
    "type:",
    "river-source",
    "lake-sink",
    "---\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|\n",
    ">\n",
    "'",
    "\"",
    "#",
    "${{ secrets.A }}",
    "{secret: {name: A}}",
    "transforms:",
    "0x",
    "1e999",
    "ä",
    "\t",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        holds(&bytes);
    }

    #[test]
    fn arbitrary_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60)) {
        holds(pieces.concat().as_bytes());
    }

    #[test]
    fn a_right_file_with_a_piece_replaced(
        start in 0..GOOD.len(),
        length in 0..40_usize,
        piece in prop::sample::select(PIECES.to_vec()),
    ) {
        let end = (start + length).min(GOOD.len());
        let text = [&GOOD[..start], piece, &GOOD[end..]].concat();
        holds(text.as_bytes());
    }

    /// A wrong number is found in its line, whatever comes before it.
    #[test]
    fn places_are_right(blank in 0..30_usize, letters in "[a-zäöü€😀 ]{0,20}") {
        let before = format!("# {letters}\n{}", "\n".repeat(blank));
        let text = format!("{before}{}", GOOD.replace("topic-partitions: 8", "topic-partitions: 999"));
        let checked = check(text.as_str());
        prop_assert_eq!(checked.problems.list().len(), 1);
        let span = checked.problems.list()[0].span.expect("a place");
        prop_assert_eq!(span.line as usize, blank + 1 + 13);
        prop_assert_eq!(span.column, 21);
        prop_assert_eq!(&text[span.bytes()], "999");
    }
}

#[test]
fn every_prefix_of_a_right_file_gives_an_answer() {
    for end in 0..GOOD.len() {
        holds(&GOOD.as_bytes()[..end]);
    }
}
