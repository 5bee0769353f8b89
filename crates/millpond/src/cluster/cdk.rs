//! The Connector Development Kit, called as a program.
//!
//! What it does, read in its source (0.50.2) and seen: `deploy start` checks the configuration,
//! starts the binary detached with its output in `<connector>.log` of the current directory
//! (emptied at each start), and only then notes it in its list, failing if the name is taken: the
//! process runs on, unlisted. So a name is started only when the list does not hold it. The list
//! is one file in the temporary directory, `TMPDIR` included, and holds ended connectors until
//! `shutdown`, which sends SIGTERM and waits for nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::process::{self, Life};
use super::shell;

/// Directory of Fluvio's programs, where they are not on PATH.
pub const PROGRAM_DIR_VARIABLE: &str = "MILLPOND_FLUVIO_BIN";

/// cdk's own list, in the temporary directory.
const INDEX_FILE: &str = "fluvio_cdk_deploy_index.toml";

/// A connector in cdk's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its process runs.
    pub running: bool,
    /// Its process, as far as cdk's own file says.
    pub pid: Option<u32>,
    /// Its log file, as far as cdk's own file says.
    pub log: Option<PathBuf>,
}

/// How to start a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its configuration, one document.
    pub config: PathBuf,
    /// File of secrets.
    pub secrets: Option<PathBuf>,
    /// Its package.
    pub package: PathBuf,
}

impl Start {
    /// Arguments after `cdk`.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["deploy".to_owned(), "start".to_owned()];
        let mut option = |name: &str, path: &Path| {
            arguments.push(name.to_owned());
            arguments.push(path.display().to_string());
        };
        option("--ipkg", &self.package);
        option("--config", &self.config);
        if let Some(secrets) = &self.secrets {
            option("--secrets", secrets);
        }
        arguments
    }
}

/// A `cdk` that was found.
#[derive(Debug, Clone)]
pub struct Cdk {
    program: PathBuf,
}

impl Cdk {
    /// Finds `cdk` in `MILLPOND_FLUVIO_BIN`, else on PATH.
    ///
    /// # Errors
    /// When there is none; says how to get it.
    pub fn find() -> Result<Self> {
        let dir = std::env::var_os(PROGRAM_DIR_VARIABLE);
        let path = std::env::var_os("PATH");
        match find_program("cdk", dir.as_ref(), path.as_ref()) {
            Some(program) => Ok(Self { program }),
            None => bail!(
                "`cdk`, which starts and stops connectors, is neither in `{PROGRAM_DIR_VARIABLE}` ({}) nor on PATH; \
                 install Fluvio's tools (`fvm install`, or build `cdk` from Fluvio's source: `cargo install cdk` is another program), \
                 or set `{PROGRAM_DIR_VARIABLE}` to the directory that holds it",
                dir.map_or_else(
                    || "not set".to_owned(),
                    |dir| format!("`{}`", dir.display())
                )
            ),
        }
    }

