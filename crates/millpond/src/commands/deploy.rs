//! `millpond deploy`: a file's connectors on a Fluvio cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millpond_connector::secret::SecretStore;

use crate::cli::DeployArgs;
use crate::cluster::api::ClusterApi;
use crate::cluster::cdk::{Cdk, Listed, Start};
use crate::cluster::fluvio;
use crate::cluster::observe::{document_file, observe, package_file, processes};
use crate::cluster::package::{self, Package};
use crate::cluster::pipeline::{ClusterPipeline, WantedConnector, WantedTopic};
use crate::cluster::plan::{Difference, Step, plan};
use crate::cluster::shell;
use crate::commands::{print, say};
use crate::data_dir::DataDir;
use crate::exit::Exit;

/// A connector that lives this long has found its configuration, its credentials and its cluster.
const SETTLING: Duration = Duration::from_secs(2);

/// Lines of a dead connector's log that are shown.
const LOG_LINES: usize = 10;

/// Runs `millpond deploy`.
///
/// # Errors
/// What is in the way: the cluster, cdk, a binary, or settings that differ from what exists.
pub async fn run(args: DeployArgs) -> Result<Exit> {
    let secrets = SecretStore::open(args.secrets.as_deref())?;
    let Some(wanted) = ClusterPipeline::load(&args.config, &secrets)? else {
        return Ok(Exit::Configuration);
    };
    let dir = deployment_dir(&args.data_dir)?;
    let deployment = Deployment {
        wanted: &wanted,
        dir: &dir,
        secrets: args
            .secrets
            .as_deref()
            .map(std::path::absolute)
            .transpose()?,
        environment: fluvio::environment(&args.cluster, &dir),
    };
    if args.dry_run {
        let cluster = reached("the cluster", fluvio::connect(&args.cluster).await);
        let listed = reached("cdk", Cdk::find().and_then(|cdk| cdk.list()));
        let listed = listed.unwrap_or_default();
        let actual = observe(&wanted, cluster.as_deref(), &listed, &dir).await?;
        let steps = plan(&actual, &wanted).map_err(|all| refusal(&all))?;
        for step in &steps {
            print(&deployment.command(step))?;
        }
        if steps.is_empty() {
            print("nothing to do")?;
        }
        return Ok(Exit::Success);
    }
    let cdk = Cdk::find()?;
    let cluster = fluvio::connect(&args.cluster).await?;
    let _held = DataDir::open(&dir)?;
    deployment
        .carry_out(cluster.as_ref(), &cdk, &args.package_dir)
        .await?;
    Ok(Exit::Success)
}

/// Where documents, packages and logs of a deployment are kept.
///
/// # Errors
/// When the current directory is gone.
pub fn deployment_dir(data_dir: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(data_dir)?.join("cluster"))
}

fn reached<T>(what: &str, answer: Result<T>) -> Option<T> {
    answer
        .inspect_err(|error| {
            say(&format!(
                "{what} cannot be asked and counts as empty: {error:#}"
            ))
        })
        .ok()
}

fn refusal(differences: &[Difference]) -> anyhow::Error {
    let lines: Vec<String> = differences.iter().map(|one| format!("\n  {one}")).collect();
    anyhow::anyhow!("nothing was changed:{}", lines.concat())
}

