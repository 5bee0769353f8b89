//! The manifests of `deploy/`: every document is what Kubernetes takes, and they fit each other, the
//! Dockerfile, `Connector.toml` and Millpond's own validator. No cluster and no container runtime is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, PodSpec, Secret, Service};
use millpond_connector::manifest::{ManifestFile, Scope};
use millpond_connector::registry::Registry;
use millpond_connector::secret::SecretStore;
use millpond_connector_host::{BuiltIn, DATA_DIR_VARIABLE, DRAIN_LIMIT, METRICS_VARIABLE};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `meta.type` and the file of each connector.
const CONNECTORS: [&str; 2] = ["kinesis-source", "dynamodb-sink"];

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a manifest, by kind; each kind once, or under its name.
fn documents(file: &str) -> Vec<Value> {
    let text = read(&format!("deploy/kubernetes/{file}.yaml"));
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(!documents.is_empty(), "{file} is empty");
    documents
}

/// As Kubernetes reads it, with every key known: a misspelt one would be dropped in silence.
fn strictly<T: DeserializeOwned>(document: &Value) -> T {
    let mut ignored = Vec::new();
    let read = serde_ignored::deserialize(document, |path| ignored.push(path.to_string()));
    assert!(ignored.is_empty(), "unknown keys: {ignored:?}");
    read.unwrap_or_else(|error| panic!("{error} in {document}"))
}

