//! The topic on a Fluvio cluster.
