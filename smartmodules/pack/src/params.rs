//! What the operator may set, as read from the `with` section of a transform.

use std::collections::BTreeMap;
use std::fmt;

use millpond_format::limits;

use crate::pointer::Pointer;

/// Names of all parameters.
pub const PARAMETERS: [&str; 6] = [
    "group-by",
    "event-time",
    "level",
    "max-item-bytes",
    "on-missing-group",
    "on-missing-origin",
];

/// Lowest zstd level: zstd's negative levels pack so much worse that write units cost more
/// than the time they save.
pub const MIN_LEVEL: i32 = 1;

/// Highest zstd level: from 20 on zstd's tables take hundreds of megabytes.
pub const MAX_LEVEL: i32 = 19;

/// What makes the group key of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// The Kinesis partition key.
    PartitionKey,
    /// The value at a JSON pointer: a string, or a number or boolean as written.
    Pointer(Pointer),
    /// One group for all.
    Constant(String),
}

/// What makes the time of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTime {
    /// The time at which the stream took it in.
    Arrival,
    /// The value at a JSON pointer: RFC 3339 text or milliseconds since the Unix epoch.
    Pointer(Pointer),
}

/// What becomes of an event without a group key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnMissingGroup {
    /// It is rejected.
    DeadLetter,
    /// It goes into this group.
    Group(String),
}

/// What becomes of a record whose key is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingOrigin {
    /// It is rejected: where every event comes from Kinesis, somebody has changed its key.
    DeadLetter,
    /// Its origin is its topic offset, and its key takes the place of the Kinesis partition key:
    /// for topics that other producers fill.
    TopicOffset,
}

/// Checked parameters of the packer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Group key of an event.
    pub group_by: GroupBy,
    /// Time of an event.
    pub event_time: EventTime,
    /// Zstd level, [`MIN_LEVEL`] to [`MAX_LEVEL`].
    pub level: i32,
    /// Largest item that an envelope must fit in alone, in bytes as DynamoDB counts them.
    pub max_item_bytes: usize,
    /// What becomes of an event without a group key.
    pub on_missing_group: OnMissingGroup,
    /// What becomes of a record without an origin.
    pub on_missing_origin: OnMissingOrigin,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            group_by: GroupBy::PartitionKey,
            event_time: EventTime::Arrival,
            level: 1,
            max_item_bytes: limits::MAX_ITEM_BYTES,
            on_missing_group: OnMissingGroup::DeadLetter,
            on_missing_origin: OnMissingOrigin::DeadLetter,
        }
    }
}

/// One parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamProblem {
    /// Name of the parameter as it was given.
    pub parameter: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for ParamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter `{}`: {}", self.parameter, self.message)
    }
}

/// All parameters that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamsError {
    /// At least one problem, in the order of the parameter names.
    pub problems: Vec<ParamProblem>,
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParamsError {}

