//! A seeded synthetic workload in the shape of an analytics platform: many jobs
//! run at once, and each emits immutable events about the entities it works on.
//!
//! Pure: an event is a function of [`Workload`] and its index alone, so whoever
//! reads events back can make each one again and compare.

use std::fmt::Write as _;

use crate::time::text_ms;

/// Workers per job; each has a partition key of its own.
pub const WORKERS_PER_JOB: u64 = 8;

/// Default number of events: about 64 MB.
pub const DEFAULT_EVENTS: u64 = 116_000;

/// A job slot takes up its next job after this many events of the whole workload.
const JOB_LENGTH: u64 = 400_000;

/// Events over which the same few jobs are busier than the rest.
const BURST_LENGTH: u64 = 6_000;

/// Jobs that share half of the load during a burst.
const BUSY_JOBS: u64 = 3;

/// Events per second of the workload's own clock.
const EVENTS_PER_SECOND: u64 = 25_000;

/// What makes one workload differ from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    seed: u64,
    start_ms: i64,
    jobs: u64,
}

/// One event and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Kinesis partition key: `<job id>/<worker>`.
    pub partition_key: String,
    /// The event: one JSON object of 200 to 1,000 bytes.
    pub data: String,
}

impl Event {
    /// Id of its job, as in the event itself: its group, with `group-by: /job_id`.
    #[must_use]
    pub fn job_id(&self) -> &str {
        let (job_id, _worker) = self.partition_key.split_once('/').unwrap_or_default();
        job_id
    }
}

impl Workload {
    /// A workload of `jobs` concurrent jobs whose clock starts at `start_ms`
    /// (milliseconds since the Unix epoch).
    #[must_use]
    pub fn new(seed: u64, start_ms: i64, jobs: u32) -> Self {
        Self {
            seed,
            start_ms,
            jobs: u64::from(jobs.max(1)),
        }
    }

    /// Makes event number `index`.
    #[must_use]
    pub fn event(&self, index: u64) -> Event {
        let mut random = Random::new(self.seed, index);
        let job = self.job(index, &mut random);
        let worker = random.below(WORKERS_PER_JOB);
        let mut data = String::with_capacity(1024);
        self.write_event(&mut data, index, &job, worker, &mut random);
        Event {
            partition_key: format!("{}/w{worker}", job.id),
            data,
        }
    }

    /// Reads an event's index out of its `event_id`; `None` if `data` is no event of this workload.
    #[must_use]
    pub fn index_of(&self, data: &[u8]) -> Option<u64> {
        const START: &[u8] = br#"{"event_id":"0"#;
        // `0<11 hex of time>-<16 hex>`: the second part is the index, mixed.
        let id = data.strip_prefix(START)?.get(12..28)?;
        let mixed = u64::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
        Some(unmix(mixed) ^ mix(self.seed))
    }

    /// Which job emits event `index`: half of the load goes to the few jobs of the current burst.
    fn job(&self, index: u64, random: &mut Random) -> Job {
        let slot = if random.below(2) == 0 {
            let busy = random.below(BUSY_JOBS);
            Random::new(self.seed ^ 0xb0b, index / BURST_LENGTH * BUSY_JOBS + busy).below(self.jobs)
        } else {
            random.below(self.jobs)
        };
        let offset = Random::new(self.seed ^ 0x0ff5e7, slot).below(JOB_LENGTH);
        let number = (index + offset) / JOB_LENGTH * self.jobs + slot;
        let traits = Random::new(self.seed ^ 0x10b, number).next();
        Job {
            id: format!("job-{number:04}-{:06x}", traits & 0xff_ffff),
            traits,
        }
    }

