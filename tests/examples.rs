//! What is shown to people works: the configurations in `examples/` and the README, the documents in `deploy/`.

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

#[test]
fn the_readmes_configuration_is_good() {
    let readme = project("README.md");
    let toml =
        readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML block");
    let loaded = check("README.md", Some(toml), &[]);
    assert_eq!(loaded.config.prefetch.len(), 1);
}

#[test]
fn the_task_definition_gives_the_broker_a_good_environment() {
    let definition: serde_json::Value =
        serde_json::from_str(&project("deploy/ecs/task-definition.json")).expect("JSON");
    let containers = definition["containerDefinitions"].as_array().expect("containers");
    let broker = containers.iter().find(|container| container["name"] == "tenure").expect("the broker");
    let overrides: serde_json::Value =
        serde_json::from_str(&project("deploy/ecs/state.asl.json")).expect("JSON");
    let overrides =
        &overrides["States"]["Charge"]["Parameters"]["Overrides"]["ContainerOverrides"][0]["Environment"];
    let mut variables = Vec::new();
    for variable in broker["environment"].as_array().expect("variables") {
        variables
            .push((variable["name"].as_str().expect("name"), variable["value"].as_str().expect("value")));
    }
    for variable in overrides.as_array().expect("variables") {
        let name = variable["Name"].as_str().expect("name");
        // What Step Functions fills in.
        variables.push((
            name,
            variable["Value"].as_str().unwrap_or("arn:aws:states:eu-west-1:123456789012:execution:orders:1"),
        ));
    }
    let loaded = check("deploy/ecs", None, &variables);
    assert!(loaded.run.deadline.is_some() && loaded.run.facts.execution.is_some());
    let stop = broker["stopTimeout"].as_u64().expect("seconds");
    assert!(loaded.config.shutdown.grace.as_secs() < stop, "the grace must end before ECS kills");
}

fn definition(name: &str) -> serde_json::Value {
    serde_json::from_str(&project(&format!("examples/stepfunctions/{name}"))).expect("JSON")
}

#[test]
fn the_tutorials_configuration_is_good() {
    let name = "examples/stepfunctions/tenure.toml";
    check(name, Some(&project(name)), &[]);
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
