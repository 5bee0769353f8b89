//! Where objects go: a bucket of S3, or a folder of this machine.

use std::path::PathBuf;

use object_store::path::Path as ObjectPath;

use crate::limits::MAX_PREFIX_BYTES;

/// Where objects go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A bucket, and what names of objects begin with, without a slash at either end.
    Bucket {
        /// Bucket name.
        bucket: String,
        /// Prefix, may be empty.
        prefix: String,
    },
    /// A folder.
    Directory(PathBuf),
}

/// Why a `url` names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Not a bucket name.
    #[error("has no bucket name")]
    Bucket,
    /// A prefix that no object name can begin with.
    #[error("has a prefix that no object name can begin with")]
    Prefix,
    /// Another scheme.
    #[error("is of another scheme than `s3` and `file`")]
    Scheme,
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// A host in a file URL.
    #[error("is a file URL with a host")]
    Host,
}

impl Location {
    /// Reads `s3://BUCKET[/PREFIX]`, `file:///FOLDER`, or the path of a folder, which `resolve`
    /// makes absolute.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn parse(url: &str, resolve: impl Fn(&str) -> PathBuf) -> Result<Self, LocationError> {
        if url.is_empty() {
            return Err(LocationError::Empty);
        }
        if let Some(rest) = url.strip_prefix("file://") {
            return match rest.starts_with('/') {
                true => Ok(Self::Directory(PathBuf::from(rest))),
                false => Err(LocationError::Host),
            };
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return match url.contains("://") {
                true => Err(LocationError::Scheme),
                false => Ok(Self::Directory(resolve(url))),
            };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket_name(bucket) {
            return Err(LocationError::Bucket);
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_prefix(prefix) {
            return Err(LocationError::Prefix);
        }
        Ok(Self::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    /// What names of objects begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self {
            Self::Bucket { prefix, .. } => prefix,
            Self::Directory(_) => "",
        }
    }
}

/// S3 user guide, "General purpose bucket naming rules" (read 2026-11-23).
fn is_bucket_name(name: &str) -> bool {
    let known = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| known(*byte))
        && ends(bytes.first())
        && ends(bytes.last())
        && !name.contains("..")
}

fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty()
        || prefix.len() <= MAX_PREFIX_BYTES
            && !prefix.starts_with('/')
            && ObjectPath::parse(prefix).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Location, LocationError> {
        Location::parse(url, |path| PathBuf::from("/base").join(path))
    }

    #[test]
    fn places_and_what_is_none() {
        let bucket = |prefix: &str| {
            Ok(Location::Bucket {
                bucket: "my-lake.2".into(),
                prefix: prefix.into(),
            })
        };
        let folder = |path: &str| Ok(Location::Directory(path.into()));
        for (url, expected) in [
            ("s3://my-lake.2", bucket("")),
            ("s3://my-lake.2/", bucket("")),
            ("s3://my-lake.2/a/b c/", bucket("a/b c")),
            ("file:///var/lake", folder("/var/lake")),
            ("lake", folder("/base/lake")),
            ("/lake", folder("/lake")),
            ("", Err(LocationError::Empty)),
            ("s3://", Err(LocationError::Bucket)),
            ("s3://My-Lake", Err(LocationError::Bucket)),
            ("s3://ab", Err(LocationError::Bucket)),
            ("s3://a..b", Err(LocationError::Bucket)),
            ("s3://my-lake.2/a//b", Err(LocationError::Prefix)),
            ("s3://my-lake.2//a", Err(LocationError::Prefix)),
            ("s3://my-lake.2/../b", Err(LocationError::Prefix)),
            ("gs://my-lake", Err(LocationError::Scheme)),
            ("file://host/lake", Err(LocationError::Host)),
        ] {
            assert_eq!(parse(url), expected, "{url}");
        }
    }
}
