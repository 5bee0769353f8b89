//! `SubscribeToShard`: what is pushed, and when.
//!
//! Nothing happens here by itself: whoever holds a [`Subscription`] asks again and again what is to
//! be pushed now, and so decides how fast it is taken.

use super::{
    ChildShard, ConsumerName, ConsumerStatus, IteratorStart, Kinesis, KinesisError, Record,
    ShardId,
    consumers::Current,
    limits::{
        IDLE_EVENT_MS, MAX_GET_RECORDS, MAX_PUSH_BYTES, SUBSCRIPTION_LIFE_MS,
        SUBSCRIPTION_SPACING_MS,
    },
    reading::start_ordinal,
    throughput::ReadMeter,
    token::StreamRef,
};

/// A subscription of a consumer to a shard.
#[derive(Debug, Clone)]
pub struct Subscription {
    id: u64,
    stream: StreamRef,
    consumer: String,
    shard: ShardId,
    ordinal: u64,
    began_ms: u64,
    /// When the last event was pushed.
    pushed_ms: Option<u64>,
    meter: Option<ReadMeter>,
    is_over: bool,
}

/// What is to be done about a subscription now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push<P> {
    /// Push this.
    Event(PushedEvent<P>),
    /// Nothing yet: ask again later, or when the shard changed.
    Nothing,
    /// Push this exception, and close the connection.
    Refused(KinesisError),
    /// Close the connection.
    Closed,
}

/// One event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedEvent<P> {
    /// The records, oldest first; none in an event that only says that there is nothing new.
    pub records: Vec<Record<P>>,
    /// The sequence number to go on after; `None` at the end of a closed shard.
    pub continuation: Option<String>,
    /// Age of the first record not yet pushed, in milliseconds; 0 if there is none.
    pub millis_behind_latest: u64,
    /// The shards that continue this one, at the end of a closed shard.
    pub child_shards: Vec<ChildShard>,
}

/// Which subscriptions become half open: the connection stays, and nothing is pushed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfOpen {
    /// Those that there are; later ones are whole.
    Existing,
    /// Those that there are, and all to come until this is said again with [`HalfOpen::Existing`].
    All,
}

impl<P> Kinesis<P> {
    /// Makes subscriptions half open, for tests of clients.
    pub fn half_open(&mut self, which: HalfOpen) {
        self.half_open_below = match which {
            HalfOpen::Existing => self.next_subscription,
            HalfOpen::All => u64::MAX,
        };
    }

    /// Subscribes a consumer to a shard. An earlier subscription of the two ends.
    ///
    /// # Errors
    /// `ResourceNotFoundException` (consumer, stream or shard), `ResourceInUseException` (the consumer is not
    /// active, or there was a subscription less than five seconds ago),
    /// `InvalidArgumentException` (the start).
    pub fn subscribe(
        &mut self,
        now_ms: u64,
        consumer_arn: &str,
        shard_id: ShardId,
        start: IteratorStart<'_>,
    ) -> Result<Subscription, KinesisError> {
        let now_ms = self.advance(now_ms);
        let config = self.config.clone();
        let id = self.next_subscription;
        let (stream, consumer) = self.stream_of_consumer(ConsumerName::Arn(consumer_arn))?;
        stream.check_usable(&config)?;
        let shard = stream.shard(shard_id, &config)?;
        let ordinal = start_ordinal(stream, shard, start, now_ms)?;
        let reference = stream.reference();
        let Some(entry) = stream.consumers.get_mut(&consumer) else {
            return Err(KinesisError::not_found(format!(
                "consumer `{consumer}` does not exist"
            )));
        };
        if entry.consumer.status != ConsumerStatus::Active {
            return Err(KinesisError::in_use(format!(
                "consumer `{consumer}` is {}: wait until it is ACTIVE",
                entry.consumer.status.name()
            )));
        }
        if let Some(current) = entry.current.get(&shard_id)
            && now_ms.saturating_sub(current.began_ms) < SUBSCRIPTION_SPACING_MS
        {
            return Err(KinesisError::in_use(format!(
                "consumer `{consumer}` subscribed to shard `{shard_id}` at {} ms, now is {now_ms} ms: wait for \
                 {SUBSCRIPTION_SPACING_MS} ms",
                current.began_ms
            )));
        }
        let began_ms = now_ms;
        entry.current.insert(shard_id, Current { id, began_ms });
        self.next_subscription += 1;
        Ok(Subscription {
            id,
            stream: reference,
            consumer,
            shard: shard_id,
            ordinal,
            began_ms,
            pushed_ms: None,
            meter: config.read_limits.map(ReadMeter::pushed),
            is_over: false,
        })
    }

