//! A bucket or folder as a store of the sink.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use millpond_connector::topic::{Offset, PartitionId};
use millpond_format::gap::Gap;
use millpond_sink::claim::StaleWrites;
use millpond_sink::dead_letters::DeadLetter;
use millpond_sink::gaps::PlanGaps;
use millpond_sink::ledger::LedgerRow;
use millpond_sink::registration::Registration;
use millpond_sink::store::{
    OpenStore, Place, PlanWriter, Store, StoreError, TakeBack, gap_letters,
};
use millpond_sink::stored::{
    StoredError, decode_gaps, decode_ledger, decode_pipelines, decode_registration, encode_gaps,
    encode_ledger, encode_pipelines, encode_registration,
};

use crate::client::{ObjectApi, Version};
use crate::error::S3Error;
use crate::limits::{MAX_IN_FLIGHT_DELETES, MAX_IN_FLIGHT_LETTERS};
use crate::names::Names;
use crate::plan::PlanConfig;
use crate::plan_writer::ObjectPlans;
use crate::writer::Objects;

pub use crate::encode::Format;

/// A version that no object has: a replace of it must be refused.
const NO_VERSION: &str = "\"00000000000000000000000000000000\"";

/// A bucket or folder that is to be used.
pub struct ObjectSettings {
    /// The bucket or folder.
    pub objects: Arc<dyn ObjectApi>,
    /// What names of objects begin with.
    pub prefix: String,
    /// How events are written.
    pub format: Format,
    /// Bytes of events at which an object is closed.
    pub max_object_bytes: u64,
}

#[async_trait]
impl OpenStore for ObjectSettings {
    async fn open(self: Box<Self>, place: Place) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(ObjectSink {
            objects: Objects::new(self.objects, place.metrics.clone()),
            names: Names::new(&self.prefix, &place.pipeline),
            format: self.format,
            max_object_bytes: self.max_object_bytes,
            place,
            seen: Mutex::default(),
        }))
    }
}

/// A bucket or folder that is ready.
struct ObjectSink {
    objects: Objects,
    names: Names,
    format: Format,
    max_object_bytes: u64,
    place: Place,
    /// The ledger rows read or written last, with their versions: saves a read before each write.
    seen: Mutex<HashMap<PartitionId, (LedgerRow, Version)>>,
}

impl ObjectSink {
    fn remember(&self, partition: PartitionId, row: &LedgerRow, version: Version) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(partition, (row.clone(), version));
    }

    /// The version of a row that was seen, if it is still the last one that we know of.
    fn remembered(&self, partition: PartitionId, row: &LedgerRow) -> Option<Version> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, version) = seen.get(&partition)?;
        (known == row).then(|| version.clone())
    }

    /// Makes sure that conditional writes have an effect: on them alone rests who owns what (I11).
    async fn check_conditions(&self, name: &str, bytes: Bytes) -> Result<(), S3Error> {
        let ignored = |header| S3Error::Unconditional {
            store: self.objects.store().to_owned(),
            header,
        };
        if self.objects.create(name, bytes.clone()).await?.is_some() {
            return Err(ignored("If-None-Match"));
        }
        let none = Version(NO_VERSION.to_owned());
        if self.objects.replace(name, bytes, &none).await?.is_some() {
            return Err(ignored("If-Match"));
        }
        Ok(())
    }

    async fn own_registration(&self) -> Result<Option<(Registration, Bytes)>, S3Error> {
        let name = self.names.registration();
        let Some(found) = self.objects.get(&name).await? else {
            return Ok(None);
        };
        let known = decode_registration(&found.bytes);
        let known = known.map_err(|error| self.objects.state_error(&name, &error))?;
        Ok(Some((known, found.bytes)))
    }

    /// Puts the pipeline into the list of its topic, if it is not there.
    async fn enlist(&self, registration: &Registration) -> Result<(), S3Error> {
        let (topic, pipeline) = (&self.place.topic, &self.place.pipeline);
        let encode = |list: &[(String, Registration)]| encode_pipelines(topic, list);
        let add = |list: &mut Vec<(String, Registration)>| {
            let is_new = list.iter().all(|(known, _)| known != pipeline);
            if is_new {
                list.push((pipeline.clone(), registration.clone()));
            }
            is_new
        };
        let name = self.names.pipelines(topic);
        let list = self
            .objects
            .change_entries(&name, decode_pipelines, encode, add);
        list.await
    }

    /// Puts gaps into the list of their topic partition, if they are not there.
    async fn list_gaps(&self, of: PlanGaps<'_>) -> Result<(), S3Error> {
        let add = |list: &mut Vec<(Offset, Gap)>| {
            let known = list.len();
            for gap in of.gaps {
                let gap = (of.from, gap.clone());
                if !list.contains(&gap) {
                    list.push(gap);
                }
            }
            list.sort_by_key(|(from, _)| *from);
            list.len() > known
        };
        let name = self.names.gaps(&self.place.topic, of.partition);
        let list = self
            .objects
            .change_entries(&name, decode_gaps, encode_gaps, add);
        list.await
    }

    async fn put_letter(&self, letter: &DeadLetter) -> Result<(), S3Error> {
        let name = self.names.dead_letter(&letter.id);
        let line = letter
            .line()
            .map_err(|error| self.objects.state_error(&name, &error.into()))?;
        Ok(self.objects.put(&name, line.into()).await?)
    }
}

