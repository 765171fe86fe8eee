//! Values that are a quantity: each type says its range.

use std::time::Duration;

use toml::de::DeValue;

use super::{
    document::{Node, Reader, Value},
    value::{FromText, mismatch},
};

/// An integer from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Value for Whole<MIN, MAX> {
    fn expected() -> String {
        format!("an integer from {MIN} to {MAX}")
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let value = integer(node.value).and_then(|value| u32::try_from(value).ok());
        let value = value.filter(|value| (MIN..=MAX).contains(value));
        if value.is_none() {
            reader.mismatch::<Self>(node);
        }
        value.map(Self)
    }
}

/// The integer that a value is, in whatever base it was written.
pub fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A time from `MIN` to `MAX` milliseconds, written as `"50ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> FromText for Time<MIN, MAX> {
    fn expected() -> String {
        format!("a time from \"{}\" to \"{}\" in ms, s, m or h", time_text(MIN), time_text(MAX))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match parse_time(text) {
            Some(time)
                if (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&time) =>
            {
                Ok(Self(time))
            }
            _ => mismatch(),
        }
    }
}

const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// A time as the configuration and the command line write it: `250ms`, `10s`, `1.5m`.
#[must_use]
pub fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let (_, millis) = TIME_UNITS.iter().find(|entry| entry.0 == unit)?;
    let number: f64 = number.parse().ok()?;
    // The largest is 2^53 ms: exact, and no addition to an `Instant` overflows.
    #[expect(clippy::cast_precision_loss, reason = "small powers")]
    let seconds = number * *millis as f64 / 1000.0;
    (0.0..=9.0e12).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn time_text(millis: u64) -> String {
    let (unit, size) = TIME_UNITS
        .iter()
        .rev()
        .find(|(_, size)| millis.is_multiple_of(*size))
        .unwrap_or(&TIME_UNITS[0]);
    format!("{}{unit}", millis / size)
}

/// A number of bytes from `MIN` to `MAX`, written as `"64MiB"` or as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn expected() -> String {
        format!(
            "a size from \"{}\" to \"{}\" in B, KiB, MiB or GiB",
            size_text(MIN),
            size_text(MAX)
        )
    }

    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let value = match node.value {
            DeValue::String(text) => parse_size(text),
            other => integer(other).and_then(|value| u64::try_from(value).ok()),
        };
        let value = value.filter(|value| (MIN..=MAX).contains(value));
        if value.is_none() {
            reader.mismatch::<Self>(node);
        }
        value.map(Self)
    }
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let (_, size) = SIZE_UNITS.iter().find(|entry| entry.0 == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

fn size_text(bytes: u64) -> String {
    let (unit, size) = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / size)
}

fn split_unit(text: &str) -> (&str, &str) {
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    (number.trim_end(), unit)
}
