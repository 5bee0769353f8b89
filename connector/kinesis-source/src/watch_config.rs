//! Settings of what a source does about its stream: raw form and checks.

use std::ops::RangeInclusive;

use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::HumanDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::RawKinesis;
use crate::limits::RETENTION_HOURS;
use crate::retention_guard::GuardSettings;
use crate::shard_scaling::{ScalingMode, ScalingSettings};

/// Open shards that a stream may have (Kinesis API reference, `UpdateShardCount`, read 2026-11-26: the call sets at
/// most 10,000).
const SHARDS: RangeInclusive<u32> = 1..=10_000;

/// What to do when unread events near the end of the retention period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuardMode {
    /// Say so in log and metrics.
    #[default]
    Warn,
    /// Make the period longer as well.
    Extend,
}

/// Checks the settings of the retention guard.
pub(crate) fn guard(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: &RawKinesis,
) -> GuardSettings {
    let mut hours = |name: &str, given: Option<HumanDuration>| {
        let seconds = given?.get().as_secs();
        let hours = u32::try_from(seconds / 3_600).unwrap_or(u32::MAX);
        let is_whole = seconds % 3_600 == 0 && given?.get().subsec_nanos() == 0;
        if !is_whole || !RETENTION_HOURS.contains(&hours) {
            problems.push(
                section
                    .problem(name, "is no retention period of a stream")
                    .allowed("24h to 8760h (365 days), whole hours"),
            );
        }
        Some(hours)
    };
    let max_hours = hours("retention-max", raw.retention_max);
    let give_back_hours = hours("retention-give-back", raw.retention_give_back);
    if raw.retention_guard.unwrap_or_default() == GuardMode::Warn {
        for (name, is_given) in [
            ("retention-max", max_hours.is_some()),
            ("retention-give-back", give_back_hours.is_some()),
        ] {
            if is_given {
                problems.push(
                    section
                        .problem(name, "does nothing without `retention-guard: extend`")
                        .help("set that, or leave this out"),
                );
            }
        }
        return GuardSettings::default();
    }
    let Some(max) = max_hours else {
        problems.push(
            section
                .problem("retention-guard", "needs a limit to extend to")
                .help("set `retention-max`, for example `168h`"),
        );
        return GuardSettings::default();
    };
    if give_back_hours.is_some_and(|back| back >= max) {
        problems.push(
            section
                .problem("retention-give-back", "is not shorter than `retention-max`")
                .allowed(format!("less than {max}h")),
        );
    }
    GuardSettings {
        max_hours,
        give_back_hours,
    }
}

/// Checks the settings of the shard scaling.
pub(crate) fn scaling(
    section: &Section<'_>,
    problems: &mut Problems,
    raw: &RawKinesis,
) -> ScalingSettings {
    let defaults = ScalingSettings::default();
    let mode = raw.shard_scaling.unwrap_or_default();
    if mode == ScalingMode::Off {
        for (name, given) in [
            ("min-shards", raw.min_shards),
            ("max-shards", raw.max_shards),
            ("utilisation-low", raw.utilisation_low),
            ("utilisation-high", raw.utilisation_high),
        ] {
            if given.is_some() {
                problems.push(
                    section
                        .problem(name, "does nothing without `shard-scaling`")
                        .help("set `shard-scaling: advise` or `auto`, or leave this out"),
                );
            }
        }
        return defaults;
    }
    let min = raw.min_shards.unwrap_or(defaults.min_shards);
    let min_shards = section.in_range(problems, "min-shards", min, SHARDS);
    let max_shards = section
        .require(problems, "max-shards", raw.max_shards)
        .and_then(|max| section.in_range(problems, "max-shards", max, SHARDS));
    if max_shards.is_some_and(|max| max < min) {
        problems.push(
            section
                .problem("max-shards", "is below `min-shards`")
                .allowed(format!("at least {min}")),
        );
    }
    let high = raw.utilisation_high.unwrap_or(defaults.high_percent);
    let high_percent = section.in_range(problems, "utilisation-high", high, 1..=100);
    let low = raw.utilisation_low.unwrap_or(defaults.low_percent);
    let low_percent = section.in_range(problems, "utilisation-low", low, 1..=100);
    // Doubling must not lead from above `high` to below `low`.
    if low.saturating_mul(2) > high {
        problems.push(
            section
                .problem("utilisation-low", "is more than half of `utilisation-high`")
                .allowed(format!("at most {}", high / 2))
                .help("else the number of shards would go up and down by turns"),
        );
    }
    ScalingSettings {
        mode,
        min_shards: min_shards.unwrap_or(defaults.min_shards),
        max_shards: max_shards.unwrap_or(defaults.max_shards),
        low_percent: low_percent.unwrap_or(defaults.low_percent),
        high_percent: high_percent.unwrap_or(defaults.high_percent),
    }
}
