//! Fuzzed: the patterns of rules.

use super::pattern::Pattern;

/// A pattern and a text, a line each: they match by the definition, spelt out.
pub(crate) fn pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, value) = text.split_once('\n').unwrap_or((text, text));
    let matches = Pattern::new(pattern).matches(value);
    assert_eq!(matches, plainly(pattern, value), "{pattern:?} {value:?}");
    assert_eq!(Pattern::new(pattern).to_string(), pattern);
}

/// Which prefixes of the value each prefix of the pattern matches.
fn plainly(pattern: &str, value: &str) -> bool {
    let value: Vec<char> = value.chars().collect();
    let mut ends = vec![false; value.len() + 1];
    ends[0] = true;
    for c in pattern.chars() {
        let mut next = vec![false; value.len() + 1];
        for at in 0..=value.len() {
            next[at] = match c {
                '*' => ends[at] || (at > 0 && next[at - 1]),
                c => at > 0 && ends[at - 1] && value[at - 1] == c,
            };
        }
        ends = next;
    }
    ends[value.len()]
}
