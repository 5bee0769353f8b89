//! The section `s3` of a connector configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_connector::aws::AwsSettings;
use millpond_connector::document::ConnectorDocument;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::problem::Problems;
use millpond_connector::registry::{BuiltConnector, ConnectorKind, ValidConnector};
use millpond_connector::section::Section;
use millpond_connector::topic::Transform;
use millpond_connector::units::{ByteSize, HumanDuration};
use millpond_sink::fingerprint::module_digests;
use millpond_sink::gaps::OnGap;
use millpond_sink::settings;
use millpond_sink::sink::{DeadLetterTarget, SinkSettings, StoreSink};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::client::{ObjectApi, connect};
use crate::encode::{Format, FormatName};
use crate::location::Location;
use crate::store::ObjectSettings;

/// Objects are dear to make and to list: they wait longer for more than items do.
const MAX_AGE: HumanDuration = HumanDuration::from_secs(60);

const MAX_OBJECT_BYTES: ByteSize = ByteSize(64 << 20);

/// Zstd level: the library's own default.
const LEVEL: i32 = 3;

/// Writes the topic's events as objects to Amazon S3, or to a folder.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "S3Section")]
struct RawS3 {
    /// Where objects go: `s3://BUCKET[/PREFIX]`, `file:///FOLDER`, or the path of a folder, which
    /// starts at the configuration file.
    #[schemars(required)]
    url: Option<String>,
    /// AWS region of the bucket; default: what the AWS environment says.
    region: Option<String>,
    /// URL to speak to in place of the region's own; default: what the AWS environment says.
    endpoint: Option<String>,
    /// Profile of the shared AWS configuration files.
    profile: Option<String>,
    /// How events are written: `ndjson` (lines as they were produced, which must be JSON) or `parquet`
    /// (columns, any bytes). Default: `ndjson`.
    format: Option<FormatName>,
    /// Zstd level: 1 to 19. Default: 3.
    level: Option<i64>,
    /// Bytes of events, before compression, at which an object is closed: 1 MiB to 1 GiB. Default: 64 MiB.
    max_object_bytes: Option<ByteSize>,
    /// Longest time that data waits for more before it is written: 100ms to 5m. Default: 1m.
    max_age: Option<HumanDuration>,
    /// Name that sets this pipeline's objects apart from others under the same `url`:
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`. Default: `meta.name`.
    pipeline: Option<String>,
    /// Where events go that cannot be written. Default: the file `dead-letters.jsonl` in the
    /// data directory.
    dead_letters: Option<RawDeadLetters>,
    /// What happens when events are missing from the topic for good: `halt` stops the topic
    /// partition, `record` records the gap with its bounds and goes on after it. Default: `halt`.
    on_gap: Option<OnGap>,
    /// Pipelines of the same topic under the same `url` that this one is meant to stand beside: a
    /// new pipeline name is refused without it, since it may be an old one renamed by mistake.
    beside: Option<Vec<String>>,
}

/// Where dead letters go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RawDeadLetters {
    /// A file of JSON lines; a relative path starts at the configuration file.
    File(String),
    /// Objects beside the ledger, one for each.
    Objects,
}

/// A configuration that cannot be wrong.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Bucket or folder.
    pub location: Location,
    /// AWS access.
    pub aws: AwsSettings,
    /// How events are written.
    pub format: Format,
    /// Bytes of events at which an object is closed.
    pub max_object_bytes: u64,
    /// Longest wait for more data.
    pub max_age: Duration,
    /// Pipeline name.
    pub pipeline: String,
    /// Where dead letters go.
    pub dead_letters: DeadLetterTarget,
    /// What to do about data that is gone for good.
    pub on_gap: OnGap,
    /// Pipelines of the same topic that this one is meant to stand beside.
    pub beside: Vec<String>,
    /// Topic partitions to consume.
    pub partitions: PartitionChoice,
    /// Transform chain.
    pub transforms: Vec<Transform>,
    /// Digests of the SmartModules, where they are known.
    pub digests: Vec<String>,
}

/// The connector kind `s3-sink`.
#[derive(Debug, Clone, Copy, Default)]
pub struct S3Sink;

impl ConnectorKind for S3Sink {
    fn type_name(&self) -> &'static str {
        "s3-sink"
    }

    fn section_name(&self) -> &'static str {
        "s3"
    }

    fn package_description(&self) -> Option<&'static str> {
        Some(include_str!("../Connector.toml"))
    }

    fn section_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<RawS3>()
    }

    fn validate(
        &self,
        document: &ConnectorDocument,
        section: &Section<'_>,
        problems: &mut Problems,
    ) -> Option<Box<dyn ValidConnector>> {
        let config = validate(document, section, problems)?;
        Some(Box::new(config))
    }
}

fn validate(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
) -> Option<SinkConfig> {
    let before = problems.errors();
    let raw: RawS3 = section.read(problems)?;
    let location = section
        .require(problems, "url", raw.url)
        .and_then(|url| location(document, section, problems, &url));
    let is_folder = matches!(location, Some(Location::Directory(_)));
    for (name, is_given) in [
        ("region", raw.region.is_some()),
        ("endpoint", raw.endpoint.is_some()),
        ("profile", raw.profile.is_some()),
    ] {
        if is_folder && is_given {
            let problem = section.problem(name, "has no effect: `url` is a folder");
            problems.push(problem.as_warning());
        }
    }
    let aws = AwsSettings::validate(section, problems, raw.region, raw.endpoint, raw.profile);
    let level = section.in_range(problems, "level", raw.level.unwrap_or(LEVEL.into()), 1..=19);
    let max_object_bytes = section.in_range(
        problems,
        "max-object-bytes",
        raw.max_object_bytes.unwrap_or(MAX_OBJECT_BYTES),
        ByteSize(1 << 20)..=ByteSize(1 << 30),
    );
    let max_age = settings::max_age(section, problems, raw.max_age, MAX_AGE);
    let pipeline = settings::pipeline(document, section, problems, raw.pipeline);
    if !pipeline.is_empty() && pipeline.bytes().all(|byte| byte == b'.') {
        problems.push(section.problem("pipeline", "is no name of a folder"));
    }
    let beside = settings::beside(section, problems, raw.beside);
    let dead_letters = match raw.dead_letters {
        None => DeadLetterTarget::Default,
        Some(RawDeadLetters::Objects) => DeadLetterTarget::Store,
        Some(RawDeadLetters::File(path)) => {
            if path.is_empty() {
                problems.push(section.problem("dead-letters.file", "is empty"));
            }
            DeadLetterTarget::File(document.resolve(&path))
        }
    };
    if problems.errors() > before {
        return None;
    }
    let level = i32::try_from(level?).ok()?;
    Some(SinkConfig {
        location: location?,
        aws,
        format: match raw.format.unwrap_or(FormatName::Ndjson) {
            FormatName::Ndjson => Format::Ndjson { level },
            FormatName::Parquet => Format::Parquet { level },
        },
        max_object_bytes: max_object_bytes?.0,
        max_age: max_age?,
        pipeline,
        dead_letters,
        on_gap: raw.on_gap.unwrap_or_default(),
        beside,
        partitions: document.meta.consumer.partitions.clone(),
        transforms: document.transforms.clone(),
        digests: Vec::new(),
    })
}

fn location(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    url: &str,
) -> Option<Location> {
    let resolve = |path: &str| -> PathBuf { document.resolve(path) };
    match Location::parse(url, resolve) {
        Ok(location) => Some(location),
        Err(error) => {
            problems.push(
                section
                    .problem("url", error.to_string())
                    .allowed("`s3://BUCKET[/PREFIX]`, `file:///FOLDER`, or the path of a folder"),
            );
            None
        }
    }
}

#[async_trait]
impl ValidConnector for SinkConfig {
    async fn build(mut self: Box<Self>) -> anyhow::Result<BuiltConnector> {
        self.digests = module_digests(&self.transforms);
        let objects = connect::open(&self.location, &self.aws).await?;
        Ok(BuiltConnector::Sink(Box::new(self.sink(objects))))
    }
}

impl SinkConfig {
    /// The sink on a bucket or folder.
    #[must_use]
    pub fn sink(self, objects: Arc<dyn ObjectApi>) -> StoreSink {
        let fingerprint = vec![
            self.location.prefix().to_owned(),
            format!("{:?}", self.format),
            self.max_object_bytes.to_string(),
        ];
        let shared = SinkSettings {
            pipeline: self.pipeline,
            max_age: self.max_age,
            dead_letters: self.dead_letters,
            on_gap: self.on_gap,
            beside: self.beside,
            partitions: self.partitions,
            transforms: self.transforms,
            digests: self.digests,
            fingerprint,
        };
        let store = ObjectSettings {
            objects,
            prefix: self.location.prefix().to_owned(),
            format: self.format,
            max_object_bytes: self.max_object_bytes,
        };
        StoreSink::new(shared, Box::new(store))
    }
}
