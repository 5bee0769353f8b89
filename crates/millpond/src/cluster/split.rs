//! A YAML stream taken apart into its documents, every byte of them as it was.

/// One document of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its text, with the comments around it and its `---` where it had one.
    pub text: String,
}

/// Splits a stream at its document markers; parts without content are left out.
///
/// `---` at the start of a line is a marker wherever it stands, inside block texts too
/// (YAML 1.2.2, section 9.1.2), so lines are enough to find the documents.
#[must_use]
pub fn split(stream: &str) -> Vec<Part> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let mut parts = vec![String::new()];
    let mut has_content = vec![false];
    for line in stream.split_inclusive('\n') {
        let is_start = is_marker(line, "---");
        // Directives and comments ahead of the first marker belong to the document behind it.
        if is_start && has_content.last() == Some(&true) {
            parts.push(String::new());
            has_content.push(false);
        }
        if let (Some(part), Some(content)) = (parts.last_mut(), has_content.last_mut()) {
            part.push_str(line);
            *content |= is_content(line, is_start);
        }
        if is_marker(line, "...") && has_content.last() == Some(&true) {
            parts.push(String::new());
            has_content.push(false);
        }
    }
    parts
        .into_iter()
        .zip(has_content)
        .filter(|(_, content)| *content)
        .map(|(text, _)| Part { text })
        .collect()
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

fn is_content(line: &str, is_start: bool) -> bool {
    let text = if is_start {
        line.get(3..).unwrap_or_default()
    } else {
        line
    };
    let text = text.trim();
    !(text.is_empty() || text.starts_with('#') || line.starts_with('%') || is_marker(line, "..."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(stream: &str) -> Vec<String> {
        split(stream).into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn documents_come_apart_unchanged() {
        for (stream, expected) in [
            ("a: 1\n---\nb: 2\n", vec!["a: 1\n", "---\nb: 2\n"]),
            ("# head\n---\na: 1\n", vec!["# head\n---\na: 1\n"]),
            (
                "---\na: 1\n...\n---\nb: 2",
                vec!["---\na: 1\n...\n", "---\nb: 2"],
            ),
            (
                "--- {a: 1}\n--- {b: 2}\n",
                vec!["--- {a: 1}\n", "--- {b: 2}\n"],
            ),
            ("%YAML 1.2\n---\na: 1\n", vec!["%YAML 1.2\n---\na: 1\n"]),
            ("a: |\n  ---\n  x\n", vec!["a: |\n  ---\n  x\n"]),
            ("a: 1 # --- no\n----: 2\n", vec!["a: 1 # --- no\n----: 2\n"]),
            (
                "a: 1\r\n---\r\nb: 2\r\n",
                vec!["a: 1\r\n", "---\r\nb: 2\r\n"],
            ),
            ("a: 1\n---\n# nothing\n---\n", vec!["a: 1\n"]),
            ("\u{feff}a: 1\n", vec!["a: 1\n"]),
            ("", vec![]),
            ("# only words\n", vec![]),
        ] {
            assert_eq!(texts(stream), expected, "{stream:?}");
        }
    }

    #[test]
    fn the_root_file_has_two() {
        assert_eq!(split(crate::connectors::CONNECTOR_YAML).len(), 2);
    }
}
