//! The name of a Step Functions execution, taken apart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest execution ARN that is taken. AWS documents 256 characters for the input members that hold one; Distributed
/// Map children and express executions are longer than their parts suggest.
const LONGEST: usize = 512;

/// How an execution runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Up to a year; can be described, and keeps a history.
    Standard,
    /// Up to five minutes; can neither be described nor keeps a history.
    Express,
}

/// `arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a`, checked.
///
/// The forms, as documented at
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html> and for Distributed Map at
/// <https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html>:
///
/// | form | resource |
/// |---|---|
/// | standard | `execution:<state machine>:<name>` |
/// | express | `express:<state machine>:<name>:<id>` |
/// | child of a Distributed Map | `execution:<state machine>/<label>:<name>`, or the same with `express` |
///
/// A redriven execution keeps its ARN. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutionArn(Arc<str>);

/// Why a text is no execution's ARN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the ARN of an execution: {why}; it reads arn:aws:states:<region>:<account>:execution:<state machine>:<name>"
)]
pub struct ArnError {
    text: String,
    why: &'static str,
}

impl ExecutionArn {
    /// The ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it runs.
    #[must_use]
    pub fn flow(&self) -> Flow {
        if self.part(5) == "express" { Flow::Express } else { Flow::Standard }
    }

    /// `eu-west-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// `123456789012`.
    #[must_use]
    pub fn account(&self) -> &str {
        self.part(4)
    }

    /// The state machine's name, without a Distributed Map's label.
    #[must_use]
    pub fn state_machine(&self) -> &str {
        let machine = self.part(6);
        machine.split_once('/').map_or(machine, |(machine, _)| machine)
    }

    /// The label of the Distributed Map that it is a child of.
    #[must_use]
    pub fn map(&self) -> Option<&str> {
        self.part(6).split_once('/').map(|(_, label)| label)
    }

    /// The execution's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.part(7)
    }

    fn part(&self, at: usize) -> &str {
        self.0.split(':').nth(at).unwrap_or_default()
    }
}

impl FromStr for ExecutionArn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<Self, ArnError> {
        let wrong = |why| {
            // Quoted, so that control characters do no harm; short, because anybody may send anything; and only where it
            // looks like what it should be: it may be a token that was put there by mistake.
            let likely = text.starts_with("arn:") || text.len() <= 32;
            let shown = if likely { text.chars().take(100).collect() } else { "…".to_owned() };
            Err(ArnError { text: shown, why })
        };
        if text.len() > LONGEST {
            return wrong("it is longer than 512 bytes");
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, region, account, kind, machine, rest @ ..] = parts.as_slice() else {
            return wrong("it has too few parts");
        };
        if *arn != "arn" || !partition.starts_with("aws") || !is_word(partition) {
            return wrong("it does not begin with arn:aws");
        }
        if *service != "states" {
            return wrong("its service is not states");
        }
        if !region.contains('-') || !is_word(region) {
            return wrong("its region is none");
        }
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return wrong("its account is not twelve digits");
        }
        let names: &[&str] = match (*kind, rest) {
            ("execution", [_]) | ("express", [_, _]) => rest,
            ("execution" | "express", _) => return wrong("its number of parts does not fit its kind"),
            ("stateMachine", _) => return wrong("it names a state machine, not an execution of it"),
            ("mapRun", _) => return wrong("it names a Map Run, not an execution"),
            _ => return wrong("it names neither an execution nor an express execution"),
        };
        let (machine, label) = machine.split_once('/').map_or((*machine, None), |(m, l)| (m, Some(l)));
        if !is_name(machine)
            || label.is_some_and(|label| !is_name(label))
            || !names.iter().copied().all(is_name)
        {
            return wrong("a name in it is empty, longer than 80 characters, or holds what names may not");
        }
        Ok(Self(text.into()))
    }
}

/// Letters of lower case, digits and hyphens.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// 1 to 80 characters, none of those that names of state machines and executions may not hold (`CreateStateMachine`,
/// `StartExecution`): space, brackets, wildcards, `"#%\^|~`$&,;:/`, control characters.
fn is_name(text: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "<>{}[]?*\"#%\\^|~`$&,;:/".contains(c);
    !text.is_empty() && text.chars().count() <= 80 && !text.contains(forbidden)
}

impl fmt::Display for ExecutionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExecutionArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_documented_form_is_taken_apart() {
        for (text, flow, machine, map, name) in [
            (
                "arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a",
                Flow::Standard,
                "orders",
                None,
                "7f3a",
            ),
            (
                "arn:aws:states:eu-west-1:123456789012:express:orders:7f3a:0b-1",
                Flow::Express,
                "orders",
                None,
                "7f3a",
            ),
            (
                "arn:aws-us-gov:states:us-gov-west-1:123456789012:execution:orders/each_item:7f3a",
                Flow::Standard,
                "orders",
                Some("each_item"),
                "7f3a",
            ),
            (
                "arn:aws-cn:states:cn-north-1:123456789012:express:orders/Map:7f3a:1",
                Flow::Express,
                "orders",
                Some("Map"),
                "7f3a",
            ),
        ] {
            let arn: ExecutionArn = text.parse().expect(text);
            assert_eq!((arn.flow(), arn.state_machine(), arn.map(), arn.name()), (flow, machine, map, name));
            assert_eq!((arn.account(), arn.to_string().as_str()), ("123456789012", text));
            assert!(arn.region().contains('-'));
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, why) in [
            ("", "too few parts"),
            ("arn:aws:s3:::bucket:x:y:z", "its service is not states"),
            ("urn:aws:states:eu-west-1:123456789012:execution:orders:x", "does not begin with arn:aws"),
            ("arn:aws:states:nowhere:123456789012:execution:orders:x", "its region is none"),
            ("arn:aws:states:eu-west-1:12345:execution:orders:x", "twelve digits"),
            ("arn:aws:states:eu-west-1:123456789012:stateMachine:orders", "names a state machine"),
            ("arn:aws:states:eu-west-1:123456789012:mapRun:orders/each:x", "names a Map Run"),
            ("arn:aws:states:eu-west-1:123456789012:activity:orders:x", "neither an execution"),
            ("arn:aws:states:eu-west-1:123456789012:execution:orders", "number of parts"),
            ("arn:aws:states:eu-west-1:123456789012:execution:orders:x:y", "number of parts"),
            ("arn:aws:states:eu-west-1:123456789012:express:orders:x", "number of parts"),
            ("arn:aws:states:eu-west-1:123456789012:execution:orders/:x", "a name in it"),
            ("arn:aws:states:eu-west-1:123456789012:execution:or ders:x", "a name in it"),
            ("arn:aws:states:eu-west-1:123456789012:execution:orders:", "a name in it"),
        ] {
            let error = text.parse::<ExecutionArn>().expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
        let long = format!("arn:aws:states:eu-west-1:123456789012:execution:orders:{}", "x".repeat(600));
        assert!(long.parse::<ExecutionArn>().expect_err("long").to_string().contains("512 bytes"));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_taken_is_kept(text in "(arn:)?(aws[a-z-]{0,4}:)?(states:)?[a-z0-9:/é-]{0,80}") {
            if let Ok(arn) = text.parse::<ExecutionArn>() {
                prop_assert_eq!(arn.as_str(), &text);
                prop_assert!(!arn.state_machine().is_empty() && !arn.name().is_empty());
            }
        }
    }
}
