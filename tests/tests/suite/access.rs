//! Whose credentials the requests bear that reach AWS: roles of profiles, web identity, a program.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use millpond_fault_proxy::{Plan, Proxy, Service, Signer};
use millpond_tests::config;
use millpond_tests::pipeline::{EVENTS, Pipeline};
use millpond_tests::process;
use millpond_tests::sts::{self, Asked, Sts};

use crate::MILLPOND;

const READER: &str = "arn:aws:iam::000000000000:role/reader";
const WRITER: &str = "arn:aws:iam::000000000000:role/writer";
const POD: &str = "arn:aws:iam::000000000000:role/pod";

const BASE_KEY: &str = "AKIABASE";

const PROFILES: &str = "\
[profile base]
aws_access_key_id = AKIABASE
aws_secret_access_key = secret

[profile reader]
role_arn = arn:aws:iam::000000000000:role/reader
source_profile = base

[profile writer]
role_arn = arn:aws:iam::000000000000:role/writer
source_profile = base

[profile outcast]
role_arn = arn:aws:iam::000000000000:role/refused
source_profile = base

[profile program]
credential_process = cat credentials.json
";

/// A pipeline with a proxy before each service that notes who signs, and an STS.
struct Access {
    pipeline: Pipeline,
    kinesis: Proxy,
    table: Proxy,
    sts: Sts,
}

impl Access {
    async fn new(config: &str) -> Result<Self> {
        let mut pipeline = Pipeline::new(MILLPOND, 2, config).await?;
        let kinesis = pipeline.proxy(Service::Kinesis, Plan::none()).await?;
        let table = pipeline.proxy(Service::DynamoDb, Plan::none()).await?;
        std::fs::write(pipeline.dir().join("aws-config"), PROFILES)?;
        for number in 0..20 {
            let event = format!("{{\"job_id\":\"j\",\"n\":{number}}}");
            pipeline.aws.put(EVENTS, "k", event.as_bytes()).await?;
        }
        Ok(Self {
            pipeline,
            kinesis,
            table,
            sts: Sts::start().await?,
        })
    }

    /// `millpond run` until all is in the table, with the keys of the stand-ins in its environment.
    fn command(&self) -> Command {
        let arguments = [
            "run",
            "Connector.yaml",
            "--data-dir=data",
            "--until-caught-up",
        ];
        let mut command = self.pipeline.command_by_proxy(&arguments);
        command
            .env("AWS_CONFIG_FILE", "aws-config")
            .env("AWS_ENDPOINT_URL_STS", self.sts.url());
        command
    }

    /// The same without keys in its environment.
    fn command_without_keys(&self) -> Command {
        let mut command = self.command();
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        command
    }

    /// Everything is in the table.
    fn arrived(&self, output: &Output) -> Result<()> {
        let log = process::stderr(output);
        ensure!(output.status.success(), "{}\n{log}", output.status);
        let groups = self.pipeline.groups()?;
        ensure!(groups.get("j") == Some(&20), "{groups:?}\n{log}");
        Ok(())
    }
}

/// The one who signs with what STS gave for a role.
fn role(arn: &str) -> BTreeSet<Option<Signer>> {
    let signer = Signer {
        access_key_id: sts::access_key_id(arn),
        session_token: Some(sts::session_token(arn)),
    };
    [Some(signer)].into()
}

