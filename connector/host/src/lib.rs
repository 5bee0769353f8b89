//! Runs one connector as a process of its own on a Fluvio cluster.
//!
//! A connector's `main.rs` is one line: `millpond_connector_host::main(kind())`. What the process
//! takes and does is Fluvio's connector contract; [`HELP`] is its short form.

mod catalog;
mod connecting;
mod environment;
mod exit;
mod metrics_socket;
mod running;
mod state;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use millpond_connector::arguments::ConnectorArguments;
use millpond_connector::aws::chain;
use millpond_connector::data_dir::DataDir;
use millpond_connector::drain;
use millpond_connector::logging::{self, LogFormat};
use millpond_connector::manifest::{ManifestFile, PipelineConnector, Scope, is_unreadable_file};
use millpond_connector::registry::{ConnectorKind, Registry};
use millpond_connector::secret::SecretStore;
use millpond_observe::Server;
use millpond_observe::traces::Traces;

pub use catalog::BuiltIn;
pub use environment::{
    CONNECT_LIMIT_VARIABLE, DATA_DIR_VARIABLE, ENDPOINT_VARIABLE, HTTP_VARIABLE, METRICS_VARIABLE,
    PROFILE_VARIABLE,
};
pub use running::DRAIN_LIMIT;

use environment::Environment;
use exit::Exit;
use metrics_socket::{Answer, MetricsSocket};
use state::State;

/// What `--help` says.
pub const HELP: &str = "\
Usage: --config PATH [--secrets PATH]    run the connector until SIGTERM or Ctrl-C
       --health                          exit 0 when the connector with the same metrics socket is alive
       --ready                           exit 0 when it is connected and at work

Environment:
  RUST_LOG                   log filter, `info` unless set; logs go to stderr. Of Fluvio's own
                             crates `info` shows warnings only (`info,fluvio=info`: all)
  MILLPOND_FLUVIO_PROFILE    profile of Fluvio's configuration file; else its current one
  MILLPOND_FLUVIO_ENDPOINT   `host:port` of a cluster without TLS; wins over the profile
  MILLPOND_CONNECT_LIMIT     how long a cluster that is away is tried at start, 60s unless set
  MILLPOND_DATA_DIR          state lies in its folder `<meta.name>`; else in
                             $XDG_STATE_HOME/millpond, else in ~/.local/state/millpond
  FLUVIO_METRIC_CONNECTOR    path of the metrics socket, else /tmp/fluvio-connector.sock, or
                             `metrics.sock` beside the state when another connector answers there
  MILLPOND_HTTP              `host:port` for /metrics, /healthz, /readyz, /status and a page for
                             people; not served unless set
  MILLPOND_LOG_FORMAT        `text` or `json`, text unless set
  OTEL_EXPORTER_OTLP_ENDPOINT  collector for traces, plain HTTP; none unless set

Exit codes:
  0    drained, within 30 s of the first SIGTERM or Ctrl-C
  1    failed while running
  2    wrong command line
  3    wrong or unreadable file of configuration or secrets
  130  a second SIGTERM or Ctrl-C ended the process before it had drained
";

/// Runs a connector: reads the arguments and the environment of the process, answers its exit code.
#[must_use]
pub fn main(kind: impl ConnectorKind + 'static) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let exit = match start(kind, arguments) {
        Ok(exit) => exit,
        Err(error) => {
            say(&format!("error: {}", chain(error.as_ref())));
            match is_unreadable_file(&error) {
                true => Exit::Configuration,
                false => Exit::Failure,
            }
        }
    };
    exit.into()
}

fn start(kind: impl ConnectorKind + 'static, arguments: Vec<OsString>) -> Result<Exit> {
    let environment = Environment::from_process();
    match arguments.as_slice() {
        [only] if only == "--help" => {
            say(HELP);
            return Ok(Exit::Success);
        }
        [only] if only == "--health" => return ask(&environment, Answer::is_alive),
        [only] if only == "--ready" => return ask(&environment, Answer::is_ready),
        _ => {}
    }
    let arguments = match ConnectorArguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            say(&format!("error: {error}\n\n{HELP}"));
            return Ok(Exit::Usage);
        }
    };
    let secrets = SecretStore::open(arguments.secrets.as_deref())?;
    let traces = Traces::from_process()?;
    let layer = traces.as_ref().map(Traces::layer);
    logging::init(LogFormat::from_process()?, secrets.redactor(), layer)?;
    let Some(connector) = read(kind, &arguments, &secrets)? else {
        return Ok(Exit::Configuration);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(run(connector, environment));
    // Blocking work that was abandoned must not hold the process up.
    runtime.shutdown_background();
    drop(traces);
    ended
}

/// The one connector of the file; `None` once its problems are told.
fn read(
    kind: impl ConnectorKind + 'static,
    arguments: &ConnectorArguments,
    secrets: &SecretStore,
) -> Result<Option<PipelineConnector>> {
    let file = ManifestFile::read(&arguments.config)?;
    let registry = Registry::new().with(kind);
    let validation = registry.validate(&file, secrets, &BuiltIn, Scope::Connector);
    let problems = validation.problems;
    if !problems.is_empty() {
        say(problems.plain().trim_end());
        say(&format!(
            "{} errors, {} warnings",
            problems.errors(),
            problems.warnings()
        ));
    }
    let Some(pipeline) = validation.pipeline else {
        return Ok(None);
    };
    let mut connectors = pipeline.connectors;
    if connectors.len() > 1 {
        say(&format!(
            "error: `{}` holds {} connectors; `--config` takes one: `millpond deploy` splits such a file, `millpond run` runs it whole",
            arguments.config.display(),
            connectors.len()
        ));
        return Ok(None);
    }
    Ok(connectors.pop())
}

async fn run(connector: PipelineConnector, environment: Environment) -> Result<Exit> {
    let drain = drain::on_signals().context("cannot install the signal handlers")?;
    let meta = &connector.document.meta;
    let state = Arc::new(State::new(&meta.name, &meta.type_name));
    let data_dir = environment.data_dir(&meta.name)?;
    let data_dir = tokio::task::spawn_blocking(move || DataDir::open(&data_dir))
        .await
        .context("cannot open the data directory")??;
    // Held until the end: its file goes with it.
    let own = match environment.given_metrics_path() {
        Some(_) => None,
        None => Some(data_dir.path().join(metrics_socket::OWN_NAME)),
    };
    let _socket = MetricsSocket::open(environment.metrics_path(), own, Arc::clone(&state));
    let _server = match environment.http() {
        Some(address) => Some(Server::bind(address, state.process()).await?),
        None => None,
    };
    let topic = tokio::select! {
        biased;
        () = drain.cancelled() => return Ok(Exit::Success),
        topic = connecting::open_topic(&connector.document, &environment) => topic?,
    };
    running::run(connector, topic, data_dir, &state, drain).await?;
    Ok(Exit::Success)
}

fn ask(environment: &Environment, good: fn(&Answer) -> bool) -> Result<Exit> {
    let answer = metrics_socket::ask(&environment.metrics_path())?;
    if !good(&answer) {
        bail!("the connector is {}", answer.state());
    }
    Ok(Exit::Success)
}

/// One message to stderr; whoever closed it does not want it.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
