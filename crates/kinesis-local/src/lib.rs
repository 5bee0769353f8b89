#![doc = include_str!("../README.md")]

pub mod model;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "server")]
pub use server::{Server, ServerConfig, ServerError, ServerHandle};
