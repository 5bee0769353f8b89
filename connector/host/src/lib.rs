//! Runs one connector as a process of its own on a Fluvio cluster.
