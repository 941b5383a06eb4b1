//! The Unix socket: who may reach it is checked, not hoped for.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A living process answers on the socket.
    #[error("{}: another process serves this socket; stop it, or set listen.unix.path", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way.
    #[error("{}: there is a file that is not a socket; move it away, or set listen.unix.path", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The socket did not come out as configured.
    #[error("{}: its mode is {got:04o} after it was set to {wanted:04o}; is the file system one that keeps modes?", path.display())]
    Mode {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        wanted: u32,
        /// What it is.
        got: u32,
    },
    /// The operating system refused it.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no token that callers of the Secrets Manager door could present.
    #[error(
        "listen.secrets_manager.token is \"session\", and neither AWS_SESSION_TOKEN nor \
         AWS_CONTAINER_AUTHORIZATION_TOKEN is in the environment, as in a Lambda function: set \
         listen.secrets_manager.token_file instead"
    )]
    NoSessionToken,
    /// The local token cannot be had.
    #[error("listen.tcp.token_file {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// How the socket is to be.
#[derive(Clone, Debug)]
pub struct UnixOptions {
    /// Where.
    pub path: PathBuf,
    /// Its permission bits: 0600 or 0660.
    pub mode: u32,
    /// Its owner, if not the broker.
    pub owner: Option<u32>,
    /// Its group, if not the broker's.
    pub group: Option<u32>,
}

/// A bound Unix socket; its file goes when it is dropped, if it is still ours.
#[derive(Debug)]
pub struct UnixDoor {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixDoor {
    /// Binds the socket. A dead one in its place is replaced, a living one never.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(options: &UnixOptions) -> Result<Self, ListenError> {
        let path = &options.path;
        let refused = |what: &str| {
            let what = format!("{what} {}", path.display());
            move |source| ListenError::Io { what, source }
        };
        clear(path)?;
        // The process's umask is 077: until the mode is set, nobody else can connect.
        let listener = UnixListener::bind(path).map_err(refused("binding the socket"))?;
        let wanted = options.mode & 0o777;
        if options.owner.is_some() || options.group.is_some() {
            std::os::unix::fs::lchown(path, options.owner, options.group)
                .map_err(refused("setting the owner of"))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))
            .map_err(refused("setting the mode of"))?;
        let made = std::fs::symlink_metadata(path).map_err(refused("looking at"))?;
        let got = made.mode() & 0o777;
        match got == wanted {
            true => Ok(Self { listener, path: path.clone(), inode: made.ino() }),
            false => Err(ListenError::Mode { path: path.clone(), wanted, got }),
        }
    }

    /// Whether [`Self::bind`] would find a folder that it can write to and nothing in its way; nothing is made.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn check(options: &UnixOptions) -> Result<(), ListenError> {
        let path = &options.path;
        writable_folder(path).map_err(|source| ListenError::Io {
            what: format!("the folder of the socket {}", path.display()),
            source,
        })?;
        let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
        if !there.file_type().is_socket() {
            return Err(ListenError::NotASocket { path: path.clone() });
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            _ => Err(ListenError::InUse { path: path.clone() }),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        // Somebody may have put another socket there: leave that one alone.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether a file can be made where `path` says.
pub(super) fn writable_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?)
}

/// Makes way for the socket.
fn clear(path: &Path) -> Result<(), ListenError> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| ListenError::Io {
                what: format!("removing the dead socket {}", path.display()),
                source,
            })
        }
        _ => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: &Path) -> UnixOptions {
        UnixOptions { path: path.to_owned(), mode: 0o660, owner: None, group: None }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("tenure.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("left behind"));
        let door = UnixDoor::bind(&options(&path)).expect("replaced");
        assert_eq!(std::fs::metadata(&path).expect("socket").mode() & 0o777, 0o660);
        assert!(matches!(UnixDoor::bind(&options(&path)), Err(ListenError::InUse { .. })));
        drop(door);
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("file");
        assert!(matches!(UnixDoor::bind(&options(&path)), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).expect("file"), b"precious");
    }
}
