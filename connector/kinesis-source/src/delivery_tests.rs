use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use millpond_format::record::Records;
use proptest::prelude::*;

use super::*;
use crate::aggregate::AggregateBuilder;
use crate::opening::TAKEN_APART_RATIO;

const EPOCH: u64 = 1_763_885_999_000;

fn batching(batch_bytes: usize) -> Batching {
    Batching {
        batch_bytes,
        linger: Duration::from_millis(250),
        max_buffered_bytes: 1 << 20,
    }
}

fn record(sequence: u64, key: &str, size: usize) -> StreamRecord {
    StreamRecord {
        sequence: sequence.to_string(),
        partition_key: key.to_owned(),
        arrival_ms: Some(1_000 + i64::try_from(sequence).expect("small")),
        data: vec![b'x'; size].into(),
    }
}

fn on(millis: i64) -> AnswerEnd {
    AnswerEnd {
        unread_since_ms: Some(millis),
        caught_up: false,
        closed: false,
    }
}

fn chain() -> ChainState {
    ChainState {
        epoch: EPOCH,
        next_ordinals: Vec::new(),
    }
}

fn delivery(partitions: u32, batch_bytes: usize) -> (Delivery, ShardIndex) {
    let mut delivery = Delivery::new("events", partitions, batching(batch_bytes), Aggregated::Off);
    let shard = delivery.add_shard("shardId-000000000000".into(), None, chain(), None, None);
    (delivery, shard)
}

/// Origins as text, and sizes of the values, of one batch.
fn unpack(batch: &StoredBatch) -> Vec<(String, usize)> {
    let records = Records::new(&batch.raw).expect("a batch");
    let unpacked: Vec<_> = records
        .map(|record| {
            let record = record.expect("a record");
            let key = record.key.expect("an origin");
            (
                String::from_utf8(key.to_vec()).expect("text"),
                record.value.len(),
            )
        })
        .collect();
    assert_eq!(unpacked.len(), batch.record_count as usize);
    unpacked
}

#[test]
fn an_event_reaches_its_partition_with_its_origin() {
    let (mut delivery, shard) = delivery(4, 1 << 20);
    let now = Instant::now();
    delivery
        .accept(
            shard,
            &[record(7, "job-1", 5), record(9, "job-1", 0)],
            on(1_009),
            now,
        )
        .expect("accepted");
    assert_eq!(delivery.next_append().map(|(partition, _)| partition), None);
    assert_eq!(delivery.next_due(), Some(now + Duration::from_millis(250)));
    delivery.seal_due(now + Duration::from_millis(249));
    assert!(delivery.next_append().is_none());
    delivery.seal_due(now + Duration::from_millis(250));
    let (partition, batch) = delivery.next_append().expect("a batch");
    assert_eq!(partition, topic_partition("job-1", 4));
    assert_eq!(batch.base_timestamp_ms, 1_007);
    assert_eq!(
        unpack(&batch),
        [
            (
                "mp1/events/shardId-000000000000/7/0/1007/1763885999000.0/job-1".to_owned(),
                5
            ),
            (
                "mp1/events/shardId-000000000000/9/0/1009/1763885999000.1/job-1".to_owned(),
                0
            ),
        ]
    );
    assert_eq!(delivery.durable(shard).position, None);
    assert_eq!(delivery.appended(partition, 0), 2);
    let durable = delivery.durable(shard);
    assert_eq!(
        durable.position.as_ref().map(|p| p.sequence.as_ref()),
        Some("9")
    );
    assert_eq!(durable.unread_since_ms, Some(1_009));
    assert_eq!(delivery.take_changed(), [shard]);
    assert!(delivery.is_empty());
    assert_eq!(delivery.buffered_bytes(), 0);
}

#[test]
fn the_partition_of_a_key_never_changes() {
    // Pinned: another hash would tear keys apart at an upgrade.
    let found: Vec<u32> = ["job-1", "job-2", "job-3", "job-4"]
        .map(|key| topic_partition(key, 1_000))
        .to_vec();
    assert_eq!(found, [908, 230, 564, 381]);
    // XXH3's own test vector of no bytes and no seed.
    let empty = 0x2d06_8005_38d3_94c2_u64 % 1_000;
    assert_eq!(u64::from(topic_partition("", 1_000)), empty);
    assert_eq!(topic_partition("job-1", 0), 0);
}

