//! JSON pointers (RFC 6901), and looking up one or two of them in an event without reading
//! more of it than needed.

use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use crate::skim::skim;

/// Most reference tokens of a pointer; deeper JSON is not followed.
pub const MAX_POINTER_TOKENS: usize = 64;

/// A JSON pointer with at least one reference token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It does not start with a slash.
    #[error("a JSON pointer starts with `/`")]
    NoSlash,
    /// A tilde is not followed by 0 or 1.
    #[error("`~` in a JSON pointer is written `~0`, and `/` in a name `~1`")]
    BadEscape,
    /// It is too deep.
    #[error("a JSON pointer may have at most {MAX_POINTER_TOKENS} parts")]
    TooDeep,
}

impl Pointer {
    /// Reads a pointer such as `/job/id` or `/items/0`.
    ///
    /// # Errors
    /// [`PointerError`] says which rule of RFC 6901 is broken.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let path = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        let tokens = path
            .split('/')
            .map(unescape)
            .collect::<Option<Vec<_>>>()
            .ok_or(PointerError::BadEscape)?;
        if tokens.len() > MAX_POINTER_TOKENS {
            return Err(PointerError::TooDeep);
        }
        Ok(Self {
            text: text.to_owned(),
            tokens,
        })
    }

    /// The reference token of a pointer that has only one.
    pub(crate) fn only_token(&self) -> Option<&str> {
        match self.tokens.as_slice() {
            [token] => Some(token),
            _ => None,
        }
    }

    /// The pointer as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

/// Pointers that one lookup follows.
pub const TARGETS: usize = 2;

/// A value that a pointer leads to.
#[derive(Debug, Clone)]
pub enum Value<'de> {
    /// A string.
    Text(Cow<'de, str>),
    /// A whole number without fraction and exponent.
    Whole(i64),
    /// Any other value as JSON text.
    Other(&'de RawValue),
}

/// What a lookup found for each pointer.
pub type Found<'de> = [Option<Value<'de>>; TARGETS];

/// Looks up the pointers in `json`, in one pass.
///
/// Of names that occur twice in an object the first one counts. Reading stops at the last value
/// that was asked for: what follows it is not looked at, and what was skipped before it is
/// checked for JSON grammar but not for UTF-8. Only when a pointer leads nowhere has the
/// whole event been read.
///
/// # Errors
/// The parser's message when `json` is not JSON, as far as it was read.
pub fn lookup<'de>(
    json: &'de [u8],
    pointers: [Option<&Pointer>; TARGETS],
) -> Result<Found<'de>, serde_json::Error> {
    if let Some(found) = skim(json, pointers) {
        return Ok(found);
    }
    // Strings and whole numbers are read where they stand. Whatever needs the JSON text itself
    // (a number as it was written, a string that stands for no text) costs a second look.
    match walk(json, pointers, Reading::Plain) {
        Ok((found, false)) => Ok(found),
        _ => walk(json, pointers, Reading::Text).map(|(found, _)| found),
    }
}

fn walk<'de>(
    json: &'de [u8],
    pointers: [Option<&Pointer>; TARGETS],
    reading: Reading,
) -> Result<(Found<'de>, bool), serde_json::Error> {
    let mut state = Lookup {
        pointers,
        reading,
        found: [None, None],
        missing: pointers.iter().flatten().count(),
        needs_text: false,
    };
    let active = [pointers[0].is_some(), pointers[1].is_some()];
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walked = Walk {
        state: &mut state,
        active,
        depth: 0,
    }
    .deserialize(&mut deserializer);
    if state.missing > 0 && !state.needs_text {
        walked.and_then(|()| deserializer.end())?;
    }
    // Otherwise the walk was left in the middle, and complains about that.
    Ok((state.found, state.needs_text))
}

/// How values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Strings and whole numbers only.
    Plain,
    /// Everything, as JSON text.
    Text,
}

struct Lookup<'p, 'de> {
    pointers: [Option<&'p Pointer>; TARGETS],
    reading: Reading,
    found: Found<'de>,
    missing: usize,
    /// A value cannot be taken without its text.
    needs_text: bool,
}

/// Which pointers lead through the value at hand.
type Active = [bool; TARGETS];

impl<'de> Lookup<'_, 'de> {
    /// Pointers among `active` whose token at `depth` satisfies `is`.
    fn step(&self, active: Active, depth: usize, is: impl Fn(&str) -> bool) -> Active {
        let mut next = [false; TARGETS];
        for (target, next) in next.iter_mut().enumerate() {
            *next = active[target]
                && self.found[target].is_none()
                && self.pointers[target]
                    .and_then(|pointer| pointer.tokens.get(depth))
                    .is_some_and(|token| is(token));
        }
        next
    }

    fn ends_at(&self, target: usize, depth: usize) -> bool {
        self.pointers[target].is_some_and(|pointer| pointer.tokens.len() == depth)
    }

