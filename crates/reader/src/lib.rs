//! Reads events back from a table that Millpond's DynamoDB sink wrote.
//!
//! ```no_run
//! # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), millpond_reader::ReadError> {
//! use millpond_reader::{ReadRequest, Reader, ReaderConfig};
//!
//! let reader = Reader::open(client, ReaderConfig::new("events")).await?;
//! let mut events = reader.read(ReadRequest::group("job-17")).await?;
//! while let Some(event) = events.next().await? {
//!     println!("{} {:?}", event.time_ms, event.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What stands in the table is described in `FORMAT.md`. Every read is a plain `Query` or
//! `GetItem`; nothing is ever written.

mod chain;
mod classify;
mod config;
mod damage;
mod directory;
mod error;
mod event;
mod events;
mod follow;
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod groups;
mod inspect;
mod item;
mod layout;
mod pace;
mod parts;
mod reader;
mod table;
mod tail;
mod token;
pub mod verify;

pub use config::{OnDamage, ReadUnits, ReaderConfig, RetryPolicy};
pub use damage::{Check, Damage};
pub use error::ReadError;
pub use event::{Event, EventOrigin, ItemKey};
pub use events::{Events, ReadRequest, ReadStats};
pub use groups::{GroupSummary, Groups, GroupsRequest};
pub use inspect::Items;
pub use reader::Reader;
pub use table::Spent;
pub use tail::{Tail, TailEvent, TailRequest, TailStart};