#[async_trait]
impl Store for ObjectSink {
    fn name(&self) -> String {
        self.objects.store().to_owned()
    }

    async fn register(
        &self,
        registration: &Registration,
    ) -> Result<Option<Registration>, StoreError> {
        let name = self.names.registration();
        let bytes = encode_registration(registration);
        let bytes = bytes.map_err(|error| self.objects.state_error(&name, &error))?;
        let create = self.objects.create(&name, bytes.clone()).await;
        if create.map_err(S3Error::from)?.is_some() {
            self.check_conditions(&name, bytes).await?;
            self.enlist(registration).await?;
            return Ok(None);
        }
        let Some((known, bytes)) = self.own_registration().await? else {
            let gone = StoredError::Malformed("it was removed just now");
            return Err(self.objects.state_error(&name, &gone).into());
        };
        self.check_conditions(&name, bytes).await?;
        if known.topic == registration.topic {
            self.enlist(&known).await?;
        }
        Ok(Some(known))
    }

    async fn pipelines(&self) -> Result<Vec<(String, Registration)>, StoreError> {
        let name = self.names.pipelines(&self.place.topic);
        let list = self.objects.entries(&name, decode_pipelines).await?;
        let mut known = list.map_or_else(Vec::new, |(list, _)| list);
        // Registered, and ended before it was in the list.
        if let Some((own, _)) = self.own_registration().await? {
            known.push((self.place.pipeline.clone(), own));
        }
        Ok(known)
    }

    async fn ledger(&self, partition: PartitionId) -> Result<Option<LedgerRow>, StoreError> {
        let name = self.names.ledger(&self.place.topic, partition);
        let found = self.objects.get(&name).await.map_err(S3Error::from)?;
        let Some(found) = found else { return Ok(None) };
        let row = decode_ledger(&found.bytes);
        let row = row.map_err(|error| self.objects.state_error(&name, &error))?;
        self.remember(partition, &row, found.version);
        Ok(Some(row))
    }

    async fn put_ledger(
        &self,
        partition: PartitionId,
        row: &LedgerRow,
        seen: Option<&LedgerRow>,
    ) -> Result<bool, StoreError> {
        let name = self.names.ledger(&self.place.topic, partition);
        let bytes = encode_ledger(row).map_err(|error| self.objects.state_error(&name, &error))?;
        let put = match seen {
            None => self.objects.create(&name, bytes).await,
            Some(seen) => {
                if self.remembered(partition, seen).is_none()
                    && self.ledger(partition).await?.as_ref() != Some(seen)
                {
                    return Ok(false);
                }
                let Some(version) = self.remembered(partition, seen) else {
                    return Ok(false);
                };
                self.objects.replace(&name, bytes, &version).await
            }
        };
        let Some(version) = put.map_err(S3Error::from)? else {
            return Ok(false);
        };
        self.remember(partition, row, version);
        Ok(true)
    }

    fn writer(&self, partition: PartitionId) -> Box<dyn PlanWriter> {
        Box::new(ObjectPlans::new(
            self.objects.clone(),
            PlanConfig {
                pipeline: self.place.pipeline.clone(),
                topic: self.place.topic.clone(),
                partition,
                names: self.names.clone(),
                format: self.format,
                max_object_bytes: self.max_object_bytes,
            },
        ))
    }

    fn stale_writes(&self) -> StaleWrites {
        self.objects.stale_writes()
    }

    fn take_back(&self) -> TakeBack {
        TakeBack::Possible
    }

    /// All names of the pipeline are gone through: what groups and hours the plan had is known to nobody.
    async fn undo(&self, partition: PartitionId, offsets: Range<Offset>) -> Result<(), StoreError> {
        let is_of_it = |name: &str| {
            let place = self.names.place(name);
            place.is_some_and(|(of, offset)| of == partition && offsets.contains(&offset))
        };
        let found = self.objects.list(self.names.root(), &is_of_it).await;
        let found = found.map_err(S3Error::from)?;
        let removed = found.len();
        let mut found = found.iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_DELETES
                && let Some(name) = found.next()
            {
                under_way.push(self.objects.delete(name));
            }
            match under_way.next().await {
                Some(deleted) => deleted.map_err(S3Error::from)?,
                None => break,
            }
        }
        let Range { start, end } = offsets;
        tracing::info!(
            partition,
            from = start,
            to = end,
            removed,
            "objects of a plan that cannot be finished are removed"
        );
        Ok(())
    }

    /// Each is a dead letter, for whoever looks there, and one of a list, which a sink reads in one request.
    async fn put_gaps(&self, of: PlanGaps<'_>) -> Result<(), StoreError> {
        self.put_dead_letters(&gap_letters(of)).await?;
        Ok(self.list_gaps(of).await?)
    }

    async fn gaps(&self, partition: PartitionId) -> Result<Vec<(Offset, Gap)>, StoreError> {
        let name = self.names.gaps(&self.place.topic, partition);
        let list = self.objects.entries(&name, decode_gaps).await?;
        Ok(list.map_or_else(Vec::new, |(list, _)| list))
    }

    async fn put_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let mut letters = letters.iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_IN_FLIGHT_LETTERS
                && let Some(letter) = letters.next()
            {
                under_way.push(self.put_letter(letter));
            }
            match under_way.next().await {
                Some(put) => put?,
                None => return Ok(()),
            }
        }
    }
}
