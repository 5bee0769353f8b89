//! `PutRecord` and `PutRecords`: the way in.
//!
//! A record is stored as the piece of JSON that a read will send. What costs
//! (parsing, hashing, checking, copying) happens before the model is locked.

use bytes::Bytes;

use super::{
    State,
    fault::Fault,
    request::{self, PutEntry, Stream},
    response::{self, Placed, PutResult},
};
use crate::model::{MAX_PUT_RECORDS, NewRecord, Placement};

pub(crate) fn put_records(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::PutRecords<'_> = serde_json::from_slice(body)?;
    request::refuse_dry_run(request.dry_run)?;
    // The model says the same, but after the work that this would cost.
    if request.records.len() > MAX_PUT_RECORDS {
        return Err(Fault::validation(format!(
            "`Records` has 1 to {MAX_PUT_RECORDS} members, this request has {}",
            request.records.len()
        )));
    }
    let stream = Stream::new(request.stream_name, request.stream_arn);
    let records = prepare(&request.records)?;
    let answers = {
        let mut kinesis = state.kinesis();
        let name = stream.name(&kinesis)?;
        // The clock is read under the lock, so that times grow with sequence numbers.
        let now_ms = state.now_ms();
        kinesis.put_records(now_ms, name, records)?
    };
    let failed_record_count = answers.iter().filter(|answer| answer.is_err()).count();
    let records = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(placement) => PutResult::Placed(placement.into()),
            Err(error) => PutResult::Refused {
                error_code: error.kind.name(),
                error_message: error.message,
            },
        })
        .collect();
    response::encode(&response::PutRecords {
        failed_record_count,
        records,
    })
}

pub(crate) fn put_record(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::PutRecord<'_> = serde_json::from_slice(body)?;
    request::refuse_dry_run(request.dry_run)?;
    let stream = Stream::new(request.stream_name, request.stream_arn);
    let entry = PutEntry {
        data: request.data,
        partition_key: request.partition_key,
        explicit_hash_key: request.explicit_hash_key,
    };
    let record = prepare(std::slice::from_ref(&entry))?.remove(0);
    let placement = {
        let mut kinesis = state.kinesis();
        let name = stream.name(&kinesis)?;
        let now_ms = state.now_ms();
        kinesis.put_record(
            now_ms,
            name,
            record,
            request.sequence_number_for_ordering.as_deref(),
        )?
    };
    response::encode(&Placed::from(placement))
}

impl From<Placement> for Placed {
    fn from(placement: Placement) -> Self {
        Self {
            shard_id: placement.shard_id.to_string(),
            sequence_number: placement.sequence_number.to_string(),
        }
    }
}

/// The records of one request, their texts side by side in one allocation.
fn prepare(entries: &[PutEntry<'_>]) -> Result<Vec<NewRecord<Bytes>>, Fault> {
    const FRAME_BYTES: usize = r#""Data":"","PartitionKey":"""#.len();
    let capacity = entries
        .iter()
        .map(|entry| entry.data.len() + entry.partition_key.len() + FRAME_BYTES)
        .sum();
    let mut texts = Vec::with_capacity(capacity);
    let mut records = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let start = texts.len();
        let data_bytes = decoded_bytes(&entry.data).ok_or_else(|| {
            Fault::serialization(format!("`Data` of record {index} is not base64"))
        })?;
        texts.extend_from_slice(br#""Data":""#);
        texts.extend_from_slice(entry.data.as_bytes());
        texts.extend_from_slice(br#"","PartitionKey":"#);
        serde_json::to_writer(&mut texts, &*entry.partition_key)?;
        let record = NewRecord::with_payload(
            &entry.partition_key,
            entry.explicit_hash_key.as_deref(),
            data_bytes,
            start..texts.len(),
        )?;
        records.push(record);
    }
    let texts = Bytes::from(texts);
    let with_text = |record: NewRecord<std::ops::Range<usize>>| NewRecord {
        hash_key: record.hash_key,
        size_bytes: record.size_bytes,
        payload: texts.slice(record.payload),
    };
    Ok(records.into_iter().map(with_text).collect())
}

/// How many bytes this base64 stands for; `None` if it is none.
fn decoded_bytes(base64: &str) -> Option<usize> {
    base64_simd::STANDARD.check(base64.as_bytes()).ok()?;
    let padding = base64
        .bytes()
        .rev()
        .take_while(|&byte| byte == b'=')
        .count();
    Some(base64.len() / 4 * 3 - padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_measured_and_checked() {
        for (text, bytes) in [
            ("", 0),
            ("AA==", 1),
            ("AAA=", 2),
            ("AAAA", 3),
            ("AAAAAA==", 4),
        ] {
            assert_eq!(decoded_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["A", "AA", "AAA", "====", "AA=A", "A!==", "AAAA=", "AB==\n"] {
            assert_eq!(decoded_bytes(bad), None, "{bad}");
        }
    }
}
