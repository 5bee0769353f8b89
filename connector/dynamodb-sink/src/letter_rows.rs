//! Dead letters as rows of a table, and the dead letter of an item that a table refuses.

use bytes::Bytes;
use millpond_format::keys;
use millpond_format::limits::MAX_RECORD_KEY_BYTES;
use millpond_sink::dead_letters::{DeadLetter, Payload};

use crate::limits::DEAD_LETTER_ROW_BYTES;
use crate::plan::PlanConfig;
use crate::row::{Key, Pieces, Row, Value, names};

/// The rows of a dead-letter table: one, or several for an event that one cannot hold.
#[must_use]
pub fn rows(letter: &DeadLetter, pipeline: &str) -> Vec<Row> {
    let (bytes, detail) = letter.content();
    let bytes = Bytes::from(bytes);
    let count = bytes.len().div_ceil(DEAD_LETTER_ROW_BYTES).max(1);
    let rows = (0..count).map(|number| {
        let start = number * DEAD_LETTER_ROW_BYTES;
        let end = (start + DEAD_LETTER_ROW_BYTES).min(bytes.len());
        let key = Key {
            pk: keys::dead_letters_pk(pipeline),
            sk: format!(
                "{}/{}/{number:05}",
                keys::time_text(letter.time_ms),
                letter.id
            ),
        };
        let mut row = Row::new(key)
            .with(names::REASON, Value::S(letter.reason.clone()))
            .with(names::DETAIL, Value::S(detail.clone()))
            .with(names::FIRST_TIME, Value::N(letter.time_ms))
            .with(names::VALUE, Value::B(bytes.slice(start..end).into()));
        if let Some(group) = &letter.group {
            row = row.with(names::GROUP, Value::S(group.clone()));
        }
        if let Some(key) = &letter.record_key {
            let kept = &key[..key.len().min(MAX_RECORD_KEY_BYTES)];
            let text = String::from_utf8_lossy(kept).into_owned();
            row = row.with(names::ORIGIN, Value::S(text));
        }
        row
    });
    rows.collect()
}

/// The dead letter of an item that the table refuses.
#[must_use]
pub fn refused_item(row: &Row, message: String, config: &PlanConfig) -> DeadLetter {
    let key = keys::SortKey::parse(&row.key.sk);
    let offset = key.map_or(0, |key| key.base_offset);
    let index = key.map_or(0, |key| key.envelope_index);
    let pk = &row.key.pk;
    let pk = pk.strip_prefix(&config.form.key_prefix).unwrap_or(pk);
    let mut bytes = Vec::new();
    for name in [names::HEADER, names::FRAMES, names::VALUE] {
        bytes.extend(
            row.binary(config.name(name))
                .map(Pieces::concat)
                .unwrap_or_default(),
        );
    }
    let origin = row
        .string(config.name(names::ORIGIN))
        .map(|origin| origin.to_owned().into_bytes().into());
    DeadLetter {
        id: format!(
            "{}/{}/{}/{offset}/{index}/item",
            config.pipeline, config.topic, config.partition
        ),
        offset,
        time_ms: row
            .integer(config.name(names::FIRST_TIME))
            .unwrap_or_default(),
        reason: "item-refused".into(),
        detail: message,
        group: keys::parse_chain_pk(pk).map(|chain| chain.group.to_owned()),
        record_key: origin,
        payload: Payload::Raw(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(value: &[u8]) -> DeadLetter {
        DeadLetter {
            id: "p/t/0/9/0".into(),
            offset: 9,
            time_ms: 1_763_886_000_123,
            reason: "not-json".into(),
            detail: "expected value at byte 0".into(),
            group: None,
            record_key: Some(Bytes::from_static(b"mp1/s/a/1/0/1/1.0/k")),
            payload: Payload::Raw(Bytes::copy_from_slice(value)),
        }
    }

    #[test]
    fn a_large_event_takes_several_rows_of_a_table() {
        let value = vec![7u8; 2 * DEAD_LETTER_ROW_BYTES + 1];
        let rows = super::rows(&letter(&value), "p");
        assert_eq!(rows.len(), 3);
        let mut together = Vec::new();
        for row in &rows {
            assert!(row.size(&crate::row::KeyNames::default()).bytes() < 409_600);
            together.extend(row.binary(names::VALUE).expect("value").concat());
        }
        assert_eq!(together, value);
        assert!(rows.windows(2).all(|pair| pair[0].key < pair[1].key));
        assert_eq!(super::rows(&letter(b""), "p").len(), 1);
    }
}
