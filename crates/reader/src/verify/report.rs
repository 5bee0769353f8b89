//! What is asked of a verification, and what it says.

use millpond_format::gap::Gap;

use super::finding::Finding;
use super::judge::ShardCount;
use super::walk::Walked;

/// What to verify, and how.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Only this group: its chains are walked, and nothing is said of what other groups may lack.
    pub group: Option<String>,
    /// Also read the frames: checksums, and every single ordinal.
    pub deep: bool,
    /// Table of the dead letters, if they are in another one.
    pub dead_letter_table: Option<String>,
}

/// One group, walked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCount {
    /// Group.
    pub group: String,
    /// Its chains.
    pub chains: u32,
    /// Items.
    pub items: u64,
    /// Events.
    pub events: u64,
    /// Bytes of the events; those of plain items only when walked deep.
    pub event_bytes: u64,
    /// Earliest event time, milliseconds since the Unix epoch.
    pub first_time_ms: Option<i64>,
    /// Latest event time.
    pub last_time_ms: Option<i64>,
}

impl GroupCount {
    pub(super) fn add(&mut self, walked: &Walked) {
        self.chains += 1;
        self.items += walked.items;
        self.events += walked.events;
        self.event_bytes += walked.event_bytes;
        self.first_time_ms = match (self.first_time_ms, walked.first_time_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.last_time_ms = self.last_time_ms.max(walked.last_time_ms);
    }
}

/// Something that is told while verifying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyNote {
    /// A group was walked.
    Group(GroupCount),
    /// Something is wrong.
    Finding(Finding),
}

/// What was found, besides what was told.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Shards by topic partition; without a verdict when only a group was walked.
    pub shards: Vec<ShardCount>,
    /// Recorded gaps with their topic partitions; each is a finding too.
    pub gaps: Vec<(u32, Gap)>,
    /// Gaps of the stream that sources recorded; each is a finding too.
    pub stream_gaps: u64,
    /// Groups.
    pub groups: u64,
    /// Items.
    pub items: u64,
    /// Items of plans that are being written; they are not judged.
    pub open_items: u64,
    /// Events.
    pub events: u64,
    /// Bytes of the events; those of plain items only when walked deep.
    pub event_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Events of other producers, which no numbering covers.
    pub unnumbered: u64,
    /// Records that SmartModules removed before the packer.
    pub removed: u64,
    /// Findings, the recorded gaps among them.
    pub findings: u64,
    /// Read units, as the service reported them.
    pub read_units: f64,
}
