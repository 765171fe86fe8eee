//! The text of rules about paths.

use std::fmt;

use super::{Refused, one_line, with_reason};

/// Rules, as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    text: String,
    /// A path that cannot be written in a rule.
    unwritten: Option<String>,
}

impl Rules {
    pub fn new(default: &str, reason: &str) -> Self {
        let mut text = format!("default {default}");
        with_reason(&mut text, &one_line(reason));
        text.push('\n');
        Self { text, unwritten: None }
    }

    pub fn with(mut self, verdict: &str, accesses: &str, path: &str, reason: &str) -> Self {
        // What would be another rule, or a reason, would leave this one about something else.
        let is_written = path.trim() == path
            && !path.is_empty()
            && !path.contains(char::is_control)
            && !path.contains(" #")
            && !path.starts_with('#');
        let accesses = accesses.split_whitespace().collect::<Vec<_>>().join("");
        if !is_written {
            self.unwritten.get_or_insert_with(|| path.to_owned());
        }
        let mut rule = format!("{verdict} {accesses} {}", one_line(path));
        with_reason(&mut rule, &one_line(reason));
        self.text += &rule;
        self.text.push('\n');
        self
    }

    pub fn text(&self) -> Result<&str, Refused> {
        match &self.unwritten {
            None => Ok(&self.text),
            Some(path) => Err(Refused(format!(
                "a rule cannot be about the path {path:?}: expected one without control characters, without ` #`, \
                 and without blanks at its ends"
            ))),
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Rules {
    fn from(text: String) -> Self {
        Self { text, unwritten: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_smuggle_in_another_rule() {
        let rules = Rules::new("deny", "the\nrest").with("allow", "list, read", "/a b#c", "w\nhy");
        assert_eq!(
            rules.text().unwrap(),
            "default deny # the rest\nallow list,read /a b#c # w hy\n"
        );
        for path in ["", " /a", "/a ", "/a\nallow write /", "/a # x", "# /"] {
            let error = rules.clone().with("deny", "read", path, "").text().unwrap_err();
            assert!(error.0.starts_with("a rule cannot be about the path"), "{error}");
        }
    }
}
