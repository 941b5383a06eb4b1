//! The writer: takes all lines that wait, chains them, writes them at once, tells their callers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chain::{Hash, Head};
use super::entry::{Entry, Recovered};
use super::queue::{Pending, Queue, Requests, Shared};
use super::sink::{Closed, KEPT_BUFFER, LogFile, Sink};
use super::{AuditError, Stamper, file};

/// Everything that only one thread at a time may touch: the sink, the chain, what could not be written.
pub(super) struct Writer {
    shared: Arc<Shared>,
    stamper: Stamper,
    sink: Sink,
    /// The file's path, and the file again, to see whether the path still leads to it.
    file: Option<(PathBuf, std::fs::File)>,
    head: Head,
    /// The head of the file before this one, until this one names it.
    previous: Option<Head>,
    /// What no line has told of yet.
    lost: Option<Recovered>,
    /// Lifecycle lines that could not be written: their bytes, and where each ends.
    backlog: Vec<u8>,
    backlog_ends: Vec<usize>,
    bytes: Vec<u8>,
    lines: Vec<Pending>,
    out: Vec<u8>,
    /// Where each line of `out` ends.
    ends: Vec<usize>,
    scratch: Vec<u8>,
}

/// Tells everybody that the writer has ended, whichever way it did.
struct OnExit(Arc<Shared>);

impl Drop for OnExit {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, stamper: Stamper, sink: Sink) -> Self {
        Self {
            shared,
            stamper,
            sink,
            file: None,
            head: Head::START,
            previous: None,
            lost: None,
            backlog: Vec::new(),
            backlog_ends: Vec::new(),
            bytes: Vec::new(),
            lines: Vec::new(),
            out: Vec::new(),
            ends: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Continues the file's chain.
    pub(super) fn on_file(
        shared: Arc<Shared>,
        stamper: Stamper,
        path: PathBuf,
        opened: file::Opened,
    ) -> Result<Self, AuditError> {
        let again = opened
            .file
            .try_clone()
            .map_err(|source| AuditError::Open { path: path.clone(), source: source.into() })?;
        let mut writer = Self::new(shared, stamper, Sink::new(LogFile(opened.file)));
        writer.head = opened.head.unwrap_or(Head::START);
        writer.lost = opened.torn;
        writer.file = Some((path, again));
        writer.shared.lock().state.head = writer.head;
        Ok(writer)
    }

    /// The thread: until there is no handle left, or it was told to end.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ends = OnExit(Arc::clone(&shared));
        // What was found at the start is told before anything is asked.
        self.turn(shared.lock());
        loop {
            let retry = self.is_behind();
            if self.turn(shared.wait_for_work(retry)) {
                return;
            }
        }
    }

    /// Whether there is something to be written that nobody will ask for again.
    fn is_behind(&self) -> bool {
        self.lost.is_some() || self.previous.is_some() || !self.backlog_ends.is_empty()
    }

    /// Does all that waits. Says whether that was the end.
    pub(super) fn turn(&mut self, mut queue: std::sync::MutexGuard<'_, Queue>) -> bool {
        std::mem::swap(&mut queue.bytes, &mut self.bytes);
        std::mem::swap(&mut queue.lines, &mut self.lines);
        let requests = std::mem::take(&mut queue.requests);
        let dropped = std::mem::take(&mut queue.dropped);
        let turned_away = std::mem::take(&mut queue.turned_away);
        let last = queue.state.closing || !requests.close.is_empty();
        // Whoever comes after a close is told so, rather than forgotten.
        queue.state.closing = last;
        drop(queue);

        if dropped > 0 || turned_away > 0 {
            let lost = self.lost.get_or_insert_default();
            lost.dropped += dropped;
            lost.refused += turned_away;
        }
        self.flush();
        let mut reopened = Ok(());
        if !requests.reopen.is_empty() {
            reopened = self.reopen();
            self.flush();
        }
        if last {
            // Its lock goes with it: whoever was told that the log is closed may open it.
            self.file = None;
            self.sink = Sink::new(Closed);
        }
        self.answer(requests, &reopened);
        last
    }

    fn flush(&mut self) {
        if !self.is_behind() && self.lines.is_empty() {
            return;
        }
        let (written, result) = match self.announce() {
            Ok(()) => self.write_batch(),
            Err(error) => (0, Err(error)),
        };
        self.settle(written, result.err().as_ref());
    }

    /// Writes the lines of our own: that the chain goes on here, what was lost. They come before all others.
    fn announce(&mut self) -> Result<(), AuditError> {
        if self.previous.is_none() && self.lost.is_none() {
            return Ok(());
        }
        let mut head = self.head;
        self.out.clear();
        self.ends.clear();
        let about_previous = self.previous.as_ref().map(Entry::reopened);
        let about_lost = self.lost.as_ref().map(Entry::recovered);
        for entry in about_previous.iter().chain(&about_lost) {
            self.stamper.stamp(entry, &mut self.scratch)?;
            let start = self.out.len();
            self.out.extend_from_slice(&self.scratch);
            head.seal(&mut self.out, start);
            self.ends.push(self.out.len());
        }
        let (written, result) = self.append(head);
        let mut told = written;
        if told > 0 && self.previous.take().is_some() {
            told -= 1;
        }
        if told > 0 {
            self.lost = None;
        }
        result
    }

