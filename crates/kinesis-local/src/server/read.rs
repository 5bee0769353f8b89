//! `GetShardIterator` and `GetRecords`: the way out.

use std::io::Write as _;

use bytes::Bytes;

use super::{
    State,
    fault::Fault,
    request::{self, one_of, unix_ms, unsigned},
    response::{self, Child},
};
use crate::model::{ChildShard, GetRecordsPage, IteratorStart, Record};

pub(crate) fn get_shard_iterator(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::GetShardIterator<'_> = serde_json::from_slice(body)?;
    request::refuse_dry_run(request.dry_run)?;
    let start = start(
        &request.shard_iterator_type,
        request.starting_sequence_number.as_deref(),
        request.timestamp,
    )?;
    let shard_id = request::shard_id(&request.shard_id)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    let shard_iterator = kinesis.get_shard_iterator(state.now_ms(), name, shard_id, start)?;
    response::encode(&response::ShardIterator { shard_iterator })
}

/// Where to read from, of a request whose members are checked here.
pub(super) fn start<'a>(
    kind: &str,
    sequence_number: Option<&'a str>,
    timestamp: Option<f64>,
) -> Result<IteratorStart<'a>, Fault> {
    let missing = |member: &str| Fault::invalid(format!("start `{kind}` needs `{member}`"));
    let number = || sequence_number.ok_or_else(|| missing("StartingSequenceNumber"));
    Ok(match kind {
        "TRIM_HORIZON" => IteratorStart::TrimHorizon,
        "LATEST" => IteratorStart::Latest,
        "AT_SEQUENCE_NUMBER" => IteratorStart::AtSequenceNumber(number()?),
        "AFTER_SEQUENCE_NUMBER" => IteratorStart::AfterSequenceNumber(number()?),
        "AT_TIMESTAMP" => {
            IteratorStart::AtTimestamp(unix_ms(timestamp.ok_or_else(|| missing("Timestamp"))?)?)
        }
        other => {
            return Err(one_of(
                "ShardIteratorType",
                other,
                "`AT_SEQUENCE_NUMBER`, `AFTER_SEQUENCE_NUMBER`, `TRIM_HORIZON`, `LATEST` or `AT_TIMESTAMP`",
            ));
        }
    })
}

pub(crate) fn get_records(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::GetRecords<'_> = serde_json::from_slice(body)?;
    request::refuse_dry_run(request.dry_run)?;
    let limit = request
        .limit
        .map(|limit| unsigned("Limit", limit))
        .transpose()?;
    // Under the lock only references are taken; the bytes are copied after.
    let page = state
        .kinesis()
        .get_records(state.now_ms(), &request.shard_iterator, limit)?;
    encode(page)
}

fn encode(page: GetRecordsPage<Bytes>) -> Result<Bytes, Fault> {
    let mut body = records(&page.records)?;
    body.extend_from_slice(br#","NextShardIterator":"#);
    serde_json::to_writer(&mut body, &page.next_shard_iterator)?;
    tail(body, page.millis_behind_latest, page.child_shards)
}

/// The start of an answer, up to and with its records.
pub(super) fn records(records: &[Record<Bytes>]) -> Result<Vec<u8>, Fault> {
    const HEAD_BYTES: usize = 144;
    const TAIL_BYTES: usize = 1_024;
    let capacity: usize = records
        .iter()
        .map(|record| record.payload.len() + HEAD_BYTES)
        .sum();
    let mut body = Vec::with_capacity(capacity + TAIL_BYTES);
    body.extend_from_slice(br#"{"Records":["#);
    // Records of one put arrived together: their time is written once.
    let mut arrival = (None, Vec::new());
    for (index, record) in records.iter().enumerate() {
        body.extend_from_slice(if index == 0 {
            br#"{"SequenceNumber":""#
        } else {
            br#",{"SequenceNumber":""#
        });
        body.extend_from_slice(&record.sequence_number.to_digits());
        if arrival.0 != Some(record.arrival_ms) {
            let (seconds, millis) = (record.arrival_ms / 1_000, record.arrival_ms % 1_000);
            arrival.1.clear();
            write!(
                arrival.1,
                r#"","ApproximateArrivalTimestamp":{seconds}.{millis:03},"#
            )
            .map_err(internal)?;
            arrival.0 = Some(record.arrival_ms);
        }
        body.extend_from_slice(&arrival.1);
        body.extend_from_slice(&record.payload);
        body.push(b'}');
    }
    body.push(b']');
    Ok(body)
}

/// The end of an answer that has its records.
pub(super) fn tail(
    mut body: Vec<u8>,
    millis_behind_latest: u64,
    child_shards: Vec<ChildShard>,
) -> Result<Bytes, Fault> {
    write!(body, r#","MillisBehindLatest":{millis_behind_latest}"#).map_err(internal)?;
    if !child_shards.is_empty() {
        let children: Vec<Child> = child_shards.into_iter().map(Child::from).collect();
        body.extend_from_slice(br#","ChildShards":"#);
        serde_json::to_writer(&mut body, &children)?;
    }
    body.push(b'}');
    Ok(Bytes::from(body))
}

fn internal(error: std::io::Error) -> Fault {
    Fault::new("InternalFailure", error.to_string())
}
