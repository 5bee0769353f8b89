//! Every value that a pointer leads to in an event, read in one pass.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::mapping::pointer::{self, Pointer};

/// Gives each of these values, as it is written.
///
/// # Errors
/// The parser's words for what is not JSON; values before that were given.
pub(super) fn values(
    event: &[u8],
    pointer: &Pointer,
    found: &mut impl FnMut(&str),
) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(event);
    let tokens = pointer.tokens();
    Walk { tokens, found }.deserialize(&mut json)?;
    json.end()
}

/// Walks along the rest of a pointer. Of members with one name every one counts: who reads the event may take
/// any of them.
struct Walk<'a, F> {
    tokens: &'a [String],
    found: &'a mut F,
}

impl<'de, F: FnMut(&str)> DeserializeSeed<'de> for Walk<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.tokens.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        (self.found)(raw.get());
        Ok(())
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for Walk<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((name, tokens)) = self.tokens.split_first() else {
            return Ok(());
        };
        while let Some(is_it) = map.next_key_seed(Is(name))? {
            if is_it {
                let found = &mut *self.found;
                map.next_value_seed(Walk { tokens, found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((token, tokens)) = self.tokens.split_first() else {
            return Ok(());
        };
        let index = pointer::index(token);
        for at in 0.. {
            let found = &mut *self.found;
            let goes_on = match index == Some(at) {
                true => seq.next_element_seed(Walk { tokens, found })?.is_some(),
                false => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    // The pointer leads on from here, and nothing is there.
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

/// Whether the name of a member is this one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}
