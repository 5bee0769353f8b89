//! Removes and renames members of JSON events, for what must not be stored as it came.
//!
//! Parameters: `remove`, names of members of the outermost object separated by commas
//! (`attributes, trace_id`), and `rename`, pairs (`tenant=customer`). The record key stays as it
//! is: it carries the origin. Values keep their text, members come out sorted by name. An event
//! that is not a JSON object is an error, since nobody could say that it holds nothing that was
//! to be removed: its topic partition stops there, and nothing passes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams;
use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, eyre, smartmodule};
use serde_json::value::RawValue;

/// What to do to an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Members that are removed.
    pub remove: Vec<String>,
    /// Old and new names.
    pub rename: Vec<(String, String)>,
}

static REDACTION: OnceLock<Redaction> = OnceLock::new();

fn list(params: &SmartModuleExtraParams, name: &str) -> Vec<String> {
    let text = params.get(name).map_or("", String::as_str);
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Redaction {
    /// Reads the parameters.
    ///
    /// # Errors
    /// A text that names the parameter and what it must be.
    pub fn from_params(params: &SmartModuleExtraParams) -> Result<Self> {
        let mut redaction = Self {
            remove: list(params, "remove"),
            rename: Vec::new(),
        };
        for pair in list(params, "rename") {
            let Some((old, new)) = pair.split_once('=') else {
                return Err(eyre!(
                    "parameter `rename` holds pairs `old=new`, not `{pair}`"
                ));
            };
            redaction.rename.push((old.to_owned(), new.to_owned()));
        }
        if redaction == Self::default() {
            return Err(eyre!("the parameters `remove` and `rename` name nothing"));
        }
        Ok(redaction)
    }

    /// The event as it may be stored.
    ///
    /// # Errors
    /// A text that says why the event cannot be judged; none of its bytes are in it.
    pub fn apply(&self, event: &[u8]) -> Result<Vec<u8>> {
        let refused = |error: serde_json::Error| {
            let (line, column) = (error.line(), error.column());
            eyre!("not a JSON object, at line {line} column {column}")
        };
        let mut members: BTreeMap<String, &RawValue> =
            serde_json::from_slice(event).map_err(refused)?;
        for name in &self.remove {
            members.remove(name);
        }
        for (old, new) in &self.rename {
            if let Some(value) = members.remove(old) {
                members.insert(new.clone(), value);
            }
        }
        serde_json::to_vec(&members).map_err(refused)
    }
}

/// Takes the parameters, once for each instance.
#[smartmodule(init)]
fn init(params: SmartModuleExtraParams) -> Result<()> {
    REDACTION
        .set(Redaction::from_params(&params)?)
        .map_err(|_| eyre!("initialised twice"))
}

/// Rewrites one event under its old key.
#[smartmodule(map)]
pub fn map(record: &SmartModuleRecord) -> Result<(Option<RecordData>, RecordData)> {
    let redaction = REDACTION
        .get()
        .ok_or_else(|| eyre!("`init` was not called"))?;
    let event = redaction.apply(record.value.as_ref())?;
    Ok((record.key.clone(), event.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(pairs: &[(&str, &str)], event: &str) -> std::result::Result<String, String> {
        let mut params = SmartModuleExtraParams::default();
        for (name, value) in pairs {
            params.insert((*name).to_owned(), (*value).to_owned());
        }
        let redaction = Redaction::from_params(&params);
        let event = redaction.and_then(|redaction| redaction.apply(event.as_bytes()));
        let event = event.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(event).expect("text"))
    }

    #[test]
    fn members_go_and_get_other_names_and_values_keep_their_text() {
        let both = &[("remove", "b, x/y,none"), ("rename", "c=a, no=thing")][..];
        let event = r#"{"k": {"z":2.50, "b":1}, "x/y":3, "b":"gone", "c":12345678901234567890123}"#;
        let expected = r#"{"a":12345678901234567890123,"k":{"z":2.50, "b":1}}"#;
        assert_eq!(apply(both, event), Ok(expected.into()));
        assert_eq!(apply(&[("remove", "a")], "{}"), Ok("{}".into()));
    }

    #[test]
    fn what_cannot_be_judged_is_an_error_without_its_bytes() {
        for event in ["", "secret", "[\"secret\"]", r#"{"a":"secret"#] {
            let error = apply(&[("remove", "a")], event).expect_err("refused");
            assert!(error.contains("not a JSON object"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        for (pairs, text) in [(&[][..], "name nothing"), (&[("rename", "a")], "`old=new`")] {
            let error = apply(pairs, "{}").expect_err("refused");
            assert!(error.contains(text), "{error}");
        }
    }
}
