//! Secrets reach the configuration and nothing else.

mod support;

use std::io::Write;

use millpond_connector::manifest::Scope;
use millpond_connector::secret::{Secret, SecretFileError, SecretStore};
use support::check_with;

fn store(lines: &str) -> SecretStore {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(lines.as_bytes()).expect("written");
    SecretStore::from_file(file.path()).expect("a store")
}

fn source(version: &str, listed: &str, section: &str) -> String {
    format!(
        "apiVersion: {version}\nmeta:\n  name: river\n  type: river-source\n  topic: events\n  version: 0.1.0\n  secrets: {listed}\nriver:\n{section}"
    )
}

#[test]
fn both_forms_are_filled_in() {
    let secrets = store("# comment\n STREAM = events-42 \nPARTS=8\nTOKEN=s3cr=et-token\n");
    let text = source(
        "0.1.0",
        "[{name: STREAM}, {name: PARTS}]",
        "  stream: a-${{ secrets.STREAM }}-${{secrets.PARTS}}\n  topic-partitions: ${{ secrets.PARTS }}\n  token: {secret: {name: TOKEN}}\n",
    );
    let checked = check_with(text, &secrets, Scope::Connector);
    assert!(checked.problems.is_empty(), "{}", checked.problems);
    let pipeline = checked.pipeline.expect("a pipeline");
    assert_eq!(pipeline.topics[0].partitions, Some(8));
    // The document's own dump does not show them.
    let dump = format!("{:?}", pipeline.connectors[0].document);
    assert!(
        !dump.contains("s3cr=et-token") && !dump.contains("events-42"),
        "{dump}"
    );
    assert!(dump.contains("[secret]"), "{dump}");
    // Nor does anything that goes through the redactor.
    let redactor = secrets.redactor();
    assert_eq!(redactor.redact("x s3cr=et-token y"), "x [secret] y");
}

#[test]
fn the_environment_is_asked_without_a_file() {
    // Cargo sets this one for every test.
    let secrets = SecretStore::from_environment();
    let expected = env!("CARGO_PKG_NAME");
    let text = source(
        "0.1.0",
        "[{name: CARGO_PKG_NAME}]",
        "  stream: ${{ secrets.CARGO_PKG_NAME }}\n",
    );
    let checked = check_with(text, &secrets, Scope::Connector);
    assert!(checked.problems.is_empty(), "{}", checked.problems);
    let secret = secrets.get("CARGO_PKG_NAME").expect("set by cargo");
    assert_eq!(secret.expose(), expected);
}

#[test]
fn what_is_missing_or_unknown_has_a_place() {
    let secrets = store("KNOWN=value\n");
    for (version, listed, value, line, word) in [
        (
            "0.1.0",
            "[{name: KNOWN}]",
            "${{ secrets.OTHER }}",
            9,
            "uses secret `OTHER`, which `meta.secrets` does not list",
        ),
        (
            "0.1.0",
            "[{name: KNOWN}]",
            "${{ secrets.KNOWN",
            9,
            "holds an expression that is not known",
        ),
        (
            "0.1.0",
            "[{name: KNOWN}]",
            "${{ env.KNOWN }}",
            9,
            "holds an expression that is not known",
        ),
        (
            "0.0.0",
            "[{name: KNOWN}]",
            "${{ secrets.KNOWN }}",
            9,
            "this `apiVersion` knows none",
        ),
        (
            "0.1.0",
            "[{name: MISSING}]",
            "events",
            7,
            "is listed, but the secret is not set",
        ),
        (
            "0.1.0",
            "[{name: 1BAD}]",
            "events",
            7,
            "is no name for a secret",
        ),
        ("0.1.0", "[{}]", "events", 7, "is missing"),
        (
            "0.1.0",
            "[]",
            "{secret: {name: MISSING}}",
            9,
            "needs secret `MISSING`, which is not set",
        ),
    ] {
        let text = source(version, listed, &format!("  stream: {value}\n"));
        let checked = check_with(text.as_str(), &secrets, Scope::Connector);
        let [problem] = checked.problems.list() else {
            panic!("{text}{}", checked.problems);
        };
        assert!(problem.what.contains(word), "{text}{}", checked.problems);
        assert_eq!(problem.span.map(|span| span.line), Some(line), "{text}");
    }
}

#[test]
fn a_refused_secret_is_not_shown() {
    let secrets = store("PARTS=hunter2\nTOKEN=hunter2\n");
    let text = source(
        "0.1.0",
        "[{name: PARTS}, {name: TOKEN}]",
        "  stream: s\n  topic-partitions: ${{ secrets.PARTS }}\n  start: ${{ secrets.PARTS }}\n  token: ${{ secrets.TOKEN }}\n",
    );
    let checked = check_with(text, &secrets, Scope::Connector);
    assert_eq!(checked.problems.errors(), 3, "{}", checked.problems);
    let said = format!(
        "{}{}{:?}",
        checked.problems.plain(),
        checked.problems.fancy(false, 80),
        checked.problems
    );
    assert!(!said.contains("hunter2"), "{said}");
    assert!(
        said.contains("`river.token` holds `[secret]`, which is too short"),
        "{said}"
    );
    assert!(
        said.contains("`river.topic-partitions` refuses the value of the secret"),
        "{said}"
    );
}

#[test]
fn a_file_of_secrets_that_is_none() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"A=1\njust-a-secret\n").expect("written");
    let error = SecretStore::from_file(file.path()).expect_err("refused");
    assert!(matches!(error, SecretFileError::Line { line: 2, .. }));
    assert!(!error.to_string().contains("just-a-secret"), "{error}");
    let none = SecretStore::from_file(&file.path().join("none"));
    assert!(matches!(none, Err(SecretFileError::Unreadable { .. })));
}

#[test]
fn a_secret_has_no_debug() {
    assert_eq!(
        format!("{:?}", Some(Secret::new("hunter2"))),
        "Some([secret])"
    );
}
