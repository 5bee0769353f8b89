//! What holds in the model after any history.

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_kinesis_local::model::{
    CreateStream, HashKey, IteratorStart, Kinesis, ListShardsQuery, ModelConfig, NewRecord,
    ReadLimits, ShardDescription, ShardFilter, ShardId, WriteLimits,
};
use proptest::{prelude::*, sample::Index};

const START_MS: u64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<(u128, u16)>),
    Split(Index, u16),
    Merge(Index),
    Count(u32),
    Wait(u16),
    Read(Index, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec((any::<u128>(), 0u16..2_000), 1..20).prop_map(Step::Put),
        2 => (any::<Index>(), any::<u16>()).prop_map(|(shard, at)| Step::Split(shard, at)),
        2 => any::<Index>().prop_map(Step::Merge),
        1 => (1u32..12).prop_map(Step::Count),
        2 => any::<u16>().prop_map(Step::Wait),
        4 => (any::<Index>(), 1u16..50).prop_map(|(shard, limit)| Step::Read(shard, limit)),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..60)
}

/// A model, a consumer of all its shards, and a record of everything that was answered.
struct Run {
    kinesis: Kinesis,
    now_ms: u64,
    puts: BTreeMap<ShardId, Vec<u64>>,
    reads: BTreeMap<ShardId, Vec<u64>>,
    /// Where each shard is read next; `None` once it has ended.
    iterators: BTreeMap<ShardId, Option<String>>,
    next_value: u64,
    answers: Vec<String>,
}

impl Run {
    fn new(shards: u32, config: ModelConfig, seed: u64) -> Self {
        let mut kinesis = Kinesis::new(config, seed);
        kinesis
            .create_stream(START_MS, "s", CreateStream::provisioned(shards))
            .unwrap();
        Self {
            kinesis,
            now_ms: START_MS,
            puts: BTreeMap::new(),
            reads: BTreeMap::new(),
            iterators: (0..shards).map(|id| (ShardId::new(id), None)).collect(),
            next_value: 0,
            answers: Vec::new(),
        }
        .started()
    }

    fn started(mut self) -> Self {
        for id in self.iterators.keys().copied().collect::<Vec<_>>() {
            self.open(id);
        }
        self
    }

    fn open(&mut self, id: ShardId) {
        let start = self
            .kinesis
            .get_shard_iterator(self.now_ms, "s", id, IteratorStart::TrimHorizon)
            .unwrap();
        self.iterators.insert(id, Some(start));
    }

    fn shards(&mut self, filter: ShardFilter) -> Vec<ShardDescription> {
        let query = ListShardsQuery::First {
            stream_name: "s",
            filter,
            exclusive_start: None,
        };
        self.kinesis
            .list_shards(self.now_ms, query, None)
            .unwrap()
            .shards
    }

