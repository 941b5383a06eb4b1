//! What may be handed in: anything, in any order.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

fn history(name: &str, pretty: bool) -> String {
    let text = |value: Value| value.to_string();
    let events = json!({ "events": [
        { "id": 1, "type": "ExecutionStarted", "timestamp": 1_767_225_600.5, "executionStartedEventDetails": { "input": "{\"secret\":\"canary-input\"}" } },
        { "id": 2, "type": "TaskStateEntered", "timestamp": at(900), "stateEnteredEventDetails": { "name": name, "input": "canary-input" } },
        { "id": 3, "type": "TaskScheduled", "timestamp": at(910), "taskScheduledEventDetails": { "resourceType": "states", "parameters": text(json!({ "Input": { "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": EXECUTION } })) } },
        { "id": 4, "type": "TaskSubmitted", "timestamp": at(920), "taskSubmittedEventDetails": { "resourceType": "states", "output": text(json!({ "ExecutionArn": NESTED })) } },
        { "id": 5, "type": "TaskFailed", "timestamp": at(930), "taskFailedEventDetails": { "error": "E", "cause": "canary-cause" } },
        { "id": 6, "type": "TaskStateExited", "timestamp": at(6_000), "stateExitedEventDetails": { "name": name, "output": "canary-output" } },
        { "id": 7, "type": "ExecutionSucceeded", "timestamp": at(6_001), "executionSucceededEventDetails": { "output": "canary-output" } },
    ] });
    if pretty { format!("{events:#}\n") } else { events.to_string() }
}

#[test]
fn histories_are_read_on_one_line_or_many() {
    let world = World::new();
    for pretty in [true, false] {
        let files = Files::of(&[
            ("b", &world.broker_log()),
            ("h", &history("Reserve", pretty)),
            ("v", &world.vault_log()),
        ]);
        let trace = files.trace(&execution(EXECUTION));
        assert_eq!(kinds(&trace), []);
        let [state] = &trace.states[..] else { panic!("{:?}", trace.states) };
        assert_eq!((&*state.execution_arn, &*state.name), (EXECUTION, "Reserve"));
        let entered = trace.timeline.iter().find(|item| item.event == "TaskStateEntered").unwrap();
        let text = std::fs::read_to_string(files.path().join("h")).unwrap();
        let line = text.lines().nth(entered.line.line as usize - 1).unwrap();
        assert!(!pretty || line.trim() == "{", "{} {line}", entered.line.line);
        let all = serde_json::to_string(&trace).unwrap() + &html::trace(&trace);
        assert!(!all.contains("canary"), "{all}");
        assert_eq!(files.trace(&execution(NESTED)).states, []);
    }
}

#[test]
fn what_is_no_line_is_named_and_passed_over() {
    let world = World::new();
    let long = format!("{{\"v\":1,\"time\":\"{}\"}}", "x".repeat(2 << 20));
    let broker = world.broker_log();
    let log =
        format!("\r\nplain text\n{{\"a\":1}}\n{long}\n{broker}{{\"v\":1,\"time\":\"2026\n{{\n \"b\": 1\n");
    let files = Files::of(&[("mixed", &log), ("vault", &world.vault_log())]);
    std::fs::write(files.path().join("binary"), b"\x00\x01\xff\n\xfe\n").unwrap();
    let trace = files.trace(&Selection::default());
    let name = |file: u32| trace.files[file as usize].name.rsplit('/').next().unwrap().to_owned();
    let skipped: Vec<_> =
        trace.skipped.iter().map(|one| (name(one.place.file), one.place.line, one.why.as_str())).collect();
    let lines = broker.lines().count() as u64;
    let (cut, document) = (lines + 5, lines + 6);
    for (file, line, word) in [
        ("binary", 1, "binary"),
        ("binary", 2, "binary"),
        ("mixed", 2, "no JSON object"),
        ("mixed", 3, "no line of a broker's log"),
        ("mixed", 4, "1 MiB"),
        ("mixed", cut, "cut off"),
        ("mixed", document, "no end"),
    ] {
        let found = skipped.iter().any(|(f, l, why)| f == file && *l == line && why.contains(word));
        assert!(found, "{file}:{line} {word}: {skipped:#?}");
    }
    assert_eq!(skipped.len(), 7, "{skipped:#?}");
    assert_eq!(trace.leases.len(), 2);
    assert_eq!(kinds(&trace), []);
}

#[test]
fn gzip_folders_and_standard_input_are_the_same() {
    let world = World::new();
    let plain = world.trace();
    let files = Files::of(&[]);
    std::fs::create_dir(files.path().join("below")).unwrap();
    let pack = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let log = world.vault_log();
    let (one, two) = log.split_at(log.find('\n').unwrap() + 1);
    // Two members, as a log is that gzip appends to.
    std::fs::write(files.path().join("below/vault"), [pack(one), pack(two)].concat()).unwrap();
    let broker = world.broker_log();
    let named = [PathBuf::from("-"), files.path().to_owned(), files.path().join("below/vault")];
    let mut stdin = broker.as_bytes();
    let all = Selection::default();
    let read = trace(&named, &mut stdin, &all, Rules::default(), At::default(), &mut |_| {}).unwrap();
    assert_eq!(read.files.len(), 2, "each once");
    assert_eq!(
        (read.runs, read.leases, read.timeline.len()),
        (plain.runs, plain.leases, plain.timeline.len())
    );
}

