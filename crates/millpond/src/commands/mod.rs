//! One module per command: arguments in, exit code out.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use aws_config::SdkConfig;
use millpond_connector::aws::{AwsSettings, place};
use millpond_connector::problem::Problems;

use millpond_reader::{OnDamage, Reader, ReaderConfig};

use crate::cli::{AwsArgs, TableArgs};
use crate::exit::Exit;

pub mod demo;
pub mod deploy;
pub mod dlq;
pub mod down;
pub mod emit;
pub mod export;
pub mod groups;
pub mod inspect;
pub mod local;
pub mod read;
pub mod run;
pub mod schema;
pub mod status;
pub mod tail;
pub mod validate;
pub mod verify;

/// Width of messages with snippets.
const TERMINAL_WIDTH: usize = 100;

impl AwsArgs {
    /// Reads the AWS environment, and has the credentials once, so that a lack of them is said at once.
    ///
    /// # Errors
    /// When nothing names a region, an endpoint is none, or there are no credentials.
    pub async fn load(&self) -> anyhow::Result<SdkConfig> {
        let settings = AwsSettings {
            region: self.region.clone(),
            endpoint: self.endpoint_url.clone(),
            profile: self.profile.clone(),
        };
        let sdk = settings.load().await?;
        settings.check_credentials(&sdk).await?;
        Ok(sdk)
    }
}

impl TableArgs {
    /// Opens a reader on the table.
    ///
    /// # Errors
    /// See [`AwsArgs::load`]; when the table cannot be had, or does not fit.
    pub async fn open(&self, on_damage: OnDamage) -> anyhow::Result<Reader> {
        self.open_as(on_damage, true).await
    }

    /// The same; without `consistent`, items are read eventually consistent.
    ///
    /// # Errors
    /// See [`TableArgs::open`].
    pub async fn open_as(&self, on_damage: OnDamage, consistent: bool) -> anyhow::Result<Reader> {
        let sdk = self.aws.load().await?;
        let client = aws_sdk_dynamodb::Client::new(&sdk);
        let config = ReaderConfig {
            place: Some(place(&sdk, "DynamoDB")),
            pipeline: self.pipeline.clone(),
            consistent,
            on_damage,
            max_read_units: self.max_read_units,
            ..ReaderConfig::new(self.table.as_str())
        };
        Ok(Reader::open(client, config).await?)
    }
}

/// Damaged items that a command went past, when it was told to.
#[derive(Debug, Clone, Default)]
pub struct Damaged(Arc<AtomicU64>);

impl Damaged {
    /// What to do with damage: tell of it and count it, or end.
    #[must_use]
    pub fn policy(&self, skip: bool) -> OnDamage {
        if !skip {
            return OnDamage::Fail;
        }
        let count = Arc::clone(&self.0);
        OnDamage::Skip(Arc::new(move |damage| {
            count.fetch_add(1, Ordering::Relaxed);
            say(&format!("skipped: {damage}"));
        }))
    }

    /// How a command that went past them ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.0.load(Ordering::Relaxed) {
            0 => Exit::Success,
            count => {
                say(&format!(
                    "{count} damaged places were skipped; the rest was read"
                ));
                Exit::Damaged
            }
        }
    }
}

/// Writes a result to stdout.
///
/// # Errors
/// When stdout cannot be written; see [`is_broken_pipe`].
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Writes a message to stderr; one that cannot be written is dropped.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows what is wrong with a file: with snippets on a terminal, else one line each.
pub fn print_problems(problems: &Problems) {
    if problems.is_empty() {
        return;
    }
    let text = if io::stderr().is_terminal() {
        problems.fancy(std::env::var_os("NO_COLOR").is_none(), TERMINAL_WIDTH)
    } else {
        problems.plain()
    };
    say(text.trim_end());
    let (errors, warnings) = (problems.errors(), problems.warnings());
    say(&format!("{errors} errors, {warnings} warnings"));
}

/// True when whoever read stdout has gone (`millpond read ... | head`): a quiet end, no failure.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
