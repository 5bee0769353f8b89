//! The section `s3`: what is accepted, and every mistake at once.

use millpond_connector::manifest::{ManifestFile, Scope, Validation};
use millpond_connector::registry::Registry;
use millpond_connector::secret::SecretStore;
use millpond_connector_host::BuiltIn;

const HEAD: &str = "
apiVersion: 0.1.0
meta:
  name: events-lake
  type: s3-sink
  topic: events
  version: 0.1.0
";

fn validate(section: &str) -> Validation {
    let text = format!("{HEAD}{section}");
    let file = ManifestFile::from_bytes("Connector.yaml", text.as_bytes(), "/base");
    let registry = Registry::new().with(millpond_s3_sink::kind());
    registry.validate(
        &file,
        &SecretStore::from_environment(),
        &BuiltIn,
        Scope::Connector,
    )
}

#[test]
fn the_sample_and_the_least_are_valid() {
    let sample = include_str!("../../sample-config.yaml");
    let section = &sample[sample.find("transforms:").expect("a chain")..];
    for text in [section, "s3: {url: lake}", "s3: {url: 's3://my-lake/a/b'}"] {
        let validation = validate(text);
        assert!(
            validation.problems.is_empty(),
            "{}",
            validation.problems.plain()
        );
        assert!(validation.pipeline.is_some());
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let validation = validate(
        "s3:
  url: s3://No_Bucket
  region: eu central
  endpoint: ftp://h
  format: csv
  level: 20
  max-object-bytes: 1 KiB
  max-age: 10m
  pipeline: a/b
  dead-letters: {table: t}
  bucket: x
",
    );
    let text = validation.problems.plain();
    for part in [
        "s3.url",
        "has no bucket name",
        "s3.region",
        "s3.endpoint",
        "s3.format",
        "`parquet`",
        "s3.level",
        "1 to 19",
        "s3.max-object-bytes",
        "s3.max-age",
        "s3.pipeline",
        "s3.dead-letters",
        "bucket",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(validation.pipeline.is_none());
    let missing = validate("s3: {}").problems.plain();
    assert!(missing.contains("add `url` under `s3`"), "{missing}");
    let dots = validate("s3: {url: lake, pipeline: '..'}").problems.plain();
    assert!(dots.contains("no name of a folder"), "{dots}");
}

#[test]
fn settings_of_aws_have_no_effect_on_a_folder() {
    let validation = validate("s3: {url: lake, region: eu-central-1}");
    let text = validation.problems.plain();
    assert!(
        text.contains("has no effect") && validation.pipeline.is_some(),
        "{text}"
    );
}
