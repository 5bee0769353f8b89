//! JSON pointers (RFC 6901) into an event.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most reference tokens of a pointer.
const MAX_TOKENS: usize = 64;

/// A JSON pointer; the empty one is the whole event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer such as `/order/id` or `/items/0`.
    ///
    /// # Errors
    /// Which rule is broken, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let tokens: Vec<String> = if text.is_empty() {
            Vec::new()
        } else {
            let path = text
                .strip_prefix('/')
                .ok_or("is no JSON pointer: it starts with `/`")?;
            let tokens: Option<_> = path.split('/').map(unescaped).collect();
            tokens.ok_or("is no JSON pointer: `~` in it is written `~0`, and `/` in a name `~1`")?
        };
        if tokens.len() > MAX_TOKENS {
            return Err("is a JSON pointer of more than 64 parts");
        }
        Ok(Self {
            text: text.to_owned(),
            tokens,
        })
    }

    /// The pointer that leads to a member of the event with this name.
    #[must_use]
    pub fn to_member(name: &str) -> Self {
        Self {
            text: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            tokens: vec![name.to_owned()],
        }
    }

    /// Its reference tokens.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

impl TryFrom<String> for Pointer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The index of an element that a reference token stands for; `None` for one that stands for a name only.
#[must_use]
pub fn index(token: &str) -> Option<usize> {
    let is_index = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| is_index)
}

fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(1)?;
        out.push(match escaped {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_follow_the_rfc() {
        let tokens = |text: &str| Pointer::parse(text).map(|pointer| pointer.tokens);
        assert_eq!(tokens(""), Ok(vec![]));
        assert_eq!(tokens("/"), Ok(vec![String::new()]));
        assert_eq!(tokens("/a~1b/~0~01"), Ok(vec!["a/b".into(), "~~1".into()]));
        for bad in ["a", "/~", "/~2", &"/a".repeat(65)] {
            assert!(Pointer::parse(bad).is_err(), "{bad}");
        }
        for name in ["a/b", "~", "", "x~1"] {
            let pointer = Pointer::to_member(name);
            assert_eq!(Pointer::parse(&pointer.text).as_ref(), Ok(&pointer));
        }
    }
}
