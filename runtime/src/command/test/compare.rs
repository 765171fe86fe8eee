//! What is expected against what came, line by line.

use serde_json::Value;
use tipstaff_runtime::escape;

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 2;

/// The differences as lines that begin with `-`, `+` or a blank; `None` if there are none.
pub fn compare(expected: &[Value], came: &[Value]) -> Option<Vec<String>> {
    if expected == came {
        return None;
    }
    let lines = edits(expected, came);
    let is_near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        lines[from..(at + CONTEXT + 1).min(lines.len())].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut shown = Vec::new();
    let mut was_near = true;
    for (at, (mark, value)) in lines.iter().enumerate() {
        if is_near(at) {
            shown.push(format!("{mark} {}", escape::control(&value.to_string())));
        } else if was_near {
            shown.push("  ...".to_owned());
        }
        was_near = is_near(at);
    }
    Some(shown)
}

/// All lines of both, marked: the longest common subsequence is in both.
fn edits<'a>(expected: &'a [Value], came: &'a [Value]) -> Vec<(char, &'a Value)> {
    // What is equal at the beginning needs no table.
    let head = expected.iter().zip(came).take_while(|(a, b)| a == b).count();
    let (left, right) = (&expected[head..], &came[head..]);
    let mut longest = vec![vec![0u32; right.len() + 1]; left.len() + 1];
    for (i, a) in left.iter().enumerate().rev() {
        for (j, b) in right.iter().enumerate().rev() {
            longest[i][j] = if a == b {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let mut lines: Vec<(char, &Value)> =
        expected[..head].iter().map(|value| (' ', value)).collect();
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            lines.push((' ', &left[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || i < left.len() && longest[i + 1][j] >= longest[i][j + 1] {
            lines.push(('-', &left[i]));
            i += 1;
        } else {
            lines.push(('+', &right[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(numbers: &[u32]) -> Vec<Value> {
        numbers.iter().copied().map(Value::from).collect()
    }

    #[test]
    fn equal_lines_differ_in_nothing() {
        assert_eq!(compare(&values(&[1, 2]), &values(&[1, 2])), None);
    }

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let expected = values(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let came = values(&[1, 2, 3, 40, 5, 6, 7, 8]);
        assert_eq!(
            compare(&expected, &came).unwrap(),
            ["  ...", "  2", "  3", "- 4", "+ 40", "  5", "  6", "  ..."]
        );
    }

    #[test]
    fn added_and_missing_lines_are_marked() {
        assert_eq!(compare(&values(&[1]), &values(&[1, 2])).unwrap(), ["  1", "+ 2"]);
        assert_eq!(compare(&values(&[1, 2]), &[]).unwrap(), ["- 1", "- 2"]);
    }
}
