//! Settings: declared by a struct, checked by the agent, read from the plain TOML that it passes.

/// A struct of settings. Made by `#[derive(Settings)]`.
pub trait Settings: Sized {
    /// What the manifest says of them.
    const SETTINGS: &'static [Setting];

    /// Reads them from what [`Policy::configure`](crate::Policy::configure) is given.
    ///
    /// # Errors
    /// A message for the operator that names the setting.
    fn read(settings: &[(String, String)]) -> Result<Self, String>;
}

impl Settings for () {
    const SETTINGS: &'static [Setting] = &[];

    fn read(_: &[(String, String)]) -> Result<Self, String> {
        Ok(())
    }
}

/// What the manifest says of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Key in the operator's table.
    pub name: &'static str,
    /// Name of its type.
    pub ty: &'static str,
    /// What it does, as a TOML string with its quotes.
    pub doc: &'static str,
    /// Default value as TOML.
    pub default: Option<&'static str>,
}

/// A type that a setting can have.
#[diagnostic::on_unimplemented(
    message = "a setting cannot be a `{Self}`",
    label = "not a type that a setting can have",
    note = "there are String, bool, f64, integers, and Vec of strings or integers"
)]
pub trait SettingValue: Sized {
    /// Name in the manifest.
    const TYPE: &'static str;

    /// Takes the value from the front of `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn take(text: &mut &str) -> Result<Self, String>;
}

/// A type that an array of a setting can hold.
pub trait Element: SettingValue {
    /// Name of the array's type in the manifest.
    const ARRAY: &'static str;
}

/// Reads the setting `name`.
///
/// # Errors
/// A message that names the setting.
pub fn get<V: SettingValue>(settings: &[(String, String)], name: &str) -> Result<V, String> {
    let (_, text) = settings
        .iter()
        .find(|(key, _)| key == name)
        .ok_or_else(|| format!("setting `{name}` is missing"))?;
    let mut rest = text.trim();
    match V::take(&mut rest) {
        Ok(value) if rest.is_empty() => Ok(value),
        Ok(_) => Err(format!("setting `{name}`: unexpected {rest:?} behind the value")),
        Err(reason) => Err(format!("setting `{name}`: {reason}")),
    }
}

/// The word up to the next `,`, `]` or end.
fn word<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find([',', ']']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    *text = rest;
    word.trim_end()
}

macro_rules! integers {
    ($($ty:ident)+) => { $(
        impl SettingValue for $ty {
            const TYPE: &'static str = "integer";

            fn take(text: &mut &str) -> Result<Self, String> {
                let word = word(text);
                word.parse().map_err(|_| {
                    format!("{word} is not an integer from {} to {}", Self::MIN, Self::MAX)
                })
            }
        }

        impl Element for $ty {
            const ARRAY: &'static str = "integers";
        }
    )+ };
}

integers! { u8 u16 u32 u64 usize i32 i64 }

impl SettingValue for bool {
    const TYPE: &'static str = "boolean";

    fn take(text: &mut &str) -> Result<Self, String> {
        let word = word(text);
        word.parse().map_err(|_| format!("{word} is neither true nor false"))
    }
}

impl SettingValue for f64 {
    const TYPE: &'static str = "number";

    fn take(text: &mut &str) -> Result<Self, String> {
        let word = word(text);
        word.parse().map_err(|_| format!("{word} is not a number"))
    }
}

impl SettingValue for String {
    const TYPE: &'static str = "text";

    fn take(text: &mut &str) -> Result<Self, String> {
        let mut chars =
            text.strip_prefix('"').ok_or_else(|| format!("{text} is not a string"))?.chars();
        let mut value = Self::new();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => value.push(escape(&mut chars).ok_or("unknown escape in a string")?),
                Some(c) => value.push(c),
                None => return Err("a string without end".to_owned()),
            }
        }
        *text = chars.as_str();
        Ok(value)
    }
}

fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        c @ ('"' | '\\') => return Some(c),
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let mut code = 0u32;
    for _ in 0..digits {
        code = code.checked_mul(16)? + chars.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

impl Element for String {
    const ARRAY: &'static str = "texts";
}

impl<E: Element> SettingValue for Vec<E> {
    const TYPE: &'static str = E::ARRAY;

    fn take(text: &mut &str) -> Result<Self, String> {
        let mut rest =
            text.strip_prefix('[').ok_or_else(|| format!("{text} is not an array"))?.trim_start();
        let mut values = Self::new();
        while !rest.starts_with(']') {
            values.push(E::take(&mut rest)?);
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if rest.starts_with(']') => {}
                None => return Err("an array without end".to_owned()),
            }
        }
        *text = &rest[1..];
        Ok(values)
    }
}

/// Whether a default of this TOML type suits a setting of that type. Used by the derive.
#[must_use]
pub const fn suits(default: &str, ty: &str) -> bool {
    equal(default, ty)
        || (equal(default, "integer") && equal(ty, "number"))
        || equal(default, "array")
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<V: SettingValue>(text: &str) -> Result<V, String> {
        get(&[("x".to_owned(), text.to_owned())], "x")
    }

    #[test]
    fn each_type_is_read_from_plain_toml() {
        assert_eq!(read::<u16>("8080"), Ok(8080));
        assert_eq!(read::<i64>("-3"), Ok(-3));
        assert_eq!(read::<f64>("0.5"), Ok(0.5));
        assert_eq!(read::<bool>("true"), Ok(true));
        assert_eq!(read::<String>(r#""a\"\\\n\u001B, é]""#), Ok("a\"\\\n\u{1b}, é]".to_owned()));
        assert_eq!(read::<Vec<u16>>("[80, 443]"), Ok(vec![80, 443]));
        assert_eq!(read::<Vec<u16>>("[ ]"), Ok(vec![]));
        assert_eq!(
            read::<Vec<String>>(r#"["a]", "b,",]"#),
            Ok(vec!["a]".to_owned(), "b,".to_owned()])
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(
            read::<u16>("70000").unwrap_err(),
            "setting `x`: 70000 is not an integer from 0 to 65535"
        );
        assert_eq!(
            read::<u16>("1 2").unwrap_err(),
            "setting `x`: 1 2 is not an integer from 0 to 65535"
        );
        assert_eq!(
            read::<String>("\"a\" b").unwrap_err(),
            "setting `x`: unexpected \" b\" behind the value"
        );
        assert_eq!(get::<bool>(&[], "y").unwrap_err(), "setting `y` is missing");
        for text in ["\"a", "\"\\q\"", "[1", "[1 2]", "1]"] {
            assert!(read::<Vec<u16>>(text).is_err() && read::<String>(text).is_err(), "{text}");
        }
    }
}
