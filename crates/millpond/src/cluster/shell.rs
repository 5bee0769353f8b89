//! Commands as a shell would take them, for `--dry-run` and for messages.

/// Arguments as one line that can be pasted into a shell.
#[must_use]
pub fn line<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = arguments.into_iter().map(quote).collect();
    quoted.join(" ")
}

fn quote(argument: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,@%+".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_is_quoted() {
        assert_eq!(
            line(["cdk", "--config", "/a b/c.yaml", "it's", ""]),
            r"cdk --config '/a b/c.yaml' 'it'\''s' ''"
        );
    }
}
