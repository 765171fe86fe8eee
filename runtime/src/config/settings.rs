//! `[policy.NAME.settings]`: what it may hold is only known when the policy's manifest is.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize as _;
use toml::{Spanned, de::ValueDeserializer};

use super::{
    document::{Node, Reader, Value},
    problem::{Problem, Problems},
};
use crate::manifest::{Manifest, SettingError};

/// The settings that the operator gave one policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    table: toml::Table,
    lines: BTreeMap<String, usize>,
}

impl Value for Settings {
    fn expected() -> String {
        "a table".to_owned()
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.value.is_table() {
            reader.mismatch::<Self>(node);
            return None;
        }
        let lines =
            node.entries().map(|(name, span, _)| (name.to_owned(), reader.line(span.start)));
        let lines = lines.collect();
        match toml::Table::deserialize(ValueDeserializer::from(Spanned::new(
            node.span.clone(),
            node.value.clone(),
        ))) {
            Ok(table) => Some(Self { table, lines }),
            Err(error) => {
                let at = error.span().unwrap_or(node.span.clone());
                reader.problem(&at, &node.key, error.message().to_owned());
                None
            }
        }
    }
}

impl Settings {
    /// Each setting of the manifest exactly once, in its order, with its value as plain TOML: as the
    /// operator gave it, else the default. `file` is the configuration file, for the messages.
    pub fn check(
        &self,
        manifest: &Manifest,
        file: Option<&Path>,
    ) -> Result<Vec<(String, String)>, Problems> {
        let mut table = self.table.clone();
        let mut manifest = manifest.clone();
        let mut problems = Vec::new();
        // Each round takes out what was wrong, so that all of it is told.
        loop {
            let error = match manifest.settings(&table) {
                Ok(settings) if problems.is_empty() => return Ok(settings),
                Ok(_) => return Err(Problems(problems)),
                Err(error) => error,
            };
            problems.push(Problem {
                file: file.unwrap_or(Path::new("(no configuration file)")).to_owned(),
                line: self.lines.get(error.key()).copied(),
                key: format!("policy.{}.settings.{}", manifest.name, error.key()),
                message: error.to_string(),
            });
            match &error {
                SettingError::Unknown { key, .. } => drop(table.remove(key)),
                SettingError::Type { key, .. } | SettingError::Missing { key, .. } => {
                    table.remove(key);
                    manifest.settings.retain(|setting| setting.name != *key);
                }
            }
        }
    }
}
