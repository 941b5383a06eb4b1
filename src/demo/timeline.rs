//! What the demo prints: a column of times, a column of words, and what happened.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

/// What the place that is printed to can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// It is a terminal: lines may be drawn, and drawn over.
    pub terminal: bool,
    /// It takes colours.
    pub colour: bool,
}

/// How a text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// SGR parameters (ECMA-48).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }
}

/// Where nothing takes its time by itself.
const PAUSE: Duration = Duration::from_millis(600);

/// The columns of a bar and of a chart.
const WIDE: usize = 52;

/// Prints events as they happen.
pub(crate) struct Timeline<'a> {
    out: &'a mut (dyn Write + Send),
    look: Look,
    started: Instant,
    live: bool,
}

impl<'a> Timeline<'a> {
    pub(crate) fn new(out: &'a mut (dyn Write + Send), look: Look) -> Self {
        Self { out, look, started: Instant::now(), live: false }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Leaves the time to read what was printed.
    pub(super) async fn breathe(&self) {
        tokio::time::sleep(PAUSE).await;
    }

    /// A line over what follows.
    pub(crate) fn heading(&mut self, title: &str, more: &str) -> io::Result<()> {
        self.clear()?;
        let (title, more) = (self.paint(title, Tone::Bold), self.paint(more, Tone::Dim));
        writeln!(self.out, "\n  {title}  {more}")?;
        self.out.flush()
    }

    /// What happened now, and that it is as it should be.
    pub(crate) fn event(&mut self, tone: Tone, word: &str, text: &str) -> io::Result<()> {
        self.clear()?;
        let time = self.paint(&format!("{:6.2}s", self.elapsed().as_secs_f64()), Tone::Dim);
        let (rule, mark) = if self.look.terminal { ("│", "●") } else { ("|", "*") };
        let rule = self.paint(rule, Tone::Dim);
        let mark = self.paint(mark, tone);
        let word = self.paint(&format!("{word:<9}"), Tone::Bold);
        writeln!(self.out, "{time} {rule} {mark} {word} {text}")?;
        self.out.flush()
    }

    /// More about the event above.
    pub(crate) fn more(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        let rule = self.paint(if self.look.terminal { "│" } else { "|" }, Tone::Dim);
        writeln!(self.out, "        {rule}   {:9} {text}", "")?;
        self.out.flush()
    }

    /// A line as it is, for whoever copies it.
    pub(crate) fn plain(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// On a terminal, a line that stands below all others until the next one is printed. It is cut where it is too wide:
    /// one that went on in a second row could not be taken back.
    pub(crate) fn footer(&mut self, text: &str) -> io::Result<()> {
        if !self.look.terminal {
            return Ok(());
        }
        write!(self.out, "\r\x1b[2K\x1b[?7l{text}\x1b[?7h")?;
        self.live = true;
        self.out.flush()
    }

    /// Takes back a line that would have been replaced.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.clear()?;
        self.out.flush()
    }

    /// On a terminal, a line that the next one replaces: how much of a life is left.
    pub(super) fn life(&mut self, name: &str, left: Duration, full: Duration) -> io::Result<()> {
        if !self.look.terminal {
            return Ok(());
        }
        let share = left.as_secs_f64() / full.as_secs_f64().max(0.001);
        let tone = if share > 0.4 { Tone::Good } else { Tone::Warn };
        let cells = cells(share * 24.0, 24);
        let (bar, rest) = ("█".repeat(cells), "░".repeat(24 - cells));
        let line = format!(
            "{} {} {} {name} {}{} {:.1} s left",
            self.paint(&format!("{:6.2}s", self.elapsed().as_secs_f64()), Tone::Dim),
            self.paint("│", Tone::Dim),
            self.paint("○", tone),
            self.paint(&bar, tone),
            self.paint(&rest, Tone::Dim),
            left.as_secs_f64(),
        );
        write!(self.out, "\r\x1b[2K{line}")?;
        self.live = true;
        self.out.flush()
    }

    /// Who was served when: one row for each credential.
    pub(super) fn chart(&mut self, rows: &[Row], from: Duration, to: Duration) -> io::Result<()> {
        let widest = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in rows {
            let mut bar = String::new();
            for cell in 0..WIDE {
                let at = |edge: usize| {
                    let share = (cell + edge) as u32;
                    from + (to - from) * share / WIDE as u32
                };
                let (begins, ends) = (at(0), at(1));
                let within = |span: (Duration, Duration)| span.0 < ends && span.1 > begins;
                let renewed = row.renewed.iter().any(|at| (begins..ends).contains(at));
                let (fancy, plain, tone) = match (renewed, within(row.served), within(row.lived)) {
                    (true, ..) => ("◆", "R", Tone::Bold),
                    (_, true, _) => ("█", "#", Tone::Good),
                    (_, _, true) => ("▒", "-", Tone::Dim),
                    _ => ("·", ".", Tone::Dim),
                };
                bar += &self.paint(if self.look.terminal { fancy } else { plain }, tone);
            }
            let mut line = String::new();
            let _ = write!(line, "{:<widest$} {bar}", row.name);
            self.more(&line)?;
        }
        let key = match self.look.terminal {
            true => "█ served  ◆ renewed  ▒ replaced, left to its own end",
            false => "# served  R renewed  - replaced, left to its own end",
        };
        let key = self.paint(key, Tone::Dim);
        self.more(&format!("{:widest$} {key}", ""))
    }

    pub(crate) fn paint(&self, text: &str, tone: Tone) -> String {
        match self.look.colour && tone != Tone::Plain {
            true => format!("\x1b[{}m{text}\x1b[0m", tone.code()),
            false => text.to_owned(),
        }
    }

    fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.live) {
            write!(self.out, "\r\x1b[2K")?;
        }
        Ok(())
    }
}

/// One credential in a chart. Times are counted from the demo's start.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    /// From the first reader who got it to the last.
    pub(super) served: (Duration, Duration),
    /// From then until upstream ended it.
    pub(super) lived: (Duration, Duration),
    pub(super) renewed: Vec<Duration>,
}

impl Row {
    pub(super) fn new(name: String, at: Duration) -> Self {
        Self { name, served: (at, at), lived: (at, at), renewed: Vec::new() }
    }
}

fn cells(filled: f64, of: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a few dozen cells"
    )]
    let filled = filled.round().max(0.0) as usize;
    filled.min(of)
}
