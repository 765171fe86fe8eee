//! The configuration: what was typed ([`typed`]) is kept apart from what will run ([`Config`]).
//!
//! [`Config::load`] reads the file under the rules of [`crate::trust`] and gives every problem at
//! once. Settings wait for the manifest: [`Settings::check`].

mod document;
mod effective;
mod filter;
mod problem;
mod quantity;
mod reference;
mod resolve;
mod settings;
mod typed;
mod value;

use std::path::Path;

pub use effective::{Agent, Config, DEFAULT_FILE, Flags, Guard, Metrics, Policy, Probe};
pub use filter::Filter;
pub use problem::{Problem, Problems};
pub use quantity::parse_time;
pub use reference::reference;
pub use settings::Settings;
pub use value::{Attach, DenyField, Listen, Name, Protected, is_name};

use self::document::Reader;
use crate::{
    guard::Mode,
    trust::{Trust, TrustError},
};

/// Longest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file may not or cannot be read.
    #[error(transparent)]
    File(#[from] TrustError),
    /// What is in it is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl Config {
    /// Reads `file`; where none is named [`DEFAULT_FILE`], which may be missing.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        let config = Self::load_trusting(&Trust::of(Mode::Observe), file, flags)?;
        match config.agent.mode {
            Mode::Observe => Ok(config),
            // The mode is only known now: read anew under its rules.
            mode => Self::load_trusting(&Trust::of(mode), file, flags),
        }
    }

    /// Reads it as what decides how far the agent goes in `mode`, whatever the file says of the mode.
    pub fn load_for(mode: Mode, file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        let mut config = match mode {
            Mode::Observe => Self::load(file, flags)?,
            _ => Self::load_trusting(&Trust::of(mode), file, flags)?,
        };
        config.agent.mode = mode;
        Ok(config)
    }

    fn load_trusting(
        trust: &Trust,
        file: Option<&Path>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let bytes = match trust.read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if file.is_none() && error.is_missing() => {
                return Ok(Self::resolve_text(None, "", flags)?);
            }
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = document::line(valid);
            let message = "expected UTF-8, found other bytes".to_owned();
            Problems(vec![Problem {
                file: path.to_owned(),
                line: Some(line),
                key: String::new(),
                message,
            }])
        })?;
        Ok(Self::resolve_text(Some(path), &text, flags)?)
    }

    /// What `text`, found in `file`, means.
    fn resolve_text(file: Option<&Path>, text: &str, flags: &Flags) -> Result<Self, Problems> {
        let typed = Reader::read(file.unwrap_or(Path::new("")), text)?;
        Self::resolve(typed, file, flags)
    }
}

#[cfg(test)]
mod tests;
