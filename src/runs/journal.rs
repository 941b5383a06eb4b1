//! The orphan journal: which tokens of ours may be alive upstream, written before any of them is used.
//!
//! What a crash leaves behind is found here by the next start and revoked. An accessor is no secret by itself, but it
//! names a token, so the file is 0600 and belongs to one process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::lease::upstream::Token;

/// What kind of token an accessor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// The login token.
    Login,
    /// A run token.
    Run,
}

/// A token that an earlier process made and is not known to have revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its accessor.
    pub accessor: String,
    /// What it was.
    pub kind: TokenKind,
    /// Where it was made; see [`Token::namespace`].
    pub namespace: Option<String>,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process holds it.
    #[error("orphan journal {}: another process uses it; give each broker a journal of its own", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("orphan journal {}: its mode is {mode:04o}, others may read or write it; chmod 0600 it", path.display())]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The operating system refused it.
    #[error("orphan journal {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// A token was made.
    Token {
        accessor: String,
        kind: TokenKind,
        /// Lines of before there were namespaces have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// It is known to be gone.
    Gone { accessor: String },
}

/// The journal, or none where none was configured. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// How long it is, in bytes.
    length: u64,
    /// The tokens that are not known to be gone, oldest first.
    alive: Vec<Orphan>,
}

/// A file that is longer is written anew once most of what it tells of is gone.
const LONG: u64 = 64 * 1024;

/// About as long is what it tells of one token.
const LINE: u64 = 128;

impl Journal {
    /// Opens or makes the journal and returns what an earlier process left in it.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Orphan>), JournalError> {
        let refused = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = acquired(path, true)?;
        let orphans = leftovers(&file).map_err(refused)?;
        if orphans.is_empty() {
            file.set_len(0).map_err(refused)?;
            file.rewind().map_err(refused)?;
        } else {
            // The last line may be torn; what follows must not be glued to it.
            file.write_all(b"\n").map_err(refused)?;
        }
        let length = file.metadata().map_err(refused)?.len();
        let state = Mutex::new(State { file, length, alive: orphans.clone() });
        Ok((Self(Some(Arc::new(Open { path: path.to_owned(), state }))), orphans))
    }

    /// Whether a journal could be opened there, without making or changing anything. The lock is held for a moment.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn check(path: &Path) -> Result<(), JournalError> {
        if std::fs::symlink_metadata(path).is_ok() {
            return acquired(path, false).map(drop);
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(folder, write)
            .map_err(|errno| JournalError::Io { path: path.to_owned(), source: errno.into() })
    }

    /// Records a token, on disk, before it is used.
    ///
    /// # Errors
    /// The token must not be used then.
    pub async fn record(&self, token: &Token, kind: TokenKind) -> Result<(), JournalError> {
        let namespace = token.namespace.as_deref().map(str::to_owned);
        self.write(Line::Token { accessor: token.accessor.clone(), kind, namespace }, true).await
    }

    /// Records that a token is gone. If that fails, the next start revokes it once more: no harm.
    pub async fn settle(&self, accessor: &str) {
        if let Err(error) = self.write(Line::Gone { accessor: accessor.to_owned() }, false).await {
            tracing::warn!(%error, "a revoked token could not be struck off the orphan journal");
        }
    }

    async fn write(&self, line: Line, sync: bool) -> Result<(), JournalError> {
        let Some(open) = self.0.clone() else { return Ok(()) };
        let path = open.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            let mut state = open.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.file.write_all(&text)?;
            state.length += text.len() as u64;
            state.take(line);
            if state.length > LONG
                && state.length / LINE > 4 * state.alive.len() as u64
                && let Err(error) = state.anew(&open.path)
            {
                tracing::warn!(%error, "the orphan journal could not be written anew; it goes on as it is");
                state.length = 0;
            }
            if sync { state.file.sync_data() } else { Ok(()) }
        });
        let written = written.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        written.map_err(|source| JournalError::Io { path, source })
    }
}

/// The file, ours alone and locked.
fn acquired(path: &Path, create: bool) -> Result<File, JournalError> {
    let refused = |source| JournalError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(create)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(refused)?;
    let mode = file.metadata().map_err(refused)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(JournalError::LooseMode { path: path.to_owned(), mode });
    }
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| JournalError::InUse { path: path.to_owned() })?;
    Ok(file)
}

impl State {
    fn take(&mut self, line: Line) {
        match line {
            Line::Token { accessor, kind, namespace } => {
                self.alive.push(Orphan { accessor, kind, namespace });
            }
            Line::Gone { accessor } => self.alive.retain(|token| token.accessor != accessor),
        }
    }

