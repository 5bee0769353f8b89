//! `deploy`, `status` and `down` against a real Fluvio cluster and the real cdk.
//!
//! The connectors are stand-ins here: shell scripts that wait for SIGTERM. What is tested is what
//! the commands do to topic, SmartModule and processes, not the way of an event.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::PROGRAM_DIR_VARIABLE;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_tests::on_cluster::{PACKAGES, PROGRAMS};
use millpond_tests::process::{self, command};
use millpond_tests::{config, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::BUILT;

const WAITS: &str =
    "#!/bin/sh\ntrap 'echo drained; exit 0' TERM\necho started\nwhile :; do sleep 0.1; done\n";

struct Scene {
    cluster: LocalCluster,
    dir: TempDir,
    bin: PathBuf,
}

impl Scene {
    async fn new(test: &str) -> Result<Option<Self>> {
        if !LocalCluster::is_available_with(test, PROGRAMS) {
            return Ok(None);
        }
        let bin = LocalCluster::bin_dir().context("the folder of Fluvio's programs")?;
        let dir = TempDir::new()?;
        config::write(dir.path(), &config::pipeline())?;
        let scene = Self {
            cluster: LocalCluster::start().await?,
            dir,
            bin,
        };
        for (type_name, description) in PACKAGES {
            let parts = scene.dir.path().join(type_name);
            std::fs::create_dir(&parts)?;
            std::fs::write(parts.join("Connector.toml"), description)?;
            scene.set_binary(type_name, WAITS)?;
        }
        Ok(Some(scene))
    }

    fn set_binary(&self, type_name: &str, text: &str) -> Result<()> {
        let file = self
            .dir
            .path()
            .join(type_name)
            .join(format!("millpond-{type_name}"));
        std::fs::write(&file, text)?;
        Ok(std::fs::set_permissions(
            &file,
            PermissionsExt::from_mode(0o755),
        )?)
    }

    fn millpond(&self, arguments: &[&str]) -> Result<Output> {
        let endpoint = self.cluster.endpoint();
        let mut command = command(BUILT.millpond, arguments, &[]);
        command
            .current_dir(self.dir.path())
            .env(PROGRAM_DIR_VARIABLE, &self.bin)
            .env("TMPDIR", self.dir.path());
        if arguments[0] != "down" {
            command.args(["--cluster", &endpoint]);
        }
        process::run(&mut command)
    }

    fn deploy(&self) -> Result<Output> {
        self.millpond(&[
            "deploy",
            "--package-dir=kinesis-source",
            "--package-dir=dynamodb-sink",
        ])
    }

    fn status(&self) -> Result<Value> {
        let output = self.millpond(&["status", "--json"])?;
        ensure!(output.status.success(), "{}", process::stderr(&output));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn states(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let connectors = status["connectors"].as_array().cloned().unwrap_or_default();
        let state = |one: &Value| one["state"].as_str().unwrap_or_default().to_owned();
        Ok(connectors.iter().map(state).collect())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nothing that was started outlives a test that failed half way.
        let _ = self.millpond(&["down"]);
    }
}

fn succeeded(output: &Output) -> Result<String> {
    let said = process::stdout(output);
    ensure!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        process::stderr(output)
    );
    Ok(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying_twice_changes_nothing_and_down_leaves_topic_and_module() -> Result<()> {
    let Some(scene) = Scene::new("deploying_twice").await? else {
        return Ok(());
    };
    succeeded(&scene.millpond(&["deploy", "--dry-run"])?)?;
    ensure!(
        !scene.cluster.fluvio(&["topic", "list"])?.contains("events"),
        "a dry run created a topic"
    );

    succeeded(&scene.deploy()?)?;
    assert_eq!(scene.states()?, ["running", "running"]);
    let before = scene.status()?;
    // The SPU tells the SC of its partitions a moment later.
    eventually("partitions", async || {
        let partitions = scene.status()?["partitions"].as_array().map_or(0, Vec::len);
        Ok((partitions == 4).then_some(()))
    })
    .await?;
    ensure!(
        scene
            .cluster
            .fluvio(&["smartmodule", "list"])?
            .contains("millpond-pack")
    );

    let said = succeeded(&scene.deploy()?)?;
    ensure!(said.starts_with("nothing to do"), "{said}");
    assert_eq!(
        scene.status()?["connectors"],
        before["connectors"],
        "same processes"
    );

    succeeded(&scene.millpond(&["down"])?)?;
    assert_eq!(scene.states()?, ["not-deployed", "not-deployed"]);
    for name in ["events-source", "events-sink"] {
        let log = scene
            .dir
            .path()
            .join(".millpond/cluster")
            .join(format!("{name}.log"));
        ensure!(
            std::fs::read_to_string(log)?.contains("drained"),
            "{name} did not drain"
        );
    }
    let said = succeeded(&scene.millpond(&["down"])?)?;
    ensure!(said.starts_with("nothing to do"), "{said}");
    ensure!(
        scene.cluster.fluvio(&["topic", "list"])?.contains("events"),
        "the topic is gone"
    );
    ensure!(
        scene
            .cluster
            .fluvio(&["smartmodule", "list"])?
            .contains("millpond-pack")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_other_settings_is_left_alone() -> Result<()> {
    let Some(scene) = Scene::new("a_topic_with_other_settings").await? else {
        return Ok(());
    };
    scene
        .cluster
        .fluvio(&["topic", "create", "events", "--partitions", "2"])?;
    let output = scene.deploy()?;
    let log = process::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    ensure!(
        log.contains("topic `events` has partitions: 2, the file says 4"),
        "{log}"
    );
    assert_eq!(scene.states()?, ["not-deployed", "not-deployed"]);
    ensure!(
        !scene
            .cluster
            .fluvio(&["smartmodule", "list"])?
            .contains("millpond-pack")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_module_is_replaced_and_a_dead_connector_started_again() -> Result<()> {
    let Some(scene) = Scene::new("another_module").await? else {
        return Ok(());
    };
    // One that dies at once is an error, with the end of its log.
    scene.set_binary(
        "dynamodb-sink",
        "#!/bin/sh\necho no credentials at all\nexit 1\n",
    )?;
    let output = scene.deploy()?;
    let log = process::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    ensure!(
        log.contains("`events-sink` ended right after its start")
            && log.contains("no credentials at all"),
        "{log}"
    );
    assert_eq!(scene.states()?, ["running", "ended"]);

    // Bytes of another module under the same name.
    let other = scene.dir.path().join("other.wasm");
    std::fs::write(&other, b"\0asm\x01\0\0\0")?;
    let path = other.to_str().unwrap_or_default();
    scene.cluster.fluvio(&[
        "smartmodule",
        "create",
        "millpond-pack-0-1-0",
        "--wasm-file",
        path,
    ])?;
    scene.set_binary("dynamodb-sink", WAITS)?;
    let said = succeeded(&scene.deploy()?)?;
    ensure!(said.contains("replace SmartModule"), "{said}");
    ensure!(
        said.contains("start connector `events-sink`")
            && !said.contains("start connector `events-source`"),
        "{said}"
    );
    assert_eq!(scene.states()?, ["running", "running"]);
    let said = succeeded(&scene.deploy()?)?;
    ensure!(said.starts_with("nothing to do"), "{said}");
    Ok(())
}
