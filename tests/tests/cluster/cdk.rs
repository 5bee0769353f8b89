//! What a user does with `cdk` and the connectors: secrets, list, log, shutdown.

use anyhow::{Context as _, Result, ensure};
use millpond::cluster::process;
use millpond_tests::process::{stderr, stdout};
use millpond_tests::{config, eventually};

use millpond_tests::on_cluster::{OnCluster, sorted};

use crate::BUILT;

const SECRETS: [(&str, &str); 2] = [
    ("KINESIS_URL", "AWS_ENDPOINT_URL_KINESIS"),
    ("DYNAMODB_URL", "AWS_ENDPOINT_URL_DYNAMODB"),
];

/// Both endpoints are secrets, in both of the contract's forms.
fn config() -> Result<String> {
    let text = config::pipeline()
        .replacen(
            "  type: kinesis-source\n",
            "  type: kinesis-source\n  secrets: [{name: KINESIS_URL}]\n",
            1,
        )
        .replacen(
            "kinesis:\n",
            "kinesis:\n  endpoint: ${{ secrets.KINESIS_URL }}\n",
            1,
        )
        .replacen(
            "  type: dynamodb-sink\n",
            "  type: dynamodb-sink\n  secrets: [{name: DYNAMODB_URL}]\n",
            1,
        )
        .replacen(
            "dynamodb:\n",
            "dynamodb:\n  endpoint: ${{ secrets.DYNAMODB_URL }}\n",
            1,
        );
    ensure!(
        text.matches("${{").count() == 2 && text.matches("secrets:").count() == 2,
        "{text}"
    );
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_from_a_file_or_the_environment_and_are_in_no_log() -> Result<()> {
    let Some(mut on) = OnCluster::new(BUILT, "secrets", &config()?).await? else {
        return Ok(());
    };
    let mut values = Vec::new();
    for (secret, variable) in SECRETS {
        let found = on
            .pipeline
            .environment
            .iter()
            .find(|(name, _)| name == variable);
        let value = found.context("an endpoint")?.1.clone();
        values.push((secret, variable, value));
    }
    // By file: the connectors' environment says nothing.
    for (_, variable, _) in &values {
        on.set(variable, None);
    }
    let lines: Vec<String> = values
        .iter()
        .map(|(name, _, value)| format!("{name}={value}\n"))
        .collect();
    let file = on.pipeline.dir().join("secrets.env");
    std::fs::write(&file, lines.concat())?;
    let path = file.display().to_string();
    on.deploy_with(&["--secrets", &path])?;

    let listed = on.cdk(&["deploy", "list"])?;
    let text = stdout(&listed);
    for name in ["events-source", "events-sink"] {
        let line = text.lines().find(|line| line.contains(name));
        ensure!(line.is_some_and(|line| line.contains("Running")), "{text}");
    }
    // The emitter and the readers of this test are no connectors.
    for (_, variable, value) in &values {
        on.set(variable, Some(value));
    }
    on.pipeline.emit(1_000, 51)?;
    on.arrived(1_000).await?;
    for name in ["events-source", "events-sink"] {
        let logged = on.cdk(&["deploy", "log", "--name", name])?;
        ensure!(logged.status.success(), "{}", stderr(&logged));
        let text = stdout(&logged);
        ensure!(text.contains("connected"), "{text}");
        for (_, _, value) in &values {
            ensure!(
                !text.contains(value.as_str()),
                "a secret is in the log: {text}"
            );
        }
        // A normal start warns of nothing, and Fluvio's own crates do not fill the log.
        ensure!(
            !text.contains(" WARN ") && !text.contains("INFO fluvio"),
            "{text}"
        );
        let document = on
            .pipeline
            .dir()
            .join(format!(".millpond/cluster/{name}.yaml"));
        let running = || process::of_config(&document);
        ensure!(running().len() == 1, "{:?}", running());
        let stopped = on.cdk(&["deploy", "shutdown", "--name", name])?;
        ensure!(stopped.status.success(), "{}", stderr(&stopped));
        eventually("end of a drained process", async || {
            Ok(running().is_empty().then_some(()))
        })
        .await?;
        ensure!(on.log(name).contains("drained"), "{}", on.log(name));
    }
    let listed = stdout(&on.cdk(&["deploy", "list"])?);
    ensure!(listed.contains("No connectors found"), "{listed}");

    // By environment: no file any more.
    std::fs::remove_file(&file)?;
    for (secret, variable, value) in &values {
        on.set(variable, None);
        on.set(secret, Some(value));
    }
    on.deploy()?;
    for (_, variable, value) in &values {
        on.set(variable, Some(value));
    }
    on.pipeline.emit(1_000, 52)?;
    on.arrived(2_000).await?;
    on.down()?;
    let mut expected = on.pipeline.expected(1_000, 51)?;
    expected.extend(on.pipeline.expected(1_000, 52)?);
    assert_eq!(on.pipeline.read_all()?, sorted(expected));
    Ok(())
}