    /// Writes what is alive into a new file, which takes the place, and the lock, of the old one.
    fn anew(&mut self, path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        // What an earlier try left is of no use.
        let _ = std::fs::remove_file(&beside);
        let mut file =
            OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&beside)?;
        let mut text = Vec::new();
        for Orphan { accessor, kind, namespace } in &self.alive {
            let (accessor, namespace) = (accessor.clone(), namespace.clone());
            serde_json::to_writer(&mut text, &Line::Token { accessor, kind: *kind, namespace })?;
            text.push(b'\n');
        }
        file.write_all(&text)?;
        file.sync_data()?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        std::fs::rename(&beside, path)?;
        (self.file, self.length) = (file, text.len() as u64);
        Ok(())
    }
}

/// What was made and is not known to be gone, oldest first. Lines that are torn or foreign are passed over: they cannot
/// name a token, and a broker that refuses to start protects nobody.
fn leftovers(file: &File) -> io::Result<Vec<Orphan>> {
    let mut orphans: Vec<Orphan> = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Token { accessor, kind, namespace }) => {
                orphans.push(Orphan { accessor, kind, namespace });
            }
            Ok(Line::Gone { accessor }) => orphans.retain(|orphan| orphan.accessor != accessor),
            Err(_) => {}
        }
    }
    Ok(orphans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Credential;

    fn token(accessor: &str, namespace: Option<&str>) -> Token {
        Token {
            credential: Credential::new("hvs.canary".into()),
            accessor: accessor.into(),
            policies: vec![],
            orphan: true,
            lent: false,
            namespace: namespace.map(Into::into),
            made: None,
        }
    }

    #[tokio::test]
    async fn a_long_journal_is_written_anew_and_forgets_nobody() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("orphans");
        let (journal, _) = Journal::open(&path).expect("new");
        journal.record(&token("kept", Some("team")), TokenKind::Run).await.expect("recorded");
        for number in 0..2_000 {
            let accessor = format!("accessor-{number:04}");
            journal.record(&token(&accessor, None), TokenKind::Run).await.expect("recorded");
            journal.settle(&accessor).await;
        }
        let length = std::fs::metadata(&path).expect("file").len();
        assert!(length <= LONG + 2 * LINE, "{length}");
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })), "it is still ours");
        assert_eq!(std::fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        drop(journal);
        let (_, orphans) = Journal::open(&path).expect("again");
        let known: Vec<_> =
            orphans.iter().map(|orphan| (&*orphan.accessor, orphan.namespace.as_deref())).collect();
        assert_eq!(known, [("kept", Some("team"))]);
    }

    #[tokio::test]
    async fn what_was_made_and_not_settled_is_found_by_the_next_start() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("orphans");
        let (journal, before) = Journal::open(&path).expect("new");
        assert!(before.is_empty());
        journal.record(&token("a1", None), TokenKind::Login).await.expect("recorded");
        journal.record(&token("a2", Some("team-a")), TokenKind::Run).await.expect("recorded");
        journal.settle("a1").await;
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
        drop(journal);
        // A crash in the middle of a line.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(b"{\"token\":{\"acc")
            .expect("torn");
        let (journal, orphans) = Journal::open(&path).expect("again");
        let left = Orphan { accessor: "a2".into(), kind: TokenKind::Run, namespace: Some("team-a".into()) };
        assert_eq!(orphans, [left]);
        assert!(!std::fs::read_to_string(&path).expect("text").contains("canary"));
        journal.settle("a2").await;
        drop(journal);
        assert!(Journal::open(&path).expect("third").1.is_empty());
        assert_eq!(std::fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&path).expect("file").len(), 0);
    }

    #[test]
    fn a_line_without_a_namespace_is_read_as_it_was_meant() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("orphans");
        std::fs::write(&path, "{\"token\":{\"accessor\":\"a1\",\"kind\":\"run\"}}\n").expect("file");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let (_, orphans) = Journal::open(&path).expect("old");
        assert_eq!(orphans, [Orphan { accessor: "a1".into(), kind: TokenKind::Run, namespace: None }]);
    }

    #[test]
    fn a_journal_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("orphans");
        std::fs::write(&path, "").expect("file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("mode");
        let error = Journal::open(&path).expect_err("loose").to_string();
        assert!(error.contains("0640") && error.contains("chmod 0600"), "{error}");
    }
}