fn with_profiles(source: &str, sink: &str) -> String {
    config::pipeline()
        .replace("kinesis:\n", &format!("kinesis:\n  profile: {source}\n"))
        .replace("dynamodb:\n", &format!("dynamodb:\n  profile: {sink}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connector_signs_with_the_role_of_its_profile() -> Result<()> {
    let access = Access::new(&with_profiles("reader", "writer")).await?;
    let target = access.pipeline.aws.dynamodb_url();
    let target = target.trim_start_matches("http://");
    let leases = Proxy::start(target, Service::DynamoDb, Plan::none()).await?;
    let shared = format!(
        "kinesis:\n  lease-table: leases\n  create-lease-table: true\n  lease-table-endpoint: {}\n",
        leases.url()
    );
    let config = with_profiles("reader", "writer").replace("kinesis:\n", &shared);
    access.pipeline.set_config(&config)?;
    // The keys in the environment are others, and the profile of a section wins over them.
    access.arrived(&process::run(&mut access.command())?)?;
    assert_eq!(access.kinesis.signers(), role(READER));
    assert_eq!(leases.signers(), role(READER));
    assert_eq!(access.table.signers(), role(WRITER));
    let asked = access.sts.asked();
    for arn in [READER, WRITER] {
        let wanted = Asked {
            action: "AssumeRole".to_owned(),
            role: arn.to_owned(),
            signed_by: Some(BASE_KEY.to_owned()),
            web_identity: None,
        };
        ensure!(asked.contains(&wanted), "{asked:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_identity_is_exchanged_for_its_role() -> Result<()> {
    let access = Access::new(&config::pipeline()).await?;
    std::fs::write(access.pipeline.dir().join("identity"), "head.claims.sign")?;
    let mut command = access.command_without_keys();
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "identity")
        .env("AWS_ROLE_ARN", POD);
    access.arrived(&process::run(&mut command)?)?;
    assert_eq!(access.kinesis.signers(), role(POD));
    assert_eq!(access.table.signers(), role(POD));
    let asked = access.sts.asked();
    let first = asked.first().context("nothing asked of STS")?;
    let wanted = Asked {
        action: "AssumeRoleWithWebIdentity".to_owned(),
        role: POD.to_owned(),
        // The token stands for the signature.
        signed_by: None,
        web_identity: Some("head.claims.sign".to_owned()),
    };
    assert_eq!(*first, wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_may_name_a_program_that_gives_credentials() -> Result<()> {
    let access = Access::new(&config::pipeline()).await?;
    let given = r#"{"Version": 1, "AccessKeyId": "ASIAPROGRAM", "SecretAccessKey": "secret",
        "SessionToken": "token", "Expiration": "2099-01-01T00:00:00Z"}"#;
    std::fs::write(access.pipeline.dir().join("credentials.json"), given)?;
    let mut command = access.command_without_keys();
    access.arrived(&process::run(command.env("AWS_PROFILE", "program"))?)?;
    let signer = Signer {
        access_key_id: "ASIAPROGRAM".to_owned(),
        session_token: Some("token".to_owned()),
    };
    let expected: BTreeSet<_> = [Some(signer)].into();
    assert_eq!(access.kinesis.signers(), expected);
    assert_eq!(access.table.signers(), expected);
    assert_eq!(access.sts.asked(), []);
    Ok(())
}

/// The process ended at once, said why, and sent nothing under another name.
fn refused(access: &Access, output: &Output, texts: &[&str]) -> Result<()> {
    let log = process::stderr(output);
    ensure!(output.status.code() == Some(1), "{}\n{log}", output.status);
    for text in texts {
        ensure!(log.contains(text), "no `{text}` in\n{log}");
    }
    let signers = access.kinesis.signers();
    ensure!(signers.is_empty(), "{signers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_refused_is_an_error_that_names_it() -> Result<()> {
    let access = Access::new(&with_profiles("outcast", "writer")).await?;
    let output = process::run(&mut access.command())?;
    let said = "not authorized to perform sts:AssumeRole on arn:aws:iam::000000000000:role/refused";
    refused(
        &access,
        &output,
        &["profile `outcast`", "AccessDenied", said],
    )?;

    access.pipeline.set_config(&config::pipeline())?;
    std::fs::write(access.pipeline.dir().join("identity"), "head.claims.sign")?;
    let mut command = access.command_without_keys();
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "identity")
        .env("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/refused");
    let said = "not authorized to perform sts:AssumeRoleWithWebIdentity";
    refused(
        &access,
        &process::run(&mut command)?,
        &["AccessDenied", said],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_is_not_there_is_an_error_whatever_else_there_is() -> Result<()> {
    let access = Access::new(&with_profiles("raeder", "writer")).await?;
    let output = process::run(&mut access.command())?;
    refused(&access, &output, &["profile `raeder`"])
}

/// An endpoint of the environment as well as one of the file; what the proxy is, nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_never_looked_for_behind_a_proxy_whoever_names_it() -> Result<()> {
    let pipeline = Pipeline::new(MILLPOND, 1, &config::pipeline()).await?;
    pipeline.aws.put(EVENTS, "k", br#"{"job_id":"j"}"#).await?;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let proxies = ["HTTP_PROXY", "ALL_PROXY"].map(|name| (name, format!("http://{dead}")));
    for arguments in [
        &[
            "run",
            "Connector.yaml",
            "--data-dir=data",
            "--until-caught-up",
        ][..],
        &["read", "--table", EVENTS, "--group", "j"],
    ] {
        let mut command = pipeline.command_by_proxy(arguments);
        for name in ["NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        let output = process::run(command.envs(proxies.iter().map(|(name, url)| (name, url))))?;
        let log = process::stderr(&output);
        ensure!(output.status.success(), "{}\n{log}", output.status);
    }
    Ok(())
}
