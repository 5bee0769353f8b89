//! The assertions of `wire.rs`, once more, with the shards pushed by enhanced fan-out.

#[path = "wire.rs"]
mod wire;
