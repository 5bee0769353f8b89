//! What tests and benches share: seeded batches, and the module under the engine.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub mod unpack;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fluvio_smartengine::{
    SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig,
};
use fluvio_smartmodule::dataplane::smartmodule::{
    SmartModuleExtraParams, SmartModuleInput, SmartModuleOutput,
};
use millpond_format::origin::{ChainLink, Origin};
use millpond_format::record::BatchBuilder;
use millpond_format::sequence::SequenceNumber;
use millpond_pack::{PackedRecord, Packer, Params};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Arrival time of the first event of every batch.
pub const START_MS: i64 = 1_763_886_000_123;

/// First topic offset of every batch.
pub const BASE_OFFSET: u64 = 4_711;

/// Parameters from pairs.
pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A native packer.
pub fn packer(pairs: &[(&str, &str)]) -> Packer {
    Packer::new(Params::from_map(&map(pairs)).expect("valid parameters")).expect("zstd context")
}

/// Origin key of event `ordinal` of shard `shard`.
pub fn origin_key(shard: u32, ordinal: u64, partition_key: &str) -> String {
    let shard_id = format!("shardId-{shard:012}");
    let sequence = format!(
        "4959033827149025660855969253836157109592157598{:010}",
        ordinal * 7 + 1_000_000_000
    );
    let mut key = String::new();
    Origin {
        stream: "events",
        shard: &shard_id,
        sequence: SequenceNumber::parse(&sequence).expect("canonical"),
        sub_sequence: 0,
        arrival_ms: START_MS + ordinal as i64,
        chain: ChainLink {
            epoch: 1_763_885_999_000,
            ordinal,
        },
        partition_key,
    }
    .write_to(&mut key);
    key
}

/// One JSON event of about `bytes` bytes in the shape of an analytics job's.
pub fn json_event(rng: &mut SmallRng, job: u32, number: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!(
        "{{\"job_id\":\"job-{job:04}\",\"event_id\":\"{:016x}{:016x}\",\"time\":{},\"kind\":\"{}\",\"worker\":{}",
        rng.random::<u64>(),
        rng.random::<u64>(),
        START_MS + number as i64,
        ["entity.scored", "entity.matched", "entity.skipped"][rng.random_range(0..3)],
        rng.random_range(0..32),
    );
    let mut entity = 0;
    while text.len() + 64 < bytes {
        entity += 1;
        let _ = write!(
            text,
            ",\"entity_{entity}\":{{\"id\":{},\"score\":{:.4},\"label\":\"{}\"}}",
            rng.random_range(1_000_000..9_999_999u32),
            rng.random::<f64>(),
            ["customer", "product", "session", "account"][rng.random_range(0..4)],
        );
    }
    let _ = write!(text, ",\"note\":\"");
    while text.len() + 2 < bytes {
        text.push(char::from(b'a' + rng.random_range(0..4)));
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// A batch of JSON events of `event_bytes` in `groups` groups, from four shards.
pub fn json_batch(seed: u64, batch_bytes: usize, event_bytes: usize, groups: u32) -> Vec<u8> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut batch = BatchBuilder::new();
    let mut number = 0;
    while batch.raw_len() < batch_bytes {
        let job = rng.random_range(0..groups);
        let value = json_event(&mut rng, job, number, event_bytes);
        let key = origin_key((number / 100 % 4) as u32, number, &format!("job-{job:04}"));
        batch.push(Some(key.as_bytes()), &value, START_MS + number as i64);
        number += 1;
    }
    batch.finish()
}

/// The engine's input for a batch.
pub fn input(raw: &[u8]) -> SmartModuleInput {
    SmartModuleInput::new(raw.to_vec(), BASE_OFFSET as i64, START_MS)
}

/// The module under Fluvio's engine.
pub struct Module {
    chain: SmartModuleChainInstance,
}

/// The versions of the call format that are in use: the client-side engine's, and the SPU's.
pub const VERSIONS: [i16; 2] = [22, 25];

impl Module {
    /// Loads the module; the error is the engine's.
    pub fn load(
        pairs: &[(&str, &str)],
        version: i16,
        memory_bytes: Option<usize>,
    ) -> Result<Self, String> {
        let config = SmartModuleConfig::builder()
            .smartmodule_names(&[millpond_pack::NAME.to_owned()])
            .params(SmartModuleExtraParams::from(map(pairs)))
            .version(version)
            .build()
            .expect("complete");
        let mut builder = SmartModuleChainBuilder::default();
        builder.add_smart_module(config, millpond_pack::WASM.to_vec());
        if let Some(bytes) = memory_bytes {
            builder.set_store_memory_limit(bytes);
        }
        let chain = builder
            .initialize(&SmartEngine::new())
            .map_err(|error| format!("{error:#}"))?;
        Ok(Self { chain })
    }

    /// One call, with whatever the engine gives back.
    pub fn call(&mut self, raw: &[u8]) -> SmartModuleOutput {
        self.call_with(input(raw))
    }

    /// One call with an input that is ready.
    pub fn call_with(&mut self, input: SmartModuleInput) -> SmartModuleOutput {
        self.chain.process(input).expect("the module answers")
    }

    /// True when the batch was packed; false when the engine ended the call.
    pub fn try_pack(&mut self, raw: &[u8]) -> bool {
        self.chain
            .process(input(raw))
            .is_ok_and(|output| output.error.is_none())
    }

    /// One call that must succeed.
    pub fn pack(&mut self, raw: &[u8]) -> Vec<PackedRecord> {
        let output = self.call(raw);
        assert_eq!(output.error, None);
        output
            .successes
            .into_iter()
            .map(|record| PackedRecord {
                key: record.key.map(|key| key.into_vec()).unwrap_or_default(),
                value: record.value.into_vec(),
            })
            .collect()
    }
}
