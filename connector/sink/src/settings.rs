//! Settings that every sink's section has.

use std::time::Duration;

use millpond_connector::document::ConnectorDocument;
use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::HumanDuration;
use millpond_format::keys::is_pipeline_name;

/// Default of `max-age`.
pub const MAX_AGE: HumanDuration = HumanDuration::from_secs(5);

/// Setting `pipeline`: sets what this pipeline writes apart from others in the same store.
/// Default: `meta.name`.
pub fn pipeline(
    document: &ConnectorDocument,
    section: &Section<'_>,
    problems: &mut Problems,
    given: Option<String>,
) -> String {
    let pipeline = given.unwrap_or_else(|| document.meta.name.clone());
    if !is_pipeline_name(&pipeline) {
        problems.push(
            section
                .problem("pipeline", "is no pipeline name")
                .given(format!("`{pipeline}`"))
                .allowed("1 to 64 of `A-Z a-z 0-9 . _ -`")
                .help("without `pipeline`, `meta.name` is the pipeline's name"),
        );
    }
    pipeline
}

/// Setting `max-age`: the longest time that data waits for more, 100 ms to 5 minutes.
pub fn max_age(
    section: &Section<'_>,
    problems: &mut Problems,
    given: Option<HumanDuration>,
    default: HumanDuration,
) -> Option<Duration> {
    let range = HumanDuration::from_millis(100)..=HumanDuration::from_secs(300);
    let age = section.in_range(problems, "max-age", given.unwrap_or(default), range);
    age.map(|age| age.0)
}

/// Setting `beside`: other pipelines that may feed the same store from the same topic.
pub fn beside(
    section: &Section<'_>,
    problems: &mut Problems,
    given: Option<Vec<String>>,
) -> Vec<String> {
    let names = given.unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        if !is_pipeline_name(name) {
            problems.push(
                section
                    .problem(&format!("beside[{index}]"), "is no pipeline name")
                    .given(format!("`{name}`"))
                    .allowed("1 to 64 of `A-Z a-z 0-9 . _ -`"),
            );
        }
    }
    names
}
