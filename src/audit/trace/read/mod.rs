//! From files to lines: folders, gzip, standard input, and what is no line of a known log.
//!
//! What a line is, is told from the line alone, never from the name of its file; so logs may be mixed in one file. A line is
//! at most 1 MiB long, and a document (a history of Step Functions, over many lines or one) 64 MiB: no more than that is held
//! at a time.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use memchr::{memchr, memmem};

pub(super) mod history;
pub(super) mod quick;
pub(super) mod vault;

use super::output::Place;

/// No line is longer.
const LONGEST_LINE: usize = 1 << 20;

/// No document is longer. Step Functions keeps at most 25,000 events of an execution.
const LONGEST_DOCUMENT: usize = 64 << 20;

const BUFFER: usize = 1 << 20;

/// How a history begins that was printed on one line.
const HISTORY: &[u8] = br#"{"events":"#;

/// What a line is, as far as its bytes tell without being parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line of a broker's log.
    Broker(&'a [u8]),
    /// A line of Vault's audit log.
    Vault(&'a [u8]),
    /// A JSON document: a history, perhaps.
    Document(&'a [u8]),
    /// None of these, and why.
    Unknown(&'static str),
}

/// One file of the input.
#[derive(Debug)]
pub(super) struct Source {
    /// As it is named to the auditor.
    pub(super) name: String,
    /// What it is read from: for standard input, what it was kept in.
    open: Open,
    /// Its size, compressed as it may be, where it is known.
    pub(super) bytes: u64,
    /// It was found in a folder, and not named itself.
    found: bool,
}

#[derive(Debug)]
enum Open {
    Path(PathBuf),
    Kept(File),
    /// A socket, a pipe, a device.
    NoFile,
}

/// Why the input cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder that was named is not there, or cannot be read.
    #[error("{name}: it cannot be read ({source}); name files or folders of logs that you may read")]
    Unreadable {
        /// What was named.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A folder that was named holds no file.
    #[error("{name}: the folder holds no file")]
    Empty {
        /// What was named.
        name: String,
    },
}

impl Source {
    /// All files that are named, and those in folders that are; `-` is standard input. In the order of their names, each
    /// once, so that it does not matter how they were listed.
    ///
    /// # Errors
    /// What cannot be found; files are not opened yet.
    pub(super) fn all(named: &[PathBuf], stdin: &mut dyn Read) -> Result<Vec<Self>, ReadError> {
        let mut found = Vec::new();
        for path in named {
            let unreadable = |source| ReadError::Unreadable { name: path.display().to_string(), source };
            if path == Path::new("-") {
                let kept = spool(stdin).map_err(unreadable)?;
                let bytes = kept.metadata().map_or(0, |meta| meta.len());
                found.push(Self {
                    name: "(standard input)".to_owned(),
                    open: Open::Kept(kept),
                    bytes,
                    found: false,
                });
                continue;
            }
            let before = found.len();
            walk(path, &mut found).map_err(unreadable)?;
            if found[before..].iter().all(|source| matches!(source.open, Open::NoFile)) {
                return Err(ReadError::Empty { name: path.display().to_string() });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found.dedup_by(|a, b| a.name == b.name);
        Ok(found)
    }

    /// Why this error is no reason to give up on the other files: one that was found in a folder cannot be opened, or its
    /// gzip is damaged, so that what is before the damage was read.
    pub(super) fn excuse(&self, error: &io::Error) -> Option<&'static str> {
        use io::ErrorKind::{NotFound, PermissionDenied};

        match (&self.open, error.kind()) {
            (Open::NoFile, _) => Some("it is no file: a socket, a pipe or a device"),
            (_, PermissionDenied | NotFound) if self.found => Some("it cannot be opened; may you read it?"),
            _ if error.raw_os_error().is_none() => {
                Some("its gzip is cut off or damaged here, and nothing after it is read")
            }
            _ => None,
        }
    }

    /// Whether there is nothing in it to be read.
    pub(super) fn is_no_file(&self) -> bool {
        matches!(self.open, Open::NoFile)
    }

    /// Hands each line or document to `sink`, with its number from 1 on; blank lines are passed over. Gzip is told by its
    /// first bytes. `counted` is how much of the file was read.
    ///
    /// # Errors
    /// The system's, and those of damaged gzip.
    pub(super) fn lines(&self, counted: &Cell<u64>, sink: &mut dyn FnMut(u64, Piece<'_>)) -> io::Result<()> {
        let file = match &self.open {
            Open::Path(path) => File::open(path)?,
            Open::Kept(kept) => {
                let mut file = kept.try_clone()?;
                file.rewind()?;
                file
            }
            Open::NoFile => return Err(io::ErrorKind::Unsupported.into()),
        };
        let mut reader = BufReader::with_capacity(BUFFER, Counted { file, counted });
        if reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            let unpacked = flate2::bufread::MultiGzDecoder::new(reader);
            Lines::new(sink).read(BufReader::with_capacity(BUFFER, unpacked))
        } else {
            Lines::new(sink).read(reader)
        }
    }
}

/// Files below `path`, symbolic links to files among them; links to folders are not followed, as they may lead in a circle.
fn walk(path: &Path, found: &mut Vec<Source>) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_dir() {
        // What is unreadable is told before hours of reading.
        File::open(path)?;
        let (name, bytes) = (path.display().to_string(), meta.len());
        found.push(Source { name, open: Open::Path(path.to_owned()), bytes, found: false });
        return Ok(());
    }
    below(path, found)
}

/// Files in a folder. What cannot be opened is told of when it is read: the others are no worse for it.
fn below(folder: &Path, found: &mut Vec<Source>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let add = |open| {
            let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            Source { name: path.display().to_string(), open, bytes, found: true }
        };
        if entry.file_type()?.is_dir() {
            if below(&path, found).is_err() {
                found.push(add(Open::Path(path.clone())));
            }
        } else if path.is_file() {
            found.push(add(Open::Path(path.clone())));
        } else if !path.is_dir() {
            found.push(add(Open::NoFile));
        }
    }
    Ok(())
}

/// Standard input is read more than once: it is kept in a file without a name, which ends with the process.
fn spool(stdin: &mut dyn Read) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!(".tenure-audit-{}", std::process::id()));
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    io::copy(stdin, &mut file)?;
    Ok(file)
}

