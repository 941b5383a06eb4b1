//! One row: a Vault, a wire, a broker and its readers; all well, the fault, all well again.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as Mode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::broker::Broker;
use crate::check::{self, Outcome};
use crate::readers::{PATHS, Readers};
use crate::table::{Fault, Row};
use crate::tls::Tls;
use crate::vault::Vault;
use crate::wire::Wire;

/// Where Vault is.
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) ip: IpAddr,
    /// Its certificate authority, as PEM.
    pub(crate) authority: Option<String>,
}

/// Until everything is there, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// So long without a bad answer, and it counts as over.
const QUIET: Duration = Duration::from_millis(700);

/// Between two rotations of the log.
const ROTATE_EVERY: Duration = Duration::from_millis(150);

/// The fault's time, by the clock of the test, and what was seen.
pub(crate) struct Span {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// Plays the row with that number.
pub(crate) fn play(row: &Row, number: usize) -> Outcome {
    let vault = Arc::new(Vault::new(matches!(row.fault, Fault::Login(..))));
    let tls = matches!(row.fault, Fault::Tls(_)).then(Tls::new);
    let authority = tls.as_ref().map(|tls| tls.authority.clone());
    let pid = std::process::id();
    let octet = |of: u32| u8::try_from(of % 250 + 2).expect("small");
    let ip = Ipv4Addr::new(127, octet(pid), octet(pid / 250), octet(u32::try_from(number).expect("small")));
    let wire = Wire::before(Arc::clone(&vault), ip.into(), tls);
    let address = Address { url: wire.url(), ip: ip.into(), authority };
    let mut began = Instant::now();
    if let (Fault::Wire(wrong), true) = (row.fault, row.steady.is_zero()) {
        wire.goes_wrong(wrong, "");
    }
    let mut broker = Broker::start(&address, matches!(row.fault, Fault::Jump(_)));
    // The doors take connections before the token for them is made.
    let token = || std::fs::read(broker.path("token")).is_ok_and(|token| !token.is_empty());
    let there =
        wait(|| broker.path("tenure.sock").exists() && TcpStream::connect(broker.tcp).is_ok() && token());
    if !there {
        return Outcome::broken(format!("the broker opened no door:\n{}", broker.log()));
    }
    let readers = Readers::of(&broker);
    let good = |from: Instant, paths: &[&str]| {
        let seen = readers.since(from);
        paths.iter().all(|path| seen.iter().any(|reading| reading.path == *path && reading.is_good()))
    };
    if !row.steady.is_zero() {
        let started = Instant::now();
        if !wait(|| good(started, &PATHS[..3])) {
            return Outcome::broken(format!("not everything was served at the start:\n{}", broker.log()));
        }
        std::thread::sleep(row.steady);
        began = Instant::now();
        begin(row, &broker, &wire, &vault);
    }
    readers.ask_for_first();
    if row.fault == Fault::Hangups {
        rotate_until(&broker, began + row.lasts);
    }
    std::thread::sleep((began + row.lasts).saturating_duration_since(Instant::now()));
    let ended = Instant::now();
    end(row, &broker, &wire, &vault);
    let span = Span { began, ended };
    // Not only until the first good answer of each path: until no bad one comes any more.
    let limit = ended + row.recovery + SOON;
    let quiet = || {
        let seen = readers.since(ended);
        let recent = Instant::now().checked_sub(QUIET).unwrap_or(ended);
        let last_bad = seen.iter().filter(|reading| !reading.is_good()).map(|reading| reading.answered).max();
        good(ended, &PATHS) && last_bad.is_none_or(|at| at < recent) && ended < recent
    };
    while !quiet() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (readings, unanswered) = readers.finish();
    let calls = wire.calls(began);
    let mut outcome = check::judge(row, &span, &readings, &calls, &vault);
    outcome.problems.extend(unanswered);
    if let Err(why) = broker.end() {
        outcome.problems.push(why);
    }
    outcome.problems.extend(check::records(&broker, &readings));
    if vault.tokens() > 0 {
        outcome.problems.push(format!("{} tokens outlived the broker", vault.tokens()));
    }
    if !outcome.problems.is_empty() {
        outcome.log = broker.log();
    }
    outcome
}

fn wait(holds: impl Fn() -> bool) -> bool {
    let limit = Instant::now() + SOON;
    while !holds() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn begin(row: &Row, broker: &Broker, wire: &Wire, vault: &Vault) {
    match row.fault {
        Fault::Wire(wrong) | Fault::Tls(wrong) => wire.goes_wrong(wrong, ""),
        Fault::TokenLost => vault.revoke(false),
        Fault::LeasesLost => vault.revoke_leases(),
        Fault::Withdrawn => vault.withdraw(true),
        Fault::Login(wrong, run_too) => {
            wire.goes_wrong(wrong, "auth/jwt/login");
            vault.revoke(true);
            if run_too {
                vault.revoke(false);
            }
        }
        Fault::Jump(millis) => broker.jump(millis),
        Fault::Frozen => broker.signal(Signal::STOP),
        Fault::DiskFull(more) => broker.limit_files(Some(more)),
        Fault::AuditReadOnly => {
            let log = broker.path("audit.jsonl");
            std::fs::rename(&log, broker.path("audit.jsonl.1")).expect("our own file");
            std::fs::write(&log, "").expect("our own file");
            std::fs::set_permissions(&log, Mode::from_mode(0o444)).expect("our own file");
            broker.signal(Signal::HUP);
        }
        Fault::Hangups => {}
    }
}

/// Rotates the log and sends SIGHUP, again and again.
fn rotate_until(broker: &Broker, until: Instant) {
    for number in 1.. {
        if Instant::now() >= until {
            break;
        }
        let log = broker.path("audit.jsonl");
        // The one before may still be under way.
        if log.exists() {
            std::fs::rename(log, broker.path(&format!("audit.jsonl.{number}"))).expect("our own file");
        }
        broker.signal(Signal::HUP);
        std::thread::sleep(ROTATE_EVERY);
    }
}

fn end(row: &Row, broker: &Broker, wire: &Wire, vault: &Vault) {
    match row.fault {
        Fault::Wire(_) | Fault::Tls(_) | Fault::Login(..) => wire.mend(),
        Fault::Withdrawn => vault.withdraw(false),
        Fault::Jump(millis) => broker.jump(-millis),
        Fault::Frozen => broker.signal(Signal::CONT),
        Fault::DiskFull(_) => broker.limit_files(None),
        Fault::AuditReadOnly => {
            std::fs::remove_file(broker.path("audit.jsonl")).expect("our own file");
            broker.signal(Signal::HUP);
        }
        Fault::TokenLost | Fault::LeasesLost | Fault::Hangups => {}
    }
}
