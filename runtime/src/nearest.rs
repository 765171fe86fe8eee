//! The name that was probably meant, for error messages.

/// The candidate that is nearest to `name`, if one is near enough to be worth telling.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + name.len().max(candidate.len()) / 3)
        .map(|(_, candidate)| candidate)
}

/// `; the nearest is ...`, or nothing: to be put behind "there is no ...".
#[must_use]
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|near| format!("; the nearest is `{near}`")).unwrap_or_default()
}

/// Number of insertions, removals and replacements of characters between the two.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_single_edits() {
        assert_eq!(distance("path", "paths"), 1);
        assert_eq!(distance("conect", "connect"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn tells_a_near_name_and_keeps_quiet_about_far_ones() {
        assert_eq!(nearest("exce", ["exec", "exit"]), Some("exec"));
        assert_eq!(nearest("paths", ["pid", "path", "path_given"]), Some("path"));
        assert_eq!(nearest("zzzzzzzz", ["exec", "exit"]), None);
    }
}
