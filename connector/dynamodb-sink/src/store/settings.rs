//! Settings that a plan is made with, as text of the fingerprint and back.

use crate::form::ItemForm;
use crate::row::KeyNames;
use crate::spread::WriteShards;

/// Settings that decide names or bytes of what is written.
#[must_use]
pub fn settings(
    keys: &KeyNames,
    max_item_bytes: usize,
    form: &ItemForm,
    write_shards: WriteShards,
) -> Vec<String> {
    let mut settings = vec![
        keys.partition.clone(),
        keys.sort.clone(),
        max_item_bytes.to_string(),
    ];
    settings.extend(write_shards.text());
    settings.extend(form.text());
    settings
}

/// The largest item of the settings, the form of items and the write shards, for a table with the same keys.
pub(super) fn parse_settings(
    settings: &[String],
    keys: &KeyNames,
) -> Option<(usize, ItemForm, WriteShards)> {
    let [partition, sort, max_item_bytes, rest @ ..] = settings else {
        return None;
    };
    let fixed = rest.first().and_then(|text| WriteShards::parse(text));
    let (write_shards, form) = match fixed {
        Some(fixed) => (fixed, &rest[1..]),
        None => (WriteShards::default(), rest),
    };
    let form = match form {
        [] => ItemForm::default(),
        [text] => ItemForm::parse(text, keys)?,
        _ => return None,
    };
    let is_same = *partition == keys.partition && *sort == keys.sort;
    is_same.then_some((max_item_bytes.parse().ok()?, form, write_shards))
}