#[test]
fn batches_stay_below_their_size_and_a_large_event_has_its_own() {
    let (mut delivery, shard) = delivery(1, 1_000);
    let now = Instant::now();
    let sizes = [300, 300, 300, 5_000, 300, 0];
    let records: Vec<_> = (1..)
        .zip(sizes)
        .map(|(n, size)| record(n, "k", size))
        .collect();
    delivery
        .accept(shard, &records, on(0), now)
        .expect("accepted");
    delivery.seal_all();
    let mut batches = Vec::new();
    while let Some((partition, batch)) = delivery.next_append() {
        assert!(delivery.next_append().is_none(), "one append in flight");
        batches.push(
            unpack(&batch)
                .into_iter()
                .map(|(_, size)| size)
                .collect::<Vec<_>>(),
        );
        delivery.appended(partition, 0);
    }
    assert_eq!(
        batches,
        [vec![300, 300], vec![300], vec![5_000], vec![300, 0]]
    );
}

#[test]
fn a_failed_append_is_offered_again_before_what_follows() {
    let (mut delivery, shard) = delivery(1, 100);
    let records: Vec<_> = (1..=3).map(|n| record(n, "k", 100)).collect();
    delivery
        .accept(shard, &records, on(0), Instant::now())
        .expect("accepted");
    let (partition, first) = delivery.next_append().expect("a batch");
    delivery.append_failed(partition);
    let (_, again) = delivery.next_append().expect("again");
    assert_eq!(again.raw, first.raw);
    delivery.appended(partition, 0);
    let (_, second) = delivery.next_append().expect("the next");
    assert!(unpack(&second)[0].0.contains(".1/k"));
}

#[test]
fn an_answer_without_records_moves_what_it_says_only() {
    let (mut delivery, shard) = delivery(1, 1 << 20);
    let now = Instant::now();
    delivery
        .accept(shard, &[record(1, "k", 1)], on(1_001), now)
        .expect("accepted");
    let end = AnswerEnd {
        unread_since_ms: Some(5_000),
        caught_up: true,
        closed: true,
    };
    delivery.accept(shard, &[], end, now).expect("accepted");
    assert!(!delivery.durable(shard).caught_up);
    assert!(!delivery.durable(shard).finished);
    delivery.seal_all();
    let (partition, _) = delivery.next_append().expect("a batch");
    delivery.appended(partition, 0);
    let durable = delivery.durable(shard);
    assert!(durable.caught_up && durable.finished);
    assert_eq!(durable.unread_since_ms, Some(5_000));
    assert_eq!(
        durable.position.as_ref().map(|p| p.sequence.as_ref()),
        Some("1")
    );
}

#[test]
fn a_stalled_topic_does_not_pile_up_marks() {
    let (mut delivery, shard) = delivery(1, 1 << 20);
    let now = Instant::now();
    delivery
        .accept(shard, &[record(1, "k", 1)], on(1_001), now)
        .expect("accepted");
    for n in 0..10_000 {
        delivery.accept(shard, &[], on(n), now).expect("accepted");
    }
    assert_eq!(delivery.shards[0].marks.len(), 1);
}

#[test]
fn a_bad_sequence_number_is_named_and_not_passed() {
    let (mut delivery, shard) = delivery(1, 1 << 20);
    let mut bad = record(2, "k", 1);
    bad.sequence = "2x".to_owned();
    let error = delivery
        .accept(shard, &[record(1, "k", 1), bad], on(0), Instant::now())
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "shard `shardId-000000000000` answered a record with the sequence number `2x`, which is no decimal number"
    );
    delivery.seal_all();
    let (partition, _) = delivery.next_append().expect("the good one");
    delivery.appended(partition, 0);
    assert_eq!(delivery.durable(shard).position, None);
}

#[test]
fn fullness_counts_open_and_sealed_bytes() {
    let (mut delivery, shard) = delivery(2, 1 << 20);
    let now = Instant::now();
    let records: Vec<_> = (1..=1_100)
        .map(|n| record(n, &n.to_string(), 1_000))
        .collect();
    assert!(!delivery.is_full());
    delivery
        .accept(shard, &records, on(0), now)
        .expect("accepted");
    assert!(delivery.is_full());
    delivery.seal_all();
    let total = delivery.buffered_bytes();
    let mut raw = 0;
    while let Some((partition, batch)) = delivery.next_append() {
        raw += batch.raw.len();
        delivery.appended(partition, 0);
    }
    assert_eq!(delivery.buffered_bytes(), 0);
    // Sealed batches also count their record count, four bytes each.
    assert!(raw >= total && raw - total <= 16, "{raw} {total}");
}

