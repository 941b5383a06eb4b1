//! Fuzzed: names, times, and seals.

use std::time::{Duration, UNIX_EPOCH};

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::arn::ExecutionArn;
use super::request;
use super::seal::{Lineage, Sealed, Terms, Unsealed};
use super::subject::{Assurance, Checked, Subject, SubjectKind};
use crate::clock::Moment;
use crate::fuzz::{Bytes, secret};
use crate::lease::upstream::{PublicKeys, Signed};

/// 2026-01-01.
const NOW: Duration = Duration::from_secs(1_767_225_600);

/// The first moment that four digits do not hold.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

/// ARNs, times, texts, time-outs: what is taken is kept as it was said, what is refused is not repeated at length.
pub(crate) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Moment::new(Duration::ZERO, NOW);
    match text.parse::<ExecutionArn>() {
        Ok(arn) => {
            assert_eq!(arn.to_string(), text);
            assert!(text.contains(arn.state_machine()) && !arn.state_machine().is_empty());
            assert!(!arn.name().is_empty() && arn.account().len() == 12 && !arn.region().is_empty());
            assert!(!text.chars().any(|c| c.is_control() || c.is_whitespace()));
        }
        Err(why) => fits_on_a_line(&why.to_string()),
    }
    if let Some(time) = request::rfc3339(text)
        && time < YEAR_10000
    {
        let written = humantime::format_rfc3339_nanos(UNIX_EPOCH + time).to_string();
        assert_eq!(request::rfc3339(&written), Some(time), "{written}");
    }
    match request::deadline(text, now) {
        Ok(until) => assert!(!until.len().is_zero()),
        Err(why) => fits_on_a_line(&why),
    }
    if let Ok(seconds) = text.parse::<f64>() {
        match request::timeout(seconds, now) {
            Ok(until) => assert!((1e-9..=request::LONGEST_TIMEOUT).contains(&until.len().as_secs_f64())),
            Err(why) => fits_on_a_line(&why),
        }
    }
    match request::text(text) {
        Ok(kept) => assert_eq!(&*kept, text),
        Err(why) => fits_on_a_line(&why),
    }
    match request::task_token(text) {
        Ok(token) => assert!(token.expose() == text),
        Err(why) => fits_on_a_line(&why),
    }
    let mark = secret(data);
    // A long text may be a token that was put there by mistake: no message goes so far.
    let long = format!("{text}{}{mark}", "x".repeat(100));
    let told = [
        long.parse::<ExecutionArn>().err().map(|why| why.to_string()),
        request::deadline(&long, now).err(),
        request::text(&long).err(),
        request::task_token(&long).err(),
        request::task_token(&long).ok().map(|token| format!("{token:?}")),
    ];
    assert!(told.iter().flatten().all(|why| !why.contains(&mark)), "{told:?}");
}

/// A message for one line of a log.
fn fits_on_a_line(why: &str) {
    assert!(why.len() < 1024 && !why.chars().any(char::is_control), "{why:?}");
}

/// A seal of what the bytes say is good for its execution alone, and not when any of it was changed.
pub(crate) fn seal(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match Sealed::parse(text) {
            Ok(_) => assert!(Sealed::is_meant(text)),
            Err(why) => assert!(why.to_string().len() < 200, "{why}"),
        }
        let mark = secret(data);
        let marked = Sealed::parse(&format!("{text}{mark}")).err();
        assert!(marked.is_none_or(|why| !why.to_string().contains(&mark)));
    }
    let mut bytes = Bytes(data);
    let (at, with, flags) = (bytes.below(2048), bytes.byte(), bytes.byte());
    let id = bytes.text();
    let all: Vec<String> = bytes.text().split(' ').map(str::to_owned).collect();
    let matter = &all[..all.len().min(usize::from(flags & 15))];
    let checked = Checked {
        subject: Subject {
            id,
            kind: SubjectKind::ALL[usize::from(flags >> 4) % SubjectKind::ALL.len()],
            issuer: (flags & 16 == 0).then(|| "https://id.example.com".to_owned()),
            assurance: if flags & 32 == 0 { Assurance::Verified } else { Assurance::Asserted },
            groups: all.clone(),
        },
        expires: NOW + Duration::from_secs(u64::from(flags)),
    };
    let execution: ExecutionArn =
        "arn:aws:states:eu-west-1:123456789012:execution:orders:a".parse().expect("an ARN");
    let terms = Terms { max_age: Duration::from_secs(100), ends_with_token: flags & 64 == 0, groups: matter };
    let Ok(unsealed) = Unsealed::new(&checked, &execution, NOW, terms) else { return };
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let signature = pair.sign(unsealed.input()).as_ref().try_into().expect("a signature");
    let text = unsealed.sealed(&Signed { version: 3, signature });
    let public = pair.public_key().as_ref().try_into().expect("a key");
    let keys = PublicKeys { least: 2, keys: [(3, public)].into(), sent: Moment::new(Duration::ZERO, NOW) };
    let lineage = Lineage::of(&execution);
    let leeway = Duration::from_secs(5);

    let sealed = Sealed::parse(&text).expect("a seal of ours");
    assert_eq!(sealed.version(), 3);
    let name = checked.subject.id.as_str();
    let named = !name.is_empty() && !matter.iter().any(|group| group.contains(char::is_control));
    match sealed.check(lineage, NOW, leeway, &keys) {
        Ok(said) => {
            assert_eq!((&said.subject.id, said.subject.kind), (&checked.subject.id, checked.subject.kind));
            assert!(said.subject.groups.iter().all(|group| matter.contains(group)));
            assert!(said.expires > NOW && said.expires <= NOW + terms.max_age);
            let late = said.expires + leeway;
            assert!(sealed.check(lineage, late, leeway, &keys).is_err(), "it never ends");
        }
        Err(why) => assert!(!named || name.contains(char::is_control), "{why}"),
    }
    let elsewhere = "arn:aws:states:eu-west-1:123456789012:execution:orders:b".parse().expect("an ARN");
    assert!(sealed.check(Lineage::of(&elsewhere), NOW, leeway, &keys).is_err());
    let mut changed = text.clone().into_bytes();
    let at = at % changed.len();
    if changed[at] != with {
        changed[at] = with;
        let changed = String::from_utf8_lossy(&changed);
        let taken = Sealed::parse(&changed).and_then(|it| it.check(lineage, NOW, leeway, &keys));
        assert!(taken.is_err(), "{changed} counts as {text}");
    }
}
