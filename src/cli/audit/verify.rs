//! `tenure audit verify`: whether a log, or what was collected of many, is as it was written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

use super::super::screen::{Cell, Paint, Screen, printable};
use super::super::{Output, Session};
use super::text;
use crate::audit;
use crate::audit::verify::anchored::{Anchored, Anchors};
use crate::audit::verify::{ChainSeen, Report};
use crate::causes::causes;

/// Lines of a file that are looked at to tell what it is.
const LOOKED_AT: usize = 100;

const BUFFER: usize = 1 << 20;

/// Chains of a table.
const ROWS: usize = 100;

/// Verify the chains of audit lines
#[derive(Args, Debug)]
#[command(
    long_about = "Verify the chain of an audit file: that no line was edited, deleted, moved or put in between. \
        Names the lines that do not follow from those before them.\n\nBy itself a chain cannot tell that its tail was \
        cut, that it was made anew as a whole, or that it is another file, or an older state of it. Vault's audit log \
        can: it has the chain's head in the metadata of run tokens and, where X-Tenure-Chain is an audited header, every \
        audit.anchor. With --vault-log each of these is named, and what no anchor covers yet is stated.\n\n\
        With --collected the files hold lines of any number of brokers, as a pipeline collects them from standard output \
        or syslog: each chain is judged by itself, wherever its lines stand. Copies of a line, and lines that came after \
        later ones, are counted and are no finding: a line says which one it follows. Lines with something around them, \
        a header of syslog, a time, an OCSF event or a collector's record, are read so without the option.\n\n\
        Exit code: 0 whole, 1 not, 2 it cannot be read.",
    after_long_help = "Examples:\n  tenure audit verify /var/log/tenure/audit.jsonl\n  \
        tenure audit verify audit.jsonl.1 audit.jsonl --vault-log logs/of-vault\n  \
        tenure audit verify --collected exported/*.jsonl --vault-log logs/of-vault --json | jq .by_chain"
)]
pub(crate) struct VerifyArgs {
    /// The file of audit lines, plain or gzip; several, in any order, if the log was rotated
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Vault's audit log, plain or gzip, or a folder of it: what it knows of this log is compared
    #[arg(long, value_name = "FILE")]
    vault_log: Vec<PathBuf>,
    /// A boot whose lines must be here: with those of another broker alone it is another file
    #[arg(long, value_name = "ID", requires = "vault_log")]
    boot: Vec<String>,
    /// The files hold lines of several brokers, or of several starts of one, as a pipeline collected them
    #[arg(long)]
    collected: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs, session: &Session) -> Output {
    let anchors = match &args.vault_log[..] {
        [] => None,
        named => match audit::trace::anchors(named, &mut std::io::stdin()) {
            Ok(anchors) => Some(anchors),
            Err(error) => return Output::failed(2, &causes(&error)),
        },
    };
    let mut files = Vec::new();
    for path in &args.files {
        match opened(path) {
            Ok(file) => files.push((Beginning::of(path), path, file)),
            Err(error) => return Output::failed(2, &format!("{}: {error}", path.display())),
        }
    }
    let collected = args.collected || files.iter().any(|(beginning, ..)| beginning.wrapped);
    match collected {
        true => files.sort_by(|(a, ..), (b, ..)| a.time.cmp(&b.time)),
        false => files.sort_by_key(|(beginning, ..)| beginning.seq),
    }
    let order: Vec<String> = files.iter().map(|(_, path, _)| path.display().to_string()).collect();
    let mut comparison = anchors.as_ref().map(Anchors::compare);
    let readers = files.into_iter().map(|(_, _, file)| file);
    let mut seen = |line: &audit::verify::Seen<'_>| {
        if let Some(comparison) = &mut comparison {
            comparison.see(line);
        }
    };
    let report = match collected {
        true => audit::verify::verify_collected(readers, &mut seen),
        false => audit::verify::verify_all(readers, &mut seen),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => return Output::failed(2, &format!("{}: {error}", order.join(", "))),
    };
    let anchored = comparison.map(|comparison| comparison.finish(&args.boot));
    let good = report.is_good() && anchored.as_ref().is_none_or(Anchored::is_good);
    let out = match args.json {
        true => {
            let verified = Verified { files: &order, report: &report, anchored: anchored.as_ref() };
            serde_json::to_string_pretty(&verified).map(|text| text + "\n").unwrap_or_default()
        }
        false => as_text(&order, &report, anchored.as_ref(), session.screen),
    };
    Output { out, code: u8::from(!good), ..Output::default() }
}

