//! Whether a store holds exactly what was sent.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;

use super::workload::Workload;

/// Values of a dead-letter file, each id once.
///
/// # Panics
/// When a line is not whole, or an id comes twice.
#[must_use]
pub fn read_letters(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut ids = std::collections::BTreeSet::new();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("whole line");
            assert!(ids.insert(line["id"].to_string()), "twice: {}", line["id"]);
            let value = line["value_base64"].as_str().expect("value");
            base64::engine::general_purpose::STANDARD
                .decode(value)
                .expect("base64")
        })
        .collect()
}

/// Every event once, in the order of its partition key within its chain; poison among the letters.
///
/// # Panics
/// When an event is lost, repeated, out of order or invented.
pub fn check(workload: &Workload, chains: &BTreeMap<String, Vec<Vec<u8>>>, letters: &[Vec<u8>]) {
    let mut place: HashMap<&[u8], (&str, usize)> = HashMap::new();
    for (chain, values) in chains {
        for (index, value) in values.iter().enumerate() {
            let before = place.insert(value, (chain, index));
            assert_eq!(
                before,
                None,
                "twice: {}",
                String::from_utf8_lossy(&value[..30.min(value.len())])
            );
        }
    }
    let mut last: HashMap<(&str, &str), usize> = HashMap::new();
    let (mut events, mut poison) = (0, 0);
    for event in workload.sent() {
        if event.is_poison {
            poison += 1;
            let found = letters
                .iter()
                .filter(|letter| **letter == event.value)
                .count();
            assert_eq!(found, 1, "{}", String::from_utf8_lossy(&event.value));
            continue;
        }
        events += 1;
        let name = String::from_utf8_lossy(&event.value[..40.min(event.value.len())]);
        let (chain, index) = *place
            .get(event.value.as_slice())
            .unwrap_or_else(|| panic!("lost: {name}"));
        let before = last.insert((chain, &event.partition_key), index);
        assert!(
            before.is_none_or(|before| before < index),
            "out of order: {name}"
        );
    }
    assert_eq!(place.len(), events, "invented");
    assert_eq!(letters.len(), poison, "invented dead letters");
}
