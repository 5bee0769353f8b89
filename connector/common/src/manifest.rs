//! The whole file: a YAML stream of connector documents, and whether they fit together.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::catalog::SmartModuleCatalog;
use crate::document::{ConnectorDocument, DocumentContext, Understood, own_section, understand};
use crate::meta::{DEFAULT_PARTITIONS, PartitionChoice, TopicSettings};
use crate::problem::{Problem, Problems, nearest};
use crate::registry::{Direction, Registry, ValidConnector};
use crate::secret::{SecretFileError, SecretStore};
use crate::yaml::Span;
use crate::yaml_stream::{self, MAX_FILE_BYTES};

/// How much of a pipeline the file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: each topic has a source and a sink. What runs in one process.
    Pipeline,
    /// One connector: others are elsewhere. What `--config` of a connector binary means.
    Connector,
}

/// A file that was read but not looked into.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    name: String,
    bytes: Vec<u8>,
    base_dir: PathBuf,
}

/// Why a file could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be read: {source}", .path.display())]
pub struct ManifestFileError {
    path: PathBuf,
    source: std::io::Error,
}

/// True when a file of configuration or secrets could not be read, or is none.
#[must_use]
pub fn is_unreadable_file(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<ManifestFileError>() || cause.is::<SecretFileError>())
}

impl ManifestFile {
    /// Reads a file, up to its size limit.
    ///
    /// # Errors
    /// The file cannot be opened or read. A file that is too large, or no text, is a problem of
    /// [`Registry::validate`].
    pub fn read(path: &Path) -> Result<Self, ManifestFileError> {
        let refuse = |source| ManifestFileError {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(refuse)?;
        let mut bytes = Vec::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(refuse)?;
        let base_dir = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Ok(Self::from_bytes(
            path.display().to_string(),
            bytes,
            base_dir,
        ))
    }

    /// From memory; relative paths in it start at `base_dir`.
    pub fn from_bytes(
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        base_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            base_dir: base_dir.into(),
        }
    }
}

/// One connector that is ready to be built.
pub struct PipelineConnector {
    /// Its document.
    pub document: ConnectorDocument,
    /// Its configuration.
    pub config: Box<dyn ValidConnector>,
}

/// A file without errors.
pub struct Pipeline {
    /// In the order of the file.
    pub connectors: Vec<PipelineConnector>,
    /// Each topic once; `partitions` is always given, from the topic configuration, the source's
    /// section or [`DEFAULT_PARTITIONS`].
    pub topics: Vec<TopicSettings>,
}

/// What a check of a file found.
pub struct Validation {
    /// Errors and warnings in the order of the file.
    pub problems: Problems,
    /// The pipeline, exactly when there are no errors.
    pub pipeline: Option<Pipeline>,
}

impl std::fmt::Debug for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Validation")
            .field("problems", &self.problems)
            .field("runnable", &self.pipeline.is_some())
            .finish()
    }
}

impl Registry {
    /// Checks a whole file without touching the network: all problems at once.
    #[must_use]
    pub fn validate(
        &self,
        file: &ManifestFile,
        secrets: &SecretStore,
        catalog: &dyn SmartModuleCatalog,
        scope: Scope,
    ) -> Validation {
        let (source, not_text) = decode(&file.bytes);
        let mut problems = Problems::new(&file.name, source);
        problems.extend(not_text);
        let mut found = Vec::new();
        if !problems.has_errors() {
            let stream = yaml_stream::parse(source);
            let unread = stream.problems.len();
            problems.extend(stream.problems);
            if stream.documents.is_empty() && unread == 0 {
                problems.push(
                    Problem::error("the file holds no connector")
                        .help("`millpond schema` prints what it may hold"),
                );
            }
            let context = DocumentContext {
                registry: self,
                catalog,
                secrets,
                base_dir: &file.base_dir,
            };
            let written = stream.documents.len();
            let documents = stream.documents.into_iter();
            found.extend(documents.filter_map(|node| understand(node, &context, &mut problems)));
            check_names(&found, &mut problems);
            // With a document that could not be understood, a missing partner proves nothing.
            let all_known = unread == 0
                && found.len() == written
                && found.iter().all(|document| document.topic_known);
            if scope == Scope::Pipeline && all_known {
                check_meeting(&found, &mut problems);
            }
        }
        let written = found.len();
        let mut connectors = Vec::new();
        for Understood { document, kind, .. } in found {
            let config = kind.and_then(|kind| {
                let section = own_section(&document.node, kind, &mut problems)?;
                kind.validate(&document, &section, &mut problems)
            });
            if let Some(config) = config {
                connectors.push(PipelineConnector { document, config });
            }
        }
        let mut topics = merge_topics(&connectors, &mut problems);
        // Only where each document of a whole pipeline was understood is the default what counts.
        if scope == Scope::Pipeline && connectors.len() == written {
            for topic in &mut topics {
                topic.partitions.get_or_insert(DEFAULT_PARTITIONS);
            }
        }
        check_partitions(&connectors, &topics, &mut problems);
        for topic in &mut topics {
            topic.partitions.get_or_insert(DEFAULT_PARTITIONS);
        }
        problems.sort();
        problems.redact(&secrets.redactor());
        let runnable = !problems.has_errors() && !connectors.is_empty();
        let pipeline = runnable.then_some(Pipeline { connectors, topics });
        Validation { problems, pipeline }
    }
}

