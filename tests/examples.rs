//! What is shown to people works: the configurations in `examples/` and the README, the documents in `deploy/`.

mod schema;

use std::path::Path;

use tenure::clock::Clock;
use tenure::config::{self, Environment, Overrides};

fn project(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(name: &str, text: Option<&str>, variables: &[(&str, &str)]) -> config::Loaded {
    let environment: Environment = variables.iter().copied().collect();
    let file = text.map(|text| (Path::new(name), text));
    config::parse(file, &environment, &Overrides::default(), Clock::system().now())
        .unwrap_or_else(|problems| panic!("{name}:\n{problems}"))
}

#[test]
fn the_example_configuration_is_good_and_shows_the_defaults() {
    let shown = check("examples/tenure.toml", Some(&project("examples/tenure.toml")), &[]);
    let bare = check(
        "nothing",
        None,
        &[
            ("VAULT_ADDR", "https://vault.internal:8200"),
            ("TENURE_AUTH_ROLE", "orders"),
            ("TENURE_SOCKET", "/run/tenure/tenure.sock"),
            ("TENURE_AUDIT_FILE", "/var/log/tenure/audit.jsonl"),
        ],
    );
    assert_eq!(shown.config.cache, bare.config.cache);
    assert_eq!(shown.config.shutdown, bare.config.shutdown);
    assert_eq!(shown.config.run.ttl, bare.config.run.ttl);
    assert_eq!(shown.config.run.journal, bare.config.run.journal);
    assert_eq!(shown.config.vault.request_timeout, bare.config.vault.request_timeout);
}

/// The example, with what stands in comments.
fn with_every_key() -> String {
    let mut text = String::new();
    for line in project("examples/tenure.toml").lines() {
        let said = line.strip_prefix("# ").filter(|said| {
            let first = said.split([' ', '.']).next().unwrap_or_default();
            said.starts_with('[')
                || (first.chars().all(|c| c.is_ascii_lowercase() || c == '_') && said.contains(" = "))
        });
        text.push_str(said.unwrap_or(line));
        text.push('\n');
    }
    text
}

/// What stands in a comment is good as well, and there is no key that the file does not show.
#[test]
fn the_example_configuration_shows_every_key() {
    let text = with_every_key();
    let loaded = check("examples/tenure.toml", Some(&text), &[]);
    assert!(loaded.config.run.rules.len() > 2 && loaded.config.subject.seal.is_some());
    let mut missing = Vec::new();
    shown(&config::schema(), &text, &mut missing);
    // The ones of several that the file did not choose.
    missing.sort_unstable();
    assert_eq!(missing, ["role_id_file", "stdout", "syslog"], "examples/tenure.toml does not show");
}

fn shown(schema: &serde_json::Value, text: &str, missing: &mut Vec<String>) {
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let is_word = |part: &&str| *part == name;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let found = lines
            .flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
            .any(|word| is_word(&word));
        if !found {
            missing.push(name.clone());
        }
        shown(of, text, missing);
        shown(&of["items"], text, missing);
    }
}

/// The blocks of `language` in a document.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    document.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_documents_configurations_are_good() {
    let readme = project("README.md");
    let [smallest] = blocks(&readme, "toml")[..] else { panic!("the README has one configuration") };
    let loaded = check("README.md", Some(smallest), &[]);
    assert_eq!(loaded.config.prefetch.len(), 1);
    let runs = project("docs/runs.md");
    let rules = blocks(&runs, "toml");
    assert!(!rules.is_empty());
    // What other pages show is for the same file.
    for more in rules {
        check("docs/runs.md", Some(&format!("{smallest}\n{more}")), &[]);
    }
}

