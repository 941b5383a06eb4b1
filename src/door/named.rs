//! What a request says by headers of the work that it is for.
//!
//! | header | |
//! |---|---|
//! | `X-Tenure-Invocation` | the request id of the Lambda invocation, where several are served at a time |
//! | `X-Tenure-Execution` | the ARN of the Step Functions execution: the request is that run's, registered by it if need be |
//! | `X-Tenure-State`, `X-Tenure-Attempt` | the execution's state, and which try of it, from 0 |

use http::HeaderName;
use http::header::HeaderMap;

use crate::run::request::{self, Facts, Request};

/// The request id of the Lambda invocation that a request is for.
pub(super) const INVOCATION: HeaderName = HeaderName::from_static("x-tenure-invocation");

const EXECUTION: HeaderName = HeaderName::from_static("x-tenure-execution");
const STATE: HeaderName = HeaderName::from_static("x-tenure-state");
const ATTEMPT: HeaderName = HeaderName::from_static("x-tenure-attempt");

/// The run that a request names by its execution, as it would be registered; `None`: it names none.
pub(super) fn execution(headers: &HeaderMap) -> Result<Option<Request>, String> {
    let arn = word(headers, &EXECUTION)?;
    let (state, attempt) = (word(headers, &STATE)?, word(headers, &ATTEMPT)?);
    let Some(arn) = arn else {
        let other = [(STATE, state), (ATTEMPT, attempt)].into_iter().find(|(_, said)| said.is_some());
        return match other {
            Some((name, _)) => Err(format!("{name}: of which execution? Name it, too, by {EXECUTION}")),
            None => Ok(None),
        };
    };
    let attempt = attempt.map(|text| {
        text.parse::<u32>()
            .map_err(|_| format!("{ATTEMPT}: must be a whole number, from 0: $$.State.RetryCount"))
    });
    let facts = Facts {
        execution: Some(arn.parse().map_err(|why| format!("{EXECUTION}: {why}"))?),
        state: state.map(|text| request::text(text).map_err(|why| format!("{STATE}: {why}"))).transpose()?,
        attempt: attempt.transpose()?,
        ..Facts::default()
    };
    Ok(Some(Request { facts, ..Request::default() }))
}

/// Whether a request names its execution.
pub(super) fn is_there(headers: &HeaderMap) -> bool {
    headers.contains_key(EXECUTION)
}

fn word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("{name}: is there twice"));
    }
    // The name of a state may have any letters.
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| format!("{name}: is not UTF-8"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ARN: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:order-1";

    fn of(said: &[(&'static str, &[u8])]) -> Result<Option<Request>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        execution(&headers)
    }

    #[test]
    fn a_request_names_its_execution_or_nothing() {
        assert!(of(&[]).expect("good").is_none());
        let named = of(&[
            ("x-tenure-execution", ARN.as_bytes()),
            ("x-tenure-state", "Größe prüfen".as_bytes()),
            ("x-tenure-attempt", b"2"),
        ]);
        let facts = named.expect("good").expect("named").facts;
        assert_eq!(facts.execution.expect("an execution").to_string(), ARN);
        assert_eq!((facts.state.as_deref(), facts.attempt), (Some("Größe prüfen"), Some(2)));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let arn = ("x-tenure-execution", ARN.as_bytes());
        for (said, named) in [
            (&[("x-tenure-execution", &b"arn:aws:s3:::bucket"[..])][..], "x-tenure-execution: "),
            (&[("x-tenure-execution", &b""[..])], "x-tenure-execution: "),
            (&[arn, arn], "x-tenure-execution: is there twice"),
            (&[("x-tenure-state", b"Charge")], "x-tenure-state: of which execution?"),
            (&[("x-tenure-attempt", b"0")], "x-tenure-attempt: of which execution?"),
            (&[arn, ("x-tenure-attempt", b"-1")], "x-tenure-attempt: must be a whole number"),
            (&[arn, ("x-tenure-state", b"")], "x-tenure-state: is empty"),
            (&[arn, ("x-tenure-state", b"\xff")], "x-tenure-state: is not UTF-8"),
        ] {
            let why = of(said).expect_err(named);
            assert!(why.starts_with(named), "{why}");
        }
    }
}
