//! One stream: its shards, its settings, its state.

use std::collections::BTreeMap;

use super::{
    ErrorKind, HashKey, HashKeyRange, KinesisError, ModelConfig, ShardId,
    consumers::StreamConsumer,
    limits::HOUR_MS,
    shard::{Parents, Shard, mix},
    token::StreamRef,
};

/// How a stream's capacity is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// The shard count is the owner's.
    Provisioned,
    /// The shard count is the service's; the model keeps it as it is.
    OnDemand,
}

impl StreamMode {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// What a stream is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Made, not yet usable.
    Creating,
    /// Being removed, no longer usable.
    Deleting,
    /// Usable.
    Active,
    /// Usable, while a change is under way.
    Updating,
}

impl StreamStatus {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Deleting => "DELETING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
        }
    }
}

#[derive(Debug, Clone)]
struct Transition {
    status: StreamStatus,
    until_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Stream<P> {
    pub(crate) name: String,
    /// Tells this stream from others that had or will have its name.
    pub(crate) uid: u64,
    pub(crate) created_ms: u64,
    pub(crate) mode: StreamMode,
    pub(crate) retention_hours: u32,
    pub(crate) max_record_kib: u32,
    pub(crate) shards: BTreeMap<ShardId, Shard<P>>,
    pub(crate) retained_bytes: u64,
    pub(crate) consumers: BTreeMap<String, StreamConsumer>,
    seed: u64,
    transition: Option<Transition>,
    next_shard: u32,
    /// Open shards by the start of their range.
    routes: BTreeMap<HashKey, ShardId>,
    /// Nothing expires before this time.
    next_trim_ms: u64,
}

pub(crate) struct NewStream<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: u64,
    pub(crate) seed: u64,
    pub(crate) mode: StreamMode,
    pub(crate) shard_count: u32,
    pub(crate) retention_hours: u32,
    pub(crate) max_record_kib: u32,
}

impl<P> Stream<P> {
    pub(crate) fn new(now_ms: u64, new: &NewStream<'_>, config: &ModelConfig) -> Self {
        let mut stream = Self {
            name: new.name.to_owned(),
            uid: new.uid,
            created_ms: now_ms,
            mode: new.mode,
            retention_hours: new.retention_hours,
            max_record_kib: new.max_record_kib,
            shards: BTreeMap::new(),
            retained_bytes: 0,
            consumers: BTreeMap::new(),
            seed: mix(new.seed ^ new.uid),
            transition: None,
            next_shard: 0,
            routes: BTreeMap::new(),
            next_trim_ms: u64::MAX,
        };
        for range in HashKeyRange::uniform(new.shard_count) {
            stream.open_shard(now_ms, Parents::None, range, config);
        }
        stream.begin(now_ms, StreamStatus::Creating, config);
        stream
    }

    pub(crate) fn reference(&self) -> StreamRef {
        StreamRef {
            name: self.name.clone(),
            uid: self.uid,
        }
    }

    pub(crate) fn max_record_bytes(&self) -> usize {
        self.max_record_kib as usize * 1024
    }

    pub(crate) fn retention_ms(&self) -> u64 {
        u64::from(self.retention_hours) * HOUR_MS
    }

    /// The oldest moment that the stream remembers.
    pub(crate) fn trim_horizon_ms(&self, now_ms: u64) -> u64 {
        self.created_ms
            .max(now_ms.saturating_sub(self.retention_ms()))
    }

    /// Enters a state that lasts as long as the model is told that changes last.
    pub(crate) fn begin(&mut self, now_ms: u64, status: StreamStatus, config: &ModelConfig) {
        self.transition = (config.transition_ms > 0).then(|| Transition {
            status,
            until_ms: now_ms.saturating_add(config.transition_ms),
        });
    }

    pub(crate) fn status(&self) -> StreamStatus {
        self.transition
            .as_ref()
            .map_or(StreamStatus::Active, |transition| transition.status)
    }

    /// Lets time pass: ends transitions, trims records, forgets shards. `true` if the stream is gone.
    pub(crate) fn advance(&mut self, now_ms: u64) -> bool {
        let ended = self
            .transition
            .take_if(|transition| transition.until_ms <= now_ms);
        if ended.is_some_and(|ended| ended.status == StreamStatus::Deleting) {
            return true;
        }
        self.consumers
            .retain(|_, consumer| !consumer.advance(now_ms));
        if now_ms >= self.next_trim_ms {
            self.trim(now_ms);
        }
        false
    }

