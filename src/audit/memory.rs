//! A log in memory, for tests of whatever records: no thread, so that it is exact under paused time.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::line::Line;
use super::sink::Output;

/// The other end of [`Audit::in_memory`](super::Audit::in_memory): reads what was written, and lets writes fail.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    fails: bool,
    /// How many more bytes fit, where that is limited.
    room: Option<usize>,
    keeps_torn: bool,
}

impl Memory {
    fn with<T>(&self, see: impl FnOnce(&mut State) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that was written.
    #[must_use]
    pub fn text(&self) -> String {
        self.with(|state| String::from_utf8_lossy(&state.bytes).into_owned())
    }

    /// All lines that were written.
    ///
    /// # Errors
    /// The first line that is not of the schema.
    pub fn lines(&self) -> Result<Vec<Line>, serde_json::Error> {
        self.text().lines().map(serde_json::from_str).collect()
    }

    /// Lets writes fail as on a full disk, or work again.
    pub fn fail(&self, fails: bool) {
        self.with(|state| state.fails = fails);
    }

    /// Lets only so many more bytes in, so that a write fails half-way.
    pub fn limit(&self, room: Option<usize>) {
        self.with(|state| state.room = room);
    }

    /// Lets taking back a torn line fail as well.
    pub fn keep_torn(&self, keeps: bool) {
        self.with(|state| state.keeps_torn = keeps);
    }
}

impl Output for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|state| {
            let fits = state.room.unwrap_or(bytes.len()).min(bytes.len());
            if state.fails || fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.room = state.room.map(|room| room - fits);
            state.bytes.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        })
    }

    fn take_back(&mut self, bytes: u64) -> io::Result<()> {
        self.with(|state| {
            if state.keeps_torn {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let left = state.bytes.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
            state.bytes.truncate(left);
            Ok(())
        })
    }
}