    /// What a subscription is to push now.
    pub fn push(&mut self, now_ms: u64, subscription: &mut Subscription) -> Push<P>
    where
        P: Clone,
    {
        let now_ms = self.advance(now_ms);
        if subscription.is_over {
            return Push::Closed;
        }
        if subscription.id < self.half_open_below {
            return Push::Nothing;
        }
        let push = match self.pushed(now_ms, subscription) {
            Ok(push) => push,
            Err(error) => Push::Refused(error),
        };
        match &push {
            Push::Event(event) => {
                subscription.pushed_ms = Some(now_ms);
                subscription.is_over = event.continuation.is_none();
            }
            Push::Nothing => {}
            Push::Refused(_) | Push::Closed => subscription.is_over = true,
        }
        push
    }

    fn pushed(
        &mut self,
        now_ms: u64,
        subscription: &mut Subscription,
    ) -> Result<Push<P>, KinesisError>
    where
        P: Clone,
    {
        let Subscription {
            id,
            stream,
            consumer,
            shard: shard_id,
            ordinal,
            began_ms,
            pushed_ms,
            meter,
            ..
        } = subscription;
        let config = self.config.clone();
        let gone = || KinesisError::not_found(format!("consumer `{consumer}` does not exist"));
        let uid = stream.uid;
        let stream = self.stream(&stream.name)?;
        let entry = stream.consumers.get(consumer);
        let entry = entry.filter(|_| stream.uid == uid).ok_or_else(gone)?;
        if entry.consumer.status == ConsumerStatus::Deleting {
            return Err(gone());
        }
        match entry.current.get(shard_id) {
            Some(current) if current.id == *id => {}
            Some(_) => {
                return Err(KinesisError::in_use(format!(
                    "another subscription of consumer `{consumer}` to shard `{shard_id}` took over"
                )));
            }
            // Its consumer was removed and registered again.
            None => return Err(gone()),
        }
        if now_ms.saturating_sub(*began_ms) >= SUBSCRIPTION_LIFE_MS {
            return Ok(Push::Closed);
        }
        let shard = stream.shard(*shard_id, &config)?;
        let allowance = match meter {
            None => u64::MAX,
            Some(meter) => match meter.allowance(now_ms) {
                None => return Ok(Push::Nothing),
                Some(allowance) => allowance,
            },
        };
        let mut bytes = 0;
        let mut records: Vec<Record<P>> = Vec::new();
        for record in shard.records_from(*ordinal).take(MAX_GET_RECORDS) {
            let sum = bytes + record.size_bytes as u64;
            if sum > allowance || (!records.is_empty() && sum > MAX_PUSH_BYTES as u64) {
                break;
            }
            bytes = sum;
            records.push(record.clone());
        }
        let next = shard.ordinal_after(*ordinal, records.len());
        let behind = shard.records_from(next).next();
        let ended = behind.is_none() && !shard.is_open();
        let is_due = pushed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= IDLE_EVENT_MS);
        if records.is_empty() && !ended && (!is_due || behind.is_some()) {
            return Ok(Push::Nothing);
        }
        if let Some(meter) = meter {
            meter.count(now_ms, bytes);
        }
        *ordinal = next;
        Ok(Push::Event(PushedEvent {
            records,
            continuation: (!ended).then(|| shard.sequence_number_before(next).to_string()),
            // A record of this very millisecond is behind, too: only 0 means caught up.
            millis_behind_latest: behind
                .map_or(0, |record| now_ms.saturating_sub(record.arrival_ms).max(1)),
            child_shards: if ended {
                stream.children(*shard_id)
            } else {
                Vec::new()
            },
        }))
    }
}
