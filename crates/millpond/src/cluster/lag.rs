//! How far behind the sinks are: pure.

use serde::Serialize;

use super::api::{Committed, PartitionFacts};

/// One partition as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset that is stored, where the cluster says it.
    pub first: Option<u64>,
    /// One past the last offset.
    pub end: u64,
    /// Consumers that have committed, by name.
    pub consumers: Vec<ConsumerStatus>,
}

/// One consumer of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerStatus {
    /// Its name.
    pub consumer: String,
    /// Next offset that it needs: all before it is in the table.
    pub committed: u64,
    /// Records that are stored and not yet in the table.
    pub lag: u64,
}

/// Puts partitions and commits together, in the order of the partitions.
#[must_use]
pub fn join(
    topic: &str,
    partitions: &[PartitionFacts],
    committed: &[Committed],
) -> Vec<PartitionStatus> {
    let mut joined: Vec<PartitionStatus> = partitions
        .iter()
        .map(|partition| {
            let mut consumers: Vec<ConsumerStatus> = committed
                .iter()
                .filter(|one| one.topic == topic && one.partition == partition.id)
                .map(|one| ConsumerStatus {
                    consumer: one.consumer.clone(),
                    committed: one.offset,
                    lag: partition.end.saturating_sub(one.offset),
                })
                .collect();
            consumers.sort_by(|one, other| one.consumer.cmp(&other.consumer));
            PartitionStatus {
                topic: topic.to_owned(),
                partition: partition.id,
                first: partition.first,
                end: partition.end,
                consumers,
            }
        })
        .collect();
    joined.sort_by_key(|partition| partition.partition);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_is_stored_and_not_committed() {
        let partition = |id, end| PartitionFacts {
            id,
            first: Some(0),
            end,
        };
        let commit = |topic: &str, partition, offset| Committed {
            topic: topic.to_owned(),
            partition,
            consumer: "sink".to_owned(),
            offset,
        };
        let joined = join(
            "events",
            &[partition(1, 10), partition(0, 7)],
            &[
                commit("events", 1, 4),
                commit("other", 0, 1),
                commit("events", 9, 1),
            ],
        );
        assert_eq!(joined[0].partition, 0);
        assert_eq!(joined[0].consumers, []);
        assert_eq!(joined[1].consumers[0].lag, 6);
        // A commit read after the end of the partition was: nothing behind.
        let ahead = join("events", &[partition(0, 7)], &[commit("events", 0, 8)]);
        assert_eq!(ahead[0].consumers[0].lag, 0);
    }
}
