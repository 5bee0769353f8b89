//! Where one event goes: its group and its time, or why it has none.

use std::borrow::Cow;

use millpond_format::header::RejectReason;
use millpond_format::keys::parse_time;
use millpond_format::limits;
use millpond_format::origin::Origin;

use crate::params::{EventTime, GroupBy, OnMissingGroup, Params};
use crate::pointer::{self, Pointer, Value};

/// Bytes of an offending value that are quoted in a detail text.
const QUOTED_BYTES: usize = 120;

/// Group and time of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Route<'a> {
    pub group: Cow<'a, str>,
    pub time_ms: i64,
}

/// Why an event has no route.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: RejectReason,
    pub detail: String,
}

fn reject(reason: RejectReason, detail: String) -> Rejection {
    Rejection { reason, detail }
}

/// Finds the group and the time of an event.
pub fn route<'a>(
    params: &'a Params,
    origin: &Origin<'a>,
    value: &'a [u8],
) -> Result<Route<'a>, Rejection> {
    if value.len() > limits::MAX_EVENT_BYTES {
        let detail = format!(
            "the event has {} bytes, the limit is {}",
            value.len(),
            limits::MAX_EVENT_BYTES
        );
        return Err(reject(RejectReason::TooLarge, detail));
    }
    let group_pointer = match &params.group_by {
        GroupBy::Pointer(pointer) => Some(pointer),
        _ => None,
    };
    let time_pointer = match &params.event_time {
        EventTime::Pointer(pointer) => Some(pointer),
        EventTime::Arrival => None,
    };
    let [group_value, time_value] = if group_pointer.is_some() || time_pointer.is_some() {
        pointer::lookup(value, [group_pointer, time_pointer]).map_err(|error| {
            let needed = group_pointer.or(time_pointer).map_or("", Pointer::as_str);
            let detail = format!("`{needed}` needs JSON, but the event is not JSON: {error}");
            reject(RejectReason::NotJson, detail)
        })?
    } else {
        [None, None]
    };
    let group = match &params.group_by {
        GroupBy::PartitionKey => non_empty(origin.partition_key).map(Cow::Borrowed),
        GroupBy::Constant(name) => Some(Cow::Borrowed(name.as_str())),
        GroupBy::Pointer(pointer) => match group_value {
            Some(value) => pointed_group(pointer, value)?,
            None => None,
        },
    };
    let group = match (group, &params.on_missing_group) {
        (Some(group), _) => group,
        (None, OnMissingGroup::Group(name)) => Cow::Borrowed(name.as_str()),
        (None, OnMissingGroup::DeadLetter) => return Err(missing_group(group_pointer, origin)),
    };
    if group.len() > limits::MAX_GROUP_BYTES {
        let detail = format!(
            "the group key has {} bytes, the limit is {}",
            group.len(),
            limits::MAX_GROUP_BYTES
        );
        return Err(reject(RejectReason::GroupTooLong, detail));
    }
    let time_ms = match time_pointer {
        Some(pointer) => pointed_time(pointer, time_value.as_ref())?,
        None => arrival_time(origin.arrival_ms)?,
    };
    Ok(Route { group, time_ms })
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn missing_group(pointer: Option<&Pointer>, origin: &Origin<'_>) -> Rejection {
    let detail = match pointer {
        Some(pointer) => format!("the event has no value at `{pointer}`"),
        None if origin.stream.is_empty() => "the record has no key".to_owned(),
        None => "the Kinesis partition key is empty".to_owned(),
    };
    reject(RejectReason::GroupMissing, detail)
}

