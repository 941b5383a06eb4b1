//! Histories that are asked for rather than given.

use super::*;

/// What happened in an execution, as Step Functions tells it.
fn past(state: &str, started: Option<&str>) -> Vec<HistoryEvent> {
    let event = |id, millis, kind: &str, started: Option<&str>| HistoryEvent {
        line: 0,
        id,
        at: At::parse(&at(millis)).unwrap(),
        kind: kind.to_owned(),
        state: kind.contains("State").then(|| state.to_owned()),
        started: started.map(str::to_owned),
        error: None,
    };
    vec![
        event(1, 900, "TaskStateEntered", None),
        event(2, 910, "TaskSubmitted", started),
        event(3, 6_000, "TaskStateExited", None),
    ]
}

/// The same as a file.
fn document(arn: &str, events: &[HistoryEvent]) -> String {
    let event = |event: &HistoryEvent| {
        let mut said = json!({ "id": event.id, "type": event.kind, "timestamp": event.at.to_string() });
        said["stateEnteredEventDetails"] = json!({ "name": event.state });
        if let Some(arn) = &event.started {
            let output = json!({ "ExecutionArn": arn }).to_string();
            said["stateEnteredEventDetails"] = json!({ "resourceType": "states", "output": output });
        }
        said
    };
    let events: Vec<_> = events.iter().map(event).collect();
    format!("{:#}\n", json!({ "events": events, "executionArn": arn }))
}

fn fetched(
    files: &Files,
    selection: &Selection,
    fetch: &mut Fetch<'_>,
) -> (Result<Trace, TraceError>, Vec<String>) {
    let mut asked = Vec::new();
    let trace = {
        let mut ask = |arn: &str| {
            asked.push(arn.to_owned());
            fetch(arn)
        };
        let named = [files.path().to_owned()];
        let mut none = std::io::empty();
        let mut told = |_| {};
        let rules = Rules::default();
        trace_and_fetch(&named, &mut none, selection, rules, At::default(), &mut told, Some(&mut ask))
    };
    (trace, asked)
}

/// What a trace shows, without where it stands.
fn shown(trace: &Trace) -> Value {
    let mut shown = json!({ "runs": trace.runs, "states": trace.states, "timeline": trace.timeline });
    for item in shown["timeline"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().retain(|name, _| name != "line" && name != "vault_lines");
    }
    shown
}

#[test]
fn what_is_fetched_is_as_what_is_given() {
    // The nested execution's run does not say what started it: the history alone does.
    let mut world = World::new();
    for (_, line) in &mut world.broker {
        if let Some(run) = line["run"].as_object_mut() {
            run.remove("parents");
        }
    }
    for (_, line) in &mut world.vault {
        line["auth"]["metadata"].as_object_mut().unwrap().remove("parent_execution_arn");
        if let Some(made) = line["response"]["auth"]["metadata"].as_object_mut() {
            made.remove("parent_execution_arn");
        }
    }
    let (outer, inner) = (past("Reserve", Some(NESTED)), past("Charge", None));
    let logs = [("b", world.broker_log()), ("v", world.vault_log())];
    let of = |more: &[(&str, String)]| {
        let all: Vec<_> = logs.iter().chain(more).map(|(name, text)| (*name, &**text)).collect();
        Files::of(&all)
    };
    let given = of(&[("x", document(EXECUTION, &outer)), ("y", document(NESTED, &inner))]);
    let mut step_functions = |arn: &str| match arn {
        EXECUTION => Ok(outer.clone()),
        NESTED => Ok(inner.clone()),
        other => panic!("{other} was asked for"),
    };
    let by_run = |run: &str| Selection { run: Some(run.to_owned()), ..Selection::default() };
    for (selection, expected) in [
        (execution(EXECUTION), &[EXECUTION, NESTED][..]),
        (execution(NESTED), &[NESTED]),
        (by_run("run-02"), &[NESTED]),
        (Selection::default(), &[NESTED, EXECUTION]),
    ] {
        let (trace, asked) = fetched(&of(&[]), &selection, &mut step_functions);
        let trace = trace.unwrap();
        assert_eq!(asked, expected, "{selection:?}");
        assert_eq!(shown(&trace), shown(&given.trace(&selection)), "{selection:?}");
        assert_eq!(kinds(&trace), []);
        let entered = trace.timeline.iter().find(|item| item.event == "TaskStateEntered").unwrap();
        let file = &trace.files[entered.line.file as usize];
        assert!(file.name.starts_with("(fetched) arn:") && entered.line.line == 1, "{file:?}");
        // Of what is given nothing is asked.
        let (again, asked) = fetched(&given, &selection, &mut step_functions);
        assert_eq!((shown(&again.unwrap()), asked), (shown(&trace), Vec::new()));
    }
}

#[test]
fn what_cannot_be_had_is_said_of_each() {
    let world = World::new();
    let files = Files::of(&[("b", &world.broker_log()), ("v", &world.vault_log())]);
    let (trace, asked) = fetched(&files, &execution(EXECUTION), &mut |arn| match arn {
        EXECUTION => Err(Unfetched::Refused("allow it".to_owned())),
        _ => Err(Unfetched::None("it is gone".to_owned())),
    });
    let trace = trace.unwrap();
    // The nested one is known by the run's own word.
    assert_eq!((asked.len(), trace.runs.len()), (2, 2));
    let (warning, notice) = (Severity::Warning, Severity::Notice);
    assert_eq!(kinds(&trace), [(warning, FindingKind::Coverage), (notice, FindingKind::Coverage)]);
    let said = format!("the history of {EXECUTION} was not fetched: allow it");
    assert_eq!(trace.findings[0].message, said);

    let (failed, asked) =
        fetched(&files, &execution(EXECUTION), &mut |_| Err(Unfetched::Failed("no credentials".to_owned())));
    assert!(matches!(failed, Err(TraceError::NotFetched(why)) if why == "no credentials"));
    assert_eq!(asked.len(), 1);
}

#[test]
fn no_more_are_fetched_than_is_said() {
    let mut world = World::new();
    for number in 0..=MOST_HISTORIES as u64 {
        let arn = EXECUTION.replace("0f1e", &format!("{number:04}"));
        let members =
            json!({ "run": run(&format!("run-x{number}"), &arn, "Reserve"), "policy": "run.rule[0]" });
        world.say(30_000, "run.register", "denied", members);
    }
    let files = Files::of(&[("b", &world.broker_log())]);
    let (trace, asked) = fetched(&files, &Selection::default(), &mut |_| Ok(past("Reserve", None)));
    assert_eq!(asked.len(), MOST_HISTORIES);
    // Those two of the world itself, and one.
    let trace = trace.unwrap();
    let left = trace.findings.iter().find(|finding| finding.message.contains("more executions")).unwrap();
    assert!(left.message.contains("of 3 more") && left.severity == Severity::Warning, "{left:?}");
}