    fn open_by_range(&mut self) -> Vec<ShardDescription> {
        let mut open = self.shards(ShardFilter::AtLatest);
        open.sort_by_key(|shard| shard.hash_key_range.start);
        open
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(records) => self.put(records),
            Step::Split(shard, at) => {
                let open = self.shards(ShardFilter::AtLatest);
                let shard = &open[shard.index(open.len())];
                let range = shard.hash_key_range;
                let at = range.start.0 + (range.end.0 - range.start.0) / 65_536 * u128::from(*at);
                let answer =
                    self.kinesis
                        .split_shard(self.now_ms, "s", shard.shard_id, &at.to_string());
                self.answers.push(format!("{answer:?}"));
            }
            Step::Merge(pair) => {
                let open = self.open_by_range();
                if open.len() > 1 {
                    let at = pair.index(open.len() - 1);
                    let (first, second) = (open[at].shard_id, open[at + 1].shard_id);
                    self.kinesis
                        .merge_shards(self.now_ms, "s", first, second)
                        .unwrap();
                }
            }
            Step::Count(target) => {
                let answer = self.kinesis.update_shard_count(self.now_ms, "s", *target);
                self.answers.push(format!("{answer:?}"));
            }
            Step::Wait(ms) => self.now_ms += u64::from(*ms),
            Step::Read(shard, limit) => {
                let ids: Vec<_> = self
                    .iterators
                    .iter()
                    .filter(|(_, next)| next.is_some())
                    .map(|(id, _)| *id)
                    .collect();
                self.read(ids[shard.index(ids.len())], usize::from(*limit));
            }
        }
    }

    fn put(&mut self, records: &[(u128, u16)]) {
        let first = self.next_value;
        self.next_value += records.len() as u64;
        let records: Vec<_> = records
            .iter()
            .zip(first..)
            .map(|((hash_key, padding), value)| {
                let mut data = value.to_be_bytes().to_vec();
                data.resize(8 + usize::from(*padding), 0);
                NewRecord::new("k", Some(&hash_key.to_string()), Bytes::from(data)).unwrap()
            })
            .collect();
        let hash_keys: Vec<_> = records.iter().map(|record| record.hash_key).collect();
        let placed = self.kinesis.put_records(self.now_ms, "s", records).unwrap();
        self.answers.push(format!("{placed:?}"));
        let open = self.shards(ShardFilter::AtLatest);
        for ((placed, value), hash_key) in placed.into_iter().zip(first..).zip(hash_keys) {
            if let Ok(placed) = placed {
                let shard = open
                    .iter()
                    .find(|shard| shard.shard_id == placed.shard_id)
                    .unwrap();
                assert!(shard.hash_key_range.contains(hash_key));
                self.puts.entry(placed.shard_id).or_default().push(value);
            }
        }
    }

    /// Reads a page, refreshing an expired iterator as a consumer would: after the last record seen.
    fn read(&mut self, id: ShardId, limit: usize) {
        let current = self.iterators[&id].clone().unwrap();
        let Ok(page) = self.kinesis.get_records(self.now_ms, &current, Some(limit)) else {
            self.answers.push("refused".to_owned());
            return;
        };
        self.answers.push(format!("{page:?}"));
        assert!(page.records.len() <= limit);
        let values = page
            .records
            .iter()
            .map(|record| u64::from_be_bytes(record.payload.data[..8].try_into().unwrap()));
        self.reads.entry(id).or_default().extend(values);
        for child in &page.child_shards {
            if !self.iterators.contains_key(&child.shard_id) {
                self.open(child.shard_id);
            }
        }
        let ended = page.next_shard_iterator.is_none();
        assert_eq!(ended, !page.child_shards.is_empty());
        assert!(!ended || page.millis_behind_latest == 0);
        self.iterators.insert(id, page.next_shard_iterator);
    }

    /// Reads until every shard has ended or is caught up.
    fn drain(&mut self) {
        loop {
            let before = (self.reads.clone(), self.iterators.len());
            let open: Vec<_> = self
                .iterators
                .iter()
                .filter(|(_, next)| next.is_some())
                .map(|(id, _)| *id)
                .collect();
            for id in open {
                self.read(id, 1_000);
            }
            if before == (self.reads.clone(), self.iterators.len()) {
                return;
            }
        }
    }
}

