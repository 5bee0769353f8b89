//! Keeps the events whose JSON member has one of the given values, or drops them.
//!
//! Parameters: `pointer`, a JSON pointer such as `/event_type`; and one of `keep` and `drop`,
//! values separated by commas. What is not JSON, or has nothing at the pointer, is kept: the
//! packer knows what to do with it, and a filter that fails would stop its topic partition.

use std::sync::OnceLock;

use fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams;
use fluvio_smartmodule::{Result, SmartModuleRecord, eyre, smartmodule};
use serde_json::Value;

/// Which events to keep.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where the value is.
    pub pointer: String,
    /// The values that are meant.
    pub values: Vec<String>,
    /// Whether they are meant to stay or to go.
    pub keep: bool,
}

static RULE: OnceLock<Rule> = OnceLock::new();

impl Rule {
    /// Reads the parameters.
    ///
    /// # Errors
    /// A text that names the parameter and what it must be.
    pub fn from_params(params: &SmartModuleExtraParams) -> Result<Self> {
        let pointer = params.get("pointer").cloned().unwrap_or_default();
        if !pointer.starts_with('/') {
            return Err(eyre!(
                "parameter `pointer` must be a JSON pointer such as `/event_type`, not `{pointer}`"
            ));
        }
        let (values, keep) = match (params.get("keep"), params.get("drop")) {
            (Some(values), None) => (values, true),
            (None, Some(values)) => (values, false),
            _ => {
                return Err(eyre!(
                    "one of the parameters `keep` and `drop` must name values, not both"
                ));
            }
        };
        Ok(Self {
            pointer,
            values: values.split(',').map(|one| one.trim().to_owned()).collect(),
            keep,
        })
    }

    /// Whether an event stays.
    #[must_use]
    pub fn keeps(&self, event: &[u8]) -> bool {
        let Ok(event) = serde_json::from_slice::<Value>(event) else {
            return true;
        };
        let is_meant = match event.pointer(&self.pointer) {
            None | Some(Value::Null) => return true,
            Some(Value::String(text)) => self.values.contains(text),
            Some(other) => self.values.contains(&other.to_string()),
        };
        is_meant == self.keep
    }
}

/// Takes the parameters, once for each instance.
#[smartmodule(init)]
fn init(params: SmartModuleExtraParams) -> Result<()> {
    RULE.set(Rule::from_params(&params)?)
        .map_err(|_| eyre!("initialised twice"))
}

/// Says of one record whether it stays.
#[smartmodule(filter)]
pub fn filter(record: &SmartModuleRecord) -> Result<bool> {
    let rule = RULE.get().ok_or_else(|| eyre!("`init` was not called"))?;
    Ok(rule.keeps(record.value.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pairs: &[(&str, &str)]) -> std::result::Result<Rule, String> {
        let mut params = SmartModuleExtraParams::default();
        for (name, value) in pairs {
            params.insert((*name).to_owned(), (*value).to_owned());
        }
        Rule::from_params(&params).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_kept_or_dropped_and_what_cannot_be_judged_stays() {
        let keep = rule(&[("pointer", "/a/b"), ("keep", "x, 7")]).expect("valid");
        let drop = rule(&[("pointer", "/a/b"), ("drop", "x, 7")]).expect("valid");
        for (event, is_meant) in [
            (r#"{"a":{"b":"x"}}"#, true),
            (r#"{"a":{"b":7}}"#, true),
            (r#"{"a":{"b":"y"}}"#, false),
            (r#"{"a":{"b":true}}"#, false),
        ] {
            assert_eq!(keep.keeps(event.as_bytes()), is_meant, "{event}");
            assert_eq!(drop.keeps(event.as_bytes()), !is_meant, "{event}");
        }
        for event in ["no json", "{}", r#"{"a":{"b":null}}"#, ""] {
            assert!(keep.keeps(event.as_bytes()) && drop.keeps(event.as_bytes()));
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        for (pairs, text) in [
            (&[][..], "`pointer`"),
            (&[("pointer", "a"), ("keep", "x")], "not `a`"),
            (&[("pointer", "/a")], "`keep` and `drop`"),
            (
                &[("pointer", "/a"), ("keep", "x"), ("drop", "y")],
                "not both",
            ),
        ] {
            let error = rule(pairs).expect_err("refused");
            assert!(error.contains(text), "{error}");
        }
    }
}