#[test]
fn an_input_that_is_not_there_is_named() {
    let missing = follow(&[PathBuf::from("/nowhere/at/all")], &Selection::default()).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
    let files = Files::of(&[]);
    let empty = follow(&[files.path().to_owned()], &Selection::default()).unwrap_err();
    assert!(empty.to_string().contains("no file"), "{empty}");
    // A log of Vault's that ends early would make anchors seem to be missing: there it is an error.
    std::fs::write(files.path().join("torn.gz"), [0x1f, 0x8b, 8, 0, 1]).unwrap();
    let torn = anchors(&[files.path().to_owned()], &mut std::io::empty()).unwrap_err();
    assert!(torn.to_string().contains("torn.gz"), "{torn}");
}

/// Where something was passed over, and why: the end of the file's name, and the line.
fn passed_over(trace: &Trace) -> Vec<(String, u64, String)> {
    let name = |file: u32| trace.files[file as usize].name.rsplit('/').next().unwrap().to_owned();
    trace.skipped.iter().map(|one| (name(one.place.file), one.place.line, one.why.clone())).collect()
}

#[test]
fn damaged_files_are_read_as_far_as_they_go_and_told_of() {
    let world = World::new();
    let plain = world.trace();
    let (broker, vault) = (world.broker_log(), world.vault_log());
    let pack = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let stamp = "{\"v\":1,\"time\":\"2026-01-01T00:00:00.000Z\",\"boot\":\"";
    let of_vault = "{\"type\":\"response\",\"time\":\"2026-01-01T00:00:30Z\",\"request\":{\"path\":\"";
    type Case = (&'static str, Vec<u8>, &'static [(u64, &'static str)]);
    let cases: [Case; 10] = [
        ("cut.gz", pack(&vault)[..40].to_vec(), &[(1, "cut off")]),
        (
            "damaged.gz",
            [pack("noise\n"), b"\x1f\x8b\x08\0garbage".to_vec()].concat(),
            &[(1, "no JSON"), (2, "gzip")],
        ),
        ("binary", b"\x00\x01\xff\n\xfe\xfd\n".to_vec(), &[(1, "binary"), (2, "binary")]),
        (
            "long",
            text(&format!("x\n{{\"a\":\"{}\"}}\n", "y".repeat(10 << 20))),
            &[(1, "no JSON"), (2, "1 MiB")],
        ),
        ("utf8", [of_vault.as_bytes(), b"\xff\"}}\n"].concat(), &[(1, "cannot be read as one")]),
        (
            "utf8-too",
            [stamp.as_bytes(), b"\xff\",\"event\":\"read\"}\n"].concat(),
            &[(1, "no line of a broker's")],
        ),
        ("bom", text(&format!("\u{feff}{}\n", vault.lines().next().unwrap())), &[(1, "no JSON object")]),
        ("nul", text(&format!("{stamp}\0\0\"}}\n\0\0\0\n")), &[(1, "no line of a broker's"), (2, "binary")]),
        ("crlf", text("\r\n{}\r\nwords\r\n"), &[(2, "no line of a broker's"), (3, "no JSON")]),
        ("torn", text(stamp), &[(1, "ends in it")]),
    ];
    for (name, bytes, expected) in cases {
        let files = Files::of(&[("vault.log", &vault)]);
        std::fs::write(files.path().join(name), bytes).unwrap();
        std::fs::write(files.path().join("broker.jsonl"), &broker).unwrap();
        let trace = files.trace(&Selection::default());
        let told = passed_over(&trace);
        assert_eq!(told.len(), expected.len(), "{name}: {told:?}");
        for ((file, line, why), (at, words)) in told.iter().zip(expected) {
            assert!(file == name && line == at && why.contains(words), "{name}: {told:?}");
        }
        assert_eq!(trace.runs, plain.runs, "{name}: the others are read as ever");
        let files = [files.path().to_owned()];
        let all = Selection::default();
        let report =
            report(&files, &mut std::io::empty(), &all, Rules::default(), At::default(), &mut |_| {});
        // Of lines that are of no run a report needs the first members alone.
        assert!(report.unwrap().skipped == trace.skipped || name == "utf8-too" || name == "nul", "{name}");
    }
}

/// Lines that end as Windows ends them are lines all the same.
#[test]
fn lines_may_end_in_a_carriage_return() {
    let world = World::new();
    let with = |log: String| log.replace('\n', "\r\n");
    let files = Files::of(&[("b", &with(world.broker_log())), ("v", &with(world.vault_log()))]);
    let trace = files.trace(&Selection::default());
    assert_eq!((trace.skipped.len(), kinds(&trace)), (0, vec![]));
    assert_eq!(trace.runs, world.trace().runs);
}

#[test]
fn what_is_in_a_folder_and_no_file_is_told_of() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let files = Files::of(&[("b", &world.broker_log()), ("v", &world.vault_log()), ("unreadable", "")]);
    let _socket = std::os::unix::net::UnixListener::bind(files.path().join("socket")).unwrap();
    let locked = files.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    for path in [files.path().join("unreadable"), locked.clone()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    let trace = files.trace(&Selection::default());
    let mut expected = vec![("socket", 1, "it is no file")];
    // Who may read everything can read these, too.
    if std::fs::File::open(files.path().join("unreadable")).is_err() {
        expected.splice(0..0, [("locked", 1, "cannot be opened")]);
        expected.push(("unreadable", 1, "cannot be opened"));
    }
    let told = passed_over(&trace);
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((file, line, why), (of, at, words)) in told.iter().zip(expected) {
        assert!(file == of && *line == at && why.contains(words), "{told:?}");
    }
    assert_eq!(trace.runs, world.trace().runs);
    std::fs::set_permissions(locked, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_others_chose_steers_neither_page_nor_terminal() {
    let hostile = "</title><script>alert(1)</script>\"'&\u{1b}[31m\u{202e}\u{2028}--></svg>";
    let mut world = World::new();
    let mut run = run("run-06", EXECUTION, hostile);
    run["subject"] = json!({ "id": hostile, "kind": "person", "assurance": "verified", "issuer": hostile });
    run["tags"] = json!({ hostile: hostile });
    world.work(30_000, &run, 30, hostile);
    world.ask(31_000, &run, None, hostile, Some(hostile));
    let trace = world.trace();
    let files = Files::of(&[("b", &world.broker_log()), ("v", &world.vault_log())]);
    let named = [files.path().to_owned()];
    let all = Selection::default();
    let report =
        report(&named, &mut std::io::empty(), &all, Rules::default(), At::default(), &mut |_| {}).unwrap();
    for page in [html::trace(&trace), html::report(&report)] {
        let lower = page.to_lowercase();
        for forbidden in [
            "<script",
            "javascript:",
            "onload",
            "http://",
            "https://",
            "<link",
            "<img",
            "url(",
            "\u{1b}",
            "\u{202e}",
        ] {
            assert!(!lower.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("&lt;script&gt;"), "it is shown");
        assert_eq!(page.matches("</svg>").count(), page.matches("<svg").count());
        assert_eq!(page.matches("<title").count(), page.matches("</title>").count());
    }
}

/// Without where lines stand.
fn told(mut trace: Trace) -> Trace {
    trace.files.clear();
    for item in &mut trace.timeline {
        item.line = output::Place { file: 0, line: 0 };
        item.vault_lines.fill(item.line);
        item.findings.clear();
    }
    for finding in &mut trace.findings {
        finding.lines.clear();
    }
    trace.findings.retain(|finding| finding.kind != FindingKind::ChainContinues);
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A broker's log stays in order, as its chain must be; all else may stand anywhere.
    #[test]
    fn the_order_of_files_and_lines_does_not_matter(
        places in prop::collection::vec((0..4usize, any::<u32>()), 64),
        chosen in 0..4,
    ) {
        let mut world = World::new();
        world.login(2_000, None, "login-2");
        world.ask_by_login(2_010, "login-2", None, "auth/token/create/run", Some(json!({ "accessor": "made-2" })));
        world.ask(2_020, &run("run-01", EXECUTION, "Reserve"), None, "secret/data/x", None);
        let mut third = run("run-03", &NESTED.replace("charge", "notify"), "Notify");
        third["parents"] = json!([NESTED]);
        world.work(25_000, &third, 40, "notify");
        let selection = match chosen {
            0 => Selection::default(),
            1 => execution(EXECUTION),
            2 => Selection { run: Some("run-01".into()), ..Selection::default() },
            _ => Selection { path: Some("database/creds/*".into()), ..Selection::default() },
        };
        let history = history("Reserve", true);
        let plain = Files::of(&[("a", &world.broker_log()), ("b", &world.vault_log()), ("h", &history)]);
        let mut lines: Vec<_> = world.vault_lines().into_iter().zip(places).collect();
        lines.sort_by_key(|(_, (_, order))| *order);
        let mut texts = vec![String::new(); 4];
        for (line, (file, _)) in lines {
            texts[file] += &(line + "\n");
        }
        texts[3].insert_str(0, &history);
        texts[1] += &world.broker_log();
        let shuffled = Files::of(&[("z", &texts[0]), ("y", &texts[1]), ("x", &texts[2]), ("w", &texts[3])]);
        prop_assert_eq!(told(plain.trace(&selection)), told(shuffled.trace(&selection)));
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), from in 0..2000usize) {
        let mut log = World::new().broker_log().into_bytes();
        let from = from.min(log.len());
        log.splice(from..from, bytes.iter().copied());
        log.extend_from_slice(World::new().vault_log().as_bytes());
        let files = Files::of(&[]);
        std::fs::write(files.path().join("log"), &log).unwrap();
        let trace = files.trace(&Selection::default());
        let _ = html::trace(&trace);
    }
}