/// Group key that a value stands for; `None` for null, which says that there is none.
fn pointed_group<'a>(
    pointer: &Pointer,
    value: Value<'a>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let raw = match value {
        Value::Text(text) if text.is_empty() => {
            return Err(invalid_group(pointer, "an empty string", "\"\""));
        }
        Value::Text(text) => return Ok(Some(text)),
        Value::Whole(number) => return Ok(Some(Cow::Owned(number.to_string()))),
        Value::Other(raw) => raw.get(),
    };
    match raw.as_bytes().first() {
        Some(b'"') => Err(invalid_group(
            pointer,
            "a string with an invalid escape",
            raw,
        )),
        Some(b'{') => Err(invalid_group(pointer, "an object", raw)),
        Some(b'[') => Err(invalid_group(pointer, "an array", raw)),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

fn invalid_group(pointer: &Pointer, what: &str, text: &str) -> Rejection {
    let detail = format!(
        "`{pointer}` is {what}, a group key is a non-empty string, a number or a boolean: {}",
        quoted(text)
    );
    reject(RejectReason::GroupInvalid, detail)
}

fn pointed_time(pointer: &Pointer, value: Option<&Value<'_>>) -> Result<i64, Rejection> {
    let Some(value) = value else {
        let detail = format!("the event has no time at `{pointer}`");
        return Err(reject(RejectReason::EventTimeMissing, detail));
    };
    let time = match value {
        Value::Whole(number) => in_range(*number),
        Value::Text(text) => parse_time(text),
        Value::Other(raw) => epoch_millis(raw.get()),
    };
    time.ok_or_else(|| {
        let text = match value {
            Value::Whole(number) => number.to_string(),
            Value::Text(text) => text.to_string(),
            Value::Other(raw) => raw.get().to_owned(),
        };
        let detail = format!(
            "`{pointer}` is neither RFC 3339 text nor milliseconds since 1970, up to the year 9999: {}",
            quoted(&text)
        );
        reject(RejectReason::EventTimeInvalid, detail)
    })
}

fn in_range(millis: i64) -> Option<i64> {
    (0..=limits::MAX_TIME_MS)
        .contains(&millis)
        .then_some(millis)
}

/// Milliseconds as a plain JSON number; a fraction is cut off.
fn epoch_millis(number: &str) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let millis: i64 = whole.parse().ok()?;
    let plain = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !whole.starts_with('-');
    in_range(millis).filter(|_| plain)
}

fn arrival_time(arrival_ms: i64) -> Result<i64, Rejection> {
    if let Some(millis) = in_range(arrival_ms) {
        return Ok(millis);
    }
    let detail = format!("arrival time {arrival_ms} is not between 1970 and 9999");
    Err(reject(RejectReason::EventTimeInvalid, detail))
}

fn quoted(text: &str) -> String {
    let cut = cut_at(text, QUOTED_BYTES);
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("`{cut}{dots}`")
}

