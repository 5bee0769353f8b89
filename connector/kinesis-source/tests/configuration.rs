//! What section `kinesis` accepts, and what it says to the rest.

use millpond_connector::catalog::NamesOnly;
use millpond_connector::manifest::{ManifestFile, Scope};
use millpond_connector::registry::{ConnectorKind, Registry};
use millpond_connector::secret::SecretStore;
use millpond_connector::testing::validate_section;
use millpond_kinesis_source::kind;

fn said(section: &str) -> String {
    let (problems, connector) = validate_section(kind(), section);
    assert_eq!(problems.errors() > 0, connector.is_none());
    format!("{problems:?}")
}

#[test]
fn the_least_and_the_most_are_accepted() {
    for (section, partitions) in [
        ("stream: events", 4),
        (
            "stream: a.b_c-9\nregion: eu-central-1\nendpoint: http://127.0.0.1:4567\nprofile: p\n\
             start: {at-timestamp: 2026-01-31T12:00:00Z}\ntopic-partitions: 16\nmax-buffered: 64 MiB\n\
             idle-interval: 1s\nreads-per-second: 50\nread-bytes-per-second: 64 MiB",
            16,
        ),
        ("stream: events\nstart: latest", 4),
        (
            "stream: events\nfips: true\ndual-stack: true\non-loss: gap-and-continue\ncheckpoint-after: table\n\
             retention-guard: extend\nretention-max: 168h\nretention-give-back: 24h\nshard-scaling: auto\n\
             min-shards: 2\nmax-shards: 64\nutilisation-low: 20\nutilisation-high: 80",
            4,
        ),
        ("stream: events\nshard-scaling: advise\nmax-shards: 8", 4),
        ("stream: events\nlease-table: leases", 4),
        (
            "stream: events\nlease-table: leases\ncreate-lease-table: true\nlease-duration: 300s\n\
             lease-table-endpoint: http://127.0.0.1:8000",
            4,
        ),
        ("stream: events\nstart: trim-horizon", 4),
        ("stream: events\nmode: polling\ndecompress: auto", 4),
        ("stream: events\nmode: fan-out\ndecompress: zstd", 4),
        (
            "stream: events\nmode: fan-out\nconsumer-name: c\nfall-back: polling\nremove-consumer: true",
            4,
        ),
        (
            "stream: events\nmode: fan-out\nlease-table: leases\nremove-consumer: false",
            4,
        ),
    ] {
        let (problems, connector) = validate_section(kind(), section);
        assert_eq!(problems.errors(), 0, "{section}: {problems:?}");
        let connector = connector.expect("valid");
        assert_eq!(connector.topic_partitions(), Some(partitions));
    }
}

