//! Opens the place that a configuration names.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use millpond_connector::aws::{AwsSettings, endpoint};
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder};

use super::ObjectApi;
use super::credentials::Credentials;
use super::directory::Directory;
use super::store::Bucket;
use super::wire::Wire;
use crate::location::Location;

/// Opens a bucket or a folder. Of a bucket only the credentials are asked for.
///
/// # Errors
/// When region or credentials are missing, or the folder cannot be made.
pub async fn open(location: &Location, aws: &AwsSettings) -> Result<Arc<dyn ObjectApi>> {
    match location {
        Location::Directory(path) => {
            let directory = Directory::open(path)
                .map_err(|failure| anyhow::anyhow!("{failure}"))
                .with_context(|| format!("folder `{}`", path.display()))?;
            Ok(Arc::new(directory))
        }
        Location::Bucket { bucket, .. } => {
            let name = format!("bucket `{bucket}`");
            let sdk = aws.load().await.with_context(|| name.clone())?;
            aws.check_credentials(&sdk)
                .await
                .with_context(|| name.clone())?;
            let store = s3(&sdk, bucket).with_context(|| name.clone())?;
            let at = endpoint(&sdk, "S3");
            Ok(Arc::new(Bucket::new(store, name).at(at.as_deref())))
        }
    }
}

/// A client of a bucket. Its own retries are off: a retry happens once, in [`crate::writer`].
///
/// # Errors
/// When the configuration has no region or credentials.
pub fn s3(sdk: &SdkConfig, bucket: &str) -> Result<AmazonS3> {
    let region = sdk.region().context("no AWS region")?;
    let provider = sdk
        .credentials_provider()
        .context("no credential provider")?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.as_ref())
        .with_credentials(Arc::new(Credentials::new(provider)))
        .with_http_connector(Wire::new())
        .with_retry(RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        });
    if let Some(endpoint) = endpoint(sdk, "S3") {
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    Ok(builder.build()?)
}