/// The longest prefix of at most `limit` bytes.
pub fn cut_at(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const KEY: &[u8] = b"mp1/events/shardId-000000000003/4959/0/1763886000123/17.42/job-17/w3";

    fn params(pairs: &[(&str, &str)]) -> Params {
        let map: BTreeMap<_, _> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Params::from_map(&map).expect("valid")
    }

    fn decide(params: &Params, value: &[u8]) -> Result<(String, i64), (RejectReason, String)> {
        let origin = Origin::parse(KEY).expect("valid");
        route(params, &origin, value)
            .map(|route| (route.group.into_owned(), route.time_ms))
            .map_err(|rejection| (rejection.reason, rejection.detail))
    }

    const ARRIVAL: i64 = 1_763_886_000_123;

    #[test]
    fn without_pointers_the_event_is_not_read() {
        assert_eq!(
            decide(&params(&[]), b"\xff"),
            Ok(("job-17/w3".into(), ARRIVAL))
        );
        let constant = params(&[("group-by", "constant:all")]);
        assert_eq!(decide(&constant, b""), Ok(("all".into(), ARRIVAL)));
    }

    #[test]
    fn scalars_make_groups_as_they_are_written() {
        let params = params(&[("group-by", "/j")]);
        for (json, group) in [
            (r#"{"j":"a b"}"#, "a b"),
            (r#"{"j":"\u00fc\n"}"#, "ü\n"),
            (
                r#"{"j":12345678901234567890123}"#,
                "12345678901234567890123",
            ),
            (r#"{"j":1.0}"#, "1.0"),
            (r#"{"j":true}"#, "true"),
        ] {
            assert_eq!(
                decide(&params, json.as_bytes()),
                Ok((group.into(), ARRIVAL))
            );
        }
    }

    #[test]
    fn what_makes_no_group_is_rejected_by_name() {
        let params = params(&[("group-by", "/j")]);
        let long = format!(r#"{{"j":"{}"}}"#, "x".repeat(1_001));
        for (json, reason, detail) in [
            (
                "x",
                RejectReason::NotJson,
                "`/j` needs JSON, but the event is not JSON: expected value at line 1 column 1",
            ),
            (
                "",
                RejectReason::NotJson,
                "`/j` needs JSON, but the event is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                r#"{"k":1}"#,
                RejectReason::GroupMissing,
                "the event has no value at `/j`",
            ),
            (
                r#"{"j":null}"#,
                RejectReason::GroupMissing,
                "the event has no value at `/j`",
            ),
            (
                r#"{"j":""}"#,
                RejectReason::GroupInvalid,
                "`/j` is an empty string, a group key is a non-empty string, a number or a boolean: `\"\"`",
            ),
            (
                r#"{"j":[1]}"#,
                RejectReason::GroupInvalid,
                "`/j` is an array, a group key is a non-empty string, a number or a boolean: `[1]`",
            ),
            (
                r#"{"j":{}}"#,
                RejectReason::GroupInvalid,
                "`/j` is an object, a group key is a non-empty string, a number or a boolean: `{}`",
            ),
            (
                r#"{"j":"\ud800"}"#,
                RejectReason::GroupInvalid,
                "`/j` is a string with an invalid escape, a group key is a non-empty string, a number or a boolean: `\"\\ud800\"`",
            ),
            (
                long.as_str(),
                RejectReason::GroupTooLong,
                "the group key has 1001 bytes, the limit is 1000",
            ),
        ] {
            assert_eq!(
                decide(&params, json.as_bytes()),
                Err((reason, detail.into())),
                "{json}"
            );
        }
    }

    #[test]
    fn a_missing_group_may_have_a_home_but_bad_json_has_none() {
        let params = params(&[("group-by", "/j"), ("on-missing-group", "group:rest")]);
        assert_eq!(decide(&params, b"{}"), Ok(("rest".into(), ARRIVAL)));
        assert!(decide(&params, b"{").is_err());
        assert!(decide(&params, br#"{"j":[]}"#).is_err());
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        let params = params(&[("event-time", "/t")]);
        for (json, time) in [
            (r#"{"t":"2025-11-23T09:20:00.1239+01:00"}"#, ARRIVAL),
            (r#"{"t":1763886000123}"#, ARRIVAL),
            (r#"{"t":1763886000123.75}"#, ARRIVAL),
            (r#"{"t":0}"#, 0),
            (r#"{"t":253402207199999}"#, limits::MAX_TIME_MS),
        ] {
            assert_eq!(
                decide(&params, json.as_bytes()),
                Ok(("job-17/w3".into(), time)),
                "{json}"
            );
        }
        for bad in [
            "-1",
            "-0.5",
            "1e12",
            "253402207200000",
            "\"soon\"",
            "true",
            "null",
            "[]",
            "99999999999999999999",
        ] {
            let json = format!(r#"{{"t":{bad}}}"#);
            let reason = decide(&params, json.as_bytes()).map_err(|(reason, _)| reason);
            assert_eq!(reason, Err(RejectReason::EventTimeInvalid), "{bad}");
        }
        let reason = decide(&params, b"{}").map_err(|(reason, _)| reason);
        assert_eq!(reason, Err(RejectReason::EventTimeMissing));
    }

    #[test]
    fn details_quote_no_more_than_they_must() {
        let params = params(&[("group-by", "/j")]);
        let json = format!(r#"{{"j":["{}"]}}"#, "ü".repeat(5_000));
        let (_, detail) = decide(&params, json.as_bytes()).expect_err("an array");
        assert!(detail.len() < 300 && detail.ends_with("...`"), "{detail}");
    }
}
