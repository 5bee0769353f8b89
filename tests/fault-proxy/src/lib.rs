//! A proxy on loopback between the AWS SDK and the stand-ins that fails as networks and services do.
//!
//! - [`plan`]: which request meets which fault: a pure function of a seed and the request's number.
//! - [`fault`]: the faults, by family, and the answers that services give in their place.
//! - [`service`]: what is known of a request: service, operation and who signed it.
//! - [`split`]: the part of a `BatchWriteItem` that is let through.
//! - [`capacity`]: which writes a table takes, as DynamoDB has it.
//! - [`answer`]: answers that stop, stall or dribble.
//! - [`proxy`]: the server.

pub mod answer;
pub mod capacity;
pub mod fault;
pub mod plan;
pub mod proxy;
pub mod service;
pub mod split;

pub use capacity::Capacity;
pub use fault::{Family, Fault};
pub use plan::Plan;
pub use proxy::{Exchange, Proxy};
pub use service::{Service, Signer};
