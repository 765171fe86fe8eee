//! From text to [`Manifest`].

use std::{collections::HashSet, str::FromStr};

use serde::Deserialize;
use tipstaff_events::sample::{self, By, Sample};

use super::{Ask, AskType, Manifest, Setting, SettingType, Subscription};

/// Longest manifest, in bytes.
pub const MAX_TEXT: usize = 256 << 10;
/// Most subscriptions: their index is one byte in each row, and 255 stays free.
pub const MAX_SUBSCRIPTIONS: usize = 255;
/// Most fields of one subscription.
pub const MAX_FIELDS: usize = 64;
/// Most optional fields of one subscription: bits in a row's `absent` mask.
pub const MAX_OPTIONAL: usize = 32;
/// Longest condition of a subscription, in bytes.
const MAX_CONDITION: usize = 4096;
/// Most settings.
pub const MAX_SETTINGS: usize = 256;
/// Longest name of anything, in bytes.
const MAX_NAME: usize = 64;
/// Longest documentation of a setting, in bytes.
const MAX_DOC: usize = 4096;
/// Shortest and longest time between two ticks.
const TICK_NS: std::ops::RangeInclusive<u64> = 10_000_000..=86_400_000_000_000;

/// Shortest and longest time between two rows of an aggregated kind: maps are read so often.
const EVERY_NS: std::ops::RangeInclusive<u64> = 100_000_000..=86_400_000_000_000;

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ManifestError {
    /// Line of the manifest, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    name: String,
    version: String,
    tick: Option<String>,
    #[serde(default)]
    subscribe: Vec<RawSubscription>,
    #[serde(default)]
    setting: Vec<RawSetting>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubscription {
    event: String,
    fields: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(rename = "where")]
    condition: Option<String>,
    every: Option<String>,
    #[serde(default)]
    urgent: bool,
    sample: Option<u64>,
    sample_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSetting {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    doc: String,
    default: Option<toml::Value>,
}

impl FromStr for Manifest {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_TEXT {
            return Err(refuse(format!(
                "it has {} bytes, at most {MAX_TEXT} are allowed",
                text.len()
            )));
        }
        let raw: RawManifest = toml::from_str(text).map_err(|error| ManifestError {
            line: error.span().map(|span| 1 + text[..span.start].matches('\n').count()),
            message: error.message().to_owned(),
        })?;
        check(raw)
    }
}

fn refuse(message: String) -> ManifestError {
    ManifestError { line: None, message }
}

fn check(raw: RawManifest) -> Result<Manifest, ManifestError> {
    if !is_policy_name(&raw.name) {
        return Err(refuse(format!(
            "name {:?} is not a policy's name: [a-z][a-z0-9-]*, {MAX_NAME} bytes at most",
            raw.name
        )));
    }
    if raw.version.is_empty()
        || raw.version.len() > MAX_NAME
        || !raw.version.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(refuse(format!(
            "version {:?} is not 1 to {MAX_NAME} printable ASCII characters without spaces",
            raw.version
        )));
    }
    at_most(raw.subscribe.len(), MAX_SUBSCRIPTIONS, "subscriptions")?;
    at_most(raw.setting.len(), MAX_SETTINGS, "settings")?;
    let mut names = HashSet::new();
    if let Some(twice) = raw.setting.iter().find(|setting| !names.insert(setting.name.clone())) {
        return Err(refuse(format!("setting {:?} is there twice", twice.name)));
    }
    Ok(Manifest {
        name: raw.name,
        version: raw.version,
        tick_ns: raw.tick.as_deref().map(|text| time("tick", text, &TICK_NS)).transpose()?,
        subscriptions: raw.subscribe.into_iter().map(subscription).collect::<Result<_, _>>()?,
        settings: raw.setting.into_iter().map(setting).collect::<Result<_, _>>()?,
    })
}

fn at_most(found: usize, limit: usize, what: &str) -> Result<(), ManifestError> {
    if found > limit {
        Err(refuse(format!("{found} {what}, at most {limit} are allowed")))
    } else {
        Ok(())
    }
}

fn is_policy_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Names of kinds, fields and settings. Kinds and fields of tracepoints bear the kernel's names.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

