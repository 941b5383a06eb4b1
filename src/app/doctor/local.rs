//! What the broker needs of this machine: sockets, ports and files. Nothing is made.

use std::net::SocketAddr;
use std::path::Path;

use super::super::secrets_manager::of_ours;
use super::report::{Cure, Report, Step};
use crate::audit::{Audit, AuditError};
use crate::causes::causes;
use crate::config::{Allow, AuditSink, Config, DoorToken, Listen, Receiver};
use crate::door::{ListenError, LocalToken, UnixDoor, UnixOptions};
use crate::runs::journal::{Journal, JournalError};

/// The Unix socket, the ports, the local tokens.
pub(super) fn listeners(listen: &Listen, report: &mut Report) {
    if let Some(unix) = &listen.unix {
        let options =
            UnixOptions { path: unix.path.clone(), mode: unix.mode, owner: unix.owner, group: unix.group };
        match UnixDoor::check(&options) {
            Ok(()) => {
                let who = match &unix.allow {
                    Allow::SameUser => format!("uid {}", rustix::process::geteuid().as_raw()),
                    Allow::Listed(peers) => format!("{} entries of listen.unix.allow", peers.len()),
                };
                let path = unix.path.display();
                report
                    .good(Step::Listeners, format!("{path}: can be made, mode {:04o}, for {who}", unix.mode));
            }
            Err(error) => {
                let cure = match &error {
                    ListenError::InUse { .. } => running(&unix.path),
                    ListenError::NotASocket { path } => {
                        Cure::new("Move it away:", format!("mv {0} {0}.old", path.display()))
                    }
                    _ => folder(&unix.path),
                };
                report.wrong(Step::Listeners, causes(&error), cure);
            }
        }
    }
    if let Some(tcp) = &listen.tcp {
        port("listen.tcp.address", tcp.address, report);
        token_file(&tcp.token_file, |error| error, report);
    }
    if let Some(aws) = &listen.secrets_manager {
        port("listen.secrets_manager.address", aws.address, report);
        match &aws.token {
            DoorToken::File(file) => token_file(file, |error| of_ours(error, file), report),
            // This process has another environment than the broker's, perhaps.
            DoorToken::Session => {}
        }
    }
}

fn port(key: &str, address: SocketAddr, report: &mut Report) {
    match std::net::TcpListener::bind(address) {
        Ok(_) => report.good(Step::Listeners, format!("{address}: is free")),
        Err(error) => report.wrong(
            Step::Listeners,
            format!("{key} {address}: {error}"),
            Cure::new(
                "If that is this very broker, all is well; else stop it, or choose another port:",
                format!("ss -ltnp 'sport = :{}'", address.port()),
            ),
        ),
    }
}

fn token_file(file: &Path, named: impl Fn(ListenError) -> ListenError, report: &mut Report) {
    match LocalToken::check(file).map_err(named) {
        Ok(()) => report.good(Step::Listeners, format!("{}: the local token's file is good", file.display())),
        Err(error) if file.exists() => report.wrong(
            Step::Listeners,
            causes(&error),
            Cure::new(
                "Let nobody else read it, and nobody else write it:",
                format!("chmod 0600 {}", file.display()),
            ),
        ),
        Err(error) => report.wrong(Step::Listeners, causes(&error), folder(file)),
    }
}

/// The audit log and the orphan journal.
pub(super) fn records(config: &Config, report: &mut Report) {
    match &config.audit {
        AuditSink::Stdout(_) => report.good(Step::AuditLog, "is printed to stdout"),
        AuditSink::Syslog(to @ Receiver::Udp(_), _) => {
            report.good(Step::AuditLog, format!("{to}: is sent there; by UDP nobody confirms a line"));
        }
        AuditSink::Syslog(to @ Receiver::Unix(path), _) => {
            match Audit::check_syslog(&crate::app::receiver(to)) {
                Ok(()) => report.good(Step::AuditLog, format!("{to}: receives messages")),
                Err(error) => {
                    let what = "A syslog daemon must receive datagrams there, from whom this one should be:";
                    let cure = Cure::new(what, format!("ls -l {}; id", path.display()));
                    report.wrong(Step::AuditLog, causes(&error), cure);
                }
            }
        }
        AuditSink::File(path) => match Audit::check(path) {
            Ok(()) => report.good(Step::AuditLog, format!("{}: can be written", path.display())),
            Err(error) => {
                let cure = match &error {
                    AuditError::InUse { .. } => running(path),
                    AuditError::LooseMode { .. } => tighten(path),
                    AuditError::NoDirectory { .. } => folder(path),
                    AuditError::Open { .. } if !path.exists() => folder(path),
                    _ => look(path),
                };
                report.wrong(Step::AuditLog, causes(&error), cure);
            }
        },
    }
    let Some(path) = &config.run.journal else {
        let why = "there is none: what a crash leaves behind is not revoked by the next start";
        return report.unknown(Step::Journal, why, Cure::new("Set run.journal.", ""));
    };
    match Journal::check(path) {
        Ok(()) => report.good(Step::Journal, format!("{}: can be written", path.display())),
        Err(error) => {
            let cure = match &error {
                JournalError::InUse { .. } => running(path),
                JournalError::LooseMode { .. } => tighten(path),
                JournalError::Io { .. } if !path.exists() => folder(path),
                JournalError::Io { .. } => look(path),
            };
            report.wrong(Step::Journal, causes(&error), cure);
        }
    }
}

fn running(path: &Path) -> Cure {
    Cure::new(
        "If that is this very broker, all is well; else stop it, or give each a file of its own:",
        format!("fuser -v {}", path.display()),
    )
}

fn tighten(path: &Path) -> Cure {
    Cure::new("Let nobody else read or write it:", format!("chmod 0600 {}", path.display()))
}

fn look(path: &Path) -> Cure {
    Cure::new(
        "It must be a file of the broker's own user, whom this one should be:",
        format!("ls -l {}; id", path.display()),
    )
}

fn folder(path: &Path) -> Cure {
    let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    Cure::new(
        "Make its folder, the broker's own:",
        format!("install -d -m 0700 -o {} {folder}", rustix::process::geteuid().as_raw()),
    )
}
