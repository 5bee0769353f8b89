//! `PutRecord` and `PutRecords`.

use super::{
    Kinesis, KinesisError, NewRecord, SequenceNumber, ShardId,
    limits::{MAX_PUT_BYTES, MAX_PUT_RECORDS},
    record::Clip,
};

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The shard.
    pub shard_id: ShardId,
    /// The position in the shard.
    pub sequence_number: SequenceNumber,
}

impl<P> Kinesis<P> {
    /// Stores the records, in order. The answer has one entry per record: a record
    /// over a shard's write limit is refused alone, with `ProvisionedThroughputExceededException`.
    ///
    /// # Errors
    /// For the whole request: `ResourceNotFoundException`, `ValidationException` (no
    /// record, more than 500, or one over 10 MiB), `InvalidArgumentException` (a record over the
    /// stream's limit, or all together over 10 MiB), `LimitExceededException` (the
    /// stream may not hold so much).
    pub fn put_records(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        records: Vec<NewRecord<P>>,
    ) -> Result<Vec<Result<Placement, KinesisError>>, KinesisError> {
        if records.is_empty() || records.len() > MAX_PUT_RECORDS {
            return Err(KinesisError::validation(format!(
                "`Records` has 1 to {MAX_PUT_RECORDS} members, this request has {}",
                records.len()
            )));
        }
        let total: usize = records.iter().map(|record| record.size_bytes).sum();
        let largest = records
            .iter()
            .map(|record| record.size_bytes)
            .max()
            .unwrap_or(0);
        if largest > MAX_PUT_BYTES {
            return Err(KinesisError::validation(format!(
                "a record has at most {MAX_PUT_BYTES} bytes of data and partition key, one here has {largest}"
            )));
        }
        if total > MAX_PUT_BYTES {
            return Err(KinesisError::invalid(format!(
                "a request has at most {MAX_PUT_BYTES} bytes of data and partition keys, this one has {total}"
            )));
        }
        let now_ms = self.advance(now_ms);
        let (stream, config) = self.stream_and_config(stream_name)?;
        stream.check_usable(config)?;
        if largest > stream.max_record_bytes() {
            return Err(KinesisError::invalid(format!(
                "a record of stream `{stream_name}` has at most {} bytes of data and partition key, one here has \
                 {largest}: raise `MaxRecordSizeInKiB` with UpdateMaxRecordSize (up to 10240)",
                stream.max_record_bytes()
            )));
        }
        if let Some(cap) = config.max_retained_bytes_per_stream
            && stream.retained_bytes.saturating_add(total as u64) > cap
        {
            return Err(KinesisError::limit(format!(
                "stream `{stream_name}` may hold {cap} bytes and holds {}: {total} more do not fit; read and delete \
                 it, shorten its retention, or start the server with a larger limit",
                stream.retained_bytes
            )));
        }
        stream.expires_from(now_ms);
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            let bytes = record.size_bytes as u64;
            // Open shards cover the hash space, so there is always one.
            let shard = stream
                .route(record.hash_key)
                .and_then(|id| stream.shards.get_mut(&id));
            let Some(shard) = shard else {
                answers.push(Err(KinesisError::not_found(format!(
                    "no open shard for `{}`",
                    record.hash_key
                ))));
                continue;
            };
            if shard
                .write_meter
                .as_mut()
                .is_some_and(|meter| !meter.admit(now_ms, bytes))
            {
                answers.push(Err(KinesisError::throughput(format!(
                    "rate exceeded for shard `{}` in stream `{stream_name}` under account {}",
                    shard.id, config.account_id
                ))));
                continue;
            }
            let sequence_number = shard.push(now_ms, record.size_bytes, record.payload);
            stream.retained_bytes += bytes;
            answers.push(Ok(Placement {
                shard_id: shard.id,
                sequence_number,
            }));
        }
        Ok(answers)
    }

    /// Stores one record. `after`, if given, is the text of a sequence number that
    /// the new one must be larger than; here every new one is.
    ///
    /// # Errors
    /// As [`Kinesis::put_records`], and `ProvisionedThroughputExceededException`;
    /// `InvalidArgumentException` for an `after` that no put can have returned.
    pub fn put_record(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        record: NewRecord<P>,
        after: Option<&str>,
    ) -> Result<Placement, KinesisError> {
        if let Some(text) = after {
            let number: SequenceNumber = text.parse().map_err(|error| {
                KinesisError::invalid(format!(
                    "`SequenceNumberForOrdering` `{}`: {error}",
                    Clip(text)
                ))
            })?;
            let known = self
                .stream(stream_name)?
                .shards
                .get(&number.shard)
                .is_some_and(|shard| shard.ordinal_at_sequence_number(number, true).is_some());
            if !known {
                return Err(KinesisError::invalid(format!(
                    "`SequenceNumberForOrdering` `{text}` is not of stream `{stream_name}`"
                )));
            }
        }
        let mut answers = self.put_records(now_ms, stream_name, vec![record])?;
        match answers.pop() {
            Some(answer) => answer,
            None => Err(KinesisError::validation("no record was put")),
        }
    }
}
