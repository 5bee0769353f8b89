//! Items as JSON, without their payload.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use millpond_format::header::{Codec, Header, Kind, Place, SourceRange};
use millpond_format::origin::Origin;
use millpond_format::{keys, sizing};
use serde_json::{Value, json};

use crate::damage::Check;
use crate::directory::{self, ChainRow, Pipeline};
use crate::error::ReadError;
use crate::event::ItemKey;
use crate::events::ReadStats;
use crate::gather::Gather;
use crate::item::{FRAMES, HEADER, ORIGIN, VALUE, binary, is_plain, read_header};
use crate::table::{Attributes, PageRequest, Table, text};

/// Items of a group as JSON, chain by chain in stored order.
#[derive(Debug)]
pub struct Items {
    table: Arc<Table>,
    group: String,
    pipeline: String,
    /// Chains still to read, the next one last.
    chains: Vec<ChainRow>,
    gather: Option<Gather>,
}

impl Items {
    pub(crate) async fn open(
        table: &Arc<Table>,
        pipeline: &Pipeline,
        group: &str,
    ) -> Result<Self, ReadError> {
        let rows = directory::chains_of(table, pipeline, group).await?;
        if rows.is_empty() {
            return Err(directory::no_such_group(table, pipeline, group));
        }
        Ok(Self {
            table: Arc::clone(table),
            group: group.to_owned(),
            pipeline: pipeline.name.clone(),
            chains: rows.into_iter().rev().collect(),
            gather: None,
        })
    }

    /// The next item; `None` after the last one.
    ///
    /// # Errors
    /// A [`ReadError`]; [`ReadError::Damaged`] for an item whose header cannot be read.
    pub async fn next(&mut self) -> Result<Option<Value>, ReadError> {
        loop {
            let next = match &mut self.gather {
                Some(gather) => gather.next(&mut ReadStats::default()).await?,
                None => None,
            };
            if let Some(attributes) = next {
                let key = self.table.key_of(&attributes);
                match item_json(&self.table, &attributes, &key, &self.group) {
                    Ok(value) => return Ok(Some(value)),
                    Err(check) => self.table.report(key, check)?,
                }
                continue;
            }
            let Some(chain) = self.chains.pop() else {
                return Ok(None);
            };
            let request = PageRequest {
                consistent: self.table.consistent,
                // Two full items a page: no more than one page of each write shard is ever held.
                ..PageRequest::all(String::new())
            };
            let of = (self.pipeline.as_str(), self.group.as_str());
            self.gather = Some(Gather::new(Arc::clone(&self.table), of, chain, request));
        }
    }
}

/// One item by its key.
pub(crate) async fn one(table: &Table, pk: &str, sk: &str) -> Result<Value, ReadError> {
    let key = ItemKey {
        pk: pk.into(),
        sk: sk.into(),
    };
    let Some(attributes) = table.get(pk, sk).await? else {
        return Err(ReadError::NoSuchItem {
            table: table.name.clone(),
            pk: pk.to_owned(),
            sk: sk.to_owned(),
        });
    };
    let bare = table.layout.bare_pk(pk).and_then(keys::parse_chain_pk);
    let group = bare.map(|chain| chain.group);
    let result = match group {
        Some(group) => item_json(table, &attributes, &key, group),
        None => Err(Check::NotAnItem {
            found: "something else: the partition key is not `<prefix><pipeline>/<group>#<partition>`, with or without `.<write shard>`",
        }),
    };
    result.map_err(|check| {
        ReadError::from(crate::damage::Damage {
            table: table.name.clone(),
            item: key,
            check,
        })
    })
}

fn item_json(
    table: &Table,
    attributes: &Attributes,
    key: &ItemKey,
    group: &str,
) -> Result<Value, Check> {
    let bytes = item_bytes(table, attributes);
    let mut value = json!({
        "table": table.name,
        "pk": &*key.pk,
        "sk": &*key.sk,
        "item_bytes": bytes,
        "write_units": sizing::write_units(bytes),
    });
    let described = if is_plain(attributes) {
        plain_json(attributes, key)?
    } else {
        let header = read_header(attributes, key, group)?.header;
        let section = binary(attributes, HEADER)?;
        header_json(&header, section, binary(attributes, FRAMES)?)
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut value, described) {
        all.extend(more);
    }
    Ok(value)
}

