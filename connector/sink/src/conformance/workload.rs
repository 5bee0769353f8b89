//! A seeded workload of one topic partition: several shards and jobs, poison, large events, and
//! batches sent again as a source does after a crash.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::topic::{KeyValue, MemoryTopic};

/// Shape of a workload.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Batches that are sent.
    pub batches: usize,
    /// Shards that they come from.
    pub shards: usize,
    /// Jobs that the events belong to.
    pub jobs: usize,
    /// Chance in percent that a batch is preceded by a step back.
    pub repeats: u32,
    /// Chance in percent that an event is not JSON.
    pub poison: u32,
    /// Chance in percent that an event is larger than an item.
    pub large: u32,
    /// Events have much in common, as those of an application do; else they are noise.
    pub alike: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            batches: 40,
            shards: 3,
            jobs: 4,
            repeats: 20,
            poison: 2,
            large: 1,
            alike: false,
        }
    }
}

/// An event as the stream holds it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Kinesis partition key.
    pub partition_key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// Sequence number.
    pub sequence: u64,
    /// Arrival time, milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// True when it is not JSON.
    pub is_poison: bool,
}

struct Shard {
    name: String,
    events: Vec<Event>,
    /// Next event to send.
    next: usize,
    epoch: u64,
    /// Event that has ordinal 0 in this epoch.
    epoch_start: usize,
    /// One past the last event ever sent.
    sent: usize,
}

/// A workload: what was sent, and what comes next.
pub struct Workload {
    random: SmallRng,
    shape: Shape,
    shards: Vec<Shard>,
}

impl Workload {
    /// The workload of a seed; nothing is sent yet.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        let shards = (0..shape.shards).map(|number| Shard {
            name: format!("shardId-{number:012}"),
            events: Vec::new(),
            next: 0,
            epoch: 1_763_880_000_000,
            epoch_start: 0,
            sent: 0,
        });
        Self {
            random: SmallRng::seed_from_u64(seed),
            shape,
            shards: shards.collect(),
        }
    }

    /// Appends one batch to the topic.
    pub fn send(&mut self, topic: &MemoryTopic) {
        let records = self.batch();
        topic.push(&records);
    }

    fn batch(&mut self) -> Vec<KeyValue> {
        let mut records = Vec::new();
        while records.is_empty() {
            for shard in 0..self.shards.len() {
                if self.random.random_range(0..100) < 60 {
                    self.run(shard, &mut records);
                }
            }
        }
        records
    }

    fn run(&mut self, number: usize, records: &mut Vec<KeyValue>) {
        let Shape {
            jobs,
            repeats,
            poison,
            large,
            alike,
            ..
        } = self.shape;
        let shard = &mut self.shards[number];
        if self.random.random_range(0..100) < repeats {
            let back = self.random.random_range(0..40usize);
            if self.random.random_range(0..100) < 30 {
                shard.next = shard.next.saturating_sub(back);
                shard.epoch += 1_000;
                shard.epoch_start = shard.next;
            } else {
                shard.next = shard.next.saturating_sub(back).max(shard.epoch_start);
            }
        }
        for _ in 0..self.random.random_range(1..30) {
            let index = shard.next;
            if index == shard.events.len() {
                let event = event(
                    &mut self.random,
                    number,
                    index,
                    jobs,
                    (poison, large, alike),
                );
                shard.events.push(event);
            }
            let event = &shard.events[index];
            let key = format!(
                "mp1/stream/{}/{}/0/{}/{}.{}/{}",
                shard.name,
                event.sequence,
                event.arrival_ms,
                shard.epoch,
                index - shard.epoch_start,
                event.partition_key
            );
            records.push((key, event.value.clone()));
            shard.next += 1;
            shard.sent = shard.sent.max(shard.next);
        }
    }

    /// Every event ever sent, once, by shard and in order.
    pub fn sent(&self) -> impl Iterator<Item = &Event> {
        self.shards
            .iter()
            .flat_map(|shard| &shard.events[..shard.sent])
    }
}

fn event(
    random: &mut SmallRng,
    shard: usize,
    index: usize,
    jobs: usize,
    (poison, large, alike): (u32, u32, bool),
) -> Event {
    let job = random.random_range(0..jobs);
    let partition_key = format!("key-{shard}-{}", random.random_range(0..3));
    let arrival_ms = 1_763_886_000_000 + index as i64 * 7 - random.random_range(0..50);
    let roll = random.random_range(0..100);
    let (value, is_poison) = if roll < poison {
        (format!("no json {shard}-{index}").into_bytes(), true)
    } else {
        let length = match roll < poison + large {
            true => random.random_range(20_000..60_000),
            false => random.random_range(10..500),
        };
        // Hexadecimal digits compress by about half: large events take several items.
        let pad: String = match alike && length < 500 {
            true => words(random, length),
            false => (0..length)
                .map(|_| char::from(random.random_range(b'a'..=b'z')))
                .collect(),
        };
        let text =
            format!("{{\"id\":\"{shard}-{index}\",\"job\":\"job-{job}\",\"pad\":\"{pad}\"}}");
        (text.into_bytes(), false)
    };
    Event {
        partition_key,
        value,
        sequence: 4_959_033_827_149_025 + index as u64 * 3,
        arrival_ms,
        is_poison,
    }
}

/// About so many bytes of a few words.
fn words(random: &mut SmallRng, length: usize) -> String {
    const WORDS: [&str; 8] = [
        "the amount is far above the baseline of the last ninety days",
        "first seen from this device",
        "several accounts share the address",
        "held by an analyst and released after a second review",
        "name similarity is below the threshold of the tenant",
        "region=eu-west-1 model=risk-gbm-7.3.1",
        "region=us-east-1 model=linkage-v12",
        "lookup timed out and the previous value was used",
    ];
    let mut text = String::new();
    while text.len() < length {
        text.push_str(WORDS[random.random_range(0..WORDS.len())]);
        text.push_str(&format!("; {};", random.random_range(0..1_000)));
    }
    text
}
