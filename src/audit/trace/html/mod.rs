//! Traces and reports as one self-contained page: for a browser, a printer, a screen reader.
//!
//! There is no script and nothing is loaded; the page's own policy forbids both. Everything that stands in logs may have been
//! chosen by somebody: all of it goes through [`Text`], and none of it into an attribute. The drawing is of links into
//! the tables below it, which have the same content.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::At;
use super::output::{FileSeen, Finding, Place, Severity, Skipped, Trace};
use super::report::Report;
use tables::Table;

mod drawing;
mod marks;
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

/// A name that may be long: it may be broken where its parts end.
struct Breaking<'a>(&'a str);

impl fmt::Display for Breaking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['/', ':', '_']) {
            write!(f, "{}", Text(part))?;
            if part.ends_with(['/', ':', '_']) {
                f.write_str("<wbr>")?;
            }
        }
        Ok(())
    }
}

/// A trace as a page.
#[must_use]
pub fn trace(trace: &Trace) -> String {
    let mut page = Page::new("Trace", trace.made, &trace.files);
    let lines = match trace.timeline.first().zip(trace.timeline.last()) {
        Some((first, last)) => vec![("first line", first.at.to_string()), ("last line", last.at.to_string())],
        None => vec![("shown", "nothing belongs to this in these files".to_owned())],
    };
    page.terms(
        trace.selection.iter().map(|(name, value)| (name.as_str(), value.clone())).chain(lines).chain([
            ("runs", trace.runs.len().to_string()),
            ("leases", trace.leases.len().to_string()),
            ("lines", trace.timeline.len().to_string()),
        ]),
    );
    let mut items = BTreeMap::new();
    for (number, item) in trace.timeline.iter().enumerate() {
        for &line in item.vault_lines.iter().chain([&item.line]) {
            items.entry(line).or_insert(number);
        }
    }
    let counts = trace.findings.iter().map(|finding| (finding.severity, 1));
    page.findings(&trace.findings, counts, &items);
    page.draw(trace);
    page.table(tables::states(trace));
    page.table(tables::runs(trace));
    page.table(tables::leases(trace));
    let files = page.files.clone();
    page.table(tables::timeline(trace, &files));
    page.end(&trace.skipped, trace.more_skipped)
}

/// A report as a page.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut page = Page::new("Report", report.made, &report.files);
    let since = report.since.map_or_else(|| "the first line".to_owned(), |at| at.to_string());
    let until = report.until.map_or_else(|| "the last line".to_owned(), |at| at.to_string());
    page.terms([("from", since), ("to", until)]);
    let counts = report.finding_counts.iter().map(|count| (count.severity, count.count));
    page.findings(&report.findings, counts, &BTreeMap::new());
    page.table(tables::coverage(report));
    for table in tables::totals(report) {
        page.table(table);
    }
    page.end(&report.skipped, report.more_skipped)
}

/// `file:line`.
fn place(place: Place, files: &[FileSeen]) -> String {
    format!("{}:{}", name(place, files), place.line)
}

fn name(place: Place, files: &[FileSeen]) -> &str {
    files.get(place.file as usize).map_or("?", |file| &file.name)
}

struct Page {
    title: &'static str,
    made: At,
    /// The folder that all files are below, if there is one, with its slash.
    folder: String,
    /// Under their names below that.
    files: Vec<FileSeen>,
    /// What can be gone to: an id and a heading.
    sections: Vec<(&'static str, &'static str)>,
    out: String,
}

impl Page {
    fn new(title: &'static str, made: At, files: &[FileSeen]) -> Self {
        let mut files = files.to_vec();
        let folder = folder(&files).to_owned();
        for file in &mut files {
            file.name.drain(..folder.len());
        }
        Self { title, made, folder, files, sections: Vec::new(), out: String::with_capacity(64 * 1024) }
    }

