//! The settings of the section `dynamodb` that say how fast is written.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use millpond_connector::problem::Problems;
use millpond_connector::section::Section;
use millpond_connector::units::HumanDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::pacing::{BudgetSource, PaceSettings};

/// Largest number of units a second that a setting takes.
const MAX_UNITS: u64 = 1_000_000_000;

/// `auto`, or a number of write units a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteBudget(BudgetSource);

/// `none`, or a number of write units a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyLimit(Option<u64>);

/// A number, or one word in place of it.
pub(crate) struct OrWord(pub(crate) &'static str);

impl Visitor<'_> for OrWord {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number or `{}`", self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let refused = |_| E::invalid_value(de::Unexpected::Signed(number), &self);
        u64::try_from(number).map(Some).map_err(refused)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == self.0 {
            return Ok(None);
        }
        let refused = |_| E::invalid_value(de::Unexpected::Str(text), &self);
        text.parse().map(Some).map_err(refused)
    }
}

fn number_or(word: &'static str) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": MAX_UNITS },
            { "const": word },
        ]
    })
}

impl<'de> Deserialize<'de> for WriteBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = deserializer.deserialize_any(OrWord("auto"))?;
        Ok(Self(number.map_or(BudgetSource::Auto, BudgetSource::Fixed)))
    }
}

impl<'de> Deserialize<'de> for KeyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(deserializer.deserialize_any(OrWord("none"))?))
    }
}

impl JsonSchema for WriteBudget {
    fn schema_name() -> Cow<'static, str> {
        "WriteBudget".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        number_or("auto")
    }
}

impl JsonSchema for KeyLimit {
    fn schema_name() -> Cow<'static, str> {
        "KeyLimit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        number_or("none")
    }
}

/// Checks `max-write-units-per-second`, `max-write-units-per-key` and `burst-credit`; `None` once a problem was pushed.
pub(crate) fn pace(
    section: &Section<'_>,
    problems: &mut Problems,
    budget: Option<WriteBudget>,
    key: Option<KeyLimit>,
    burst_credit: Option<HumanDuration>,
) -> Option<PaceSettings> {
    let defaults = PaceSettings::default();
    let mut in_range = |name, units| section.in_range(problems, name, units, 1..=MAX_UNITS);
    let budget = match budget.map_or(defaults.budget, |budget| budget.0) {
        BudgetSource::Auto => Some(BudgetSource::Auto),
        BudgetSource::Fixed(units) => {
            in_range("max-write-units-per-second", units).map(BudgetSource::Fixed)
        }
    };
    let key_units = match key.map_or(defaults.key_units, |key| key.0) {
        None => Some(None),
        Some(units) => in_range("max-write-units-per-key", units).map(Some),
    };
    let burst_credit = section.in_range(
        problems,
        "burst-credit",
        burst_credit.unwrap_or(HumanDuration(defaults.burst_credit)),
        HumanDuration(Duration::ZERO)..=HumanDuration(PaceSettings::MAX_BURST_CREDIT),
    );
    Some(PaceSettings {
        budget: budget?,
        burst_credit: burst_credit?.0,
        key_units: key_units?,
    })
}
