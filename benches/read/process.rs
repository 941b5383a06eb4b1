//! A server as a child process: started, asked for its time and memory, ended.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Failed, SOCKET};

/// Pins this process to a core, and with it all that it starts later.
pub(crate) fn pin(core: usize) -> Result<(), Failed> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) tcp: SocketAddr,
}

/// What it takes of memory, in bytes: all that is resident, and what of that is not backed by a file.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) own: u64,
}

impl Server {
    /// Starts this very program as the server `what`, and waits until it listens.
    pub(crate) fn start(what: &str, dir: &Path) -> Result<Self, Failed> {
        let mut child = spawn(what, dir)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| format!("the {what} server did not start"))?;
        Ok(Self { child, dir: dir.to_owned(), tcp: (Ipv4Addr::LOCALHOST, port).into() })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// The time that all its threads had a core, so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Failed> {
        let mut total = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            total += text.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    pub(crate) fn memory(&self) -> Result<Memory, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        let memory = of("VmRSS:").zip(of("RssAnon:")).map(|(resident, own)| Memory { resident, own });
        Ok(memory.ok_or("no VmRSS in /proc/PID/status")?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not asked to end: there is nothing behind it to be revoked.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn spawn(what: &str, dir: &Path) -> Result<Child, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.arg(what).arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}
