//! Any `object_store` that knows conditional writes by entity tags: S3, and a bucket in memory.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult, UpdateVersion,
};

use super::classify::failure;
use super::{ApiFailure, Found, ObjectApi, Verdict, Version, check_size};

/// A bucket.
pub struct Bucket<S> {
    store: S,
    name: String,
}

impl<S: ObjectStore> Bucket<S> {
    /// A bucket under a name for messages.
    #[must_use]
    pub fn new(store: S, name: String) -> Self {
        Self { store, name }
    }

    async fn write(&self, name: &str, bytes: Bytes, mode: PutMode) -> Result<PutResult, Error> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let path = ObjectPath::parse(name)?;
        self.store.put_opts(&path, bytes.into(), options).await
    }
}

/// The version that a write made.
fn version(put: PutResult) -> Result<Version, ApiFailure> {
    put.e_tag.map(Version).ok_or_else(untagged)
}

fn untagged() -> ApiFailure {
    ApiFailure {
        verdict: Verdict::Fatal("use a store that gives entity tags, as Amazon S3 does"),
        message: "the answer has no entity tag".into(),
    }
}

/// Reads a small object of any store, with its entity tag.
pub(super) async fn read(
    store: &impl ObjectStore,
    name: &str,
) -> Result<Option<(Bytes, Option<String>)>, ApiFailure> {
    let open = async { store.get(&ObjectPath::parse(name)?).await };
    let found = match open.await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failure(&error)),
    };
    check_size(found.meta.size)?;
    let tag = found.meta.e_tag.clone();
    let bytes = found.bytes().await.map_err(|error| failure(&error))?;
    Ok(Some((bytes, tag)))
}

#[async_trait]
impl<S: ObjectStore> ObjectApi for Bucket<S> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(&self, name: &str) -> Result<Option<Found>, ApiFailure> {
        let Some((bytes, tag)) = read(&self.store, name).await? else {
            return Ok(None);
        };
        let version = Version(tag.ok_or_else(untagged)?);
        Ok(Some(Found { bytes, version }))
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ApiFailure> {
        match self.write(name, bytes, PutMode::Overwrite).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<Option<Version>, ApiFailure> {
        match self.write(name, bytes, PutMode::Create).await {
            Ok(put) => version(put).map(Some),
            Err(Error::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn replace(
        &self,
        name: &str,
        bytes: Bytes,
        seen: &Version,
    ) -> Result<Option<Version>, ApiFailure> {
        let seen = UpdateVersion {
            e_tag: Some(seen.0.clone()),
            version: None,
        };
        match self.write(name, bytes, PutMode::Update(seen)).await {
            Ok(put) => version(put).map(Some),
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }
}