    /// Notes the value of the active pointers that end here.
    fn fill(&mut self, active: &mut Active, depth: usize, value: &Value<'de>) {
        for (target, active) in active.iter_mut().enumerate() {
            if *active && self.ends_at(target, depth) {
                self.found[target] = Some(value.clone());
                self.missing -= 1;
                *active = false;
            }
        }
    }

    /// True when nothing that follows matters.
    fn is_done(&self) -> bool {
        self.missing == 0 || self.needs_text
    }
}

/// Walks into one value; `depth` tokens of the active pointers lead to it.
struct Walk<'a, 'p, 'de> {
    state: &'a mut Lookup<'p, 'de>,
    active: Active,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self {
            state,
            mut active,
            depth,
        } = self;
        if active == [false; TARGETS] {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        if !(0..TARGETS).any(|target| active[target] && state.ends_at(target, depth)) {
            return deserializer.deserialize_any(self::Walk {
                state,
                active,
                depth,
            });
        }
        let nested = (0..TARGETS).any(|target| active[target] && !state.ends_at(target, depth));
        if nested || state.reading == Reading::Text {
            let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
            let value = match raw.get().starts_with('"') {
                true => serde_json::from_str(raw.get()).map_or(Value::Other(raw), Value::Text),
                false => Value::Other(raw),
            };
            state.fill(&mut active, depth, &value);
            if !nested {
                return Ok(());
            }
            // One pointer leads through the value of the other.
            let mut nested = serde_json::Deserializer::from_str(raw.get());
            let walk = Walk {
                state,
                active,
                depth,
            };
            return walk.deserialize(&mut nested).map_err(D::Error::custom);
        }
        match deserializer.deserialize_any(Plain)? {
            Some(value) => state.fill(&mut active, depth, &value),
            None => state.needs_text = true,
        }
        Ok(())
    }
}

/// Reads strings and whole numbers; `None` for anything else, of which nothing was read.
struct Plain;