#[derive(Debug, Clone)]
enum Step {
    Answer(usize, Vec<(u8, u16)>),
    SealDue(u64),
    Append,
    Acknowledge(usize),
    Fail(usize),
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    let answer = prop::collection::vec((0u8..12, 0u16..600), 0..12);
    prop_oneof![
        6 => (0usize..3, answer).prop_map(|(shard, records)| Step::Answer(shard, records)),
        2 => (0u64..400).prop_map(Step::SealDue),
        6 => Just(Step::Append),
        5 => (0usize..4).prop_map(Step::Acknowledge),
        2 => (0usize..4).prop_map(Step::Fail),
        1 => Just(Step::Crash),
    ]
}

/// A stream of three shards, a topic of four partitions, and a source in between that may crash.
struct World {
    /// What each shard holds, by sequence number; what is read once stays.
    shards: Vec<BTreeMap<u64, StreamRecord>>,
    read_to: Vec<u64>,
    next_sequence: u64,
    topic: BTreeMap<PartitionId, Vec<String>>,
    in_flight: BTreeMap<PartitionId, StoredBatch>,
    saved: Vec<(Option<Position>, ChainState)>,
    ordinals: BTreeMap<(usize, u64), String>,
    delivery: Delivery,
    now: Instant,
}

fn shard_name(shard: usize) -> String {
    format!("shardId-{shard:012}")
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            shards: vec![BTreeMap::new(); 3],
            read_to: vec![0; 3],
            next_sequence: 1,
            topic: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            saved: vec![(None, chain()); 3],
            ordinals: BTreeMap::new(),
            delivery: Delivery::new("events", 4, batching(2_000), Aggregated::Off),
            now: Instant::now(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.delivery = Delivery::new("events", 4, batching(2_000), Aggregated::Off);
        self.in_flight.clear();
        for shard in 0..3 {
            let (position, chain) = self.saved[shard].clone();
            self.read_to[shard] = position
                .as_ref()
                .map_or(0, |position| position.sequence.parse().expect("small"));
            let name = shard_name(shard).as_str().into();
            let index = self.delivery.add_shard(name, position, chain, None, None);
            assert_eq!(
                index,
                ShardIndex {
                    slot: shard,
                    generation: 0
                }
            );
        }
    }

    fn answer(&mut self, shard: usize, records: &[(u8, u16)]) {
        for (key, size) in records {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let record = record(sequence, &format!("key-{key}"), usize::from(*size));
            self.shards[shard].insert(sequence, record);
        }
        // At most as many as an answer may hold, so that what a crash left is read in other portions.
        let unread: Vec<_> = self.shards[shard]
            .range(self.read_to[shard] + 1..)
            .take(7)
            .map(|(_, record)| record.clone())
            .collect();
        if let Some(last) = unread.last() {
            self.read_to[shard] = last.sequence.parse().expect("small");
        }
        self.delivery
            .accept(
                ShardIndex {
                    slot: shard,
                    generation: 0,
                },
                &unread,
                on(0),
                self.now,
            )
            .expect("accepted");
    }

    fn append(&mut self) {
        if let Some((partition, batch)) = self.delivery.next_append() {
            let before = self.in_flight.insert(partition, batch);
            assert!(before.is_none(), "two appends in flight on one partition");
        }
    }

    fn store(&mut self, pick: usize) -> Option<PartitionId> {
        let partitions: Vec<_> = self.in_flight.keys().copied().collect();
        let partition = *partitions.get(pick % partitions.len().max(1))?;
        let batch = self.in_flight.remove(&partition)?;
        for (key, _) in unpack(&batch) {
            let origin = Origin::parse(key.as_bytes()).expect("an origin");
            assert_eq!(topic_partition(origin.partition_key, 4), partition);
            let shard: usize = origin.shard[8..].parse().expect("a number");
            let sequence = origin.sequence.as_str().parse().expect("small");
            // A replay repeats the origin to the letter, ordinal included.
            let first = self
                .ordinals
                .entry((shard, sequence))
                .or_insert(key.clone());
            assert_eq!(*first, key);
            self.topic.entry(partition).or_default().push(key);
        }
        Some(partition)
    }

    fn check(&self) {
        for shard in 0..3 {
            let Some(position) = &self
                .delivery
                .durable(ShardIndex {
                    slot: shard,
                    generation: 0,
                })
                .position
            else {
                continue;
            };
            let upto: u64 = position.sequence.parse().expect("small");
            for sequence in self.shards[shard]
                .range(..=upto)
                .map(|(sequence, _)| *sequence)
            {
                assert!(
                    self.ordinals.contains_key(&(shard, sequence)),
                    "shard {shard} is durable to {upto}, but {sequence} is not in the topic"
                );
            }
        }
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            for shard in 0..3 {
                self.answer(shard, &[]);
            }
            self.delivery.seal_all();
            self.append();
            if let Some(partition) = self.store(0) {
                self.delivery.appended(partition, 0);
            } else if self.delivery.is_empty() {
                break;
            }
        }
        for (shard, records) in self.shards.iter().enumerate() {
            for sequence in records.keys() {
                assert!(
                    self.ordinals.contains_key(&(shard, *sequence)),
                    "lost {sequence}"
                );
            }
        }
        // Without repetitions, each chain counts from 0 without a hole, in order.
        for keys in self.topic.values() {
            let mut next: BTreeMap<String, u64> = BTreeMap::new();
            for key in keys {
                let origin = Origin::parse(key.as_bytes()).expect("an origin");
                let expected = next.entry(origin.shard.to_owned()).or_default();
                assert!(origin.chain.ordinal <= *expected, "hole before {key}");
                *expected = (*expected).max(origin.chain.ordinal + 1);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_undurable_is_passed_nothing_is_lost_and_replays_repeat_ordinals(
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Answer(shard, records) => world.answer(shard, &records),
                Step::SealDue(ms) => {
                    world.now += Duration::from_millis(ms);
                    world.delivery.seal_due(world.now);
                }
                Step::Append => world.append(),
                Step::Acknowledge(pick) => {
                    if let Some(partition) = world.store(pick) {
                        world.delivery.appended(partition, 0);
                    }
                }
                // A failed append may have been stored all the same, or not.
                Step::Fail(pick) => {
                    let keys: Vec<_> = world.in_flight.keys().copied().collect();
                    if let Some(partition) = keys.get(pick) {
                        if pick % 2 == 0 {
                            world.store(pick);
                        } else {
                            world.in_flight.remove(partition);
                        }
                        world.delivery.append_failed(*partition);
                    }
                }
                Step::Crash => {
                    for index in world.delivery.take_changed() {
                        let durable = world.delivery.durable(index);
                        world.saved[index.slot] = (durable.position.clone(), durable.chain.clone());
                    }
                    world.start();
                }
            }
            world.check();
        }
        world.finish();
    }
}

