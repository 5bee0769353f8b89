//! One document of the file: a valid Fluvio connector configuration.

use std::path::{Path, PathBuf};

use crate::catalog::SmartModuleCatalog;
use crate::de::unknown_key;
use crate::meta::{self, CheckedMeta, Meta, TopicForm};
use crate::problem::{Problem, Problems, known_names, nearest};
use crate::raw_meta::{RawMeta, RawTopic};
use crate::registry::{ConnectorKind, Direction, Registry};
use crate::secret::{Renderer, SecretStore, is_secret_name};
use crate::section::Section;
use crate::topic::Transform;
use crate::transforms;
use crate::yaml::{Node, Span, Value};

/// Version of the connector configuration's own layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiVersion {
    /// `0.0.0`, or none given: secrets in texts are not filled in.
    V0_0_0,
    /// `0.1.0`: secrets are filled in.
    V0_1_0,
    /// `0.2.0`: `meta.topic` is a topic configuration.
    V0_2_0,
}

impl ApiVersion {
    /// The versions as written.
    pub const NAMES: [&'static str; 3] = ["0.0.0", "0.1.0", "0.2.0"];

    /// From its text.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "0.0.0" => Some(Self::V0_0_0),
            "0.1.0" => Some(Self::V0_1_0),
            "0.2.0" => Some(Self::V0_2_0),
            _ => None,
        }
    }
}

/// One connector as the file describes it, all but its own section in types.
#[derive(Debug, Clone)]
pub struct ConnectorDocument {
    /// Layout version.
    pub api_version: ApiVersion,
    /// Name, type, topic and the like.
    pub meta: Meta,
    /// What a sink's records go through on their way out of the topic; paths to `.wasm` files are
    /// absolute or relative to the current directory.
    pub transforms: Vec<Transform>,
    /// Directory of the file: relative paths in it start there.
    pub base_dir: PathBuf,
    /// The whole document, secrets filled in.
    pub(crate) node: Node,
}

impl ConnectorDocument {
    /// Source or sink.
    #[must_use]
    pub fn direction(&self) -> Direction {
        Direction::of_type(&self.meta.type_name)
    }

    /// A path of the file as seen from the current directory.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// `meta` as written.
    pub(crate) fn meta_section(&self) -> Section<'_> {
        section_of(&self.node, "meta")
            .unwrap_or_else(|| Section::new(&self.node, Span::default(), ""))
    }
}

/// What a document is checked against.
pub(crate) struct DocumentContext<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) catalog: &'a dyn SmartModuleCatalog,
    pub(crate) secrets: &'a SecretStore,
    pub(crate) base_dir: &'a Path,
}

/// A document without its connector's own section.
pub(crate) struct Understood<'a> {
    /// Placeholders stand where something was missing or wrong.
    pub(crate) document: ConnectorDocument,
    /// The kind it names, or with a wrong name the one it probably means.
    pub(crate) kind: Option<&'a dyn ConnectorKind>,
    pub(crate) direction: Direction,
    pub(crate) name_known: bool,
    pub(crate) topic_known: bool,
}

fn section_of<'a>(node: &'a Node, key: &str) -> Option<Section<'a>> {
    let entry = node.entry(key)?;
    Some(Section::new(&entry.value, entry.key_span, key))
}

/// Checks all but the connector's own section; `None` when there is nothing to check.
pub(crate) fn understand<'a>(
    mut node: Node,
    context: &DocumentContext<'a>,
    problems: &mut Problems,
) -> Option<Understood<'a>> {
    if node.entries().is_none() {
        problems.push(
            Problem::error(format!(
                "a connector document is a map, not {}",
                node.shape()
            ))
            .at("", node.span),
        );
        return None;
    }
    let api_version = api_version(&node, problems);
    let listed = listed_secrets(&node, context.secrets, problems);
    let known = api_version.is_none_or(|version| version >= ApiVersion::V0_1_0);
    let mut renderer = Renderer {
        store: context.secrets,
        listed: known.then_some(listed.as_slice()),
        problems,
        rendered_bytes: 0,
    };
    if let Value::Mapping(entries) = &mut node.value {
        for entry in entries.iter_mut().filter(|entry| entry.key != "apiVersion") {
            let own = entry.key != "meta" && entry.key != "transforms";
            renderer.render(&mut entry.value, &entry.key, own);
        }
    }

    let type_name = node.get("meta").and_then(|meta| meta.get("type")?.text());
    let named = type_name.and_then(|name| context.registry.kind(name));
    let kind = named.or_else(|| probable_kind(&node, type_name, context.registry));
    if let (Some(name), None) = (type_name, named)
        && let Some(meta) = section_of(&node, "meta")
    {
        let kinds: Vec<&str> = context
            .registry
            .kinds()
            .map(ConnectorKind::type_name)
            .collect();
        problems.push(
            meta.problem("type", "is not a known type of connector")
                .help(known_names(name, &kinds)),
        );
    }
    check_keys(&node, kind, context.registry, problems);

    let suffix = Direction::of_type(type_name.unwrap_or_default());
    let direction = kind.map_or(suffix, ConnectorKind::direction);
    let transforms = section_of(&node, "transforms").map_or_else(Vec::new, |section| {
        transforms::validate(&section, direction, context, problems)
    });
    let checked = read_meta(&node, api_version, problems);
    let document = ConnectorDocument {
        api_version: api_version.unwrap_or(ApiVersion::V0_1_0),
        meta: checked.meta,
        transforms,
        base_dir: context.base_dir.to_owned(),
        node,
    };
    Some(Understood {
        document,
        kind,
        direction,
        name_known: checked.name_known,
        topic_known: checked.topic_known,
    })
}