fn time(
    key: &str,
    text: &str,
    range: &std::ops::RangeInclusive<u64>,
) -> Result<u64, ManifestError> {
    const UNITS: &[(&str, u64)] =
        &[("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
    UNITS
        .iter()
        .find_map(|(unit, ns)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*ns))
        .filter(|ns| range.contains(ns))
        .ok_or_else(|| {
            let least = range.start() / 1_000_000;
            refuse(format!(
                "{key} {text:?} is not a time from \"{least}ms\" to \"24h\" (ms, s, m, h)"
            ))
        })
}

fn subscription(raw: RawSubscription) -> Result<Subscription, ManifestError> {
    let event = raw.event.clone();
    if !is_name(&event) {
        return Err(refuse(format!("event {event:?} is not the name of an event kind")));
    }
    let within =
        |error: ManifestError| refuse(format!("subscription to `{event}`: {}", error.message));
    at_most(raw.fields.len(), MAX_FIELDS, "fields").map_err(within)?;
    let fields =
        raw.fields.iter().map(|text| ask(text)).collect::<Result<Vec<_>, _>>().map_err(within)?;
    at_most(fields.iter().filter(|ask| ask.optional).count(), MAX_OPTIONAL, "optional fields")
        .map_err(within)?;
    let mut seen = HashSet::new();
    if let Some(twice) = fields.iter().find(|ask| !seen.insert((&ask.name, ask.ty))) {
        return Err(within(refuse(format!("field {}:{} is there twice", twice.name, twice.ty))));
    }
    if let Some(condition) = &raw.condition {
        at_most(condition.len(), MAX_CONDITION, "bytes of `where`").map_err(within)?;
    }
    let every = raw.every.as_deref().map(|text| time("every", text, &EVERY_NS));
    let every_ns = every.transpose().map_err(within)?;
    if raw.urgent && every_ns.is_some() {
        return Err(within(refuse(
            "it has `urgent` and `every`: rows that are added up over a time cannot be delivered at once"
                .to_owned(),
        )));
    }
    let sample = sample(raw.sample, raw.sample_by.as_deref()).map_err(within)?;
    let RawSubscription { optional, condition, urgent, .. } = raw;
    Ok(Subscription { event, optional, fields, condition, every_ns, urgent, sample })
}

fn sample(every: Option<u64>, by: Option<&str>) -> Result<Sample, ManifestError> {
    let by = match by {
        None | Some("event") => By::Event,
        Some("process") => By::Process,
        Some(other) => {
            return Err(refuse(format!(
                "sample_by {other:?} is unknown: expected \"event\" or \"process\""
            )));
        }
    };
    let Some(every) = every else {
        return match by {
            By::Event => Ok(Sample::ALL),
            By::Process => Err(refuse("`sample_by` is there without `sample`".to_owned())),
        };
    };
    match u16::try_from(every) {
        Ok(every @ 1..=sample::MOST) => Ok(Sample::new(every, by)),
        _ => Err(refuse(format!(
            "sample {every} is not one in 1 to {} events or processes",
            sample::MOST
        ))),
    }
}

fn ask(text: &str) -> Result<Ask, ManifestError> {
    // A tracepoint's kind may have a colon in its name, but no field has.
    let (name, ty) = text.rsplit_once(':').ok_or_else(|| {
        refuse(format!("field {text:?} has no type: expected NAME:TYPE or NAME:TYPE?"))
    })?;
    let (ty, optional) = ty.strip_suffix('?').map_or((ty, false), |ty| (ty, true));
    if !is_name(name) {
        return Err(refuse(format!(
            "field {text:?} has no proper name: letters, digits, `_` and `.`"
        )));
    }
    let Some(&(ty, _)) = AskType::ALL.iter().find(|(_, known)| *known == ty) else {
        let known: Vec<&str> = AskType::ALL.iter().map(|(_, name)| *name).collect();
        return Err(refuse(format!(
            "field {text:?} has the unknown type `{ty}`: expected one of {}",
            known.join(", ")
        )));
    };
    Ok(Ask { name: name.to_owned(), ty, optional })
}

fn setting(raw: RawSetting) -> Result<Setting, ManifestError> {
    let name = raw.name;
    if !is_name(&name) {
        return Err(refuse(format!(
            "setting {name:?} has no proper name: letters, digits, `_` and `-`"
        )));
    }
    let Some(&(ty, ..)) = SettingType::ALL.iter().find(|entry| entry.1 == raw.ty) else {
        let known: Vec<&str> = SettingType::ALL.iter().map(|entry| entry.1).collect();
        return Err(refuse(format!(
            "setting `{name}` has the unknown type {:?}: expected one of {}",
            raw.ty,
            known.join(", ")
        )));
    };
    if raw.doc.len() > MAX_DOC {
        return Err(refuse(format!(
            "setting `{name}` has {} bytes of doc, at most {MAX_DOC} are allowed",
            raw.doc.len()
        )));
    }
    let default = match raw.default {
        None => None,
        Some(value) => Some(ty.write(&value).ok_or_else(|| {
            refuse(format!(
                "setting `{name}` has the default {value}, which is not of its type `{ty}`"
            ))
        })?),
    };
    Ok(Setting { name, ty, doc: raw.doc, default })
}

#[cfg(test)]
mod tests;
