//! What a cluster keeps, whatever happens to its servers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fluvio_controlplane_metadata::smartmodule::SmartModuleSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::record::Offset;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::fault::{Fault, Script};
use super::log::Log;

/// A topic and its partitions.
pub(super) struct StoredTopic {
    pub(super) spec: TopicSpec,
    pub(super) partitions: Vec<Log>,
}

/// Everything behind the two servers.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) topics: BTreeMap<String, StoredTopic>,
    pub(super) modules: BTreeMap<String, SmartModuleSpec>,
    /// By topic, partition, consumer.
    pub(super) consumer_offsets: BTreeMap<(String, u32, String), Offset>,
    pub(super) script: Script,
    pub(super) spu_port: u16,
    /// Streams with SmartModules that were opened so far.
    pub(super) streams: u64,
    /// Of these, how many have their modules compiled just now.
    at_work: u64,
    pub(super) most_at_work: u64,
}

impl Contents {
    pub(super) fn log(&mut self, topic: &str, partition: u32) -> Option<&mut Log> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.partitions.get_mut(index)
    }
}

/// The contents, and a bell that rings when any log grew.
pub(super) struct State {
    contents: Mutex<Contents>,
    grown: watch::Sender<u64>,
    tls: Option<TlsAcceptor>,
}

/// A stream whose modules are compiled.
pub(super) struct AtWork<'a>(&'a State);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.lock().at_work -= 1;
    }
}

impl State {
    pub(super) fn begin_work(&self) -> AtWork<'_> {
        let mut contents = self.lock();
        contents.at_work += 1;
        contents.most_at_work = contents.most_at_work.max(contents.at_work);
        AtWork(self)
    }

    pub(super) fn new(tls: Option<TlsAcceptor>) -> Self {
        Self {
            contents: Mutex::default(),
            grown: watch::Sender::new(0),
            tls,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    pub(super) fn has_grown(&self) {
        self.grown.send_modify(|count| *count += 1);
    }

    pub(super) fn growth(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    pub(super) fn module(&self, name: &str) -> Option<SmartModuleSpec> {
        self.lock().modules.get(name).cloned()
    }

    pub(super) fn is_due(&self, fault: &Fault) -> bool {
        self.lock().script.is_due(fault)
    }
}
