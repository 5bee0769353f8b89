//! What the source relies on in a store of checkpoints, as assertions over its trait.

use millpond_kinesis_source::checkpoint::{
    Aggregated, ChainState, CheckpointStore, PinnedStart, Progress, ShardCheckpoint,
    StreamCheckpoint,
};
use millpond_kinesis_source::shard::ShardId;

/// Goes through every rule.
pub async fn assert_rules(store: &dyn CheckpointStore) {
    assert_eq!(store.load("events").await.expect("readable"), None);
    let mut checkpoint = StreamCheckpoint {
        stream: "events".to_owned(),
        stream_created_ms: 1_763_880_000_000,
        start: PinnedStart::TrimHorizon,
        aggregated: Aggregated::Auto.into(),
        shards: [(
            ShardId::from("shardId-000000000000"),
            ShardCheckpoint::not_begun(Vec::new(), None),
        )]
        .into(),
    };
    store.save(&checkpoint).await.expect("saved");
    assert_eq!(load(store).await.as_ref(), Some(&checkpoint));
    let shard = ShardId::from("shardId-000000000001");
    checkpoint.shards.clear();
    checkpoint.shards.insert(
        shard.clone(),
        ShardCheckpoint {
            parents: vec![ShardId::from("shardId-000000000000")],
            progress: Progress::Delivered {
                sequence: "4959".to_owned(),
                sub_sequence: 2,
                partial: false,
                chain: ChainState {
                    epoch: 7,
                    next_ordinals: vec![1, 2, 3],
                },
            },
            unread_since_ms: Some(1_763_880_000_001),
        },
    );
    store.save(&checkpoint).await.expect("saved");
    let found = load(store).await.expect("there");
    assert_eq!(found, checkpoint, "replaced as a whole");
    assert!(found.check().is_ok());
    assert_eq!(store.load("another").await.expect("readable"), None);
}

async fn load(store: &dyn CheckpointStore) -> Option<StreamCheckpoint> {
    store.load("events").await.expect("readable")
}
