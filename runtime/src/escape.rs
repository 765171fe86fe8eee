//! Text that came from outside (the kernel, a policy, a file) before it is printed.

use std::{borrow::Cow, fmt::Write as _};

/// Replaces every control character by an escape (`\n`, `\t`, `\r`, `\x1b`, `\u{9b}`), so that no
/// terminal acts on it and no line is forged. Backslashes stay, for paths to be readable: the result
/// is for eyes, not for parsing. Bidirectional controls and line separators are escaped as well,
/// because they change how a line reads.
#[must_use]
pub fn control(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if !is_control(c) => out.push(c),
            c if c.is_ascii() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}

/// The same for a line of JSON, whose strings may hold such characters unless they are ASCII: they
/// become `\u009b`, and the line means what it did.
#[must_use]
pub fn json(line: &str) -> Cow<'_, str> {
    if !line.contains(is_control) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 16);
    for character in line.chars() {
        match character {
            c if is_control(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The longest prefix of `text` that has at most `bytes` bytes and ends between two characters.
#[must_use]
pub fn prefix(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left() {
        let all: String = ('\0'..='\u{2100}').collect();
        assert!(!control(&all).contains(is_control));
    }

    #[test]
    fn ordinary_text_is_not_copied() {
        assert!(matches!(control("C:\\päth/ü €"), Cow::Borrowed("C:\\päth/ü €")));
    }

    #[test]
    fn an_escape_sequence_becomes_readable() {
        assert_eq!(
            control("a\x1b[31mred\x07\n\u{9b}\u{202e}"),
            "a\\x1b[31mred\\x07\\n\\u{9b}\\u{202e}"
        );
    }

    #[test]
    fn json_means_the_same_without_control_characters() {
        let text: String = ('\0'..='\u{2100}').collect();
        let line = serde_json::to_string(&text).unwrap();
        let escaped = json(&line);
        assert!(!escaped.contains(is_control));
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn a_prefix_ends_between_characters() {
        assert_eq!(prefix("aé", 2), "a");
        assert_eq!(prefix("aé", 3), "aé");
        assert_eq!(prefix("aé", 9), "aé");
    }
}
