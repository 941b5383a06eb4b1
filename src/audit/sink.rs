//! Where lines go: whole lines or none, whatever a write does half-way.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frame::Framing;

/// How long a reader of standard output may keep us waiting before a write has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The largest buffer that is kept for the next batch.
pub(super) const KEPT_BUFFER: usize = 1 << 20;

/// What bytes can be written to. The seam between the rules of this file and what they are kept on.
pub(super) trait Output: Send {
    /// Writes some of `bytes`, says how many. 0 is an error to the caller.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Takes the last `bytes` bytes back, so that the output ends where it did before them.
    fn take_back(&mut self, bytes: u64) -> io::Result<()>;
}

/// A write that failed half-way.
#[derive(Debug)]
pub(super) struct Short {
    /// How many bytes of it stay, in whole lines. They count as written.
    pub(super) kept: usize,
    /// Why the rest does not.
    pub(super) error: io::Error,
}

/// An output that holds whole lines.
pub(super) struct Sink {
    output: Box<dyn Output>,
    /// Bytes of a torn line at the output's end that could not be taken back yet.
    torn: u64,
    framing: Framing,
    framed: Vec<u8>,
}

impl Sink {
    pub(super) fn new(output: impl Output + 'static) -> Self {
        Self { output: Box::new(output), torn: 0, framing: Framing::default(), framed: Vec::new() }
    }

    /// One whose lines are wrapped before they are written.
    pub(super) fn framed(output: impl Output + 'static, framing: Framing) -> Self {
        Self { framing, ..Self::new(output) }
    }

    /// Appends `lines`, each of which ends in a newline.
    ///
    /// # Errors
    /// [`Short`] says how many bytes of whole lines stay. What was torn is taken back, at once or before the next write.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Short> {
        if self.framing.is_plain() {
            return self.append_as_is(lines);
        }
        let mut framed = std::mem::take(&mut self.framed);
        framed.clear();
        let framing = lines.split_inclusive(|&byte| byte == b'\n').try_for_each(|line| {
            self.framing.frame(line.strip_suffix(b"\n").unwrap_or(line), &mut framed)?;
            framed.push(b'\n');
            Ok(())
        });
        let framing = framing.map_err(|error| Short { kept: 0, error });
        let result = framing.and_then(|()| self.append_as_is(&framed)).map_err(|short| {
            let count = framed[..short.kept].iter().filter(|&&byte| byte == b'\n').count();
            let kept = lines.split_inclusive(|&byte| byte == b'\n').take(count).map(<[u8]>::len).sum();
            Short { kept, ..short }
        });
        framed.shrink_to(KEPT_BUFFER);
        self.framed = framed;
        result
    }

    fn append_as_is(&mut self, lines: &[u8]) -> Result<(), Short> {
        if self.torn > 0 {
            self.output.take_back(self.torn).map_err(|error| Short { kept: 0, error })?;
            self.torn = 0;
        }
        let mut written = 0;
        while written < lines.len() {
            let error = match self.output.write(&lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(more) => {
                    written += more;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let kept = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            self.torn = (written - kept) as u64;
            if self.torn > 0 && self.output.take_back(self.torn).is_ok() {
                self.torn = 0;
            }
            return Err(Short { kept, error });
        }
        Ok(())
    }
}

/// A regular file, opened to append. Its exclusive lock is held as long as this is.
pub(super) struct LogFile(pub(super) File);

impl Output for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.0, bytes)
    }

    fn take_back(&mut self, bytes: u64) -> io::Result<()> {
        // From the length as it is, not as we remember it: an operator may have emptied the file under us.
        let len = self.0.metadata()?.len();
        self.0.set_len(len.saturating_sub(bytes))
    }
}

/// What is left of an output that was closed.
pub(super) struct Closed;

impl Output for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn take_back(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output: a pipe, most often, which nothing can be taken back from.
pub(super) struct Stdout(File);

impl Stdout {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Output for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::Write::write(&mut self.0, bytes) {
                // Somebody made the pipe non-blocking, and its reader is slow.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], Some(&PATIENCE))? == 0 {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                done => return done,
            }
        }
    }

    /// Ends the torn line where it is, so that the next one starts on a line of its own.
    fn take_back(&mut self, _: u64) -> io::Result<()> {
        match self.write(b"\n")? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (io::PipeReader, Stdout) {
        let (reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
        (reader, Stdout(writer))
    }

    #[test]
    fn a_slow_reader_is_waited_for() {
        let (mut reader, stdout) = pipe();
        let lines = "a line\n".repeat(100_000);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let mut sink = Sink::new(stdout);
        sink.append(lines.as_bytes()).unwrap();
        drop(sink);
        assert_eq!(reading.join().unwrap(), lines);
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (reader, stdout) = pipe();
        drop(reader);
        let short = Sink::new(stdout).append(b"a line\n").unwrap_err();
        assert_eq!((short.kept, short.error.kind()), (0, io::ErrorKind::BrokenPipe));
    }

    #[test]
    fn a_torn_line_on_a_pipe_is_ended_before_the_next_one() {
        let (mut reader, stdout) = pipe();
        let mut sink = Sink::new(stdout);
        let mut long = "a".repeat(1 << 20);
        long.push('\n');
        // Nobody reads: the pipe takes what fits, and no more within the bound.
        let short = sink.append(long.as_bytes()).unwrap_err();
        assert_eq!((short.kept, short.error.kind()), (0, io::ErrorKind::TimedOut));
        let torn = usize::try_from(sink.torn).unwrap();
        let mut taken = vec![0; torn];
        reader.read_exact(&mut taken).unwrap();
        sink.append(b"b\n").unwrap();
        drop(sink);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\nb\n");
    }
}
