//! The audit log: one JSON line per decision and per lifecycle event, each chained to the one before it.
//!
//! **Fail closed.** A decision is [`record`](Audit::record)ed before it takes effect. Its [`Receipt`] is the only proof
//! that opens a [`Secret`](crate::secret::Secret), so what could not be recorded cannot be disclosed; its line is not
//! written later either, because the disclosure did not happen. Lifecycle events have happened already:
//! [`note`](Audit::note) keeps their lines until they can be written. `audit.recovered` says what was lost in between.
//!
//! **What written means.** The kernel has the line: it survives the process, not the machine. There is no `fsync`; what
//! a power failure takes is what the anchors in upstream's own audit log bring to light.
//!
//! **The line.** A JSON object of the members of [`Line`], absent ones left out, and nothing else ([`schema`] is its
//! JSON Schema). `v` is 1. The last three are the writer's: `seq` counts from 1 and goes on over restarts, `prev` is the
//! hash of the line before (64 zeros in the first), `hash` is SHA-256 over the line's own bytes up to and without
//! `,"hash":`. So a line is verified as it stands, without bringing it into a canonical form:
//!
//! ```text
//! {"v":1,"time":"2026-01-01T00:00:00.000Z","boot":"b1","event":"read","outcome":"granted",…,"seq":7,"prev":"…","hash":"…"}
//! └──────────────────────────────── SHA-256 of these bytes is the hash ─────────────────────────────┘
//! ```
//!
//! **What was disclosed** stands in a line as keyed hashes, where there is a key ([`ValueKey`]): whether a value was served can
//! be told from them ([`trace::served`]), by who may have the key unwrapped.
//!
//! **The file** is 0600, not a symbolic link, and locked by the one process that writes it. The chain goes on where the
//! file ends; a torn end is moved to a file of its own and named in the first new line. After a rotation
//! [`reopen`](Audit::reopen) takes the chain into the new file. On standard output and to [`Syslog`] each boot starts a chain of
//! its own; there a line may be wrapped in an OCSF event ([`Format`]), and [`unwrapped`] finds it again.
//!
//! **What the chain proves** is consistency, by itself: [`verify()`] finds any line changed, taken out, put in or moved.
//! It cannot notice a cut tail, or a chain that was made anew as a whole. Against those [`Audit::head`] is pinned where
//! we cannot write: in the metadata of run tokens, which upstream's own audit log shows.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::secret::{Disclosure, sealed};

mod at;
mod chain;
mod entry;
mod file;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod line;
mod memory;
mod ocsf;
mod queue;
mod sink;
mod syslog;
#[cfg(test)]
mod tests;
pub mod trace;
mod values;
pub mod verify;
mod who;
mod words;
mod writer;

pub use at::At;
pub use chain::{Hash, Head};
pub use entry::{Composed, Entry, Fragment, Lead, Recovered};
pub use frame::{Format, unwrapped};
pub use line::{Line, VERSION, schema};
pub use memory::Memory;
pub use syslog::Syslog;
pub use values::{ValueKey, Values, WrappedKey};
pub use verify::verify;
pub use who::{Peer, Run, RunStamp, Subject};
pub use words::{Event, Outcome, Source, Via};

use entry::Render;
use frame::Framing;
use queue::{Pump, Shared, Ticket};
use sink::{Sink, Stdout};
use writer::Writer;

/// How long [`Audit::close`] waits for the last lines.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// A file of ours alone.
    File(PathBuf),
    /// Standard output, for platforms that collect it.
    Stdout(Format),
    /// RFC 5424 messages, each a datagram.
    Syslog(Syslog, Format),
}

