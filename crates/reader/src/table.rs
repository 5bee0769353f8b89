//! The DynamoDB calls of a reader, each with its retry.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::describe_table::DescribeTableOutput;
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, KeyType, ReturnConsumedCapacity, ScalarAttributeType,
    TableDescription,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

use crate::classify::{Verdict, classify};
use crate::config::{OnDamage, ReaderConfig, RetryPolicy};
use crate::damage::{Check, Damage};
use crate::dictionaries::Dictionaries;
use crate::error::ReadError;
use crate::event::ItemKey;
use crate::layout::Layout;
use crate::pace::{ITEM_UNITS, PAGE_UNITS, Pace};

/// An item as the service gives it.
pub(crate) type Attributes = HashMap<String, AttributeValue>;

/// Sort keys that a query asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SortKeys {
    /// Those that start with the text.
    Prefix(String),
    /// Those from the first text, to before the second.
    Range(Option<String>, Option<String>),
}

impl SortKeys {
    pub(crate) const ALL: Self = Self::Range(None, None);
}

/// One page of a query.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) pk: String,
    pub(crate) sort_keys: SortKeys,
    /// Sort key of the item before the page.
    pub(crate) after: Option<String>,
    pub(crate) backward: bool,
    pub(crate) item_limit: Option<i32>,
    /// Attributes to return besides the key; `None` for all.
    pub(crate) attributes: Option<&'static [&'static str]>,
    pub(crate) consistent: bool,
}

impl PageRequest {
    /// First page of everything under a partition key, strongly consistent.
    pub(crate) fn all(pk: String) -> Self {
        Self {
            pk,
            sort_keys: SortKeys::ALL,
            after: None,
            backward: false,
            item_limit: None,
            attributes: None,
            consistent: true,
        }
    }
}

/// Answer to a [`PageRequest`].
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Attributes>,
    /// Where the next page starts; `None` after the last.
    pub(crate) next_after: Option<String>,
    pub(crate) read_units: f64,
}

/// What a [`Reader`](crate::Reader) has asked of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Calls that were answered: round trips, those of directory and ledger included.
    pub calls: u64,
    /// Read units that the service said they consumed.
    pub read_units: f64,
}

/// A table whose key was checked.
#[derive(Debug)]
pub(crate) struct Table {
    client: Client,
    pub(crate) name: String,
    /// Where it is, for messages.
    place: String,
    pub(crate) pk_name: String,
    pub(crate) sk_name: String,
    pub(crate) consistent: bool,
    pub(crate) parallel_queries: usize,
    /// How items differ from the page; known once the pipeline is.
    pub(crate) layout: Layout,
    on_damage: OnDamage,
    retry: RetryPolicy,
    permits: Semaphore,
    pace: Option<Arc<Pace>>,
    spent: Arc<Mutex<Spent>>,
    pub(crate) dictionaries: Dictionaries,
}

impl Table {
    /// Looks the table up and checks its key.
    pub(crate) async fn open(client: Client, config: &ReaderConfig) -> Result<Self, ReadError> {
        let conf = client
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .build();
        let place = config.place.clone().unwrap_or_else(|| match conf.region() {
            Some(region) => format!("region `{region}`"),
            None => "the endpoint of its client".to_owned(),
        });
        let parallel_queries = config.parallel_queries.max(1);
        let table = Self {
            client: Client::from_conf(conf),
            name: config.table.clone(),
            place,
            pk_name: String::new(),
            sk_name: String::new(),
            consistent: config.consistent,
            parallel_queries,
            layout: Layout::default(),
            on_damage: config.on_damage.clone(),
            retry: config.retry,
            permits: Semaphore::new(parallel_queries),
            pace: config
                .max_read_units
                .map(|rate| Arc::new(Pace::new(rate.get()))),
            spent: Arc::default(),
            dictionaries: Dictionaries::default(),
        };
        let wanted = [&config.partition_key, &config.sort_key];
        table.checked(wanted).await
    }

    /// The table whose items are like this.
    pub(crate) fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Another table with the same names of keys, spoken to in the same way.
    pub(crate) async fn open_other(&self, name: &str) -> Result<Self, ReadError> {
        let other = Self {
            client: self.client.clone(),
            name: name.to_owned(),
            place: self.place.clone(),
            pk_name: String::new(),
            sk_name: String::new(),
            consistent: self.consistent,
            parallel_queries: self.parallel_queries,
            layout: self.layout.clone(),
            on_damage: self.on_damage.clone(),
            retry: self.retry,
            permits: Semaphore::new(self.parallel_queries),
            pace: self.pace.clone(),
            spent: Arc::clone(&self.spent),
            dictionaries: Dictionaries::default(),
        };
        let wanted = [&Some(self.pk_name.clone()), &Some(self.sk_name.clone())];
        other.checked(wanted).await
    }

