//! From the sources to a configuration.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Deserialize as _;

use super::context::RunEnv;
use super::document::Document;
use super::environment::{Environment, Overrides};
use super::problem::{Origin, Problem, Problems};
use super::raw::RawConfig;
use super::settings::{Setting, settings};
use super::{Config, lambda, shape, validate};
use crate::clock::Moment;

/// The largest file that is read, in bytes: far more than a configuration is, far less than a device that never ends.
const LARGEST: u64 = 1 << 20;

/// A configuration, the run it is for, and where each setting came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What the environment says of the process's run.
    pub run: RunEnv,
    /// The settings in words, for people.
    pub settings: Vec<Setting>,
}

/// Reads `file` (`None`: there is none) and lays the environment and the flags over it.
///
/// # Errors
///
/// Everything that is wrong: with the file, with a setting, with a variable.
pub fn load(
    file: Option<&Path>,
    environment: &Environment,
    flags: &Overrides,
    now: Moment,
) -> Result<Loaded, Problems> {
    match file.map(|path| read(path).map(|text| (path, text))) {
        None => parse(None, environment, flags, now),
        Some(Ok((path, text))) => parse(Some((path, &text)), environment, flags, now),
        Some(Err(problem)) => Err(Problems::new(vec![problem])),
    }
}

/// [`load`], with the text of the file instead of the file.
///
/// # Errors
///
/// Everything that is wrong. Where the text is not TOML, nothing else is said of the settings.
pub fn parse(
    file: Option<(&Path, &str)>,
    environment: &Environment,
    flags: &Overrides,
    now: Moment,
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let run = RunEnv::read(environment, now, &mut problems);
    let mut document =
        match file.map_or_else(|| Ok(Document::default()), |(path, text)| Document::parse(path, text)) {
            Ok(document) => document,
            Err(wrong) => return Err(Problems::new(problems.into_iter().chain(wrong).collect())),
        };
    environment.apply(&mut document, &mut problems);
    flags.apply(&mut document);
    if flags.lambda {
        lambda::defaults(&mut document, environment);
    }
    let spoiled = shape::check(&mut document, &mut problems);
    let raw = match RawConfig::deserialize(toml::Value::Table(document.root.clone())) {
        Ok(raw) => raw,
        // The shape check looks at the same schema, so this is a difference between the two; it is still the
        // reader's problem, and it is still said.
        Err(error) => {
            let message = error.message().to_owned();
            problems.push(Problem { origin: document.origin(""), key: String::new(), message });
            return Err(Problems::new(problems));
        }
    };
    let config = validate::config(&raw, &document, &spoiled, environment, &mut problems);
    match config {
        Some(config) if problems.is_empty() => {
            let settings = settings(&config, &document);
            Ok(Loaded { config, run, settings })
        }
        _ => Err(Problems::new(problems)),
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem {
        origin: Origin::File { path: path.to_owned(), line: 0 },
        key: String::new(),
        message,
    };
    let file = std::fs::File::open(path).map_err(|error| problem(format!("cannot be opened: {error}")))?;
    let about = file.metadata().map_err(|error| problem(format!("cannot be looked at: {error}")))?;
    if about.is_dir() {
        return Err(problem("is a directory; give the file itself".to_owned()));
    }
    if about.permissions().mode() & 0o002 != 0 && about.is_file() {
        return Err(problem("anybody may write to it; run chmod o-w on it".to_owned()));
    }
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if text.len() as u64 > LARGEST {
        return Err(problem(format!("larger than {LARGEST} bytes; this is no configuration")));
    }
    Ok(text)
}
