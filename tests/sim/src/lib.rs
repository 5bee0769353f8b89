#![doc = include_str!("../README.md")]

pub mod actors;
pub mod campaign;
pub mod checkpoints;
pub mod dice;
pub mod items;
pub mod oracle;
pub mod process;
pub mod producer;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod stream;
pub mod table;
pub mod topic;
pub mod topic_reader;
pub mod world;
