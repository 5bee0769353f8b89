//! How large a row is, from its JSON (DynamoDB developer guide, "DynamoDB item sizes and formats", read
//! 2026-11-26). Shares no code with what it is to check.

use serde_json::{Map, Value};

/// Write units of an item: its bytes by KB, rounded up.
#[must_use]
pub fn write_units(item: &Map<String, Value>) -> u64 {
    let bytes: usize = item
        .iter()
        .map(|(name, value)| name.len() + value_bytes(value))
        .sum();
    (bytes.div_ceil(1_024) as u64).max(1)
}

fn value_bytes(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else {
        return 0;
    };
    let text = value.as_str().unwrap_or_default();
    let sum = |of: fn(&str) -> usize| {
        let all = value.as_array().into_iter().flatten();
        all.map(|value| of(value.as_str().unwrap_or_default()))
            .sum()
    };
    match kind.as_str() {
        "S" => text.len(),
        "N" => number_bytes(text),
        "B" => base64_bytes(text),
        "SS" => sum(str::len),
        "NS" => sum(number_bytes),
        "BS" => sum(base64_bytes),
        "L" => {
            let values = value.as_array().into_iter().flatten();
            3 + values.map(|value| 1 + value_bytes(value)).sum::<usize>()
        }
        "M" => {
            let values = value.as_object().into_iter().flatten();
            let each = values.map(|(name, value)| 1 + name.len() + value_bytes(value));
            3 + each.sum::<usize>()
        }
        _ => 1,
    }
}

/// A byte for each two significant digits and one more; another one for a sign.
fn number_bytes(text: &str) -> usize {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_matches('0').len();
    significant.div_ceil(2) + 1 + usize::from(text.starts_with('-'))
}

fn base64_bytes(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_has_its_size() {
        for (value, bytes) in [
            (json!({ "S": "äb" }), 3),
            (json!({ "N": "-12300" }), 4),
            (json!({ "N": "0" }), 1),
            (json!({ "B": "AAECAw==" }), 4),
            (json!({ "BOOL": true }), 1),
            (json!({ "NULL": true }), 1),
            (json!({ "SS": ["a", "bc"] }), 3),
            (json!({ "L": [{ "S": "ab" }, { "N": "1" }] }), 9),
            (json!({ "M": { "k": { "S": "ab" } } }), 7),
        ] {
            assert_eq!(value_bytes(&value), bytes, "{value}");
        }
        let item = |bytes: usize| {
            let item = json!({ "pk": { "S": "x".repeat(bytes - 2) } });
            write_units(item.as_object().expect("a map"))
        };
        assert_eq!([item(2), item(1_024), item(1_025)], [1, 1, 2]);
    }
}
