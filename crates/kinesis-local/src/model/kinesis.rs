//! The account: streams by name.

use std::collections::BTreeMap;

use super::{
    KinesisError, ModelConfig, StreamMode, StreamStatus,
    limits::{
        MAX_MAX_RECORD_KIB, MAX_SHARDS_PER_STREAM, MAX_STREAM_NAME_CHARS, MIN_MAX_RECORD_KIB,
        MIN_RETENTION_HOURS, ON_DEMAND_INITIAL_SHARDS,
    },
    record::{Clip, Event},
    shard::mix,
    stream::{NewStream, Stream},
    token::TokenKey,
};

/// Time stands still here, in the year 33,658: later times do not fit a sequence number.
const LATEST_MS: u64 = 999_999_000_000_000;

/// Kinesis as one account in one region sees it.
///
/// `P` is what a record carries: [`Event`] unless the caller has a form of its own.
#[derive(Debug, Clone)]
pub struct Kinesis<P = Event> {
    pub(super) config: ModelConfig,
    pub(super) tokens: TokenKey,
    pub(super) streams: BTreeMap<String, Stream<P>>,
    seed: u64,
    now_ms: u64,
    next_uid: u64,
    /// Number of the next subscription.
    pub(super) next_subscription: u64,
    /// Subscriptions below this number push nothing any more.
    pub(super) half_open_below: u64,
}

/// What a new stream shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateStream {
    /// Capacity mode.
    pub mode: StreamMode,
    /// Shards to start with: needed for a provisioned stream; an on-demand one
    /// starts with 4 unless told otherwise.
    pub shard_count: Option<u32>,
    /// Largest record in KiB, 1,024 to 10,240; 1,024 unless given.
    pub max_record_kib: Option<u32>,
}

impl CreateStream {
    /// A provisioned stream of so many shards.
    #[must_use]
    pub const fn provisioned(shard_count: u32) -> Self {
        Self {
            mode: StreamMode::Provisioned,
            shard_count: Some(shard_count),
            max_record_kib: None,
        }
    }

    /// An on-demand stream.
    #[must_use]
    pub const fn on_demand() -> Self {
        Self {
            mode: StreamMode::OnDemand,
            shard_count: None,
            max_record_kib: None,
        }
    }
}

impl<P> Kinesis<P> {
    /// A model without streams. The seed shows in tokens and sequence numbers only.
    #[must_use]
    pub const fn new(config: ModelConfig, seed: u64) -> Self {
        Self {
            config,
            tokens: TokenKey::new(mix(seed)),
            streams: BTreeMap::new(),
            seed: mix(mix(seed)),
            now_ms: 0,
            next_uid: 0,
            next_subscription: 0,
            half_open_below: 0,
        }
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// `ValidationException` (name, shard count, record size out of range),
    /// `InvalidArgumentException` (no shard count), `LimitExceededException` (too many
    /// shards), `ResourceInUseException` (the name is taken).
    pub fn create_stream(
        &mut self,
        now_ms: u64,
        name: &str,
        create: CreateStream,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        check_stream_name(name)?;
        let shard_count = match (create.mode, create.shard_count) {
            (_, Some(0)) => {
                return Err(KinesisError::validation(
                    "`ShardCount` is at least 1, was 0",
                ));
            }
            (_, Some(count)) if count > MAX_SHARDS_PER_STREAM => {
                return Err(KinesisError::limit(format!(
                    "a stream has at most {MAX_SHARDS_PER_STREAM} shards, `ShardCount` was {count}"
                )));
            }
            (_, Some(count)) => count,
            (StreamMode::OnDemand, None) => ON_DEMAND_INITIAL_SHARDS,
            (StreamMode::Provisioned, None) => {
                return Err(KinesisError::invalid(
                    "a PROVISIONED stream needs `ShardCount`",
                ));
            }
        };
        let max_record_kib = create.max_record_kib.unwrap_or(MIN_MAX_RECORD_KIB);
        check_max_record_kib(max_record_kib)?;
        if self.streams.contains_key(name) {
            return Err(KinesisError::in_use(format!(
                "stream `{name}` under account {} already exists",
                self.config.account_id
            )));
        }
        let new = NewStream {
            name,
            uid: self.next_uid,
            seed: self.seed,
            mode: create.mode,
            shard_count,
            retention_hours: MIN_RETENTION_HOURS,
            max_record_kib,
        };
        self.next_uid += 1;
        self.streams
            .insert(name.to_owned(), Stream::new(now_ms, &new, &self.config));
        Ok(())
    }

    /// Deletes a stream and what it holds.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `ResourceInUseException` while another change is under way.
    pub fn delete_stream(&mut self, now_ms: u64, name: &str) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let config = self.config.clone();
        let stream = self.stream_mut(name)?;
        if config.transition_ms == 0 {
            self.streams.remove(name);
            return Ok(());
        }
        stream.check_changeable(&config)?;
        stream.begin(now_ms, StreamStatus::Deleting, &config);
        Ok(())
    }

    /// The ARN of the stream of this name, whether it exists or not.
    #[must_use]
    pub fn arn(&self, name: &str) -> String {
        format!(
            "arn:aws:kinesis:{}:{}:stream/{name}",
            self.config.region, self.config.account_id
        )
    }

    /// Lets time pass in every stream; returns the time that counts.
    pub(super) fn advance(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms.min(LATEST_MS));
        let now_ms = self.now_ms;
        self.streams.retain(|_, stream| !stream.advance(now_ms));
        now_ms
    }

    pub(super) fn stream(&self, name: &str) -> Result<&Stream<P>, KinesisError> {
        self.streams
            .get(name)
            .ok_or_else(|| no_stream(name, &self.config))
    }

    pub(super) fn stream_mut(&mut self, name: &str) -> Result<&mut Stream<P>, KinesisError> {
        self.streams
            .get_mut(name)
            .ok_or_else(|| no_stream(name, &self.config))
    }

    /// The stream beside the settings, for changes that need both.
    pub(super) fn stream_and_config(
        &mut self,
        name: &str,
    ) -> Result<(&mut Stream<P>, &ModelConfig), KinesisError> {
        let config = &self.config;
        match self.streams.get_mut(name) {
            Some(stream) => Ok((stream, config)),
            None => Err(no_stream(name, config)),
        }
    }
}

pub(super) fn no_stream(name: &str, config: &ModelConfig) -> KinesisError {
    KinesisError::not_found(format!(
        "stream `{}` under account {} not found",
        Clip(name),
        config.account_id
    ))
}

/// Source: API reference, `CreateStream`: pattern `[a-zA-Z0-9_.-]+`, 1 to 128 characters.
fn check_stream_name(name: &str) -> Result<(), KinesisError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > MAX_STREAM_NAME_CHARS || !name.bytes().all(good) {
        return Err(KinesisError::validation(format!(
            "`StreamName` has 1 to {MAX_STREAM_NAME_CHARS} of the characters `a-z A-Z 0-9 _ . -`, was `{}`",
            Clip(name)
        )));
    }
    Ok(())
}

pub(super) fn check_max_record_kib(kib: u32) -> Result<(), KinesisError> {
    if (MIN_MAX_RECORD_KIB..=MAX_MAX_RECORD_KIB).contains(&kib) {
        return Ok(());
    }
    Err(KinesisError::validation(format!(
        "`MaxRecordSizeInKiB` is {MIN_MAX_RECORD_KIB} to {MAX_MAX_RECORD_KIB}, was {kib}"
    )))
}