    /// Looks up the names of the keys, which must be these where they are said.
    async fn checked(mut self, wanted: [&Option<String>; 2]) -> Result<Self, ReadError> {
        let described = self
            .call(
                "DescribeTable",
                0.0,
                |answer: &DescribeTableOutput| answer.table.as_ref().map(|_| 0.0),
                || self.client.describe_table().table_name(&self.name).send(),
            )
            .await?;
        let description = described.table.ok_or_else(|| ReadError::NoSuchTable {
            table: self.name.clone(),
            place: self.place.clone(),
        })?;
        (self.pk_name, self.sk_name) = key_names(&self.name, &description, wanted)?;
        Ok(self)
    }

    /// One page of a query.
    pub(crate) async fn query(&self, request: &PageRequest) -> Result<Page, ReadError> {
        let most = request.item_limit.map_or(PAGE_UNITS, |items| {
            PAGE_UNITS.min(f64::from(items) * ITEM_UNITS)
        });
        let answer = self
            .call(
                "Query",
                most,
                |answer: &QueryOutput| units(answer.consumed_capacity.as_ref()),
                || self.query_call(request).send(),
            )
            .await?;
        let next_after = answer
            .last_evaluated_key
            .as_ref()
            .map(|key| text(key, &self.sk_name).unwrap_or_default().to_owned());
        Ok(Page {
            items: answer
                .items
                .unwrap_or_default()
                .into_iter()
                .map(|item| self.layout.row(&request.pk, item))
                .collect(),
            next_after,
            read_units: units(answer.consumed_capacity.as_ref()).unwrap_or(0.0),
        })
    }

    fn query_call(
        &self,
        request: &PageRequest,
    ) -> aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder {
        let string = |value: &str| AttributeValue::S(value.to_owned());
        let pk = self.layout.stored_pk(&request.pk);
        let mut call = self
            .client
            .query()
            .table_name(&self.name)
            .consistent_read(request.consistent)
            .scan_index_forward(!request.backward)
            .set_limit(request.item_limit)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .expression_attribute_names("#pk", &self.pk_name)
            .expression_attribute_values(":pk", string(&pk));
        let mut condition = "#pk = :pk".to_owned();
        let bounds = match &request.sort_keys {
            SortKeys::Prefix(prefix) => {
                condition.push_str(" AND begins_with(#sk, :from)");
                (Some(prefix), None)
            }
            SortKeys::Range(from, to) => {
                condition.push_str(match (from, to) {
                    (None, None) => "",
                    (Some(_), None) => " AND #sk >= :from",
                    (None, Some(_)) => " AND #sk < :to",
                    // Inclusive above, but no item's key is a bare time.
                    (Some(_), Some(_)) => " AND #sk BETWEEN :from AND :to",
                });
                (from.as_ref(), to.as_ref())
            }
        };
        if let Some(from) = bounds.0 {
            call = call.expression_attribute_values(":from", string(from));
        }
        if let Some(to) = bounds.1 {
            call = call.expression_attribute_values(":to", string(to));
        }
        if bounds != (None, None) || request.attributes.is_some() {
            call = call.expression_attribute_names("#sk", &self.sk_name);
        }
        if let Some(attributes) = request.attributes {
            let mut projection = "#pk, #sk".to_owned();
            for (index, name) in attributes.iter().enumerate() {
                projection.push_str(&format!(", #a{index}"));
                let name = self.layout.name_in(&request.pk, name);
                call = call.expression_attribute_names(format!("#a{index}"), name);
            }
            call = call.projection_expression(projection);
        }
        if let Some(after) = &request.after {
            call = call
                .exclusive_start_key(&self.pk_name, string(&pk))
                .exclusive_start_key(&self.sk_name, string(after));
        }
        call.key_condition_expression(condition)
    }

    /// One item under its key as it is in the table, strongly consistent.
    pub(crate) async fn get(&self, pk: &str, sk: &str) -> Result<Option<Attributes>, ReadError> {
        let answer = self
            .call(
                "GetItem",
                ITEM_UNITS,
                |answer: &GetItemOutput| units(answer.consumed_capacity.as_ref()),
                || {
                    self.client
                        .get_item()
                        .table_name(&self.name)
                        .consistent_read(true)
                        .return_consumed_capacity(ReturnConsumedCapacity::Total)
                        .key(&self.pk_name, AttributeValue::S(pk.to_owned()))
                        .key(&self.sk_name, AttributeValue::S(sk.to_owned()))
                        .send()
                },
            )
            .await?;
        Ok(answer.item.map(|item| self.layout.row(pk, item)))
    }

