//! Lists that are one object each: read whole, and replaced on condition that nobody else did so meanwhile.

use bytes::Bytes;
use millpond_sink::stored::StoredError;

use crate::client::Version;
use crate::error::S3Error;
use crate::limits::ENLIST_ATTEMPTS;
use crate::writer::Objects;

impl Objects {
    /// The entries of a list, and its version; `None` where there is none.
    ///
    /// # Errors
    /// [`S3Error`] when it cannot be read.
    pub(crate) async fn entries<T>(
        &self,
        name: &str,
        decode: fn(&[u8]) -> Result<Vec<T>, StoredError>,
    ) -> Result<Option<(Vec<T>, Version)>, S3Error> {
        let Some(found) = self.get(name).await? else {
            return Ok(None);
        };
        let entries = decode(&found.bytes).map_err(|error| self.state_error(name, &error))?;
        Ok(Some((entries, found.version)))
    }

    /// Changes the entries of a list, which may not be there yet; `change` answers false where it has nothing to
    /// change.
    ///
    /// # Errors
    /// [`S3Error`] when it cannot be read or put, or others put it each time.
    pub(crate) async fn change_entries<T>(
        &self,
        name: &str,
        decode: fn(&[u8]) -> Result<Vec<T>, StoredError>,
        encode: impl Fn(&[T]) -> Result<Bytes, StoredError>,
        change: impl Fn(&mut Vec<T>) -> bool,
    ) -> Result<(), S3Error> {
        for _ in 0..ENLIST_ATTEMPTS {
            let (mut entries, version) = match self.entries(name, decode).await? {
                Some((entries, version)) => (entries, Some(version)),
                None => (Vec::new(), None),
            };
            if !change(&mut entries) {
                return Ok(());
            }
            let bytes = encode(&entries).map_err(|error| self.state_error(name, &error))?;
            let put = match version {
                None => self.create(name, bytes).await?,
                Some(version) => self.replace(name, bytes, &version).await?,
            };
            // Else somebody else was first, or it was put and the answer lost: reading tells.
            if put.is_some() {
                return Ok(());
            }
        }
        let busy = StoredError::Malformed("it is written faster than it can be read");
        Err(self.state_error(name, &busy))
    }

    /// What is wrong with an object that Millpond keeps for itself.
    pub(crate) fn state_error(&self, name: &str, error: &StoredError) -> S3Error {
        S3Error::State {
            store: self.store().to_owned(),
            name: name.to_owned(),
            what: error.to_string(),
        }
    }
}
