use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::{AwsLogin, AwsLoginConfig, Chain};
use super::*;
use crate::lease::upstream::Login as _;
use crate::vault::fake::{Act, FakeVault, call};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Seconds since the epoch, far past what a test's machine may take for now, and soon after that.
const LATE: u64 = 4_000_000_000;

/// What was asked of the fake STS: the endpoint, the form, and who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    uri: String,
    form: String,
    access_key: String,
}

type Script = dyn Fn(usize) -> (u16, String) + Send + Sync;

/// STS in the place of the HTTP client; the script is told how many requests came before.
#[derive(Clone)]
struct FakeSts {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl std::fmt::Debug for FakeSts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeSts")
    }
}

impl FakeSts {
    fn new(script: impl Fn(usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: Arc::default() }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl HttpClient for FakeSts {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for FakeSts {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let signed = request.headers().get("authorization").unwrap_or_default();
        let access_key =
            signed.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        let form = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let mut asked = self.asked.lock().unwrap();
        let (status, body) = (self.script)(asked.len());
        asked.push(Asked { uri: request.uri().to_owned(), form, access_key: access_key.to_owned() });
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status.try_into().unwrap(), body.into())))
    }
}

fn granted(access_key: &str, end: u64) -> (u16, String) {
    let end = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(end));
    (
        200,
        format!(
            "<AssumeRoleResponse xmlns=\"{NAMESPACE}\"><AssumeRoleResult><Credentials>\
             <AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>canary-secret</SecretAccessKey>\
             <SessionToken>canary-session-{access_key}</SessionToken><Expiration>{end}</Expiration></Credentials>\
             </AssumeRoleResult></AssumeRoleResponse>"
        ),
    )
}

fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
    (status, format!("<ErrorResponse xmlns=\"{NAMESPACE}\"><Error>{error}</Error></ErrorResponse>"))
}

fn assume(name: &str) -> Assume {
    Assume {
        role_arn: format!("arn:aws:iam::123456789012:role/{name}"),
        external_id: None,
        session_name: "run-1".into(),
        source_identity: None,
        tags: Vec::new(),
        duration: Duration::from_secs(3600),
    }
}

fn login(vault: &FakeVault, sts: &FakeSts, assume: Vec<Assume>) -> AwsLogin {
    let config =
        AwsLoginConfig { region: Some("eu-central-1".into()), assume, ..AwsLoginConfig::new("orders") };
    let task = Credentials::new("AKIDTASK", "canary-task", None, None, "test");
    let chain = Chain::of(SharedCredentialsProvider::new(task), config.region.clone());
    AwsLogin::over(vault.client(), config, chain.over(SharedHttpClient::new(sts.clone())))
}

async fn vault() -> FakeVault {
    let granted = r#"{"request_id":"r","auth":{"client_token":"hvs.login","accessor":"a","lease_duration":3600,"renewable":true}}"#;
    FakeVault::always(Act::json(200, granted)).await
}

#[tokio::test]
async fn each_role_is_assumed_with_the_session_before_it() {
    let (vault, sts) = (vault().await, FakeSts::new(|before| granted(&format!("ASIA{before}"), LATE)));
    let hub = Assume {
        external_id: Some("orders:1".into()),
        source_identity: Some("run-1".into()),
        tags: vec![("tenure:state".into(), "Charge it".into())],
        duration: Duration::from_secs(900),
        ..assume("hub")
    };
    let login = login(&vault, &sts, vec![hub, assume("broker")]);
    assert_eq!(
        login.describe(),
        "aws role orders at auth/aws as arn:aws:iam::123456789012:role/broker through \
         arn:aws:iam::123456789012:role/hub"
    );
    login.login(call()).await.unwrap();
    let asked = sts.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].uri, "https://sts.eu-central-1.amazonaws.com/");
    assert_eq!((&*asked[0].access_key, &*asked[1].access_key), ("AKIDTASK", "ASIA0"));
    for part in [
        "Action=AssumeRole&",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fhub",
        "RoleSessionName=run-1",
        "ExternalId=orders%3A1",
        "SourceIdentity=run-1",
        "Tags.member.1.Key=tenure%3Astate",
        "Tags.member.1.Value=Charge%20it",
        "DurationSeconds=900",
    ] {
        assert!(asked[0].form.contains(part), "{part}: {}", asked[0].form);
    }
    for part in ["ExternalId", "SourceIdentity", "Tags"] {
        assert!(!asked[1].form.contains(part), "{part}: {}", asked[1].form);
    }
    let body = vault.seen()[0].json();
    let headers = STANDARD.decode(body["iam_request_headers"].as_str().unwrap()).unwrap();
    let headers = String::from_utf8(headers).unwrap();
    assert!(headers.contains("canary-session-ASIA1") && headers.contains("ASIA1/"), "the last one signs");
    assert!(!format!("{login:?}").contains("canary"), "{login:?}");
}

