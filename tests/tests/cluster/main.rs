//! Everything on a real Fluvio cluster and under the real cdk.
//!
//! The programs `fluvio-run`, `fluvio` and `cdk` are looked for in `MILLPOND_FLUVIO_BIN`, else
//! where PATH has the first; without them each test announces that it is skipped, and why.

mod cdk;
mod deploy;
mod folder;
mod lost_topic;
mod path;
mod profiles;
mod sharing;
mod sharing_sources;
mod swap;
mod topic;

use millpond_tests::on_cluster::Binaries;

/// The binaries that are deployed.
const BUILT: Binaries = millpond_tests::binaries!();