/// Bytes that a batch takes, used or not.
fn taken(batch: StoredBatch) -> usize {
    Vec::<u8>::from(batch.raw).capacity()
}

#[test]
fn a_batch_is_given_room_once_it_has_grown_and_gives_back_what_it_did_not_use() {
    let (mut delivery, shard) = delivery(1, 1 << 20);
    let now = Instant::now();
    let mut sequence = 0;
    let mut put = |delivery: &mut Delivery, bytes: usize| {
        let records: Vec<StreamRecord> = (0..bytes / 200)
            .map(|_| {
                sequence += 1;
                record(sequence, "k", 200)
            })
            .collect();
        let taken_in = delivery.accept(shard, &records, on(1), now);
        taken_in.expect("accepted");
    };
    let room = |delivery: &mut Delivery| {
        let open = std::mem::take(&mut delivery.partitions[0].open);
        open.finish().capacity()
    };
    put(&mut delivery, 1_000);
    assert!(room(&mut delivery) < 8 << 10, "a handful of events");
    put(&mut delivery, GROWN_BYTES);
    put(&mut delivery, 1_000);
    assert_eq!(room(&mut delivery), 1 << 20, "all of it at once");

    // One that is sealed before it is full.
    put(&mut delivery, GROWN_BYTES);
    put(&mut delivery, 1_000);
    delivery.seal_all();
    let (_, batch) = delivery.next_append().expect("a batch");
    let used = batch.raw.len();
    delivery.appended(0, 1);
    let taken = taken(batch);
    assert!(taken <= 2 * used, "{taken} for {used}");
}

