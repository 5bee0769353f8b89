//! Which cluster, and how to reach it.

use fluvio::FluvioClusterConfig;
use fluvio::config::ConfigFile;

use crate::error::ClusterError;

/// Which cluster to speak to.
///
/// With neither field set it is the current profile of Fluvio's own configuration file
/// (`FLV_PROFILE_PATH`, else `~/.fluvio/config`), with the TLS policy that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// A profile of Fluvio's configuration file.
    pub profile: Option<String>,
    /// `host:port` of the SC's public endpoint, spoken to without TLS; wins over the profile.
    pub endpoint: Option<String>,
}

impl ClusterSettings {
    /// What Fluvio's own client would connect with.
    pub(crate) fn resolve(&self) -> Result<FluvioClusterConfig, ClusterError> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(FluvioClusterConfig::new(endpoint));
        }
        let file = ConfigFile::load(None).map_err(|error| ClusterError::Profile {
            reason: error.to_string(),
        })?;
        let config = file.config();
        match &self.profile {
            Some(name) => {
                config
                    .cluster_with_profile(name)
                    .cloned()
                    .ok_or_else(|| ClusterError::Profile {
                        reason: format!("it has no profile `{name}`"),
                    })
            }
            None => config
                .current_cluster()
                .cloned()
                .map_err(|error| ClusterError::Profile {
                    reason: error.to_string(),
                }),
        }
    }
}