    fn terms<'a>(&mut self, terms: impl IntoIterator<Item = (&'a str, String)>) {
        self.out.push_str("<dl>\n");
        for (name, value) in terms {
            let _ = writeln!(self.out, "<dt>{}</dt><dd>{}</dd>", Text(name), Text(&value));
        }
        self.out.push_str("</dl>\n");
    }

    fn heading(&mut self, id: &'static str, title: &'static str) {
        let _ = writeln!(self.out, "<section>\n<h2 id=\"{id}\">{title}</h2>");
        self.sections.push((id, title));
    }

    fn draw(&mut self, trace: &Trace) {
        let drawing = drawing::draw(trace);
        if !drawing.is_empty() {
            self.heading("drawing", "Drawing");
            self.out.push_str(&drawing);
            self.out.push_str("</section>\n");
        }
    }

    fn table(&mut self, mut table: Table<'_>) {
        if !table.is_empty() {
            self.heading(table.id, table.title);
            table.write(&mut self.out);
            self.out.push_str("</section>\n");
        }
    }

    /// The findings that are listed; how many of each severity there are; the rows of the timeline that tell lines.
    fn findings(
        &mut self,
        found: &[Finding],
        counts: impl IntoIterator<Item = (Severity, u64)>,
        items: &BTreeMap<Place, usize>,
    ) {
        self.heading("findings", "Findings");
        let (out, files) = (&mut self.out, &self.files);
        if found.is_empty() {
            out.push_str("<p>None.</p>\n</section>\n");
            return;
        }
        let mut total: BTreeMap<Severity, u64> = BTreeMap::new();
        for (severity, count) in counts {
            *total.entry(severity).or_default() += count;
        }
        let counts: Vec<_> = total
            .iter()
            .map(|(severity, count)| {
                format!("{count} {}{}", severity.word(), if *count == 1 { "" } else { "s" })
            })
            .collect();
        let listed = match total.values().sum::<u64>() > found.len() as u64 {
            true => format!(" The first {} are listed.", found.len()),
            false => String::new(),
        };
        let _ = writeln!(out, "<p>{}.{listed}</p>\n<ol class=\"findings\">", counts.join(", "));
        for (number, finding) in found.iter().enumerate() {
            let severity = finding.severity.word();
            let _ = write!(
                out,
                "<li class=\"{severity}\" id=\"finding-{number}\"><p><strong>{severity}</strong> <code>{}</code>",
                finding.kind.word()
            );
            if let Some(at) = finding.at {
                let _ = write!(out, " <time>{at}</time>");
            }
            if let Some(run) = &finding.run {
                let _ = write!(out, " <code>{}</code>", Text(run));
            }
            let _ = writeln!(out, "</p>\n<p>{}</p>", Text(&finding.message));
            proof(finding, files, items, out);
            out.push_str("</li>\n");
        }
        out.push_str("</ol>\n</section>\n");
    }

    fn end(mut self, skipped: &[Skipped], more_skipped: u64) -> String {
        let files = std::mem::take(&mut self.files);
        self.table(tables::files(&files, &self.folder.clone()));
        if !skipped.is_empty() {
            self.heading("skipped", "Passed over");
            let out = &mut self.out;
            out.push_str("<ul>\n");
            for one in skipped {
                let at = place(one.place, &files);
                let _ = writeln!(out, "<li><code>{}</code>: {}</li>", Text(&at), Text(&one.why));
            }
            out.push_str("</ul>\n");
            if more_skipped > 0 {
                let _ = writeln!(out, "<p>And {more_skipped} more lines.</p>");
            }
            out.push_str("</section>\n");
        }
        let Self { title, made, sections, out, .. } = self;
        let mut page = String::with_capacity(out.len() + 8 * 1024);
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<title>Tenure: {title}, {made}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>{title}</h1>\n<p class=\"note\">Made by <code>tenure audit</code>, <time>{made}</time>. All times are UTC.</p>\n\
             <nav aria-label=\"Sections\">\n<ul>\n"
        );
        for (id, title) in sections {
            let _ = writeln!(page, "<li><a href=\"#{id}\">{title}</a></li>");
        }
        let _ = write!(page, "</ul>\n</nav>\n</header>\n<main>\n{out}</main>\n</body>\n</html>\n");
        page
    }
}

/// The lines that prove a finding, by file; a link where the timeline has them.
fn proof(finding: &Finding, files: &[FileSeen], items: &BTreeMap<Place, usize>, out: &mut String) {
    if finding.lines.is_empty() {
        return;
    }
    out.push_str("<p class=\"proof\">");
    for (number, lines) in finding.lines.chunk_by(|one, next| one.file == next.file).enumerate() {
        let before = if number == 0 { "" } else { "; " };
        let _ = write!(out, "{before}<code>{}:", Text(name(lines[0], files)));
        for (number, line) in lines.iter().enumerate() {
            out.push_str(if number == 0 { "" } else { ", " });
            let _ = match items.get(line) {
                Some(item) => write!(out, "<a href=\"#item-{item}\">{}</a>", line.line),
                None => write!(out, "{}", line.line),
            };
        }
        out.push_str("</code>");
    }
    if finding.more_lines > 0 {
        let _ = write!(out, " and {} more lines", finding.more_lines);
    }
    out.push_str("</p>\n");
}

/// What the names of all files begin with, up to a slash.
fn folder(files: &[FileSeen]) -> &str {
    let Some((first, others)) = files.split_first() else { return "" };
    let mut end = first.name.rfind('/').map_or(0, |at| at + 1);
    for file in others {
        while !file.name.starts_with(&first.name[..end]) {
            end = first.name[..end - 1].rfind('/').map_or(0, |at| at + 1);
        }
    }
    &first.name[..end]
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
        assert_eq!(Breaking("a/<b>:c").to_string(), "a/<wbr>&lt;b&gt;:<wbr>c");
    }

    #[test]
    fn files_are_named_below_the_folder_of_all() {
        for (names, shared) in [
            (&["/logs/a/b.jsonl", "/logs/a/c/d.log"][..], "/logs/a/"),
            (&["/logs/ab/c", "/logs/a/c"], "/logs/"),
            (&["a.jsonl", "b.jsonl"], ""),
            (&["/a", "b"], ""),
            (&["ü/a", "ü/b"], "ü/"),
            (&["/logs/a"], "/logs/"),
            (&["-"], ""),
            (&[], ""),
        ] {
            let files: Vec<_> =
                names.iter().map(|&name| FileSeen { name: name.into(), ..FileSeen::default() }).collect();
            assert_eq!(folder(&files), shared, "{names:?}");
        }
    }
}
