use proptest::prelude::*;

use super::*;

mod interpreted;

const OURS: &str = "arn:aws:ecs:eu-west-1:123456789012:task/orders/0a1b";
const TOKEN: &str = "AAAAKgAAAAIAAAAAAAAAAQ==";

fn submitted(task: &str) -> Kind {
    let answer = serde_json::json!({
        "Failures": [],
        "SdkHttpMetadata": { "HttpStatusCode": 200 },
        "Tasks": [{ "Containers": [{ "TaskArn": task }], "LastStatus": "PROVISIONING", "TaskArn": task }],
    });
    Kind::Submitted { ecs: Some(Payload::new(answer.to_string())) }
}

fn scheduled(token: &str) -> Kind {
    let parameters = serde_json::json!({
        "Cluster": "orders", "LaunchType": "FARGATE",
        "Overrides": { "ContainerOverrides": [{ "Name": "tenure", "Environment": [
            { "Name": "TENURE_STATE_NAME", "Value": "Ship" }, { "Name": "TENURE_TASK_TOKEN", "Value": token },
        ] }] },
    });
    Kind::Scheduled { parameters: Some(Payload::new(parameters.to_string())) }
}

fn plain() -> Kind {
    Kind::Scheduled { parameters: None }
}

fn entered(name: &str) -> Kind {
    Kind::Entered { name: name.into(), holds: Holds::Task }
}

fn holding(name: &str, holds: Holds) -> Kind {
    Kind::Entered { name: name.into(), holds }
}

fn exited(name: &str) -> Kind {
    Kind::Exited { name: name.into() }
}

/// What happened, and after which event.
type Step = (i64, Kind);

/// Events with the ids 1, 2, …, each with the id of the event before it.
fn history(events: Vec<Step>) -> Vec<Event> {
    (1..).zip(events).map(|(id, (previous, kind))| Event { id, previous, kind }).collect()
}

/// In progress, names our task, names our token.
type Said = (bool, bool, bool);

fn judge(events: &[Event], state: &str) -> Said {
    let token = Credential::new(TOKEN.into());
    let claim = Claim { state, task_arn: Some(OURS), task_token: Some(&token) };
    let Evidence { in_progress, names_task, names_token, .. } = evidence(events, &claim);
    (in_progress, names_task, names_token)
}

const NOTHING: Said = (false, false, false);
const ALL: Said = (true, true, true);

/// Entered, and a task of it submitted: the ids 1 to 5.
fn running() -> Vec<Step> {
    vec![
        (0, Kind::Other),
        (0, entered("Ship")),
        (2, scheduled(TOKEN)),
        (3, Kind::Other),
        (4, submitted(OURS)),
    ]
}

fn and(mut events: Vec<Step>, more: Vec<Step>) -> Vec<Step> {
    events.extend(more);
    events
}