fn check_ranges(open: &[ShardDescription]) {
    assert_eq!(open[0].hash_key_range.start, HashKey::MIN);
    assert_eq!(open.last().unwrap().hash_key_range.end, HashKey::MAX);
    for pair in open.windows(2) {
        assert_eq!(
            pair[0].hash_key_range.end.0 + 1,
            pair[1].hash_key_range.start.0
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn open_shards_always_cover_the_hash_space(shards in 1u32..6, history in history()) {
        let mut run = Run::new(shards, ModelConfig::default(), 1);
        for step in &history {
            run.step(step);
            check_ranges(&run.open_by_range());
        }
    }

    #[test]
    fn children_begin_where_their_parents_end(shards in 1u32..6, history in history()) {
        let mut run = Run::new(shards, ModelConfig::default(), 2);
        for step in &history {
            run.step(step);
        }
        let all: BTreeMap<_, _> =
            run.shards(ShardFilter::FromTrimHorizon).into_iter().map(|shard| (shard.shard_id, shard)).collect();
        for shard in all.values() {
            for parent in shard.parent_shard_id.iter().chain(&shard.adjacent_parent_shard_id) {
                let ended = all[parent].ending_sequence_number.expect("a parent is closed");
                prop_assert!(ended < shard.starting_sequence_number);
                prop_assert!(*parent < shard.shard_id);
            }
            prop_assert_ne!(shard.parent_shard_id, Some(shard.shard_id));
        }
    }

    #[test]
    fn sequence_numbers_grow_within_their_shards_bounds(shards in 1u32..6, history in history()) {
        let mut run = Run::new(shards, ModelConfig::default(), 3);
        for step in &history {
            run.step(step);
        }
        for shard in run.shards(ShardFilter::FromTrimHorizon) {
            let start = IteratorStart::TrimHorizon;
            let start = run.kinesis.get_shard_iterator(run.now_ms, "s", shard.shard_id, start).unwrap();
            let records = run.kinesis.get_records(run.now_ms, &start, None).unwrap().records;
            let mut previous = shard.starting_sequence_number;
            for record in records {
                prop_assert!(previous < record.sequence_number);
                prop_assert!(previous.to_string() < record.sequence_number.to_string());
                previous = record.sequence_number;
            }
            prop_assert!(shard.ending_sequence_number.is_none_or(|end| previous < end));
        }
    }

    #[test]
    fn a_consumer_sees_every_record_once_and_in_order(shards in 1u32..6, history in history()) {
        let mut run = Run::new(shards, ModelConfig::default(), 4);
        for step in &history {
            run.step(step);
        }
        // Iterators may have expired on the way: a consumer asks again from where it was,
        // which the values tell here.
        for (id, next) in run.iterators.clone() {
            if next.is_some() {
                let seen = run.reads.get(&id).map_or(0, Vec::len);
                let start = run.kinesis
                    .get_shard_iterator(run.now_ms, "s", id, IteratorStart::TrimHorizon).unwrap();
                let skipped = run.kinesis.get_records(run.now_ms, &start, Some(seen.max(1))).unwrap();
                let again = match skipped.records.get(seen.wrapping_sub(1)) {
                    Some(last) => {
                        let after = last.sequence_number.to_string();
                        let start = IteratorStart::AfterSequenceNumber(&after);
                        run.kinesis.get_shard_iterator(run.now_ms, "s", id, start).unwrap()
                    }
                    None => start,
                };
                run.iterators.insert(id, Some(again));
            }
        }
        run.drain();
        prop_assert_eq!(&run.reads.into_iter().filter(|(_, values)| !values.is_empty()).collect::<BTreeMap<_, _>>(), &run.puts);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(shards in 1u32..6, history in history(), seed: u64) {
        let config = ModelConfig {
            write_limits: Some(WriteLimits { bytes_per_second: 5_000, records_per_second: 20 }),
            read_limits: Some(ReadLimits::default()),
            ..ModelConfig::default()
        };
        let answers = |seed| {
            let mut run = Run::new(shards, config.clone(), seed);
            for step in &history {
                run.step(step);
            }
            let shards = run.shards(ShardFilter::FromTrimHorizon);
            run.answers.push(format!("{shards:?}"));
            run.answers.push(format!("{:?}", run.iterators));
            (run.answers, run.puts)
        };
        let first = answers(seed);
        prop_assert_eq!(&first, &answers(seed));
        let other = answers(seed.wrapping_add(1));
        prop_assert_ne!(&first.0, &other.0, "the seed shows in the iterators");
        prop_assert_eq!(first.1, other.1, "but not in the routing");
    }

    #[test]
    fn no_second_takes_more_than_a_shards_limit(
        puts in proptest::collection::vec((0u64..300, 1usize..120, 0usize..40_000), 1..80)
    ) {
        let limits = WriteLimits { bytes_per_second: 100_000, records_per_second: 50 };
        let config = ModelConfig { write_limits: Some(limits), ..ModelConfig::default() };
        let mut kinesis = Kinesis::new(config, 5);
        kinesis.create_stream(START_MS, "s", CreateStream::provisioned(1)).unwrap();
        let mut now_ms = START_MS;
        let mut stored: Vec<(u64, u64)> = Vec::new();
        for (wait_ms, count, bytes) in puts {
            now_ms += wait_ms;
            let records = vec![NewRecord::new("k", None, vec![0; bytes]).unwrap(); count];
            let answers = kinesis.put_records(now_ms, "s", records).unwrap();
            let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
            prop_assert!(accepted > 0 || !stored.is_empty());
            stored.extend(std::iter::repeat_n((now_ms, bytes as u64 + 1), accepted));
        }
        for (index, (start_ms, _)) in stored.iter().enumerate() {
            let second: Vec<_> = stored[index..].iter().take_while(|(at_ms, _)| *at_ms < start_ms + 1_000).collect();
            prop_assert!(second.len() as u64 <= limits.records_per_second);
            prop_assert!(second.iter().map(|(_, bytes)| bytes).sum::<u64>() <= limits.bytes_per_second);
        }
    }

    #[test]
    fn no_second_gives_more_than_a_shards_limit(
        reads in proptest::collection::vec((0u64..300, 1usize..400), 1..80)
    ) {
        let limits = ReadLimits { bytes_per_second: 100_000, calls_per_second: 5 };
        let config = ModelConfig { read_limits: Some(limits), ..ModelConfig::default() };
        let mut kinesis = Kinesis::new(config, 6);
        kinesis.create_stream(START_MS, "s", CreateStream::provisioned(1)).unwrap();
        for _ in 0..20 {
            let records = vec![NewRecord::new("k", None, vec![0; 999]).unwrap(); 500];
            kinesis.put_records(START_MS, "s", records).unwrap();
        }
        let mut next = kinesis
            .get_shard_iterator(START_MS, "s", ShardId::new(0), IteratorStart::TrimHorizon).unwrap();
        let mut now_ms = START_MS;
        let mut given: Vec<(u64, u64)> = Vec::new();
        for (wait_ms, limit) in reads {
            now_ms += wait_ms;
            if let Ok(page) = kinesis.get_records(now_ms, &next, Some(limit)) {
                given.push((now_ms, page.records.len() as u64 * 1_000));
                next = page.next_shard_iterator.unwrap();
            }
        }
        prop_assert!(!given.is_empty());
        for (index, (start_ms, first)) in given.iter().enumerate() {
            let second: Vec<_> = given[index..].iter().take_while(|(at_ms, _)| *at_ms < start_ms + 1_000).collect();
            prop_assert!(second.len() as u64 <= limits.calls_per_second);
            let bytes: u64 = second.iter().map(|(_, bytes)| bytes).sum();
            // One answer to an idle shard may be larger, and then nothing follows until it is paid for.
            prop_assert!(bytes <= limits.bytes_per_second || bytes == *first, "{second:?}");
        }
    }

    #[test]
    fn nothing_from_outside_makes_the_model_panic(
        name in ".{0,20}", key in ".{0,20}", hash in ".{0,45}", token in ".{0,80}", number in "[0-9]{0,60}",
        count: u32, at_ms: u64, now_ms: u64,
    ) {
        let mut kinesis = Kinesis::new(ModelConfig::default(), 7);
        kinesis.create_stream(START_MS, "s", CreateStream::provisioned(2)).unwrap();
        let create = CreateStream { shard_count: Some(count % 20), ..CreateStream::on_demand() };
        let _ = kinesis.create_stream(now_ms, &name, create);
        if let Ok(record) = NewRecord::new(&key, Some(&hash), "data") {
            let _ = kinesis.put_record(now_ms, "s", record, Some(&number));
        }
        let _ = kinesis.get_records(now_ms, &token, Some(count as usize));
        let _ = kinesis.get_shard_iterator(now_ms, "s", ShardId::new(0), IteratorStart::AtSequenceNumber(&number));
        let _ = kinesis.get_shard_iterator(now_ms, "s", ShardId::new(1), IteratorStart::AtTimestamp(at_ms));
        let _ = kinesis.split_shard(now_ms, "s", ShardId::new(count), &hash);
        let _ = kinesis.split_shard(now_ms, "s", ShardId::new(0), &number);
        let _ = kinesis.update_shard_count(now_ms, "s", count);
        let _ = kinesis.increase_retention(now_ms, "s", count);
        let _ = kinesis.list_shards(now_ms, ListShardsQuery::Next { next_token: &token }, Some(count as usize));
    }
}
