//! Secrets: where they come from, how they get into a configuration, and how they stay out of
//! everything else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::de::join;
use crate::problem::{Problem, Problems, known_names};
use crate::yaml::{Entry, Node, Scalar, Value};

/// Largest file of secrets, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Largest text with its secrets filled in, in bytes, over the whole document.
const MAX_RENDERED_BYTES: usize = 4 << 20;

/// Shorter secrets are not searched for in logs: the search would black out ordinary words.
const SHORTEST_REDACTED: usize = 4;

/// What stands where a secret was.
const REDACTED: &str = "[secret]";

/// Text that is never shown: not by `Debug`, not by `Display` (there is none).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; whoever calls this takes care of where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "secret": {
                    "type": "object",
                    "properties": { "name": { "type": "string" } },
                    "required": ["name"],
                    "additionalProperties": false,
                } },
                "required": ["secret"],
                "additionalProperties": false,
            },
        ] })
    }
}

/// Blacks out secrets in text on its way out of the process.
///
/// Clones share what they know.
#[derive(Clone, Default)]
pub struct Redactor {
    hidden: Arc<RwLock<Vec<String>>>,
}

impl Redactor {
    /// From now on this text is blacked out, as it is and as JSON writes it.
    pub fn hide(&self, secret: &Secret) {
        if secret.0.len() < SHORTEST_REDACTED {
            return;
        }
        let json = serde_json::Value::from(secret.expose()).to_string();
        let escaped = json.trim_matches('"').to_owned();
        if let Ok(mut hidden) = self.hidden.write() {
            for text in [secret.0.clone(), escaped] {
                if !hidden.contains(&text) {
                    hidden.push(text);
                }
            }
            // A secret that contains another one goes first.
            hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// The text without its secrets.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        let Ok(hidden) = self.hidden.read() else {
            return Cow::Borrowed(REDACTED);
        };
        for secret in hidden.iter() {
            if clean.contains(secret.as_str()) {
                clean = Cow::Owned(clean.replace(secret.as_str(), REDACTED));
            }
        }
        clean
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

/// Why a file of secrets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file could not be opened or read.
    #[error("secrets file `{}` cannot be read: {source}", .path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than a file of secrets should be.
    #[error("secrets file `{}` has {bytes} bytes, allowed: up to {MAX_FILE_BYTES}", .path.display())]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line is neither empty, nor a comment, nor `KEY=value`. The line itself is not shown.
    #[error("secrets file `{}` line {line}: expected `KEY=value`, a comment (`#`) or nothing", .path.display())]
    Line {
        /// Its path.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
}

/// Where secrets come from: a file of `KEY=value` lines, or else the environment.
#[derive(Debug, Clone, Default)]
pub struct SecretStore {
    file: Option<(PathBuf, BTreeMap<String, Secret>)>,
    redactor: Redactor,
}

impl SecretStore {
    /// Secrets are environment variables.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::default()
    }

    /// Secrets are lines of a file; the environment is not looked at.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or has a line of another form.
    pub fn from_file(path: &Path) -> Result<Self, SecretFileError> {
        let unreadable = |source| SecretFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(SecretFileError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(SecretFileError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                });
            };
            // The first line of a name counts, as in Fluvio's own reading.
            values
                .entry(name.trim().to_owned())
                .or_insert_with(|| Secret::new(value.trim()));
        }
        Ok(Self {
            file: Some((path.to_owned(), values)),
            redactor: Redactor::default(),
        })
    }

    /// The file if one is given, else the environment: what `--secrets` means.
    ///
    /// # Errors
    /// As [`SecretStore::from_file`].
    pub fn open(path: Option<&Path>) -> Result<Self, SecretFileError> {
        path.map_or_else(|| Ok(Self::from_environment()), Self::from_file)
    }

    /// Blacks out every secret that was handed out by this store.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }

    /// The secret of this name; from now on the redactor blacks it out.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Secret> {
        let secret = match &self.file {
            Some((_, values)) => values.get(name).cloned(),
            None => std::env::var(name).ok().map(Secret::new),
        }?;
        self.redactor.hide(&secret);
        Some(secret)
    }

    /// What to do about a secret that is not set.
    pub(crate) fn place(&self, name: &str) -> String {
        match &self.file {
            Some((path, _)) => format!("add a line `{name}=VALUE` to `{}`", path.display()),
            None => {
                format!("set the environment variable `{name}`, or name a file with `--secrets`")
            }
        }
    }
}

