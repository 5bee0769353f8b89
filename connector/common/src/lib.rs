//! What Millpond's connectors share: the connector contract, the topic, drain, AWS access.
//!
//! A configuration goes one way: text → tree with places ([`yaml`]) → raw form (serde, through
//! [`section::Section::read`]) → `validate` → a config that cannot be wrong → `build`. Everything
//! before `build` is pure but for the clearly named reading of files, and every problem is
//! collected in [`problem::Problems`] with line and column.

pub mod aws;
pub mod backoff;
pub mod connector;
mod de;
pub mod document;
pub mod meta;
pub mod metrics;
pub mod problem;
pub mod registry;
pub mod section;
pub mod topic;
pub mod units;
pub mod yaml;
