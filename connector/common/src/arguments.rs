//! What a connector binary is called with: `--config PATH [--secrets PATH]`.

use std::ffi::OsString;
use std::path::PathBuf;

/// The arguments of Fluvio's connector contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorArguments {
    /// Configuration of the one connector.
    pub config: PathBuf,
    /// File of `KEY=value` lines; without it, secrets are environment variables.
    pub secrets: Option<PathBuf>,
}

/// Why the arguments are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// `--config` is not given.
    #[error("`--config PATH` is missing")]
    NoConfig,
    /// An option without its value.
    #[error("`{0}` needs a path after it")]
    NoValue(&'static str),
    /// An option that is given twice.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// Anything else.
    #[error("argument `{0}` is not known; known are `--config PATH` and `--secrets PATH`")]
    Unknown(String),
}

impl ConnectorArguments {
    /// Reads the arguments that follow the program's name.
    ///
    /// # Errors
    /// The first argument that is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let mut config = None;
        let mut secrets = None;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let (name, joined) = match text.split_once('=') {
                Some((name, value)) => (name, Some(PathBuf::from(value))),
                None => (text.as_str(), None),
            };
            let (name, slot) = match name {
                "--config" => ("--config", &mut config),
                "--secrets" => ("--secrets", &mut secrets),
                _ => return Err(ArgumentError::Unknown(text)),
            };
            let value = joined
                .or_else(|| arguments.next().map(PathBuf::from))
                .filter(|path| !path.as_os_str().is_empty())
                .ok_or(ArgumentError::NoValue(name))?;
            if slot.replace(value).is_some() {
                return Err(ArgumentError::Twice(name));
            }
        }
        let config = config.ok_or(ArgumentError::NoConfig)?;
        Ok(Self { config, secrets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<ConnectorArguments, ArgumentError> {
        ConnectorArguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn both_spellings() {
        let expected = ConnectorArguments {
            config: "c.yaml".into(),
            secrets: Some("s.env".into()),
        };
        let apart = parse(&["--config", "c.yaml", "--secrets", "s.env"]);
        assert_eq!(apart, Ok(expected.clone()));
        assert_eq!(parse(&["--secrets=s.env", "--config=c.yaml"]), Ok(expected));
    }

    #[test]
    fn refusals() {
        for (arguments, error) in [
            (&[][..], ArgumentError::NoConfig),
            (&["--config"], ArgumentError::NoValue("--config")),
            (&["--config="], ArgumentError::NoValue("--config")),
            (
                &["--config=a", "--config=b"],
                ArgumentError::Twice("--config"),
            ),
            (&["--help"], ArgumentError::Unknown("--help".into())),
        ] {
            assert_eq!(parse(arguments), Err(error), "{arguments:?}");
        }
    }
}
