//! What the kernel expects of a process: to end when it is told to and, as the first of its pid namespace, as which a
//! container starts it, to look after what nobody else does.
//!
//! To that first process (`pid_namespaces(7)`) a signal without a handler is no signal: SIGTERM would do nothing until
//! somebody listens, and a command that listens to nothing would have to be killed. And whose parent has died becomes its
//! child, to be waited for. [`begin`] sees to both, from the first line of the program on: in a thread of its own, so that
//! whatever a command does meanwhile need not think of it. Everywhere else the kernel's defaults are right, and it does
//! nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::watch;

/// The signals by which a process is told to end.
const ENDING: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

static INIT: OnceLock<Init> = OnceLock::new();

/// What the first process of a pid namespace keeps in mind.
#[derive(Default)]
struct Init {
    /// The children that somebody of ours waits for, each with where its end is told.
    children: Mutex<HashMap<Pid, watch::Sender<Option<ExitStatus>>>>,
    /// The signals that somebody listens to, one bit each.
    taken: AtomicU64,
}

/// Begins with the duties of a first process, where we are one: from now on each signal that tells a process to end does,
/// with the exit code 128 and its number, unless [`Told`] listens to it; and orphans are waited for.
///
/// # Errors
/// The operating system's: no thread, or no handler, could be had.
pub fn begin() -> io::Result<()> {
    if !getpid().is_init() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // Here and not in the thread: when this returns, the handlers are there.
    let (mut told, mut news) = {
        let _inside = runtime.enter();
        (Told::new(&ENDING)?, signal(SignalKind::child())?)
    };
    let init = INIT.get_or_init(Init::default);
    let duties = async move {
        loop {
            // Whoever ended before anybody listened is found as well.
            init.reap();
            tokio::select! {
                signal = told.next() => if !init.is_taken(signal) {
                    std::process::exit(exit_code(signal).into());
                },
                _ = news.recv() => {}
            }
        }
    };
    std::thread::Builder::new().name("init".to_owned()).spawn(move || runtime.block_on(duties)).map(drop)
}

/// The exit code of a process that a signal ended, as a shell tells it.
#[must_use]
pub fn exit_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

/// The exit code of a command that cannot be started, as a shell tells it.
#[must_use]
pub fn code_of_failure(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Lets a command take our place: the same process, with the same environment, and with signals as a process finds them.
/// Returns only if that cannot be; of an empty command, too.
#[must_use]
pub fn become_command(command: &[OsString]) -> io::Error {
    match command {
        [] => io::Error::new(io::ErrorKind::InvalidInput, "no command was given"),
        [program, arguments @ ..] => Command::new(program).args(arguments).exec(),
    }
}

impl Init {
    fn children(&self) -> MutexGuard<'_, HashMap<Pid, watch::Sender<Option<ExitStatus>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_taken(&self, signal: Signal) -> bool {
        self.taken.load(Ordering::SeqCst) & bit(signal) != 0
    }

    /// Waits for all who have ended. Who is waited for by somebody of ours has the end told to him.
    fn reap(&self) {
        let mut children = self.children();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(tell) = children.remove(&pid) {
                tell.send_replace(Some(ExitStatus::from_raw(status.as_raw())));
            }
        }
    }
}

fn bit(signal: Signal) -> u64 {
    1 << signal.as_raw()
}

/// Signals that are listened to, instead of what they would do by themselves.
#[derive(Debug)]
pub struct Told(Vec<(Signal, Signals)>);

impl Told {
    /// Listens to them from now on, for as long as the process lives. Needs a runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(signals: &[Signal]) -> io::Result<Self> {
        let told = Self::new(signals)?;
        if let Some(init) = INIT.get() {
            init.taken
                .fetch_or(signals.iter().copied().map(bit).fold(0, |all, bit| all | bit), Ordering::SeqCst);
        }
        Ok(told)
    }

    fn new(signals: &[Signal]) -> io::Result<Self> {
        let stream = |which: &Signal| Ok((*which, signal(SignalKind::from_raw(which.as_raw()))?));
        signals.iter().map(stream).collect::<io::Result<_>>().map(Self)
    }

    /// The next of them.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (which, stream) in &mut self.0 {
                if matches!(stream.poll_recv(context), Poll::Ready(Some(()))) {
                    return Poll::Ready(*which);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A child that is waited for. It does not outlive this value.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    pid: Pid,
    end: End,
}

/// Who waits for a child.
#[derive(Debug)]
enum End {
    /// We: some child has ended, or stopped.
    Ours(Signals),
    /// The first process of the namespace, which waits for everybody.
    Told(watch::Receiver<Option<ExitStatus>>),
}

impl Child {
    /// Starts a command. Needs a runtime.
    ///
    /// # Errors
    /// The operating system's, such as that there is no such command.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let pid = |child: &std::process::Child| {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            pid.ok_or_else(|| io::Error::other("the process that was started has no id"))
        };
        let Some(init) = INIT.get() else {
            // Before it starts: none of its signals may be missed.
            let news = signal(SignalKind::child())?;
            let child = command.spawn()?;
            return Ok(Self { pid: pid(&child)?, child, end: End::Ours(news) });
        };
        // Until it is known to be ours, nobody is waited for.
        let mut children = init.children();
        let child = command.spawn()?;
        let (tell, end) = watch::channel(None);
        let pid = pid(&child)?;
        children.insert(pid, tell);
        Ok(Self { child, pid, end: End::Told(end) })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.end {
            End::Ours(news) => loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status);
                }
                news.recv().await;
            },
            End::Told(end) => {
                let gone = || io::Error::other("nobody waits for the process any more");
                let status = end.wait_for(Option::is_some).await.map_err(|_| gone())?;
                status.ok_or_else(gone)
            }
        }
    }

    /// Sends it a signal, if it is still there.
    pub fn signal(&mut self, signal: Signal) {
        match &self.end {
            // Nobody but us takes its exit status, so its id is still its own.
            End::Ours(_) => {
                if matches!(self.child.try_wait(), Ok(None)) {
                    let _ = kill_process(self.pid, signal);
                }
            }
            End::Told(_) => {
                let Some(init) = INIT.get() else { return };
                let children = init.children();
                if children.contains_key(&self.pid) {
                    let _ = kill_process(self.pid, signal);
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let End::Ours(_) = self.end {
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_waited_for_and_does_not_outlive_its_value() {
        let mut quick = Child::start(Command::new("sh").args(["-c", "exit 7"])).expect("it starts");
        assert_eq!(quick.ended().await.expect("its end").code(), Some(7));
        let mut told = Child::start(Command::new("sleep").arg("600")).expect("it starts");
        told.signal(Signal::TERM);
        assert_eq!(told.ended().await.expect("its end").signal(), Some(Signal::TERM.as_raw()));
        let slow = Child::start(Command::new("sleep").arg("600")).expect("it starts");
        let pid = slow.pid;
        drop(slow);
        assert!(rustix::process::test_kill_process(pid).is_err(), "it was waited for");
        assert!(Child::start(&mut Command::new("/nowhere/at/all")).is_err());
    }
}
