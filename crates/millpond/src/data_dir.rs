//! The data directory of this process: the same as that of a connector on its own.

pub use millpond_connector::data_dir::DataDir;
