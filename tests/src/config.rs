//! `Connector.yaml` files for tests.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// A pipeline from stream `events` to table `events`, as text to be changed by a test.
#[must_use]
pub fn pipeline() -> String {
    "\
apiVersion: 0.1.0
meta:
  name: events-source
  type: kinesis-source
  topic: events
  version: 0.1.0
  producer:
    linger: 50ms
kinesis:
  stream: events
  start: trim-horizon
---
apiVersion: 0.1.0
meta:
  name: events-sink
  type: dynamodb-sink
  topic: events
  version: 0.1.0
transforms:
  - uses: millpond/pack@0.1.0
    with:
      group-by: /job_id
dynamodb:
  table: events
  create-table: true
  max-age: 500ms
"
    .to_owned()
}

/// Writes a configuration into a directory.
///
/// # Errors
/// When it cannot be written.
pub fn write(dir: &Path, text: &str) -> Result<PathBuf> {
    let path = dir.join("Connector.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}
