//! `tenure audit match`: was this value served?

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::super::screen::{Cell, Paint, Screen, printable};
use super::super::{Output, Session, serve};
use super::trace::{Times, Told};
use super::{text, vault};
use crate::audit::trace::served::{Logs, Matches, Served, Wanted};
use crate::audit::{At, ValueKey, WrappedKey};
use crate::causes::causes;
use crate::lease::upstream::TransitKey;

/// No value that Vault serves is larger.
const LARGEST: u64 = 32 << 20;

/// Keys that are unwrapped with one call.
const AT_ONCE: usize = 250;

/// Rows that are printed.
const ROWS: usize = 100;

/// Tell whether a value was served, and to whom
#[derive(Args, Debug)]
#[command(
    long_about = "Tell whether a value was served, and to whom: one that was found in a repository, a log, a chat. It is read \
        from standard input, or from a file, never from the command line; no output has it.\n\n\
        Brokers with [audit.hmac] write keyed hashes of what they disclose. Their keys are wrapped by Vault's transit engine, \
        and this has Vault unwrap them: with VAULT_ADDR, VAULT_TOKEN (or ~/.vault-token), VAULT_NAMESPACE and VAULT_CACERT, as \
        the `vault` command reads them, and a policy as policies/vault/tenure-match.hcl. The value does not leave this \
        process.\n\n\
        Only what stood by itself in an answer is found: a password, not a text that it is part of.\n\n\
        Exit code: 0 it was not served, 1 it was, 2 wrong usage, unreadable input, or Vault refuses, 3 it was not found, but not \
        all could be compared.",
    after_long_help = "Examples:\n  \
        tenure audit match /var/log/audit/ < found-password\n  \
        pbpaste | tenure audit match --since 90d logs/\n  \
        tenure audit match --value-file leaked.txt --each-line --json logs/ | jq .served"
)]
pub(crate) struct MatchArgs {
    /// Logs of brokers: files, folders of them, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file of the value, instead of standard input
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Look for each line by itself
    #[arg(long)]
    each_line: bool,
    #[command(flatten)]
    times: Times,
    /// Print JSON: `tenure audit schema match` has its schema
    #[arg(long)]
    json: bool,
}

pub(super) async fn find(args: &MatchArgs, session: &Session) -> Output {
    serve::harden();
    match found(args, session).await {
        Ok(matches) => {
            let code = match (matches.served.is_empty(), matches.coverage.is_complete()) {
                (false, _) => 1,
                (true, true) => 0,
                (true, false) => 3,
            };
            let out = match args.json {
                true => serde_json::to_string_pretty(&matches).map(|text| text + "\n").unwrap_or_default(),
                false => told(&matches, session.screen),
            };
            Output { out, code, ..Output::default() }
        }
        Err(output) => output,
    }
}

async fn found(args: &MatchArgs, session: &Session) -> Result<Matches, Output> {
    let wrong = |message: String| Output::failed(2, &message);
    let times = args.times.read(session)?;
    let logs_in_stdin = args.files.iter().any(|file| file == Path::new("-"));
    if logs_in_stdin && args.value_file.is_none() {
        let message =
            "-: standard input is where the value is read from; give --value-file, or files of logs";
        return Err(wrong(message.to_owned()));
    }
    let value = match &args.value_file {
        Some(file) => std::fs::File::open(file)
            .and_then(read)
            .map_err(|error| wrong(format!("{}: {error}", file.display())))?,
        None if std::io::stdin().is_terminal() => prompted()
            .map_err(|error| wrong(format!("the value cannot be read from the terminal: {error}")))?,
        None => read(std::io::stdin()).map_err(|error| wrong(format!("standard input: {error}")))?,
    };
    let wanted: Vec<Wanted> = match args.each_line {
        true => value.split_inclusive(|byte| *byte == b'\n').map(whole).collect(),
        false => vec![whole(&value)],
    };
    if wanted.iter().all(Wanted::is_empty) {
        return Err(wrong("the value is empty: nothing that is served is".to_owned()));
    }
    let mut progress = Told::new(session.screen);
    let mut stdin = std::io::stdin();
    let logs = Logs::open(&args.files, &mut stdin, &mut |at| progress.tell(at));
    let logs = logs.map_err(|error| wrong(error.to_string()))?;
    let keys: Vec<WrappedKey> = logs.keys().cloned().collect();
    let unwrapped = unwrapped(&keys, session).await?;
    let now = At::new(session.clock.now().wall());
    let matches = logs.find(&unwrapped, &wanted, times, now, &mut |at| progress.tell(at));
    matches.map_err(|error| wrong(error.to_string()))
}

fn whole(value: &[u8]) -> Wanted {
    Wanted::new(Zeroizing::new(value.to_vec()))
}

fn read(from: impl std::io::Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut value = Zeroizing::new(Vec::new());
    from.take(LARGEST + 1).read_to_end(&mut value)?;
    match value.len() as u64 > LARGEST {
        true => Err(std::io::Error::other("it is larger than 32 MiB: no value is")),
        false => Ok(value),
    }
}

