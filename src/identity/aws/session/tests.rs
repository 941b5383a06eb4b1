use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The pattern of STS for `RoleSessionName` and `SourceIdentity`: `[\w+=,.@-]*`, 2 to 64 characters.
fn is_name(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))
        && !text.starts_with("aws:")
}

/// The pattern of STS for the key and the value of a tag: `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`.
fn is_tag(text: &str, most: usize) -> bool {
    text.len() <= most && text.chars().all(|c| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c))
}

#[test]
fn what_fits_is_left_as_it_is() {
    let work = Work {
        run: "run-0123456789abcdef",
        execution_arn: Some("arn:aws:states:eu-west-1:123456789012:execution:orders:7f1c"),
        state_machine: Some("orders"),
        state: Some("Charge"),
        subject: None,
        git_commit: Some("9fceb02"),
    };
    let session = Session::of(&work);
    assert_eq!(session.name, "run-0123456789abcdef@orders.Charge");
    assert_eq!(session.source_identity, "run-0123456789abcdef");
    let tags: Vec<_> = session.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        tags,
        [
            ("tenure:run", "run-0123456789abcdef"),
            ("tenure:execution", "arn:aws:states:eu-west-1:123456789012:execution:orders:7f1c"),
            ("tenure:state-machine", "orders"),
            ("tenure:state", "Charge"),
            ("tenure:git-commit", "9fceb02"),
        ]
    );
    let somebody = Session::of(&Work { subject: Some("ada@example.com"), ..work });
    assert_eq!(somebody.source_identity, "ada@example.com");
    assert_eq!(Session::of(&Work { run: "run-1", ..Work::default() }).name, "run-1");
}

#[test]
fn what_does_not_fit_is_changed_and_says_so() {
    let long = "Charge the customer's card, and tell them so by letter as well as by mail";
    let session = Session::of(&Work { run: "run-1", state: Some(long), ..Work::default() });
    assert!(session.name.starts_with("run-1.Charge_the_customer_s_card,_and_tell_the"), "{session:?}");
    assert!(session.name.len() == 64 && ends_in_hash(&session.name), "{session:?}");
    let tag = &session.tags[1].1;
    assert!(
        tag.starts_with("Charge the customer_s card_ and tell them so by letter as well as by mail="),
        "{tag}"
    );
    for run in ["", "x", "aws:", "ü", "a b"] {
        let session = Session::of(&Work { run, ..Work::default() });
        assert!(is_name(&session.name) && ends_in_hash(&session.name), "{session:?}");
    }
}

#[test]
fn what_only_looks_the_same_is_kept_apart() {
    let some = |run, machine, state| {
        let work = Work { run, state_machine: machine, state, ..Work::default() };
        Session::of(&work).name
    };
    let names = [
        some("a", Some("b.c"), None),
        some("a", Some("b"), Some("c")),
        some("a@b", None, Some("c")),
        some("a@b.c", None, None),
        some("a", Some(""), Some("b.c")),
        some("a", None, Some("b.c")),
        some("a", Some(""), None),
        some("a", None, Some("")),
    ];
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    // What was made from one text, given as another.
    let made = some("ü", None, None);
    assert_ne!(some(&made, None, None), made);
}

prop_compose! {
    /// Of one alphabet that is close to what is allowed, so that inputs often look alike.
    fn text()(text in prop_oneof!["[ab=@._, ü]{0,5}", "[ -~]{0,300}", ".{0,40}", "run-[0-9a-f]{16}", "aws:.{0,4}", "a{60,66}", "a=[0-9a-f]{16}"]) -> String {
        text
    }
}

type Given = (String, [Option<String>; 5]);

fn session(given: &Given) -> Session {
    let (run, [execution, machine, state, subject, commit]) = given;
    Session::of(&Work {
        run,
        execution_arn: execution.as_deref(),
        state_machine: machine.as_deref(),
        state: state.as_deref(),
        subject: subject.as_deref(),
        git_commit: commit.as_deref(),
    })
}

fn given() -> impl Strategy<Value = Given> {
    let some = || prop::option::of(text());
    (text(), [some(), some(), some(), some(), some()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// STS takes whatever comes out.
    #[test]
    fn any_work_gives_something_valid(given in given()) {
        let session = session(&given);
        prop_assert!(is_name(&session.name), "{}", session.name);
        prop_assert!(is_name(&session.source_identity), "{}", session.source_identity);
        prop_assert!(session.tags.len() <= 50);
        for (key, value) in &session.tags {
            prop_assert!(is_tag(key, 128) && !key.is_empty() && !key.starts_with("aws:"), "{key}");
            prop_assert!(is_tag(value, 256), "{value}");
        }
    }

    /// Two works differ in what is made of them, each name in what it is made from.
    #[test]
    fn distinct_works_are_told_apart(one in given(), other in given(), mixed in any::<[bool; 6]>()) {
        // Most works that are alike differ in a part or two only.
        let mut near = other.clone();
        if mixed[0] { near.0.clone_from(&one.0); }
        for (i, part) in near.1.iter_mut().enumerate() {
            if mixed[i + 1] { part.clone_from(&one.1[i]); }
        }
        let (first, second) = (session(&one), session(&near));
        prop_assert_eq!(one == near, first == second);
        let named = |given: &Given| (given.0.clone(), given.1[1].clone(), given.1[2].clone());
        prop_assert_eq!(named(&one) == named(&near), first.name == second.name);
        let identified = |given: &Given| given.1[3].clone().unwrap_or_else(|| given.0.clone());
        prop_assert_eq!(identified(&one) == identified(&near), first.source_identity == second.source_identity);
        prop_assert_eq!(one == near, first.tags == second.tags);
    }
}
