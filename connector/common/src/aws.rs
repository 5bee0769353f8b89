//! The one place where AWS access is configured; its failures are put into words in [`describe`].
//!
//! The SDK's own retries are off: a retry happens once, in our adapters, with our backoff.
//! Its stalled-stream protection is off too: every call here reads a whole bounded answer
//! under [`OPERATION_TIMEOUT`], and the protection would end a call that merely waits for a
//! busy processor.

use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_types::service_config::ServiceConfigKey;

pub use crate::aws_failure::{FailureKind, chain, describe, failure_kind};
use crate::aws_http;
use crate::problem::Problems;
use crate::section::Section;

// A drain takes 30 s at most. One call that hangs when it is asked for, and another one after
// that, must leave enough of it.

/// A connection that is not up by then counts as failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that has not begun by then, the request sent, counts as failed.
pub const READ_TIMEOUT: Duration = Duration::from_secs(8);

/// A call that is not finished by then, answer read to the end, counts as failed. Ten MiB, the
/// largest answer, come in this time over anything faster than 7 Mbit/s.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);

/// Resolving credentials may call other services (STS, SSO, instance metadata).
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(15);

/// How long calls are repeated while credentials that worked before are refused or cannot be had.
///
/// Temporary credentials are renewed by the SDK before they expire. What it cannot renew (a session
/// token in the environment, a profile whose file somebody else rewrites) it reads once in a
/// process: after this time the connector ends with an error, so that whoever supervises it starts
/// it anew with what is there then. Long enough for an outage of whoever gives credentials out.
pub const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The services that Millpond speaks to, as the SDK names them.
const SERVICES: [&str; 3] = ["Kinesis", "DynamoDB", "S3"];

/// What a section may say about AWS; the usual AWS environment says the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// Region name, for example `eu-central-1`.
    pub region: Option<String>,
    /// URL to speak to in place of the region's own; wins over `AWS_ENDPOINT_URL*`.
    pub endpoint: Option<String>,
    /// Profile of the shared AWS configuration files; wins over `AWS_PROFILE`, and over keys in the environment.
    pub profile: Option<String>,
}

/// Which of the region's endpoints are spoken to. Without a word the AWS environment decides
/// (`AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT`, or the profile).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AwsSwitches {
    /// Those validated by FIPS 140.
    pub fips: Option<bool>,
    /// Those that speak IPv6 as well.
    pub dual_stack: Option<bool>,
}

/// Why AWS access could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// Nothing names a region.
    #[error(
        "no AWS region: looked at `region` of the connector's section (`--region`), `AWS_REGION`, `AWS_DEFAULT_REGION`, \
         profile `{profile}` of the AWS configuration files, and the instance's metadata; set one of them"
    )]
    NoRegion {
        /// The profile that was looked at.
        profile: String,
    },
    /// No credentials, or unusable ones.
    #[error(
        "no usable AWS credentials ({reason}): looked at `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, \
         profile `{profile}` of the AWS configuration files, web identity, container and instance metadata; \
         set one of them, or name a profile with `profile` (`--profile`) or `AWS_PROFILE`"
    )]
    NoCredentials {
        /// The profile that was looked at.
        profile: String,
        /// What the credential chain said.
        reason: String,
    },
    /// The environment or a profile names an endpoint that is none.
    #[error(
        "`{endpoint}` is no URL of an endpoint for {service}, which is `http://HOST[:PORT]` or `https://HOST[:PORT]`: \
         look at `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_{}` and `endpoint_url` of the AWS configuration files",
        .service.to_uppercase()
    )]
    Endpoint {
        /// The service that would be spoken to there.
        service: &'static str,
        /// What is given.
        endpoint: String,
    },
}

impl AwsSettings {
    /// Checks the three settings of a section, named `region`, `endpoint` and `profile` there.
    pub fn validate(
        section: &Section<'_>,
        problems: &mut Problems,
        region: Option<String>,
        endpoint: Option<String>,
        profile: Option<String>,
    ) -> Self {
        if let Some(endpoint) = &endpoint
            && !is_endpoint(endpoint)
        {
            problems.push(
                section
                    .problem("endpoint", "is no URL of an AWS endpoint")
                    .allowed("`http://HOST[:PORT]` or `https://HOST[:PORT]`")
                    .help("leave it out to speak to AWS itself"),
            );
        }
        if region.as_ref().is_some_and(|name| !is_region(name)) {
            problems.push(
                section
                    .problem("region", "is no AWS region")
                    .allowed("letters, digits and `-`, such as `eu-central-1`"),
            );
        }
        if profile.as_ref().is_some_and(String::is_empty) {
            problems.push(section.problem("profile", "is empty"));
        }
        Self {
            region,
            endpoint,
            profile,
        }
    }

