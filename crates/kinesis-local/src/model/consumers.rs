//! Consumers with a throughput of their own: registered, listed, removed.

use std::{collections::BTreeMap, fmt};

use super::{
    ErrorKind, Kinesis, KinesisError, ModelConfig, ShardId,
    kinesis::no_stream,
    limits::{
        LIST_CONSUMERS_PAGE, MAX_CONSUMER_NAME_CHARS, MAX_CONSUMERS, MAX_CONSUMERS_IN_THE_MAKING,
        MAX_LISTING_LIMIT, NEXT_TOKEN_LIFE_MS,
    },
    record::Clip,
    stream::Stream,
    token::Token,
};

/// What a consumer is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerStatus {
    /// Made, not yet usable.
    Creating,
    /// Usable.
    Active,
    /// Being removed, no longer usable.
    Deleting,
}

impl ConsumerStatus {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Deleting => "DELETING",
        }
    }
}

/// A consumer as the answers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name, unique in its stream.
    pub name: String,
    /// Its ARN, which tells it from an earlier one of the name.
    pub arn: String,
    /// What it goes through.
    pub status: ConsumerStatus,
    /// When it was registered, in Unix milliseconds.
    pub created_ms: u64,
}

/// The two ways to name a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerName<'a> {
    /// By its ARN.
    Arn(&'a str),
    /// By its stream and its name.
    InStream {
        /// The stream.
        stream_name: &'a str,
        /// The consumer.
        name: &'a str,
    },
}

/// One answer of `ListStreamConsumers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumersPage {
    /// By name.
    pub consumers: Vec<Consumer>,
    /// `None` on the last page.
    pub next_token: Option<String>,
}

/// A subscription as its consumer knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) id: u64,
    pub(crate) began_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct StreamConsumer {
    pub(crate) consumer: Consumer,
    /// The newest subscription of each shard.
    pub(crate) current: BTreeMap<ShardId, Current>,
    until_ms: u64,
}

impl StreamConsumer {
    /// Lets time pass. `true` if the consumer is gone.
    pub(crate) fn advance(&mut self, now_ms: u64) -> bool {
        if now_ms < self.until_ms {
            return false;
        }
        match self.consumer.status {
            ConsumerStatus::Creating => {
                self.consumer.status = ConsumerStatus::Active;
                false
            }
            ConsumerStatus::Active => false,
            ConsumerStatus::Deleting => true,
        }
    }
}

impl<P> Kinesis<P> {
    /// Registers a consumer.
    ///
    /// # Errors
    /// `ValidationException` (name), `ResourceNotFoundException`, `ResourceInUseException` (the name is
    /// taken), `LimitExceededException` (20 consumers, or 5 in the making).
    pub fn register_consumer(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        name: &str,
    ) -> Result<Consumer, KinesisError> {
        let now_ms = self.advance(now_ms);
        check_name(name)?;
        let stream_arn = self.arn(stream_name);
        let (stream, config) = self.stream_and_config(stream_name)?;
        stream.check_usable(config)?;
        if stream.consumers.contains_key(name) {
            return Err(KinesisError::in_use(format!(
                "consumer `{name}` of stream `{stream_name}` already exists"
            )));
        }
        let in_the_making = stream.consumers.values();
        let in_the_making = in_the_making
            .filter(|other| other.consumer.status == ConsumerStatus::Creating)
            .count();
        if stream.consumers.len() >= MAX_CONSUMERS {
            return Err(KinesisError::limit(format!(
                "stream `{stream_name}` has {MAX_CONSUMERS} consumers, the most that it can have"
            )));
        }
        if in_the_making >= MAX_CONSUMERS_IN_THE_MAKING {
            return Err(KinesisError::limit(format!(
                "{MAX_CONSUMERS_IN_THE_MAKING} consumers of stream `{stream_name}` are CREATING, the most that can be"
            )));
        }
        let consumer = Consumer {
            name: name.to_owned(),
            arn: format!("{stream_arn}/consumer/{name}:{}", now_ms / 1_000),
            status: match config.transition_ms {
                0 => ConsumerStatus::Active,
                _ => ConsumerStatus::Creating,
            },
            created_ms: now_ms,
        };
        let entry = StreamConsumer {
            // The answer says CREATING whatever follows.
            consumer: consumer.clone(),
            current: BTreeMap::new(),
            until_ms: now_ms.saturating_add(config.transition_ms),
        };
        stream.consumers.insert(name.to_owned(), entry);
        Ok(Consumer {
            status: ConsumerStatus::Creating,
            ..consumer
        })
    }

