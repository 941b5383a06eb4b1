use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_sfn::config::Region;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde_json::{Value, json};

use super::*;
use crate::aws::LazyTls;
use crate::vault::fake::{Act, FakeVault, Seen};

const EXECUTION: &str = "arn:aws:states:eu-west-1:123456789012:execution:orders:7f3a";
const NESTED: &str = "arn:aws:states:eu-west-1:123456789012:execution:charge:77aa";
const LOOSE: &str = "arn:aws:states:eu-west-1:123456789012:execution:notify:88bb";

async fn at(server: &FakeVault, tries: u32) -> StepFunctions {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(LazyTls::default()))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .region(Region::new("us-east-1"))
        .endpoint_url(&server.address)
        .load()
        .await;
    StepFunctions::made(None, OnceCell::new_with(Some(config)), Duration::from_secs(20), tries)
}

async fn read(server: &FakeVault, tries: u32) -> Result<Vec<PastEvent>, Untold> {
    at(server, tries).await.past(&EXECUTION.parse().expect("an ARN")).await
}

fn refusal(status: u16, code: &str) -> Act {
    Act::json(status, &json!({ "__type": code, "message": "said" }).to_string())
}

/// A history that starts one execution and waits for it, and another that it does not; without data as Step Functions
/// leaves it out.
fn events(with_data: bool) -> Vec<Value> {
    let started =
        |arn: &str| with_data.then(|| json!({ "ExecutionArn": arn, "canary": "canary" }).to_string());
    let task = |resource: &str, output: Option<String>| json!({ "resourceType": "states", "resource": resource, "output": output });
    let events = [
        ("ExecutionStarted", "executionStartedEventDetails", json!({ "roleArn": "r" })),
        ("TaskStateEntered", "stateEnteredEventDetails", json!({ "name": "Payment" })),
        ("TaskSubmitted", "taskSubmittedEventDetails", task("startExecution.sync:2", started(NESTED))),
        ("TaskSucceeded", "taskSucceededEventDetails", task("startExecution.sync:2", started(NESTED))),
        ("TaskSucceeded", "taskSucceededEventDetails", task("startExecution", started(LOOSE))),
        (
            "TaskFailed",
            "taskFailedEventDetails",
            json!({ "resourceType": "states", "resource": "x", "error": "No", "cause": "canary" }),
        ),
        ("TaskPondered", "canaryEventDetails", json!({ "input": "canary" })),
    ];
    let number = |(id, (kind, name, details)): (usize, (&str, &str, Value))| {
        let mut event = json!({ "id": id + 1, "type": kind, "timestamp": 1_767_225_600.25 });
        event[name] = details;
        event
    };
    events.into_iter().enumerate().map(number).collect()
}

/// Two events a page.
fn pages(seen: &Seen) -> Act {
    let asked = seen.json();
    let events = events(asked["includeExecutionData"] == true);
    let from: usize = asked["nextToken"].as_str().map_or(0, |token| token.parse().expect("ours"));
    let next = (from + 2 < events.len()).then(|| (from + 2).to_string());
    let page: Vec<_> = events.into_iter().skip(from).take(2).collect();
    Act::json(200, &json!({ "events": page, "nextToken": next }).to_string())
}

#[tokio::test]
async fn all_pages_are_read_and_data_only_of_who_starts_others() {
    let server = FakeVault::start(pages).await;
    let past = read(&server, 1).await.expect("a history");
    assert!(!format!("{past:?}").contains("canary"), "{past:?}");
    let found: Vec<_> = past.iter().map(|event| (event.id, event.started.as_deref())).collect();
    let expected =
        [(1, None), (2, None), (3, Some(NESTED)), (4, None), (5, Some(LOOSE)), (6, None), (7, None)];
    assert_eq!(found, expected);
    assert_eq!((past[1].state.as_deref(), past[5].error.as_deref()), (Some("Payment"), Some("No")));
    assert_eq!((&*past[6].kind, past[6].at), ("TaskPondered", Duration::from_millis(1_767_225_600_250)));
    let asked: Vec<_> = server.seen().iter().map(Seen::json).collect();
    let data: Vec<_> = asked.iter().map(|asked| asked["includeExecutionData"] == true).collect();
    assert_eq!(data, [false, false, false, false, true, true, true, true]);
    assert_eq!(
        asked[0],
        json!({ "executionArn": EXECUTION, "maxResults": 1_000, "includeExecutionData": false })
    );

    let quiet = FakeVault::always(Act::json(200, &json!({ "events": events(false)[..2] }).to_string())).await;
    assert_eq!(read(&quiet, 1).await.map(|past| past.len()), Ok(2));
    assert_eq!(quiet.seen().len(), 1, "data is not asked for");
}

#[tokio::test]
async fn why_there_is_none_tells_one_from_all() {
    let one = |untold: &Untold| matches!(untold, Untold::Refused(_));
    let all = |untold: &Untold| matches!(untold, Untold::Failed(_));
    for (act, is, says) in [
        (
            refusal(400, "AccessDeniedException"),
            &one as &dyn Fn(&Untold) -> bool,
            "Allow states:GetExecutionHistory on arn:aws:states:eu-west-1:123456789012:execution:orders:* in the IAM policy of whoever runs this",
        ),
        (refusal(400, "KmsAccessDeniedException"), &one, "kms:Decrypt"),
        (refusal(400, "InvalidArn"), &one, "ARN"),
        (refusal(400, "UnrecognizedClientException"), &all, "does not know these credentials"),
        (Act::json(200, "{\"events\":"), &all, "not Step Functions"),
    ] {
        let server = FakeVault::always(act).await;
        let untold = read(&server, 2).await.expect_err("no history");
        let (Untold::Refused(failure) | Untold::Failed(failure)) = &untold else { panic!("{untold:?}") };
        assert!(is(&untold) && failure.message.contains(says), "{untold:?}");
    }
    let server = FakeVault::always(refusal(400, "ExecutionDoesNotExist")).await;
    assert_eq!(read(&server, 2).await, Err(Untold::Gone));
    let express = "arn:aws:states:eu-west-1:123456789012:express:orders:7f3a:0b-1".parse().expect("an ARN");
    assert_eq!(at(&server, 1).await.past(&express).await, Err(Untold::Express));
    assert_eq!(server.seen().len(), 1, "an express execution is not asked for");
}

#[tokio::test]
async fn what_is_throttled_is_asked_again_and_pages_are_bounded() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server =
        FakeVault::start(move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => refusal(400, "ThrottlingException"),
            _ => pages(seen),
        })
        .await;
    assert_eq!(read(&server, 3).await.map(|past| past.len()), Ok(7));
    assert_eq!(server.seen().len(), 9);

    let endless = FakeVault::always(Act::json(200, r#"{"events":[],"nextToken":"more"}"#)).await;
    let untold = read(&endless, 1).await.expect_err("no end");
    assert!(
        matches!(&untold, Untold::Refused(failure) if failure.message.contains("250 pages")),
        "{untold:?}"
    );
    assert_eq!(endless.seen().len(), PAGES);
}
