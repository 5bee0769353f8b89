//! Attribute values of every type that DynamoDB has, and their exact sizes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_format::sizing::number_bytes;

use crate::decimal::Decimal;

/// Bytes that a list or a map takes besides its elements (DynamoDB developer guide, "DynamoDB
/// item sizes and formats", read 2026-11-23).
const COLLECTION_BYTES: usize = 3;

/// Bytes that each element of a list or a map takes besides itself (same page).
const ELEMENT_BYTES: usize = 1;

/// A value of any type. Sets are without repetition and in order, so equal values are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// String.
    S(String),
    /// Number.
    N(Decimal),
    /// Binary.
    B(Bytes),
    /// Boolean.
    Bool(bool),
    /// Null.
    Null,
    /// List.
    L(Vec<Typed>),
    /// Map.
    M(BTreeMap<String, Typed>),
    /// Set of strings, never empty.
    Ss(BTreeSet<String>),
    /// Set of numbers, never empty.
    Ns(BTreeSet<Decimal>),
    /// Set of binaries, never empty.
    Bs(BTreeSet<Bytes>),
}

impl Typed {
    /// Bytes by DynamoDB's rules, without the attribute's name.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::S(text) => text.len(),
            Self::N(number) => number_bytes(number.as_str()),
            Self::B(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 1,
            Self::L(list) => {
                let elements = list.iter().map(|value| ELEMENT_BYTES + value.bytes());
                COLLECTION_BYTES + elements.sum::<usize>()
            }
            Self::M(map) => {
                let entries = map.iter();
                let entries = entries.map(|(name, v)| ELEMENT_BYTES + name.len() + v.bytes());
                COLLECTION_BYTES + entries.sum::<usize>()
            }
            Self::Ss(set) => set.iter().map(String::len).sum(),
            Self::Ns(set) => set.iter().map(|n| number_bytes(n.as_str())).sum(),
            Self::Bs(set) => set.iter().map(Bytes::len).sum(),
        }
    }
}
