//! Settings put into the built-in `Connector.yaml` by text, so that its comments and the rest of it
//! stay as they are.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// Adds `settings` to the top-level section `section` of the only document that has it.
///
/// # Errors
/// When the section is not there exactly once, or already has one of the settings.
pub fn override_section(text: &str, section: &str, settings: &[(&str, String)]) -> Result<String> {
    let header = format!("{section}:");
    let mut out = String::with_capacity(text.len() + 256);
    let (mut found, mut inside) = (0, false);
    for line in text.lines() {
        let is_top_level = !line.is_empty() && !line.starts_with([' ', '#']);
        inside = inside && !is_top_level;
        if let Some((name, _)) = settings
            .iter()
            .find(|(name, _)| inside && line.trim_start().starts_with(&format!("{name}:")))
        {
            bail!("section `{section}` already has `{name}`");
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{line}");
        if line == header {
            found += 1;
            inside = true;
            for (name, value) in settings {
                let _ = writeln!(out, "  {name}: {value}");
            }
        }
    }
    if found != 1 {
        bail!("section `{section}` is there {found} times, must be once");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_first_in_their_section() {
        let text = "a: 1\nkinesis:\n  # endpoint: x\n  stream: s\ndynamodb:\n  endpoint: y\n";
        let settings = [("endpoint", "http://h:1".to_owned())];
        assert_eq!(
            override_section(text, "kinesis", &settings).ok().as_deref(),
            Some(
                "a: 1\nkinesis:\n  endpoint: http://h:1\n  # endpoint: x\n  stream: s\ndynamodb:\n  endpoint: y\n"
            )
        );
        assert!(override_section(text, "dynamodb", &settings).is_err());
        assert!(override_section(text, "nothing", &settings).is_err());
    }
}
