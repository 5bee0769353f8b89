//! What a source says of the time that is left until its stream removes what is unread.

/// How near a loss is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossLevel {
    /// Nothing to be done.
    #[default]
    Fine,
    /// The oldest unread event has used up half of the retention period.
    Notable,
    /// Three quarters.
    Urgent,
    /// Nine tenths.
    Critical,
}

impl LossLevel {
    /// Stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Notable => "notable",
            Self::Urgent => "urgent",
            Self::Critical => "critical",
        }
    }
}

/// The clock of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReading {
    /// Shard id.
    pub shard: String,
    /// Age of the next record to be read, as the service said last; 0 when the newest was read.
    pub millis_behind_latest: u64,
    /// Seconds until the oldest event that is not durable is trimmed.
    pub seconds_until_trim: u64,
    /// Seconds until the newest record is read, at the present speed; `None`: never.
    pub drain_seconds: Option<u64>,
    /// Seconds until the trim horizon reaches what is unread, at the present speed; `None`: never.
    pub seconds_until_loss: Option<u64>,
    /// How near that is.
    pub level: LossLevel,
}

/// The clock of the shards that a process reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamClock {
    /// When it was read, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// How long the stream keeps records, hours.
    pub retention_hours: u32,
    /// Open shards of the stream; `None` where that is not asked for.
    pub open_shards: Option<u32>,
    /// What `shard-scaling` would have, where it has an opinion.
    pub advised_shards: Option<u32>,
    /// Bytes that come in, thousandths of what the open shards take.
    pub utilisation_in_milli: u32,
    /// Bytes that are read, thousandths of what the open shards give.
    pub utilisation_out_milli: u32,
    /// Shards of which it is not known what they carry; they count as nothing in the two utilisations.
    pub unknown_shards: u32,
    /// Each shard that is read here, in the order of their ids.
    pub shards: Vec<ShardReading>,
}

impl StreamClock {
    /// The shard that is nearest to a loss.
    #[must_use]
    pub fn worst(&self) -> Option<&ShardReading> {
        let by_danger = |reading: &&ShardReading| {
            let loss = reading.seconds_until_loss.unwrap_or(u64::MAX);
            (
                reading.level,
                std::cmp::Reverse((loss, reading.seconds_until_trim)),
            )
        };
        self.shards.iter().max_by_key(by_danger)
    }
}
