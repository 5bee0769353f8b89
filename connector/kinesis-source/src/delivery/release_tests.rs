//! Positions that follow what the topic's consumers have released.

use std::time::{Duration, Instant};

use aws_smithy_types::Blob;

use super::*;
use crate::checkpoint::ChainState;
use crate::limits::MAX_AWAITING;

fn delivery() -> Delivery {
    let batching = Batching {
        batch_bytes: 1,
        linger: Duration::ZERO,
        max_buffered_bytes: 1 << 30,
    };
    Delivery::new("events", 1, batching, Aggregated::Off).awaiting_release()
}

fn add(delivery: &mut Delivery, shard: &str) -> ShardIndex {
    let chain = ChainState {
        epoch: 7,
        next_ordinals: vec![0],
    };
    delivery.add_shard(shard.into(), None, chain, None, None)
}

fn answer(delivery: &mut Delivery, index: ShardIndex, number: u64) {
    let record = StreamRecord {
        sequence: (1_000 + number).to_string(),
        partition_key: "k".to_owned(),
        arrival_ms: Some(1),
        data: Blob::new(b"event".to_vec()),
    };
    let end = AnswerEnd {
        unread_since_ms: Some(number as i64),
        caught_up: false,
        closed: false,
    };
    delivery
        .accept(index, &[record], end, Instant::now())
        .expect("numbers");
}

fn append_all(delivery: &mut Delivery, next: &mut u64) {
    while let Some((partition, batch)) = delivery.next_append() {
        *next += u64::from(batch.record_count);
        delivery.appended(partition, *next);
    }
}

fn sequence(delivery: &Delivery, index: ShardIndex) -> Option<u64> {
    let position = delivery.durable(index).position.as_ref()?;
    position.sequence.parse().ok()
}

#[test]
fn nothing_is_durable_before_it_is_released_and_little_is_kept_meanwhile() {
    let mut delivery = delivery();
    let (one, other) = (add(&mut delivery, "a"), add(&mut delivery, "b"));
    let mut end = 0;
    for number in 0..5_000 {
        let index = if number % 3 == 0 { other } else { one };
        answer(&mut delivery, index, number);
        append_all(&mut delivery, &mut end);
    }
    assert!(delivery.is_settled(one) && delivery.is_settled(other) && delivery.awaits());
    assert_eq!(sequence(&delivery, one), None);
    assert!(delivery.partitions[0].awaiting.len() <= MAX_AWAITING);
    assert!(
        delivery
            .shards
            .iter()
            .all(|shard| shard.marks.len() <= MAX_AWAITING)
    );
    // Never ahead of what is released, however coarse.
    let mut before = (None, None);
    for released in (0..=5_000).step_by(7) {
        delivery.released(0, released);
        let found = (sequence(&delivery, one), sequence(&delivery, other));
        assert!(found >= before, "{found:?}");
        let most = 1_000 + released;
        assert!(
            found.0.max(found.1).is_none_or(|last| last < most),
            "{found:?}"
        );
        before = found;
    }
    delivery.released(0, 5_000);
    assert_eq!(sequence(&delivery, one), Some(5_999));
    assert_eq!(sequence(&delivery, other), Some(5_998));
    assert!(!delivery.awaits());
}
