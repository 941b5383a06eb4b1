//! Fuzzed: what an auditor hands in, up to what is printed of it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::{text, verify};
use crate::audit::At;
use crate::audit::trace::{Rules, Selection, TraceError, anchors, html, report, trace as follow};
use crate::audit::verify::{verify_all, verify_collected};
use crate::cli::screen::Screen;
use crate::fuzz::{Bytes, contains, secret};

/// No more files are handed in at once.
const FILES: usize = 4;

/// Whatever files are handed in, they are read to their end, and what is told of them shows no data of requests, answers or
/// states, and steers neither a terminal nor a page.
pub(crate) fn trace(data: &[u8]) {
    let canary = secret(data);
    let mut bytes = Bytes(data);
    let (packed, cut, selected) = (bytes.byte(), bytes.byte(), bytes.byte());
    let mut files = Vec::new();
    while !bytes.0.is_empty() && files.len() < FILES {
        let mut file = with_secrets(bytes.piece(), &canary);
        if packed & (1 << files.len()) != 0 {
            file = gzip(&file);
            file.truncate(file.len() - usize::from(cut).min(file.len()));
        }
        files.push(file);
    }
    let folder = Folder::of(&files);
    let (execution, path) = (bytes.text(), "database/creds/*".to_owned());
    let selection = match selected % 4 {
        0 => Selection { execution: Some(execution), ..Selection::default() },
        1 => Selection { path: Some(path), ..Selection::default() },
        _ => Selection::default(),
    };
    let rules = Rules { verified_subjects: selected & 4 != 0 };
    let now = At::new(Duration::from_secs(1_767_300_000));
    let named = [folder.path.clone()];
    let mut told = Vec::new();
    match follow(&named, &mut std::io::empty(), &selection, rules, now, &mut |_| {}) {
        Ok(found) => {
            told.push(text::trace(&found, Screen::default()));
            page(html::trace(&found), &mut told);
            told.push(serde_json::to_string_pretty(&found).expect("JSON"));
            assert_eq!(found.files.len(), files.len().max(1), "each file is told of");
        }
        Err(error) => refused(&error, &mut told),
    }
    let all = Selection::default();
    match report(&named, &mut std::io::empty(), &all, rules, now, &mut |_| {}) {
        Ok(found) => {
            told.push(text::report(&found, Screen::default()));
            page(html::report(&found), &mut told);
            told.push(serde_json::to_string_pretty(&found).expect("JSON"));
        }
        Err(error) => refused(&error, &mut told),
    }
    check(&told, &canary);
}

/// A log, and Vault's beside it: what is confirmed of it stands in both.
pub(crate) fn anchored(data: &[u8]) {
    let canary = secret(data);
    let mut bytes = Bytes(data);
    let log = bytes.piece();
    let vault = with_secrets(bytes.0, &canary);
    let folder = Folder::of(std::slice::from_ref(&vault));
    let known = match anchors(std::slice::from_ref(&folder.path), &mut std::io::empty()) {
        Ok(known) => known,
        // What begins as gzip does, and is damaged: of such a log it is not known what is missing.
        Err(error) => {
            assert!(vault.starts_with(&[0x1f, 0x8b]), "{error}");
            return;
        }
    };
    for collected in [false, true] {
        let mut comparison = known.compare();
        let (mut heads, mut last) = (Vec::new(), 0);
        let mut seen = |line: &crate::audit::verify::Seen<'_>| {
            comparison.see(line);
            heads.push((line.chain, line.head));
            last = last.max(line.at);
        };
        let found = match collected {
            true => verify_collected([log], &mut seen),
            false => verify_all([log], &mut seen),
        };
        let found = found.expect("bytes can be read");
        let said = comparison.finish(&["b1".to_owned()]);
        assert!(last <= found.lines && said.uncovered <= heads.len() as u64);
        assert!(said.by_chain.iter().map(|cover| cover.uncovered).sum::<u64>() <= said.uncovered);
        let covers = said.by_chain.iter().filter_map(|cover| Some((cover.number, cover.covered?)));
        for (chain, head) in covers.chain(said.covered.map(|head| (heads[0].0, head))) {
            assert!(heads.contains(&(chain, head)), "a line is confirmed that is not there");
            assert!(contains(&vault, head.hash.as_str().as_bytes()), "and that Vault's log does not name");
        }
        let order = ["a".to_owned(), "b".to_owned()];
        let words = verify::as_text(&order, &found, Some(&said), Screen::default());
        check(&[words, serde_json::to_string(&found).expect("JSON")], &canary);
    }
}

