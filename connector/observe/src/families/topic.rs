//! What an embedded topic and its SmartModules count.

use super::{Family, Values, counter};

pub(super) const FAMILIES: &[Family] = &[
    counter(
        "millpond_topic_batches",
        "Batches made durable in the embedded topic",
        Values::Topic(|t| t.appended_batches as f64),
    ),
    counter(
        "millpond_topic_records",
        "Records of those batches",
        Values::Topic(|t| t.appended_records as f64),
    ),
    counter(
        "millpond_topic_bytes",
        "Encoded bytes of those batches",
        Values::Topic(|t| t.appended_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_batches",
        "Batches that SmartModules were given",
        Values::Topic(|t| t.module_batches as f64),
    ),
    counter(
        "millpond_smartmodule_input_bytes",
        "Encoded bytes of those batches",
        Values::Topic(|t| t.module_input_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_output_records",
        "Records that came out",
        Values::Topic(|t| t.module_output_records as f64),
    ),
    counter(
        "millpond_smartmodule_output_bytes",
        "Bytes of keys and values of those records",
        Values::Topic(|t| t.module_output_bytes as f64),
    ),
    counter(
        "millpond_smartmodule_seconds",
        "Time in SmartModules",
        Values::Topic(|t| t.module_micros as f64 / 1e6),
    ),
    counter(
        "millpond_smartmodule_failures",
        "Batches on which a SmartModule failed",
        Values::Topic(|t| t.module_failures as f64),
    ),
];
