use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::clock::Moment;

const NOW: Duration = Duration::from_secs(1_767_225_600);
const LEEWAY: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn arn(name: &str) -> ExecutionArn {
    format!("arn:aws:states:eu-west-1:123456789012:execution:orders:{name}").parse().unwrap()
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn keys(least: u32, pairs: &[(u32, &Ed25519KeyPair)]) -> PublicKeys {
    let public = |pair: &Ed25519KeyPair| pair.public_key().as_ref().try_into().unwrap();
    let keys = pairs.iter().map(|(version, pair)| (*version, public(pair))).collect();
    PublicKeys { least, keys, sent: Moment::new(Duration::ZERO, NOW) }
}

fn checked(groups: &[&str]) -> Checked {
    let subject = Subject {
        id: "ada@example.com".to_owned(),
        kind: SubjectKind::Agent,
        issuer: Some("https://id.example.com".to_owned()),
        assurance: Assurance::Verified,
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    };
    Checked { subject, expires: NOW + HOUR }
}

fn terms(groups: &[String]) -> Terms<'_> {
    Terms { max_age: 12 * HOUR, ends_with_token: true, groups }
}

fn seal(pair: &Ed25519KeyPair, version: u32, execution: &str) -> String {
    let groups = ["admins".to_owned()];
    let unsealed =
        Unsealed::new(&checked(&["staff", "admins"]), &arn(execution), NOW, terms(&groups)).unwrap();
    let signature = pair.sign(unsealed.input()).as_ref().try_into().unwrap();
    unsealed.sealed(&Signed { version, signature })
}

#[test]
fn a_seal_says_who_it_was_and_only_the_groups_that_matter() {
    let pair = key(1);
    let text = seal(&pair, 1, "a");
    let found = Sealed::parse(&text).unwrap();
    let root = arn("a");
    let said = found.check(Lineage::of(&root), NOW, LEEWAY, &keys(1, &[(1, &pair)])).unwrap();
    assert_eq!(said, checked(&["admins"]));
    assert!(text.len() < 512, "{} bytes", text.len());
    assert!(Sealed::is_meant(&text) && !Sealed::is_meant("eyJhbGciOiJSUzI1NiJ9.e30."));
    assert_eq!(format!("{found:?}"), "Sealed { version: 1, .. }");
}

#[test]
fn it_is_for_its_execution_and_for_those_below() {
    let pair = key(1);
    let found = Sealed::parse(&seal(&pair, 1, "root")).unwrap();
    let (root, child, other) = (arn("root"), arn("child"), arn("other"));
    let above = [arn("middle"), arn("root")];
    for (execution, ancestors, good) in [
        (Some(&root), &[][..], true),
        (Some(&child), &above, true),
        (Some(&child), &above[..1], false),
        (Some(&other), &[], false),
        (None, &[], false),
    ] {
        let lineage = Lineage { execution, ancestors };
        let said = found.check(lineage, NOW, LEEWAY, &keys(1, &[(1, &pair)]));
        assert_eq!(said.map(drop), if good { Ok(()) } else { Err(SealError::Elsewhere) }, "{lineage:?}");
    }
    let express: ExecutionArn =
        "arn:aws:states:eu-west-1:123456789012:express:orders:root:1".parse().unwrap();
    assert!(found.check(Lineage::of(&express), NOW, LEEWAY, &keys(1, &[(1, &pair)])).is_err());
}

#[test]
fn it_has_a_beginning_and_an_end() {
    let pair = key(1);
    let found = Sealed::parse(&seal(&pair, 1, "a")).unwrap();
    let at = |at| {
        let root = arn("a");
        found.check(Lineage::of(&root), at, LEEWAY, &keys(1, &[(1, &pair)])).map(|said| said.expires)
    };
    assert_eq!(at(NOW - LEEWAY), Ok(NOW + HOUR));
    assert_eq!(at(NOW - LEEWAY - Duration::from_millis(1)), Err(SealError::Early));
    assert_eq!(at(NOW + HOUR + LEEWAY - Duration::from_millis(1)), Ok(NOW + HOUR));
    assert_eq!(at(NOW + HOUR + LEEWAY), Err(SealError::Expired));
}

#[test]
fn a_seal_ends_with_the_token_or_with_its_own_age() {
    let of = |ends_with_token, max_age| {
        let terms = Terms { max_age, ends_with_token, groups: &[] };
        Unsealed::new(&checked(&[]), &arn("a"), NOW, terms).map(|unsealed| unsealed.expires)
    };
    assert_eq!(of(true, 12 * HOUR), Ok(NOW + HOUR));
    assert_eq!(of(true, HOUR / 2), Ok(NOW + HOUR / 2));
    assert_eq!(of(false, 12 * HOUR), Ok(NOW + 12 * HOUR));
    assert!(of(true, Duration::ZERO).is_err());
}

#[test]
fn rotation_leaves_old_seals_good_and_retirement_does_not() {
    let (old, new) = (key(1), key(2));
    let found = Sealed::parse(&seal(&old, 1, "a")).unwrap();
    let root = arn("a");
    let check = |keys: &PublicKeys| found.check(Lineage::of(&root), NOW, LEEWAY, keys).map(drop);
    assert_eq!(check(&keys(1, &[(1, &old), (2, &new)])), Ok(()));
    assert_eq!(check(&keys(2, &[(1, &old), (2, &new)])), Err(SealError::Retired { version: 1, least: 2 }));
    assert_eq!(check(&keys(1, &[(2, &new)])), Err(SealError::UnknownVersion(1)));
    assert_eq!(check(&keys(1, &[(1, &new)])), Err(SealError::Forged));
}