#[tokio::test]
async fn a_session_is_used_until_shortly_before_it_ends() {
    let (vault, sts) = (vault().await, FakeSts::new(|before| granted(&format!("ASIA{before}"), LATE)));
    let login = login(&vault, &sts, vec![assume("hub"), assume("broker")]);
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    for (now, asked) in [(LATE - 4000, 2), (LATE - 61, 2), (LATE - 60, 4), (LATE, 6)] {
        login.credentials("eu-central-1", at(now)).await.unwrap();
        assert_eq!(sts.asked().len(), asked, "at {now}");
    }
    // The second ends before the first: that one is not assumed anew.
    let ends = |before: usize| granted("ASIA", if before == 1 { LATE - 3600 } else { LATE });
    let sts = FakeSts::new(ends);
    let login = self::login(&vault, &sts, vec![assume("hub"), assume("broker")]);
    login.credentials("eu-central-1", at(LATE - 7200)).await.unwrap();
    login.credentials("eu-central-1", at(LATE - 3600)).await.unwrap();
    let roles: Vec<bool> = sts.asked().iter().map(|asked| asked.form.contains("hub")).collect();
    assert_eq!(roles, [true, false, false]);
}

#[tokio::test]
async fn a_refused_session_is_not_used_again() {
    let error = "error making upstream request: received error code 403 from STS: <Code>ExpiredToken</Code>";
    let vault = FakeVault::always(Act::refusal(400, error)).await;
    let sts = FakeSts::new(|_| granted("ASIA", LATE));
    let login = login(&vault, &sts, vec![assume("broker")]);
    for tries in 1..=2 {
        assert_eq!(login.login(call()).await.unwrap_err().class, Class::Transient);
        assert_eq!(sts.asked().len(), tries);
    }
    // The session of the first role has ended early: it is assumed anew for the second.
    let sts = FakeSts::new(|before| match before {
        1 => refusal(403, "ExpiredToken", "The security token included in the request is expired"),
        _ => granted("ASIA", LATE),
    });
    let login = self::login(&vault, &sts, vec![assume("hub"), assume("broker")]);
    let now = UNIX_EPOCH + Duration::from_secs(LATE - 3600);
    let failure = login.credentials("eu-central-1", now).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient, "{failure}");
    login.credentials("eu-central-1", now).await.unwrap();
    assert_eq!(sts.asked().len(), 4);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_named_with_its_cure() {
    let denied =
        "User: arn:aws:sts::123456789012:assumed-role/task/1 is not authorized to perform: sts:AssumeRole";
    let echoed = "The request signature we calculated does not match. The Canonical String for this request should \
                  have been 'POST x-amz-security-token:canary'";
    for (answer, class, words) in [
        (
            refusal(403, "AccessDenied", denied),
            Class::Permanent,
            "is not authorized to perform: sts:AssumeRole. The trust policy of",
        ),
        (refusal(403, "SignatureDoesNotMatch", echoed), Class::Permanent, "access key AKIDTASK"),
        (refusal(400, "Throttling", "Rate exceeded"), Class::Transient, "overloaded"),
        ((502, "<html>bad gateway</html>".into()), Class::Transient, "in trouble"),
        ((200, "<html>welcome</html>".into()), Class::Transient, "does AWS_ENDPOINT_URL_STS lead to STS"),
    ] {
        let (vault, sts) = (vault().await, FakeSts::new(move |_| answer.clone()));
        let failure = login(&vault, &sts, vec![assume("broker")]).login(call()).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words) && failure.message.contains("role/broker"), "{failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
        assert!(vault.seen().is_empty(), "nobody logs in without the role");
    }
}

#[tokio::test(start_paused = true)]
async fn an_sts_that_hangs_does_not_hang_the_login() {
    #[derive(Debug, Default)]
    struct Hangs(Arc<AtomicUsize>);
    impl HttpClient for Hangs {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(Self(Arc::clone(&self.0)))
        }
    }
    impl HttpConnector for Hangs {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            self.0.fetch_add(1, Ordering::SeqCst);
            HttpConnectorFuture::new(std::future::pending())
        }
    }
    let task = Credentials::new("AKIDTASK", "canary-task", None, None, "test");
    let hangs = Hangs::default();
    let asked = Arc::clone(&hangs.0);
    let chain = Chain::of(SharedCredentialsProvider::new(task.clone()), Some("eu-central-1".into()))
        .over(SharedHttpClient::new(hangs));
    let sdk = chain.loaded().await;
    let sts = Sts { sdk: &sdk, region: "eu-central-1", fips: false };
    let Err(refused) = Hop::new(assume("broker")).session(&sts, task).await else { panic!("a session") };
    assert_eq!(refused.failure.class, Class::Transient);
    assert!(refused.failure.message.contains("did not answer"), "{}", refused.failure);
    assert!(asked.load(Ordering::SeqCst) >= 1);
}