    /// Makes a call until it succeeds, fails for good, or the attempts are used up.
    ///
    /// `most` are the read units that it may consume, `consumed` tells those that it did. Every answer says
    /// so: to the SDK an answer that lost its body is one without anything in it, such as a page without
    /// items (I1).
    async fn call<T, E, F>(
        &self,
        operation: &'static str,
        most: f64,
        consumed: impl Fn(&T) -> Option<f64>,
        make: impl Fn() -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let mut attempt = 1;
        loop {
            // The semaphore is never closed; a permit only bounds what is in flight.
            let permit = self.permits.acquire().await.ok();
            let taken = match &self.pace {
                Some(pace) => Some(pace.take(most).await),
                None => None,
            };
            let result = make().await;
            drop(permit);
            let (verdict, message) = match result {
                Ok(answer) => match consumed(&answer) {
                    Some(units) => {
                        taken.into_iter().for_each(|taken| taken.consumed(units));
                        self.spend(units);
                        return Ok(answer);
                    }
                    None => (Verdict::Passing, "the answer lost its body".to_owned()),
                },
                Err(error) => classify(&error),
            };
            if verdict == Verdict::Throttled {
                taken.into_iter().for_each(|taken| taken.consumed(0.0));
            }
            if !verdict.is_retried() || attempt >= self.retry.attempts {
                return Err(self.failed(operation, verdict, attempt, message));
            }
            if attempt.is_power_of_two() {
                let (table, place) = (&self.name, &self.place);
                tracing::warn!(operation, %table, %place, attempt, reason = %message, "read failed, trying again");
            }
            let jitter: f64 = SmallRng::from_os_rng().random();
            let wait = self.retry.wait(attempt).mul_f64(jitter);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn spend(&self, units: f64) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.calls += 1;
        spent.read_units += units;
    }

    pub(crate) fn spent(&self) -> Spent {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(
        &self,
        operation: &'static str,
        verdict: Verdict,
        attempts: u32,
        message: String,
    ) -> ReadError {
        let (table, place) = (self.name.clone(), self.place.clone());
        match verdict {
            Verdict::Throttled => ReadError::Throttled {
                operation,
                table,
                attempts,
                message,
            },
            Verdict::Passing => ReadError::Unavailable {
                operation,
                place,
                attempts,
                message,
            },
            Verdict::NoSuchTable => ReadError::NoSuchTable { table, place },
            Verdict::Credentials => ReadError::Credentials {
                operation,
                place,
                message,
            },
            Verdict::AccessDenied => ReadError::AccessDenied {
                operation,
                table,
                message,
            },
            Verdict::Refused => ReadError::Refused {
                operation,
                table,
                message,
            },
        }
    }

    /// Tells of damage as configured: an error, or an announcement.
    pub(crate) fn report(&self, item: ItemKey, check: Check) -> Result<(), ReadError> {
        let damage = Damage {
            table: self.name.clone(),
            item,
            check,
        };
        match &self.on_damage {
            OnDamage::Fail => Err(damage.into()),
            OnDamage::Skip(tell) => {
                tell(&damage);
                Ok(())
            }
        }
    }

    /// Key of an item that a query returned.
    pub(crate) fn key_of(&self, item: &Attributes) -> ItemKey {
        let part = |name| text(item, name).unwrap_or_default().into();
        ItemKey {
            pk: part(&self.pk_name),
            sk: part(&self.sk_name),
        }
    }
}

/// Read units of an answer that says so.
fn units(capacity: Option<&ConsumedCapacity>) -> Option<f64> {
    capacity.map(|capacity| capacity.capacity_units.unwrap_or(0.0))
}

/// A string attribute.
pub(crate) fn text<'a>(item: &'a Attributes, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// An integer attribute.
pub(crate) fn integer(item: &Attributes, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// Names of the two key attributes, once they are as configured and both strings.
fn key_names(
    name: &str,
    table: &TableDescription,
    [wanted_pk, wanted_sk]: [&Option<String>; 2],
) -> Result<(String, String), ReadError> {
    let named = |key_type: KeyType| {
        let element = table.key_schema().iter().find(|e| e.key_type == key_type)?;
        let name = element.attribute_name();
        let definitions = table.attribute_definitions();
        let definition = definitions.iter().find(|d| d.attribute_name() == name);
        let kind = definition.map_or(ScalarAttributeType::S, |d| d.attribute_type().clone());
        Some((name.to_owned(), kind))
    };
    let fits = |key: &Option<(String, ScalarAttributeType)>, wanted: &Option<String>| {
        key.as_ref().is_some_and(|(name, kind)| {
            *kind == ScalarAttributeType::S && wanted.as_ref().is_none_or(|wanted| wanted == name)
        })
    };
    let (hash, range) = (named(KeyType::Hash), named(KeyType::Range));
    match (&hash, &range) {
        (Some(pk), Some(sk)) if fits(&hash, wanted_pk) && fits(&range, wanted_sk) => {
            Ok((pk.0.clone(), sk.0.clone()))
        }
        _ => {
            let describe = |key: Option<(String, ScalarAttributeType)>, role| {
                key.map(|(name, kind)| format!("`{name}` {role} {kind}"))
            };
            let found: Vec<_> = [describe(hash, "HASH"), describe(range, "RANGE")]
                .into_iter()
                .flatten()
                .collect();
            let wanted = |name: &Option<String>| name.as_deref().unwrap_or("any name").to_owned();
            Err(ReadError::KeySchema {
                table: name.to_owned(),
                found: found.join(", "),
                expected: format!(
                    "`{}` HASH S, `{}` RANGE S",
                    wanted(wanted_pk),
                    wanted(wanted_sk)
                ),
            })
        }
    }
}
