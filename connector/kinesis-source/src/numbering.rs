//! By which rules records become events: other rules number them otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Aggregated;

/// Which payloads are opened on their way in.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Decompress {
    /// None: an event is what was put.
    #[default]
    None,
    /// Those that begin as gzip or zstd do. Others are as they are.
    Auto,
    /// All; one that is no gzip is a dead letter.
    Gzip,
    /// All; one that is no zstd is a dead letter.
    Zstd,
}

/// What decides which events a record becomes, and so their ordinals. A checkpoint holds the
/// rules that its numbering was made by; under others a new numbering begins.
///
/// Its text is that of [`Aggregated`], and from the second rules on `+` and that of [`Decompress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Numbering {
    /// What is made of aggregated records.
    pub aggregated: Aggregated,
    /// Which payloads are opened.
    pub decompress: Decompress,
    /// Records that cannot be taken apart are no events and have no ordinals. Before that they
    /// were events.
    has_letters: bool,
}

impl Numbering {
    /// The rules of today.
    #[must_use]
    pub const fn new(aggregated: Aggregated, decompress: Decompress) -> Self {
        Self {
            aggregated,
            decompress,
            has_letters: true,
        }
    }
}

impl From<Aggregated> for Numbering {
    fn from(aggregated: Aggregated) -> Self {
        Self::new(aggregated, Decompress::None)
    }
}

/// What stands where nothing was said: the first rules.
impl Default for Numbering {
    fn default() -> Self {
        Self {
            has_letters: false,
            ..Aggregated::Off.into()
        }
    }
}

impl fmt::Display for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.aggregated {
            Aggregated::Auto => "auto",
            Aggregated::KeepStray => "keep-stray",
            Aggregated::Off => "off",
        })?;
        if !self.has_letters {
            return Ok(());
        }
        f.write_str(match self.decompress {
            Decompress::None => "+none",
            Decompress::Auto => "+auto",
            Decompress::Gzip => "+gzip",
            Decompress::Zstd => "+zstd",
        })
    }
}

impl From<Numbering> for String {
    fn from(numbering: Numbering) -> Self {
        numbering.to_string()
    }
}

impl TryFrom<String> for Numbering {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (aggregated, decompress) = match text.split_once('+') {
            Some((aggregated, decompress)) => (aggregated, Some(decompress)),
            None => (text.as_str(), None),
        };
        let unknown = || format!("`{text}` are no rules of numbering that are known here");
        Ok(Self {
            aggregated: match aggregated {
                "auto" => Aggregated::Auto,
                "keep-stray" => Aggregated::KeepStray,
                "off" => Aggregated::Off,
                _ => return Err(unknown()),
            },
            decompress: match decompress {
                None | Some("none") => Decompress::None,
                Some("auto") => Decompress::Auto,
                Some("gzip") => Decompress::Gzip,
                Some("zstd") => Decompress::Zstd,
                Some(_) => return Err(unknown()),
            },
            has_letters: decompress.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_text_agree_and_older_rules_are_others() {
        for aggregated in [Aggregated::Auto, Aggregated::KeepStray, Aggregated::Off] {
            for decompress in [
                Decompress::None,
                Decompress::Auto,
                Decompress::Gzip,
                Decompress::Zstd,
            ] {
                let rules = Numbering::new(aggregated, decompress);
                let text = serde_json::to_string(&rules).expect("text");
                assert_eq!(
                    serde_json::from_str::<Numbering>(&text).expect("rules"),
                    rules
                );
                let older = text.replace("+none", "");
                let older = serde_json::from_str::<Numbering>(&older).expect("rules");
                assert_eq!(older == rules, decompress != Decompress::None);
            }
        }
        assert_eq!(Numbering::default().to_string(), "off");
        for bad in ["", "auto+", "auto+lz4", "some", "auto+gzip+none"] {
            assert!(Numbering::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