/// Why the log could not be opened, or a line not be written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The parent directory is missing.
    #[error("audit log {}: its directory does not exist; create it, owned by the broker, with mode 0700", path.display())]
    NoDirectory {
        /// The log.
        path: PathBuf,
    },
    /// The path's last component is a symbolic link.
    #[error("audit log {}: it is a symbolic link; name the file itself", path.display())]
    Symlink {
        /// The log.
        path: PathBuf,
    },
    /// The path leads to a directory, a device, a pipe or a socket.
    #[error("audit log {}: it is not a regular file", path.display())]
    NotAFile {
        /// The log.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("audit log {}: its mode is {mode:04o}, others may read or write it; chmod 0600 it", path.display())]
    LooseMode {
        /// The log.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("audit log {}: it belongs to uid {owner}, the broker runs as uid {us}; chown it or move it away", path.display())]
    ForeignOwner {
        /// The log.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Another process writes it.
    #[error("audit log {}: another process writes to it; give each broker a file of its own", path.display())]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// Its last two lines are not a chain's.
    #[error(
        "audit log {}: it does not end in a line of a chain; verify it and move it away, it is evidence",
        path.display()
    )]
    BrokenEnd {
        /// The log.
        path: PathBuf,
    },
    /// The operating system refused it.
    #[error("audit log {}: it cannot be opened", path.display())]
    Open {
        /// The log.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Nothing receives syslog messages there.
    #[error(
        "audit log {to}: nothing receives there; start the syslog daemon, or let the broker see its socket"
    )]
    NoReceiver {
        /// Where they go.
        to: Syslog,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Standard output or the writer's thread is not to be had.
    #[error("the audit log cannot be started")]
    Start(#[source] Arc<io::Error>),
    /// The line could not be written.
    #[error("the audit line could not be written")]
    Write(#[source] Arc<io::Error>),
    /// The line is longer than 1 MiB or, as a syslog message, than a datagram.
    #[error("the audit line would be longer than the {limit} bytes that one may have there")]
    TooLong {
        /// The most that it may have, as it is written.
        limit: usize,
    },
    /// The entry does not serialize.
    #[error("the audit entry cannot be written as JSON")]
    Entry(#[source] Arc<serde_json::Error>),
    /// Too many lines wait: the sink hangs.
    #[error("too many audit lines wait to be written")]
    Overloaded,
    /// The line is not written yet, and its caller's patience is at an end.
    #[error("the log does not answer")]
    NoAnswer,
    /// Lines were left unwritten at the end.
    #[error("the last audit lines could not be written")]
    NotFlushed,
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

impl From<serde_json::Error> for AuditError {
    fn from(error: serde_json::Error) -> Self {
        Self::Entry(Arc::new(error))
    }
}

/// Proof that a decision was recorded: what opens a secret.
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    seq: u64,
}

impl Receipt {
    /// The number of the line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl sealed::Sealed for Receipt {}
impl Disclosure for Receipt {}

/// What was counted since the log was opened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lines written.
    pub written: u64,
    /// Decisions whose line could not be written.
    pub refused: u64,
    /// Lifecycle lines that were dropped: the log had failed, and more waited than are kept.
    pub dropped: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Writes that wrote something: lines per batch is `written / batches`.
    pub batches: u64,
    /// Lifecycle lines that wait to be written, now.
    pub waiting: u64,
}

/// A handle to the log. Cheap to clone; when the last one is dropped, what was handed over is written and the log ends.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    stamper: Stamper,
    /// The head of the chain before the first line of this boot.
    began: Head,
    /// Where there is no thread: the writer, for whoever hands over.
    inline: Option<Mutex<Writer>>,
}

impl Audit {
    /// Opens the log and starts its writer: one thread.
    ///
    /// To be called on the runtime that records: a task there spares a system call per line. That runtime must be run
    /// or dropped: one that is kept and not run holds up callers on others. Outside of any runtime it works too.
    ///
    /// # Errors
    /// All about the file that [`AuditError`] knows: it is opened, checked and locked here.
    pub fn open(config: Config, boot: &str, clock: Clock) -> Result<Self, AuditError> {
        let shared = Arc::new(Shared::default());
        let mut stamper = Stamper::new(boot, clock)?;
        let writer = match config {
            Config::File(path) => {
                let opened = file::open(&path)?;
                Writer::on_file(Arc::clone(&shared), stamper.clone(), path, opened)?
            }
            Config::Stdout(format) => {
                let stdout = Stdout::open().map_err(|error| AuditError::Start(error.into()))?;
                let framing = Framing { format, header: None };
                stamper = stamper.framed(framing.clone());
                Writer::new(Arc::clone(&shared), stamper.clone(), Sink::framed(stdout, framing))
            }
            Config::Syslog(to, format) => {
                let sender = connected(to)?;
                let framing = Framing { format, header: Some(syslog::Header::new()) };
                stamper = stamper.framed(framing.clone());
                Writer::new(Arc::clone(&shared), stamper.clone(), Sink::framed(sender, framing))
            }
        };
        Self::start(shared, stamper, writer)
    }

    /// Whether a log could be opened in that file, without making or changing anything: its owner, its mode, its lock. Its
    /// chain is judged by [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check(path: &Path) -> Result<(), AuditError> {
        file::check(path)
    }

    /// Whether something receives syslog messages there, without sending any. By UDP that cannot be told.
    ///
    /// # Errors
    /// [`AuditError::NoReceiver`].
    pub fn check_syslog(to: &Syslog) -> Result<(), AuditError> {
        connected(to.clone()).map(drop)
    }

    /// A log in memory and without a thread, for tests: a line is written before `record` first yields, so paused time
    /// does not run ahead of it.
    ///
    /// # Errors
    /// None with a boot id that is a string.
    pub fn in_memory(boot: &str, clock: Clock) -> Result<(Self, Memory), AuditError> {
        let memory = Memory::default();
        let shared = Arc::new(Shared::default());
        let stamper = Stamper::new(boot, clock)?;
        let writer = Writer::new(Arc::clone(&shared), stamper.clone(), Sink::new(memory.clone()));
        let began = shared.lock().state.head;
        let audit = Self(Arc::new(Inner { shared, stamper, began, inline: Some(Mutex::new(writer)) }));
        audit.turn_inline();
        Ok((audit, memory))
    }

    fn start(shared: Arc<Shared>, stamper: Stamper, writer: Writer) -> Result<Self, AuditError> {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Pump::new(Arc::clone(&shared)));
        }
        let began = shared.lock().state.head;
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run())
            .map_err(|error| AuditError::Start(error.into()))?;
        Ok(Self(Arc::new(Inner { shared, stamper, began, inline: None })))
    }

    /// Bounds how long [`record`](Self::record) waits, by one timer for all who wait; it may be a quarter more. Without
    /// a runtime at the log's opening, and before this is called, nothing is bounded.
    pub fn bound(&self, patience: Duration) {
        self.0.shared.bound(patience);
    }

    /// Writes a decision's line, and returns once the kernel has it (not the disk: there is no `fsync`).
    ///
    /// A caller that goes away while it waits leaves the line behind: a line may tell of an answer that nobody read,
    /// never the other way round. How long a hanging disk may keep a caller waiting [is bounded](Self::bound).
    ///
    /// # Errors
    /// The line was not written and will not be; after [`AuditError::NoAnswer`] it may be. What it was about must not
    /// happen.
    pub async fn record(&self, entry: &Entry<'_>) -> Result<Receipt, AuditError> {
        self.submit(entry).await
    }

    /// Writes a decision's line as [`record`](Self::record) does, from parts that were rendered before.
    ///
    /// # Errors
    /// As `record`.
    pub async fn record_composed(&self, entry: &Composed<'_>) -> Result<Receipt, AuditError> {
        self.submit(entry).await
    }

    async fn submit(&self, entry: &impl Render) -> Result<Receipt, AuditError> {
        let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let shared = &*self.0.shared;
        let slot = self.0.stamper.with(entry, |line| shared.submit(line, waker))??;
        self.turn_inline();
        let ticket = pin!(Ticket { shared, slot: Some(slot) });
        ticket.await.map(|seq| Receipt { seq })
    }

    /// Writes a lifecycle event's line when that is possible: at once, or when the sink works again, in order.
    ///
    /// 10,000 lines are kept meanwhile; what comes after them is dropped, counted, and told of by `audit.recovered`.
    pub fn note(&self, entry: &Entry<'_>) {
        if self.0.stamper.with(entry, |line| self.0.shared.note(line)).is_err() {
            self.0.shared.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        self.turn_inline();
    }

    /// The last line written: what an anchor pins.
    #[must_use]
    pub fn head(&self) -> Head {
        self.0.shared.lock().state.head
    }

    /// The last line before the first of this boot: by it an anchor tells which chain the boot goes on with.
    #[must_use]
    pub fn began(&self) -> Head {
        self.0.began
    }

    /// Whether the last write succeeded and the writer runs. It becomes true again by itself: a failed log is tried
    /// again with each line, and once a second while lifecycle lines wait.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.0.shared.lock().state.healthy
    }

    /// What was counted since the log was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.shared.counters()
    }

    /// Opens the path anew, after it was rotated. The new file's first line is `audit.reopened` and carries the head of
    /// the file before, so the chain goes on. Where the path still leads to the open file nothing is done.
    ///
    /// # Errors
    /// As [`open`](Self::open); the file that is open stays the log then.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        self.ask(|requests| &mut requests.reopen).await
    }

    /// Writes what was handed over, releases the file and ends the writer, within five seconds. Other handles find the
    /// log closed from then on.
    ///
    /// # Errors
    /// [`AuditError::NotFlushed`] if lines were left unwritten.
    pub async fn close(self) -> Result<(), AuditError> {
        let close = self.ask(|requests| &mut requests.close);
        tokio::time::timeout(CLOSE_WITHIN, close).await.unwrap_or(Err(AuditError::NotFlushed))
    }

    async fn ask(&self, list: impl FnOnce(&mut queue::Requests) -> &mut Vec<u32>) -> Result<(), AuditError> {
        let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let slot = self.0.shared.ask(waker, list)?;
        self.turn_inline();
        Ticket { shared: &self.0.shared, slot: Some(slot) }.await.map(drop)
    }

    fn turn_inline(&self) {
        if let Some(writer) = &self.0.inline {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.turn(self.0.shared.lock());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("head", &self.head()).finish_non_exhaustive()
    }
}