fn of_kind<T: DeserializeOwned>(documents: &[Value], kind: &str) -> T {
    let found: Vec<&Value> = documents.iter().filter(|d| d["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "one {kind}");
    strictly(found[0])
}

struct Deployed {
    config: ConfigMap,
    set: StatefulSet,
    service: Service,
}

impl Deployed {
    fn of(connector: &str) -> Self {
        let documents = documents(connector);
        assert_eq!(documents.len(), 3, "{connector}: nothing is left unchecked");
        Self {
            config: of_kind(&documents, "ConfigMap"),
            set: of_kind(&documents, "StatefulSet"),
            service: of_kind(&documents, "Service"),
        }
    }

    fn pod(&self) -> &PodSpec {
        let spec = self.set.spec.as_ref().expect("spec");
        spec.template.spec.as_ref().expect("a pod")
    }

    fn container(&self) -> &Container {
        let [container] = self.pod().containers.as_slice() else {
            panic!("one container");
        };
        container
    }

    fn environment(&self) -> BTreeMap<&str, &str> {
        let set = self.container().env.iter().flatten();
        set.filter_map(|one| Some((one.name.as_str(), one.value.as_deref()?)))
            .collect()
    }

    /// Mount path of a volume, and whether it can be written.
    fn mounts(&self) -> BTreeMap<&str, (&str, bool)> {
        let mounts = self.container().volume_mounts.iter().flatten();
        mounts
            .map(|one| {
                let writable = one.read_only != Some(true);
                (one.name.as_str(), (one.mount_path.as_str(), writable))
            })
            .collect()
    }
}

/// The stage of the Dockerfile that makes a connector's image, with what all stages share.
struct Image {
    user: String,
    environment: BTreeMap<String, String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
}

fn image(target: &str) -> Image {
    let text = read("deploy/Dockerfile").replace("\\\n", " ");
    let stage = |name: &str| -> Vec<String> {
        let mut lines = text.lines().skip_while(|line| {
            !(line.starts_with("FROM ") && line.ends_with(&format!(" AS {name}")))
        });
        assert!(lines.next().is_some(), "the Dockerfile has a stage {name}");
        lines
            .take_while(|line| !line.starts_with("FROM "))
            .map(str::to_owned)
            .collect()
    };
    let all: Vec<String> = stage("base").into_iter().chain(stage(target)).collect();
    let one = |word: &str| -> String {
        let found: Vec<&str> = all
            .iter()
            .filter_map(|line| line.strip_prefix(word))
            .collect();
        assert_eq!(found.len(), 1, "{target}: one{word}");
        found[0].trim().to_owned()
    };
    let list = |word| serde_json::from_str(&one(word)).expect("a list of strings");
    Image {
        user: one("USER "),
        environment: one("ENV ")
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        entrypoint: list("ENTRYPOINT "),
        command: list("CMD "),
    }
}

#[test]
fn a_misspelt_key_is_found() {
    let mut documents = documents("dynamodb-sink");
    let set = documents
        .iter_mut()
        .find(|document| document["kind"] == "StatefulSet")
        .expect("one");
    set["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = Value::from(45);
    let caught = std::panic::catch_unwind(|| strictly::<StatefulSet>(set));
    let said = caught.expect_err("refused");
    let said = said.downcast_ref::<String>().expect("a message");
    assert!(said.contains("terminationGracePeriodSecond"), "{said}");
}

#[test]
fn the_configuration_is_valid_and_of_its_type() {
    for connector in CONNECTORS {
        let deployed = Deployed::of(connector);
        let data = deployed.config.data.as_ref().expect("data");
        let [(name, text)] = data.iter().collect::<Vec<_>>()[..] else {
            panic!("{connector}: one file");
        };
        let file = ManifestFile::from_bytes(name.as_str(), text.as_bytes(), "");
        let registry = Registry::new()
            .with(millpond_kinesis_source::kind())
            .with(millpond_dynamodb_sink::config::DynamodbSink);
        let secrets = SecretStore::from_environment();
        let checked = registry.validate(&file, &secrets, &BuiltIn, Scope::Connector);
        assert!(checked.problems.is_empty(), "{}", checked.problems.plain());
        let found = checked.pipeline.expect("valid").connectors;
        let [one] = found.as_slice() else {
            panic!("{connector}: one document");
        };
        assert_eq!(one.document.meta.type_name, connector);
        let metadata = &deployed.config.metadata;
        let expected = format!("millpond-{}", one.document.meta.name);
        assert_eq!(metadata.name.as_deref(), Some(expected.as_str()));
        // It is where `--config` looks.
        let path = format!("{}/{name}", deployed.mounts()["config"].0);
        let args = deployed.container().args.as_ref().expect("arguments");
        assert_eq!(args[..2], ["--config".to_owned(), path.clone()]);
        assert_eq!(image(connector).command, ["--config".to_owned(), path]);
    }
}

#[test]
fn image_and_pod_agree() {
    for connector in CONNECTORS {
        let deployed = Deployed::of(connector);
        let image = image(connector);
        let package = read(&format!("connector/{connector}/Connector.toml"));
        let binary = format!("millpond-{connector}");
        assert!(
            package.contains(&format!("binary = \"{binary}\"")),
            "{package}"
        );
        let program = format!("/usr/local/bin/{binary}");
        assert_eq!(image.entrypoint, std::slice::from_ref(&program));
        let version = env!("CARGO_PKG_VERSION");
        let name = format!("millpond/{connector}:{version}");
        assert_eq!(deployed.container().image.as_deref(), Some(name.as_str()));

        let pod = deployed.pod().security_context.as_ref().expect("one");
        let user = pod.run_as_user.expect("a user");
        let group = pod.run_as_group.expect("a group");
        assert_eq!(image.user, format!("{user}:{group}"));
        assert!(user > 0 && pod.run_as_non_root == Some(true));
        assert_eq!(pod.fs_group, Some(group), "the volume can be written");

        let environment = deployed.environment();
        for (name, value) in &image.environment {
            assert_eq!(
                environment.get(name.as_str()),
                Some(&value.as_str()),
                "{name}"
            );
        }
        for probe in [
            (&deployed.container().startup_probe, "--health"),
            (&deployed.container().liveness_probe, "--health"),
            (&deployed.container().readiness_probe, "--ready"),
        ] {
            let exec = probe.0.as_ref().and_then(|probe| probe.exec.as_ref());
            let command = exec.and_then(|exec| exec.command.clone());
            assert_eq!(command, Some(vec![program.clone(), probe.1.to_owned()]));
        }
    }
}

#[test]
fn the_root_is_read_only_and_what_is_written_has_a_volume() {
    for connector in CONNECTORS {
        let deployed = Deployed::of(connector);
        let context = deployed.container().security_context.as_ref().expect("one");
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.allow_privilege_escalation, Some(false));
        let capabilities = context.capabilities.as_ref().expect("capabilities");
        assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(capabilities.add, None);

        let mounts = deployed.mounts();
        let environment = deployed.environment();
        let state = environment[DATA_DIR_VARIABLE];
        assert_eq!(mounts["state"], (state, true));
        let run = PathBuf::from(environment[METRICS_VARIABLE]);
        let run = run.parent().and_then(|path| path.to_str()).expect("a path");
        assert_eq!(mounts["run"], (run, true));
        let writable: BTreeSet<&str> = mounts
            .iter()
            .filter(|(_, (_, writable))| *writable)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(writable, BTreeSet::from(["state", "run"]));

        let spec = deployed.set.spec.as_ref().expect("spec");
        let claims = spec.volume_claim_templates.iter().flatten();
        let claimed = claims.map(|claim| claim.metadata.name.as_deref().expect("a name"));
        let volumes = deployed.pod().volumes.iter().flatten();
        let given: BTreeSet<&str> = volumes
            .map(|volume| volume.name.as_str())
            .chain(claimed)
            .collect();
        assert_eq!(given, mounts.keys().copied().collect(), "{connector}");
    }
}

#[test]
fn names_lead_to_what_is_there() {
    let mut secrets = BTreeMap::new();
    for document in documents("secrets.example") {
        let secret: Secret = strictly(&document);
        let keys: BTreeSet<String> = secret
            .string_data
            .into_iter()
            .flatten()
            .map(|s| s.0)
            .collect();
        secrets.insert(secret.metadata.name.expect("a name"), keys);
        assert_eq!(secret.metadata.namespace.as_deref(), Some("millpond"));
    }
    let namespace: Namespace = of_kind(&documents("namespace"), "Namespace");
    let namespace = namespace.metadata.name;
    for connector in CONNECTORS {
        let Deployed {
            config,
            set,
            service,
        } = &Deployed::of(connector);
        for metadata in [&config.metadata, &set.metadata, &service.metadata] {
            assert_eq!(metadata.namespace, namespace);
        }
        let spec = set.spec.as_ref().expect("spec");
        assert_eq!(spec.service_name, service.metadata.name);
        // Only sinks share their work.
        let is_sink = connector.ends_with("-sink");
        assert_eq!(spec.replicas, Some(if is_sink { 2 } else { 1 }));
        let labels = spec
            .template
            .metadata
            .as_ref()
            .and_then(|m| m.labels.clone());
        let labels = labels.expect("labels");
        let chosen = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        for selector in [spec.selector.match_labels.clone(), chosen] {
            for (name, value) in selector.expect("a selector") {
                assert_eq!(labels.get(&name), Some(&value), "{name}");
            }
        }
        let deployed = Deployed::of(connector);
        for volume in deployed.pod().volumes.iter().flatten() {
            if let Some(map) = &volume.config_map {
                assert_eq!(Some(&map.name), config.metadata.name.as_ref());
            }
            if let Some(source) = &volume.secret {
                let name = source.secret_name.as_ref().expect("a name");
                let keys = secrets.get(name).unwrap_or_else(|| panic!("secret {name}"));
                for item in source.items.iter().flatten() {
                    assert!(keys.contains(&item.key), "{name} has {}", item.key);
                }
            }
        }
        let args = deployed.container().args.clone().expect("arguments");
        let path = format!("{}/secrets.env", deployed.mounts()["secrets"].0);
        assert_eq!(args[2..], ["--secrets".to_owned(), path]);
        let profile = deployed.environment()["FLV_PROFILE_PATH"];
        assert_eq!(profile, format!("{}/config", deployed.mounts()["fluvio"].0));
    }
}

#[test]
fn a_pod_is_given_the_time_that_a_drain_takes() {
    for connector in CONNECTORS {
        let deployed = Deployed::of(connector);
        let grace = deployed.pod().termination_grace_period_seconds;
        let needed = i64::try_from(DRAIN_LIMIT.as_secs()).expect("small") + 10;
        assert!(grace.expect("a grace period") >= needed, "{grace:?}");
        let resources = deployed.container().resources.as_ref().expect("resources");
        let limits = resources.limits.as_ref().expect("limits");
        assert!(limits.contains_key("memory"), "{connector}");
        let requests = resources.requests.as_ref().expect("requests");
        assert!(requests.contains_key("cpu") && requests.contains_key("memory"));
    }
}
