//! Fuzzed: the log as it is written, and as it is read.

use std::time::Duration;

use super::verify::{Kind, verify_collected};
use super::{Audit, Entry, Event, Line, Peer, Run, RunStamp, Source, unwrapped, verify};
use crate::clock::{Clock, Moment};
use crate::fuzz::Bytes;

/// Whatever is called a log is read to its end, and what is found lies within it.
pub(crate) fn read(data: &[u8]) {
    let lines = data.split_inclusive(|&byte| byte == b'\n').count() as u64;
    // What was collected in a wrapping has a chain for each boot, as standard output has.
    let wrapped = data.split(|&byte| byte == b'\n').any(|line| unwrapped(line).len() != line.len());
    for collected in [false, true] {
        let report = if collected { verify_collected([data], &mut |_| {}) } else { verify(data) };
        let report = report.expect("bytes can be read");
        assert_eq!(report.lines, lines);
        let within = |line: u64| (1..=lines).contains(&line);
        assert!(report.problems.iter().all(|problem| within(problem.line)), "{report}");
        assert!(report.problems.is_sorted_by_key(|problem| problem.line));
        assert!(report.more_problems == 0 || report.problems.len() == 1_000);
        if lines > 0 && report.is_good() {
            assert!(report.chains > 0 && (report.head.is_some() || report.chains > 1), "{report}");
            assert!(collected || wrapped || report.chains == 1, "{report}");
            if !wrapped && !collected {
                without_a_line_it_is_broken(data);
            }
        }
        if !data.is_empty() && !data.ends_with(b"\n") {
            assert!(report.problems.iter().any(|it| it.line == lines && it.kind == Kind::Torn), "{report}");
        }
    }
    several(data);
}

/// What was collected is judged alike in whatever order it came, and however often.
fn several(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split_inclusive(|&byte| byte == b'\n').collect();
    let good = |lines: &[&[u8]]| {
        let mut placed = 0u64;
        let report = verify_collected([lines.concat().as_slice()], &mut |_| placed += 1).expect("read");
        assert!(placed + report.repeated <= report.lines, "{report}");
        assert_eq!(report.by_chain.iter().map(|chain| chain.lines).sum::<u64>(), placed, "{report}");
        (report.is_good(), placed)
    };
    let (is_good, placed) = good(&lines);
    if !is_good || lines.len() > 200 {
        return;
    }
    let backwards: Vec<&[u8]> = lines.iter().rev().copied().collect();
    assert_eq!(good(&backwards), (true, placed));
    assert_eq!(good(&[&lines[..], &backwards[..]].concat()), (true, placed));
}

/// A line in the middle of a whole file.
fn without_a_line_it_is_broken(data: &[u8]) {
    let mut lines: Vec<&[u8]> = data.split_inclusive(|&byte| byte == b'\n').collect();
    if lines.len() > 2 && verify(data).expect("read").is_good() {
        lines.remove(lines.len() / 2);
        assert!(!verify(lines.concat().as_slice()).expect("read").is_good());
    }
}

/// What is written is read back as it was said, and a file in which a byte or a line was changed is not whole.
pub(crate) fn write(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (what, at, with) = (bytes.byte(), bytes.below(1 << 16), bytes.byte());
    let (audit, memory) = Audit::in_memory("b1", Clock::system()).expect("a log");
    let mut said = Vec::new();
    while !bytes.0.is_empty() && said.len() < 20 {
        let (event, members) = (bytes.below(Event::ALL.len()), bytes.byte());
        let event = Event::ALL[event];
        let (path, reason, tag) = (bytes.text(), bytes.text(), bytes.text());
        let run = Run {
            id: "run-1".to_owned(),
            kind: "api".to_owned(),
            state: (members & 1 != 0).then(|| tag.clone()),
            tags: [(tag.clone(), path.clone())].into(),
            ..Run::default()
        };
        let stamp = RunStamp::new(&run).expect("strings");
        let peer = Peer::unix(u32::from(members), 7, None);
        let mut entry = Entry::denied(event, &reason).run(&stamp).caller(&peer).at(moment(members));
        if members & 2 != 0 {
            entry = entry.path(&path).lease_id(&tag).detail(&reason);
        }
        if members & 4 != 0 {
            entry = entry.version(u64::from(members)).source(Source::Cache).expires(moment(with));
        }
        audit.note(&entry);
        said.push((event, members, path, reason, tag, run, peer));
    }
    let text = memory.text().into_bytes();
    let report = verify(text.as_slice()).expect("read");
    assert!(report.is_good() && report.lines == said.len() as u64, "{report}");
    let lines: Vec<Line> = memory.lines().expect("lines of the schema");
    for (seq, (line, (event, members, path, reason, tag, run, peer))) in lines.iter().zip(&said).enumerate() {
        assert_eq!((line.seq, line.event, line.run.as_ref()), (seq as u64 + 1, *event, Some(run)));
        assert_eq!((line.reason.as_ref(), line.caller.as_ref()), (Some(reason), Some(peer)));
        let of = |bit: u8, text: &String| (members & bit != 0).then(|| text.clone());
        assert_eq!((&line.path, &line.lease_id, &line.detail), (&of(2, path), &of(2, tag), &of(2, reason)));
        assert_eq!(line.version, (members & 4 != 0).then_some(u64::from(*members)));
        assert_eq!(line.time, moment(*members).rfc3339());
    }
    if !text.is_empty() {
        let changed = tampered(&text, what, at, with);
        // A cut tail is what a chain by itself cannot show.
        if !text.starts_with(&changed) {
            let report = verify(changed.as_slice()).expect("read");
            assert!(!report.is_good(), "{} counts as whole", String::from_utf8_lossy(&changed));
        }
    }
    read(&text);
}

/// A file with one change: a byte, or a line that is taken out, doubled, or moved.
fn tampered(text: &[u8], what: u8, at: usize, with: u8) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let (line, to) = (at % lines.len(), usize::from(with) % lines.len());
    match what % 4 {
        0 => {
            let mut text = text.to_vec();
            let at = at % text.len();
            text[at] = with;
            return text;
        }
        1 => drop(lines.remove(line)),
        2 => lines.insert(to, lines[line]),
        _ => lines.swap(line, to),
    }
    lines.concat()
}

fn moment(of: u8) -> Moment {
    Moment::new(Duration::ZERO, Duration::from_millis(u64::from(of) * 0xffff_ffff))
}