    fn write_event(
        &self,
        out: &mut String,
        index: u64,
        job: &Job,
        worker: u64,
        random: &mut Random,
    ) {
        let jitter = i64::from(random.below(40) as u32);
        let at_ms = self.start_ms + (index * 1000 / EVENTS_PER_SECOND) as i64 + jitter;
        let kind = Kind::pick(random);
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            out,
            r#"{{"event_id":"0{:011x}-{:016x}","job_id":"{}","tenant":"{}","event_type":"{}","emitted_at":"{}","worker":"w{worker}","attempt":{},"entity":{{"type":"{}","id":"{}"}}"#,
            at_ms as u64 & 0xfff_ffff_ffff,
            mix(index ^ mix(self.seed)),
            job.id,
            pick(&TENANTS, job.traits >> 8),
            kind.name(),
            text_ms(at_ms),
            1 + u64::from(random.below(50) == 0),
            pick(&ENTITY_TYPES, job.traits >> 16),
            EntityId(random.entity(job.traits)),
        );
        if !matches!(kind, Kind::Progress | Kind::Warning) {
            let _ = write!(
                out,
                r#","trace_id":"{:016x}{:016x}","duration_us":{}"#,
                random.next(),
                random.next(),
                200 + random.skewed(80_000),
            );
        }
        kind.write_details(out, job, random);
        out.push('}');
    }
}

struct Job {
    id: String,
    /// Random bits that make up the job's character.
    traits: u64,
}

const TENANTS: [&str; 6] = [
    "northwind",
    "acme-retail",
    "blueharbor",
    "kestrel",
    "orchid-bank",
    "fjordline",
];
const ENTITY_TYPES: [&str; 4] = ["customer", "merchant", "device", "transaction"];
const MODELS: [&str; 4] = [
    "risk-gbm-7.3.1",
    "linkage-v12",
    "velocity-2.0",
    "churn-lstm-0.9",
];
const REGIONS: [&str; 5] = [
    "eu-west-1",
    "us-east-1",
    "us-west-2",
    "ap-south-1",
    "sa-east-1",
];
const DECISIONS: [&str; 4] = ["accept", "review", "reject", "defer"];
const STAGES: [&str; 5] = ["extract", "normalise", "link", "score", "publish"];
const FEATURES: [&str; 8] = [
    "velocity_1h",
    "velocity_24h",
    "geo_distance_km",
    "device_age_days",
    "amount_zscore",
    "shared_address",
    "name_similarity",
    "night_ratio",
];
const RULES: [&str; 8] = [
    "R104-amount-over-baseline",
    "R117-new-device",
    "R121-velocity",
    "R203-shared-address",
    "R209-name-mismatch",
    "R310-sanctions-near-match",
    "R322-night-activity",
    "R401-manual-hold",
];
const REASONS: [&str; 6] = [
    "amount is far above the entity's own baseline of the last 90 days",
    "first activity from a device that was never seen with this account",
    "several accounts share the address and were opened within one week",
    "name similarity is below the threshold set for this tenant",
    "more requests in one hour than in the thirty days before",
    "held by an analyst, released only after a second review",
];
const WARNINGS: [&str; 5] = [
    "lookup timed out, previous value used",
    "optional attribute missing in source record",
    "score clipped to the calibrated range",
    "duplicate candidate ignored",
    "retry after connection reset by upstream",
];

#[derive(Clone, Copy)]
enum Kind {
    Progress,
    Extracted,
    Scored,
    Matched,
    RuleFired,
    Warning,
}

impl Kind {
    fn pick(random: &mut Random) -> Self {
        match random.below(100) {
            0..6 => Self::Progress,
            6..26 => Self::Extracted,
            26..60 => Self::Scored,
            60..82 => Self::Matched,
            82..94 => Self::RuleFired,
            _ => Self::Warning,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Progress => "job_progress",
            Self::Extracted => "entity_extracted",
            Self::Scored => "entity_scored",
            Self::Matched => "entities_matched",
            Self::RuleFired => "rule_fired",
            Self::Warning => "warning",
        }
    }

    fn write_details(self, out: &mut String, job: &Job, random: &mut Random) {
        match self {
            Self::Progress => write_progress(out, random),
            Self::Extracted => write_extracted(out, random),
            Self::Scored => write_scored(out, job, random),
            Self::Matched => write_matched(out, job, random),
            Self::RuleFired => write_rule(out, random),
            Self::Warning => {
                let _ = write!(
                    out,
                    r#","stage":"{}","message":"{}","elapsed_ms":{}"#,
                    pick(&STAGES, random.next()),
                    pick(&WARNINGS, random.next()),
                    random.below(5_000),
                );
            }
        }
    }
}