#[test]
fn settings_of_fan_out_do_nothing_without_it_and_take_no_consumer_from_others() {
    let polling = said(
        "stream: events\nconsumer-name: c\nfall-back: polling\nremove-consumer: true\ndecompress: lz4",
    );
    for mistake in ["consumer-name", "fall-back", "remove-consumer", "lz4"] {
        assert!(
            polling.contains(mistake),
            "`{mistake}` is not said: {polling}"
        );
    }
    let shared = said(
        "stream: events\nmode: fan-out\nconsumer-name: no spaces\nlease-table: leases\nremove-consumer: true",
    );
    for mistake in ["is no name of a consumer", "would take the consumer from"] {
        assert!(
            shared.contains(mistake),
            "`{mistake}` is not said: {shared}"
        );
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let said = said(
        "streem: events\nstream: no spaces\nstart: newest\ntopic-partitions: 0\nmax-buffered: 1 MiB\n\
         idle-interval: 10ms\nreads-per-second: 5000\nread-bytes-per-second: 1\nendpoint: localhost",
    );
    for mistake in [
        "streem",
        "is no stream name",
        "newest",
        "topic-partitions",
        "max-buffered",
        "idle-interval",
        "reads-per-second",
        "read-bytes-per-second",
        "is no URL",
    ] {
        assert!(said.contains(mistake), "`{mistake}` is not said: {said}");
    }
    assert!(self::said("region: eu-central-1").contains("is missing"));
}

#[test]
fn mistakes_about_the_lease_table_are_said_at_once() {
    let said = said(
        "stream: events\nlease-table: no spaces\nlease-duration: 1s\nlease-table-endpoint: localhost",
    );
    for mistake in [
        "is no name for a lease table",
        "lease-duration",
        "is no URL",
    ] {
        assert!(said.contains(mistake), "`{mistake}` is not said: {said}");
    }
    // The companion's name must fit, too.
    let longest = "t".repeat(246);
    let (problems, _) = validate_section(kind(), &format!("stream: e\nlease-table: {longest}"));
    assert_eq!(problems.errors(), 0, "{problems:?}");
    assert!(self::said(&format!("stream: e\nlease-table: {longest}t")).contains("1 to 246"));
    let alone = self::said("stream: e\nlease-duration: 6s\ncreate-lease-table: true");
    assert_eq!(alone.matches("does nothing without").count(), 2, "{alone}");
}

#[test]
fn the_sample_is_valid() {
    let text = include_str!("../sample-config.yaml").to_owned();
    let file = ManifestFile::from_bytes("sample-config.yaml", text, "");
    let registry = Registry::new().with(kind());
    let secrets = SecretStore::from_environment();
    let checked = registry.validate(&file, &secrets, &NamesOnly::default(), Scope::Connector);
    assert_eq!(checked.problems.errors(), 0, "{:?}", checked.problems);
    let pipeline = checked.pipeline.expect("valid");
    assert_eq!(pipeline.connectors[0].config.topic_partitions(), Some(4));
}

#[test]
fn a_pace_above_that_of_a_shard_is_warned_of_on_aws() {
    let (problems, connector) = validate_section(kind(), "stream: events\nreads-per-second: 10");
    assert!(connector.is_some());
    assert!(
        format!("{problems:?}").contains("it will throttle"),
        "{problems:?}"
    );
}

#[test]
fn the_sample_and_the_manifest_name_every_setting() {
    let mut generator = schemars::SchemaGenerator::default();
    kind().section_schema(&mut generator);
    let definitions = generator.take_definitions(true);
    let properties = definitions["RawKinesis"]["properties"]
        .as_object()
        .expect("an object");
    let sample = include_str!("../sample-config.yaml");
    let manifest = include_str!("../Connector.toml");
    let readme = include_str!("../README.md");
    assert_eq!(properties.len(), 32);
    for name in properties.keys() {
        assert!(
            sample.contains(&format!("{name}:")),
            "sample lacks `{name}`"
        );
        assert!(
            manifest.contains(&format!("[kinesis.properties.{name}]")),
            "manifest lacks `{name}`"
        );
        assert!(
            readme.contains(&format!("`{name}`")),
            "README lacks `{name}`"
        );
    }
}

#[test]
fn what_a_source_may_do_to_its_stream_is_stated_whole() {
    for (section, mistakes) in [
        (
            "on-loss: skip\ncheckpoint-after: disk",
            &["skip", "disk"][..],
        ),
        (
            "retention-max: 48h\nretention-give-back: 24h",
            &[
                "retention-max",
                "does nothing without `retention-guard: extend`",
            ],
        ),
        ("retention-guard: extend", &["set `retention-max`"]),
        (
            "retention-guard: extend\nretention-max: 90m\nretention-give-back: 9000h",
            &[
                "is no retention period",
                "is not shorter than `retention-max`",
            ],
        ),
        (
            "min-shards: 2\nutilisation-low: 9",
            &["does nothing without `shard-scaling`", "utilisation-low"],
        ),
        ("shard-scaling: auto", &["max-shards"]),
        (
            "shard-scaling: auto\nmin-shards: 0\nmax-shards: 20000\nutilisation-high: 101",
            &["min-shards", "max-shards", "utilisation-high"],
        ),
        (
            "shard-scaling: auto\nmin-shards: 9\nmax-shards: 8\nutilisation-low: 40",
            &[
                "is below `min-shards`",
                "is more than half of `utilisation-high`",
            ],
        ),
        (
            "fips: true\nendpoint: http://127.0.0.1:4567",
            &["an endpoint is given"],
        ),
        (
            "dual-stack: true\nlease-table: t\nlease-table-endpoint: http://127.0.0.1:8000",
            &["an endpoint is given"],
        ),
    ] {
        let said = said(&format!("stream: events\n{section}"));
        for mistake in mistakes {
            assert!(said.contains(mistake), "`{mistake}` is not said: {said}");
        }
    }
}