#[test]
fn open_batches_of_many_partitions_take_no_more_than_may_be_buffered() {
    let partitions = 64;
    let (mut delivery, shard) = delivery(partitions, 1 << 20);
    let now = Instant::now();
    let mut sequence = 0;
    while delivery
        .partitions
        .iter()
        .any(|partition| partition.open.raw_len() < GROWN_BYTES + 1_000)
    {
        sequence += 1;
        let event = record(sequence, &format!("key-{sequence}"), 1_000);
        let taken_in = delivery.accept(shard, &[event], on(1), now);
        taken_in.expect("accepted");
    }
    // 16 KiB each is the share of what may be buffered: these have grown beyond it by themselves, as they must.
    let (mut taken, mut used) = (0, 0);
    for partition in &mut delivery.partitions {
        used += partition.open.raw_len();
        taken += std::mem::take(&mut partition.open).finish().capacity();
    }
    assert!(taken <= 2 * used, "{taken} for {used}");
}

#[test]
fn a_batch_has_events_of_so_many_shards_at_most() {
    use crate::limits::MAX_SHARDS_PER_BATCH;
    let mut delivery = Delivery::new("events", 1, batching(8 << 20), Aggregated::Off);
    let now = Instant::now();
    let count = MAX_SHARDS_PER_BATCH as u64 + 10;
    for number in 0..count {
        let id = format!("shardId-{number:012}").as_str().into();
        let shard = delivery.add_shard(id, None, chain(), None, None);
        let records = [record(2 * number, "k", 1), record(2 * number + 1, "k", 1)];
        delivery
            .accept(shard, &records, on(1), now)
            .expect("accepted");
    }
    delivery.seal_due(now + Duration::from_millis(250));
    let (_, first) = delivery.next_append().expect("a batch");
    let shards: std::collections::BTreeSet<String> = unpack(&first)
        .iter()
        .map(|(origin, _)| origin.split('/').nth(2).expect("a shard").to_owned())
        .collect();
    assert_eq!(shards.len(), MAX_SHARDS_PER_BATCH);
}

#[test]
fn shards_that_begin_again_and_again_take_no_more_places() {
    for awaits in [false, true] {
        let mut delivery = Delivery::new("events", 2, batching(1), Aggregated::Off);
        if awaits {
            delivery = delivery.awaiting_release();
        }
        let now = Instant::now();
        let mut end = 0;
        let mut before: Vec<ShardIndex> = Vec::new();
        for life in 0..1_000 {
            let last = before.last().copied();
            delivery.retain(|index| Some(index) == last);
            let chain = ChainState {
                epoch: life,
                next_ordinals: vec![0, 0],
            };
            let index = delivery.add_shard("shard".into(), None, chain, None, None);
            // A message of the one before, which comes late, is not taken for one of this.
            assert!(before.iter().all(|other| *other != index));
            assert!(delivery.is_current(index));
            let given_up = before.iter().filter(|other| !delivery.is_current(**other));
            assert!(given_up.count() + 8 > before.len(), "life {life}");
            delivery
                .accept(index, &[record(1_000 + life, "k", 5)], on(0), now)
                .expect("numbers");
            // Of what is on its way nothing is given up.
            if life % 4 == 3 {
                while let Some((partition, batch)) = delivery.next_append() {
                    end += u64::from(batch.record_count);
                    delivery.appended(partition, end);
                    delivery.released(partition, end);
                }
                delivery.take_changed();
            }
            let durable = delivery.durable(index).position.is_some();
            assert_eq!(durable, life % 4 == 3, "life {life}");
            before.push(index);
        }
        assert!(delivery.shards.len() <= 8, "{}", delivery.shards.len());
    }
}

#[test]
fn an_aggregated_record_of_tiny_events_grows_no_more_than_is_reckoned_with() {
    let mut record = AggregateBuilder::default();
    while record.max_bytes() < 1 << 20 {
        record.push("k", None, Bytes::new());
    }
    let count = record.len();
    let record = StreamRecord {
        sequence: "49".repeat(28),
        partition_key: "k".to_owned(),
        arrival_ms: Some(EPOCH as i64),
        data: record.finish().into(),
    };
    let mut delivery = Delivery::new("events", 1, batching(1 << 20), Aggregated::Auto);
    let chain = ChainState {
        epoch: EPOCH,
        next_ordinals: vec![0],
    };
    let shard = "shardId-000000000000".into();
    let index = delivery.add_shard(shard, None, chain, None, None);
    let bytes = record.data.as_ref().len();
    let accepted = delivery
        .accept(index, &[record], on(0), Instant::now())
        .expect("numbers");
    assert_eq!(accepted.events, count as u64);
    let grown = delivery.buffered_bytes();
    assert!(grown > 16 * bytes, "{grown} of {bytes}");
    assert!(grown <= TAKEN_APART_RATIO * bytes, "{grown} of {bytes}");
}
