//! What a pipeline's items call their attributes, and with what their partition keys begin: the registration says
//! it. Beyond the calls of the table everything goes by the names of `FORMAT.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::table::Attributes;

/// With what the partition keys of all rows begin that are no items.
const OTHER_ROWS: &str = "millpond:";

/// How items differ from the page; the default is in nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Names that items have, by those of the page.
    names: BTreeMap<String, String>,
    prefix: String,
}

impl Layout {
    /// Reads what a registration says; `None` for names that are no object of strings.
    pub(crate) fn parse(names: Option<&str>, prefix: Option<&str>) -> Option<Self> {
        Some(Self {
            names: match names {
                Some(text) => serde_json::from_str(text).ok()?,
                None => BTreeMap::new(),
            },
            prefix: prefix.unwrap_or_default().to_owned(),
        })
    }

    /// What an item calls the attribute.
    pub(crate) fn name<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    /// The names that items have, for a query of rows under `pk`.
    pub(crate) fn name_in<'a>(&'a self, pk: &str, name: &'a str) -> &'a str {
        match is_of_items(pk) {
            true => self.name(name),
            false => name,
        }
    }

    /// The partition key as it is in the table.
    pub(crate) fn stored_pk<'a>(&self, pk: &'a str) -> Cow<'a, str> {
        match is_of_items(pk) && !self.prefix.is_empty() {
            true => format!("{}{pk}", self.prefix).into(),
            false => pk.into(),
        }
    }

    /// The partition key of an item without what it begins with.
    pub(crate) fn bare_pk<'a>(&self, stored: &'a str) -> Option<&'a str> {
        stored.strip_prefix(&self.prefix)
    }

    /// A row under `pk` with the names of the page. What an item has under a name of the page that the page's own
    /// attribute does not bear is another program's, and left out.
    pub(crate) fn row(&self, pk: &str, item: Attributes) -> Attributes {
        if self.names.is_empty() || !is_of_items(pk) {
            return item;
        }
        let by_theirs = |stored: &str| self.names.iter().find(|(_, is)| *is == stored);
        let renamed = item.into_iter().filter_map(|(stored, value)| {
            let name = match by_theirs(&stored) {
                Some((name, _)) => name.clone(),
                None if self.names.contains_key(&stored) => return None,
                None => stored,
            };
            Some((name, value))
        });
        renamed.collect()
    }
}

fn is_of_items(pk: &str) -> bool {
    !pk.starts_with(OTHER_ROWS)
}
