//! `millpond local`: the stand-ins for Kinesis and DynamoDB, on loopback.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use dynoxide::Database;
use millpond_kinesis_local::{Server, ServerConfig};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use crate::child;
use crate::cli::LocalArgs;
use crate::commands::{print, say};
use crate::exit::Exit;
use crate::signals::Signals;

/// Region that the printed environment names; the stand-ins take any.
pub const REGION: &str = "us-east-1";
/// Access key and secret key that the printed environment names.
pub const CREDENTIAL: &str = "millpond";

/// Waiting connections of the DynamoDB stand-in.
const BACKLOG: u32 = 1024;

/// Runs `millpond local` until a signal, or until the parent is gone.
///
/// # Errors
/// When a port is taken, or the data directory cannot be used.
pub async fn run(args: LocalArgs) -> Result<Exit> {
    let mut signals = Signals::listen()?;
    let kinesis_server = Server::start(ServerConfig {
        port: args.kinesis_port,
        ..ServerConfig::default()
    })
    .await
    .context("cannot start the Kinesis stand-in (`--kinesis-port`)")?;
    let kinesis = kinesis_server.addr;
    let dynamodb_listener = listen(args.dynamodb_port, "--dynamodb-port")?;
    let dynamodb = dynamodb_listener.local_addr()?;
    let database = open_database(args.data_dir.as_deref())?;

    let (stop_dynamodb, stopped) = oneshot::channel::<()>();
    let dynamodb_server = tokio::spawn(dynoxide::server::serve_with_shutdown(
        dynamodb_listener,
        database,
        async {
            let _ = stopped.await;
        },
    ));

    print(environment_text(kinesis, dynamodb).trim_end())?;
    if args.exit_with_parent {
        tokio::select! {
            () = signals.next() => {}
            () = child::parent_gone()? => {}
        }
    } else {
        say(&format!(
            "millpond local: ready (Kinesis on {kinesis}, DynamoDB on {dynamodb}); Ctrl-C ends it"
        ));
        signals.next().await;
    }
    // Whoever still holds a connection must not keep this process: it is only told to stop.
    drop(stop_dynamodb);
    drop(kinesis_server);
    dynamodb_server.abort();
    Ok(Exit::Success)
}

/// The environment for the AWS SDKs and the `aws` command, as shell text.
#[must_use]
pub fn environment_text(kinesis: SocketAddr, dynamodb: SocketAddr) -> String {
    let mut text = String::new();
    for (name, value) in environment(kinesis, dynamodb) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "export {name}={value}");
    }
    text
}

fn environment(kinesis: SocketAddr, dynamodb: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_KINESIS", format!("http://{kinesis}")),
        ("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{dynamodb}")),
        ("AWS_REGION", REGION.to_owned()),
        // The aws command and boto3 read this one only.
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", CREDENTIAL.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", CREDENTIAL.to_owned()),
    ]
}

/// Reads one line of [`environment_text`].
#[must_use]
pub fn parse_export(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

/// Name of the last variable of [`environment_text`].
pub const LAST_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";

fn listen(port: u16, option: &str) -> Result<TcpListener> {
    let bind = || -> std::io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        // Inherited by the accepted connections: without it an answer of several
        // segments may wait for a delayed acknowledgement.
        socket.set_nodelay(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        socket.listen(BACKLOG)
    };
    bind().with_context(|| {
        format!("cannot listen on 127.0.0.1:{port}; give another port with `{option}`, or 0 for any free one")
    })
}

fn open_database(data_dir: Option<&Path>) -> Result<Database> {
    let Some(dir) = data_dir else {
        return Database::memory()
            .map_err(|error| anyhow!("cannot open tables in memory: {error}"));
    };
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot create the data directory `{}`", dir.display()))?;
    let path = dir.join("dynamodb.sqlite");
    let text = path
        .to_str()
        .with_context(|| format!("data directory `{}` is not UTF-8", dir.display()))?;
    Database::new(text).map_err(|error| anyhow!("cannot open the tables in `{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_environment_can_be_read_back() {
        let kinesis = SocketAddr::from((Ipv4Addr::LOCALHOST, 4567));
        let dynamodb = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        let text = environment_text(kinesis, dynamodb);
        let read: Vec<_> = text.lines().filter_map(parse_export).collect();
        assert_eq!(read.len(), text.lines().count());
        assert_eq!(
            read.first(),
            Some(&(
                "AWS_ENDPOINT_URL_KINESIS".to_owned(),
                "http://127.0.0.1:4567".to_owned()
            ))
        );
        assert_eq!(
            read.last().map(|(name, _)| name.as_str()),
            Some(LAST_VARIABLE)
        );
    }
}