/// The text of the file without its byte order mark, or what is wrong with it as text.
fn decode(bytes: &[u8]) -> (&str, Option<Problem>) {
    if bytes.len() > MAX_FILE_BYTES {
        let problem = Problem::error("the file is too large")
            .allowed(format!("up to {MAX_FILE_BYTES} bytes"));
        return ("", Some(problem));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.strip_prefix('\u{feff}').unwrap_or(text), None),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = std::str::from_utf8(valid).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let column = before.get(line_start..).unwrap_or_default().chars().count();
            let span = Span {
                start: before.len(),
                end: before.len(),
                line: u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX),
                column: u32::try_from(column + 1).unwrap_or(u32::MAX),
            };
            let problem = Problem::error("the file is not text in UTF-8").at("", span);
            (before, Some(problem))
        }
    }
}

/// A name stands for one connector.
fn check_names(found: &[Understood<'_>], problems: &mut Problems) {
    let mut first: HashMap<&str, Span> = HashMap::new();
    for Understood { document, .. } in found.iter().filter(|found| found.name_known) {
        let meta = document.meta_section();
        let name = document.meta.name.as_str();
        let place = meta
            .value("name")
            .map_or(document.node.span, |node| node.span);
        if let Some(other) = first.get(name) {
            let what = format!("is taken by the connector in line {}", other.line);
            let problem = meta.problem("name", what);
            problems.push(problem.help("give each connector its own name"));
            continue;
        }
        first.insert(name, place);
    }
}

/// Each topic has a source that fills it and a sink that empties it. Both are errors: a sink
/// without a source waits for ever, and a source without a sink fills the disk.
fn check_meeting(found: &[Understood<'_>], problems: &mut Problems) {
    for Understood {
        document,
        direction,
        ..
    } in found
    {
        let (wanted, what) = match direction {
            Direction::Source => (Direction::Sink, "is emptied by no sink of this file"),
            Direction::Sink => (Direction::Source, "is filled by no source of this file"),
        };
        let topic = &document.meta.topic.name;
        let others: Vec<&str> = found
            .iter()
            .filter(|other| other.direction == wanted)
            .map(|other| other.document.meta.topic.name.as_str())
            .collect();
        if others.contains(&topic.as_str()) {
            continue;
        }
        let meta = document.meta_section();
        let path = match meta.value("topic.meta.name") {
            Some(_) => "topic.meta.name",
            None => "topic",
        };
        let help = match (nearest(topic, others.iter().copied()), others.first()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(other)) => format!("a {wanted} of this file works on `{other}`"),
            (None, None) => format!("add a {wanted} with the same `meta.topic`"),
        };
        problems.push(meta.problem(path, what).help(help));
    }
}

/// Each topic once, with what all its connectors say about it.
fn merge_topics(connectors: &[PipelineConnector], problems: &mut Problems) -> Vec<TopicSettings> {
    let mut topics: Vec<TopicSettings> = Vec::new();
    for connector in connectors {
        let mut topic = connector.document.meta.topic.clone();
        let said = connector.config.topic_partitions();
        if let (Some(topic_says), Some(section_says)) = (topic.partitions, said)
            && topic_says != section_says
        {
            let what =
                format!("disagrees with the connector's own section, which says {section_says}");
            let meta = connector.document.meta_section();
            problems.push(meta.problem("topic.partition.count", what));
        }
        topic.partitions = topic.partitions.or(said);
        let Some(known) = topics.iter_mut().find(|known| known.name == topic.name) else {
            topics.push(topic);
            continue;
        };
        if let (Some(one), Some(other)) = (known.partitions, topic.partitions)
            && one != other
        {
            let what = format!("is given {other} partitions here and {one} above");
            let meta = connector.document.meta_section();
            problems.push(meta.problem("topic", what).help("say it once"));
        }
        known.partitions = known.partitions.or(topic.partitions);
        known.replication = known.replication.or(topic.replication);
        known.ignore_rack_assignment = known
            .ignore_rack_assignment
            .or(topic.ignore_rack_assignment);
        known.retention_time = known.retention_time.or(topic.retention_time);
        known.max_partition_bytes = known.max_partition_bytes.or(topic.max_partition_bytes);
        known.segment_bytes = known.segment_bytes.or(topic.segment_bytes);
        known.compression = known.compression.or(topic.compression);
        for setting in topic.not_made {
            if !known.not_made.contains(&setting) {
                known.not_made.push(setting);
            }
        }
    }
    topics
}

/// A sink that asks for partitions that its topic will not have could not be built.
fn check_partitions(
    connectors: &[PipelineConnector],
    topics: &[TopicSettings],
    problems: &mut Problems,
) {
    for PipelineConnector { document, .. } in connectors {
        let meta = &document.meta;
        let known = topics.iter().find(|topic| topic.name == meta.topic.name);
        let count = known.and_then(|topic| topic.partitions);
        let (PartitionChoice::Some(asked), Some(count)) = (&meta.consumer.partitions, count) else {
            continue;
        };
        if asked.iter().all(|partition| *partition < count) {
            continue;
        }
        let what = format!(
            "is not there: topic `{}` has {count} partitions",
            meta.topic.name
        );
        problems.push(
            document
                .meta_section()
                .problem("consumer.partition", what)
                .allowed(format!("`all`, or of 0 to {}", count - 1)),
        );
    }
}
