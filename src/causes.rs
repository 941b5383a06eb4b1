//! An error and what it came from, in one line.

use std::error::Error;

/// What `error` and its causes say, each once, and nothing of what they hold: `Debug` may show a response.
///
/// At most 600 characters: a cause may quote a whole page.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        // Some errors print their cause themselves.
        if !said.ends_with(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = error.source();
    }
    said.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the log cannot be opened")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let error = Outer(std::io::Error::other("no space left"));
        assert_eq!(causes(&error), "the log cannot be opened: no space left");
        assert_eq!(causes(&std::io::Error::other(error)), "the log cannot be opened: no space left");
    }
}
