//! Ledger rows and registrations as JSON, for stores that keep bytes under names.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use millpond_connector::topic::Offset;
use millpond_format::gap::Gap;
use serde::{Deserialize, Serialize};

use crate::ledger::{Intent, LedgerRow, Log};
use crate::marks::{Marks, MarksError};
use crate::registration::Registration;

/// Layout version.
const VERSION: u32 = 1;

/// Why a row or registration could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Not JSON, or something is missing.
    #[error("is not what Millpond writes: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("has version {0}, newer than {VERSION}, the newest known here; upgrade Millpond")]
    NewerVersion(u32),
    /// Contradicts itself.
    #[error("is not what Millpond writes: {0}")]
    Malformed(&'static str),
    /// Its marks could not be read or written.
    #[error("ledger: {0}")]
    Marks(#[from] MarksError),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLedger {
    version: u32,
    epoch: u64,
    owner: String,
    plan: u64,
    committed: u64,
    start: u64,
    /// `from/to/fingerprint`.
    intent: Option<String>,
    /// The marks that the intent moves, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved: Option<String>,
    /// In base64.
    marks: String,
    /// `shift/identity`, where either is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredGaps {
    version: u32,
    gaps: Vec<StoredGap>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredGap {
    /// First offset of the plan.
    from: u64,
    /// As `FORMAT.md` says.
    gap: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredRegistration {
    version: u32,
    topic: String,
    partitions: u32,
    fingerprint: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPipelines {
    version: u32,
    topic: String,
    pipelines: BTreeMap<String, StoredPipeline>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPipeline {
    partitions: u32,
    fingerprint: String,
}

/// The version alone, which is looked at before anything else.
#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

fn check_version(bytes: &[u8]) -> Result<(), StoredError> {
    match serde_json::from_slice::<Versioned>(bytes)?.version {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(StoredError::NewerVersion(newer)),
        _ => Err(StoredError::Malformed("unknown `version`")),
    }
}

/// The bytes of a ledger row.
///
/// # Errors
/// [`StoredError::Marks`] when there are too many.
pub fn encode_ledger(row: &LedgerRow) -> Result<Bytes, StoredError> {
    let moved = row.intent.as_ref().and_then(|intent| intent.moved.as_ref());
    let moved = moved.map(Marks::encode).transpose()?;
    let stored = StoredLedger {
        version: VERSION,
        epoch: row.epoch,
        owner: row.owner.clone(),
        plan: row.plan,
        committed: row.committed,
        start: row.start,
        intent: row.intent.as_ref().map(Intent::text),
        moved: moved.map(|moved| STANDARD.encode(moved)),
        marks: STANDARD.encode(row.marks.encode()?),
        log: (row.log != Log::default()).then(|| row.log.text()),
    };
    Ok(serde_json::to_vec(&stored)?.into())
}

/// Reads a ledger row.
///
/// # Errors
/// [`StoredError`] names what is missing or not as it should be.
pub fn decode_ledger(bytes: &[u8]) -> Result<LedgerRow, StoredError> {
    use StoredError::Malformed;
    check_version(bytes)?;
    let stored: StoredLedger = serde_json::from_slice(bytes)?;
    let mut intent = match stored.intent {
        None => None,
        Some(text) => Some(Intent::parse(&text).ok_or(Malformed("`intent`"))?),
    };
    match (&mut intent, stored.moved) {
        (_, None) => {}
        (Some(intent), Some(text)) => {
            let bytes = STANDARD.decode(&text).map_err(|_| Malformed("`moved`"))?;
            intent.moved = Some(Marks::decode(&bytes)?);
        }
        (None, Some(_)) => return Err(Malformed("`moved` without `intent`")),
    }
    let log = match stored.log {
        None => Log::default(),
        Some(text) => Log::parse(&text).ok_or(Malformed("`log`"))?,
    };
    let marks = STANDARD
        .decode(&stored.marks)
        .map_err(|_| Malformed("`marks`"))?;
    let row = LedgerRow {
        epoch: stored.epoch,
        owner: stored.owner,
        plan: stored.plan,
        committed: stored.committed,
        start: stored.start,
        intent,
        marks: Marks::decode(&marks)?,
        log,
    };
    match row.problem() {
        None => Ok(row),
        Some(problem) => Err(Malformed(problem)),
    }
}

/// The bytes of the gaps of a topic partition, each with the first offset of its plan.
///
/// # Errors
/// [`StoredError::Json`], which no gaps are known to cause.
pub fn encode_gaps(gaps: &[(Offset, Gap)]) -> Result<Bytes, StoredError> {
    let stored = |(from, gap): &(Offset, Gap)| StoredGap {
        from: *from,
        gap: gap.text(),
    };
    let stored = StoredGaps {
        version: VERSION,
        gaps: gaps.iter().map(stored).collect(),
    };
    Ok(serde_json::to_vec(&stored)?.into())
}

/// Reads gaps.
///
/// # Errors
/// [`StoredError`] names what is missing or not as it should be.
pub fn decode_gaps(bytes: &[u8]) -> Result<Vec<(Offset, Gap)>, StoredError> {
    check_version(bytes)?;
    let stored: StoredGaps = serde_json::from_slice(bytes)?;
    let gap = |stored: StoredGap| {
        let gap = Gap::parse(&stored.gap).ok_or(StoredError::Malformed("`gap`"))?;
        Ok((stored.from, gap))
    };
    stored.gaps.into_iter().map(gap).collect()
}

/// The bytes of a registration.
///
/// # Errors
/// [`StoredError::Json`], which no registration is known to cause.
pub fn encode_registration(registration: &Registration) -> Result<Bytes, StoredError> {
    let stored = StoredRegistration {
        version: VERSION,
        topic: registration.topic.clone(),
        partitions: registration.partitions,
        fingerprint: registration.fingerprint.clone(),
    };
    Ok(serde_json::to_vec(&stored)?.into())
}

/// Reads a registration.
///
/// # Errors
/// [`StoredError`] names what is missing or not as it should be.
pub fn decode_registration(bytes: &[u8]) -> Result<Registration, StoredError> {
    check_version(bytes)?;
    let stored: StoredRegistration = serde_json::from_slice(bytes)?;
    Ok(Registration {
        topic: stored.topic,
        partitions: stored.partitions,
        fingerprint: stored.fingerprint,
    })
}

/// The bytes of a list of the pipelines of one topic, by name.
///
/// # Errors
/// [`StoredError::Json`], which no list is known to cause.
pub fn encode_pipelines(
    topic: &str,
    pipelines: &[(String, Registration)],
) -> Result<Bytes, StoredError> {
    let stored = |registration: &Registration| StoredPipeline {
        partitions: registration.partitions,
        fingerprint: registration.fingerprint.clone(),
    };
    let pipelines = pipelines.iter();
    let stored = StoredPipelines {
        version: VERSION,
        topic: topic.to_owned(),
        pipelines: pipelines
            .map(|(name, registration)| (name.clone(), stored(registration)))
            .collect(),
    };
    Ok(serde_json::to_vec(&stored)?.into())
}

/// Reads a list of pipelines.
///
/// # Errors
/// [`StoredError`] names what is missing or not as it should be.
pub fn decode_pipelines(bytes: &[u8]) -> Result<Vec<(String, Registration)>, StoredError> {
    check_version(bytes)?;
    let stored: StoredPipelines = serde_json::from_slice(bytes)?;
    let registration = |pipeline: StoredPipeline| Registration {
        topic: stored.topic.clone(),
        partitions: pipeline.partitions,
        fingerprint: pipeline.fingerprint,
    };
    let pipelines = stored.pipelines.into_iter();
    Ok(pipelines
        .map(|(name, pipeline)| (name, registration(pipeline)))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rows_survive_and_damage_is_seen() {
        let claimed = LedgerRow::claim(None, "a", 10, None).row;
        let open = claimed.begin(None, 20, "f", Vec::new()).row;
        for row in [claimed, open] {
            let bytes = encode_ledger(&row).expect("encodes");
            assert_eq!(decode_ledger(&bytes).expect("decodes"), row);
            let stored: Value = serde_json::from_slice(&bytes).expect("json");
            for name in stored.as_object().expect("an object").keys() {
                let mut damaged = stored.clone();
                damaged[name] = json!({});
                let bytes = serde_json::to_vec(&damaged).expect("json");
                assert!(decode_ledger(&bytes).is_err(), "{name}");
            }
            for end in 0..bytes.len() {
                assert!(decode_ledger(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn a_later_version_is_refused_before_anything_else_is_read() {
        let text = br#"{"version":2,"everything":"else"}"#;
        for error in [
            decode_ledger(text).map(drop).expect_err("newer"),
            decode_registration(text).map(drop).expect_err("newer"),
            decode_pipelines(text).map(drop).expect_err("newer"),
            decode_gaps(text).map(drop).expect_err("newer"),
        ] {
            assert!(matches!(error, StoredError::NewerVersion(2)), "{error}");
        }
        let registration = Registration {
            topic: "events".into(),
            partitions: 4,
            fingerprint: "f".into(),
        };
        let bytes = encode_registration(&registration).expect("encodes");
        assert_eq!(decode_registration(&bytes).expect("decodes"), registration);
        let list = ["a", "b"].map(|name| (name.to_owned(), registration.clone()));
        let bytes = encode_pipelines("events", &list).expect("encodes");
        assert_eq!(decode_pipelines(&bytes).expect("decodes"), list);
        let gaps = [
            (3, Gap::Offsets { from: 3, to: 9 }),
            (9, Gap::Plan { from: 9, to: 12 }),
        ];
        let bytes = encode_gaps(&gaps).expect("encodes");
        assert_eq!(decode_gaps(&bytes).expect("decodes"), gaps);
        assert!(decode_gaps(br#"{"version":1,"gaps":[{"from":3,"gap":"hole/3"}]}"#).is_err());
    }
}
