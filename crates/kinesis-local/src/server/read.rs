//! `GetShardIterator` and `GetRecords`: the way out.

use std::io::Write as _;

use bytes::Bytes;

use super::{
    State,
    fault::Fault,
    request::{self, one_of, unix_ms, unsigned},
    response::{self, Child},
};
use crate::model::{GetRecordsPage, IteratorStart};

pub(crate) fn get_shard_iterator(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::GetShardIterator<'_> = serde_json::from_slice(body)?;
    request::refuse_dry_run(request.dry_run)?;
    let start = start(&request)?;
    let shard_id = request::shard_id(&request.shard_id)?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    let shard_iterator = kinesis.get_shard_iterator(state.now_ms(), name, shard_id, start)?;
    response::encode(&response::ShardIterator { shard_iterator })
}

fn start<'a>(request: &'a request::GetShardIterator<'_>) -> Result<IteratorStart<'a>, Fault> {
    let missing = |member: &str| {
        Fault::invalid(format!(
            "`ShardIteratorType` `{}` needs `{member}`",
            request.shard_iterator_type
        ))
    };
    let number = || {
        request
            .starting_sequence_number
            .as_deref()
            .ok_or_else(|| missing("StartingSequenceNumber"))
    };
    Ok(match &*request.shard_iterator_type {
        "TRIM_HORIZON" => IteratorStart::TrimHorizon,
        "LATEST" => IteratorStart::Latest,
        "AT_SEQUENCE_NUMBER" => IteratorStart::AtSequenceNumber(number()?),
        "AFTER_SEQUENCE_NUMBER" => IteratorStart::AfterSequenceNumber(number()?),
        "AT_TIMESTAMP" => IteratorStart::AtTimestamp(unix_ms(
            request.timestamp.ok_or_else(|| missing("Timestamp"))?,
        )?),
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
    const HEAD_BYTES: usize = 144;
    const TAIL_BYTES: usize = 1_024;
    let capacity: usize = page
        .records
        .iter()
        .map(|record| record.payload.len() + HEAD_BYTES)
        .sum();
    let mut body = Vec::with_capacity(capacity + TAIL_BYTES);
    body.extend_from_slice(br#"{"Records":["#);
    // Records of one put arrived together: their time is written once.
    let mut arrival = (None, Vec::new());
    for (index, record) in page.records.iter().enumerate() {
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
    body.extend_from_slice(br#"],"NextShardIterator":"#);
    serde_json::to_writer(&mut body, &page.next_shard_iterator)?;
    write!(
        body,
        r#","MillisBehindLatest":{}"#,
        page.millis_behind_latest
    )
    .map_err(internal)?;
    if !page.child_shards.is_empty() {
        let children: Vec<Child> = page.child_shards.into_iter().map(Child::from).collect();
        body.extend_from_slice(br#","ChildShards":"#);
        serde_json::to_writer(&mut body, &children)?;
    }
    body.push(b'}');
    Ok(Bytes::from(body))
}

fn internal(error: std::io::Error) -> Fault {
    Fault::new("InternalFailure", error.to_string())
}
