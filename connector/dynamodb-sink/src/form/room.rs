//! Whether what the SmartModule makes leaves room for what an item has besides. One that makes larger
//! envelopes than the sink's items would stop the sink later.

use millpond_connector::document::ConnectorDocument;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::ByteSize;
use millpond_format::limits::{ITEM_RESERVE_BYTES, MAX_ITEM_BYTES};
use millpond_sink::placement::is_packer;

use super::ItemForm;
use crate::plan::PlanConfig;
use crate::row::KeyNames;
use crate::spread::WriteShards;

/// The setting, and the parameter of the SmartModule that must agree with it.
const PARAMETER: &str = "max-item-bytes";

/// Bytes by which a header section grows when its envelope becomes an item: totals in place of a
/// place in a batch, four varints for two.
const HEADER_GROWTH_BYTES: usize = 40;

/// Most bytes of an item besides its frames, the header section that the SmartModule makes, and its group.
#[must_use]
pub fn besides(
    pipeline: &str,
    keys: &KeyNames,
    form: &ItemForm,
    write_shards: WriteShards,
) -> usize {
    let sizes = PlanConfig {
        pipeline: pipeline.to_owned(),
        topic: String::new(),
        partition: u32::MAX,
        keys: keys.clone(),
        max_item_bytes: 0,
        form: ItemForm {
            names: form.names.clone(),
            key_prefix: form.key_prefix.clone(),
            ..ItemForm::default()
        },
    };
    sizes.fixed_bytes("", write_shards.most()) + HEADER_GROWTH_BYTES + form.most_bytes()
}

/// Checks each `max-item-bytes` of a SmartModule, said or its default, against the sink's `limit`; `besides`
/// is what [`besides`] says, of which the SmartModule leaves room for the usual part.
///
/// A larger envelope of several events is cut, but one of a single event cannot be, and would stop the sink.
pub(crate) fn check(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    limit: ByteSize,
    besides: usize,
) {
    let more = besides.saturating_sub(ITEM_RESERVE_BYTES) as u64;
    let room = ByteSize(limit.0.saturating_sub(more));
    for transform in &document.transforms {
        let given = transform.with.get(PARAMETER);
        let made = match given {
            Some(text) => text.parse::<ByteSize>().ok(),
            None => is_packer(transform).then_some(ByteSize(MAX_ITEM_BYTES as u64)),
        };
        let Some(made) = made.filter(|made| *made > room) else {
            continue;
        };
        let uses = &transform.uses;
        let room = room.0;
        problems.push(if made > limit {
            let made = match given {
                Some(text) => format!("has `{PARAMETER}: {text}`: make that one at most {room}"),
                None => format!(
                    "makes envelopes for items of up to {} bytes unless told otherwise: write \
                     `{PARAMETER}: \"{room}\"` under its `with`",
                    made.0
                ),
            };
            section
                .problem(PARAMETER, "is below what the SmartModule makes")
                .given(limit)
                .help(format!("`{uses}` {made}"))
        } else {
            section
                .problem("", "names attributes that leave no room beside what the SmartModule makes")
                .help(format!(
                    "give `{uses}` a `{PARAMETER}` of at most {room} under `with`: there are {more} bytes more \
                     than it leaves free"
                ))
        });
    }
}
