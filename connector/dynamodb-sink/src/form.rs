//! What an operator decides about how items look: a mapping of plain events, a time to live, more attributes.

pub mod extra;
pub mod names;
pub mod room;
pub mod zone;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_connector::document::ConnectorDocument;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::HumanDuration;
use serde::{Deserialize, Serialize};

use crate::form::extra::{Extra, RawExtra, Source};
use crate::form::names::{ItemNames, RawNames};
use crate::form::zone::Zones;
use crate::mapping::Mapping;
use crate::mapping::pointer::Pointer;
use crate::mapping::settings::PlainSettings;
use crate::plan::MAX_INTEGER_BYTES;
use crate::row::{KeyNames, Row, Value, names as row_names};

/// Attribute of the time to live, unless it is named.
const TTL_ATTRIBUTE: &str = "ttl";

/// Longest name of an attribute that Millpond adds to packed items: what an item has besides its
/// frames stays small beside them.
const MAX_NAME_BYTES: usize = 255;

/// How items look; the default is the layout of `FORMAT.md` and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemForm {
    /// Items of plain events are made by this.
    pub mapping: Option<Arc<Mapping>>,
    /// When items may be deleted.
    pub ttl: Option<Ttl>,
    /// Attributes that every item of a group has besides.
    pub extras: Vec<Extra>,
    /// What items of groups call their attributes.
    pub names: ItemNames,
    /// With what the partition keys of items of groups begin.
    pub key_prefix: String,
}

/// When items may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// So long after the newest event in it.
    pub after: Duration,
    /// Attribute that says when, in seconds since the Unix epoch, as the service wants it.
    pub attribute: String,
}

impl Ttl {
    /// An item whose newest event is of `time_ms`, with its end.
    #[must_use]
    pub fn on(&self, row: Row, time_ms: i64) -> Row {
        let after_ms = i64::try_from(self.after.as_millis()).unwrap_or(i64::MAX);
        let end_ms = time_ms.saturating_add(after_ms);
        let end = end_ms.div_euclid(1_000) + i64::from(end_ms.rem_euclid(1_000) > 0);
        row.with(&self.attribute, Value::N(end))
    }
}

/// The form as it is kept with a configuration.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plain: Option<PlainSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Ttl>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extras: Vec<Extra>,
    #[serde(default, skip_serializing_if = "ItemNames::is_default")]
    names: ItemNames,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key_prefix: String,
}

impl ItemForm {
    /// The form as text for the fingerprint; `None` for the default one.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mapping = self.mapping.as_ref();
        let kept = Kept {
            plain: mapping.map(|mapping| mapping.settings().clone()),
            ttl: self.ttl.clone(),
            extras: self.extras.clone(),
            names: self.names.clone(),
            key_prefix: self.key_prefix.clone(),
        };
        serde_json::to_string(&kept).ok()
    }

    /// Reads what [`ItemForm::text`] gave; `None` for what this version does not understand.
    #[must_use]
    pub fn parse(text: &str, keys: &KeyNames) -> Option<Self> {
        let kept: Kept = serde_json::from_str(text).ok()?;
        let taken: Vec<&str> = kept.ttl.iter().map(|ttl| ttl.attribute.as_str()).collect();
        let mapping = match &kept.plain {
            Some(plain) => Some(Arc::new(plain.build(keys, &taken).ok()?)),
            None => None,
        };
        let form = Self {
            mapping,
            ttl: kept.ttl,
            extras: kept.extras,
            names: kept.names,
            key_prefix: kept.key_prefix,
        };
        // What a later version added would be lost in silence, and with it the same bytes.
        (form.text().as_deref() == Some(text)).then_some(form)
    }

    /// The item with what the form adds to every one; `time_ms` is that of its newest event.
    #[must_use]
    pub fn add(&self, row: Row, time_ms: i64) -> Row {
        match &self.ttl {
            Some(ttl) => ttl.on(row, time_ms),
            None => row,
        }
    }

    /// The item of a group with what the form adds to it; `zones` are the bounds of its events.
    #[must_use]
    pub fn add_of_group(&self, row: Row, group: &str, time_ms: i64, zones: &Zones) -> Row {
        let row = self.add(row, time_ms);
        self.extras
            .iter()
            .fold(row, |row, extra| match extra.value(group, zones) {
                Some(value) => row.with(&extra.name, value),
                None => row,
            })
    }

    /// Bounds of no event yet, of the fields whose bounds items have.
    #[must_use]
    pub fn zones(&self) -> Zones {
        let mut fields: Vec<Pointer> = Vec::new();
        for extra in &self.extras {
            if let Source::Bound { field, .. } = &extra.source
                && !fields.contains(field)
            {
                fields.push(field.clone());
            }
        }
        Zones::new(fields.into())
    }

    /// Bytes of what it adds to an item of a group, at most.
    #[must_use]
    pub fn bytes(&self, group: &str) -> usize {
        let ttl = self.ttl.as_ref();
        let ttl = ttl.map_or(0, |ttl| ttl.attribute.len() + MAX_INTEGER_BYTES);
        let extras = self.extras.iter().map(|extra| extra.bytes(group));
        ttl + extras.sum::<usize>()
    }

    /// The same for any group.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        let extras = self.extras.iter();
        let (here, most) = extras.fold((0, 0), |(here, most), extra| {
            (here + extra.bytes(""), most + extra.most_bytes())
        });
        self.bytes("") - here + most
    }
}