/// The rule for the name of a secret: Fluvio's.
pub(crate) fn is_secret_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Fills secrets into one document.
pub(crate) struct Renderer<'a> {
    pub(crate) store: &'a SecretStore,
    /// `None` where the document's version knows no `${{ … }}`.
    pub(crate) listed: Option<&'a [String]>,
    pub(crate) problems: &'a mut Problems,
    pub(crate) rendered_bytes: usize,
}

impl Renderer<'_> {
    /// Fills in `${{ secrets.NAME }}`, and where `forms` is set also `{secret: {name: NAME}}`.
    pub(crate) fn render(&mut self, node: &mut Node, path: &str, forms: bool) {
        if forms && let Some(name) = secret_form(node) {
            let name = name.to_owned();
            let secret = self.fetch(&name, path, node);
            if secret.is_none() {
                self.problems.mark_unknown(node.span);
            }
            let text = secret.map_or_else(String::new, |secret| secret.0);
            node.value = Value::Scalar(Scalar::quoted("").with_secret(text));
            return;
        }
        let replacement = match &mut node.value {
            Value::Scalar(scalar) if scalar.text().contains("${{") => Some(scalar.clone()),
            Value::Scalar(_) => None,
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.render(item, &format!("{path}[{index}]"), forms);
                }
                None
            }
            Value::Mapping(entries) => {
                for Entry { key, value, .. } in entries {
                    self.render(value, &join(path, key), forms);
                }
                None
            }
        };
        if let Some(scalar) = replacement {
            match self.fill(&scalar, path, node) {
                Some(text) => node.value = Value::Scalar(scalar.with_secret(text)),
                None => self.problems.mark_unknown(node.span),
            }
        }
    }

    /// The text with its expressions filled in; `None` after a problem.
    fn fill(&mut self, scalar: &Scalar, path: &str, node: &Node) -> Option<String> {
        let Some(listed) = self.listed else {
            self.problems.push(
                Problem::error("holds a secret, but this `apiVersion` knows none in texts")
                    .at_value(path, node)
                    .help("set `apiVersion: 0.1.0` or later"),
            );
            return None;
        };
        let mut text = String::new();
        let mut rest = scalar.text();
        while let Some(start) = rest.find("${{") {
            let (before, after) = rest.split_at(start);
            text.push_str(before);
            let inner = after
                .get(3..)
                .and_then(|inner| inner.split_once("}}"))
                .map(|(inner, rest)| (inner.trim(), rest));
            let name = inner.and_then(|(inner, _)| inner.strip_prefix("secrets."));
            let (Some((_, after)), Some(name)) = (inner, name.filter(|name| is_secret_name(name)))
            else {
                self.problems.push(
                    Problem::error("holds an expression that is not known")
                        .at_value(path, node)
                        .allowed("`${{ secrets.NAME }}`"),
                );
                return None;
            };
            if !listed.iter().any(|listed| listed == name) {
                let known: Vec<&str> = listed.iter().map(String::as_str).collect();
                self.problems.push(
                    Problem::error(format!(
                        "uses secret `{name}`, which `meta.secrets` does not list"
                    ))
                    .at_value(path, node)
                    .help(match known.is_empty() {
                        true => format!("add `- name: {name}` under `meta.secrets`"),
                        false => format!(
                            "add `- name: {name}` under `meta.secrets`; {}",
                            known_names(name, &known)
                        ),
                    }),
                );
                return None;
            }
            text.push_str(self.fetch(name, path, node)?.expose());
            rest = after;
        }
        text.push_str(rest);
        Some(text)
    }

    fn fetch(&mut self, name: &str, path: &str, node: &Node) -> Option<Secret> {
        let Some(secret) = self.store.get(name) else {
            self.problems.push(
                Problem::error(format!("needs secret `{name}`, which is not set"))
                    .at(path, node.span)
                    .help(self.store.place(name)),
            );
            return None;
        };
        self.rendered_bytes += secret.0.len();
        if self.rendered_bytes > MAX_RENDERED_BYTES {
            self.problems.push(
                Problem::error("grows too large with its secrets filled in")
                    .at(path, node.span)
                    .allowed(format!("up to {MAX_RENDERED_BYTES} bytes in one document")),
            );
            return None;
        }
        Some(secret)
    }
}

/// `NAME` of `{secret: {name: NAME}}`.
fn secret_form(node: &Node) -> Option<&str> {
    let [outer] = node.entries()? else {
        return None;
    };
    let [inner] = outer.value.entries()? else {
        return None;
    };
    let name = inner.value.text()?;
    (outer.key == "secret" && inner.key == "name").then_some(name)
}
