//! The table: what goes wrong, and what must hold meanwhile.

use std::time::Duration;

use crate::tls::Certificate;
use crate::wire::{Point, Wrong};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// On the wire, in clear.
    Wire(Wrong),
    /// On the wire, by TLS.
    Tls(Wrong),
    /// The run token is revoked behind the broker's back.
    TokenLost,
    /// The leases are revoked behind the broker's back, and nobody says so.
    LeasesLost,
    /// The policy of the run token gives nothing.
    Withdrawn,
    /// Logins go wrong so, when the login token has come to its end; the run token too, where that is true.
    Login(Wrong, bool),
    /// The wall clock jumps by so many milliseconds, and back at the end.
    Jump(i64),
    /// The process is stopped.
    Frozen,
    /// No file can grow by more than so many bytes.
    DiskFull(u64),
    /// The audit log is rotated to a file that must not be written, and SIGHUP sent.
    AuditReadOnly,
    /// The audit log is rotated and SIGHUP sent, again and again.
    Hangups,
}

/// The least share of the reads that were begun during the fault which must be served, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) long: u8,
    pub(crate) short: u8,
    pub(crate) value: u8,
    pub(crate) first: u8,
}

/// One fault, and its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// All has been well for so long before; zero: nothing ever was, the broker is started into it.
    pub(crate) steady: Duration,
    pub(crate) lasts: Duration,
    pub(crate) served: Served,
    /// What readers may be refused with.
    pub(crate) errors: &'static [(u16, &'static str)],
    /// One of these is in what each refusal says; none: nobody may be refused.
    pub(crate) says: &'static [&'static str],
    /// Calls to upstream for one lease or token, within any one second of the fault.
    pub(crate) calls: usize,
    /// From the end of the fault until nobody is refused any more.
    pub(crate) recovery: Duration,
}

/// Everything that is held goes on: the long lease, the short one to its end, the value as a stale one. What was not held
/// is refused.
const OUTAGE: Served = Served { long: 100, short: 20, value: 100, first: 0 };
/// Nobody notices.
const ALL: Served = Served { long: 100, short: 100, value: 100, first: 100 };
/// Nothing was held, or nothing can be written down.
const NOTHING: Served = Served { long: 0, short: 0, value: 0, first: 0 };
/// Vault itself says that there is nothing more to be had: of what it does not lease, nothing is kept.
const WITHDRAWN: Served = Served { value: 0, ..OUTAGE };

const UNAVAILABLE: (u16, &str) = (503, "Tenure.Unavailable");

/// Not before the fault.
const NEVER: Duration = Duration::ZERO;

/// Until no token is so young that a node which lags behind may not have heard of it.
const GROWN: Duration = Duration::from_millis(2_200);

/// Until a token that is lost is replaced at once.
const OLD: Duration = Duration::from_millis(5_500);

/// Half a second, one, two: the fourth try may just be made in the fault, and then the next is four seconds away at most.
const BACKOFF: Duration = Duration::from_millis(4_500);

/// Upstream fails: three tries for a lease are all that its delays allow within a second, and a renewal may come between.
const FAILS: Row = Row {
    name: "",
    fault: Fault::Frozen,
    steady: Duration::from_millis(300),
    lasts: Duration::from_millis(1_800),
    served: OUTAGE,
    errors: &[UNAVAILABLE],
    says: &[],
    calls: 4,
    recovery: BACKOFF,
};

const fn says(status: u16, body: &'static str) -> Fault {
    Fault::Wire(Wrong::Says { status, headers: &[], body })
}