/// What somebody types, without an echo.
fn prompted() -> std::io::Result<Zeroizing<Vec<u8>>> {
    /// Puts the terminal back as it was.
    struct Restored(Termios);
    impl Drop for Restored {
        fn drop(&mut self) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
            eprintln!();
        }
    }
    let before = tcgetattr(std::io::stdin())?;
    let mut silent = before.clone();
    // Without signals, a Ctrl-C is a letter: the terminal is not left without an echo.
    silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
    eprint!("The value (it is not shown): ");
    std::io::stderr().flush()?;
    let restored = Restored(before);
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
    let mut line = Zeroizing::new(String::with_capacity(4096));
    std::io::stdin().read_line(&mut line)?;
    drop(restored);
    match line.contains('\u{3}') {
        true => Err(std::io::Error::new(std::io::ErrorKind::Interrupted, "it was given up")),
        false => Ok(Zeroizing::new(line.as_bytes().to_vec())),
    }
}

/// Has Vault unwrap the keys, those of a kind together.
async fn unwrapped(keys: &[WrappedKey], session: &Session) -> Result<Vec<Result<ValueKey, String>>, Output> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let (client, token) = vault::client(session)?;
    let mut kinds: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, key) in keys.iter().enumerate() {
        kinds.entry((&key.mount, &key.name)).or_default().push(at);
    }
    let mut unwrapped: Vec<Result<ValueKey, String>> = keys.iter().map(|_| Err(String::new())).collect();
    for ((mount, name), of_kind) in kinds {
        let by = TransitKey { mount: mount.to_owned(), name: name.to_owned() };
        for some in of_kind.chunks(AT_ONCE) {
            let wrapped: Vec<&str> = some.iter().map(|at| keys[*at].wrapped.as_str()).collect();
            let answer = client.unwrapped_keys(&vault::call(), &token, &by, &wrapped).await;
            let answer = answer.map_err(|failure| {
                let message = format!("the keys of the hashes cannot be unwrapped: {}", causes(&failure));
                Output::failed(2, &message)
            })?;
            for (at, key) in some.iter().zip(answer) {
                unwrapped[*at] = key.map(|key| ValueKey::new(&key, &keys[*at]));
            }
        }
    }
    Ok(unwrapped)
}

fn told(matches: &Matches, screen: Screen) -> String {
    let mut out = String::new();
    let what = if matches.values == 1 { "The value" } else { "Of the values" };
    if matches.served.is_empty() {
        let none = if matches.values == 1 { " was not found" } else { ", none was found" };
        out += &screen.paint(&format!("{what}{none}."), Paint::Bold);
    } else {
        let times: u64 = matches.served.iter().map(|served| served.times).sum();
        let mut found: Vec<usize> = matches.served.iter().map(|served| served.value).collect();
        found.sort_unstable();
        found.dedup();
        let which = match matches.values {
            1 => "was served".to_owned(),
            all => format!("{} of {all} were served", found.len()),
        };
        out += &screen.paint(&format!("{what} {which}: {}.", counted(times, "time")), Paint::Bad);
    }
    out.push('\n');
    if !matches.served.is_empty() {
        out.push('\n');
        out += &table(matches, screen);
    }
    out.push('\n');
    coverage(matches, screen, &mut out);
    out
}

fn table(matches: &Matches, screen: Screen) -> String {
    let several = matches.values > 1;
    let mut heads = vec!["FIRST", "LAST", "TIMES", "WHAT", "WHERE IN IT", "RUN", "FOR", "LINE"];
    if several {
        heads.insert(0, "VALUE");
    }
    let mut rows = vec![text::heads(&heads)];
    for served in matches.served.iter().take(ROWS) {
        let mut row = vec![
            Cell::from(served.first.to_string()),
            Cell::from(if served.times == 1 { "-".to_owned() } else { served.last.to_string() }),
            Cell::from(served.times.to_string()),
            Cell::from(printable(what(served))),
            Cell::from(printable(&served.pointer)),
            Cell::from(printable(&run(served))),
            Cell::from(served.subject.as_ref().map_or("-".to_owned(), |subject| {
                let assurance = match subject.assurance.as_str() {
                    "verified" => String::new(),
                    other => format!(" ({other})"),
                };
                printable(&format!("{}{assurance}", subject.id))
            })),
            Cell::new(
                &format!("{}:{}", matches.files[served.line.file as usize], served.line.line),
                Paint::Dim,
            ),
        ];
        if several {
            row.insert(0, Cell::from(format!("#{}", served.value)));
        }
        rows.push(row);
    }
    let mut out = screen.columns(&rows);
    let more = matches.served.len().saturating_sub(ROWS) as u64 + matches.more_served;
    if more > 0 {
        out += &format!("and {more} more: --json lists up to ten thousand\n");
    }
    out
}

/// A lease's id begins with its path.
fn what(served: &Served) -> &str {
    served.lease_id.as_deref().unwrap_or(&served.path)
}

