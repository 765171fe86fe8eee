//! What the operator set, checked against what the policy takes, and written as the policy reads it.

use std::fmt::Write as _;

use super::{Manifest, Setting, SettingType};

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The policy takes no such setting.
    #[error("the policy `{policy}` has no setting `{key}`{}", known_list(known))]
    Unknown {
        /// Name of the policy.
        policy: String,
        /// Key in `[policy.NAME.settings]`.
        key: String,
        /// The settings that it takes.
        known: Vec<String>,
    },
    /// The value is of another type.
    #[error(
        "setting `{key}` of the policy `{policy}` is {found}, expected {expected} as in `{key} = {example}`"
    )]
    Type {
        /// Name of the policy.
        policy: String,
        /// Key in `[policy.NAME.settings]`.
        key: String,
        /// Type that was found.
        found: &'static str,
        /// Type of the setting.
        expected: SettingType,
        /// A value of that type.
        example: &'static str,
    },
    /// There is neither a value nor a default.
    #[error(
        "the policy `{policy}` needs the setting `{key}` ({doc}): give it in [policy.{policy}.settings] as in `{key} = {example}`"
    )]
    Missing {
        /// Name of the policy.
        policy: String,
        /// Key in `[policy.NAME.settings]`.
        key: String,
        /// What the setting does.
        doc: String,
        /// A value of its type.
        example: &'static str,
    },
}

impl SettingError {
    /// Key in `[policy.NAME.settings]`.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Unknown { key, .. } | Self::Type { key, .. } | Self::Missing { key, .. } => key,
        }
    }
}

fn known_list(known: &[String]) -> String {
    if known.is_empty() {
        "; it takes none".to_owned()
    } else {
        format!("; it takes {}", known.join(", "))
    }
}

impl Manifest {
    /// Checks `given`, the table `[policy.NAME.settings]`, and adds the defaults: each setting once,
    /// in the manifest's order, its value written as TOML.
    pub fn settings(&self, given: &toml::Table) -> Result<Vec<(String, String)>, SettingError> {
        if let Some(key) =
            given.keys().find(|key| !self.settings.iter().any(|setting| setting.name == **key))
        {
            return Err(SettingError::Unknown {
                policy: self.name.clone(),
                key: key.clone(),
                known: self.settings.iter().map(|setting| setting.name.clone()).collect(),
            });
        }
        self.settings
            .iter()
            .map(|setting| Ok((setting.name.clone(), self.value(setting, given)?)))
            .collect()
    }

    fn value(&self, setting: &Setting, given: &toml::Table) -> Result<String, SettingError> {
        let policy = self.name.clone();
        let key = setting.name.clone();
        let example = setting.ty.example();
        match (given.get(&key), &setting.default) {
            (Some(value), _) => setting.ty.write(value).ok_or(SettingError::Type {
                policy,
                key,
                found: value.type_str(),
                expected: setting.ty,
                example,
            }),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => {
                Err(SettingError::Missing { policy, key, doc: setting.doc.clone(), example })
            }
        }
    }
}

impl SettingType {
    /// A value of this type, as TOML.
    #[must_use]
    pub fn example(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or("", |entry| entry.2)
    }

    /// `value` as TOML on one line, in the plainest form: decimal integers, strings in double
    /// quotes. `None` if it is of another type.
    pub(super) fn write(self, value: &toml::Value) -> Option<String> {
        match (self, value) {
            (Self::Text, toml::Value::String(text)) => Some(quote(text)),
            (Self::Integer, toml::Value::Integer(number)) => Some(number.to_string()),
            (Self::Number, toml::Value::Integer(number)) => Some(format!("{number}.0")),
            (Self::Number, toml::Value::Float(number)) if number.is_finite() => {
                Some(format!("{number:?}"))
            }
            (Self::Boolean, toml::Value::Boolean(flag)) => Some(flag.to_string()),
            (Self::Texts, toml::Value::Array(values)) => array(values, Self::Text),
            (Self::Integers, toml::Value::Array(values)) => array(values, Self::Integer),
            _ => None,
        }
    }
}

fn array(values: &[toml::Value], each: SettingType) -> Option<String> {
    let written: Option<Vec<String>> = values.iter().map(|value| each.write(value)).collect();
    Some(format!("[{}]", written?.join(", ")))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        r#"
        name = "p"
        version = "1"
        [[setting]]
        name = "ports"
        type = "integers"
        doc = "Expected ports."
        default = [80]
        [[setting]]
        name = "share"
        type = "number"
        doc = "Share of something."
        "#
        .parse()
        .unwrap()
    }

    fn settings(text: &str) -> Result<Vec<(String, String)>, SettingError> {
        manifest().settings(&text.parse().unwrap())
    }

    #[test]
    fn defaults_fill_what_the_operator_left_out() {
        let found = settings("share = 1").unwrap();
        assert_eq!(found, [("ports".into(), "[80]".into()), ("share".into(), "1.0".into())]);
        assert_eq!(settings("share = 0.25\nports = [0x10, 1_000]").unwrap()[0].1, "[16, 1000]");
    }

    #[test]
    fn an_unknown_setting_and_a_wrong_type_are_named() {
        assert_eq!(
            settings("share = 1\nport = 1").unwrap_err().to_string(),
            "the policy `p` has no setting `port`; it takes ports, share"
        );
        assert_eq!(
            settings("share = \"1\"").unwrap_err().to_string(),
            "setting `share` of the policy `p` is string, expected number as in `share = 0.5`"
        );
        assert!(matches!(
            settings("share = 1\nports = [1, \"a\"]"),
            Err(SettingError::Type { .. })
        ));
        assert!(matches!(settings("share = nan"), Err(SettingError::Type { .. })));
    }

    #[test]
    fn a_setting_without_default_must_be_given() {
        assert!(
            settings("")
                .unwrap_err()
                .to_string()
                .contains("needs the setting `share` (Share of something.)")
        );
    }

    #[test]
    fn strings_are_written_so_that_toml_reads_them_back() {
        let text = "a\"\\\n\t\u{1b}\u{7f}é'''\"\"\"";
        let table: toml::Table = format!("x = {}", quote(text)).parse().unwrap();
        assert_eq!(table["x"].as_str(), Some(text));
    }
}