fn plain_json(attributes: &Attributes, key: &ItemKey) -> Result<Value, Check> {
    keys::SortKey::parse(&key.sk).ok_or(Check::SortKey)?;
    let event = binary(attributes, VALUE)?;
    let origin = text(attributes, ORIGIN).ok_or(Check::MissingAttribute { name: ORIGIN })?;
    let parsed = Origin::parse(origin.as_bytes()).map_err(Check::Origin)?;
    Ok(json!({
        "kind": "plain",
        "event_bytes": event.len(),
        "origin": {
            "stream": parsed.stream,
            "shard": parsed.shard,
            "sequence_number": parsed.sequence.as_str(),
            "sub_sequence_number": parsed.sub_sequence,
            "arrival": keys::time_text(parsed.arrival_ms),
            "chain_epoch": parsed.chain.epoch,
            "chain_ordinal": parsed.chain.ordinal,
            "partition_key": parsed.partition_key,
        },
    }))
}

fn header_json(header: &Header, section: &[u8], payload: &[u8]) -> Value {
    let mut start = 0usize;
    let frames: Vec<_> = header
        .frames
        .iter()
        .map(|frame| {
            let end = start.saturating_add(frame.packed_bytes as usize);
            let check = match payload.get(start..end) {
                None => "truncated".to_owned(),
                Some(packed) => match frame.check(packed) {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => error.to_string(),
                },
            };
            let value = json!({
                "offset": start,
                "packed_bytes": frame.packed_bytes,
                "raw_bytes": frame.raw_bytes,
                "events": frame.event_count,
                "event_bytes": frame.event_bytes,
                "first_time": keys::time_text(frame.first_time_ms),
                "last_time": keys::time_text(frame.last_time_ms),
                "crc32c": format!("{:08x}", frame.crc32c),
                "sources": frame.sources,
                "check": check,
            });
            start = end;
            value
        })
        .collect();
    json!({
        "format_version": section.get(3),
        "kind": kind_json(&header.kind),
        "codec": match header.codec {
            Codec::Stored => json!({"name": "stored"}),
            Codec::Zstd { dictionary } => json!({"name": "zstd", "dictionary": dictionary}),
        },
        "group": header.group,
        "events": header.event_count(),
        "event_bytes": header.event_bytes(),
        "first_time": keys::time_text(header.first_time_ms()),
        "last_time": keys::time_text(header.last_time_ms()),
        "topic_offsets": {"first": header.base_offset, "last": header.last_offset},
        "place": match header.place {
            Place::Batch { index, total } => json!({"batch": {"index": index, "total": total}}),
            Place::Chain(totals) => json!({"chain_totals": {
                "items": totals.items,
                "events": totals.events,
                "event_bytes": totals.event_bytes,
                "packed_bytes": totals.packed_bytes,
            }}),
        },
        "header_bytes": section.len(),
        "payload_bytes": payload.len(),
        "payload_bytes_by_index": header.packed_bytes(),
        "sources": header.sources.iter().map(source_json).collect::<Vec<_>>(),
        "frames": frames,
    })
}

fn kind_json(kind: &Kind) -> Value {
    match kind {
        Kind::Events => json!("events"),
        Kind::Part(part) => json!({"part": {
            "index": part.index,
            "count": part.count,
            "event_bytes": part.event_bytes,
            "event_crc32c": format!("{:08x}", part.event_crc32c),
        }}),
        Kind::Reject(reject) => json!({"reject": {
            "reason": reject.reason.name(),
            "detail": reject.detail,
        }}),
    }
}

fn source_json(source: &SourceRange) -> Value {
    json!({
        "stream": source.stream,
        "shard": source.shard,
        "chain_epoch": source.epoch,
        "ordinals": {"first": source.first_ordinal, "last": source.last_ordinal},
        "first": {
            "sequence_number": &*source.first.sequence,
            "sub_sequence_number": source.first.sub_sequence,
        },
        "last": {
            "sequence_number": &*source.last.sequence,
            "sub_sequence_number": source.last.sub_sequence,
        },
        "events": source.count,
    })
}

/// Bytes of an item as DynamoDB counts them.
fn item_bytes(table: &Table, attributes: &Attributes) -> usize {
    attributes
        .iter()
        .map(|(name, value)| table.layout.name(name).len() + value_bytes(value))
        .sum()
}

/// Bytes of a value (DynamoDB developer guide, "DynamoDB item sizes and formats", read 2026-11-23).
fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => sizing::number_bytes(number),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|n| sizing::number_bytes(n)).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(values) => 3 + values.iter().map(|v| 1 + value_bytes(v)).sum::<usize>(),
        AttributeValue::M(map) => {
            let entries = map.iter().map(|(name, v)| 1 + name.len() + value_bytes(v));
            3 + entries.sum::<usize>()
        }
        // Booleans and null.
        _ => 1,
    }
}
