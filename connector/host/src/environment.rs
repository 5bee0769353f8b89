//! What the contract's two arguments cannot say, and so the environment does.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millpond_connector::units::HumanDuration;
use millpond_fluvio_topic::ClusterSettings;

/// Profile of Fluvio's configuration file.
pub const PROFILE_VARIABLE: &str = "MILLPOND_FLUVIO_PROFILE";

/// `host:port` of a cluster, spoken to without TLS.
pub const ENDPOINT_VARIABLE: &str = "MILLPOND_FLUVIO_ENDPOINT";

/// How long a cluster that is away is tried at start.
pub const CONNECT_LIMIT_VARIABLE: &str = "MILLPOND_CONNECT_LIMIT";

/// Directory under which each connector has a folder of its own.
pub const DATA_DIR_VARIABLE: &str = "MILLPOND_DATA_DIR";

/// Path of the metrics socket: the contract's own variable.
pub const METRICS_VARIABLE: &str = "FLUVIO_METRIC_CONNECTOR";

/// The contract's default for [`METRICS_VARIABLE`].
const METRICS_PATH: &str = "/tmp/fluvio-connector.sock";

/// `host:port` for metrics, probes and status by HTTP; not served without it.
pub const HTTP_VARIABLE: &str = "MILLPOND_HTTP";

const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// The variables that count, empty ones left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(HashMap<&'static str, String>);

impl Environment {
    pub(crate) fn from_process() -> Self {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(value: impl Fn(&'static str) -> Option<String>) -> Self {
        let names = [
            PROFILE_VARIABLE,
            ENDPOINT_VARIABLE,
            CONNECT_LIMIT_VARIABLE,
            DATA_DIR_VARIABLE,
            METRICS_VARIABLE,
            HTTP_VARIABLE,
            "XDG_STATE_HOME",
            "HOME",
        ];
        let set = names.into_iter().filter_map(|name| {
            let value = value(name).filter(|value| !value.is_empty())?;
            Some((name, value))
        });
        Self(set.collect())
    }

    pub(crate) fn cluster(&self) -> ClusterSettings {
        ClusterSettings {
            profile: self.0.get(PROFILE_VARIABLE).cloned(),
            endpoint: self.0.get(ENDPOINT_VARIABLE).cloned(),
        }
    }

    pub(crate) fn connect_limit(&self) -> Result<Duration> {
        let Some(text) = self.0.get(CONNECT_LIMIT_VARIABLE) else {
            return Ok(CONNECT_LIMIT);
        };
        let limit: HumanDuration = text.parse().map_err(|reason| {
            anyhow::anyhow!("`{CONNECT_LIMIT_VARIABLE}` is `{text}`: {reason}")
        })?;
        Ok(limit.get())
    }

    /// Where metrics, probes and status are served by HTTP.
    pub(crate) fn http(&self) -> Option<&str> {
        self.0.get(HTTP_VARIABLE).map(String::as_str)
    }

    /// The metrics socket that was asked for.
    pub(crate) fn given_metrics_path(&self) -> Option<PathBuf> {
        self.0.get(METRICS_VARIABLE).map(PathBuf::from)
    }

    /// Where the metrics socket is unless another connector has it: the contract has one path for
    /// all of a machine.
    pub(crate) fn metrics_path(&self) -> PathBuf {
        self.given_metrics_path()
            .unwrap_or_else(|| METRICS_PATH.into())
    }

    /// Where a connector keeps its state. Each name has its own folder: connectors that were
    /// started with the same environment must not share one.
    pub(crate) fn data_dir(&self, name: &str) -> Result<PathBuf> {
        let under = |variable: &str| self.0.get(variable).map(PathBuf::from);
        let base = under(DATA_DIR_VARIABLE)
            .or_else(|| Some(under("XDG_STATE_HOME")?.join("millpond")))
            .or_else(|| Some(under("HOME")?.join(".local/state/millpond")))
            .with_context(|| {
                format!("there is no place for the connector's state; set `{DATA_DIR_VARIABLE}` to a directory that outlives it")
            })?;
        // `..` is a name as far as the file goes.
        let folder = match name {
            "." | ".." => format!("_{name}"),
            _ => name.to_owned(),
        };
        Ok(base.join(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &'static [(&'static str, &'static str)]) -> Environment {
        Environment::from(move |name| {
            let (_, value) = set.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn the_state_lies_where_the_first_variable_says() {
        let places: [(&'static [(&str, &str)], &str); 3] = [
            (&[(DATA_DIR_VARIABLE, "/d"), ("HOME", "/h")], "/d/in"),
            (
                &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")],
                "/x/millpond/in",
            ),
            (
                &[(DATA_DIR_VARIABLE, ""), ("HOME", "/h")],
                "/h/.local/state/millpond/in",
            ),
        ];
        for (set, expected) in places {
            let found = environment(set).data_dir("in").expect("a place");
            assert_eq!(found, PathBuf::from(expected));
        }
        let refused = environment(&[]).data_dir("in").expect_err("no place");
        assert!(refused.to_string().contains(DATA_DIR_VARIABLE), "{refused}");
        let kept = environment(&[("HOME", "/h")]).data_dir("..").expect("one");
        assert!(kept.ends_with("millpond/_.."), "{kept:?}");
    }

    #[test]
    fn limits_are_durations() {
        let limit = |set| environment(set).connect_limit();
        assert_eq!(limit(&[]).expect("default"), CONNECT_LIMIT);
        let given = limit(&[(CONNECT_LIMIT_VARIABLE, "5s")]).expect("given");
        assert_eq!(given, Duration::from_secs(5));
        let refused = limit(&[(CONNECT_LIMIT_VARIABLE, "soon")]).expect_err("no duration");
        assert!(refused.to_string().contains("`soon`"), "{refused}");
    }
}
