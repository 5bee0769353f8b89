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

/// Parameter of the SmartModule that must agree with the setting of the same name here.
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

/// Checks each `max-item-bytes` of a SmartModule against the sink's `limit`; `besides` is what
/// [`besides`] says, of which the SmartModule leaves room for the usual part.
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
        let default = is_packer(transform).then_some(ByteSize(MAX_ITEM_BYTES as u64));
        let made = match given {
            Some(text) => text.parse::<ByteSize>().ok(),
            // With a limit of the sink's own, envelopes are cut.
            None => default.filter(|_| more > 0),
        };
        let Some(made) = made.filter(|made| *made > room) else {
            continue;
        };
        let uses = &transform.uses;
        problems.push(if made > limit && given.is_some() {
            section
                .problem("max-item-bytes", "is below what the SmartModule makes")
                .given(limit)
                .help(format!(
                    "`{uses}` has `max-item-bytes: {made}`: make that one at most {room}"
                ))
        } else {
            section
                .problem("", "names attributes that leave no room beside what the SmartModule makes")
                .help(format!(
                    "give `{uses}` a `max-item-bytes` of at most {} under `with`: there are {more} bytes more \
                     than it leaves free",
                    room.0
                ))
        });
    }
}