impl Params {
    /// Reads parameters as a `with` section gives them; what is not given has its default.
    ///
    /// # Errors
    /// [`ParamsError`] with every problem at once.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, ParamsError> {
        let mut params = Self::default();
        let mut problems = Vec::new();
        for (name, value) in map {
            if let Err(message) = params.set(name, value) {
                problems.push(ParamProblem {
                    parameter: name.clone(),
                    message,
                });
            }
        }
        if problems.is_empty() {
            Ok(params)
        } else {
            Err(ParamsError { problems })
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "group-by" => self.group_by = group_by(value)?,
            "event-time" => self.event_time = event_time(value)?,
            "level" => {
                self.level = within(value, MIN_LEVEL, MAX_LEVEL)?;
            }
            "max-item-bytes" => {
                self.max_item_bytes =
                    within(value, limits::MIN_ITEM_BYTES, limits::MAX_ITEM_BYTES)?;
            }
            "on-missing-group" => self.on_missing_group = on_missing_group(value)?,
            "on-missing-origin" => self.on_missing_origin = on_missing_origin(value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    let nearest = PARAMETERS
        .iter()
        .map(|known| (strsim::osa_distance(known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, known)) => format!("unknown, did you mean `{known}`?"),
        None => format!("unknown, known are `{}`", PARAMETERS.join("`, `")),
    }
}

fn within<T>(value: &str, min: T, max: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    value
        .parse()
        .ok()
        .filter(|number| *number >= min && *number <= max)
        .ok_or_else(|| format!("`{value}` is no whole number from {min} to {max}"))
}

fn group_by(value: &str) -> Result<GroupBy, String> {
    if value == "partition-key" {
        return Ok(GroupBy::PartitionKey);
    }
    if let Some(name) = value.strip_prefix("constant:") {
        return group_name(name).map(GroupBy::Constant);
    }
    if value.starts_with('/') {
        return pointer(value).map(GroupBy::Pointer);
    }
    Err(format!(
        "`{value}` is none of `partition-key`, a JSON pointer such as `/job_id`, `constant:<name>`"
    ))
}

fn event_time(value: &str) -> Result<EventTime, String> {
    if value == "arrival" {
        return Ok(EventTime::Arrival);
    }
    if value.starts_with('/') {
        return pointer(value).map(EventTime::Pointer);
    }
    Err(format!(
        "`{value}` is neither `arrival` nor a JSON pointer such as `/time`"
    ))
}

fn on_missing_group(value: &str) -> Result<OnMissingGroup, String> {
    if value == "dead-letter" {
        return Ok(OnMissingGroup::DeadLetter);
    }
    match value.strip_prefix("group:") {
        Some(name) => group_name(name).map(OnMissingGroup::Group),
        None => Err(format!(
            "`{value}` is neither `dead-letter` nor `group:<name>`"
        )),
    }
}

fn on_missing_origin(value: &str) -> Result<OnMissingOrigin, String> {
    match value {
        "dead-letter" => Ok(OnMissingOrigin::DeadLetter),
        "topic-offset" => Ok(OnMissingOrigin::TopicOffset),
        _ => Err(format!(
            "`{value}` is neither `dead-letter` nor `topic-offset`"
        )),
    }
}

fn pointer(value: &str) -> Result<Pointer, String> {
    Pointer::parse(value).map_err(|error| format!("`{value}`: {error}"))
}

fn group_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > limits::MAX_GROUP_BYTES {
        return Err(format!(
            "a group name has 1 to {} bytes, this one {}",
            limits::MAX_GROUP_BYTES,
            name.len()
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Params, String> {
        let map = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Params::from_map(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_given_is_taken_and_the_rest_has_its_default() {
        assert_eq!(read(&[]), Ok(Params::default()));
        let params = read(&[
            ("group-by", "/job~1id/0"),
            ("event-time", "/at"),
            ("level", "3"),
            ("max-item-bytes", "8192"),
            ("on-missing-group", "group:rest"),
            ("on-missing-origin", "topic-offset"),
        ])
        .expect("valid");
        assert_eq!(
            params.group_by,
            GroupBy::Pointer(Pointer::parse("/job~1id/0").expect("valid"))
        );
        assert_eq!(params.level, 3);
        assert_eq!(params.max_item_bytes, 8_192);
        assert_eq!(
            params.on_missing_group,
            OnMissingGroup::Group("rest".into())
        );
        assert_eq!(params.on_missing_origin, OnMissingOrigin::TopicOffset);
        assert_eq!(
            read(&[("group-by", "constant:all")]).map(|params| params.group_by),
            Ok(GroupBy::Constant("all".into()))
        );
    }

    #[test]
    fn every_problem_is_named_with_what_is_allowed() {
        let long = "x".repeat(1_001);
        let constant = format!("constant:{long}");
        for (name, value, message) in [
            ("level", "0", "`0` is no whole number from 1 to 19"),
            ("level", "20", "`20` is no whole number from 1 to 19"),
            ("level", "", "`` is no whole number from 1 to 19"),
            (
                "max-item-bytes",
                "8191",
                "`8191` is no whole number from 8192 to 409600",
            ),
            (
                "max-item-bytes",
                "400KB",
                "`400KB` is no whole number from 8192 to 409600",
            ),
            (
                "group-by",
                "job_id",
                "`job_id` is none of `partition-key`, a JSON pointer such as `/job_id`, `constant:<name>`",
            ),
            (
                "group-by",
                "/a~",
                "`/a~`: `~` in a JSON pointer is written `~0`, and `/` in a name `~1`",
            ),
            (
                "group-by",
                "constant:",
                "a group name has 1 to 1000 bytes, this one 0",
            ),
            (
                "group-by",
                constant.as_str(),
                "a group name has 1 to 1000 bytes, this one 1001",
            ),
            (
                "event-time",
                "now",
                "`now` is neither `arrival` nor a JSON pointer such as `/time`",
            ),
            (
                "on-missing-group",
                "drop",
                "`drop` is neither `dead-letter` nor `group:<name>`",
            ),
            (
                "on-missing-origin",
                "keep",
                "`keep` is neither `dead-letter` nor `topic-offset`",
            ),
            ("groupby", "x", "unknown, did you mean `group-by`?"),
            (
                "colour",
                "x",
                "unknown, known are `group-by`, `event-time`, `level`, `max-item-bytes`, `on-missing-group`, `on-missing-origin`",
            ),
        ] {
            assert_eq!(
                read(&[(name, value)]),
                Err(format!("parameter `{name}`: {message}"))
            );
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let error = read(&[("level", "99"), ("leval", "1"), ("group-by", "/ok")]);
        assert_eq!(
            error,
            Err("parameter `leval`: unknown, did you mean `level`?; parameter `level`: `99` is no whole number from 1 to 19".into())
        );
    }
}
