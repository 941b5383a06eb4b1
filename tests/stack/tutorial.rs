//! The workflow of `examples/stepfunctions`: what its states ask of a worker, and what becomes of them.

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::broker::SOON;
use crate::harness::{Flavor, text, wait_for, wait_until};
use crate::http::Place;
use crate::workflow::{HOLDING, TUTORIAL, Worker, Workflow};

#[test]
fn a_task_is_told_its_run_and_a_retry_is_another() {
    let workflow = Workflow::edited(Flavor::Vault.shared(), |orders, _| {
        orders["States"]["Reserve"]["Retry"][0]["IntervalSeconds"] = json!(1);
    });
    let execution = workflow.start(1);
    let (first, input) = workflow.poll(&workflow.reserve);
    assert_eq!(input["order"], json!({ "id": 1 }));
    let mut run = input["run"].clone();
    let entered = run["tags"]["entered"].take();
    assert!(text(&entered).ends_with('Z'), "{entered}");
    assert_eq!(
        run,
        json!({ "execution_arn": execution.arn, "state": "Reserve", "attempt": 0, "timeout_seconds": 120,
                "tags": { "entered": null } })
    );
    workflow.fail(&first, "Tenure.Unavailable");
    let (second, input) = workflow.poll(&workflow.reserve);
    assert_eq!(input["run"]["attempt"], 1);
    assert_eq!(workflow.heartbeat(&first).as_deref(), Some("TaskTimedOut"));
    assert_eq!(workflow.heartbeat(&second), None);
    workflow.succeed(&second, &json!({ "item": "first order" }));

    let (token, input) = workflow.poll(&workflow.charge);
    let nested = execution.nested();
    assert_eq!(nested.len(), 1);
    assert_eq!(input["run"]["execution_arn"], nested[0].arn.as_str());
    assert_eq!(input["run"]["parent_execution_arn"], execution.arn.as_str());
    workflow.succeed(&token, &json!({ "charged": "first order" }));
    let output = execution.output();
    assert_eq!(output["payment"]["charged"], "first order");
    assert_eq!(output["payment"]["execution_arn"], nested[0].arn.as_str());
}

#[test]
fn what_is_denied_is_not_tried_again() {
    let workflow = Workflow::new(Flavor::Vault.shared());
    let here = workflow.start(1);
    let (token, _) = workflow.poll(&workflow.reserve);
    workflow.fail(&token, "Tenure.Denied");
    assert_eq!(here.wait("FAILED")["error"], "Orders.Denied");

    let nested = workflow.start(1);
    let (token, _) = workflow.poll(&workflow.reserve);
    workflow.succeed(&token, &json!({}));
    let (token, _) = workflow.poll(&workflow.charge);
    workflow.fail(&token, "Tenure.Denied");
    assert_eq!(nested.wait("FAILED")["error"], "Orders.Denied");
    assert_eq!(nested.nested()[0].wait("FAILED")["error"], "Tenure.Denied");
}

#[test]
fn a_worker_that_is_silent_is_too_late() {
    let workflow = Workflow::edited(Flavor::Vault.shared(), |orders, _| {
        orders["States"]["Reserve"]["HeartbeatSeconds"] = json!(1);
    });
    let execution = workflow.start(1);
    let (token, _) = workflow.poll(&workflow.reserve);
    assert_eq!(execution.wait("FAILED")["error"], "Orders.TooLate");
    assert_eq!(workflow.heartbeat(&token).as_deref(), Some("TaskTimedOut"));
}

#[test]
fn stopping_an_order_closes_the_task_of_its_payment() {
    let workflow = Workflow::new(Flavor::Vault.shared());
    let execution = workflow.start(1);
    let (token, _) = workflow.poll(&workflow.reserve);
    workflow.succeed(&token, &json!({}));
    let (token, _) = workflow.poll(&workflow.charge);
    execution.stop();
    assert_eq!(workflow.heartbeat(&token).as_deref(), Some("TaskTimedOut"));
    execution.wait("ABORTED");
    execution.nested()[0].wait("ABORTED");
    assert_eq!(execution.events().last().map(String::as_str), Some("ExecutionAborted"));
}

#[test]
fn a_worker_without_its_broker_says_so_and_ends_in_order() {
    for program in [TUTORIAL, HOLDING] {
        let workflow = Workflow::edited(Flavor::Vault.shared(), |orders, _| {
            orders["States"]["Reserve"]["Retry"] = json!([]);
        });
        let nowhere = Place::Unix("/nonexistent/tenure.sock".into());
        let mut worker = Worker::start(&workflow, program, &nowhere, None, &[("HEARTBEAT_EVERY", "1")]);
        let execution = workflow.start(1);
        let failed = wait_for("the end", SOON, || {
            let described = execution.describe();
            (described["status"] != "RUNNING").then_some(described)
        });
        assert_eq!(failed["error"], "Tenure.Unavailable", "{failed}\n{}", worker.log());
        assert!(text(&failed["cause"]).starts_with("the broker does not answer"), "{failed}");
        wait_until("the log says it", SOON, || worker.log().contains("Tenure.Unavailable"));
        assert!(worker.said().is_empty(), "no step began");
        kill_process(worker.pid(), Signal::TERM).expect("the worker runs");
        assert!(worker.ended(), "{}", worker.log());
    }
}
