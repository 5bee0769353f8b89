//! The assertions of `session.rs`, once more, with the shards pushed by enhanced fan-out.

#[path = "session.rs"]
mod session;
