//! A stream of bytes becomes lines of a log.

use crate::policy::limits::LOG_LINE;

/// What was written since the last end of a line.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes what was written and hands over each line that is now whole, or as long as a log line
    /// may be. Empty lines are left out.
    pub fn write(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut say = |kept: &mut Vec<u8>| {
            let text = String::from_utf8_lossy(kept);
            let text = text.trim_end();
            if !text.is_empty() {
                line(text);
            }
            kept.clear();
        };
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            for piece in part.chunks(LOG_LINE) {
                if self.0.len() + piece.len() > LOG_LINE {
                    say(&mut self.0);
                }
                self.0.extend_from_slice(piece);
            }
            if part.ends_with(b"\n") {
                say(&mut self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for part in parts {
            lines.write(part, |line| said.push(line.to_owned()));
        }
        said
    }

    #[test]
    fn whole_lines_are_told_however_they_are_written() {
        assert_eq!(lines(&[b"a", b"b\ncd\n", b"\n", b"e"]), ["ab", "cd"]);
        assert_eq!(lines(&[b"e\xff\n"]), ["e\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_told_in_pieces_and_takes_no_more_memory() {
        let long = vec![b'x'; 3 * LOG_LINE];
        let said = lines(&[b"ab", &long, b"\n"]);
        assert_eq!(said.concat().len(), 2 + 3 * LOG_LINE);
        assert!(said.iter().all(|line| line.len() <= LOG_LINE));
    }
}
