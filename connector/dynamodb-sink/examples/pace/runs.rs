//! What is measured: loads, and the tables that they meet.

use std::ops::Range;

use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::spread::WriteShards;
use millpond_fault_proxy::capacity::model::{Limits, Mode};

use crate::drive::Course;

/// Partition key of the hot group.
pub const HOT_KEY: &str = "hot/0";

/// Partition key of the only group of [`alone`].
pub const ALONE_KEY: &str = "p/alone#0";

/// Seconds of the burst.
pub const BURST: Range<usize> = 120..180;

/// What is known of the table's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `DescribeTable` says it.
    Provisioned,
    /// Nobody says it, it must be learned.
    Hidden,
}

impl Known {
    pub const ALL: [Self; 2] = [Self::Provisioned, Self::Hidden];
}

/// Units a second of one group.
pub type Rate = fn(second: usize) -> f64;

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: &'static str,
    pub known: Known,
    pub seconds: usize,
    /// Groups of each topic partition, by partition key, with their load.
    pub load: Vec<Vec<(String, Rate)>>,
    pub limits: Limits,
    /// Units a second that the table takes at first.
    pub limit: f64,
    /// From these seconds on, so many.
    pub changes: Vec<(usize, u64)>,
    pub settings: PaceSettings,
    /// Over how many partition keys groups are spread whose key is one of items.
    pub write_shards: WriteShards,
}

impl Run {
    fn new(name: &'static str, known: Known, limit: u64) -> Self {
        Self {
            name,
            known,
            seconds: 600,
            load: Vec::new(),
            limits: Limits::of(Mode::Provisioned(limit)),
            limit: limit as f64,
            changes: Vec::new(),
            settings: PaceSettings::default(),
            write_shards: WriteShards::Fixed(1),
        }
    }

    /// `groups` groups in each of `partitions` topic partitions.
    fn with(mut self, partitions: usize, groups: usize, rate: Rate) -> Self {
        for _ in 0..partitions {
            let partition = self.load.len();
            let group = |group| (format!("g{group}/{partition}"), rate);
            self.load.push((0..groups).map(group).collect());
        }
        self
    }

    /// Path of its plot in the crate.
    pub fn plot(&self) -> String {
        let known = match self.known {
            Known::Provisioned => "provisioned",
            Known::Hidden => "learned",
        };
        format!("pace/{}-{known}.svg", self.name)
    }

    /// Seconds in which there is more to write than the table takes.
    pub fn sustained(&self, course: &Course) -> Range<usize> {
        match self.name {
            // Five seconds until a key is called hot, and 30 between two times. Who knows nothing of the capacity
            // spends what the table has saved meanwhile.
            "one-group" if self.known == Known::Hidden => 300..self.seconds,
            "one-group" => 120..self.seconds,
            "burst" => BURST.start + 10..course.drained_by(BURST.end) - 2,
            _ => 60..self.seconds,
        }
    }

    /// Units a second that the table takes.
    pub fn limit_at(&self, second: usize) -> f64 {
        let changed = self.changes.iter().rev().find(|(from, _)| *from <= second);
        changed.map_or(self.limit, |(_, units)| *units as f64)
    }
}

/// More than the limit, all the time: 1,100 of 1,000 units a second.
pub fn steady(known: Known) -> Run {
    Run::new("steady", known, 1_000).with(2, 10, |_| 55.0)
}

/// 300 units a second, and for a minute twenty times as much: more than a table of 2,000 takes, and more
/// than a new one on demand.
pub fn burst(known: Known) -> Run {
    let mut run = Run::new("burst", known, 2_000);
    if known == Known::Hidden {
        run.limits = Limits::of(Mode::OnDemand { max: None });
        run.limit = 4_000.0;
    }
    let rate = |second| match BURST.contains(&second) {
        true => 200.0,
        false => 10.0,
    };
    run.with(3, 10, rate)
}

/// One group of 3,000 units a second, in a topic partition of its own, beside groups that could use all the rest.
pub fn hot(known: Known) -> Run {
    let mut run = Run::new("hot-group", known, 4_000);
    run.load.push(vec![(HOT_KEY.to_owned(), |_| 3_000.0)]);
    run.with(3, 11, |_| 100.0)
}

/// One group alone, of 10% more than the table takes, seven times what a partition key does.
pub fn alone(known: Known, write_shards: WriteShards) -> Run {
    let mut run = Run::new("one-group", known, 7_000);
    run.load.push(vec![(ALONE_KEY.to_owned(), |_| 7_700.0)]);
    run.write_shards = write_shards;
    run
}

/// More than the limit, which is raised after 200 seconds and lowered after 400.
pub fn changing(known: Known) -> Run {
    let mut run = Run::new("changing-limit", known, 1_000).with(3, 10, |_| 100.0);
    run.changes = vec![(200, 2_500), (400, 600)];
    run
}

/// Those of which there are plots.
pub fn plotted() -> Vec<Run> {
    let of = |known| {
        let alone = alone(known, WriteShards::Auto);
        [
            steady(known),
            burst(known),
            hot(known),
            alone,
            changing(known),
        ]
    };
    Known::ALL.into_iter().flat_map(of).collect()
}