impl<'de> Visitor<'de> for Plain {
    type Value = Option<Value<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).ok().map(Value::Whole))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Whole(number)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Ok(None)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(active) = map.next_key_seed(Name {
            state: &*self.state,
            active: self.active,
            depth: self.depth,
        })? {
            map.next_value_seed(Walk {
                state: &mut *self.state,
                active,
                depth: self.depth + 1,
            })?;
            // Ending early is an error to the parser, but a cheaper one than any of our own.
            if self.state.is_done() {
                break;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0usize;
        loop {
            let is_index = |token: &str| {
                token.parse() == Ok(index)
                    && !token.starts_with('+')
                    && (index == 0 || !token.starts_with('0'))
                    && (index > 0 || token.len() == 1)
            };
            let active = self.state.step(self.active, self.depth, is_index);
            let walk = Walk {
                state: &mut *self.state,
                active,
                depth: self.depth + 1,
            };
            if seq.next_element_seed(walk)?.is_none() || self.state.is_done() {
                return Ok(());
            }
            index += 1;
        }
    }

    // Scalars hold nothing that a pointer could lead to.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a name and answers which pointers it is a step of.
struct Name<'a, 'p, 'de> {
    state: &'a Lookup<'p, 'de>,
    active: Active,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_, '_> {
    type Value = Active;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Active, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_> {
    type Value = Active;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Active, E> {
        Ok(self
            .state
            .step(self.active, self.depth, |token| token == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways must agree wherever the quick one answers.
    fn agree(json: &[u8], pointers: [Option<&Pointer>; TARGETS]) -> bool {
        let Some(quick) = skim(json, pointers) else {
            return false;
        };
        let (parsed, _) = walk(json, pointers, Reading::Text).expect("JSON, as far as it was read");
        let text = |found: Found<'_>| found.map(|value| value.map(json_of));
        assert_eq!(
            text(quick),
            text(parsed),
            "{}",
            String::from_utf8_lossy(json)
        );
        true
    }

    #[test]
    fn the_quick_way_answers_where_it_should() {
        let [a, t] = ["/a", "/t"].map(|text| Pointer::parse(text).expect("valid"));
        for (json, answers) in [
            (r#"{"a":"x","t":1}"#, true),
            (
                r#" { "x" : 1.5 , "a" : "x" , "t" : 123456789012345678 } "#,
                true,
            ),
            (r#"{"n":null,"b":true,"f":false,"t":0,"a":""}"#, true),
            (r#"{"a":"x","t":1, and so on"#, true),
            (r#"{"a":"x","a":"y","t":1}"#, true),
            (r#"{"a":"x"}"#, false),
            (
                r#"{"a":"
","t":1}"#,
                false,
            ),
            (r#"{"a":1.5,"t":1}"#, false),
            (r#"{"a":-1,"t":1}"#, false),
            (r#"{"a":01,"t":1}"#, false),
            (r#"{"a":1"#, false),
            (r#"{"o":{},"a":"x","t":1}"#, false),
            (r#"{"a":"x","t":1234567890123456789}"#, false),
            (r#"["a"]"#, false),
            ("", false),
        ] {
            assert_eq!(
                agree(json.as_bytes(), [Some(&a), Some(&t)]),
                answers,
                "{json}"
            );
        }
        assert!(agree(br#"{"a":1,"t":2}"#, [None, Some(&t)]));
        assert!(agree(br#"{"a":1,"t":2}"#, [Some(&t), Some(&t)]));
    }

    proptest::proptest! {
        #[test]
        fn the_quick_way_never_contradicts_the_parser(json in "\\{(\"[at]\" ?: ?[\"0-9.eatnul\\[{\\\\-]{1,5},?){1,4}\\}?") {
            let [a, t] = ["/a", "/t"].map(|text| Pointer::parse(text).expect("valid"));
            agree(json.as_bytes(), [Some(&a), Some(&t)]);
            agree(json.as_bytes(), [Some(&a), None]);
        }
    }

    fn find(json: &str, pointers: [&str; 2]) -> Result<[Option<String>; 2], String> {
        let parsed = pointers.map(|text| Pointer::parse(text).ok());
        lookup(json.as_bytes(), [parsed[0].as_ref(), parsed[1].as_ref()])
            .map(|found| found.map(|value| value.map(json_of)))
            .map_err(|error| error.to_string())
    }

    fn json_of(value: Value<'_>) -> String {
        match value {
            Value::Text(text) => format!("{text:?}"),
            Value::Whole(number) => number.to_string(),
            Value::Other(raw) => raw.get().to_owned(),
        }
    }

    fn one(json: &str, pointer: &str) -> Result<Option<String>, String> {
        find(json, [pointer, "none"]).map(|[first, _]| first)
    }

    #[test]
    fn the_examples_of_the_rfc_are_found() {
        let json = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        for (pointer, value) in [
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", "\"bar\""),
            ("/foo/1", "\"baz\""),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(one(json, pointer), Ok(Some(value.into())), "{pointer}");
        }
        for pointer in [
            "/foo/2", "/foo/-", "/foo/00", "/foo/01", "/foo/+1", "/foo/", "/bar", "/ /x",
        ] {
            assert_eq!(one(json, pointer), Ok(None), "{pointer}");
        }
    }

    #[test]
    fn two_pointers_are_found_in_one_pass_in_any_order() {
        let json = r#"{"a":{"x":1,"b":{"c":"deep"}},"t":5}"#;
        let found = |first: &str, second: &str| Ok([Some(first.into()), Some(second.into())]);
        assert_eq!(find(json, ["/t", "/a/b/c"]), found("5", "\"deep\""));
        assert_eq!(find(json, ["/a/b/c", "/t"]), found("\"deep\"", "5"));
        assert_eq!(
            find(json, ["/a/b", "/a/b/c"]),
            found("{\"c\":\"deep\"}", "\"deep\"")
        );
        assert_eq!(find(json, ["/a/x", "/a/b/c"]), found("1", "\"deep\""));
        assert_eq!(find(json, ["/t", "/t"]), found("5", "5"));
        assert_eq!(find(json, ["/a/b/x", "/t"]), Ok([None, Some("5".into())]));
    }

    #[test]
    fn reading_stops_at_the_last_value_and_not_before() {
        assert_eq!(one(r#"{"a":1,"a":2}"#, "/a"), Ok(Some("1".into())));
        assert_eq!(
            one(r#"{"a":1, this is no JSON"#, "/a"),
            Ok(Some("1".into()))
        );
        assert!(one(r#"{"a":1, this is no JSON"#, "/b").is_err());
        assert!(one(r#"{"b":1} x"#, "/a").is_err());
        for bad in ["", " ", "{", "[1,", "nul", "{\"a\"}", "\u{feff}{}"] {
            assert!(one(bad, "/a").is_err(), "{bad}");
        }
        for scalar in ["1", "-0.5e9", "\"text\"", "null", "true", "[]", "{}"] {
            assert_eq!(one(scalar, "/a"), Ok(None), "{scalar}");
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!(
            "{{\"a\":{}1{},\"b\":2}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(one(&deep, "/b"), Ok(Some("2".into())));
    }

    #[test]
    fn bad_pointers_are_named() {
        assert_eq!(Pointer::parse("job"), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse(""), Err(PointerError::NoSlash));
        assert_eq!(Pointer::parse("/a~"), Err(PointerError::BadEscape));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerError::BadEscape));
        assert_eq!(Pointer::parse(&"/a".repeat(65)), Err(PointerError::TooDeep));
        assert!(Pointer::parse(&"/a".repeat(64)).is_ok());
    }
}
