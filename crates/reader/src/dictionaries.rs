//! The dictionaries that items name: each is fetched once, when the first item needs it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use millpond_format::dictionary::Dictionary;
use millpond_format::error::DecodeError;
use millpond_format::frame::FrameDecoder;
use millpond_format::header::Codec;
use millpond_format::keys;

use crate::damage::Check;
use crate::error::ReadError;
use crate::item::binary;
use crate::table::{Attributes, Table, integer};

/// Attribute of the dictionary's bytes.
const DICTIONARY: &str = "dictionary";
/// Attribute of their checksum.
const CRC: &str = "crc";

/// Most dictionaries that are kept, several times what a pipeline has.
const MAX_KEPT: usize = 512;

/// What came of looking for a dictionary.
type Found = Result<Arc<Dictionary>, Unusable>;

/// Why there is no dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unusable {
    Missing,
    Broken(DecodeError),
}

/// Dictionaries by pipeline and id; those that are not there, too: one is stored before an item names it.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries(Mutex<BTreeMap<(String, u64), Found>>);

impl Dictionaries {
    /// Gives the decoder the dictionary that frames in this codec need, if it has not got it; what is wrong
    /// with it, if it cannot be had.
    pub(crate) async fn prepare(
        &self,
        table: &Table,
        pipeline: &str,
        codec: Codec,
        decoder: &mut FrameDecoder,
    ) -> Result<Result<(), Check>, ReadError> {
        let Some(id) = decoder.lacks(codec) else {
            return Ok(Ok(()));
        };
        Ok(match self.get(table, pipeline, id).await? {
            Ok(dictionary) => {
                decoder.learn(dictionary);
                Ok(())
            }
            Err(check) => Err(check),
        })
    }

    /// A dictionary of a pipeline; what is wrong with it, if it cannot be had.
    pub(crate) async fn get(
        &self,
        table: &Table,
        pipeline: &str,
        id: u64,
    ) -> Result<Result<Arc<Dictionary>, Check>, ReadError> {
        let name = (pipeline.to_owned(), id);
        let known = self.kept().get(&name).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let found = fetch(table, pipeline, id).await?;
                let mut kept = self.kept();
                if kept.len() >= MAX_KEPT {
                    kept.clear();
                }
                kept.insert(name, found.clone());
                found
            }
        };
        Ok(found.map_err(|unusable| Check::Dictionary {
            id,
            pk: keys::dictionaries_pk(pipeline),
            sk: keys::dictionary_sk(id),
            what: match unusable {
                Unusable::Missing => "is missing".to_owned(),
                Unusable::Broken(error) => format!("cannot be used: {error}"),
            },
        }))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, u64), Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(table: &Table, pipeline: &str, id: u64) -> Result<Found, ReadError> {
    let pk = keys::dictionaries_pk(pipeline);
    let Some(row) = table.get(&pk, &keys::dictionary_sk(id)).await? else {
        return Ok(Err(Unusable::Missing));
    };
    let read = of_row(id, &row).map_err(Unusable::Broken);
    Ok(read.map(Arc::new))
}

fn of_row(id: u64, row: &Attributes) -> Result<Dictionary, DecodeError> {
    let bytes = binary(row, DICTIONARY).ok();
    let crc = integer(row, CRC).and_then(|crc| u32::try_from(crc).ok());
    match (bytes, crc) {
        (Some(bytes), Some(crc)) => Dictionary::checked(id, bytes.to_vec(), crc),
        _ => Err(DecodeError::Corrupt {
            what: "row of a dictionary",
        }),
    }
}