/// The kind that a document with an unknown type probably means: by name, else by its section.
fn probable_kind<'a>(
    node: &Node,
    type_name: Option<&str>,
    registry: &'a Registry,
) -> Option<&'a dyn ConnectorKind> {
    let near = type_name.and_then(|name| {
        nearest(name, registry.kinds().map(ConnectorKind::type_name))
            .and_then(|near| registry.kind(near))
    });
    near.or_else(|| {
        let mut owners = registry
            .kinds()
            .filter(|kind| node.get(kind.section_name()).is_some());
        owners.next().filter(|_| owners.next().is_none())
    })
}

/// The section of a kind in a document; a problem when it is missing.
pub(crate) fn own_section<'a>(
    node: &'a Node,
    kind: &dyn ConnectorKind,
    problems: &mut Problems,
) -> Option<Section<'a>> {
    let name = kind.section_name();
    let section = section_of(node, name);
    if section.is_none() {
        let place = node.entry("meta").map_or(node.span, |meta| meta.key_span);
        let what = format!("is missing: a `{}` cannot do without it", kind.type_name());
        problems.push(
            Problem::error(what)
                .at(name, place)
                .help(format!("add a section `{name}:` beside `meta:`")),
        );
    }
    section
}

/// `None` after a problem.
fn api_version(node: &Node, problems: &mut Problems) -> Option<ApiVersion> {
    let Some(value) = node.get("apiVersion").filter(|value| !value.is_null()) else {
        return Some(ApiVersion::V0_0_0);
    };
    let version = value.text().and_then(ApiVersion::from_name);
    if version.is_none() {
        problems.push(
            Problem::error("is not a known version")
                .at_value("apiVersion", value)
                .allowed(crate::problem::quoted(&ApiVersion::NAMES)),
        );
    }
    version
}

/// The names under `meta.secrets`; each of them must be there, used or not.
fn listed_secrets(node: &Node, store: &SecretStore, problems: &mut Problems) -> Vec<String> {
    let Some(list) = node.get("meta").and_then(|meta| meta.get("secrets")) else {
        return Vec::new();
    };
    let Value::Sequence(items) = &list.value else {
        // Reading `meta` says so.
        return Vec::new();
    };
    let mut names = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("meta.secrets[{index}].name");
        let Some(value) = item.get("name") else {
            problems.push(
                Problem::error("is missing")
                    .at(path, item.span)
                    .help("write `- name: NAME`"),
            );
            continue;
        };
        let Some(name) = value.text() else {
            continue;
        };
        if !is_secret_name(name) {
            problems.push(
                Problem::error("is no name for a secret")
                    .at_value(path, value)
                    .allowed("`A-Z a-z 0-9 _`, no digit first"),
            );
            continue;
        }
        if store.get(name).is_none() {
            problems.push(
                Problem::error("is listed, but the secret is not set")
                    .at_value(path, value)
                    .help(store.place(name)),
            );
        }
        names.push(name.to_owned());
    }
    names
}

/// Unknown keys of the document itself.
fn check_keys(
    node: &Node,
    kind: Option<&dyn ConnectorKind>,
    registry: &Registry,
    problems: &mut Problems,
) {
    let mut known = vec!["apiVersion", "meta", "transforms"];
    known.extend(kind.map(ConnectorKind::section_name));
    for entry in node.entries().unwrap_or_default() {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let owner = registry
            .kinds()
            .find(|kind| kind.section_name() == entry.key);
        let unknown = match (owner, kind) {
            (Some(owner), Some(kind)) => Problem::error(format!(
                "is the section of a `{}`, but this is a `{}`",
                owner.type_name(),
                kind.type_name()
            ))
            .help(format!("its own section is `{}`", kind.section_name())),
            // Without a known type nobody can say which section is right.
            (_, None) if nearest(&entry.key, known.iter().copied()).is_none() => continue,
            _ => unknown_key(&entry.key, &known),
        };
        problems.push(unknown.at(entry.key.as_str(), entry.key_span));
    }
}

fn read_meta(node: &Node, api_version: Option<ApiVersion>, problems: &mut Problems) -> CheckedMeta {
    let Some(section) = section_of(node, "meta") else {
        problems.push(
            Problem::error("is missing")
                .at("meta", node.span)
                .help("add `meta: {name: …, type: …, topic: …, version: …}`"),
        );
        return CheckedMeta::nothing();
    };
    // An unknown version is read in the form that its topic has.
    let configuration = match api_version {
        Some(version) => version == ApiVersion::V0_2_0,
        None => section
            .value("topic")
            .is_some_and(|topic| topic.entries().is_some()),
    };
    let other_form = meta::topic_form_problem(&section, configuration);
    let wrong_form = other_form.is_some();
    problems.extend(other_form);
    match configuration != wrong_form {
        true => {
            let Some(mut raw) = section.read::<RawMeta<RawTopic>>(problems) else {
                return CheckedMeta::nothing();
            };
            let topic = TopicForm::Configuration(raw.topic.take());
            meta::validate(&section, raw, topic, problems)
        }
        false => {
            let Some(mut raw) = section.read::<RawMeta<String>>(problems) else {
                return CheckedMeta::nothing();
            };
            let topic = TopicForm::Name(raw.topic.take());
            meta::validate(&section, raw, topic, problems)
        }
    }
}
