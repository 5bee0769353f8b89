//! Lines of JSON in one zstd frame with a content checksum.
//!
//! A line is the event, byte for byte. So an event must be JSON text without a line break, or
//! the whole object could not be read as what its name says; others are dead letters.

use std::io::Write as _;

use serde::de::IgnoredAny;
use zstd::stream::write::Encoder;

use super::EncodeError;

/// Lines.
pub struct Lines(Encoder<'static, Vec<u8>>);

impl From<std::io::Error> for EncodeError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Lines {
    pub(super) fn new(level: i32) -> Result<Self, EncodeError> {
        let mut encoder = Encoder::new(Vec::new(), level)?;
        encoder.include_checksum(true)?;
        Ok(Self(encoder))
    }

    pub(super) fn push(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        self.0.write_all(value)?;
        Ok(self.0.write_all(b"\n")?)
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, EncodeError> {
        Ok(self.0.finish()?)
    }
}

/// Why an event is no line of JSON.
pub(super) fn problem(value: &[u8]) -> Option<String> {
    if let Some(at) = value.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        return Some(format!(
            "line break at byte {at}: an event stays as it was produced, and so cannot be a line; \
             `format: parquet` takes any bytes"
        ));
    }
    let Ok(text) = std::str::from_utf8(value) else {
        return Some("not UTF-8, so no JSON; `format: parquet` takes any bytes".into());
    };
    let parsed: Result<IgnoredAny, _> = serde_json::from_str(text);
    let error = parsed.err()?;
    Some(format!(
        "not JSON: {error}; `format: parquet` takes any bytes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_without_a_break() {
        for good in [
            "{}",
            "null",
            " [1, 2] ",
            "\"a\\nb\"",
            "{\"a\":1e999}",
            "\"ü\u{2028}\"",
        ] {
            assert_eq!(problem(good.as_bytes()), None, "{good}");
        }
        let bad: [(&[u8], &str); 7] = [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"{} {}", "not JSON"),
            (b"{\n}", "line break at byte 1"),
            (b"{}\r", "line break at byte 2"),
            (b"\"\xff\"", "not UTF-8"),
            (b"\xef\xbb\xbf{}", "not JSON"),
        ];
        for (value, expected) in bad {
            let said = problem(value).expect("refused");
            assert!(
                said.contains(expected) && said.contains("`format: parquet`"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_deep_event_does_not_take_the_stack() {
        let deep = [b"[".repeat(1 << 20), b"]".repeat(1 << 20)].concat();
        // Either answer is one; what matters is that there is one.
        let said = problem(&deep);
        assert!(said.is_none_or(|said| said.contains("not JSON")));
    }
}
