//! One document of the file: a valid Fluvio connector configuration.

use std::path::PathBuf;

use crate::meta::Meta;
use crate::registry::Direction;
use crate::topic::Transform;
use crate::yaml::Node;

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
}
