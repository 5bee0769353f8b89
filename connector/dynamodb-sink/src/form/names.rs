//! Names of an item's attributes and what its partition key begins with, where they are the user's.
//!
//! Both are noted in the pipeline's registration, where every reader looks, and stay as they are for as
//! long as the pipeline has its name.

use std::collections::BTreeMap;

use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_NAME_BYTES;
use crate::row::names;

/// Longest prefix in bytes: with the longest group a key stays below the 2,048 bytes of a partition key.
const MAX_PREFIX_BYTES: usize = 255;

/// With what the partition keys of the other rows begin.
const RESERVED: &str = "millpond:";

/// Names that differ from those of the layout, by these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemNames(BTreeMap<String, String>);

impl ItemNames {
    /// True when all are those of the layout.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }

    /// What items call the attribute that the layout calls `name`.
    #[must_use]
    pub fn of<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// As a registration has them; `None` when all are those of the layout.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.is_default() {
            return None;
        }
        serde_json::to_string(&self.0).ok()
    }
}

impl<'a> FromIterator<(&'a str, String)> for ItemNames {
    /// Pairs of a name of the layout and what items call it.
    fn from_iter<I: IntoIterator<Item = (&'a str, String)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        let other = pairs.filter(|(name, is)| name != is);
        Self(other.map(|(name, is)| (name.to_owned(), is)).collect())
    }
}

/// Names of the attributes of an item, each 1 to 255 bytes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DynamodbAttributeNames")]
pub(crate) struct RawNames {
    /// Header section of packed events (B). Default: `h`.
    header: Option<String>,
    /// Frames of packed events (B). Default: `d`.
    frames: Option<String>,
    /// Number of events (N). Default: `n`.
    events: Option<String>,
    /// Earliest event time in ms (N). Default: `t0`.
    first_time: Option<String>,
    /// Latest event time in ms (N). Default: `t1`.
    last_time: Option<String>,
    /// An event that is not packed (B). Default: `v`.
    event: Option<String>,
    /// Origin key of an event that is not packed (S). Default: `o`.
    origin: Option<String>,
}

/// Checks the setting `attribute-names`; `taken` are names of keys and others.
pub(super) fn item_names(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: RawNames,
    taken: &[&str],
) -> ItemNames {
    let given = [
        ("header", names::HEADER, raw.header),
        ("frames", names::FRAMES, raw.frames),
        ("events", names::EVENTS, raw.events),
        ("first-time", names::FIRST_TIME, raw.first_time),
        ("last-time", names::LAST_TIME, raw.last_time),
        ("event", names::VALUE, raw.event),
        ("origin", names::ORIGIN, raw.origin),
    ];
    let mut used: Vec<String> = Vec::new();
    let mut pairs = Vec::new();
    for (setting, name, is) in given {
        let Some(is) = is else { continue };
        let path = format!("attribute-names.{setting}");
        if !(1..=MAX_NAME_BYTES).contains(&is.len()) {
            problems.push(
                section
                    .problem(&path, "is no name of an attribute")
                    .allowed(format!("1 to {MAX_NAME_BYTES} bytes")),
            );
        }
        // One that Millpond uses for something else would be taken for that by whoever looks at the table.
        let is_others = is != name && names::ALL.contains(&is.as_str());
        if is_others || taken.contains(&is.as_str()) || used.contains(&is) {
            problems.push(section.problem(
                &path,
                "is the name of a key, of another attribute, or of one that Millpond's rows have",
            ));
        }
        used.push(is.clone());
        pairs.push((name, is));
    }
    pairs.into_iter().collect()
}

/// Checks the setting `key-prefix`.
///
/// It ends with what no name of a pipeline has, and holds no `/`: so of any partition key it is certain
/// which prefix, pipeline and group made it, and no two pipelines of a table can meet in one.
pub(super) fn key_prefix(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: Option<String>,
) -> String {
    let Some(prefix) = raw else {
        return String::new();
    };
    let ends_as_a_name = prefix
        .ends_with(|last: char| last.is_ascii_alphanumeric() || matches!(last, '.' | '_' | '-'));
    let fits = (1..=MAX_PREFIX_BYTES).contains(&prefix.len());
    if !fits || ends_as_a_name || prefix.contains('/') || prefix.starts_with(RESERVED) {
        problems.push(
            section
                .problem("key-prefix", "is no prefix that sets keys apart")
                .allowed(format!(
                    "1 to {MAX_PREFIX_BYTES} bytes without `/`, not beginning with `{RESERVED}`, the last character \
                     none of `A-Z a-z 0-9 . _ -`, such as `events#`"
                )),
        );
    }
    prefix
}