#[test]
fn the_task_definition_gives_the_broker_a_good_environment() {
    let definition: serde_json::Value =
        serde_json::from_str(&project("deploy/ecs/task-definition.json")).expect("JSON");
    let containers = definition["containerDefinitions"].as_array().expect("containers");
    let broker = containers.iter().find(|container| container["name"] == "tenure").expect("the broker");
    let machine: serde_json::Value =
        serde_json::from_str(&project("deploy/ecs/state.asl.json")).expect("JSON");
    let stop = broker["stopTimeout"].as_u64().expect("seconds");
    for (name, state) in machine["States"].as_object().expect("states") {
        let mut variables = Vec::new();
        for variable in broker["environment"].as_array().expect("variables") {
            variables
                .push((variable["name"].as_str().expect("name"), variable["value"].as_str().expect("value")));
        }
        let of_broker = &state["Parameters"]["Overrides"]["ContainerOverrides"][0];
        assert_eq!(of_broker["Name"], "tenure");
        for variable in of_broker["Environment"].as_array().expect("variables") {
            let value = variable["Value"].as_str().unwrap_or_else(|| filled_in(&variable["Value.$"], name));
            variables.push((variable["Name"].as_str().expect("name"), value));
        }
        let loaded = check("deploy/ecs", None, &variables);
        let tenure::config::RunEnv { deadline, facts, task_token, subject_file, .. } = loaded.run;
        let timeout = state["TimeoutSeconds"].as_u64().expect("seconds");
        assert_eq!(deadline.map(|deadline| deadline.len().as_secs_f64().ceil() as u64), Some(timeout));
        assert!(facts.execution.is_some() && facts.parent.is_none() && facts.attempt == Some(0));
        assert_eq!(facts.state.as_deref(), Some(name.as_str()));
        assert!(facts.tags.contains_key("git_commit") && subject_file.is_some());
        let waits = state["Resource"].as_str().expect("a resource").ends_with(".waitForTaskToken");
        assert_eq!(task_token.is_some(), waits, "{name}: a state that waits for a token has one");
        assert!(loaded.config.shutdown.grace.as_secs() < stop, "the grace must end before ECS kills");
        assert_eq!(loaded.config.shutdown.stop_timeout.map(|stop| stop.as_secs()), Some(stop), "said twice");
    }
    assert_eq!((&broker["user"], &broker["readonlyRootFilesystem"]), (&"65532:65532".into(), &true.into()));
    assert_eq!(
        broker["healthCheck"]["command"],
        serde_json::json!(["CMD", "/usr/local/bin/tenure", "ready"])
    );
    let workload = containers.iter().find(|container| container["name"] == "orders").expect("the workload");
    let after = serde_json::json!([{ "containerName": "tenure", "condition": "HEALTHY" }]);
    assert_eq!(workload["dependsOn"], after);
    // What is written to is mounted, and the image has it as its own user's.
    let image = project("deploy/container/Dockerfile");
    for folder in ["/run/tenure", "/var/log/tenure"] {
        let mounts = broker["mountPoints"].as_array().expect("mounts");
        assert!(mounts.iter().any(|mount| mount["containerPath"] == folder), "{folder} is not mounted");
        assert!(image.contains(&format!("--chown=65532:65532 /empty {folder}\n")), "{folder} is root's");
    }
}

/// What Step Functions puts in the place of a path, in a first attempt at a state of an execution that nothing started.
fn filled_in<'a>(path: &serde_json::Value, state: &'a str) -> &'a str {
    match path.as_str().expect("a path") {
        "$$.Execution.Id" => "arn:aws:states:eu-west-1:123456789012:execution:orders:1",
        "$$.State.Name" => state,
        // A clock that is ahead does not count.
        "$$.State.EnteredTime" => "2999-01-01T00:00:00.000Z",
        // A variable is text, and the count a number.
        "States.Format('{}', $$.State.RetryCount)" => "0",
        "$$.Task.Token" => "AQCEAAAAKgAAAAMAAAAA",
        "$.parent_execution_arn" | "$.root_execution_arn" => "",
        other => panic!("nothing is known of {other}"),
    }
}

fn definition(name: &str) -> serde_json::Value {
    serde_json::from_str(&project(&format!("examples/stepfunctions/{name}"))).expect("JSON")
}

#[test]
fn the_tutorials_configuration_is_good() {
    let name = "examples/stepfunctions/tenure.toml";
    let loaded = check(name, Some(&project(name)), &[]);
    let states = [definition("orders.asl.json"), definition("charge.asl.json")];
    for (rule, (state, machine)) in
        loaded.config.run.rules.iter().zip(["Reserve", "Charge"].iter().zip(&states))
    {
        assert_eq!(rule.matches.state.as_ref().map(ToString::to_string).as_deref(), Some(*state));
        let timeout = machine["States"][state]["TimeoutSeconds"].as_u64();
        assert_eq!(Some(rule.max_ttl.as_secs()), timeout, "a rule lets a run be as long as its state");
    }
    assert_eq!(loaded.config.run.rules.len(), states.len());
}

#[test]
fn the_tutorials_tasks_say_which_run_they_are_and_until_when() {
    let (orders, charge) = (definition("orders.asl.json"), definition("charge.asl.json"));
    let tasks = [&orders["States"]["Reserve"], &charge["States"]["Charge"]];
    for task in tasks {
        let run = &task["Parameters"]["run"];
        assert_eq!(run["execution_arn.$"], "$$.Execution.Id");
        assert_eq!(run["state.$"], "$$.State.Name");
        assert_eq!(run["attempt.$"], "$$.State.RetryCount");
        assert_eq!(run["timeout_seconds"], task["TimeoutSeconds"], "a credential ends with its task");
        assert!(task["HeartbeatSeconds"].as_u64() < task["TimeoutSeconds"].as_u64());
        assert!(task["Retry"][0]["ErrorEquals"].to_string().contains("Tenure.Unavailable"));
    }
    assert_eq!(
        orders["States"]["Payment"]["Parameters"]["Input"]["parent_execution_arn.$"],
        "$$.Execution.Id"
    );
    assert_eq!(tasks[1]["Parameters"]["run"]["parent_execution_arn.$"], "$.parent_execution_arn");
}

