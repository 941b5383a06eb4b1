//! A file for `.` in a shell, there as long as the broker is.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::child::Reach;
use super::{DevError, quoted};

/// How a file of ours begins: one that was left behind may be replaced, and nothing else.
const MARK: &str = "# Written by `tenure dev`, which removes it when it ends.\n";

/// The file; it goes with this value.
#[derive(Debug)]
pub(super) struct EnvFile(PathBuf);

impl EnvFile {
    /// Writes it, 0600: it holds the local token.
    ///
    /// # Errors
    /// A file in its place that is not one of ours, or the operating system's.
    pub(super) fn write(path: &Path, reach: &Reach) -> Result<Self, DevError> {
        let refused = |source| DevError::File { what: format!("--env-file {}", path.display()), source };
        if std::fs::read(path).is_ok_and(|there| there.starts_with(MARK.as_bytes())) {
            std::fs::remove_file(path).map_err(refused)?;
        }
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => refused(io::Error::other(
                "there is a file already, and `tenure dev` did not write it; name another, or move it away",
            )),
            _ => refused(error),
        })?;
        let written = Self(path.to_owned());
        let text = format!("{MARK}{}\n", reach.exports().join("\n"));
        file.write_all(text.as_bytes()).map_err(refused)?;
        Ok(written)
    }

    /// Its name, as a shell reads it.
    pub(super) fn quoted(&self) -> String {
        quoted(&std::path::absolute(&self.0).unwrap_or_else(|_| self.0.clone()))
    }
}

impl Drop for EnvFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
