//! What Millpond's connectors share: the connector contract, the topic, drain, AWS access.

pub mod connector;
pub mod metrics;
pub mod topic;