#[test]
fn histories_say_what_they_say() {
    let cases: Vec<(&str, Vec<Step>, Said)> = vec![
        ("nothing has happened", vec![], NOTHING),
        ("entered, no task yet", vec![(0, Kind::Other), (0, entered("Ship"))], NOTHING),
        ("scheduled, not submitted", running()[..3].to_vec(), (true, false, true)),
        ("a task runs", running(), ALL),
        ("its task is over", and(running(), vec![(5, Kind::Ended)]), NOTHING),
        ("left", and(running(), vec![(5, Kind::Ended), (6, exited("Ship"))]), NOTHING),
        ("left without a word of its task", and(running(), vec![(5, exited("Ship"))]), NOTHING),
        (
            "a retry: the task of before counts no more, the new one does",
            and(running(), vec![(5, Kind::Ended), (6, scheduled("another")), (7, Kind::Other)]),
            (true, false, false),
        ),
        (
            "a retry that runs",
            and(
                vec![
                    (0, Kind::Other),
                    (0, entered("Ship")),
                    (2, scheduled("x")),
                    (3, submitted("y")),
                    (4, Kind::Ended),
                ],
                vec![(5, scheduled(TOKEN)), (6, Kind::Other), (7, submitted(OURS))],
            ),
            ALL,
        ),
        (
            "a loop that enters the state again, with another task",
            and(
                running(),
                vec![
                    (5, Kind::Ended),
                    (6, exited("Ship")),
                    (7, holding("Again?", Holds::Task)),
                    (8, exited("Again?")),
                    (9, entered("Ship")),
                    (10, scheduled("x")),
                    (11, submitted("y")),
                ],
            ),
            (true, false, false),
        ),
        (
            "another state runs our task",
            vec![(0, Kind::Other), (0, entered("Pack")), (2, scheduled(TOKEN)), (3, submitted(OURS))],
            NOTHING,
        ),
        (
            "another state ran our task, and ours runs another",
            vec![
                (0, Kind::Other),
                (0, entered("Pack")),
                (2, scheduled(TOKEN)),
                (3, submitted(OURS)),
                (4, Kind::Ended),
                (5, exited("Pack")),
                (6, entered("Ship")),
                (7, scheduled("x")),
                (8, submitted("y")),
            ],
            (true, false, false),
        ),
        ("aborted", and(running(), vec![(5, Kind::StateAborted), (0, Kind::ExecutionEnded)]), NOTHING),
        ("timed out", and(running(), vec![(0, Kind::ExecutionEnded)]), NOTHING),
        (
            "an activity",
            vec![(0, Kind::Other), (0, entered("Ship")), (2, plain()), (3, Kind::Other)],
            (true, false, false),
        ),
        (
            "redriven, with the new task after the original entry",
            and(
                running(),
                vec![
                    (5, Kind::Ended),
                    (6, Kind::ExecutionEnded),
                    (7, Kind::Redriven),
                    (2, scheduled(TOKEN)),
                    (9, submitted(OURS)),
                ],
            ),
            ALL,
        ),
        (
            "stopped and redriven",
            and(
                running(),
                vec![
                    (5, Kind::StateAborted),
                    (0, Kind::ExecutionEnded),
                    (7, Kind::Redriven),
                    (2, scheduled(TOKEN)),
                    (9, submitted(OURS)),
                ],
            ),
            ALL,
        ),
        (
            "redriven, and nothing begun",
            and(running(), vec![(0, Kind::ExecutionEnded), (6, Kind::Redriven)]),
            NOTHING,
        ),
        (
            "redriven, entered again",
            and(
                running(),
                vec![
                    (0, Kind::ExecutionEnded),
                    (6, Kind::Redriven),
                    (7, entered("Ship")),
                    (8, scheduled(TOKEN)),
                    (9, submitted(OURS)),
                ],
            ),
            ALL,
        ),
    ];
    for (what, events, expected) in cases {
        assert_eq!(judge(&history(events), "Ship"), expected, "{what}");
    }
}

/// Two branches of "Both": Pack (ids 4, 6, 7) and Ship (ids 5, 8, 9).
fn parallel() -> Vec<Step> {
    vec![
        (0, Kind::Other),
        (0, holding("Both", Holds::Parallel)),
        (2, Kind::Started(Holds::Parallel)),
        (3, entered("Pack")),
        (3, entered("Ship")),
        (4, scheduled("x")),
        (6, submitted("y")),
        (5, scheduled(TOKEN)),
        (8, submitted(OURS)),
    ]
}

#[test]
fn branches_are_told_apart() {
    let whole = parallel();
    assert_eq!(judge(&history(whole.clone()), "Ship"), ALL);
    assert_eq!(judge(&history(whole.clone()), "Pack"), (true, false, false));
    assert_eq!(judge(&history(whole.clone()), "Both"), NOTHING, "a Parallel has no task of its own");

    let one_done = and(whole.clone(), vec![(7, Kind::Ended), (10, exited("Pack"))]);
    assert_eq!(judge(&history(one_done), "Ship"), ALL);

    let failed = and(
        whole.clone(),
        vec![(7, Kind::Ended), (10, Kind::StateAborted), (10, Kind::Failed(Holds::Parallel))],
    );
    assert_eq!(judge(&history(failed.clone()), "Ship"), NOTHING, "the other branch failed");
    let caught = and(failed, vec![(12, exited("Both")), (13, entered("Ship")), (14, scheduled(TOKEN))]);
    assert_eq!(judge(&history(caught), "Ship"), (true, false, true));

    let again = and(
        whole,
        vec![
            (7, Kind::Ended),
            (10, Kind::Started(Holds::Parallel)),
            (11, entered("Pack")),
            (11, entered("Ship")),
        ],
    );
    assert_eq!(judge(&history(again.clone()), "Ship"), NOTHING, "tried again: the tasks of before are none");
    let again = and(again, vec![(13, scheduled(TOKEN)), (14, submitted(OURS))]);
    assert_eq!(judge(&history(again), "Ship"), ALL);
}

