//! Millpond's data formats: origin keys, envelopes, items and their sizes.
//!
//! Pure: no clock, no randomness, no I/O; builds for `wasm32-unknown-unknown`.
//! `FORMAT.md` is the normative description.

mod decimal;
pub mod dictionary;
pub mod error;
pub mod frame;
pub mod gap;
pub mod header;
mod header_codec;
pub mod join;
pub mod keys;
pub mod limits;
pub mod marks;
pub mod origin;
pub mod record;
pub mod scan;
pub mod sequence;
pub mod sizing;
pub mod stream_gap;
mod varint;
