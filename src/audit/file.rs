//! Opening a log file: who may read it, who else writes it, and where its chain ends.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::AuditError;
use super::chain::{Hash, Head, split};
use super::entry::Recovered;
use super::line::Line;

/// No line is longer: a longer entry is refused, and whatever is longer in a file is not a line of ours.
pub(super) const MAX_LINE: usize = 1 << 20;

/// A log file, ready to be appended to.
pub(super) struct Opened {
    pub(super) file: File,
    /// Where its chain ends; `None` in an empty file.
    pub(super) head: Option<Head>,
    /// What was torn at its end, and where that is now.
    pub(super) torn: Option<Recovered>,
}

/// Opens a log, makes it where there is none, takes its lock and finds the end of its chain.
///
/// # Errors
/// A parent that is missing, a symbolic link, anything but a regular file, a mode that lets others read or write, an
/// owner other than us, another process that holds the lock, an end that is not a line of a chain.
pub(super) fn open(path: &Path) -> Result<Opened, AuditError> {
    let mut file = acquired(path, OFlags::CREATE)?;
    let (head, torn) = recover(&mut file, path)?;
    Ok(Opened { file, head, torn })
}

/// The file, ours alone and locked.
fn acquired(path: &Path, more: OFlags) -> Result<File, AuditError> {
    let at = || path.to_owned();
    // NONBLOCK, so that a FIFO put in the file's place cannot hold us up; it means nothing to a regular file.
    let flags = OFlags::RDWR
        | OFlags::APPEND
        | more
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
        | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::NOENT => AuditError::NoDirectory { path: at() },
        Errno::LOOP => AuditError::Symlink { path: at() },
        // A FIFO without a reader, a socket.
        Errno::NXIO | Errno::ISDIR => AuditError::NotAFile { path: at() },
        other => AuditError::Open { path: at(), source: io::Error::from(other).into() },
    })?;
    let file = File::from(fd);
    let fails = |error: io::Error| AuditError::Open { path: at(), source: error.into() };
    let meta = file.metadata().map_err(fails)?;
    if !meta.is_file() {
        return Err(AuditError::NotAFile { path: at() });
    }
    if meta.mode() & 0o066 != 0 {
        return Err(AuditError::LooseMode { path: at(), mode: meta.mode() & 0o7777 });
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us {
        return Err(AuditError::ForeignOwner { path: at(), owner: meta.uid(), us });
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(AuditError::InUse { path: at() }),
        Err(errno) => return Err(fails(errno.into())),
    }
    Ok(file)
}

/// Whether a log could be opened there, without making or changing anything: not its chain, which is judged when it is
/// opened. The lock is held for a moment.
///
/// # Errors
/// As [`open`], but for the chain.
pub(super) fn check(path: &Path) -> Result<(), AuditError> {
    if std::fs::symlink_metadata(path).is_err() {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(AuditError::NoDirectory { path: path.to_owned() });
        }
        let write = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        return rustix::fs::access(folder, write).map_err(|errno| AuditError::Open {
            path: path.to_owned(),
            source: io::Error::from(errno).into(),
        });
    }
    acquired(path, OFlags::empty()).map(drop)
}

/// Whether the path still leads to the file that is open.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

/// Finds the end of the chain. What is torn there is moved into a file of its own: it is evidence.
fn recover(file: &mut File, path: &Path) -> Result<(Option<Head>, Option<Recovered>), AuditError> {
    let fails = |error: io::Error| AuditError::Open { path: path.to_owned(), source: error.into() };
    let len = file.metadata().map_err(fails)?.len();
    let tail = read_tail(file, len).map_err(fails)?;

    let mut whole = tail.as_slice();
    if let Some(head) = last_line(whole).and_then(head_of) {
        return Ok((Some(head), None));
    }
    // Not a whole line, or not a good one: the end is torn. The line before it must be good.
    whole = &whole[..start_of_last(whole)];
    let torn = (tail.len() - whole.len()) as u64;
    if len == 0 {
        return Ok((None, None));
    }
    let kept = len - torn;
    let head = match last_line(whole) {
        // Only what is left of our own first line may be taken for one: this may be somebody else's file.
        None if kept == 0 && tail.starts_with(b"{\"v\":") => None,
        line => Some(line.and_then(head_of).ok_or_else(|| AuditError::BrokenEnd { path: path.to_owned() })?),
    };
    let side = keep_aside(path, &tail[whole.len()..], head.map_or(1, |head| head.seq + 1)).map_err(fails)?;
    file.set_len(kept).map_err(fails)?;
    file.sync_all().map_err(fails)?;
    let recovered = Recovered {
        torn_bytes: Some(torn),
        torn_file: Some(side.to_string_lossy().into_owned()),
        ..Recovered::default()
    };
    Ok((head, Some(recovered)))
}

/// The file's last bytes: enough of them to hold its last two lines, not the whole of a long file.
fn read_tail(file: &mut File, len: u64) -> io::Result<Vec<u8>> {
    let mut span = 64 * 1024;
    loop {
        let from = len.saturating_sub(span);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(span).read_to_end(&mut tail)?;
        let newlines = tail.iter().filter(|&&byte| byte == b'\n').count();
        if from == 0 {
            return Ok(tail);
        }
        // The third newline from the end is where the last two lines begin, or the last one and a torn one.
        if newlines >= 3 || span > 4 * MAX_LINE as u64 {
            let start = tail.iter().position(|&byte| byte == b'\n').map_or(tail.len(), |at| at + 1);
            return Ok(tail.split_off(start));
        }
        span *= 4;
    }
}

/// Where the last line begins, whether or not it ends in a newline.
fn start_of_last(bytes: &[u8]) -> usize {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

/// The last line without its newline; `None` if it has none.
fn last_line(bytes: &[u8]) -> Option<&[u8]> {
    bytes[start_of_last(bytes)..].strip_suffix(b"\n")
}

/// The head after this line, if it is a good line.
fn head_of(line: &[u8]) -> Option<Head> {
    let (content, hash) = split(line)?;
    let parsed: Line = serde_json::from_slice(line).ok()?;
    (Hash::of(content) == hash).then_some(Head { seq: parsed.seq, hash })
}

/// Writes `bytes` to `<path>.torn-<seq>`, or to the next free name after it, and waits until they are on the disk.
fn keep_aside(path: &Path, bytes: &[u8], seq: u64) -> io::Result<PathBuf> {
    for attempt in 0..1_000u32 {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".torn-{seq}"));
        if attempt > 0 {
            name.push(format!(".{attempt}"));
        }
        let side = PathBuf::from(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&side, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                let mut file = File::from(fd);
                file.write_all(bytes)?;
                file.sync_all()?;
                return Ok(side);
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
