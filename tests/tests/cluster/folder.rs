//! What the READMEs of the connectors say of their folders: `cdk build`, `cdk test`, `cdk deploy start`
//! there, with the real cdk and the real connectors.
//!
//! A `cargo` of the test's own takes the place of `cargo build` alone: it notes how cdk calls it, and puts
//! what is built already where cargo would. Which folder, which package, which file cdk takes is cdk's.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::process::of_config;
use millpond::cluster::split::split;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_tests::fleet::Fleet;
use millpond_tests::on_cluster::PROGRAMS;
use millpond_tests::process::{self, Running, stderr, stdout};
use millpond_tests::{config, eventually};
use rustix::process::{Pid, Signal, kill_process};

use crate::BUILT;

const CARGO: &str = r#"#!/bin/sh
[ "$1" = metadata ] && exec "$REAL_CARGO" "$@"
[ "$1" = build ] || exit 0
printf '%s\n' "$*" >> "$BUILDS"
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile=$2; shift;;
        -p) package=$2; shift;;
        --target) target=$2; shift;;
    esac
    shift
done
dir="$CARGO_TARGET_DIR/$target/$profile"
mkdir -p "$dir"
for name in "$package" "$(printf %s "$package" | tr - _)"; do
    ln -sf "$BUILT/$package" "$dir/$name"
done
"#;

/// A workspace that looks like this one, with a fleet beside it.
struct Scene {
    fleet: Fleet,
    cluster: LocalCluster,
    bin: PathBuf,
}

