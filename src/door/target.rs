//! From the bytes of a request line to what is to be read. Whatever upstream might take for another path is refused.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::lease::upstream::ReadKey;

/// The longest path, decoded.
const MAX_PATH: usize = 1024;

/// Parses what follows `/v1/` and the query of a GET or LIST.
///
/// The path comes out decoded, so that it is judged, cached, logged and asked for in one form. An encoded slash, a dot
/// segment, an empty one or a control character is refused: what they mean depends on who reads them.
pub(super) fn parse(path: &str, query: Option<&str>, list: bool) -> Result<ReadKey, String> {
    let mut list = list;
    let mut version = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("list", "true")) => list = true,
            Some(("list", "false")) => {}
            Some(("version", number)) => {
                let number: u32 =
                    number.parse().map_err(|_| "the query's version is not a number".to_owned())?;
                version = Some(number);
            }
            _ => return Err("the query may have list=true and version=N, nothing else".to_owned()),
        }
    }
    let path = decoded(path)?;
    // A LIST is known with and without its slash; it is the same one.
    let path = if list { path.strip_suffix('/').unwrap_or(&path) } else { &path };
    if path.is_empty() {
        return Err("there is no path after /v1/".to_owned());
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("the path has an empty, '.' or '..' segment".to_owned());
    }
    // Most often there is none, and the empty string is one that all share.
    let query = version.map_or_else(Arc::default, |version| format!("version={version}").into());
    Ok(ReadKey { path: path.into(), query, list })
}

fn decoded(path: &str) -> Result<Cow<'_, str>, String> {
    let path = match path.contains('%') {
        true => Cow::Owned(unescaped(path)?),
        false => Cow::Borrowed(path),
    };
    if path.len() > MAX_PATH {
        return Err(format!("the path is longer than {MAX_PATH} bytes"));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err("the path has a control character or a backslash".to_owned());
    }
    Ok(path)
}

fn unescaped(path: &str) -> Result<String, String> {
    let fit = |byte| !matches!(byte, b'/' | b'\\');
    let bytes = percent_decoded(path, fit).map_err(|why| match why {
        Escape::Broken => "the path has a broken percent escape".to_owned(),
        Escape::Unfit => "the path has an encoded slash".to_owned(),
    })?;
    String::from_utf8(bytes).map_err(|_| "the path is not UTF-8".to_owned())
}

/// A value of a query, or an id in a path, where a slash is a character as any other.
pub(super) fn value(text: &str) -> Result<String, String> {
    let bytes = percent_decoded(text, |_| true);
    let bytes = bytes.map_err(|_| "the request has a broken percent escape".to_owned())?;
    let text = String::from_utf8(bytes).map_err(|_| "the request is not UTF-8".to_owned())?;
    match text.chars().any(char::is_control) {
        true => Err("the request has a control character".to_owned()),
        false => Ok(text),
    }
}

enum Escape {
    Broken,
    Unfit,
}

/// What stands for what; a byte that was escaped must be `fit` to be.
fn percent_decoded(text: &str, fit: impl Fn(u8) -> bool) -> Result<Vec<u8>, Escape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(Escape::Broken);
        };
        match u8::try_from(high * 16 + low) {
            Ok(byte) if fit(byte) => bytes.push(byte),
            Ok(_) => return Err(Escape::Unfit),
            Err(_) => return Err(Escape::Broken),
        }
    }
    Ok(bytes)
}

/// `300s`, `5m` or a bare number of seconds.
pub(super) fn min_ttl(text: &[u8]) -> Result<Duration, String> {
    let wrong = || "X-Tenure-Min-Ttl is a duration: 300s, 5m, or seconds".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| wrong())?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).ok().filter(|span| span.as_secs() <= u32::MAX.into()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_taken_in_one_form_or_refused() {
        for (path, query, list, wanted) in [
            ("database/creds/orders", None, false, "database/creds/orders"),
            ("secret/data/a%20b", None, false, "secret/data/a b"),
            ("secret/data/%61", None, false, "secret/data/a"),
            ("secret/data/a", Some("version=02"), false, "secret/data/a?version=2"),
            ("secret/metadata/", Some("list=true"), false, "secret/metadata"),
            ("secret/metadata/", None, true, "secret/metadata"),
        ] {
            let key = parse(path, query, list).expect(path);
            assert_eq!(key.to_string(), wanted);
            assert_eq!(key.list, list || query == Some("list=true"));
        }
        for (path, query) in [
            ("", None),
            ("/etc/passwd", None),
            ("a//b", None),
            ("a/../b", None),
            ("a/%2e%2e/b", None),
            ("a/./b", None),
            ("a%2fb", None),
            ("a%2Fb", None),
            ("a%5cb", None),
            ("a%00b", None),
            ("a%0d%0ab", None),
            ("a%", None),
            ("a%zz", None),
            ("a%ff", None),
            ("a/", None),
            ("a", Some("x=1")),
            ("a", Some("version=-1")),
            ("a", Some("version=1%26x=2")),
        ] {
            assert!(parse(path, query, false).is_err(), "{path:?} {query:?}");
        }
        assert!(parse(&"a".repeat(MAX_PATH + 1), None, false).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_or_refused_without_a_panic(path in ".*", query in proptest::option::of(".*")) {
            if let Ok(key) = parse(&path, query.as_deref(), false) {
                prop_assert!(key.path.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
            }
        }
    }

    #[test]
    fn a_minimum_life_is_a_duration() {
        assert_eq!(min_ttl(b"300s"), Ok(Duration::from_secs(300)));
        assert_eq!(min_ttl(b"300"), Ok(Duration::from_secs(300)));
        assert_eq!(min_ttl(b" 5m "), Ok(Duration::from_secs(300)));
        for wrong in [&b"soon"[..], b"-1", b"\xff", b"", b"999999999999y"] {
            assert!(min_ttl(wrong).is_err(), "{wrong:?}");
        }
    }
}