const fn fails(name: &'static str, fault: Fault, says: &'static [&'static str]) -> Row {
    Row { name, fault, says, ..FAILS }
}

const PAGE: &str = "<html><body>a page of something between</body></html>";
/// What is said of a connection that ended.
pub(crate) const CLOSED: &[&str] = &["closed before an answer", "broke off", "connection error", "reset"];

// A row is a line, however long: that is how a table is read.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row] = &[
    // What Vault says.
    Row { served: WITHDRAWN, errors: &[(400, "Tenure.BadRequest")], ..fails("400", says(400, r#"{"errors":["the request makes no sense"]}"#), &["makes no sense"]) },
    Row { steady: OLD, served: Served { first: 80, ..ALL }, ..fails("403, run token lost", Fault::TokenLost, &[]) },
    Row { recovery: Duration::from_millis(3_500), calls: 26, served: Served { long: 60, value: 60, ..OUTAGE }, ..fails("403, run token lost when just made", Fault::TokenLost, &["invalid token"]) },
    Row { steady: GROWN, calls: 12, served: WITHDRAWN, errors: &[(403, "Tenure.Denied")], ..fails("403, not lost", Fault::Withdrawn, &["permission denied"]) },
    Row { steady: GROWN, ..fails("403, of a firewall", says(403, PAGE), &["a proxy's or a firewall's answer"]) },
    Row { served: WITHDRAWN, errors: &[(404, "Tenure.NotFound")], ..fails("404", says(404, r#"{"errors":[]}"#), &[""]) },
    fails("404, of a balancer", says(404, PAGE), &["a proxy's or a firewall's answer"]),
    Row { served: WITHDRAWN, errors: &[(405, "Tenure.BadRequest")], ..fails("405", says(405, r#"{"errors":["unsupported operation"]}"#), &["unsupported operation"]) },
    Row { calls: 12, ..fails("412", says(412, r#"{"errors":["required index state not present"]}"#), &["has not caught up"]) },
    Row { calls: 2, errors: &[(429, "Tenure.Busy")], recovery: Duration::from_millis(6_000), ..fails("429, Retry-After: 1", Fault::Wire(Wrong::Says { status: 429, headers: &[("retry-after", "1")], body: r#"{"errors":["rate limit quota exceeded"]}"# }), &["quota exceeded"]) },
    Row { calls: 2, errors: &[(429, "Tenure.Busy")], recovery: Duration::from_millis(6_000), ..fails("429, without", says(429, r#"{"errors":["rate limit quota exceeded"]}"#), &["quota exceeded"]) },
    fails("472", says(472, r#"{"errors":["a secondary"]}"#), &["disaster-recovery secondary"]),
    fails("473", says(473, r#"{"errors":["a standby"]}"#), &["performance standby"]),
    fails("500", says(500, r#"{"errors":["internal error"]}"#), &["internal error"]),
    fails("502", says(502, PAGE), &["answered 502"]),
    fails("503, sealed", says(503, r#"{"errors":["Vault is sealed"]}"#), &["unseal it"]),
    fails("504", says(504, PAGE), &["answered 504"]),
    Row { served: Served { first: 100, ..OUTAGE }, ..fails("leases revoked", Fault::LeasesLost, &["lease not found"]) },
    // What comes of a connection.
    fails("refused", Fault::Wire(Wrong::Refused), &["nothing listens there"]),
    fails("reset before the request", Fault::Wire(Wrong::Reset(Point::Before)), CLOSED),
    fails("reset within the request", Fault::Wire(Wrong::Reset(Point::Within)), CLOSED),
    fails("reset after the request", Fault::Wire(Wrong::Reset(Point::After)), CLOSED),
    fails("half an answer", Fault::Wire(Wrong::Half), CLOSED),
    fails("content-length too long", Fault::Wire(Wrong::Length(64)), CLOSED),
    fails("content-length too short", Fault::Wire(Wrong::Length(-8)), &["not a Vault JSON answer"]),
    fails("slow drip", Fault::Wire(Wrong::Drip), &["no complete answer"]),
    fails("hang", Fault::Wire(Wrong::Hang), &["no complete answer", "nothing came within"]),
    Row { served: Served { long: 100, short: 100, value: 100, first: 50 }, ..fails("300 ms late", Fault::Wire(Wrong::Late(Duration::from_millis(300))), &[]) },
    // What an answer holds.
    fails("200, JSON that breaks off", says(200, r#"{"request_id":"7a","data":{"passwo"#), &["not a Vault JSON answer"]),
    fails("200, another API's JSON", says(200, r#"{"message":"hello"}"#), &["not a Vault JSON answer"]),
    fails("200, members of other types", says(200, r#"{"request_id":1,"lease_duration":"soon","data":"x"}"#), &["not a Vault JSON answer"]),
    fails("200, a proxy's page", says(200, PAGE), &["not a Vault JSON answer"]),
    fails("200, empty", says(200, ""), &["not a Vault JSON answer"]),
    fails("huge, announced", Fault::Wire(Wrong::Huge { announced: true }), &["is larger than"]),
    Row { recovery: Duration::from_millis(5_000), ..fails("huge, without end", Fault::Wire(Wrong::Huge { announced: false }), &["is larger than", "no complete answer"]) },
    // Where it sends us.
    Row { calls: 8, ..fails("redirect loop", Fault::Wire(Wrong::RedirectToItself), &["redirect to each other"]) },
    fails("redirect to a page", Fault::Wire(Wrong::Says { status: 302, headers: &[("location", "https://login.test/")], body: "" }), &["not followed"]),
    fails("DNS, of a redirect's host", Fault::Wire(Wrong::RedirectToNowhere), &["cannot be resolved"]),
    // TLS.
    fails("TLS, another name", Fault::Tls(Wrong::Shows(Certificate::OtherName)), &["for another name"]),
    fails("TLS, expired", Fault::Tls(Wrong::Shows(Certificate::Expired)), &["not valid now"]),
    fails("TLS, unknown CA", Fault::Tls(Wrong::Shows(Certificate::OtherAuthority)), &["unknown authority"]),
    fails("TLS, handshake cut off", Fault::Tls(Wrong::CutHandshake), CLOSED),
    fails("TLS, half an answer", Fault::Tls(Wrong::Half), CLOSED),
    // From the start.
    Row { steady: NEVER, served: NOTHING, ..fails("503 at the start", says(503, r#"{"errors":["Vault is sealed"]}"#), &["unseal it"]) },
    Row { steady: NEVER, served: NOTHING, ..fails("refused at the start", Fault::Wire(Wrong::Refused), &["nothing listens there"]) },
    Row { steady: NEVER, served: NOTHING, ..fails("hang at the start", Fault::Wire(Wrong::Hang), &["no complete answer", "nothing came within", "no login token"]) },
    // The login.
    Row { served: ALL, lasts: Duration::from_millis(2_500), ..fails("login service: 500", Fault::Login(Wrong::Says { status: 500, headers: &[], body: r#"{"errors":["the issuer cannot be reached"]}"# }, false), &[]) },
    Row { served: ALL, lasts: Duration::from_millis(2_500), ..fails("login refused", Fault::Login(Wrong::Says { status: 400, headers: &[], body: r#"{"errors":["error validating token: invalid signature"]}"# }, false), &[]) },
    Row { steady: GROWN, calls: 12, recovery: Duration::from_millis(6_000), lasts: Duration::from_millis(3_000), served: NOTHING, ..fails("login service: 500, run token lost", Fault::Login(Wrong::Says { status: 500, headers: &[], body: r#"{"errors":["the issuer cannot be reached"]}"# }, true), &["issuer cannot be reached", "no login token", "invalid token"]) },
    // The machine.
    Row { served: ALL, recovery: Duration::from_millis(1_500), ..fails("clock + 1 h", Fault::Jump(3_600_000), &[]) },
    Row { served: ALL, recovery: Duration::from_millis(1_500), ..fails("clock - 1 h", Fault::Jump(-3_600_000), &[]) },
    Row { served: ALL, recovery: Duration::from_millis(1_500), lasts: Duration::from_millis(3_000), ..fails("frozen", Fault::Frozen, &[]) },
    Row { served: NOTHING, recovery: Duration::from_millis(2_500), ..fails("disk full", Fault::DiskFull(0), &["audit log"]) },
    Row { served: NOTHING, recovery: Duration::from_millis(2_500), ..fails("disk full within a line", Fault::DiskFull(100), &["audit log"]) },
    Row { served: ALL, ..fails("audit file read-only at SIGHUP", Fault::AuditReadOnly, &[]) },
    Row { served: ALL, ..fails("SIGHUP under load", Fault::Hangups, &[]) },
];