/// Two iterations of "Each": Ship runs in both, our task in the second.
fn map() -> Vec<Step> {
    vec![
        (0, Kind::Other),
        (0, holding("Each", Holds::Map)),
        (2, Kind::Started(Holds::Map)),
        (3, Kind::IterationStarted),
        (4, entered("Ship")),
        (3, Kind::IterationStarted),
        (6, entered("Ship")),
        (5, scheduled("x")),
        (8, submitted("y")),
        (7, scheduled(TOKEN)),
        (10, submitted(OURS)),
    ]
}

#[test]
fn iterations_are_told_apart() {
    let whole = map();
    assert_eq!(judge(&history(whole.clone()), "Ship"), ALL);

    let first_done =
        and(whole.clone(), vec![(9, Kind::Ended), (12, exited("Ship")), (13, Kind::IterationSucceeded)]);
    assert_eq!(judge(&history(first_done), "Ship"), ALL);

    let ours_done =
        and(whole.clone(), vec![(11, Kind::Ended), (12, exited("Ship")), (13, Kind::IterationSucceeded)]);
    assert_eq!(judge(&history(ours_done), "Ship"), (true, false, false), "the other iteration goes on");

    // What follows passes the iteration's failure by.
    let failed = and(
        whole.clone(),
        vec![(9, Kind::Ended), (12, Kind::IterationFailed), (12, Kind::Failed(Holds::Map))],
    );
    assert_eq!(judge(&history(failed.clone()), "Ship"), NOTHING);
    let caught = and(failed, vec![(12, exited("Each")), (15, entered("Ship")), (16, scheduled(TOKEN))]);
    assert_eq!(judge(&history(caught), "Ship"), (true, false, true));

    let aborted = and(whole, vec![(11, Kind::IterationFailed)]);
    assert_eq!(judge(&history(aborted), "Ship"), (true, false, false));
}

#[test]
fn a_map_in_a_branch_fails_its_neighbours_with_the_whole() {
    let whole = vec![
        (0, Kind::Other),
        (0, holding("Both", Holds::Parallel)),
        (2, Kind::Started(Holds::Parallel)),
        (3, holding("Each", Holds::Map)),
        (3, entered("Ship")),
        (4, Kind::Started(Holds::Map)),
        (6, Kind::IterationStarted),
        (7, entered("Pack")),
        (8, plain()),
        (5, scheduled(TOKEN)),
        (10, submitted(OURS)),
        (9, Kind::Ended),
        (12, Kind::IterationFailed),
        (12, Kind::Failed(Holds::Map)),
    ];
    assert_eq!(judge(&history(whole.clone()), "Ship"), ALL, "the Map may yet be caught");
    let failed = and(whole, vec![(12, Kind::Failed(Holds::Parallel))]);
    assert_eq!(judge(&history(failed), "Ship"), NOTHING);
}

#[test]
fn the_newest_part_says_no_more_than_the_whole() {
    // Ship of the first page; what its fate hung from is on the next.
    let whole = history(and(parallel(), vec![(7, Kind::Ended), (10, Kind::Failed(Holds::Parallel))]));
    for cut in 0..whole.len() {
        assert_eq!(judge(&whole[cut..], "Ship"), NOTHING, "from {cut} on");
    }
    let whole = history(parallel());
    assert_eq!(judge(&whole[4..], "Ship"), ALL, "what came before its entry does not matter");
    assert_eq!(judge(&whole[5..], "Ship"), NOTHING, "which state that task is of is not known");
}