    /// Writes the backlog and what was taken. Says how many lines of these were written.
    fn write_batch(&mut self) -> (usize, Result<(), AuditError>) {
        let mut head = self.head;
        self.out.clear();
        self.ends.clear();
        let old = self.backlog_ends.iter().map(|&end| (&self.backlog, end));
        let new = self.lines.iter().map(|line| (&self.bytes, line.end));
        for lines in [&mut old.into_iter() as &mut dyn Iterator<Item = (&Vec<u8>, usize)>, &mut { new }] {
            let mut start = 0;
            for (bytes, end) in lines {
                let at = self.out.len();
                self.out.extend_from_slice(&bytes[start..end]);
                head.seal(&mut self.out, at);
                self.ends.push(self.out.len());
                start = end;
            }
        }
        if self.ends.is_empty() {
            return (0, Ok(()));
        }
        self.append(head)
    }

    /// Writes `out`, whose last line makes the head `head`. Says how many lines of it were written.
    fn append(&mut self, head: Head) -> (usize, Result<(), AuditError>) {
        let (written, result) = match self.sink.append(&self.out) {
            Ok(()) => {
                self.head = head;
                (self.ends.len(), Ok(()))
            }
            Err(short) => {
                let written = self.ends.partition_point(|&end| end <= short.kept);
                if let Some(&end) = written.checked_sub(1).and_then(|last| self.ends.get(last)) {
                    // The line ends in its hash, a quote, a brace and a newline.
                    let hash = Hash::parse(&self.out[end - 67..end - 3]).unwrap_or(Hash::NONE);
                    self.head = Head { seq: self.head.seq + written as u64, hash };
                }
                self.shared.failed_writes.fetch_add(1, Ordering::Relaxed);
                (written, Err(AuditError::Write(short.error.into())))
            }
        };
        if written > 0 {
            self.shared.written.fetch_add(written as u64, Ordering::Relaxed);
            self.shared.batches.fetch_add(1, Ordering::Relaxed);
        }
        self.ends.truncate(written);
        (written, result)
    }

    /// Tells the callers, and keeps the lifecycle lines that could not be written.
    fn settle(&mut self, written: usize, error: Option<&AuditError>) {
        let old = written.min(self.backlog_ends.len());
        let new = written - old;
        let first_seq = self.head.seq - new as u64 + 1;

        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        let mut refused = 0;
        let mut notes_written = old;
        if let Some(cut) = old.checked_sub(1).map(|last| self.backlog_ends[last]) {
            self.backlog.drain(..cut);
            self.backlog_ends.drain(..old);
            self.backlog_ends.iter_mut().for_each(|end| *end -= cut);
        }
        let mut start = 0;
        for (seq, (index, line)) in (first_seq..).zip(self.lines.iter().enumerate()) {
            match (line.slot, error) {
                (Some(slot), Some(error)) if index >= new => {
                    refused += 1;
                    queue.finish(slot, Err(error.clone()));
                }
                (Some(slot), _) => queue.finish(slot, Ok(seq)),
                (None, Some(_)) if index >= new => {
                    self.backlog.extend_from_slice(&self.bytes[start..line.end]);
                    self.backlog_ends.push(self.backlog.len());
                }
                (None, _) => notes_written += 1,
            }
            start = line.end;
        }
        queue.notes = queue.notes.saturating_sub(notes_written);
        queue.state.head = self.head;
        queue.state.healthy = error.is_none();
        if error.is_some() {
            shared.refused.fetch_add(refused, Ordering::Relaxed);
            let lost = self.lost.get_or_insert_default();
            lost.refused += refused;
            lost.failed_writes += 1;
        }
        shared.wake(queue);

        self.lines.clear();
        self.ends.clear();
        self.bytes.clear();
        self.out.clear();
        for buffer in [&mut self.bytes, &mut self.out, &mut self.backlog] {
            buffer.shrink_to(KEPT_BUFFER);
        }
    }

    fn answer(&mut self, requests: Requests, reopened: &Result<(), AuditError>) {
        if requests.reopen.is_empty() && requests.close.is_empty() {
            return;
        }
        let flushed = if self.backlog_ends.is_empty() { Ok(()) } else { Err(AuditError::NotFlushed) };
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        let seq = self.head.seq;
        for slot in requests.reopen {
            queue.finish(slot, reopened.clone().map(|()| seq));
        }
        for slot in requests.close {
            queue.finish(slot, flushed.clone().map(|()| seq));
        }
        shared.wake(queue);
    }

    /// Opens the path anew. The file that is open stays the log where that fails.
    fn reopen(&mut self) -> Result<(), AuditError> {
        let Some((path, now)) = &self.file else { return Ok(()) };
        if file::is_at(now, path) {
            return Ok(());
        }
        let opened = file::open(path)?;
        let failed = |source: std::io::Error| AuditError::Open { path: path.clone(), source: source.into() };
        let again = opened.file.try_clone().map_err(failed)?;
        self.file = Some((path.clone(), again));
        self.sink = Sink::new(LogFile(opened.file));
        // If this file ends before it has named its predecessor, the next one names the same.
        self.previous.get_or_insert(self.head);
        self.head = opened.head.unwrap_or(self.head);
        if let Some(torn) = opened.torn {
            let lost = self.lost.get_or_insert_default();
            (lost.torn_bytes, lost.torn_file) = (torn.torn_bytes, torn.torn_file);
        }
        Ok(())
    }
}
