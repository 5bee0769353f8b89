//! A file that is written over hours and survives every death of its process.
//!
//! Everything lies in a folder beside it, `<file>.partial`, until it is whole:
//!
//! | name | is |
//! |---|---|
//! | `lock` | locked while a process works here |
//! | `state.json` | what is written for good, and where reading goes on: replaced in one step |
//! | `data` | lines, the first `bytes` of `state.json` for good, what lies behind was cut off by a death |
//! | `<number>.parquet` | columns, each a whole file, the first `parts` of `state.json` for good |
//! | `whole` | these, put together |
//!
//! Data is synchronised before the state that counts it, and the finished file is renamed into its
//! place after a state that says so.

mod output;
mod state;

pub use output::{Output, Row};
pub use state::{Cursor, Of, State, Work};
