//! Makes a JSON member the record key: for topics of other producers, whose keys are not origins.
//!
//! Parameter: `pointer`, a JSON pointer. Before a sink of events from Kinesis it is the example of
//! what not to do: their key is their origin, and without it the packer rejects every one.

use std::sync::OnceLock;

use fluvio_smartmodule::dataplane::smartmodule::SmartModuleExtraParams;
use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, eyre, smartmodule};
use serde_json::Value;

static POINTER: OnceLock<String> = OnceLock::new();

/// The key that an event gets; `None` when it has no text or number there.
#[must_use]
pub fn key(event: &[u8], pointer: &str) -> Option<String> {
    let event: Value = serde_json::from_slice(event).ok()?;
    match event.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Takes the parameter, once for each instance.
#[smartmodule(init)]
fn init(params: SmartModuleExtraParams) -> Result<()> {
    let pointer = params.get("pointer").cloned().unwrap_or_default();
    if !pointer.starts_with('/') {
        return Err(eyre!(
            "parameter `pointer` must be a JSON pointer, not `{pointer}`"
        ));
    }
    POINTER.set(pointer).map_err(|_| eyre!("initialised twice"))
}

/// Gives one event its key; one without a value there keeps the key that it has.
#[smartmodule(map)]
pub fn map(record: &SmartModuleRecord) -> Result<(Option<RecordData>, RecordData)> {
    let pointer = POINTER
        .get()
        .ok_or_else(|| eyre!("`init` was not called"))?;
    let key = match key(record.value.as_ref(), pointer) {
        Some(key) => Some(key.into()),
        None => record.key.clone(),
    };
    Ok((key, record.value.clone()))
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn texts_and_numbers_are_keys() {
        assert_eq!(key(br#"{"a":{"b":"x"}}"#, "/a/b"), Some("x".into()));
        assert_eq!(key(br#"{"a":7}"#, "/a"), Some("7".into()));
        for event in [&b"{}"[..], b"no json", br#"{"a":[]}"#] {
            assert_eq!(key(event, "/a"), None);
        }
    }
}
