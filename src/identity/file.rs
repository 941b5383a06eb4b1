//! Files that hold what a login needs: read when it is needed, wiped when it is not.

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::lease::failure::{Class, Failure};
use crate::secret::Credential;

/// A token with many claims has a few kilobytes.
const LARGEST: u64 = 64 * 1024;

/// What the file holds, without white space at its ends. `what` is what it should hold, for messages: `the secret id`.
///
/// # Errors
/// [`Class::Transient`] where it is absent or empty: who writes it may be about to. [`Class::Permanent`] where it cannot
/// be read, or holds what cannot be meant.
pub(super) async fn read(path: &Path, what: &'static str) -> Result<Credential, Failure> {
    let owned = path.to_owned();
    // A file may be on a disk that hangs, and there is one thread for everything else.
    let reading = tokio::task::spawn_blocking(move || text_of(&owned, what));
    reading.await.unwrap_or_else(|_| {
        Err(Failure::new(Class::Transient, format!("{} could not be read: {what} is in it", path.display())))
    })
}

fn text_of(path: &Path, what: &str) -> Result<Credential, Failure> {
    let shown = path.display();
    let transient = |why: &str| Failure::new(Class::Transient, format!("{what} is to be in {shown}, {why}"));
    let permanent = |why: &str| Failure::new(Class::Permanent, format!("{what} is to be in {shown}, {why}"));
    let refused = |error: &std::io::Error| match error.kind() {
        ErrorKind::NotFound => transient("which is not there yet: put it there, or correct the path"),
        ErrorKind::PermissionDenied => {
            permanent("which this process may not read: make it readable to its user, and to nobody else")
        }
        ErrorKind::InvalidData => permanent("which is not text"),
        ErrorKind::IsADirectory => permanent("which is a directory: give the file itself"),
        _ => transient(&format!("which cannot be read: {error}")),
    };
    let file = std::fs::File::open(path).map_err(|error| refused(&error))?;
    // Room for all of it: growing would leave copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(LARGEST).unwrap_or(0) + 2));
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| refused(&error))?;
    if text.len() as u64 > LARGEST {
        return Err(permanent(&format!("which is larger than {LARGEST} bytes: give the right file")));
    }
    match text.trim() {
        "" => Err(transient("which is empty: write it whole, or move it into place")),
        held if held.chars().any(|c| c.is_whitespace() || c.is_control()) => Err(permanent(
            "which holds more than one word: it must hold that alone, nothing before or after it",
        )),
        held => Ok(Credential::new(held.to_owned())),
    }
}

/// Which file a path leads to, and since when: another value, another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, i64, i64, u64)>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        Self(
            std::fs::metadata(path)
                .ok()
                .map(|about| (about.dev(), about.ino(), about.mtime(), about.mtime_nsec(), about.size())),
        )
    }

    /// Whether there is a file at all.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// A path, for tests that write to it.
#[cfg(test)]
pub(super) fn written(dir: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("a file");
    path
}
