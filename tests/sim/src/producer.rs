//! Puts events into the stream, and reshards it while it does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_kinesis_local::model::NewRecord;
use millpond_kinesis_source::aggregate::AggregateBuilder;

use crate::dice::mix;
use crate::dictionaries::common;
use crate::oracle::{Event, Fate};
use crate::scenario::{Fault, MAX_ITEM_BYTES, Mode, is_removed};
use crate::stream::descriptions;
use crate::world::{NAME, World, lock};

/// Puts all events of the scenario.
pub async fn produce(world: Arc<World>) {
    let mut put = 0;
    while put < world.scenario.events {
        let ms = world.dice.between("gap", 0, world.scenario.gap_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if world.fault(Fault::Reshard, "stream") {
            reshard(&world);
        }
        if world.fault(Fault::PowerCut, "all") {
            world.power_cut();
        }
        let key = format!("key-{}", world.dice.below("key", world.scenario.keys));
        let many = world.scenario.aggregates && world.dice.chance("aggregate", 400);
        let count = if many {
            world.dice.between("aggregated", 1, 5) as usize
        } else {
            1
        };
        put_record(&world, &key, put, count, many);
        put += count;
    }
    world.note("producer: done");
}

fn put_record(world: &World, key: &str, first: usize, count: usize, aggregated: bool) {
    let made: Vec<_> = (first..first + count)
        .map(|number| event(world, number, key))
        .collect();
    let data = if aggregated {
        let mut builder = AggregateBuilder::default();
        for (value, _) in &made {
            builder.push(key, None, value.clone());
        }
        Bytes::from(builder.finish())
    } else {
        made[0].0.clone()
    };
    let placed = NewRecord::new(key, None, data).and_then(|record| {
        world.with_stream(|stream, now| stream.put_record(now, NAME, record, None))
    });
    let placed = match placed {
        Ok(placed) => placed,
        Err(error) => return world.violate("producer", error.to_string()),
    };
    let shard = placed.shard_id.to_string();
    let sequence = placed.sequence_number.to_string();
    world.note(format!(
        "producer: events {first}+{count} of {key} at {shard} {sequence}"
    ));
    let events = made.into_iter().map(|(value, fates)| Event {
        key: key.to_owned(),
        fates,
        value,
        shard: shard.clone(),
        durable: false,
        settled: false,
    });
    lock(&world.oracle).accepted(&sequence, events.collect());
}

/// An event, and what is to become of it with each configuration.
fn event(world: &World, number: usize, key: &str) -> (Bytes, [Fate; 2]) {
    let job = format!("job-{}", world.dice.below("job", world.scenario.jobs));
    let kind = world.dice.below("kind of event", 100);
    let length = match kind {
        0..2 => world
            .dice
            .between("large", MAX_ITEM_BYTES as u64, 3 * MAX_ITEM_BYTES as u64),
        _ => world.dice.between("small", 0, 300),
    };
    let seed = world.dice.roll("pad");
    // Eight letters of each number: little to compress, and cheap.
    let pad: String = match world.scenario.alike && length <= 300 {
        true => common(seed, length as usize),
        false => (0..length)
            .map(|at| {
                let letters = mix(seed ^ (at / 8)).to_le_bytes();
                char::from(b'a' + letters[(at % 8) as usize] % 26)
            })
            .collect(),
    };
    let (text, job) = match kind {
        2 | 3 => (String::new(), Err("not-json")),
        4 | 5 => (format!("no json {number} {pad}"), Err("not-json")),
        6 => (
            format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"),
            Err("group-missing"),
        ),
        _ => (
            format!("{{\"n\":{number},\"job\":\"{job}\",\"pad\":\"{pad}\"}}"),
            Ok(job),
        ),
    };
    let fates = world.scenario.configs.map(|config| {
        if config.filter && is_removed(text.as_bytes()) {
            return Fate::Removed;
        }
        let group = match config.mode {
            // Its item would be too large, and nothing cuts it.
            Mode::Plain if length >= MAX_ITEM_BYTES as u64 => Err("too-large"),
            Mode::Plain | Mode::ByKey => Ok(key.to_owned()),
            Mode::ByJob => job.clone(),
            Mode::Constant => Ok("all".to_owned()),
        };
        group.map_or_else(Fate::Rejected, Fate::Grouped)
    });
    (Bytes::from(text), fates)
}

/// Splits a shard or merges two.
fn reshard(world: &World) {
    let dice = &world.dice;
    let done = world.with_stream(|stream, now| {
        let shards = descriptions(stream, now);
        *lock(&world.shards_before) = shards.clone();
        let mut open: Vec<_> = shards
            .iter()
            .filter(|shard| shard.ending_sequence_number.is_none())
            .collect();
        open.sort_by_key(|shard| shard.hash_key_range.start.0);
        let at = dice.below("which shard", open.len() as u64) as usize;
        if open.len() > 4 || (open.len() > 1 && dice.chance("merge", 500)) {
            let at = at.min(open.len() - 2);
            let (low, high) = (open[at].shard_id, open[at + 1].shard_id);
            stream.merge_shards(now, NAME, low, high)?;
            return Ok(format!("{low} and {high} are merged"));
        }
        let range = open[at].hash_key_range;
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        stream.split_shard(now, NAME, open[at].shard_id, &middle.to_string())?;
        Ok(format!("{} is split", open[at].shard_id))
    });
    match done {
        Ok(what) => world.note(format!("stream: {what}")),
        Err(error) => world.note(format!("stream: no reshard: {error}")),
    }
    world.learn_shards();
}