struct Deployment<'a> {
    wanted: &'a ClusterPipeline,
    dir: &'a Path,
    secrets: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Deployment<'_> {
    async fn carry_out(
        &self,
        cluster: &dyn ClusterApi,
        cdk: &Cdk,
        package_dirs: &[PathBuf],
    ) -> Result<()> {
        let actual = observe(self.wanted, Some(cluster), &cdk.list()?, self.dir).await?;
        let steps = plan(&actual, self.wanted).map_err(|all| refusal(&all))?;
        if steps.is_empty() {
            return print(
                "nothing to do: all connectors run, topics and SmartModules are as in the file",
            );
        }
        // Whatever can be missing is found missing before anything is changed.
        let packages = self.packages(&steps, package_dirs)?;
        for (type_name, package) in &packages {
            let file = package_file(self.dir, type_name);
            // In place only when it is whole.
            let half = file.with_extension("ipkg.new");
            package::write(package, std::fs::File::create(&half)?)
                .and_then(|()| Ok(std::fs::rename(&half, &file)?))
                .with_context(|| format!("cannot write `{}`", file.display()))?;
        }
        for step in &steps {
            self.do_step(step, cluster, cdk)
                .await
                .with_context(|| format!("cannot {}", self.words(step)))?;
            print(&format!("done: {}", self.words(step)))?;
        }
        self.settle(&steps, cdk).await
    }

    fn packages(&self, steps: &[Step], dirs: &[PathBuf]) -> Result<BTreeMap<String, Package>> {
        let mut packages = BTreeMap::new();
        for step in steps {
            if let Step::Start(name) = step {
                let type_name = &self.connector(name)?.type_name;
                packages.insert(type_name.clone(), package::find(type_name, dirs)?);
            }
        }
        Ok(packages)
    }

    async fn do_step(&self, step: &Step, cluster: &dyn ClusterApi, cdk: &Cdk) -> Result<()> {
        match step {
            Step::CreateTopic(name) => cluster.create_topic(self.topic(name)?).await,
            Step::UploadModule { name, .. } => {
                let module = self.wanted.modules.iter().find(|one| one.name == *name);
                let module = module.context("a SmartModule of the file")?;
                cluster.upload_module(name, module.wasm).await
            }
            Step::WriteDocument(name) => {
                let text = &self.connector(name)?.text;
                Ok(std::fs::write(document_file(self.dir, name), text)?)
            }
            Step::Forget(name) => cdk.shutdown(name),
            Step::Start(name) => {
                cdk.start(self.dir, &self.start(name)?, &self.environment_of(name))
            }
        }
    }

    /// `deploy start` says nothing of a connector that ends at once; this looks.
    async fn settle(&self, steps: &[Step], cdk: &Cdk) -> Result<()> {
        let started: Vec<&String> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Start(name) => Some(name),
                _ => None,
            })
            .collect();
        let begin = Instant::now();
        while !started.is_empty() && begin.elapsed() < SETTLING {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let listed = cdk.list()?;
            for name in &started {
                let known = listed.iter().find(|listed| listed.name == **name);
                if !known.is_some_and(|known| known.running) && processes(self.dir, name).is_empty()
                {
                    bail!(
                        "connector `{name}` ended right after its start; its log `{}` ends with:\n{}",
                        self.log(known, name).display(),
                        tail(&self.log(known, name))
                    );
                }
            }
        }
        Ok(())
    }

    fn log(&self, listed: Option<&Listed>, name: &str) -> PathBuf {
        listed
            .and_then(|listed| listed.log.clone())
            .unwrap_or_else(|| self.dir.join(name).with_extension("log"))
    }

    fn connector(&self, name: &str) -> Result<&WantedConnector> {
        let mut connectors = self.wanted.connectors.iter();
        connectors
            .find(|connector| connector.name == name)
            .with_context(|| format!("connector `{name}` is not in the file"))
    }

    fn topic(&self, name: &str) -> Result<&WantedTopic> {
        let mut topics = self.wanted.topics.iter();
        topics
            .find(|topic| topic.settings.name == name)
            .with_context(|| format!("topic `{name}` is not in the file"))
    }

    fn start(&self, name: &str) -> Result<Start> {
        Ok(Start {
            config: document_file(self.dir, name),
            secrets: self.secrets.clone(),
            package: package_file(self.dir, &self.connector(name)?.type_name),
        })
    }

    fn environment_of(&self, name: &str) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.extend(fluvio::own_environment(self.dir, name));
        environment
    }

    fn words(&self, step: &Step) -> String {
        match step {
            Step::CreateTopic(name) => {
                let partitions = self
                    .topic(name)
                    .ok()
                    .and_then(|one| one.settings.partitions);
                format!(
                    "create topic `{name}`, partitions: {}",
                    partitions.unwrap_or_default()
                )
            }
            Step::UploadModule {
                name,
                replaces: false,
            } => format!("upload SmartModule `{name}`"),
            Step::UploadModule {
                name,
                replaces: true,
            } => format!("replace SmartModule `{name}`"),
            Step::WriteDocument(name) => {
                format!("write `{}`", document_file(self.dir, name).display())
            }
            Step::Forget(name) => {
                format!("take connector `{name}`, which has ended, off cdk's list")
            }
            Step::Start(name) => format!("start connector `{name}`"),
        }
    }

    /// A step as a command where there is one, else as a comment.
    fn command(&self, step: &Step) -> String {
        match step {
            Step::CreateTopic(name) => {
                let Ok(topic) = self.topic(name) else {
                    return String::new();
                };
                let settings = &topic.settings;
                let mut arguments = vec![
                    "fluvio".to_owned(),
                    "topic".to_owned(),
                    "create".to_owned(),
                    name.clone(),
                ];
                let mut option = |name: &str, value: Option<String>| {
                    arguments.extend(value.map(|value| format!("{name}={value}")));
                };
                option(
                    "--partitions",
                    settings.partitions.map(|count| count.to_string()),
                );
                option(
                    "--replication",
                    settings.replication.map(|copies| copies.to_string()),
                );
                option(
                    "--retention-time",
                    settings
                        .retention_time
                        .map(|time| format!("{}s", time.as_secs())),
                );
                option(
                    "--segment-size",
                    Some(format!("{} B", fluvio::segment_bytes(settings))),
                );
                option(
                    "--max-partition-size",
                    settings
                        .max_partition_bytes
                        .map(|bytes| format!("{bytes} B")),
                );
                option(
                    "--compression-type",
                    settings
                        .compression
                        .map(|compression| format!("{compression:?}").to_lowercase()),
                );
                if settings.ignore_rack_assignment == Some(true) {
                    arguments.push("--ignore-rack-assignment".to_owned());
                }
                shell::line(arguments.iter().map(String::as_str))
            }
            Step::Forget(name) => shell::line(["cdk", "deploy", "shutdown", "--name", name]),
            Step::Start(name) => {
                let Ok(start) = self.start(name) else {
                    return String::new();
                };
                let arguments = start.arguments();
                let environment = self.environment_of(name);
                let environment: Vec<String> = environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let mut words: Vec<&str> = environment.iter().map(String::as_str).collect();
                if !words.is_empty() {
                    words.insert(0, "env");
                }
                words.push("cdk");
                words.extend(arguments.iter().map(String::as_str));
                let dir = self.dir.display().to_string();
                format!(
                    "(cd {} && {})",
                    shell::line([dir.as_str()]),
                    shell::line(words)
                )
            }
            Step::UploadModule { .. } | Step::WriteDocument(_) => format!("# {}", self.words(step)),
        }
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    lines.get(first..).unwrap_or_default().join("\n")
}