impl Scene {
    async fn new() -> Result<Self> {
        let cluster = LocalCluster::start().await?;
        let fleet = Fleet::new(BUILT, cluster.endpoint(), 2).await?;
        let scene = Self {
            fleet,
            cluster,
            bin: LocalCluster::bin_dir().context("the folder of Fluvio's programs")?,
        };
        let dir = scene.dir();
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let copy = dir.join("workspace");
        std::fs::create_dir_all(copy.join("connector"))?;
        std::fs::create_dir_all(dir.join("bin"))?;
        std::fs::create_dir_all(dir.join("built"))?;
        for name in [
            "Cargo.toml",
            "Cargo.lock",
            "crates",
            "smartmodules",
            "tests",
        ] {
            symlink(real.join(name), copy.join(name))?;
        }
        for connector in std::fs::read_dir(real.join("connector"))? {
            let connector = connector?;
            let folder = copy.join("connector").join(connector.file_name());
            std::fs::create_dir(&folder)?;
            for entry in std::fs::read_dir(connector.path())? {
                let entry = entry?;
                symlink(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        let built = [
            ("millpond-kinesis-source", BUILT.source),
            ("millpond-dynamodb-sink", BUILT.sink),
        ];
        for (name, binary) in built {
            symlink(binary, dir.join("built").join(name))?;
        }
        let cargo = dir.join("bin/cargo");
        std::fs::write(&cargo, CARGO)?;
        std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755))?;
        for (part, name) in split(&config::pipeline()).into_iter().zip(["in", "out"]) {
            std::fs::write(dir.join(format!("{name}.yaml")), part.text)?;
        }
        Ok(scene)
    }

    fn dir(&self) -> &Path {
        self.fleet.pipeline.dir()
    }

    /// `cdk` in the folder of a connector.
    fn cdk(&self, connector: &str, arguments: &[&str]) -> Command {
        let dir = self.dir();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(self.bin.join("cdk"));
        command
            .args(arguments)
            .current_dir(dir.join("workspace/connector").join(connector))
            .envs(self.fleet.pipeline.environment.iter().cloned())
            .env("PATH", format!("{}:{path}", dir.join("bin").display()))
            .env(
                "REAL_CARGO",
                std::env::var("CARGO").unwrap_or(env!("CARGO").to_owned()),
            )
            .env("CARGO", dir.join("bin/cargo"))
            .env("CARGO_TARGET_DIR", dir.join("target"))
            .env("CARGO_NET_OFFLINE", "true")
            .env("BUILDS", dir.join("builds"))
            .env("BUILT", dir.join("built"))
            .env("TMPDIR", dir)
            .env("MILLPOND_FLUVIO_ENDPOINT", self.cluster.endpoint())
            .env("MILLPOND_DATA_DIR", dir.join("state"))
            .env(
                "FLUVIO_METRIC_CONNECTOR",
                dir.join(connector).with_extension("sock"),
            );
        command
    }

    fn succeed(&self, connector: &str, arguments: &[&str]) -> Result<String> {
        let output: Output = process::run(&mut self.cdk(connector, arguments))?;
        ensure!(
            output.status.success(),
            "cdk {arguments:?}: {}\n{}\n{}",
            output.status,
            stdout(&output),
            stderr(&output)
        );
        Ok(stdout(&output))
    }

    /// Path of a document.
    fn document(&self, name: &str) -> PathBuf {
        self.dir().join(format!("{name}.yaml"))
    }

    /// Ends a connector as an operator does, and waits until it has drained.
    async fn shut_down(&self, connector: &str, name: &str, document: &Path) -> Result<()> {
        self.succeed(connector, &["deploy", "shutdown", "--name", name])?;
        eventually("end of a drained process", async || {
            Ok(of_config(document).is_empty().then_some(()))
        })
        .await?;
        let folder = self.dir().join("workspace/connector").join(connector);
        let log = std::fs::read_to_string(folder.join(format!("{name}.log")))?;
        ensure!(log.contains("drained"), "{log}");
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nothing that was started outlives a test that failed half way.
        for name in ["in", "out"] {
            for pid in of_config(&self.document(name)) {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cdk_works_in_the_folders_of_the_connectors() -> Result<()> {
    if !LocalCluster::is_available_with("cdk_works_in_the_folders_of_the_connectors", PROGRAMS) {
        return Ok(());
    }
    let scene = Scene::new().await?;
    let (source, sink) = (scene.document("in"), scene.document("out"));
    let path = |file: &Path| file.display().to_string();
    let secrets = scene.dir().join("secrets.env");
    std::fs::write(&secrets, "UNUSED=1\n")?;

    for connector in ["kinesis-source", "dynamodb-sink"] {
        scene.succeed(connector, &["build"])?;
        let builds = std::fs::read_to_string(scene.dir().join("builds"))?;
        let last = builds.lines().last().unwrap_or_default();
        let wanted = format!("build --profile release -p millpond-{connector} --target ");
        ensure!(last.starts_with(&wanted), "{builds}");
    }
    let (of_source, of_secrets) = (path(&source), path(&secrets));
    scene.succeed(
        "kinesis-source",
        &[
            "deploy",
            "start",
            "--config",
            &of_source,
            "--secrets",
            &of_secrets,
        ],
    )?;
    let of_sink = path(&sink);
    scene.succeed("dynamodb-sink", &["deploy", "start", "--config", &of_sink])?;
    scene.fleet.pipeline.emit(500, 61)?;
    scene.fleet.arrived(500).await?;
    let listed = scene.succeed("kinesis-source", &["deploy", "list"])?;
    for name in ["events-source", "events-sink"] {
        let line = listed.lines().find(|line| line.contains(name));
        ensure!(
            line.is_some_and(|line| line.contains("Running")),
            "{listed}"
        );
        let logged = scene.succeed("dynamodb-sink", &["deploy", "log", "--name", name])?;
        ensure!(logged.contains("connected"), "{logged}");
    }
    scene
        .shut_down("kinesis-source", "events-source", &source)
        .await?;
    scene
        .shut_down("dynamodb-sink", "events-sink", &sink)
        .await?;

    // In the foreground, until Ctrl-C, which reaches both.
    for (connector, document) in [("kinesis-source", &source), ("dynamodb-sink", &sink)] {
        let file = path(document);
        let arguments = ["test", "--config", &file, "--secrets", &of_secrets];
        let mut test = Running::start(&mut scene.cdk(connector, &arguments))?;
        test.stderr_line("connected")?;
        let mut processes = of_config(document);
        // cdk has the same argument.
        processes.retain(|pid| *pid != test.id());
        let [pid] = processes[..] else {
            anyhow::bail!("not one connector of `{file}`: {processes:?}");
        };
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process")?, Signal::INT)?;
        let status = test.wait()?;
        let (said, log) = test.rest();
        ensure!(status.success(), "{status}\n{said}\n{log}");
    }
    scene.fleet.pipeline.verify(500, 61)
}
