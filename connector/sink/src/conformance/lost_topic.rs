//! A topic that is lost while a plan is under way, and made anew: what the source sends again is in the store once.

use std::path::Path;
use std::sync::Arc;

use millpond_connector::metrics::Metrics;

use super::events::check;
use super::topic::MemoryTopic;
use super::workload::{Shape, Workload};
use super::{Subject, draining, pack, storm};
use crate::error::SinkError;
use crate::partition;
use crate::store::Store;

/// Batches that are sent before the process that dies begins, and as many for that.
const BATCHES: u32 = 6;

/// Turns of the processes between one death and the next one that is tried.
const STEP: usize = 2;

/// What was tried.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Processes that died.
    pub deaths: u32,
    /// Those of them that left a plan open.
    pub open: u32,
}

/// Without poison: a dead letter has no ordinal, so it may come twice.
#[must_use]
pub fn shape() -> Shape {
    Shape {
        poison: 0,
        repeats: 5,
        ..Shape::default()
    }
}

/// A topic of this identity with so many batches of the workload of a seed, the same ones each time.
#[must_use]
pub fn sent(identity: &str, seed: u64, batches: u32) -> (MemoryTopic, Workload) {
    let topic = MemoryTopic {
        identity: Some(identity.to_owned()),
        ..MemoryTopic::new(seed)
    };
    let mut workload = Workload::new(seed, shape());
    (0..batches).for_each(|_| workload.send(&topic));
    (topic, workload)
}

/// Runs one process over what is in the topic, until it is drained.
///
/// # Errors
/// What the process answers.
pub async fn drain(
    owner: &str,
    store: Arc<dyn Store>,
    topic: &MemoryTopic,
    packed: bool,
    folder: &Path,
) -> Result<Arc<Metrics>, SinkError> {
    let metrics = Arc::new(Metrics::default());
    let transforms = if packed { pack() } else { Vec::new() };
    let shared = storm::shared(owner, store, metrics.clone(), topic, transforms, folder);
    partition::run(Arc::new(shared), 0, draining()).await?;
    Ok(metrics)
}

/// A process dies at one turn after the other, and its topic with it.
///
/// # Panics
/// When an event is not in the store exactly once afterwards, or a gap is recorded.
pub async fn nothing_is_left_twice<S: Subject>(
    seed: u64,
    fresh: impl Fn() -> S,
    packed: bool,
    folder: &Path,
) -> Tried {
    let mut tried = Tried::default();
    for turns in (0..).step_by(STEP) {
        let subject = fresh();
        let store = subject.open(Arc::default()).await;
        let (first, mut workload) = sent("first", seed, BATCHES);
        let drained = drain("a", store.clone(), &first, packed, folder).await;
        drained.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        (0..BATCHES).for_each(|_| workload.send(&first));
        let dies = {
            let (topic, folder) = (first.clone(), folder.to_owned());
            tokio::spawn(async move { drain("b", store, &topic, packed, &folder).await })
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if dies.is_finished() {
            break;
        }
        dies.abort();
        let _ = dies.await;
        tried.deaths += 1;
        let store = subject.open(Arc::default()).await;
        let ledger = store.ledger(0).await.expect("answers").expect("a row");
        tried.open += u32::from(ledger.intent.is_some());
        let (again, workload) = sent("again", seed, 2 * BATCHES);
        let metrics = drain("c", store, &again, packed, folder).await;
        let metrics = metrics.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        check(&workload, &subject.events().await, &[]);
        assert_eq!(metrics.gaps.get(), 0, "seed {seed}");
    }
    tried
}