#[test]
fn json_is_matched_by_value() {
    let token = Credential::new(TOKEN.into());
    for (json, holds) in [
        (format!(r#""{TOKEN}""#), true),
        (format!(r#"{{"a":[1,2.5,null,true,{{"b":"{TOKEN}"}}]}}"#), true),
        (format!(r#"{{"a":"{}"}}"#, TOKEN.replace('=', "\\u003d")), true),
        (format!(r#"{{"{TOKEN}":"a"}}"#), false),
        (format!(r#"{{"a":"x{TOKEN}"}}"#), false),
        (format!(r#"{{"a":"{{\"b\":\"{TOKEN}\"}}"}}"#), false),
        (format!(r#"{{"a":"{TOKEN}""#), false),
        (format!(r#"{{"a":"{TOKEN}"}} x"#), false),
        (String::new(), false),
        (format!("{}\"{TOKEN}\"", "[".repeat(100_000)), false),
    ] {
        assert_eq!(Payload::new(json.clone()).holds(&token), holds, "{json:.80}");
    }
    for (json, started) in [
        (format!(r#"{{"Tasks":[{{"TaskArn":"x"}},{{"TaskArn":"{OURS}"}}]}}"#), true),
        (format!(r#"{{"Tasks":[{{"TaskArn":"{OURS}2"}}]}}"#), false),
        (format!(r#"{{"Tasks":[{{"TaskArn":"x","Containers":[{{"TaskArn":"{OURS}"}}]}}]}}"#), false),
        (format!(r#"{{"Payload":{{"Tasks":[{{"TaskArn":"{OURS}"}}]}}}}"#), false),
        (format!(r#"{{"Tasks":"{OURS}"}}"#), false),
        ("null".to_owned(), false),
    ] {
        assert_eq!(Payload::new(json.clone()).started(OURS), started, "{json}");
    }
    assert_eq!(format!("{:?}", scheduled(TOKEN)), "Scheduled { parameters: Some(Payload(…)) }");
}

fn any_holds() -> impl Strategy<Value = Holds> {
    prop_oneof![Just(Holds::Task), Just(Holds::Parallel), Just(Holds::Map)]
}

fn any_kind(states: &'static [&'static str]) -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => (proptest::sample::select(states), any_holds())
            .prop_map(|(name, holds)| Kind::Entered { name: name.to_owned(), holds }),
        4 => proptest::sample::select(states).prop_map(exited),
        1 => Just(Kind::StateAborted),
        2 => any_holds().prop_map(Kind::Started),
        1 => any_holds().prop_map(Kind::Succeeded),
        1 => any_holds().prop_map(Kind::Failed),
        2 => Just(Kind::IterationStarted),
        1 => Just(Kind::IterationSucceeded),
        1 => Just(Kind::IterationFailed),
        6 => Just(scheduled(TOKEN)),
        5 => Just(submitted(OURS)),
        2 => Just(Kind::Ended),
        1 => Just(Kind::ExecutionEnded),
        1 => Just(Kind::Redriven),
        1 => Just(Kind::Other),
    ]
}

/// Any list of events, each after any other, itself or none.
fn any_events(states: &'static [&'static str]) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec((any_kind(states), 0i64..6, -3i64..60), 0..40).prop_map(|events| {
        (1..)
            .zip(events)
            .map(|(id, (kind, back, wild))| {
                let previous = if back == 5 { wild } else { (id - back).max(0) };
                Event { id, previous, kind }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn events_of_other_states_are_no_evidence(events in any_events(&["Pack", "Both", "Each", "ship", "Ship "])) {
        prop_assert_eq!(judge(&events, "Ship"), NOTHING);
    }

    #[test]
    fn nothing_is_under_way_after_the_end(events in any_events(&["Ship", "Pack"])) {
        let mut events = events;
        let id = i64::try_from(events.len()).expect("few") + 1;
        events.push(Event { id, previous: 0, kind: Kind::ExecutionEnded });
        prop_assert_eq!(judge(&events, "Ship"), NOTHING);
    }

    #[test]
    fn order_does_not_matter(events in any_events(&["Ship", "Pack"])) {
        let mut newest_first = events.clone();
        newest_first.reverse();
        prop_assert_eq!(judge(&newest_first, "Ship"), judge(&events, "Ship"));
    }
}
