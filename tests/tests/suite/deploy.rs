//! `deploy`, `status` and `down` as whole processes, without a cluster: what cdk is asked to do.
//!
//! The first tests put a shell script in the place of `cdk`, which records its calls. The last one
//! takes the real `cdk` where there is one (in `MILLPOND_FLUVIO_BIN`, or on PATH).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::cdk::{PROGRAM_DIR_VARIABLE, Start, find_program};
use millpond::cluster::package;
use millpond_connector::meta::TopicSettings;
use millpond_connector::topic::Topic as _;
use millpond_embedded_topic::conformance;
use millpond_fluvio_topic::{Cluster, ClusterSettings, TopicOptions};
use millpond_tests::process::{self, command};
use millpond_tests::scripted_cluster::{Fault, ScriptedCluster, Server};
use millpond_tests::{announce_skipped, config};
use tempfile::TempDir;

use crate::MILLPOND;

/// A port of the system's own that nothing answers on.
const NOBODY: &str = "127.0.0.1:1";

fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(
        path,
        PermissionsExt::from_mode(0o755),
    )?)
}

/// A directory with a configuration, and a `cdk` that is none.
struct Scene {
    dir: TempDir,
}

impl Scene {
    /// `list` is what the stand-in answers to `deploy list`.
    fn new(list: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        config::write(dir.path(), &config::pipeline())?;
        std::fs::create_dir(dir.path().join("bin"))?;
        let scene = Self { dir };
        scene.set_list(list)?;
        write_program(
            &scene.path("bin/cdk"),
            "#!/bin/sh\nprintf '%s\\n' \"$*\" >> \"$CDK_CALLS\"\n\
             case \"$2\" in list) cat \"$CDK_LIST\";; esac\n",
        )?;
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set_list(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path("list"), text)?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(MILLPOND, arguments, &[]);
        command
            .current_dir(self.dir.path())
            .env(PROGRAM_DIR_VARIABLE, self.path("bin"))
            .env("CDK_CALLS", self.path("calls"))
            .env("CDK_LIST", self.path("list"))
            .env("TMPDIR", self.dir.path());
        command
    }

