use aws_credential_types::Credentials;
use serde_json::{Value, json};

use super::*;
use crate::vault::fake::{Act, FakeVault, Seen};

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a";
const OURS: &str = "arn:aws:ecs:eu-west-1:123456789012:task/orders/0a1b";
const TOKEN: &str = "AAAAKgAAAAIAAAAAAAAAAQcanary==";

/// Step Functions, asked at the server's address.
async fn at(server: &FakeVault) -> StepFunctions {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(LazyTls::default()))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(&server.address)
        .load()
        .await;
    StepFunctions::made(None, OnceCell::new_with(Some(config)), Duration::from_millis(700), 1)
}

fn arn(text: &str) -> ExecutionArn {
    text.parse().expect("an ARN")
}

fn token() -> Credential {
    Credential::new(TOKEN.into())
}

fn refusal(status: u16, code: &str, message: &str) -> Act {
    Act::json(status, &json!({ "__type": code, "message": message }).to_string())
        .header("x-amzn-requestid", "req-1")
}

/// A request of that action, signed for that region.
fn assert_signed(seen: &Seen, action: &str, region: &str) {
    let header = |name: &str| seen.headers.get(name).cloned().unwrap_or_default();
    assert_eq!(seen.line, "POST /");
    assert_eq!(header("x-amz-target"), format!("AWSStepFunctions.{action}"));
    assert_eq!(header("content-type"), "application/x-amz-json-1.0");
    let signature = header("authorization");
    let scope = format!("/{region}/states/aws4_request");
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
    assert!(signature.contains(&scope) && signature.contains("Signature="), "{signature}");
}

#[tokio::test]
async fn a_heartbeat_says_whether_the_task_goes_on() {
    for (act, beat) in [
        (Act::json(200, "{}"), Beat::Alive),
        (refusal(400, "TaskTimedOut", "Task Timed Out"), Beat::TimedOut),
        (refusal(400, "com.amazonaws.states#TaskDoesNotExist", "Task does not exist"), Beat::Gone),
        (refusal(400, "InvalidToken", "Invalid Token"), Beat::Invalid),
        (refusal(400, "ValidationException", &format!("Value '{TOKEN}' at 'taskToken'")), Beat::Invalid),
    ] {
        let server = FakeVault::always(act.clone()).await;
        assert_eq!(at(&server).await.heartbeat(&token()).await, Ok(beat), "{act:?}");
        let seen = server.seen();
        assert_signed(&seen[0], "SendTaskHeartbeat", "us-east-1");
        assert_eq!(seen[0].json(), json!({ "taskToken": TOKEN }));
    }
}

#[tokio::test]
async fn an_execution_is_described_in_its_own_region() {
    for (word, status) in [
        ("RUNNING", ExecutionStatus::Running),
        ("PENDING_REDRIVE", ExecutionStatus::PendingRedrive),
        ("SUCCEEDED", ExecutionStatus::Succeeded),
        ("FAILED", ExecutionStatus::Failed),
        ("TIMED_OUT", ExecutionStatus::TimedOut),
        ("ABORTED", ExecutionStatus::Aborted),
    ] {
        assert_eq!(status.word(), word);
        let body = json!({
            "executionArn": EXECUTION, "stateMachineArn": "arn", "status": word, "startDate": 1_767_225_600.123,
        });
        let server = FakeVault::always(Act::json(200, &body.to_string())).await;
        assert_eq!(at(&server).await.describe(&arn(EXECUTION)).await, Ok(Some(status)));
        let seen = server.seen();
        assert_signed(&seen[0], "DescribeExecution", "eu-west-1");
        assert_eq!(seen[0].json(), json!({ "executionArn": EXECUTION, "includedData": "METADATA_ONLY" }));
    }
    let server = FakeVault::always(refusal(400, "ExecutionDoesNotExist", "no such execution")).await;
    assert_eq!(at(&server).await.describe(&arn(EXECUTION)).await, Ok(None));
    let claim = Claim { state: "Ship", task_arn: None, task_token: None };
    assert_eq!(at(&server).await.history(&arn(EXECUTION), claim).await, Ok(Evidence::default()));
}

