//! Credentials of the AWS chain for `object_store`, kept until shortly before they run out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

/// Credentials are asked for anew so long before they run out: what is signed with them has to
/// arrive yet.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Those in use, and until when.
type Kept = (Arc<AwsCredential>, Option<SystemTime>);

/// The credential chain.
#[derive(Debug)]
pub struct Credentials {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Kept>>,
}

impl Credentials {
    /// Nothing is asked for yet.
    #[must_use]
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            kept: Mutex::default(),
        }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        let soon = SystemTime::now() + RENEW_BEFORE;
        if let Some((credential, until)) = &*kept
            && until.is_none_or(|until| soon < until)
        {
            return Ok(credential.clone());
        }
        let found = self.provider.provide_credentials().await;
        let found = found.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *kept = Some((credential.clone(), found.expiry()));
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use aws_credential_types::Credentials as AwsCredentials;
    use aws_credential_types::provider::{ProvideCredentials, future};

    use super::*;

    /// Credentials that last so many seconds.
    #[derive(Debug)]
    struct Counted(AtomicU64, Option<u64>);

    impl ProvideCredentials for Counted {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let expiry = self
                .1
                .map(|secs| SystemTime::now() + Duration::from_secs(secs));
            let made = AwsCredentials::new(format!("key{number}"), "secret", None, expiry, "test");
            future::ProvideCredentials::ready(Ok(made))
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_their_end() {
        for (lasts, second) in [(None, "key0"), (Some(3_600), "key0"), (Some(30), "key1")] {
            let counted = Counted(AtomicU64::new(0), lasts);
            let credentials = Credentials::new(SharedCredentialsProvider::new(counted));
            for expected in ["key0", second] {
                let found = credentials.get_credential().await.expect("credentials");
                assert_eq!(found.key_id, expected, "{lasts:?}");
            }
        }
    }
}
