//! Arguments of the commands that put a pipeline on a cluster.

use std::path::PathBuf;

use clap::Args;

/// Which Fluvio cluster; without either, the current profile of Fluvio's own configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Profile of Fluvio's own configuration (~/.fluvio/config, FLV_PROFILE_PATH) [default: the current one]
    #[arg(long, value_name = "PROFILE", conflicts_with = "cluster")]
    pub profile: Option<String>,
    /// Address of the cluster's controller (SC), without TLS, instead of a profile
    #[arg(long, value_name = "HOST:PORT")]
    pub cluster: Option<String>,
}

/// Arguments of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Creates or checks the topics, uploads the SmartModule when it is missing or another, splits the
file into one document per connector, and has `cdk deploy start` start those that do not run.
A topic that exists with other settings is an error and is left alone. Deploying twice changes
nothing.

Connectors run on this machine as processes of their own and are not watched over: after a
crash, `millpond deploy` starts them again and they go on where they were. `cdk` is taken from
MILLPOND_FLUVIO_BIN, else from PATH; its list of connectors lies in the temporary directory
(TMPDIR), so call deploy, status and down with the same one. The connectors inherit this
command's environment, AWS_* included; relative paths in a document start at the directory of
the split files.

--dry-run changes nothing, neither here nor on the cluster. It only asks the cluster and cdk what
is there; those that cannot be asked count as empty.

Examples:
  millpond deploy
  millpond deploy Connector.yaml --dry-run
  millpond deploy Connector.yaml --secrets secrets.txt --cluster 127.0.0.1:9003")]
pub struct DeployArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// Say what would be done, as commands where there are some, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Where split documents, logs, and the connectors' own data are kept
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
    /// Directory of a connector's Connector.toml and binary; may be given several times
    /// [default: Millpond's own, binaries beside this program or on PATH]
    #[arg(long, value_name = "DIR")]
    pub package_dir: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
The lag of a partition is what is stored in the topic and not yet committed by the sink; a sink
tells the cluster what it has committed with some delay. First offsets are shown where the cluster
tells them. What cannot be asked is said on stderr (JSON: `unknown`), the rest is shown.

Exit code 0: the cluster answered everything, whatever the state. 1: it did not, or not everything.
3: the file is wrong.

Examples:
  millpond status
  millpond status Connector.yaml --json | jq '[.partitions[].consumers[].lag] | add'")]
pub struct StatusArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// The data directory that was given to `deploy`
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Sources first, then sinks; each drains (SIGTERM), and `down` waits until its process is gone.
Topics, SmartModules and the table stay. Stopping twice changes nothing.

Examples:
  millpond down
  millpond down Connector.yaml")]
pub struct DownArgs {
    /// The configuration file
    #[arg(value_name = "FILE", default_value = "Connector.yaml")]
    pub config: PathBuf,
    /// File of NAME=value lines for the secrets of the file [default: environment variables]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// The data directory that was given to `deploy`
    #[arg(long, value_name = "DIR", default_value = ".millpond")]
    pub data_dir: PathBuf,
}