#[tokio::test]
async fn nothing_is_loaded_or_asked_for_an_express_execution() {
    let functions = StepFunctions::new(None);
    let express = arn("arn:aws:states:eu-west-1:123456789012:express:orders:7f3a:0b-1");
    assert_eq!(functions.describe(&express).await, Ok(None));
    let token = token();
    let claim = Claim { state: "Ship", task_arn: Some(OURS), task_token: Some(&token) };
    assert_eq!(functions.history(&express, claim).await, Ok(Evidence::default()));
    assert!(!functions.0.loaded.lock().unwrap().initialized());
}

#[tokio::test]
async fn clients_are_kept_for_each_region() {
    let server = FakeVault::always(Act::json(200, "{}")).await;
    let functions = at(&server).await;
    for _ in 0..3 {
        assert_eq!(functions.heartbeat(&token()).await, Ok(Beat::Alive));
        for region in ["eu-west-1", "eu-central-1"] {
            let _ = functions.describe(&arn(&EXECUTION.replace("eu-west-1", region))).await;
        }
    }
    assert_eq!(functions.0.clients.lock().unwrap().len(), 3);
    assert_eq!(server.seen().len(), 9, "each call is tried once");
}

#[tokio::test]
async fn what_is_no_answer_is_classified_and_says_what_to_do() {
    let transient = Class::Transient;
    let cases: Vec<(Act, Class, &str)> = vec![
        (
            refusal(400, "ThrottlingException", "Rate exceeded"),
            transient,
            "Rate exceeded (ThrottlingException)",
        ),
        (refusal(400, "KmsThrottlingException", "slow"), transient, "slow"),
        (refusal(429, "Whatever", ""), transient, "Whatever"),
        (refusal(500, "InternalFailure", "oops"), transient, "oops"),
        (Act::json(503, "<html>busy</html>"), transient, "status 503"),
        (Act::json(403, "<html>proxy</html>"), Class::Permanent, "check AWS_ENDPOINT_URL_SFN"),
        (
            refusal(
                400,
                "AccessDeniedException",
                "User: x is not authorized to perform: states:DescribeExecution.",
            ),
            Class::Denied,
            "Allow states:DescribeExecution on arn:aws:states:eu-west-1:123456789012:execution:orders:* in the IAM \
             policy",
        ),
        (refusal(400, "KmsAccessDeniedException", "no"), Class::Denied, "kms:Decrypt"),
        (refusal(400, "KmsInvalidStateException", "no"), Class::Permanent, "enable it"),
        (refusal(400, "InvalidArn", "Invalid Arn: 'x'"), Class::Permanent, "Invalid Arn: 'x'"),
        (refusal(400, "ExpiredTokenException", "expired"), transient, "New credentials"),
        (refusal(400, "UnrecognizedClientException", "bad"), Class::Permanent, "check the role"),
        (refusal(400, "InvalidSignatureException", "Signature expired"), Class::Permanent, "clock"),
        (refusal(400, "NeverHeardOf", "a\nb"), Class::Permanent, "a b (NeverHeardOf)"),
        (Act::json(200, "{\"status\":"), transient, "not Step Functions"),
        (Act::json(200, "[1]"), transient, "not Step Functions"),
        (
            Act::json(200, r#"{"executionArn":"a","stateMachineArn":"b","status":"PAUSED","startDate":1}"#),
            transient,
            "\"PAUSED\"",
        ),
        (Act::Close, transient, "cannot be reached"),
        (Act::Cut, transient, "not Step Functions"),
        (Act::Hang, transient, "no answer within 0.7 s"),
        (Act::Drip, transient, "no answer within 0.7 s"),
    ];
    for (act, class, says) in cases {
        let server = FakeVault::always(act.clone()).await;
        let failure = at(&server).await.describe(&arn(EXECUTION)).await.expect_err("no answer");
        assert_eq!(failure.class, class, "{act:?}: {failure}");
        assert!(failure.message.contains(says), "{act:?}: {failure}");
        assert!(failure.message.contains("Step Functions, DescribeExecution"), "{failure}");
        assert_eq!(server.seen().len(), 1, "tried once: {act:?}");
    }
}

#[tokio::test]
async fn a_failure_carries_what_the_answer_said_of_it() {
    for (act, after) in [
        (refusal(400, "ThrottlingException", "x").header("retry-after", "7"), Some(Duration::from_secs(7))),
        (
            refusal(400, "ThrottlingException", "x").header("x-amz-retry-after", "1500"),
            Some(Duration::from_millis(1_500)),
        ),
        (refusal(400, "ThrottlingException", "x").header("retry-after", "soon"), None),
    ] {
        let server = FakeVault::always(act).await;
        let failure = at(&server).await.heartbeat(&token()).await.expect_err("throttled");
        assert_eq!(failure.retry_after, after);
        assert_eq!((failure.status, failure.request_id.as_deref()), (Some(400), Some("req-1")));
    }
    let gone = FakeVault::always(Act::Close).await;
    let functions = at(&gone).await;
    drop(gone);
    let failure = functions.heartbeat(&token()).await.expect_err("nobody there");
    assert_eq!((failure.class, failure.status), (Class::Transient, None), "{failure}");
}

#[tokio::test]
async fn no_message_repeats_the_token() {
    for code in ["AccessDeniedException", "Whatever", "ThrottlingException"] {
        let server = FakeVault::always(refusal(400, code, &format!("no {TOKEN}"))).await;
        let failure = at(&server).await.heartbeat(&token()).await.expect_err("refused");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
    let denied = FakeVault::always(refusal(400, "AccessDeniedException", "no")).await;
    let failure = at(&denied).await.heartbeat(&token()).await.expect_err("denied");
    assert!(failure.message.contains("Allow states:SendTaskHeartbeat on \"*\""), "{failure}");
    assert!(!format!("{:?}", at(&denied).await).contains("secret"));
}

#[tokio::test]
async fn without_credentials_it_says_so_and_looks_again_the_next_time() {
    let server = FakeVault::always(Act::json(200, "{}")).await;
    let none = aws_credential_types::provider::SharedCredentialsProvider::new(
        aws_credential_types::credential_fn::provide_credentials_fn(|| async {
            Err(aws_credential_types::provider::error::CredentialsError::not_loaded("nothing here"))
        }),
    );
    let functions = at(&server).await;
    let loaded = functions.loaded().await.into_builder().credentials_provider(none).build();
    let functions = StepFunctions::made(None, OnceCell::new_with(Some(loaded)), PATIENCE, 1);
    let failure = functions.heartbeat(&token()).await.expect_err("unsigned");
    assert_eq!(failure.class, Class::Transient);
    assert!(failure.message.contains("AWS gave no credentials"), "{failure}");
    assert!(!functions.0.loaded.lock().unwrap().initialized());
    assert!(server.seen().is_empty());
}

/// `GetExecutionHistory`'s events of a state that runs our task, newest first.
fn events() -> Vec<Value> {
    let given = json!({ "Overrides": { "ContainerOverrides": [
        { "Environment": [{ "Name": "TENURE_TASK_TOKEN", "Value": TOKEN }] },
    ] } });
    let started = json!({ "Failures": [], "Tasks": [{ "TaskArn": OURS }] });
    let (resource_type, resource) = ("ecs", "runTask.waitForTaskToken");
    let mut events = vec![
        json!({ "type": "ExecutionStarted", "executionStartedEventDetails": { "input": "{}", "roleArn": "r" } }),
        json!({ "type": "TaskStateEntered", "stateEnteredEventDetails": { "name": "Ship", "input": "{}" } }),
        json!({ "type": "TaskScheduled", "taskScheduledEventDetails": {
            "resourceType": resource_type, "resource": resource, "region": "eu-west-1",
            "parameters": given.to_string(),
        } }),
        json!({ "type": "TaskStarted", "taskStartedEventDetails": {
            "resourceType": resource_type, "resource": resource,
        } }),
        json!({ "type": "TaskSubmitted", "taskSubmittedEventDetails": {
            "resourceType": resource_type, "resource": resource, "output": started.to_string(),
        } }),
    ];
    for (event, id) in events.iter_mut().zip(1..) {
        event["id"] = id.into();
        event["previousEventId"] = if id == 2 { 0.into() } else { (id - 1).into() };
        event["timestamp"] = 1_767_225_600.into();
    }
    events.reverse();
    events
}

#[tokio::test]
async fn a_history_is_read_newest_first_page_by_page() {
    let pages = |seen: &Seen| {
        let at = seen.json()["nextToken"].as_str().map_or(0, |token| token.parse().expect("ours"));
        let next = (at + 1 < 5).then(|| (at + 1).to_string());
        Act::json(200, &json!({ "events": [events()[at]], "nextToken": next }).to_string())
    };
    let server = FakeVault::start(pages).await;
    let functions = at(&server).await;
    let (execution, token) = (arn(EXECUTION), token());
    let claim = Claim { state: "Ship", task_arn: Some(OURS), task_token: Some(&token) };
    let found = functions.history(&execution, claim).await;
    assert_eq!(
        found,
        Ok(Evidence { in_progress: true, of_activity: false, names_task: true, names_token: true })
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 4, "the oldest page is not needed: the state's entry is in the one before");
    assert_signed(&seen[0], "GetExecutionHistory", "eu-west-1");
    assert_eq!(
        seen[0].json(),
        json!({
            "executionArn": EXECUTION, "maxResults": 1_000, "reverseOrder": true, "includeExecutionData": true,
        })
    );
    assert_eq!(seen[3].json()["nextToken"], "3");

    let other = functions.history(&execution, Claim { state: "Pack", ..claim }).await;
    assert_eq!(other, Ok(Evidence::default()));
    assert_eq!(server.seen().len(), 9, "all pages");
}

#[tokio::test]
async fn what_is_read_of_a_history_is_bounded() {
    let server = FakeVault::always(Act::json(200, r#"{"events":[],"nextToken":"more"}"#)).await;
    let claim = Claim { state: "Ship", task_arn: None, task_token: None };
    let found = at(&server).await.history(&arn(EXECUTION), claim).await;
    assert_eq!(found, Ok(Evidence::default()));
    assert_eq!(server.seen().len(), PAGES);
}

#[tokio::test]
async fn only_ecs_answers_for_ecs_and_what_is_malformed_is_no_evidence() {
    let claim = Claim { state: "Ship", task_arn: Some(OURS), task_token: None };
    let ask = async |events: Value| {
        let server = FakeVault::always(Act::json(200, &json!({ "events": events }).to_string())).await;
        at(&server).await.history(&arn(EXECUTION), claim).await
    };
    let found = |in_progress, names_task| {
        Ok(Evidence { in_progress, of_activity: false, names_task, names_token: false })
    };
    for (resource_type, resource, names) in [
        ("ecs", "runTask.sync", true),
        ("aws-sdk:ecs", "runTask.waitForTaskToken", true),
        ("lambda", "invoke.waitForTaskToken", false),
        ("http", "invoke", false),
        ("ecs", "runTaskish", false),
    ] {
        let mut events = events();
        events[0]["taskSubmittedEventDetails"]["resourceType"] = resource_type.into();
        events[0]["taskSubmittedEventDetails"]["resource"] = resource.into();
        assert_eq!(ask(Value::from(events)).await, found(true, names), "{resource_type}:{resource}");
    }
    let mut unknown = events();
    unknown[1]["type"] = "TaskPondered".into();
    assert_eq!(ask(Value::from(unknown)).await, found(true, true), "a kind that is new is passed by");
    let mut nameless = events();
    nameless[3].as_object_mut().expect("an event").remove("stateEnteredEventDetails");
    assert_eq!(ask(Value::from(nameless)).await, found(false, false));
    let mut redacted = events();
    redacted[0]["taskSubmittedEventDetails"]["output"] = Value::Null;
    assert_eq!(ask(Value::from(redacted)).await, found(true, false));
}

/// Not a test of its own: it runs in a process whose environment is the test's below.
#[tokio::test]
#[ignore = "the_environment_names_endpoint_region_and_credentials runs it"]
async fn asked_as_the_environment_says() {
    let functions = StepFunctions::new(None);
    assert_eq!(functions.heartbeat(&token()).await, Ok(Beat::Alive));
}

#[tokio::test]
async fn the_environment_names_endpoint_region_and_credentials() {
    for variable in ["AWS_ENDPOINT_URL_SFN", "AWS_ENDPOINT_URL"] {
        let server = FakeVault::always(Act::json(200, "{}")).await;
        let run = tokio::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["workflow::tests::asked_as_the_environment_says", "--exact", "--ignored"])
            .env_clear()
            .env(variable, &server.address)
            .env("AWS_REGION", "ap-south-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .await
            .expect("run");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        assert_signed(&server.seen()[0], "SendTaskHeartbeat", "ap-south-1");
    }
}
