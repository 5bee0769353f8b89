//! A pipeline on a Fluvio cluster: what `deploy`, `status` and `down` share.
//!
//! [`plan`] decides and touches nothing; [`cdk`] calls the Connector Development Kit; [`package`]
//! and [`split`] make the files that it is given.

pub mod api;
pub mod cdk;
pub mod fluvio;
pub mod lag;
pub mod observe;
pub mod package;
pub mod pipeline;
pub mod plan;
pub mod process;
pub mod shell;
pub mod split;
