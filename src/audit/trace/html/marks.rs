//! What happened, as marks in the drawing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Text;
use crate::audit::trace::output::{Item, Source, Trace};

/// How an item is drawn; what matters more is less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Refused,
    Beside,
    Happened,
}

impl Look {
    fn of(item: &Item) -> Self {
        match item.outcome.as_deref() {
            Some("denied" | "failed") => Self::Refused,
            _ if item.source == Source::Vault => Self::Beside,
            _ => Self::Happened,
        }
    }
}

/// A mark of what happened at about the same time. It looks like what matters most of that, and leads to it.
pub(super) fn mark(trace: &Trace, items: &[(usize, &Item)], x: f64, y: f64, out: &mut String) {
    let weight = |item: &Item| (item.findings.is_empty(), Look::of(item));
    let mut items = items.to_vec();
    items.sort_by_key(|&(number, item)| (weight(item), number));
    let Some((number, first)) = items.first() else { return };
    let look = items.iter().map(|(_, item)| Look::of(item)).min().unwrap_or(Look::Happened);
    let _ = write!(out, "<a href=\"#item-{number}\">");
    if !first.findings.is_empty() {
        let _ = write!(out, "<circle class=\"proves\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7.5\"/>");
    }
    let _ = match look {
        Look::Refused => write!(
            out,
            "<circle class=\"plate\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\"/>\
             <path class=\"mark refused\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\">",
            x - 4.0,
            y - 4.0
        ),
        Look::Beside => {
            write!(out, "<path class=\"mark beside\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\">", y - 5.0)
        }
        Look::Happened => write!(
            out,
            "<path class=\"mark\" d=\"M{:.1} {y:.1}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z\">",
            x - 3.5
        ),
    };
    let _ = writeln!(out, "<title>{}</title></path></a>", Text(&told(trace, &items)));
}

/// What a mark stands for, in words; what matters most comes first.
fn told(trace: &Trace, items: &[(usize, &Item)]) -> String {
    let mut told = String::new();
    let by_time = |(_, item): &&(usize, &Item)| item.at;
    let ends = items.iter().min_by_key(by_time).zip(items.iter().max_by_key(by_time));
    let Some(((_, first), (_, last))) = ends else { return told };
    let one = |item: &Item| {
        let words = [Some(&item.event), item.outcome.as_ref(), item.path.as_ref()];
        words.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    if items.len() == 1 {
        let _ = write!(told, "{} {} {}", first.at, first.source.word(), one(first));
    } else {
        let _ = write!(told, "{} lines from {} to {}: ", items.len(), first.at, last.at);
        let shown: Vec<_> = items.iter().take(3).map(|(_, item)| one(item)).collect();
        told.push_str(&shown.join(", "));
        if items.len() > shown.len() {
            told.push_str(", …");
        }
    }
    let kinds: BTreeSet<_> = items
        .iter()
        .flat_map(|(_, item)| &item.findings)
        .filter_map(|&number| trace.findings.get(number))
        .map(|finding| finding.kind.word())
        .collect();
    if !kinds.is_empty() {
        let kinds: Vec<_> = kinds.into_iter().collect();
        let _ = write!(told, "; proves {}", kinds.join(", "));
    }
    told
}
