//! The settings of the section `dynamodb` that say whether topic partitions are shared.

use millpond_connector::document::ConnectorDocument;
use millpond_connector::meta::PartitionChoice;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::HumanDuration;
use millpond_leases::Settings;
use millpond_sink::sharing::{Share, Sharing};

/// Checks `share-partitions` and `lease-duration`; `None` once a problem was pushed.
pub(crate) fn sharing(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    share: Option<bool>,
    duration: Option<HumanDuration>,
) -> Option<Sharing> {
    let share = match share {
        None => Share::Auto,
        Some(true) => Share::Always,
        Some(false) => Share::Never,
    };
    if share == Share::Always && document.meta.consumer.partitions != PartitionChoice::All {
        problems.push(
            section
                .problem(
                    "share-partitions",
                    "contradicts `meta.consumer.partition`, which divides the partitions by hand",
                )
                .help("leave one of them out"),
        );
    }
    if share == Share::Never && duration.is_some() {
        problems.push(
            section
                .problem(
                    "lease-duration",
                    "has no effect with `share-partitions: false`",
                )
                .as_warning(),
        );
    }
    let duration = section.in_range(
        problems,
        "lease-duration",
        duration.unwrap_or(HumanDuration(Settings::DEFAULT)),
        HumanDuration(Settings::MIN)..=HumanDuration(Settings::MAX),
    )?;
    let timings = Settings::new(duration.0).ok()?;
    Some(Sharing { share, timings })
}
