//! What text looks like: colours where they are wanted, aligned columns, spans of time for people.

use std::fmt::Write as _;

use crate::config::Environment;

/// What is known of where output goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    pub(crate) out_is_terminal: bool,
    pub(crate) err_is_terminal: bool,
    /// Whether stdout takes colours.
    pub(crate) colour: bool,
}

impl Screen {
    /// Colours go to a terminal alone, and not where `NO_COLOR` (no-color.org) or a dumb terminal refuses them.
    pub(crate) fn new(environment: &Environment, out_is_terminal: bool, err_is_terminal: bool) -> Self {
        let refused = environment.var("NO_COLOR").is_some() || environment.var("TERM") == Some("dumb");
        Self { out_is_terminal, err_is_terminal, colour: out_is_terminal && !refused }
    }

    pub(crate) fn paint(self, text: &str, paint: Paint) -> String {
        match paint.code() {
            Some(code) if self.colour && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// Rows in aligned columns, two spaces apart, without blanks at the end.
    pub(crate) fn columns(self, rows: &[Vec<Cell>]) -> String {
        let mut widths = vec![0; rows.iter().map(Vec::len).max().unwrap_or(0)];
        for row in rows {
            for (cell, widest) in row.iter().zip(&mut widths) {
                *widest = cell.text.chars().count().max(*widest);
            }
        }
        let mut out = String::new();
        for row in rows {
            let filled = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
            for (i, cell) in row[..filled].iter().enumerate() {
                out += &self.paint(&cell.text, cell.paint);
                if i + 1 < filled {
                    let _ = write!(out, "{:1$}", "", widths[i] - cell.text.chars().count() + 2);
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A credential with less than this left stands out, in seconds.
pub(crate) const SOON: u64 = 30;

/// How a word stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Paint {
    /// SGR parameters (ECMA-48).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A word in a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(crate) fn new(text: &str, paint: Paint) -> Self {
        Self { text: printable(text), paint }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Paint::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, Paint::Plain)
    }
}

/// The text with its control characters escaped: what others chose cannot steer the terminal or break a table.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// A span in its two largest units: `45s`, `3m 20s`, `2h 5m`, `3d 4h`.
pub(crate) fn span(seconds: u64) -> String {
    let (large, large_unit, small, small_unit) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3600 => (seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => (seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => (seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
    };
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit} {small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (200, "3m 20s"),
            (3600, "1h"),
            (7500, "2h 5m"),
            (86_400, "1d"),
            (273_600, "3d 4h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        for (vars, terminal, colour) in [
            (&[][..], true, true),
            (&[], false, false),
            (&[("NO_COLOR", "1")], true, false),
            (&[("NO_COLOR", "")], true, true),
            (&[("TERM", "dumb")], true, false),
        ] {
            let environment = vars.iter().copied().collect();
            assert_eq!(Screen::new(&environment, terminal, true).colour, colour, "{vars:?} {terminal}");
        }
    }

    #[test]
    fn columns_are_aligned_and_leave_no_blanks_at_the_end() {
        let screen = Screen::default();
        let rows = [vec!["a".into(), "x\ty".into(), "".into()], vec!["long".into(), "é".into(), "z".into()]];
        assert_eq!(screen.columns(&rows), "a     x\\ty\nlong  é     z\n");
        let screen = Screen { colour: true, ..screen };
        assert_eq!(screen.columns(&[vec![Cell::new("a", Paint::Bad), "b".into()]]), "\x1b[31ma\x1b[0m  b\n");
    }
}
