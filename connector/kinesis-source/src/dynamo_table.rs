//! Leases and checkpoints in DynamoDB, in a table of the Kinesis Client Library's layout.
//!
//! The library takes every row of a lease table for a lease. What is none is therefore in a
//! companion table named `<lease table>-millpond`, with the one key `id`:
//!
//! | `id` | attributes |
//! |---|---|
//! | `stream` | `version`, `stream`, `createdMs`, `start` (JSON) |
//! | `worker/<id>` | `session`, `beat` |
//!
//! A live worker of the library has no row there. It renews its leases one by one, so what it
//! renewed, counted together, is its beat: while that moves, its leases are left alone. It beats in its own
//! time, so it is given longer to be silent ([`crate::limits::LIBRARY_SILENCE`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use millpond_connector::aws::FailureKind;
use millpond_leases::{
    Beat, CallError, Change, LeaseId, LeaseRow, LeaseStore, Outcome, StoreError, View, WorkerId,
    applied,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checkpoint::{CheckpointError, PinnedStart};
use crate::dynamo_call;
use crate::expression::Expression;
use crate::kcl_row::{
    self, Attributes, Begins, KclRow, Meaning, RowError, count, names, number, string, text,
};
use crate::limits::TABLE_WRITES_AT_ONCE;
use crate::reader::WallClock;
use crate::shard::ShardId;
use crate::shard_table::{
    Found, Rows, ShardRow, ShardTable, ShardWrite, Sharing, StreamHead, WriteIf,
};

/// Key of the companion table.
const ID: &str = "id";
const STREAM_ID: &str = "stream";
const WORKER: &str = "worker/";
const SESSION: &str = "session";
const BEAT: &str = "beat";
const HEAD_VERSION: u64 = 1;

/// What a table is opened with.
#[derive(Clone)]
pub struct TableSettings {
    /// Name of the lease table.
    pub table: String,
    /// Stream whose shards it is about.
    pub stream: String,
    /// This process.
    pub worker: WorkerId,
    /// What `AT_TIMESTAMP` means in a row of another program, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// How long a worker of another program may renew nothing before it counts as dead.
    pub library_silence: Duration,
    /// The time of day.
    pub clock: WallClock,
}

/// The table. Clones share it.
#[derive(Clone)]
pub struct DynamoTable {
    client: Client,
    settings: TableSettings,
    companion: String,
    rows: Arc<watch::Sender<Arc<Rows>>>,
    start: Arc<Mutex<PinnedStart>>,
}

/// Name of the table for what is no lease.
#[must_use]
pub fn companion_name(table: &str) -> String {
    format!("{table}-millpond")
}

impl DynamoTable {
    /// A table that was found or made by `dynamo_call::prepare`.
    #[must_use]
    pub fn new(client: Client, settings: TableSettings) -> Self {
        Self {
            client,
            companion: companion_name(&settings.table),
            settings,
            rows: Arc::new(watch::Sender::new(Arc::default())),
            start: Arc::new(Mutex::new(PinnedStart::TrimHorizon)),
        }
    }

    /// Makes both tables if need be, waits until they are there, and checks their keys.
    ///
    /// # Errors
    /// [`CheckpointError::Table`] for tables that are missing, of another layout, or out of reach for
    /// reasons that waiting does not mend; [`CheckpointError::Row`] for leases of several streams, beside which
    /// nothing is made.
    pub async fn prepare(&self, create: bool) -> Result<(), CheckpointError> {
        let table = &self.settings.table;
        dynamo_call::prepare(&self.client, table, names::LEASE_KEY, create).await?;
        if create {
            let answer = self.client.scan().table_name(table).send().await;
            let answer = answer
                .map_err(CallError::from)
                .map_err(self.failed("read"))?;
            for item in answer.items() {
                kcl_row::check_stream(item).map_err(|error| self.unreadable(error))?;
            }
        }
        dynamo_call::prepare(&self.client, &self.companion, ID, create).await
    }

    fn failed(&self, action: &'static str) -> impl Fn(CallError) -> CheckpointError {
        let table = self.settings.table.clone();
        move |error| CheckpointError::Table {
            action,
            table: table.clone(),
            reason: error.to_string(),
        }
    }

    fn unreadable(&self, error: RowError) -> CheckpointError {
        CheckpointError::Row {
            table: self.settings.table.clone(),
            row: error.key,
            reason: error.reason,
        }
    }

    fn meaning(&self) -> Meaning {
        Meaning {
            latest_ms: (self.settings.clock)(),
            timestamp_ms: self.settings.timestamp_ms,
        }
    }

    fn begins(&self) -> Begins {
        let stream = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        Begins {
            stream: *stream,
            timestamp_ms: self.settings.timestamp_ms,
        }
    }

    async fn scan(&self, table: &str) -> Result<Vec<Attributes>, CallError> {
        let mut items = Vec::new();
        let mut from = None;
        loop {
            let call = self.client.scan().table_name(table).consistent_read(true);
            let answer = call.set_exclusive_start_key(from).send().await?;
            items.extend(answer.items.unwrap_or_default());
            from = answer.last_evaluated_key;
            if from.is_none() {
                return Ok(items);
            }
        }
    }

    async fn head(&self) -> Result<Option<StreamHead>, CheckpointError> {
        let call = self.client.get_item().table_name(&self.companion);
        let call = call.key(ID, string(STREAM_ID)).consistent_read(true);
        let answer = call.send().await.map_err(CallError::from);
        let answer = answer.map_err(self.failed("read the stream's row of"))?;
        let Some(item) = answer.item else {
            return Ok(None);
        };
        let broken = |reason: &str| CheckpointError::Row {
            table: self.companion.clone(),
            row: STREAM_ID.to_owned(),
            reason: reason.to_owned(),
        };
        if number(&item, "version").is_none_or(|version| version > HEAD_VERSION) {
            return Err(broken("is of another version: upgrade Millpond"));
        }
        let start = text(&item, "start").and_then(|json| serde_json::from_str(json).ok());
        let head = StreamHead {
            stream: text(&item, "stream").unwrap_or_default().to_owned(),
            stream_created_ms: number(&item, "createdMs")
                .and_then(|ms| i64::try_from(ms).ok())
                .ok_or_else(|| broken("has no `createdMs`"))?,
            start: start.ok_or_else(|| broken("has no `start`"))?,
        };
        if head.stream != self.settings.stream {
            return Err(CheckpointError::OtherStream {
                place: self.companion.clone(),
                found: head.stream,
                wanted: self.settings.stream.clone(),
            });
        }
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = head.start;
        Ok(Some(head))
    }

    async fn write(&self, write: &ShardWrite) -> Result<Outcome, CallError> {
        let key = string(write.shard.as_str());
        match write.condition {
            WriteIf::Absent => {
                let item = kcl_row::new_row(&write.shard, &write.row, self.begins());
                let call = self.client.put_item().table_name(&self.settings.table);
                let call = call
                    .set_item(Some(item))
                    .condition_expression("attribute_not_exists(leaseKey)");
                applied(call.send().await)
            }
            WriteIf::Held { epoch } => {
                let mut update = Expression::default();
                for (name, value) in kcl_row::checkpoint_columns(&write.row, self.begins()) {
                    update = update.put(name, value);
                }
                let me = string(self.settings.worker.as_str());
                let update = update
                    .when(names::LEASE_COUNTER, Some(count(epoch)))
                    .when(names::LEASE_OWNER, Some(me))
                    .when(names::CHECKPOINT_OWNER, None);
                self.update(key, update).await
            }
            WriteIf::Finished => {
                let call = self.client.delete_item().table_name(&self.settings.table);
                let call = call
                    .key(names::LEASE_KEY, key)
                    .condition_expression("#c = :end")
                    .expression_attribute_names("#c", names::CHECKPOINT)
                    .expression_attribute_values(":end", string("SHARD_END"));
                applied(call.send().await)
            }
        }
    }

    async fn update(
        &self,
        key: AttributeValue,
        expression: Expression,
    ) -> Result<Outcome, CallError> {
        let call = self.client.update_item().table_name(&self.settings.table);
        let call = call
            .key(names::LEASE_KEY, key)
            .set_update_expression(expression.update())
            .set_condition_expression(expression.condition());
        let (names, values) = expression.into_parts();
        let call = call
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        applied(call.send().await)
    }

    async fn write_all(
        &self,
        writes: impl Iterator<Item = ShardWrite>,
    ) -> Result<Vec<ShardId>, CheckpointError> {
        let mut calls = JoinSet::new();
        let mut writes = writes.fuse();
        let mut refused = Vec::new();
        loop {
            let room = TABLE_WRITES_AT_ONCE.saturating_sub(calls.len());
            for write in writes.by_ref().take(room) {
                let table = self.clone();
                calls.spawn(async move {
                    let outcome = table.write(&write).await?;
                    Ok::<_, CallError>((write, outcome))
                });
            }
            let Some(answer) = calls.join_next().await else {
                return Ok(refused);
            };
            let answer = answer.unwrap_or_else(|error| {
                Err(CallError::new(FailureKind::Answer, error.to_string()))
            });
            let (write, outcome) = answer.map_err(self.failed("write to"))?;
            if matches!(write.condition, WriteIf::Held { .. }) && outcome == Outcome::Refused {
                refused.push(write.shard);
            }
        }
    }
}

#[async_trait]
impl ShardTable for DynamoTable {
    async fn load(&self, stream: &str) -> Result<Found, CheckpointError> {
        if stream != self.settings.stream {
            return Err(CheckpointError::OtherStream {
                place: self.settings.table.clone(),
                found: self.settings.stream.clone(),
                wanted: stream.to_owned(),
            });
        }
        let head = self.head().await?;
        let items = self.scan(&self.settings.table).await;
        let items = items.map_err(self.failed("read"))?;
        let mut shards = Rows::new();
        for item in &items {
            let row = kcl_row::read(item, self.meaning());
            let row = row.map_err(|error| self.unreadable(error))?;
            shards.extend(row.map(|found| (found.shard, found.row)));
        }
        Ok(Found { head, shards })
    }

    async fn begin(&self, head: StreamHead) -> Result<StreamHead, CheckpointError> {
        // An enum of numbers: nothing in it that JSON could not hold.
        let start = serde_json::to_string(&head.start).unwrap_or_default();
        let created = u64::try_from(head.stream_created_ms).unwrap_or(0);
        let item = Attributes::from([
            (ID.to_owned(), string(STREAM_ID)),
            ("version".to_owned(), count(HEAD_VERSION)),
            ("stream".to_owned(), string(&head.stream)),
            ("createdMs".to_owned(), count(created)),
            ("start".to_owned(), string(&start)),
        ]);
        let call = self.client.put_item().table_name(&self.companion);
        let call = call
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(id)");
        applied(call.send().await).map_err(self.failed("write the stream's row of"))?;
        let holds = self.head().await?;
        holds.ok_or_else(|| CheckpointError::Row {
            table: self.companion.clone(),
            row: STREAM_ID.to_owned(),
            reason: "was removed under way: start again".to_owned(),
        })
    }

    async fn save(&self, writes: &[ShardWrite]) -> Result<Vec<ShardId>, CheckpointError> {
        let is_new = |write: &&ShardWrite| write.condition == WriteIf::Absent;
        let new: Vec<ShardWrite> = writes.iter().filter(is_new).cloned().collect();
        self.write_all(new.into_iter()).await?;
        let others = writes.iter().filter(|write| !is_new(write));
        let others: Vec<ShardWrite> = others.cloned().collect();
        self.write_all(others.into_iter()).await
    }

    async fn claim(
        &self,
        shard: &ShardId,
        epoch: u64,
    ) -> Result<Option<ShardRow>, CheckpointError> {
        let call = self.client.get_item().table_name(&self.settings.table);
        let call = call.key(names::LEASE_KEY, string(shard.as_str()));
        let answer = call.consistent_read(true).send().await;
        let answer = answer
            .map_err(CallError::from)
            .map_err(self.failed("read"))?;
        let Some(item) = answer.item else {
            return Ok(None);
        };
        let found = kcl_row::read(&item, self.meaning());
        let found = found.map_err(|error| self.unreadable(error))?;
        let is_ours = |lease: &LeaseRow| {
            lease.epoch == epoch && lease.owner.as_ref() == Some(&self.settings.worker)
        };
        Ok(found
            .filter(|found| is_ours(&found.lease))
            .map(|found| found.row))
    }

    fn sharing(&self) -> Option<Sharing> {
        Some(Sharing {
            leases: Arc::new(self.clone()),
            rows: self.rows.subscribe(),
        })
    }
}

#[async_trait]
impl LeaseStore for DynamoTable {
    async fn view(&self) -> Result<View, StoreError> {
        let (leases, others) =
            tokio::try_join!(self.scan(&self.settings.table), self.scan(&self.companion))
                .map_err(StoreError::from)?;
        let mut view = View::default();
        for item in &others {
            let id = text(item, ID).and_then(|id| id.strip_prefix(WORKER));
            let beat = number(item, SESSION).zip(number(item, BEAT));
            if let Some((id, (session, count))) = id.zip(beat) {
                view.workers
                    .insert(WorkerId::new(id), Beat { session, count });
            }
        }
        let mut rows = Rows::new();
        let mut renewed: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for item in &leases {
            let found = kcl_row::read(item, self.meaning()).map_err(|error| StoreError::Row {
                row: error.to_string(),
                what: "neither the Kinesis Client Library nor Millpond writes such",
            })?;
            let Some(KclRow { shard, lease, row }) = found else {
                continue;
            };
            if let Some(owner) = &lease.owner
                && !view.workers.contains_key(owner)
            {
                let beat = renewed.entry(owner.clone()).or_default();
                *beat = beat.wrapping_add(lease.epoch);
            }
            let id = LeaseId::new(shard.as_str());
            if row.bytes_per_second > 0 {
                view.loads.insert(id.clone(), row.bytes_per_second);
            }
            view.leases.insert(id, lease);
            rows.insert(shard, row);
        }
        for (owner, count) in renewed {
            let silence = self.settings.library_silence;
            view.silences.insert(owner.clone(), silence);
            view.workers.insert(owner, Beat { session: 0, count });
        }
        self.rows.send_replace(Arc::new(rows));
        Ok(view)
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        match change {
            Change::Worker { id, seen, new } => self.change_worker(id, *seen, *new).await,
            Change::Lease { id, seen, new } => match seen {
                Some(seen) => {
                    let expression = lease_change(seen, new);
                    self.update(string(id.as_str()), expression).await
                }
                // A shard's row is there before its lease is wanted; this one went meanwhile.
                None => return Ok(Outcome::Refused),
            },
        }
        .map_err(StoreError::from)
    }
}

impl DynamoTable {
    async fn change_worker(
        &self,
        id: &WorkerId,
        seen: Option<Beat>,
        new: Option<Beat>,
    ) -> Result<Outcome, CallError> {
        let key = string(&format!("{WORKER}{id}"));
        let condition = match seen {
            Some(seen) => Expression::default()
                .when(SESSION, Some(count(seen.session)))
                .when(BEAT, Some(count(seen.count))),
            None => Expression::default().when(ID, None),
        };
        let written = condition.condition();
        let (names, values) = condition.into_parts();
        if let Some(new) = new {
            let call = self.client.put_item().table_name(&self.companion);
            let call = call
                .item(ID, key)
                .item(SESSION, count(new.session))
                .item(BEAT, count(new.count))
                .set_condition_expression(written)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values);
            applied(call.send().await)
        } else {
            let call = self.client.delete_item().table_name(&self.companion);
            let call = call
                .key(ID, key)
                .set_condition_expression(written)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values);
            applied(call.send().await)
        }
    }
}

/// The update that turns a lease seen so into a new one.
fn lease_change(seen: &LeaseRow, new: &LeaseRow) -> Expression {
    let id = |id: &Option<WorkerId>| id.as_ref().map(|id| string(id.as_str()));
    let mut change = Expression::default()
        .put(names::LEASE_COUNTER, Some(count(new.epoch)))
        .put(names::WANTED_BY, id(&new.wanted_by));
    if new.owner != seen.owner || new.epoch != seen.epoch {
        change = change
            .put(names::LEASE_OWNER, id(&new.owner))
            .put(names::CHECKPOINT_OWNER, None);
    }
    if seen.owner.is_some() && new.owner.is_some() && new.owner != seen.owner {
        change = change.count_up(names::OWNER_SWITCHES);
    }
    change = change
        .when(names::LEASE_COUNTER, Some(count(seen.epoch)))
        .when(names::WANTED_BY, id(&seen.wanted_by));
    match id(&seen.owner) {
        Some(owner) => change.when_either(names::CHECKPOINT_OWNER, names::LEASE_OWNER, owner),
        None => change
            .when(names::CHECKPOINT_OWNER, None)
            .when(names::LEASE_OWNER, None),
    }
}
