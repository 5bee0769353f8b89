//! What any store must hold, as assertions over `dyn Store`, and what it takes to make them: a
//! topic in memory, a seeded workload, and storms of crashes.
//!
//! A store's own tests give a [`Subject`]; the same assertions then run on its fake, on a folder
//! and on the wire. They panic on the first thing that is not as the traits say.

pub mod events;
pub mod lost_topic;
pub mod rules;
pub mod storm;
pub mod topic;
pub mod wait;
pub mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use millpond_connector::metrics::Metrics;
use millpond_connector::topic::Transform;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Pipeline of all that runs here.
pub const PIPELINE: &str = "p";

/// A place to write to, of which every process opens its own store.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store of one process, for pipeline [`PIPELINE`] of topic [`topic::NAME`].
    async fn open(&self, metrics: Arc<Metrics>) -> Arc<dyn Store>;

    /// Makes up to `percent` in a hundred of the next calls fail, lose their answers or succeed in part.
    fn inject(&self, seed: u64, percent: u32);

    /// Every event, found by somebody who knows nothing of the ledger: by chain, in order.
    async fn events(&self) -> BTreeMap<String, Vec<Vec<u8>>>;
}

/// The packer, grouping by job, in items of 16 KiB.
#[must_use]
pub fn pack() -> Vec<Transform> {
    let with = [("group-by", "/job"), ("max-item-bytes", "16384")];
    let with = with.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    vec![Transform {
        uses: "millpond/pack@0.1.0".into(),
        with: with.collect(),
    }]
}

/// A token that says to drain at once.
#[must_use]
pub fn draining() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Seeds of a random test, printed so that a failure can be repeated with `MILLPOND_SEED`.
#[expect(
    clippy::print_stdout,
    reason = "shown with the output of a failed test"
)]
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("MILLPOND_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let range = match first {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    };
    range.inspect(|seed| println!("MILLPOND_SEED={seed}"))
}
