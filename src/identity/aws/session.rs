//! What a session of an assumed role is called: AWS shows it in CloudTrail and lets policies ask for it.
//!
//! STS allows few characters and little room, so what does not fit is sanitized and cut. Whatever is changed gets a hash
//! of what was meant as its end: two runs never look like one.
//!
//! Reference: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.

use sha2::{Digest as _, Sha256};

/// What is known of the run that a session is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work<'a> {
    /// The run's id.
    pub run: &'a str,
    /// The execution that it belongs to.
    pub execution_arn: Option<&'a str>,
    /// The state machine of that execution, by its name.
    pub state_machine: Option<&'a str>,
    /// The state of that execution.
    pub state: Option<&'a str>,
    /// On whose behalf it acts. Only who was verified: policies of AWS may trust what is made from it.
    pub subject: Option<&'a str>,
    /// The commit of what runs.
    pub git_commit: Option<&'a str>,
}

/// The names of a session, as STS takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `RoleSessionName`, the last part of the session's ARN: `run-0123456789abcdef@orders.Charge`.
    pub name: String,
    /// `SourceIdentity`, which stays through all roles that are assumed from here: the subject, or else the run's id.
    pub source_identity: String,
    /// Session tags, which policies see as `aws:PrincipalTag/tenure:execution`.
    pub tags: Vec<(String, String)>,
}

/// The longest `RoleSessionName` and `SourceIdentity`, in characters; the least is 2.
const NAME: usize = 64;

/// The longest value of a tag, in characters.
const VALUE: usize = 256;

/// A hash at an end: `=` and 16 hex digits.
const HASH: usize = 17;

impl Session {
    /// The names of a session for that work. They are the same for the same work, and differ for any other.
    #[must_use]
    pub fn of(work: &Work<'_>) -> Self {
        let tags = [
            ("run", Some(work.run)),
            ("execution", work.execution_arn),
            ("state-machine", work.state_machine),
            ("state", work.state),
            ("subject", work.subject),
            ("git-commit", work.git_commit),
        ];
        // The prefix keeps them apart from the role's own tags, which a session tag of the same key would hide.
        let tags = tags
            .into_iter()
            .filter_map(|(key, value)| Some((format!("tenure:{key}"), fitted(value?, VALUE, 0, in_value))))
            .collect();
        Self {
            name: name(work),
            source_identity: fitted(work.subject.unwrap_or(work.run), NAME, 2, in_name),
            tags,
        }
    }
}

/// `run@machine.state`. A part that holds one of the marks could be read in two ways: it counts as one that does not fit.
fn name(work: &Work<'_>) -> String {
    let marks = [(work.state_machine, '@'), (work.state, '.')];
    let mut name = work.run.to_owned();
    for (part, mark) in marks {
        if let Some(part) = part {
            name.push(mark);
            name.push_str(part);
        }
    }
    let parts = [Some(work.run), work.state_machine, work.state];
    let plain = |part: &str| !part.is_empty() && !part.contains(['@', '.']);
    if parts.into_iter().flatten().all(plain) && fits(&name, NAME, 2, in_name) {
        return name;
    }
    // Lengths tell apart what the marks cannot.
    let meant: String = parts
        .into_iter()
        .map(|part| part.map_or_else(|| "-,".to_owned(), |part| format!("{}:{part},", part.len())))
        .collect();
    marked(&name, &meant, NAME, in_name)
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

/// STS takes letters of all scripts, by Unicode's tables of its own choice: ASCII is what all agree on.
fn in_value(c: char) -> bool {
    in_name(c) && c != ',' || " :/".contains(c)
}

/// The text as it is where it fits, else what is left of it with a hash of the whole.
fn fitted(text: &str, most: usize, least: usize, allowed: fn(char) -> bool) -> String {
    if fits(text, most, least, allowed) { text.to_owned() } else { marked(text, text, most, allowed) }
}

fn fits(text: &str, most: usize, least: usize, allowed: fn(char) -> bool) -> bool {
    // What looks like a hash already could be taken for the other text that it would be the hash of.
    (least..=most).contains(&text.len()) && text.chars().all(allowed) && !ends_in_hash(text)
}

fn ends_in_hash(text: &str) -> bool {
    let Some((_, end)) = text.rsplit_once('=') else { return false };
    end.len() == HASH - 1 && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn marked(text: &str, meant: &str, most: usize, allowed: fn(char) -> bool) -> String {
    use std::fmt::Write as _;
    let mut kept: String = text.chars().take(most - HASH).map(|c| if allowed(c) { c } else { '_' }).collect();
    kept.push('=');
    for byte in &Sha256::digest(meant)[..(HASH - 1) / 2] {
        let _ = write!(kept, "{byte:02x}");
    }
    kept
}

#[cfg(test)]
mod tests;
