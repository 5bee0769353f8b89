//! Texts put together from an event: keys, and attributes that are strings.

use millpond_format::keys;

use super::pointer::Pointer;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A field of the event: a string, a number or a boolean.
    Field(Pointer),
    /// The Kinesis partition key.
    PartitionKey,
    /// The event time, RFC 3339 in UTC with three decimals.
    Time,
    /// Where the event is in the topic: no two events have the same.
    Position,
}

/// A text with placeholders in braces: `order#{/order/id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads a template; `{{` and `}}` are braces.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let from = &rest[at..];
            if let Some(doubled) = from.get(..2).filter(|two| *two == "{{" || *two == "}}") {
                plain.push_str(&doubled[..1]);
                rest = &from[2..];
                continue;
            }
            let Some(inner) = from.strip_prefix('{') else {
                return Err("has a `}` without `{`; write `}}` for the character".into());
            };
            let Some((name, after)) = inner.split_once('}') else {
                return Err("has a `{` without `}`; write `{{` for the character".into());
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(placeholder(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        if parts.is_empty() {
            return Err("is empty".into());
        }
        Ok(Self(parts))
    }

    /// Its pieces.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// True when no two events give the same text: its last piece is their position, which
    /// always has the same length.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.0.last() == Some(&Part::Position)
    }
}

fn placeholder(name: &str) -> Result<Part, String> {
    match name {
        "partition-key" => Ok(Part::PartitionKey),
        "time" => Ok(Part::Time),
        "position" => Ok(Part::Position),
        _ if name.starts_with('/') => match Pointer::parse(name) {
            Ok(pointer) => Ok(Part::Field(pointer)),
            Err(why) => Err(format!("holds `{{{name}}}`, which {why}")),
        },
        _ => Err(format!(
            "holds `{{{name}}}`, which is none of a JSON pointer such as `{{/id}}`, \
             `{{partition-key}}`, `{{time}}`, `{{position}}`"
        )),
    }
}

/// Where an event is in the topic, as text of one length that sorts by partition and offset.
#[must_use]
pub fn position(partition: u32, offset: u64) -> String {
    format!("{partition:05}-{offset:019}")
}

/// Text that sorts by event time and then by position: no two events have the same.
#[must_use]
pub fn order(time_ms: i64, partition: u32, offset: u64) -> String {
    format!(
        "{}/{}",
        keys::time_text(time_ms),
        position(partition, offset)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_in_braces() {
        let template =
            Template::parse("a{{{/b/c}}}#{partition-key}{time}{position}").expect("good");
        let pointer = Pointer::parse("/b/c").expect("a pointer");
        assert_eq!(
            template.parts(),
            [
                Part::Text("a{".into()),
                Part::Field(pointer),
                Part::Text("}#".into()),
                Part::PartitionKey,
                Part::Time,
                Part::Position
            ]
        );
        assert!(template.is_unique());
        assert!(!Template::parse("{position}x").expect("good").is_unique());
        for (bad, said) in [
            ("", "empty"),
            ("{a", "without `}`"),
            ("a}", "without `{`"),
            ("{id}", "`{id}`"),
            ("{/~x}", "JSON pointer"),
            ("{}", "none of"),
        ] {
            let error = Template::parse(bad).expect_err(bad);
            assert!(error.contains(said), "{bad}: {error}");
        }
    }

    #[test]
    fn positions_sort_as_text() {
        assert!(position(9, 99) < position(10, 7));
        assert!(position(1, 9) < position(1, 10));
        assert!(order(1, 5, 5) < order(2, 0, 0));
    }
}