fn page(page: String, told: &mut Vec<String>) {
    let lower = page.to_lowercase();
    // What is said in attributes and in text is escaped: no tag can be but one of ours.
    for forbidden in ["<script", "<img", "<link", "<iframe", "<object"] {
        assert!(!lower.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("</svg>").count(), page.matches("<svg").count());
    assert_eq!(page.matches("<table").count(), page.matches("</table>").count());
    told.push(page);
}

fn refused(error: &TraceError, told: &mut Vec<String>) {
    // What is no gzip to its end, or no file at all.
    assert!(!matches!(error, TraceError::TooMany), "there are not so many lines");
    told.push(error.to_string());
}

#[track_caller]
fn check(told: &[String], canary: &str) {
    for said in told {
        assert!(!said.contains(canary), "data of a request or of a state is shown: {said}");
        // JSON is for programs, and escapes what it must.
        let steers = !said.starts_with('{') && said.chars().any(|c| c.is_control() && c != '\n');
        assert!(!steers, "it steers a terminal: {said:?}");
    }
}

/// The same lines, with a secret wherever Vault's log and histories have data.
fn with_secrets(piece: &[u8], canary: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in piece.split_inclusive(|&byte| byte == b'\n') {
        let with = serde_json::from_slice::<Value>(line).ok().and_then(|value| put(value, canary));
        match with {
            Some(value) => out.extend_from_slice(format!("{value}\n").as_bytes()),
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// The document with it, if there is any place for it.
fn put(mut value: Value, canary: &str) -> Option<Value> {
    if let Some(events) = value.get_mut("events").and_then(Value::as_array_mut) {
        for details in events.iter_mut().filter_map(Value::as_object_mut).flatten() {
            if let (true, Some(details)) = (details.0.ends_with("EventDetails"), details.1.as_object_mut()) {
                for member in ["input", "output", "parameters"] {
                    if let Some(said) = details.get_mut(member) {
                        let within = said.as_str().and_then(|said| serde_json::from_str::<Value>(said).ok());
                        let mut within = within.filter(Value::is_object).unwrap_or_else(|| json!({}));
                        within["password"] = canary.into();
                        *said = within.to_string().into();
                    }
                }
                details.insert("cause".to_owned(), canary.into());
            }
        }
        return Some(value);
    }
    let mut any = false;
    for of in ["request", "response"] {
        if let Some(of) = value.get_mut(of).and_then(Value::as_object_mut) {
            of.insert("data".to_owned(), json!({ "password": canary, canary: [canary] }));
            any = true;
        }
    }
    any.then_some(value)
}

fn gzip(file: &[u8]) -> Vec<u8> {
    use std::io::Write as _;

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(file).and_then(|()| packed.finish()).expect("memory takes it")
}

/// A folder of files to hand in, made anew for each input.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn of(files: &[Vec<u8>]) -> Self {
        static BASE: OnceLock<PathBuf> = OnceLock::new();
        let base =
            BASE.get_or_init(|| std::env::temp_dir().join(format!("tenure-fuzz-{}", std::process::id())));
        let path = PathBuf::from(format!("{}-{:?}", base.display(), std::thread::current().id()));
        let folder = Self { path };
        let _ = std::fs::remove_dir_all(&folder.path);
        std::fs::create_dir_all(&folder.path).expect("a folder");
        for (number, file) in files.iter().enumerate() {
            std::fs::write(folder.file(number), file).expect("a file");
        }
        if files.is_empty() {
            std::fs::write(folder.file(0), []).expect("a file");
        }
        folder
    }

    fn file(&self, number: usize) -> PathBuf {
        Path::new(&self.path).join(number.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