    /// Removes a consumer; its subscriptions end.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn deregister_consumer(
        &mut self,
        now_ms: u64,
        name: ConsumerName<'_>,
    ) -> Result<(), KinesisError> {
        let now_ms = self.advance(now_ms);
        let transition_ms = self.config.transition_ms;
        let (stream, name) = self.stream_of_consumer(name)?;
        if transition_ms == 0 {
            stream.consumers.remove(&name);
        } else if let Some(entry) = stream.consumers.get_mut(&name) {
            entry.consumer.status = ConsumerStatus::Deleting;
            entry.current.clear();
            entry.until_ms = now_ms.saturating_add(transition_ms);
        }
        Ok(())
    }

    /// What a consumer is.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn describe_consumer(
        &mut self,
        now_ms: u64,
        name: ConsumerName<'_>,
    ) -> Result<Consumer, KinesisError> {
        self.advance(now_ms);
        let (stream, name) = self.stream_of_consumer(name)?;
        Ok(stream.consumers[&name].consumer.clone())
    }

    /// The consumers of a stream; `next_token` asks for a page that follows.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `InvalidArgumentException` (limit, token), `ExpiredNextTokenException`.
    pub fn list_consumers(
        &mut self,
        now_ms: u64,
        stream_name: &str,
        next_token: Option<&str>,
        limit: Option<usize>,
    ) -> Result<ConsumersPage, KinesisError> {
        let now_ms = self.advance(now_ms);
        let limit = limit.unwrap_or(LIST_CONSUMERS_PAGE);
        if limit == 0 || limit > MAX_LISTING_LIMIT {
            return Err(KinesisError::invalid(format!(
                "`MaxResults` is 1 to {MAX_LISTING_LIMIT}, was {limit}"
            )));
        }
        let stream = self.stream(stream_name)?;
        let after = match next_token {
            None => String::new(),
            Some(token) => self.consumers_after(now_ms, token, stream)?,
        };
        let mut rest = stream
            .consumers
            .values()
            .filter(|entry| entry.consumer.name > after)
            .map(|entry| entry.consumer.clone());
        let consumers: Vec<Consumer> = rest.by_ref().take(limit).collect();
        let last = rest.next().and(consumers.last());
        let next_token = last.map(|last| {
            self.tokens.seal(&Token::Consumers {
                issued_ms: now_ms,
                stream: stream.reference(),
                after: last.name.clone(),
            })
        });
        Ok(ConsumersPage {
            consumers,
            next_token,
        })
    }

    fn consumers_after(
        &self,
        now_ms: u64,
        token: &str,
        stream: &Stream<P>,
    ) -> Result<String, KinesisError> {
        match self.tokens.open(token) {
            Some(Token::Consumers {
                issued_ms,
                stream: of,
                after,
            }) if of == stream.reference() => {
                if now_ms.saturating_sub(issued_ms) > NEXT_TOKEN_LIFE_MS {
                    return Err(KinesisError::new(
                        ErrorKind::ExpiredNextToken,
                        format!("`NextToken` was issued at {issued_ms} ms, now is {now_ms} ms"),
                    ));
                }
                Ok(after)
            }
            _ => Err(KinesisError::invalid(format!(
                "`NextToken` `{}` is none of this listing",
                Clip(token)
            ))),
        }
    }

    /// The stream of a consumer that is there, and the consumer's name.
    pub(super) fn stream_of_consumer(
        &mut self,
        name: ConsumerName<'_>,
    ) -> Result<(&mut Stream<P>, String), KinesisError> {
        let (stream_name, consumer) = match name {
            ConsumerName::InStream { stream_name, name } => (stream_name, name),
            ConsumerName::Arn(arn) => parts_of_arn(arn).ok_or_else(|| no_consumer(name))?,
        };
        let stream_arn = self.arn(stream_name);
        let config: &ModelConfig = &self.config;
        let stream = self.streams.get_mut(stream_name);
        let stream = stream.ok_or_else(|| no_stream(stream_name, config))?;
        let entry = stream.consumers.get(consumer);
        let is_it = |entry: &&StreamConsumer| match name {
            ConsumerName::Arn(arn) => entry.consumer.arn == arn && arn.starts_with(&stream_arn),
            ConsumerName::InStream { .. } => true,
        };
        if entry.filter(is_it).is_none() {
            return Err(no_consumer(name));
        }
        Ok((stream, consumer.to_owned()))
    }
}

/// Stream and consumer of `…:stream/NAME/consumer/NAME:SECONDS`.
fn parts_of_arn(arn: &str) -> Option<(&str, &str)> {
    let (_, path) = arn.split_once(":stream/")?;
    let (stream, consumer) = path.split_once("/consumer/")?;
    let (name, _) = consumer.rsplit_once(':')?;
    Some((stream, name))
}

fn no_consumer(name: ConsumerName<'_>) -> KinesisError {
    KinesisError::not_found(format!("{name} does not exist"))
}

impl fmt::Display for ConsumerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arn(arn) => write!(f, "consumer `{}`", Clip(arn)),
            Self::InStream { stream_name, name } => {
                write!(
                    f,
                    "consumer `{}` of stream `{}`",
                    Clip(name),
                    Clip(stream_name)
                )
            }
        }
    }
}

/// Source: API reference, `RegisterStreamConsumer`: pattern `[a-zA-Z0-9_.-]+`, 1 to 128 characters.
fn check_name(name: &str) -> Result<(), KinesisError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.len() > MAX_CONSUMER_NAME_CHARS || !name.bytes().all(good) {
        return Err(KinesisError::validation(format!(
            "`ConsumerName` has 1 to {MAX_CONSUMER_NAME_CHARS} of the characters `a-z A-Z 0-9 _ . -`, was `{}`",
            Clip(name)
        )));
    }
    Ok(())
}
