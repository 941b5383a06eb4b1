//! The anchors of brokers' logs that Vault's log has: in the metadata of run tokens as they are made, and in the header
//! `X-Tenure-Chain`; and who made the first login of each boot.

use std::cell::Cell;
use std::io::Read;
use std::path::PathBuf;

use memchr::memmem;

use super::TraceError;
use super::foreign::identity;
use super::read::vault::VaultLine;
use super::read::{Piece, Source};
use crate::audit::verify::anchored::{Anchor, Anchors};

/// Reads Vault's audit logs, plain or gzip, files or folders; `-` is `stdin`. Whatever else is in them is passed over.
///
/// # Errors
/// What cannot be read.
pub fn anchors(named: &[PathBuf], stdin: &mut dyn Read) -> Result<Anchors, TraceError> {
    let mut anchors = Anchors::default();
    let [in_token, in_header, of_login] =
        [&b"audit_head"[..], b"x-tenure-chain", b"/login"].map(memmem::Finder::new);
    for source in Source::all(named, stdin)?.into_iter().filter(|source| !source.is_no_file()) {
        let read = source.lines(&Cell::new(0), &mut |number, piece| {
            let Piece::Vault(line) = piece else { return };
            if [&in_token, &in_header, &of_login].iter().all(|finder| finder.find(line).is_none()) {
                return;
            }
            if let Ok(line) = VaultLine::parse(line)
                && line.is_answer
                && line.error.is_none()
            {
                take(&mut anchors, &line, || format!("{}:{number}", source.name));
            }
        });
        read.map_err(|error| TraceError::Read { name: source.name.clone(), source: error })?;
    }
    Ok(anchors)
}

/// Takes what a line of Vault's log tells of brokers' chains; `place` is where it stands.
pub(super) fn take(anchors: &mut Anchors, line: &VaultLine, place: impl FnOnce() -> String) {
    let time = line.at.to_string();
    if let Some(made) = line.made.as_ref().filter(|_| line.is_login()) {
        let boot = line.request.as_deref().and_then(|request| request.rsplit_once('-'));
        if let (Some((boot, _)), Some(by)) = (boot, identity(&made.metadata, &line.display_name)) {
            anchors.login(boot, by, time);
        }
        return;
    }
    let by = identity(&line.metadata, &line.display_name);
    let told = match (&line.chain, &line.made) {
        (Some(chain), _) => of_header(chain),
        (None, Some(made)) => {
            let said = |name: &str| made.metadata.get(name).map(String::as_str);
            let pin = said("audit_seq").zip(said("audit_head")).map(|(seq, head)| format!("{seq}:{head}"));
            said("boot")
                .zip(pin)
                .map(|(boot, pin)| (boot.to_owned(), pin, said("audit_began").map(str::to_owned)))
        }
        (None, None) => None,
    };
    let Some((boot, pin, began)) = told else { return };
    let Ok(head) = pin.parse() else { return };
    let began = began.and_then(|began| began.parse().ok());
    anchors.take(Anchor { boot, head, began, by, time, place: place() });
}

/// `<boot>:<seq>:<hash>:<seq>:<hash>`: where the chain ends, and where the boot began.
fn of_header(chain: &str) -> Option<(String, String, Option<String>)> {
    let (boot, rest) = chain.split_once(':')?;
    let ends = rest.match_indices(':').nth(1)?.0;
    Some((boot.to_owned(), rest[..ends].to_owned(), Some(rest[ends + 1..].to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_anchors_and_the_login_are_read() {
        let hash = "ab".repeat(32);
        let login = r#"{"type":"response","time":"2026-01-01T00:00:00Z","auth":{"display_name":"aws-orders"},"request":{"id":"1","operation":"update","path":"auth/aws/login","headers":{"x-tenure-request":["b1-1"]}},"response":{"auth":{"metadata":{"canonical_arn":"arn:aws:iam::1:role/orders"}}}}"#;
        let token = format!(
            r#"{{"type":"response","time":"2026-01-01T00:00:01Z","auth":{{"metadata":{{"canonical_arn":"arn:aws:iam::1:role/orders"}}}},"request":{{"id":"2","operation":"update","path":"auth/token/create/run"}},"response":{{"auth":{{"metadata":{{"boot":"b1","audit_seq":"3","audit_head":"{hash}","audit_began":"0:{zeros}"}}}}}}}}"#,
            zeros = "0".repeat(64)
        );
        let header = format!(
            r#"{{"type":"response","time":"2026-01-01T00:00:02Z","auth":{{"metadata":{{"canonical_arn":"arn:aws:iam::1:role/orders"}}}},"request":{{"id":"3","operation":"read","path":"auth/token/lookup-self","headers":{{"x-tenure-chain":["b1:9:{hash}:0:{zeros}"]}}}},"response":{{}}}}"#,
            zeros = "0".repeat(64)
        );
        let text = format!("{login}\n{token}\n{header}\nnonsense\n");
        let read = anchors(&[PathBuf::from("-")], &mut text.as_bytes()).expect("it is read");
        let said = format!("{read:?}");
        assert!(said.contains("seq: 3") && said.contains("seq: 9"), "{said}");
        assert_eq!(said.matches("began: Some").count(), 2, "{said}");
        assert_eq!(said.matches("arn:aws:iam::1:role/orders").count(), 3, "{said}");
    }
}