#[test]
fn the_tutorials_worker_is_tested_with_what_it_requires() {
    let stack = project("tests/stack/requirements.txt");
    for pin in project("examples/stepfunctions/requirements.txt").lines() {
        let pin = pin.replace("psycopg[binary]", "psycopg-binary");
        assert!(
            stack.lines().any(|line| line == pin),
            "the stack has no {pin}: see tests/stack/requirements.in"
        );
    }
}

fn faults_of(toml: &str) -> Vec<String> {
    schema::faults(&toml::from_str(toml).expect("TOML"), &config::schema())
}

/// What an editor that has the schema says of them is what the broker says: nothing.
#[test]
fn the_configurations_that_are_shown_are_of_the_schema() {
    for text in
        [project("examples/tenure.toml"), with_every_key(), project("examples/stepfunctions/tenure.toml")]
    {
        assert_eq!(faults_of(&text), [""; 0], "{text}");
    }
    for (wrong, said) in [
        ("[vault]\naddres = \"a\"", ".vault.addres is not known"),
        ("[cache]\nkv_fresh = \"soon\"", "pattern"),
        ("[cache]\nmax_leases = 0", "minimum"),
        ("[run]\nverification = \"maybe\"", "oneOf"),
        ("[[prefetch]]\npath = 5", ".prefetch[0].path: 5 is not of type"),
    ] {
        let found = faults_of(wrong);
        assert!(found.len() == 1 && found[0].contains(said), "{wrong}: {found:?}");
    }
}

/// What stands beside the code of a function, with what the templates put into its environment.
#[test]
fn the_function_in_deploy_is_configured_and_reads_by_what_it_asks_for() {
    let variables = [
        ("VAULT_ADDR", "https://vault.internal:8200"),
        ("TENURE_AUTH_ROLE", "orders"),
        ("TENURE_TOKEN_ROLE", "run"),
        ("TENURE_LAMBDA_METRICS", "on"),
    ];
    let flags = Overrides { lambda: true, ..Overrides::default() };
    let loaded = |text: &str| {
        let file = Some((Path::new("tenure.toml"), text));
        config::parse(file, &variables.into_iter().collect(), &flags, Clock::system().now())
            .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    };
    let config = loaded(&project("deploy/lambda/function/tenure.toml")).config;
    assert_eq!(config.lambda.metrics.as_deref(), Some("Tenure"));
    let door = config.listen.secrets_manager.expect("the door of AWS's extension");
    let program = project("deploy/lambda/function/app.py");
    assert!(door.secrets.iter().any(|secret| program.contains(&format!("secret({:?})", secret.id))));
    for template in ["deploy/lambda/template.yaml", "deploy/lambda/terraform/main.tf"] {
        let template = project(template);
        assert!(variables.iter().all(|(name, _)| template.contains(name)));
    }
    let page = project("deploy/lambda/README.md");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    assert!(loaded(block).config.listen.secrets_manager.is_some());
}

/// The reader that each suite's audit lines go through finds what is not of the schema.
#[test]
fn a_line_of_another_form_is_found() {
    let zeros = "0".repeat(64);
    let line = format!(
        r#"{{"v":1,"time":"t","boot":"b","event":"read","outcome":"granted","seq":1,"prev":"{zeros}","hash":"{zeros}"}}"#
    );
    assert_eq!(schema::faults_of_lines(&line), [""; 0]);
    for (from, to, said) in [
        (r#""v":1"#, r#""v":2"#, ".v: 2 is not of maximum"),
        (r#""event":"read""#, r#""event":"reed""#, ".event: \"reed\" is not of oneOf"),
        (r#""boot":"b","#, "", ".boot is missing"),
        (r#""seq":1"#, r#""seq":"1""#, ".seq: \"1\" is not of type"),
        (r#""hash":"0"#, r#""hash":"x"#, "is not of pattern"),
        (r#","seq""#, r#","more":1,"seq""#, ".more is not known"),
        (r#","seq""#, r#","caller":{"uid":7},"seq""#, ".caller: {\"uid\":7} is not of anyOf"),
    ] {
        let found = schema::faults_of_lines(&line.replacen(from, to, 1));
        assert!(found.len() == 1 && found[0].contains(said), "{to}: {found:?}");
    }
}
