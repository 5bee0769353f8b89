//! Page tokens: where a read stands, as a text that resumes it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millpond_format::keys::SortKey;
use serde::{Deserialize, Serialize};

use crate::error::ReadError;

/// Version of the tokens that this build writes, and the only one that it reads: a token is of
/// the moment, nobody keeps one through an upgrade.
const VERSION: u32 = 1;

/// Longest token that is looked at: positions in a hundred thousand chains.
const MAX_TOKEN_BYTES: usize = 16 << 20;

/// Where the reading of a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainPosition {
    /// Sort key of the item that held the last event given out.
    pub(crate) sk: String,
    /// What of this item was given out; `None` for all of it.
    pub(crate) within: Option<Within>,
}

/// A place in an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Within {
    /// Index of the frame.
    pub(crate) frame: usize,
    /// Events of it that lie behind.
    pub(crate) events: usize,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    version: u32,
    pub(crate) pipeline: String,
    pub(crate) group: String,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// By topic partition; a chain without a position is read from its start.
    pub(crate) chains: Vec<(u32, ChainPosition)>,
}

impl Token {
    pub(crate) fn new(
        (pipeline, group): (&str, &str),
        (from_ms, to_ms): (i64, i64),
        chains: Vec<(u32, ChainPosition)>,
    ) -> Self {
        Self {
            version: VERSION,
            pipeline: pipeline.to_owned(),
            group: group.to_owned(),
            from_ms,
            to_ms,
            chains,
        }
    }

    pub(crate) fn with_chains(&self, chains: Vec<(u32, ChainPosition)>) -> Self {
        Self {
            chains,
            ..self.clone()
        }
    }

    /// JSON and its CRC-32C, in base64.
    pub(crate) fn to_text(&self) -> String {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that must be one of this read.
    ///
    /// # Errors
    /// [`ReadError::PageToken`].
    pub(crate) fn parse(text: &str, of: &Self) -> Result<Self, ReadError> {
        let refuse = |problem: &str| {
            Err(ReadError::PageToken {
                problem: problem.to_owned(),
            })
        };
        if text.len() > MAX_TOKEN_BYTES {
            return refuse("it is longer than any that was given out");
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).unwrap_or_default();
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
            return refuse("it is not one that was given out");
        };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return refuse("it was changed or cut off");
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        match serde_json::from_slice(body) {
            Ok(Version { version: VERSION }) => {}
            _ => return refuse("it is of another version of Millpond"),
        }
        let Ok(token) = serde_json::from_slice::<Self>(body) else {
            return refuse("it is not one that was given out");
        };
        let keys = token.chains.iter().map(|(_, position)| &position.sk);
        if keys.into_iter().any(|sk| SortKey::parse(sk).is_none()) {
            return refuse("it is not one that was given out");
        }
        if token.pipeline != of.pipeline || token.group != of.group {
            return Err(ReadError::PageToken {
                problem: format!(
                    "it is of group `{}` of pipeline `{}`",
                    token.group, token.pipeline
                ),
            });
        }
        if (token.from_ms, token.to_ms) != (of.from_ms, of.to_ms) {
            return refuse("it is of another range of times");
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let position = ChainPosition {
            sk: "2025-11-23T08:20:00.123Z/0000000000000000042/00003".into(),
            within: Some(Within {
                frame: 3,
                events: 17,
            }),
        };
        let whole = ChainPosition {
            within: None,
            ..position.clone()
        };
        Token::new(
            ("p", "g#1/ü"),
            (0, i64::MAX),
            vec![(0, position), (7, whole)],
        )
    }

    #[test]
    fn a_token_says_what_it_was_made_of_and_is_of_one_read() {
        let token = token();
        let text = token.to_text();
        assert_eq!(Token::parse(&text, &token), Ok(token.clone()));
        for (other, said) in [
            (
                Token {
                    pipeline: "q".into(),
                    ..token.clone()
                },
                "pipeline `p`",
            ),
            (
                Token {
                    group: "h".into(),
                    ..token.clone()
                },
                "group `g#1/ü`",
            ),
            (Token { to_ms: 5, ..token }, "range of times"),
        ] {
            let error = Token::parse(&text, &other).expect_err("another read");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn whatever_was_changed_is_refused() {
        let token = token();
        let text = token.to_text();
        for cut in 0..text.len() {
            assert!(Token::parse(&text[..cut], &token).is_err(), "{cut}");
        }
        for index in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("text");
            assert!(Token::parse(&other, &token).is_err(), "{index}");
        }
        let newer = Token {
            version: 2,
            ..token.clone()
        }
        .to_text();
        let error = Token::parse(&newer, &token).expect_err("newer");
        assert!(error.to_string().contains("another version"), "{error}");
        let mut foreign = token.clone();
        foreign.chains[0].1.sk = "zzz".into();
        assert!(Token::parse(&foreign.to_text(), &token).is_err());
    }
}
