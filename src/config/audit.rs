//! Where audit lines go, and in which form.

use std::path::PathBuf;

use super::raw::{RawAudit, RawHmac};
use super::settings::List;
use super::validate::Check;
use super::{AuditFormat, AuditSink, Receiver};

/// What wraps the keys that disclosed values are hashed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHmac {
    /// Where Vault's transit engine is mounted.
    pub mount: String,
    /// Its key, of a type that encrypts.
    pub key: String,
}

impl Check<'_> {
    pub(super) fn audit(&mut self, raw: &RawAudit) -> Option<AuditSink> {
        let said = [
            ("audit.file", raw.file.is_some(), "audit.file"),
            ("audit.syslog", raw.syslog.is_some(), "audit.syslog"),
            ("audit.stdout", raw.stdout.unwrap_or(false), "audit.stdout = true"),
        ];
        let mut said = said.iter().filter(|(_, is_said, _)| *is_said);
        if let (Some((key, ..)), Some((other, _, words))) = (said.next(), said.next()) {
            let origin = self.document.origin(other);
            let message =
                format!("conflicts with {words} ({origin}): lines go to one place; keep one of the two");
            return self.refuse(key, message);
        }
        let format = raw.format.unwrap_or_default();
        if let Some(file) = &raw.file {
            if format == AuditFormat::Ocsf {
                let message = "a file's lines are \"tenure\" alone, whose chain a restart goes on with: leave it out, or set \
                               audit.stdout = true or audit.syslog in the place of audit.file";
                self.refuse::<()>("audit.format", message.to_owned());
            }
            return self.path("audit.file", file).map(AuditSink::File);
        }
        if let Some(to) = &raw.syslog {
            return self.receiver(to).map(|to| AuditSink::Syslog(to, format));
        }
        if raw.stdout == Some(true) {
            return Some(AuditSink::Stdout(format));
        }
        if !["audit.file", "audit.stdout", "audit.syslog"].into_iter().any(|key| self.is_spoiled(key)) {
            let message = "nothing says where audit lines go: set audit.file (or TENURE_AUDIT_FILE), audit.syslog, or \
                           audit.stdout = true";
            self.refuse::<()>("audit", message.to_owned());
        }
        None
    }

    pub(super) fn hmac(&mut self, raw: Option<&RawHmac>) -> Option<AuditHmac> {
        let raw = raw?;
        let transit = self.transit("audit.hmac", raw.mount.as_ref(), raw.key.as_ref(), "tenure-audit");
        transit.map(|(mount, key)| AuditHmac { mount, key })
    }

    fn receiver(&mut self, text: &str) -> Option<Receiver> {
        let receiver = if let Some(path) = text.strip_prefix("unix://") {
            path.starts_with('/').then(|| Receiver::Unix(PathBuf::from(path)))
        } else {
            let address = text.strip_prefix("udp://").and_then(|address| address.parse().ok());
            address.filter(|address: &std::net::SocketAddr| address.port() != 0).map(Receiver::Udp)
        };
        if receiver.is_none() {
            let message = format!(
                "{text:?} is no receiver of syslog: write \"unix://\" and the absolute path of a datagram socket, such as \
                 \"unix:///dev/log\", or \"udp://\" and a numeric address with its port, such as \"udp://127.0.0.1:514\""
            );
            return self.refuse("audit.syslog", message);
        }
        receiver
    }
}

pub(super) fn settings(sink: &AuditSink, list: &mut List<'_>) {
    let format = match sink {
        AuditSink::File(path) => {
            list.path("audit.file", Some(path));
            AuditFormat::Tenure
        }
        AuditSink::Stdout(format) => {
            list.plain("audit.stdout", &true);
            *format
        }
        AuditSink::Syslog(to, format) => {
            list.text("audit.syslog", Some(&to.to_string()));
            *format
        }
    };
    let word = match format {
        AuditFormat::Tenure => "tenure",
        AuditFormat::Ocsf => "ocsf",
    };
    list.text("audit.format", Some(&word.to_owned()));
}

pub(super) fn hmac_settings(hmac: &AuditHmac, list: &mut List<'_>) {
    list.text("audit.hmac.mount", Some(&hmac.mount));
    list.text("audit.hmac.key", Some(&hmac.key));
}