/// What is printed as JSON: the report, and what the anchors say.
#[derive(Serialize)]
struct Verified<'a> {
    files: &'a [String],
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchored: Option<&'a Anchored>,
}

pub(super) fn as_text(
    files: &[String],
    report: &Report,
    anchored: Option<&Anchored>,
    screen: Screen,
) -> String {
    let mut said = match files {
        [_] => String::new(),
        files => format!("{}; lines are counted over all of them\n", files.join(", then ")),
    };
    let alone = report.to_string();
    match anchored {
        // What the log alone cannot tell is told by the anchors.
        Some(anchored) => {
            said += alone.strip_suffix(audit::verify::CAVEAT).unwrap_or(&alone);
            said += &anchored.to_string();
        }
        None => said += &alone,
    }
    // Names of boots and of who made an anchor are others' words.
    let mut out: String = said.lines().map(|line| printable(line) + "\n").collect();
    if report.by_chain.len() > 1 {
        out.push('\n');
        table(report, anchored, screen, &mut out);
    }
    out
}

fn table(report: &Report, anchored: Option<&Anchored>, screen: Screen, out: &mut String) {
    let mut heads = vec!["BOOT", "BOOTS", "LINES", "FROM", "TO", "HEAD", "CHAIN"];
    heads.extend(anchored.map(|_| "CONFIRMED TO"));
    let mut rows: Vec<Vec<Cell>> = vec![heads.iter().map(|head| Cell::new(head, Paint::Dim)).collect()];
    for chain in report.by_chain.iter().take(ROWS) {
        let ChainSeen { number, boot, boots, lines, first, last, head, problems, .. } = chain;
        let judged = match problems {
            0 => Cell::new("whole", Paint::Good),
            1 => Cell::new("1 problem", Paint::Bad),
            many => Cell::new(&format!("{many} problems"), Paint::Bad),
        };
        let head = head.map_or_else(|| "-".to_owned(), |head| head.seq.to_string());
        let mut row = vec![
            Cell::from(boot.as_str()),
            Cell::from(boots.to_string()),
            Cell::from(lines.to_string()),
            Cell::from(first.as_str()),
            Cell::from(last.as_str()),
            Cell::from(head),
            judged,
        ];
        row.extend(anchored.map(|anchored| {
            let cover = anchored.by_chain.iter().find(|cover| cover.number == *number);
            match cover.and_then(|cover| cover.covered) {
                Some(covered) => Cell::new(&format!("seq {}", covered.seq), Paint::Good),
                None => Cell::new("nothing", Paint::Warn),
            }
        }));
        rows.push(row);
    }
    let all = report.by_chain.len() + usize::try_from(report.more_chains).unwrap_or(usize::MAX);
    text::table(screen, &rows, all, out);
}

/// A file, plain or gzip: that is told by its first bytes.
fn opened(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    Ok(match file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
        false => Box::new(file),
    })
}

/// What the first lines of a file tell of it.
struct Beginning {
    /// The number of its first line that is one; files without any come last.
    seq: u64,
    /// The time of that line.
    time: String,
    /// A line of it was collected: there is something around it.
    wrapped: bool,
}

impl Beginning {
    fn of(path: &Path) -> Self {
        let mut beginning = Self { seq: u64::MAX, time: "~".to_owned(), wrapped: false };
        let lines = opened(path).map(|file| file.split(b'\n').map_while(Result::ok).take(LOOKED_AT));
        for bytes in lines.into_iter().flatten() {
            let line = audit::unwrapped(&bytes);
            let Ok(parsed) = serde_json::from_slice::<audit::Line>(&line) else { continue };
            beginning.wrapped |= line.len() != bytes.len();
            if beginning.seq == u64::MAX {
                (beginning.seq, beginning.time) = (parsed.seq, parsed.time);
            }
        }
        beginning
    }
}