    /// Removes what is older than the retention. Source: developer guide, "Changing the
    /// data retention period": a record is accessible for that long after it was added.
    fn trim(&mut self, now_ms: u64) {
        let retention_ms = self.retention_ms();
        let mut next_trim_ms = u64::MAX;
        if let Some(until_ms) = now_ms.checked_sub(retention_ms) {
            for shard in self.shards.values_mut() {
                self.retained_bytes -= shard.trim(until_ms);
            }
            self.shards
                .retain(|_, shard| shard.closed_ms.is_none_or(|closed_ms| closed_ms > until_ms));
        }
        for shard in self.shards.values() {
            for at_ms in shard.oldest_arrival_ms().into_iter().chain(shard.closed_ms) {
                next_trim_ms = next_trim_ms.min(at_ms.saturating_add(retention_ms));
            }
        }
        self.next_trim_ms = next_trim_ms;
    }

    pub(crate) fn retention_changed(&mut self, now_ms: u64) {
        self.trim(now_ms);
    }

    /// Notes that something was added that will expire.
    pub(crate) fn expires_from(&mut self, at_ms: u64) {
        self.next_trim_ms = self
            .next_trim_ms
            .min(at_ms.saturating_add(self.retention_ms()));
    }

    pub(crate) fn open_shard(
        &mut self,
        now_ms: u64,
        parents: Parents,
        range: HashKeyRange,
        config: &ModelConfig,
    ) -> ShardId {
        let id = ShardId::new(self.next_shard);
        self.next_shard += 1;
        let generation = self.generation_after(now_ms, parents);
        let seed = mix(self.seed ^ u64::from(id.index()));
        self.shards
            .insert(id, Shard::new(id, parents, range, generation, seed, config));
        self.routes.insert(range.start, id);
        for parent in parents.ids() {
            if let Some(parent) = self.shards.get_mut(&parent) {
                parent.children.push(id);
            }
        }
        id
    }

    /// Larger than the parents' even within one millisecond, so that "open at"
    /// never names parent and child for the moment of the stream's creation.
    fn generation_after(&self, now_ms: u64, parents: Parents) -> u64 {
        let of_parents = parents
            .ids()
            .filter_map(|parent| self.shards.get(&parent))
            .map(|parent| parent.generation);
        of_parents
            .map(|generation| generation + 1)
            .fold(now_ms, u64::max)
    }

    /// Closes the shards that new ones are about to continue.
    pub(crate) fn close_shards(&mut self, now_ms: u64, parents: Parents) {
        let closed_ms = self.generation_after(now_ms, parents);
        for id in parents.ids() {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.closed_ms = Some(closed_ms);
                self.routes.remove(&shard.range.start);
            }
        }
        self.expires_from(now_ms);
    }

    pub(crate) fn open_shards(&self) -> impl Iterator<Item = &Shard<P>> {
        self.routes.values().filter_map(|id| self.shards.get(id))
    }

    pub(crate) fn open_shard_count(&self) -> usize {
        self.routes.len()
    }

    /// The open shard for this hash key.
    pub(crate) fn route(&self, hash_key: HashKey) -> Option<ShardId> {
        self.routes
            .range(..=hash_key)
            .next_back()
            .map(|(_, id)| *id)
    }

    pub(crate) fn shard(
        &self,
        id: ShardId,
        config: &ModelConfig,
    ) -> Result<&Shard<P>, KinesisError> {
        self.shards
            .get(&id)
            .ok_or_else(|| self.no_shard(id, config))
    }

    pub(crate) fn no_shard(&self, id: ShardId, config: &ModelConfig) -> KinesisError {
        KinesisError::not_found(format!(
            "shard `{id}` in stream `{}` under account {} does not exist or has expired",
            self.name, config.account_id
        ))
    }

    /// Refuses reads and writes on a stream that is not there yet, or no longer.
    pub(crate) fn check_usable(&self, config: &ModelConfig) -> Result<(), KinesisError> {
        match self.status() {
            StreamStatus::Active | StreamStatus::Updating => Ok(()),
            status => Err(self.not_in_state(ErrorKind::ResourceNotFound, status, config)),
        }
    }

    /// Refuses a change while another is under way.
    pub(crate) fn check_changeable(&self, config: &ModelConfig) -> Result<(), KinesisError> {
        match self.status() {
            StreamStatus::Active => Ok(()),
            status => Err(self.not_in_state(ErrorKind::ResourceInUse, status, config)),
        }
    }

    fn not_in_state(
        &self,
        kind: ErrorKind,
        status: StreamStatus,
        config: &ModelConfig,
    ) -> KinesisError {
        KinesisError::new(
            kind,
            format!(
                "stream `{}` under account {} is {}: wait until it is ACTIVE",
                self.name,
                config.account_id,
                status.name()
            ),
        )
    }
}