    fn millpond(&self, arguments: &[&str]) -> Result<Output> {
        process::run(&mut self.command(arguments))
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const NONE: &str = "No connectors found\n";

#[test]
fn a_dry_run_needs_no_cluster_and_changes_nothing() -> Result<()> {
    let scene = Scene::new(NONE)?;
    let output = scene.millpond(&["deploy", "--dry-run", "--cluster", NOBODY])?;
    let (said, log) = (process::stdout(&output), process::stderr(&output));
    ensure!(output.status.success(), "{}\n{log}", output.status);
    ensure!(log.contains("the cluster cannot be asked"), "{log}");
    for part in [
        "fluvio topic create events --partitions=4",
        "upload SmartModule",
        "FLUVIO_METRIC_CONNECTOR=",
        "cluster/events-source.yaml",
        "cdk deploy start --ipkg",
        "--config",
        "dynamodb-sink.ipkg",
    ] {
        ensure!(said.contains(part), "no `{part}` in\n{said}");
    }
    ensure!(!scene.path(".millpond").exists(), "it wrote something");
    assert_eq!(scene.calls(), ["deploy list"]);
    Ok(())
}

/// Sinks that share a pipeline are documents of their own: cdk knows connectors by their names.
#[test]
fn each_sink_of_a_pipeline_is_started_under_its_name() -> Result<()> {
    let scene = Scene::new(NONE)?;
    let text = config::pipeline();
    let (source, sink) = text.split_once("---\n").context("two documents")?;
    let sink = |name: &str| {
        let named = sink.replace("name: events-sink\n", &format!("name: {name}\n"));
        named.replace("table: events\n", "table: events\n  pipeline: events\n")
    };
    let both = format!("{source}---\n{}---\n{}", sink("sink-1"), sink("sink-2"));
    config::write(scene.dir.path(), &both)?;
    let output = scene.millpond(&["deploy", "--dry-run", "--cluster", NOBODY])?;
    let (said, log) = (process::stdout(&output), process::stderr(&output));
    ensure!(output.status.success(), "{}\n{log}", output.status);
    for part in [
        "cluster/sink-1.yaml",
        "cluster/sink-2.yaml",
        "sink-1.sock",
        "sink-2.sock",
    ] {
        ensure!(said.contains(part), "no `{part}` in\n{said}");
    }
    Ok(())
}

#[test]
fn a_wrong_file_is_refused_before_anything_is_asked() -> Result<()> {
    let scene = Scene::new(NONE)?;
    config::write(
        scene.dir.path(),
        &config::pipeline().replace("stream:", "streem:"),
    )?;
    for arguments in [&["deploy"][..], &["status"], &["down"]] {
        let output = scene.millpond(arguments)?;
        assert_eq!(
            output.status.code(),
            Some(3),
            "{}",
            process::stderr(&output)
        );
    }
    assert_eq!(scene.calls(), [""; 0]);
    Ok(())
}

#[test]
fn a_missing_cdk_says_how_to_get_it() -> Result<()> {
    let scene = Scene::new(NONE)?;
    std::fs::remove_file(scene.path("bin/cdk"))?;
    for arguments in [&["deploy", "--cluster", NOBODY][..], &["down"]] {
        let mut command = scene.command(arguments);
        let output = process::run(command.env("PATH", scene.path("bin")))?;
        let log = process::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{log}");
        ensure!(
            log.contains("MILLPOND_FLUVIO_BIN") && log.contains("fvm"),
            "{log}"
        );
    }
    Ok(())
}

#[test]
fn a_missing_cluster_is_named() -> Result<()> {
    let scene = Scene::new(" NAME  STATUS \n events-sink  Stopped \n")?;
    for arguments in [
        &["deploy", "--cluster", NOBODY][..],
        &["status", "--cluster", NOBODY],
    ] {
        let output = scene.millpond(arguments)?;
        let log = process::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{log}");
        ensure!(log.contains(NOBODY), "{log}");
    }
    ensure!(!scene.path(".millpond").exists(), "it wrote something");
    ensure!(
        !scene.calls().iter().any(|call| call.contains("start")),
        "it started something"
    );
    // What is known is shown all the same.
    let output = scene.millpond(&["status", "--json", "--cluster", NOBODY])?;
    assert_eq!(output.status.code(), Some(1));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(shown["connectors"][0]["state"], "not-deployed");
    assert_eq!(shown["connectors"][1]["state"], "ended");
    let unknown = shown["unknown"][0].as_str().unwrap_or_default();
    ensure!(unknown.contains(NOBODY), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_another_version_is_refused_by_name() -> Result<()> {
    let scene = Scene::new(NONE)?;
    let servers = ScriptedCluster::start().await?;
    let endpoint = servers.endpoint();
    for verb in ["deploy", "status"] {
        servers.script(Fault::OtherVersion(Server::Sc));
        let mut command = scene.command(&[verb, "--cluster", &endpoint]);
        let output = tokio::task::spawn_blocking(move || process::run(&mut command)).await??;
        let log = process::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{log}");
        for part in [endpoint.as_str(), "0.9.0", "Fluvio 0.50"] {
            ensure!(log.contains(part), "no `{part}` in {log}");
        }
    }
    assert_eq!(servers.pending(), []);
    ensure!(
        !scene.calls().iter().any(|call| call.contains("start")),
        "it started something"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_what_there_is_and_says_what_there_is_not() -> Result<()> {
    let scene = Scene::new(" NAME  STATUS \n events-sink  Stopped \n")?;
    let mut servers = ScriptedCluster::start().await?;
    let endpoint = servers.endpoint();
    let status = async |more: &[&str]| -> Result<Output> {
        let arguments = [&["status", "--cluster", &endpoint], more].concat();
        let mut command = scene.command(&arguments);
        tokio::task::spawn_blocking(move || process::run(&mut command)).await?
    };
    let output = status(&[]).await?;
    let said = process::stdout(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        process::stderr(&output)
    );
    for part in [
        "events-source  kinesis-source  not deployed",
        "events-sink    dynamodb-sink   ended",
        "topic `events` does not exist",
    ] {
        ensure!(said.contains(part), "no `{part}` in\n{said}");
    }

    let cluster = Cluster::connect(&ClusterSettings {
        endpoint: Some(endpoint.clone()),
        ..ClusterSettings::default()
    })
    .await?;
    let mut settings = TopicSettings::named("events".to_owned());
    settings.partitions = Some(2);
    cluster.create_topic(&settings).await?;
    let topic = cluster
        .open_topic("events", TopicOptions::default())
        .await?;
    topic.append(0, conformance::batch(0, 0, 100)).await?;
    let output = status(&[]).await?;
    let said = process::stdout(&output);
    ensure!(
        said.contains("no sink has committed anything of topic `events` yet"),
        "{said}"
    );
    topic.release(0, "events-sink", 60).await?;
    let output = status(&["--json"]).await?;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let consumer = &shown["partitions"][0]["consumers"][0];
    assert_eq!(
        (&consumer["committed"], &consumer["lag"]),
        (&60.into(), &40.into()),
        "{shown}"
    );
    assert_eq!(shown["partitions"][1]["consumers"], serde_json::json!([]));

    // The SPU is away: how far the sinks are is not known, the rest is.
    servers.stop(Server::Spu).await;
    let output = status(&["--json"]).await?;
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        process::stderr(&output)
    );
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(shown["partitions"][0]["end"], 100, "{shown}");
    let unknown = shown["unknown"][0].as_str().unwrap_or_default();
    ensure!(unknown.contains("how far the sinks have come"), "{shown}");
    Ok(())
}

#[test]
fn down_stops_sources_first_and_once() -> Result<()> {
    let scene = Scene::new(
        " NAME           STATUS  \n events-sink    Running \n events-source  Stopped \n other  Running \n",
    )?;
    let output = scene.millpond(&["down"])?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    let shutdowns: Vec<String> = scene
        .calls()
        .into_iter()
        .filter(|call| !call.ends_with("list"))
        .collect();
    assert_eq!(
        shutdowns,
        [
            "deploy shutdown --name events-source",
            "deploy shutdown --name events-sink"
        ]
    );
    scene.set_list(NONE)?;
    let output = scene.millpond(&["down"])?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    ensure!(
        process::stdout(&output).contains("nothing to do"),
        "{}",
        process::stdout(&output)
    );
    Ok(())
}

/// The package that is made here is what the real cdk takes apart.
#[tokio::test]
async fn the_real_cdk_takes_our_packages() -> Result<()> {
    let dir = std::env::var_os(PROGRAM_DIR_VARIABLE);
    let path = std::env::var_os("PATH");
    let Some(cdk) = find_program("cdk", dir.as_ref(), path.as_ref()) else {
        announce_skipped(
            "the_real_cdk_takes_our_packages",
            "no `cdk` in MILLPOND_FLUVIO_BIN or on PATH",
        );
        return Ok(());
    };
    let scene = Scene::new(NONE)?;
    let parts = scene.path("parts");
    std::fs::create_dir(&parts)?;
    std::fs::write(
        parts.join("Connector.toml"),
        include_str!("../../../connector/dynamodb-sink/Connector.toml"),
    )?;
    // Ends a moment after SIGTERM, as a connector that drains does.
    write_program(
        &parts.join("millpond-dynamodb-sink"),
        "#!/bin/sh\ntrap 'echo drained; exit 0' TERM\necho \"started $*\"\nwhile :; do sleep 0.1; done\n",
    )?;
    let packed = scene.path("sink.ipkg");
    package::write(
        &package::find("dynamodb-sink", std::slice::from_ref(&parts))?,
        std::fs::File::create(&packed)?,
    )?;
    let text = config::pipeline();
    let document = millpond::cluster::split::split(&text)
        .pop()
        .context("a sink")?
        .text;
    let state = scene.path(".millpond/cluster");
    std::fs::create_dir_all(&state)?;
    let file = state.join("events-sink.yaml");
    std::fs::write(&file, document)?;

    let arguments = Start {
        config: file.clone(),
        secrets: None,
        package: packed,
    }
    .arguments();
    let call = |arguments: &[String]| -> Result<Output> {
        let mut command = Command::new(&cdk);
        command
            .args(arguments)
            .current_dir(&state)
            .env("TMPDIR", scene.dir.path());
        process::run(&mut command)
    };
    let output = call(&arguments)?;
    ensure!(output.status.success(), "{}", process::stderr(&output));
    millpond_tests::eventually("start", async || {
        let log = std::fs::read_to_string(state.join("events-sink.log")).unwrap_or_default();
        Ok(log.contains("started --config").then_some(()))
    })
    .await?;

    std::fs::remove_file(scene.path("bin/cdk"))?;
    std::os::unix::fs::symlink(&cdk, scene.path("bin/cdk"))?;
    let output = scene.millpond(&["down"])?;
    let log = process::stderr(&output);
    ensure!(output.status.success(), "{log}");
    ensure!(
        process::stdout(&output).contains("stopped `events-sink`"),
        "{log}"
    );
    // `down` has waited for the end.
    let log = std::fs::read_to_string(state.join("events-sink.log"))?;
    ensure!(log.contains("drained"), "{log}");
    ensure!(
        millpond::cluster::process::of_config(&file).is_empty(),
        "it still runs"
    );
    let output = scene.millpond(&["down"])?;
    ensure!(
        process::stdout(&output).contains("nothing to do"),
        "{}",
        process::stdout(&output)
    );
    Ok(())
}