fn run(served: &Served) -> String {
    let run = served.run.as_deref().unwrap_or("-");
    match (&served.execution_arn, &served.state) {
        (Some(arn), Some(state)) => format!("{run} ({} {state})", text::short_arn(arn)),
        (Some(arn), None) => format!("{run} ({})", text::short_arn(arn)),
        _ => run.to_owned(),
    }
}

fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

fn coverage(matches: &Matches, screen: Screen, out: &mut String) {
    let coverage = &matches.coverage;
    *out += &match (coverage.disclosures, coverage.first, coverage.last) {
        (0, ..) => "No disclosure is in these logs.\n".to_owned(),
        (all, Some(first), Some(last)) => {
            format!(
                "Compared: {} of {}, from {first} to {last}.\n",
                coverage.compared,
                counted(all, "disclosure")
            )
        }
        (all, ..) => format!("Compared: {} of {}.\n", coverage.compared, counted(all, "disclosure")),
    };
    let gaps = [
        (coverage.without_hashes, "without hashes: the broker has no [audit.hmac], or there was no value"),
        (coverage.without_key, "whose key is not in these logs, or was not unwrapped"),
        (coverage.with_more_values, "with more values than hashes, of which those were compared"),
        (coverage.unreadable, "that cannot be read: `tenure audit verify` names them"),
        (coverage.passed_over, "of no known log: `tenure audit report` names them"),
    ];
    for (count, why) in gaps.into_iter().filter(|(count, _)| *count > 0) {
        let line = format!("{} {why}", counted(count, "line"));
        *out += &format!("  {}\n", screen.paint(&line, Paint::Warn));
    }
    for locked in coverage.locked.iter().take(10) {
        let place = format!("{}:{}", matches.files[locked.line.file as usize], locked.line.line);
        let line = format!("the key at {place} was not unwrapped: {}", printable(&locked.why));
        *out += &format!("  {}\n", screen.paint(&line, Paint::Warn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::trace::output::{Place, SubjectSeen};
    use crate::audit::trace::served::{Coverage, Locked};

    fn matches() -> Matches {
        let at = |text| At::parse(text).expect("a time");
        let line = Place { file: 0, line: 118 };
        Matches {
            version: 1,
            made: at("2026-11-21T20:10:00Z"),
            since: None,
            until: None,
            values: 1,
            files: vec!["audit.jsonl".to_owned()],
            served: vec![Served {
                value: 1,
                path: "secret/data/orders/config".to_owned(),
                pointer: "/data/password".to_owned(),
                kv_version: Some(3),
                lease_id: None,
                run: Some("7f3ac1d2".to_owned()),
                execution_arn: Some("arn:aws:states:eu-west-1:123456789012:execution:orders:0f1e".to_owned()),
                state: Some("Charge".to_owned()),
                subject: Some(SubjectSeen {
                    id: "ada\u{1b}".to_owned(),
                    kind: "person".to_owned(),
                    assurance: "asserted".to_owned(),
                    issuer: None,
                }),
                times: 2,
                first: at("2026-11-21T19:40:01.123Z"),
                last: at("2026-11-21T19:52:11.870Z"),
                line,
                last_line: line,
            }],
            more_served: 0,
            coverage: Coverage {
                disclosures: 124,
                compared: 124,
                first: Some(at("2026-11-20T08:00:00.412Z")),
                last: Some(at("2026-11-21T20:01:44.092Z")),
                ..Coverage::default()
            },
        }
    }

    #[test]
    fn what_was_served_is_told_in_a_table() {
        let found = matches();
        let expected = "\
The value was served: 2 times.

FIRST                     LAST                      TIMES  WHAT                       WHERE IN IT     RUN                            FOR                   LINE
2026-11-21T19:40:01.123Z  2026-11-21T19:52:11.870Z  2      secret/data/orders/config  /data/password  7f3ac1d2 (orders:0f1e Charge)  ada\\u{1b} (asserted)  audit.jsonl:118

Compared: 124 of 124 disclosures, from 2026-11-20T08:00:00.412Z to 2026-11-21T20:01:44.092Z.
";
        assert_eq!(told(&found, Screen::default()), expected);
    }

    #[test]
    fn what_could_not_be_compared_is_told() {
        let mut found = matches();
        found.served.clear();
        found.values = 3;
        let place = Place { file: 0, line: 2 };
        found.coverage = Coverage {
            compared: 120,
            without_hashes: 1,
            without_key: 2,
            with_more_values: 1,
            passed_over: 7,
            locked: vec![Locked { line: place, why: "too old".to_owned() }],
            ..found.coverage
        };
        let expected = "\
Of the values, none was found.

Compared: 120 of 124 disclosures, from 2026-11-20T08:00:00.412Z to 2026-11-21T20:01:44.092Z.
  1 line without hashes: the broker has no [audit.hmac], or there was no value
  2 lines whose key is not in these logs, or was not unwrapped
  1 line with more values than hashes, of which those were compared
  7 lines of no known log: `tenure audit report` names them
  the key at audit.jsonl:2 was not unwrapped: too old
";
        assert_eq!(told(&found, Screen::default()), expected);
    }
}