    /// Reads the AWS environment and checks that a region is known.
    ///
    /// Credentials are resolved at the first call, or by [`AwsSettings::check_credentials`].
    ///
    /// # Errors
    /// See [`AwsSettings::load_with`].
    pub async fn load(&self) -> Result<SdkConfig, AwsError> {
        self.load_with(AwsSwitches::default()).await
    }

    /// As [`AwsSettings::load`], and says which of the region's endpoints are spoken to.
    ///
    /// # Errors
    /// [`AwsError::NoRegion`], with every setting that was looked at; [`AwsError::Endpoint`].
    pub async fn load_with(&self, switches: AwsSwitches) -> Result<SdkConfig, AwsError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(aws_http::client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(fips) = switches.fips {
            loader = loader.use_fips(fips);
        }
        if let Some(dual_stack) = switches.dual_stack {
            loader = loader.use_dual_stack(dual_stack);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(AwsError::NoRegion {
                profile: self.profile_name(),
            });
        }
        for service in SERVICES {
            if let Some(endpoint) = endpoint(&config, service).filter(|url| !is_endpoint(url)) {
                return Err(AwsError::Endpoint { service, endpoint });
            }
        }
        Ok(match &self.profile {
            Some(profile) => with_credentials_of(profile, config),
            None => config,
        })
    }

    /// Resolves the credentials once, so that a lack of them is said at start.
    ///
    /// # Errors
    /// [`AwsError::NoCredentials`], with every setting that was looked at.
    pub async fn check_credentials(&self, config: &SdkConfig) -> Result<(), AwsError> {
        let refuse = |reason: String| AwsError::NoCredentials {
            profile: self.profile_name(),
            reason,
        };
        let Some(provider) = config.credentials_provider() else {
            return Err(refuse("no credential provider".into()));
        };
        match tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refuse(chain(&error))),
            Err(_) => Err(refuse(format!(
                "no answer within {} s",
                CREDENTIALS_TIMEOUT.as_secs()
            ))),
        }
    }

    fn profile_name(&self) -> String {
        self.profile
            .clone()
            .or_else(|| std::env::var("AWS_PROFILE").ok())
            .unwrap_or_else(|| "default".to_owned())
    }
}

/// The endpoint that a service is spoken to at, if it is not the region's own: that of the section, else
/// `AWS_ENDPOINT_URL_<service>` or the profile's, else the general one. The order of the SDK's own clients.
#[must_use]
pub fn endpoint(sdk: &SdkConfig, service_id: &str) -> Option<String> {
    let general = || sdk.endpoint_url().map(str::to_owned);
    if sdk.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key = ServiceConfigKey::builder()
        .service_id(service_id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let own = key
        .ok()
        .and_then(|key| sdk.service_config()?.load_config(key));
    own.or_else(general)
}

/// The SDK's own chain would ask the environment first, and every connector of a process would speak under the
/// keys found there, whatever its section says.
fn with_credentials_of(profile: &str, config: SdkConfig) -> SdkConfig {
    let mut access = ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_use_fips(config.use_fips())
        .with_use_dual_stack(config.use_dual_stack());
    if let Some(http) = config.http_client() {
        access = access.with_http_client(http);
    }
    if let Some(retries) = config.retry_config() {
        access = access.with_retry_config(retries.clone());
    }
    if let Some(timeouts) = config.timeout_config() {
        access = access.with_timeout_config(timeouts.clone());
    }
    let provider = ProfileFileCredentialsProvider::builder()
        .configure(&access)
        .profile_name(profile)
        .build();
    let builder = config.into_builder();
    builder
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .build()
}

/// Where a service is spoken to, for messages.
#[must_use]
pub fn place(sdk: &SdkConfig, service_id: &str) -> String {
    let region = sdk.region().map_or("none", |region| region.as_ref());
    match endpoint(sdk, service_id) {
        Some(url) => format!("`{url}`, region `{region}`"),
        None => format!("region `{region}`"),
    }
}

/// True for `http://HOST[:PORT]` and `https://HOST[:PORT]`, with or without a path.
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| !rest.contains(char::is_whitespace)) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
    {
        Some((host, port)) => (host, port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.is_empty() || port[1..].parse::<u16>().is_ok();
    !host.is_empty() && (port.is_empty() || port.starts_with(':')) && is_port(port)
}

/// True for what can be the name of a region.
#[must_use]
pub fn is_region(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for url in [
            "http://127.0.0.1:4567",
            "https://kinesis.local/",
            "http://h",
            "http://[::1]:8000/x?y",
            "https://[fe80::1]",
        ] {
            assert!(is_endpoint(url), "{url}");
        }
        for url in [
            "",
            "localhost:4567",
            "http://",
            "http:///x",
            "ftp://h",
            "http://a b",
            "http://h:port",
            "http://h:70000",
            "http://:80",
            "http://[::1]80",
            "http://h/a b",
        ] {
            assert!(!is_endpoint(url), "{url}");
        }
    }
}