    /// What cdk has started and not shut down.
    ///
    /// # Errors
    /// When cdk fails or answers something else.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let text = self.call(None, &["deploy", "list"], &[])?;
        let index = std::fs::read_to_string(std::env::temp_dir().join(INDEX_FILE));
        let entries = index.map(|text| parse_index(&text)).unwrap_or_default();
        let mut listed = parse_list(&text)?;
        for connector in &mut listed {
            let Some(entry) = entries.iter().find(|entry| entry.name == connector.name) else {
                continue;
            };
            connector.pid = Some(entry.process_id);
            connector.log.clone_from(&entry.log_file);
            match process::life(entry.process_id) {
                Life::Running => connector.running = true,
                Life::Gone => connector.running = false,
                Life::Unknown => {}
            }
        }
        Ok(listed)
    }

    /// Starts a connector whose name the list does not hold. Its log goes to `dir`.
    ///
    /// # Errors
    /// When cdk fails; with what it said.
    pub fn start(&self, dir: &Path, start: &Start, environment: &[(String, String)]) -> Result<()> {
        let arguments = start.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.call(Some(dir), &arguments, environment).map(drop)
    }

    /// Sends a connector SIGTERM if it runs, and takes it off the list.
    ///
    /// # Errors
    /// When cdk fails; with what it said.
    pub fn shutdown(&self, name: &str) -> Result<()> {
        // It removes the unpacked package, and keeps the entry for ever if that is gone already.
        let index = std::fs::read_to_string(std::env::temp_dir().join(INDEX_FILE));
        let entries = index.map(|text| parse_index(&text)).unwrap_or_default();
        let unpacked = entries
            .iter()
            .find(|entry| entry.name == name)
            .and_then(|entry| entry.tmp_dir.as_ref());
        if let Some(dir) = unpacked.filter(|dir| !dir.exists()) {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create `{}`", dir.display()))?;
        }
        self.call(None, &["deploy", "shutdown", "--name", name], &[])
            .map(drop)
    }

    fn call(
        &self,
        dir: Option<&Path>,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Result<String> {
        let line = shell::line(std::iter::once("cdk").chain(arguments.iter().copied()));
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let output = command
            .output()
            .with_context(|| format!("cannot start `{}`", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{line}` failed ({}): {}", output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Finds a program in a directory, else on a search path.
#[must_use]
pub fn find_program(
    name: &str,
    dir: Option<&OsString>,
    path: Option<&OsString>,
) -> Option<PathBuf> {
    let dirs = dir
        .map(PathBuf::from)
        .into_iter()
        .chain(path.into_iter().flat_map(std::env::split_paths));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Reads the table of `cdk deploy list`.
fn parse_list(text: &str) -> Result<Vec<Listed>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let header = lines.next().unwrap_or_default();
    if header == "No connectors found" {
        return Ok(Vec::new());
    }
    if header.split_whitespace().collect::<Vec<_>>() != ["NAME", "STATUS"] {
        bail!(
            "`cdk deploy list` begins with `{header}`, not with `NAME STATUS`: is this Fluvio's cdk, 0.50?"
        );
    }
    lines
        .map(
            |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                [name, status @ ("Running" | "Stopped")] => Ok(Listed {
                    name: name.to_owned(),
                    running: status == "Running",
                    pid: None,
                    log: None,
                }),
                _ => bail!(
                    "`cdk deploy list` has a line `{line}`, not a name and `Running` or `Stopped`"
                ),
            },
        )
        .collect()
}

#[derive(Debug, Default, Deserialize)]
struct Index {
    #[serde(default)]
    entries: Vec<IndexEntry>,
}

#[derive(Debug, Deserialize)]
struct IndexEntry {
    name: String,
    process_id: u32,
    log_file: Option<PathBuf>,
    tmp_dir: Option<PathBuf>,
}

/// Reads cdk's own list; nothing when it looks otherwise, for it is no interface.
fn parse_index(text: &str) -> Vec<IndexEntry> {
    toml::from_str::<Index>(text).unwrap_or_default().entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let listed = parse_list(
            " NAME           STATUS  \n events-source  Running \n events-sink    Stopped \n",
        )
        .expect("a list");
        let short: Vec<(&str, bool)> = listed
            .iter()
            .map(|listed| (listed.name.as_str(), listed.running))
            .collect();
        assert_eq!(short, [("events-source", true), ("events-sink", false)]);
        assert!(
            parse_list("No connectors found\n")
                .expect("none")
                .is_empty()
        );
        for wrong in [
            "",
            "hello\n",
            " NAME STATUS\n a b c\n",
            " NAME STATUS\n a Odd\n",
        ] {
            assert!(parse_list(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_index_gives_processes() {
        let entries = parse_index(
            "[[entries]]\ntype = \"local\"\nprocess_id = 42\nname = \"a\"\nlog_file = \"/l/a.log\"\ntmp_dir = \"/t/x\"\n",
        );
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].process_id, 42);
        assert!(parse_index("entries = []\n").is_empty());
        assert!(parse_index("not toml").is_empty());
    }

    #[test]
    fn a_start_names_every_file() {
        let start = Start {
            config: "/d/a.yaml".into(),
            secrets: Some("/s".into()),
            package: "/d/a.ipkg".into(),
        };
        assert_eq!(
            start.arguments().join(" "),
            "deploy start --ipkg /d/a.ipkg --config /d/a.yaml --secrets /s"
        );
    }
}
