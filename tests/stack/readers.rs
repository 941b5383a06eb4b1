//! A steady load of readers, who write down every answer and use every database credential at once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::broker::Broker;
use crate::database::Database;
use crate::harness::wait_until;
use crate::http::{Answer, Place, request};

/// Between two reads of one path.
const PAUSE: Duration = Duration::from_millis(100);

/// A credential is not logged in with more often than this; a new one is at once.
const USED_EVERY: Duration = Duration::from_millis(400);

/// One that ends sooner than this when it is read may be gone by the time it is used.
const NEAR_ITS_END: Duration = Duration::from_millis(500);

/// What one reader saw.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) path: &'static str,
    pub(crate) asked: Instant,
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
    /// When it was asked for, by the wall clock.
    asked_at: SystemTime,
    /// Whether the database took the credential, where that was tried.
    used: Option<Result<(), String>>,
}

impl Reading {
    /// It brought what upstream holds for good.
    pub(crate) fn is_good(&self) -> bool {
        self.answer.status == 200 && self.source() != Some("stale")
    }

    pub(crate) fn source(&self) -> Option<&str> {
        self.answer.header("x-tenure-source")
    }

    pub(crate) fn user(&self) -> Option<String> {
        Some(self.answer.json()["data"]["username"].as_str()?.to_owned())
    }

    /// How long it was to live when it was asked for, by its own word; `None` where it was over.
    fn left(&self) -> Option<Duration> {
        let expires = humantime::parse_rfc3339(self.answer.header("x-tenure-expires")?).ok()?;
        // The header is cut to the millisecond: the credential lives up to one longer than it says.
        (expires + Duration::from_millis(1)).duration_since(self.asked_at).ok()
    }

    /// The database does not take it, and its end was not near.
    fn is_dead(&self) -> bool {
        // It was tried when the answer was there, which on a busy machine takes a while.
        let left_then = self.left().map(|left| left.saturating_sub(self.took));
        matches!(self.used, Some(Err(_))) && left_then.is_none_or(|left| left > NEAR_ITS_END)
    }
}

/// Readers at work, one for each path.
pub(crate) struct Readers {
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Reading>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn of(broker: &Broker<'_>, database: &Database, paths: &[&'static str]) -> Self {
        let (over, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Reading>>>::default());
        let socket = broker.path("tenure.sock");
        let start = |path: &&'static str| {
            let (over, seen) = (Arc::clone(&over), Arc::clone(&seen));
            let (path, socket, database) = (*path, socket.clone(), database.clone());
            std::thread::spawn(move || read(path, socket, &database, &over, &seen))
        };
        let threads = paths.iter().map(start).collect();
        let readers = Self { over, seen, threads };
        readers.wait_good(Instant::now(), paths, Duration::from_secs(15));
        readers
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The readings of `path` that were begun since `from`, so far.
    pub(crate) fn since(&self, from: Instant, path: &str) -> Vec<Reading> {
        self.lock().iter().filter(|seen| seen.asked >= from && seen.path == path).cloned().collect()
    }

    /// Waits until each of `paths` was read well since `from`. Returns how long after `from` that was.
    #[track_caller]
    pub(crate) fn wait_good(&self, from: Instant, paths: &[&str], bound: Duration) -> Duration {
        let is_good = |path: &&str| {
            self.lock().iter().any(|seen| seen.asked >= from && seen.path == *path && seen.is_good())
        };
        wait_until(&format!("good readings of {paths:?}"), bound, || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a reader got no answer at all");
            paths.iter().all(is_good)
        });
        from.elapsed()
    }

    /// Ends the readers. No answer was bad: what was served was alive, but for what was read in `excused` (a time in
    /// which the broker could not know better), and every refusal says why and when to come again.
    #[track_caller]
    pub(crate) fn finish(mut self, broker: &Broker<'_>, excused: Option<(Instant, Instant)>) -> Readings {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a reader");
        }
        let readings = std::mem::take(&mut *self.lock());
        for reading in &readings {
            broker.keep(&reading.answer);
            let Reading { path, answer, .. } = reading;
            // What was read right before may still have been in use when it died.
            let excused =
                excused.is_some_and(|(from, to)| from <= reading.asked + PAUSE * 5 && reading.asked <= to);
            assert!(!reading.is_dead() || excused, "a dead credential of {path} was served: {reading:?}");
            if answer.status == 200 {
                let leased = path.starts_with("database/");
                assert!(!leased || reading.left().is_some(), "{path} was served after its end: {reading:?}");
                assert!(!leased || reading.source() != Some("stale"), "a stale credential: {reading:?}");
                let config = |answer: &Answer| answer.json()["data"]["data"]["user"] == "svc";
                assert!(*path != "secret/data/orders/config" || config(answer), "another value: {reading:?}");
            } else {
                let errors = answer.json()["errors"].clone();
                let named = errors[0].as_str().is_some_and(|error| error.len() > 20);
                assert!(named, "a refusal of {path} that says nothing: {reading:?}");
                let later = matches!(answer.status, 429 | 503);
                assert!(!later || answer.header("retry-after").is_some(), "no Retry-After: {reading:?}");
            }
        }
        Readings(readings)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// All that was read.
pub(crate) struct Readings(Vec<Reading>);

impl Readings {
    pub(crate) fn of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Reading> {
        self.0.iter().filter(move |seen| seen.path == path)
    }

    /// Everybody got what they asked for.
    #[track_caller]
    pub(crate) fn all_good(&self, path: &str) {
        if let Some(bad) = self.of(path).find(|seen| !seen.is_good()) {
            panic!("not a good reading: {bad:?}");
        }
    }

    /// The users of a path, in the order in which they came.
    pub(crate) fn users(&self, path: &str) -> Vec<String> {
        let mut users: Vec<String> = self.of(path).filter_map(Reading::user).collect();
        users.dedup();
        users
    }

    /// The longest that anybody waited.
    pub(crate) fn longest(&self) -> Duration {
        self.0.iter().map(|seen| seen.took).max().unwrap_or_default()
    }

    /// Nobody waited longer than `bound`.
    #[track_caller]
    pub(crate) fn within(&self, bound: Duration) {
        if let Some(slow) = self.0.iter().find(|seen| seen.took > bound) {
            panic!("waited longer than {bound:?}: {slow:?}");
        }
    }
}

fn read(
    path: &'static str,
    socket: PathBuf,
    database: &Database,
    over: &AtomicBool,
    seen: &Mutex<Vec<Reading>>,
) {
    let place = Place::Unix(socket);
    let mut last = (String::new(), Instant::now());
    while !over.load(Ordering::Relaxed) {
        let (asked, asked_at) = (Instant::now(), SystemTime::now());
        let answer = request(&place, "GET", &format!("/v1/{path}"), &[], None).expect("the broker answers");
        let took = asked.elapsed();
        let data = &answer.json()["data"];
        let used = match (data["username"].as_str(), data["password"].as_str()) {
            (Some(user), Some(password)) if last.0 != user || last.1.elapsed() > USED_EVERY => {
                last = (user.to_owned(), Instant::now());
                Some(database.use_as(user, password))
            }
            _ => None,
        };
        let reading = Reading { path, asked, took, answer, asked_at, used };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
        std::thread::sleep(PAUSE);
    }
}