#[test]
fn what_cannot_be_sealed_is_said() {
    let groups: Vec<String> = (0..64).map(|i| format!("{i:0>64}")).collect();
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    let error = Unsealed::new(&checked(&names), &arn("a"), NOW, terms(&groups)).unwrap_err().to_string();
    assert!(error.contains("64 groups") && error.contains("subject.groups"), "{error}");
    let mut asserted = checked(&[]);
    asserted.subject.assurance = Assurance::Asserted;
    assert!(Unsealed::new(&asserted, &arn("a"), NOW, terms(&[])).is_err());
}

#[test]
fn what_is_none_is_named_and_not_repeated() {
    let long = format!("tns1.{}", "a".repeat(3000));
    let sig = "A".repeat(86);
    for (text, why) in [
        ("", "four parts"),
        ("tns1.canary", "four parts"),
        ("tns2.canary.1.canary", "form is not tns1"),
        ("tns1..1.canary", "no payload"),
        ("tns1.canary.01.canary", "not a number"),
        ("tns1.canary.+1.canary", "not a number"),
        ("tns1.canary.4294967296.canary", "not a number"),
        ("tns1.canary.1.canary", "64 bytes"),
        (&format!("tns1.canary.1.{sig}=="), "64 bytes"),
        (&format!("tns1.canary.1.{}B", &sig[1..]), "64 bytes"),
        (&long, "2048 bytes"),
    ] {
        let error = Sealed::parse(text).expect_err(text).to_string();
        assert!(error.contains(why) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn another_signature_by_the_same_key_is_no_seal() {
    let pair = key(1);
    let root = arn("a");
    let forged = |sub: &str, exe: &str| {
        let wire = serde_json::json!({"sub": sub, "kind": "person", "iss": "i", "iat": 0, "exp": u64::MAX, "exe": exe});
        URL_SAFE_NO_PAD.encode(wire.to_string())
    };
    let control = forged("a\u{1b}[2K", root.as_str());
    let (nobody, nowhere) = (forged("", root.as_str()), forged("a", "arn:aws:s3:::x"));
    for payload in ["", "!", "e30", "eyJzdWIiOiJhIn0", &control, &nobody, &nowhere] {
        let input = format!("tns1.{payload}");
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes()));
        let Ok(found) = Sealed::parse(&format!("{input}.1.{signature}")) else { continue };
        let said = found.check(Lineage::of(&root), NOW, LEEWAY, &keys(1, &[(1, &pair)]));
        assert!(matches!(said, Err(SealError::Malformed(_))), "{said:?}");
    }
}

proptest! {
    /// Whichever byte is changed, to whatever: the seal is refused.
    #[test]
    fn no_byte_can_be_changed(at in 0_usize..512, to in any::<char>()) {
        let pair = key(1);
        let text = seal(&pair, 1, "a");
        let chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        prop_assume!(chars[at] != to);
        let changed: String = chars.iter().enumerate().map(|(i, c)| if i == at { to } else { *c }).collect();
        let root = arn("a");
        // Every other version that one digit can name has a key of its own.
        let pairs: Vec<Ed25519KeyPair> = (1..10).map(key).collect();
        let versions: Vec<_> = (1_u32..).zip(&pairs).collect();
        let keys = keys(1, &versions);
        let said = Sealed::parse(&changed).and_then(|it| it.check(Lineage::of(&root), NOW, LEEWAY, &keys));
        prop_assert!(said.is_err());
    }

    /// Cut, or with something put in: refused, and nothing panics.
    #[test]
    fn no_part_can_be_taken_or_added(at in 0_usize..512, cut in 0_usize..40, put in "[A-Za-z0-9_.=-]{0,12}") {
        let pair = key(1);
        let text = seal(&pair, 1, "a");
        let at = at % text.len();
        let end = (at + cut).min(text.len());
        let changed = format!("{}{put}{}", &text[..at], &text[end..]);
        prop_assume!(changed != text);
        let root = arn("a");
        let said = Sealed::parse(&changed).and_then(|it| it.check(Lineage::of(&root), NOW, LEEWAY, &keys(1, &[(1, &pair)])));
        prop_assert!(said.is_err());
    }

    /// A seal is good for no execution but its own.
    #[test]
    fn no_other_execution_is_served(name in "[a-z0-9-]{1,20}", other in "[a-z0-9-]{1,20}") {
        prop_assume!(name != other);
        let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap();
        let found = Sealed::parse(&seal(&pair, 7, &name)).unwrap();
        let (own, other) = (arn(&name), arn(&other));
        let keys = keys(1, &[(7, &pair)]);
        prop_assert!(found.check(Lineage::of(&own), NOW, LEEWAY, &keys).is_ok());
        prop_assert_eq!(found.check(Lineage::of(&other), NOW, LEEWAY, &keys), Err(SealError::Elsewhere));
    }
}