fn write_progress(out: &mut String, random: &mut Random) {
    let _ = write!(
        out,
        r#","stage":"{}","done":{}"#,
        pick(&STAGES, random.next()),
        random.below(100_000),
    );
}

fn write_extracted(out: &mut String, random: &mut Random) {
    let _ = write!(
        out,
        r#","source":{{"system":"warehouse","table":"{}_daily","region":"{}","row":{},"checksum":"{:016x}"}},"schema_version":3,"attributes":{{"country":"{}","segment":"s{}","active":{},"balance":{}.{:02}"#,
        pick(&ENTITY_TYPES, random.next()),
        pick(&REGIONS, random.skewed(5)),
        random.below(10_000_000),
        random.next(),
        pick(
            &["DE", "FR", "US", "GB", "SE", "NL", "IN", "BR"],
            random.skewed(8)
        ),
        random.skewed(12),
        random.below(8) != 0,
        random.below(1_000).wrapping_mul(random.below(100)),
        random.below(100),
    );
    if random.below(3) == 0 {
        let _ = write!(out, r#","referrer":"partner-{:03}""#, random.skewed(200));
    }
    if random.below(5) == 0 {
        out.push_str(r#","consent":{"marketing":false,"profiling":true}"#);
    }
    out.push_str(r#"},"quality":"complete""#);
}

fn write_scored(out: &mut String, job: &Job, random: &mut Random) {
    let _ = write!(
        out,
        r#","model":"{}","scores":{{"risk":0.{:06},"confidence":0.{:06}}},"features":{{"#,
        pick(&MODELS, job.traits >> 24),
        random.below(1_000_000),
        999_999 - random.skewed(400_000),
    );
    let count = 3 + random.below(4);
    let first = random.below(2);
    for feature in 0..count {
        let comma = if feature == 0 { "" } else { "," };
        let name = pick(&FEATURES, first + feature);
        // Some features are at rest, as counters and flags often are.
        match random.below(6) {
            0 => {
                let _ = write!(out, r#"{comma}"{name}":0.0"#);
            }
            1 => {
                let _ = write!(out, r#"{comma}"{name}":{}.0"#, random.skewed(40));
            }
            _ => {
                let value = random.below(100_000);
                let _ = write!(
                    out,
                    r#"{comma}"{name}":{}.{:04}"#,
                    value / 10_000,
                    value % 10_000
                );
            }
        }
    }
    let _ = write!(
        out,
        r#"}},"decision":"{}","threshold":0.75,"region":"{}","calibrated":true"#,
        pick(&DECISIONS, random.skewed(4)),
        pick(&REGIONS, job.traits >> 32),
    );
    if random.below(4) == 0 {
        let _ = write!(
            out,
            r#","explanation":{{"top_feature":"{}","text":"{}"}}"#,
            pick(&FEATURES, random.next()),
            pick(&REASONS, random.next()),
        );
    }
}

fn write_matched(out: &mut String, job: &Job, random: &mut Random) {
    let _ = write!(
        out,
        r#","model":"{}","blocking_key":"{}-{:04}","candidates":["#,
        pick(&MODELS, job.traits >> 24),
        pick(&["zip", "phone", "surname", "iban"], random.next()),
        random.skewed(2_000),
    );
    for candidate in 0..=random.skewed(5) {
        let comma = if candidate == 0 { "" } else { "," };
        let _ = write!(
            out,
            r#"{comma}{{"entity_id":"{}","similarity":0.{:06},"same_household":{},"matched_on":["name","{}"]}}"#,
            EntityId(random.entity(job.traits)),
            random.below(1_000_000),
            random.below(6) == 0,
            pick(&["address", "birth_date", "email_domain"], random.skewed(3)),
        );
    }
    let _ = write!(out, r#"],"accepted":{}"#, random.below(3) == 0);
}

fn write_rule(out: &mut String, random: &mut Random) {
    let _ = write!(
        out,
        r#","rule":"{}","severity":"{}","reason":"{}","evidence":{{"window":"24h","observed":{}.{:03},"baseline":{}}},"decision":"{}""#,
        pick(&RULES, random.skewed(8)),
        pick(&["low", "medium", "high"], random.skewed(3)),
        pick(&REASONS, random.next()),
        random.below(10_000),
        random.below(1_000),
        random.below(500),
        pick(&DECISIONS, random.skewed(4)),
    );
}

fn pick<'a>(names: &[&'a str], number: u64) -> &'a str {
    // The remainder is below the length, so the fallback is never taken.
    names
        .get((number % names.len() as u64) as usize)
        .copied()
        .unwrap_or_default()
}

/// Entity ids as a platform would hand them out: a prefix and ten hex digits.
struct EntityId(u64);

impl std::fmt::Display for EntityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ent_{:010x}", mix(self.0) & 0xff_ffff_ffff)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014). Its own few lines because a seed must give
/// the same events for ever, which `rand` does not promise across its versions.
struct Random(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN)) ^ mix(stream ^ 0x5851_f42d_4c95_7f2d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in `0..limit` (the bias of the multiply is below 2^-32 for our limits).
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// In `0..limit`, low numbers far more often.
    fn skewed(&mut self, limit: u64) -> u64 {
        let unit = self.below(1 << 20);
        ((u128::from(unit * unit / (1 << 20)) * u128::from(limit)) >> 20) as u64
    }

    /// Number of one of the job's entities; some come up again and again.
    fn entity(&mut self, traits: u64) -> u64 {
        (traits & 0xffff_0000_0000) | self.skewed(20_000)
    }
}

/// A bijection on 64 bits that makes numbers look random.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The inverse of [`mix`].
fn unmix(mut value: u64) -> u64 {
    value = (value ^ (value >> 31) ^ (value >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    value = (value ^ (value >> 27) ^ (value >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    value ^ (value >> 30) ^ (value >> 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    const START_MS: i64 = 1_763_886_000_000;

    #[test]
    fn the_same_parameters_give_the_same_events() {
        let one = Workload::new(7, START_MS, 20);
        let two = Workload::new(7, START_MS, 20);
        let other = Workload::new(8, START_MS, 20);
        for index in [0, 1, 77, 119_999, 5_000_000] {
            assert_eq!(one.event(index), two.event(index));
            assert_ne!(one.event(index), other.event(index));
        }
    }

    #[test]
    fn an_event_tells_its_index() {
        for seed in [0, 1, u64::MAX] {
            let workload = Workload::new(seed, START_MS, 20);
            for index in (0..50_000).step_by(997).chain([u64::from(u32::MAX)]) {
                let event = workload.event(index);
                assert_eq!(workload.index_of(event.data.as_bytes()), Some(index));
            }
        }
        let workload = Workload::new(1, START_MS, 20);
        for foreign in ["", "{}", r#"{"event_id":"0"#, r#"{"event_id":"0zz"}"#] {
            assert_eq!(workload.index_of(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn unmix_is_the_inverse_of_mix() {
        for value in [0, 1, 2, GOLDEN, u64::MAX, 0x1234_5678_9abc_def0] {
            assert_eq!(unmix(mix(value)), value);
        }
    }

    #[test]
    fn events_are_json_of_200_to_1000_bytes_in_the_jobs_asked_for() {
        let workload = Workload::new(1, START_MS, 20);
        let (mut ids, mut jobs, mut bytes) = (HashSet::new(), HashMap::new(), 0);
        let events = 20_000;
        for index in 0..events {
            let event = workload.event(index);
            assert!((200..=1000).contains(&event.data.len()), "{}", event.data);
            let json: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            let job = json["job_id"].as_str().expect("job id").to_owned();
            let worker = json["worker"].as_str().expect("worker");
            assert_eq!(event.partition_key, format!("{job}/{worker}"));
            assert!(ids.insert(json["event_id"].as_str().expect("id").to_owned()));
            *jobs.entry(job).or_insert(0) += 1;
            bytes += event.data.len();
        }
        assert!((20..=22).contains(&jobs.len()), "{} jobs", jobs.len());
        let mean = bytes / events as usize;
        assert!((480..=620).contains(&mean), "mean size {mean}");
    }
}
