//! What must hold of every decoder, whatever the bytes: no panic, bounded memory, and whatever is
//! accepted encodes to the same bytes again.

pub mod checks;
pub mod item;
pub mod mutate;