/// The settings of the form as they are written.
pub(crate) struct RawForm {
    pub plain: Option<PlainSettings>,
    pub ttl: Option<HumanDuration>,
    pub ttl_attribute: Option<String>,
    pub attributes: BTreeMap<String, RawExtra>,
    pub group_separator: Option<String>,
    pub names: Option<RawNames>,
    pub key_prefix: Option<String>,
}

/// Checks them; all mistakes at once.
pub(crate) fn form(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    raw: RawForm,
    keys: &KeyNames,
) -> Option<ItemForm> {
    let before = problems.errors();
    let ttl = ttl(section, problems, raw.ttl, raw.ttl_attribute, keys);
    let taken: Vec<&str> = ttl.iter().map(|ttl| ttl.attribute.as_str()).collect();
    if raw.plain.is_some() && !raw.attributes.is_empty() {
        problems.push(
            section
                .problem(
                    "attributes",
                    "is for items of groups, and `plain` has its own",
                )
                .help("move them to `plain.attributes`, as `template`s"),
        );
    }
    for (path, is_given) in [
        ("attribute-names", raw.names.is_some()),
        ("key-prefix", raw.key_prefix.is_some()),
    ] {
        if raw.plain.is_some() && is_given {
            problems.push(section.problem(
                path,
                "is for items of groups, and `plain` has keys and names of its own",
            ));
        }
    }
    let mut others = vec![keys.partition.as_str(), keys.sort.as_str()];
    others.extend(&taken);
    others.extend(raw.attributes.keys().map(String::as_str));
    let names = names::item_names(section, problems, raw.names.unwrap_or_default(), &others);
    let key_prefix = names::key_prefix(section, problems, raw.key_prefix);
    let mut others = vec![keys.partition.as_str(), keys.sort.as_str()];
    others.extend(&taken);
    let extras = extra::extras(
        section,
        problems,
        raw.attributes,
        raw.group_separator,
        &others,
    );
    let mapping = raw.plain.and_then(|plain| {
        if !document.transforms.is_empty() {
            problems.push(
                section
                    .problem("plain", "maps events, and SmartModules leave none to map")
                    .help("leave `transforms` out, or `plain`"),
            );
        }
        match plain.build(keys, &taken) {
            Ok(mapping) => Some(Arc::new(mapping)),
            Err(mistakes) => {
                for mistake in mistakes {
                    let path = format!("plain.{}", mistake.path);
                    problems.push(section.problem(&path, mistake.what));
                }
                None
            }
        }
    });
    (problems.errors() == before).then_some(ItemForm {
        mapping,
        ttl,
        extras,
        names,
        key_prefix,
    })
}

fn ttl(
    section: &Section<'_>,
    problems: &mut Problems,
    after: Option<HumanDuration>,
    attribute: Option<String>,
    keys: &KeyNames,
) -> Option<Ttl> {
    let Some(after) = after else {
        if attribute.is_some() {
            problems.push(section.problem("ttl-attribute", "has no effect without `ttl`"));
        }
        return None;
    };
    let range = HumanDuration::from_secs(1)..=HumanDuration::from_secs(100 * 366 * 86_400);
    let after = section.in_range(problems, "ttl", after, range)?;
    let attribute = attribute.unwrap_or_else(|| TTL_ATTRIBUTE.to_owned());
    if !(1..=MAX_NAME_BYTES).contains(&attribute.len()) {
        problems.push(
            section
                .problem("ttl-attribute", "is no name of an attribute")
                .allowed(format!("1 to {MAX_NAME_BYTES} bytes")),
        );
    }
    let is_key = attribute == keys.partition || attribute == keys.sort;
    if is_key || row_names::ALL.contains(&attribute.as_str()) {
        problems.push(
            section
                .problem(
                    "ttl-attribute",
                    "is the name of a key, or of an attribute that Millpond writes",
                )
                .allowed(format!(
                    "any but the keys and `{}`",
                    row_names::ALL.join("`, `")
                )),
        );
    }
    Some(Ttl {
        after: after.get(),
        attribute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Key;

    #[test]
    fn an_item_ends_so_long_after_its_newest_event() {
        let ttl = Ttl {
            after: Duration::from_secs(10),
            attribute: "end".into(),
        };
        for (time_ms, end) in [
            (0, 10),
            (1, 11),
            (1_000, 11),
            (1_763_886_000_123, 1_763_886_011),
        ] {
            let key = Key {
                pk: "p".into(),
                sk: "s".into(),
            };
            assert_eq!(ttl.on(Row::new(key), time_ms).integer("end"), Some(end));
        }
    }

    #[test]
    fn a_form_is_read_as_it_was_kept() {
        assert_eq!(ItemForm::default().text(), None);
        let keys = KeyNames::default();
        let plain = r#"{"partition-key":"{/id}","sort-key":"{position}","attributes":{"a":{"type":"number"}}}"#;
        let plain: PlainSettings = serde_json::from_str(plain).expect("settings");
        let form = ItemForm {
            mapping: Some(Arc::new(plain.build(&keys, &["end"]).expect("good"))),
            ttl: Some(Ttl {
                after: Duration::from_secs(90 * 86_400),
                attribute: "end".into(),
            }),
            extras: vec![Extra {
                name: "x".into(),
                source: extra::Source::Constant("y".into()),
            }],
            names: [(row_names::HEADER, "head".to_owned())]
                .into_iter()
                .collect(),
            key_prefix: "events#".into(),
        };
        let text = form.text().expect("text");
        assert_eq!(ItemForm::parse(&text, &keys), Some(form));
        for later in ["[]", "{}", &text.replace("{", "{\"later\":1,")] {
            assert_eq!(ItemForm::parse(later, &keys), None, "{later}");
        }
    }
}
