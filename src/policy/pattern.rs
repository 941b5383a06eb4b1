//! A text with wildcards.

use std::fmt;

/// What a value must be: `*` stands for any number of characters, everything else for itself, as in AWS's `StringLike`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// A pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether `value` is such a text.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *value };
        let Some(mut value) = value.strip_prefix(first) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return value.ends_with(part);
            }
            // The earliest place leaves the most to what follows.
            match value.find(part) {
                Some(at) => value = &value[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_all_else_for_itself() {
        for (pattern, value, matches) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders*", "orders2", true),
            ("*", "", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a*a", "a", false),
            ("*aba", "ababa", true),
            ("é*", "éa", true),
            ("", "", true),
            ("", "x", false),
            ("a**b", "ab", true),
            ("?", "x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(value), matches, "{pattern} {value}");
        }
    }

    /// The definition, spelt out.
    fn plainly(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => (0..=value.len()).any(|at| plainly(rest, &value[at..])),
            Some((c, rest)) => value.split_first().is_some_and(|(v, value)| v == c && plainly(rest, value)),
        }
    }

    proptest! {
        #[test]
        fn it_is_what_its_definition_says(pattern in "[ab*é]{0,8}", value in "[abé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&pattern).matches(&value), plainly(&chars(&pattern), &chars(&value)));
        }
    }
}
