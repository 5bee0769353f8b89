//! What Millpond's connectors share: the connector contract, the topic, drain, AWS access.
//!
//! A configuration goes one way: text → tree with places ([`yaml`]) → raw form (serde, through
//! [`section::Section::read`]) → `validate` → a config that cannot be wrong → `build`. Only `build`
//! touches the network, and every problem on the way to it is collected in [`problem::Problems`]
//! with line and column.

pub mod arguments;
pub mod aws;
mod aws_failure;
pub mod aws_http;
pub mod backoff;
pub mod board;
pub mod catalog;
pub mod connector;
pub mod data_dir;
mod de;
pub mod document;
pub mod drain;
pub mod logging;
pub mod manifest;
pub mod meta;
pub mod metrics;
pub mod mutation;
pub mod problem;
pub mod random;
mod raw_meta;
mod read_error;
pub mod registry;
mod schema;
pub mod secret;
pub mod section;
pub mod stream_clock;
pub mod testing;
pub mod topic;
mod transforms;
pub mod units;
pub mod wall;
pub mod yaml;
pub mod yaml_stream;