fn connected(to: Syslog) -> Result<syslog::Sender, AuditError> {
    syslog::Sender::connect(to.clone()).map_err(|source| AuditError::NoReceiver { to, source: source.into() })
}

/// Puts an entry into the bytes of a line: version, time and boot before it, the closing brace left to the chain.
#[derive(Clone)]
struct Stamper {
    clock: Clock,
    /// From the end of the time to the end of the boot id.
    boot: Arc<[u8]>,
    /// What the line will be wrapped in: it bounds its length.
    framing: Framing,
}

impl Stamper {
    fn new(boot: &str, clock: Clock) -> Result<Self, AuditError> {
        let boot = format!("\",\"boot\":{}", serde_json::to_string(boot)?);
        Ok(Self { clock, boot: boot.into_bytes().into(), framing: Framing::default() })
    }

    fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    fn stamp(&self, entry: &impl Render, line: &mut Vec<u8>) -> Result<(), AuditError> {
        line.clear();
        line.extend_from_slice(b"{\"v\":1,\"time\":\"");
        let at = entry.at().unwrap_or_else(|| self.clock.now());
        line.extend_from_slice(Timestamp::of(at).as_str().as_bytes());
        line.extend_from_slice(&self.boot);
        entry.render(line)?;
        if !self.framing.fits(line) {
            return Err(AuditError::TooLong { limit: self.framing.limit() });
        }
        Ok(())
    }

    /// Stamps into a buffer that the thread keeps.
    fn with<T>(&self, entry: &impl Render, then: impl FnOnce(&[u8]) -> T) -> Result<T, AuditError> {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            let result = self.stamp(entry, line).map(|()| then(line));
            line.shrink_to(64 * 1024);
            result
        })
    }
}
