//! Any `object_store` that knows conditional writes by entity tags: S3, and a bucket in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use millpond_connector::aws_http::is_loopback;
use millpond_sink::claim::{Claim, StaleWrites};
use object_store::path::Path as ObjectPath;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult, UpdateVersion,
};

use super::classify::failure;
use super::{ApiFailure, Found, ObjectApi, Verdict, Version, Wanted, check_size};
use crate::limits::SIGNATURE_LIFE;

/// A bucket.
pub struct Bucket<S> {
    store: S,
    name: String,
    stale_writes: StaleWrites,
}

impl<S: ObjectStore> Bucket<S> {
    /// A bucket under a name for messages.
    #[must_use]
    pub fn new(store: S, name: String) -> Self {
        Self {
            store,
            name,
            stale_writes: StaleWrites::signed(SIGNATURE_LIFE),
        }
    }

    /// The same at this endpoint, `None` being the service's own.
    #[must_use]
    pub fn at(mut self, endpoint: Option<&str>) -> Self {
        if endpoint.is_some_and(is_loopback) {
            self.stale_writes = StaleWrites::LOCAL;
        }
        self
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

/// Names below a folder of any store that are wanted.
pub(super) async fn list(
    store: &impl ObjectStore,
    folder: &str,
    is_wanted: &Wanted<'_>,
) -> Result<Vec<String>, ApiFailure> {
    let folder = ObjectPath::parse(folder).map_err(|error| failure(&error.into()))?;
    let mut objects = store.list(Some(&folder));
    let mut names = Vec::new();
    while let Some(object) = objects.next().await {
        let object = object.map_err(|error| failure(&error))?;
        let name = object.location.as_ref();
        if is_wanted(name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes an object of any store, if it is there.
pub(super) async fn delete(store: &impl ObjectStore, name: &str) -> Result<(), ApiFailure> {
    let path = ObjectPath::parse(name).map_err(|error| failure(&error.into()))?;
    match store.delete(&path).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failure(&error)),
    }
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

    async fn put_under(
        &self,
        name: &str,
        bytes: Bytes,
        claim: &Arc<Claim>,
    ) -> Result<(), ApiFailure> {
        if !claim.is_fresh() {
            return Err(ApiFailure::unsent());
        }
        // What sends it looks once more, when it is signed.
        let mut options = PutOptions::from(PutMode::Overwrite);
        options.extensions.insert(claim.clone());
        let path = ObjectPath::parse(name).map_err(|error| failure(&error.into()))?;
        let put = self.store.put_opts(&path, bytes.into(), options).await;
        put.map(drop).map_err(|error| failure(&error))
    }

    fn stale_writes(&self) -> StaleWrites {
        self.stale_writes
    }

    async fn list(&self, folder: &str, is_wanted: &Wanted<'_>) -> Result<Vec<String>, ApiFailure> {
        list(&self.store, folder, is_wanted).await
    }

    async fn delete(&self, name: &str) -> Result<(), ApiFailure> {
        delete(&self.store, name).await
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