/// A file, and how much of it was read.
struct Counted<'a> {
    file: File,
    counted: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.counted.set(self.counted.get() + read as u64);
        Ok(read)
    }
}

/// Takes bytes apart into lines and documents.
struct Lines<'a> {
    sink: &'a mut dyn FnMut(u64, Piece<'_>),
    is_vault: memmem::Finder<'static>,
    /// The line under way.
    number: u64,
    /// A document over many lines, and where it began.
    document: Option<(u64, Vec<u8>)>,
}

impl<'a> Lines<'a> {
    fn new(sink: &'a mut dyn FnMut(u64, Piece<'_>)) -> Self {
        Self { sink, is_vault: memmem::Finder::new(br#""type":"re"#), number: 0, document: None }
    }

    fn read(mut self, mut reader: impl BufRead) -> io::Result<()> {
        // A line that is not in the buffer as a whole.
        let mut carried = Vec::new();
        let mut too_long = false;
        loop {
            let buffer = match reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                break;
            }
            let mut rest = buffer;
            while let Some(end) = memchr(b'\n', rest) {
                let line = &rest[..end];
                rest = &rest[end + 1..];
                if std::mem::take(&mut too_long) {
                    self.end_too_long();
                } else if carried.is_empty() {
                    self.line(line, true);
                } else {
                    carried.extend_from_slice(line);
                    self.line(&carried, true);
                    carried.clear();
                }
            }
            if !too_long {
                carried.extend_from_slice(rest);
                let limit = if carried.starts_with(HISTORY) { LONGEST_DOCUMENT } else { LONGEST_LINE };
                if carried.len() > limit {
                    too_long = true;
                    carried = Vec::new();
                }
            }
            let used = buffer.len();
            reader.consume(used);
        }
        if too_long {
            self.end_too_long();
        } else if !carried.is_empty() {
            self.line(&carried, false);
        }
        if let Some((began, _)) = self.document.take() {
            (self.sink)(began, Piece::Unknown("a JSON document begins here, and has no end"));
        }
        Ok(())
    }

    fn end_too_long(&mut self) {
        self.number += 1;
        (self.sink)(self.number, Piece::Unknown("it is longer than the 1 MiB of a line"));
    }

    fn line(&mut self, line: &[u8], ended: bool) {
        self.number += 1;
        let number = self.number;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some((began, document)) = &mut self.document {
            if line.first() == Some(&b'{') && line.len() > 1 {
                // Another line begins: what was taken for a document is none.
                (self.sink)(*began, Piece::Unknown("a JSON document begins here, and has no end"));
                self.document = None;
            } else {
                document.push(b'\n');
                document.extend_from_slice(line);
                if line == b"}" {
                    (self.sink)(*began, Piece::Document(document));
                    self.document = None;
                } else if document.len() > LONGEST_DOCUMENT {
                    (self.sink)(*began, Piece::Unknown("it is longer than the 64 MiB of a document"));
                    self.document = None;
                }
                return;
            }
        }
        if line == b"{" {
            self.document = Some((number, line.to_vec()));
        } else if !line.trim_ascii().is_empty() {
            let line = crate::audit::unwrapped(line);
            let piece = self.kind(&line, ended);
            (self.sink)(number, piece);
        }
    }

    fn kind<'l>(&self, line: &'l [u8], ended: bool) -> Piece<'l> {
        if line.first() != Some(&b'{') {
            let binary = line.iter().take(4096).any(|&byte| byte < b' ' && byte != b'\t');
            return Piece::Unknown(match binary || std::str::from_utf8(line).is_err() {
                true => "it is binary",
                false => "it is no JSON object",
            });
        }
        if line.last() != Some(&b'}') {
            return Piece::Unknown(match ended {
                true => "it is cut off: it does not end as a JSON object does",
                false => "it is cut off: the file ends in it",
            });
        }
        if line.starts_with(br#"{"v":1,"time":""#) {
            Piece::Broker(line)
        } else if line.starts_with(HISTORY) {
            Piece::Document(line)
        } else if self.is_vault.find(line).is_some() {
            Piece::Vault(line)
        } else {
            Piece::Unknown("it is JSON, but no line of a broker's log, of Vault's, or a history")
        }
    }
}

/// Where a line stands.
pub(super) fn place(file: usize, line: u64) -> Place {
    Place { file: u32::try_from(file).unwrap_or(u32::MAX), line }
}
