//! Traces and reports as one self-contained page: for a browser, a printer, a screen reader.
//!
//! There is no script and nothing is loaded; the page's own policy forbids both. Everything that stands in logs may have been
//! chosen by somebody: all of it goes through [`Text`], and none of it into an attribute but a title. The drawing is of
//! links into the table below it, which has the same content.

use std::fmt::{self, Write as _};

use super::output::{FileSeen, Finding, Place, Skipped, Trace};
use super::report::Report;

mod drawing;
mod tables;

const STYLE: &str = include_str!("style.css");

/// Text of others as the text of an element or the value of a quoted attribute. What would steer the reader is shown as its
/// escape: control characters, and those that turn the direction of writing.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if steers(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A trace as a page.
#[must_use]
pub fn trace(trace: &Trace) -> String {
    let mut page = Page::new("Trace", trace.made);
    page.terms(trace.selection.iter().map(|(name, value)| (name.as_str(), value.clone())).chain([
        ("runs", trace.runs.len().to_string()),
        ("leases", trace.leases.len().to_string()),
        ("lines", trace.timeline.len().to_string()),
    ]));
    page.findings(&trace.findings, &trace.files);
    drawing::draw(trace, &mut page.out);
    tables::runs(trace, &mut page.out);
    tables::leases(trace, &mut page.out);
    tables::timeline(trace, &mut page.out);
    page.end(&trace.files, &trace.skipped, trace.more_skipped)
}

/// A report as a page.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut page = Page::new("Report", report.made);
    let since = report.since.map_or_else(|| "the first line".to_owned(), |at| at.to_string());
    let until = report.until.map_or_else(|| "the last line".to_owned(), |at| at.to_string());
    page.terms([("from", since), ("to", until)]);
    tables::coverage(report, &mut page.out);
    page.findings(&report.findings, &report.files);
    tables::totals(report, &mut page.out);
    page.end(&report.files, &report.skipped, report.more_skipped)
}

/// `file:line`.
fn place(place: Place, files: &[FileSeen]) -> String {
    let name = files.get(place.file as usize).map_or("?", |file| &file.name);
    format!("{name}:{}", place.line)
}

struct Page {
    out: String,
}

impl Page {
    fn new(title: &str, made: super::At) -> Self {
        let mut out = String::with_capacity(64 * 1024);
        let _ = write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<title>Tenure: {title}, {made}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#tables\">Skip to the tables</a>\n\
             <header>\n<h1>{title}</h1>\n<p class=\"note\">Made by <code>tenure audit</code>, {made}</p>\n</header>\n<main>\n"
        );
        Self { out }
    }

    fn terms<'a>(&mut self, terms: impl IntoIterator<Item = (&'a str, String)>) {
        self.out.push_str("<dl>\n");
        for (name, value) in terms {
            let _ = writeln!(self.out, "<dt>{}</dt><dd>{}</dd>", Text(name), Text(&value));
        }
        self.out.push_str("</dl>\n");
    }

    fn findings(&mut self, found: &[Finding], files: &[FileSeen]) {
        let out = &mut self.out;
        out.push_str("<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">Findings</h2>\n");
        if found.is_empty() {
            out.push_str("<p>None.</p>\n</section>\n");
            return;
        }
        out.push_str("<ol class=\"findings\">\n");
        for (number, finding) in found.iter().enumerate() {
            let severity = finding.severity.word();
            let _ = write!(
                out,
                "<li class=\"{severity}\" id=\"finding-{number}\"><strong>{severity}</strong> <code>{}</code> ",
                finding.kind.word()
            );
            if let Some(at) = finding.at {
                let _ = write!(out, "<time>{at}</time> ");
            }
            if let Some(run) = &finding.run {
                let _ = write!(out, "<code>{}</code> ", Text(run));
            }
            let _ = write!(out, "<br>{}", Text(&finding.message));
            if !finding.lines.is_empty() {
                out.push_str("<br><span class=\"proof\">");
                for (at, &line) in finding.lines.iter().enumerate() {
                    let _ = write!(
                        out,
                        "{}<code>{}</code>",
                        if at == 0 { "" } else { ", " },
                        Text(&place(line, files))
                    );
                }
                if finding.more_lines > 0 {
                    let _ = write!(out, " and {} more lines", finding.more_lines);
                }
                out.push_str("</span>");
            }
            out.push_str("</li>\n");
        }
        out.push_str("</ol>\n</section>\n");
    }

    fn end(mut self, files: &[FileSeen], skipped: &[Skipped], more_skipped: u64) -> String {
        tables::files(files, &mut self.out);
        if !skipped.is_empty() {
            let out = &mut self.out;
            out.push_str(
                "<section aria-labelledby=\"skipped\">\n<h2 id=\"skipped\">Passed over</h2>\n<ul>\n",
            );
            for one in skipped {
                let _ = writeln!(
                    out,
                    "<li><code>{}</code>: {}</li>",
                    Text(&place(one.place, files)),
                    Text(&one.why)
                );
            }
            out.push_str("</ul>\n");
            if more_skipped > 0 {
                let _ = writeln!(out, "<p>And {more_skipped} more lines.</p>");
            }
            out.push_str("</section>\n");
        }
        self.out.push_str("</main>\n</body>\n</html>\n");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text() {
        for (said, shown) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x'", "&quot; onload=&#39;x&#39;"),
            ("a&amp;b", "a&amp;amp;b"),
            ("a\u{202e}b\u{0}\n", "a\\u{202e}b\\u{0}\\u{a}"),
            ("Grüße 日本", "Grüße 日本"),
        ] {
            assert_eq!(Text(said).to_string(), shown);
        }
    }
}
