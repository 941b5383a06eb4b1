use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};

use super::*;
use crate::lease::failure::Class;
use crate::lease::upstream::Life;
use crate::vault::fake::{Act, FakeVault, call};

const GRANTED: &str = r#"{"request_id":"r","auth":{"client_token":"hvs.login","accessor":"a","lease_duration":3600,"renewable":true,"token_type":"service","num_uses":0}}"#;

type MakeError = fn() -> CredentialsError;

/// Counts how often it is asked.
#[derive(Clone, Debug)]
struct Provider {
    asked: Arc<AtomicUsize>,
    expires: bool,
    fails: Arc<std::sync::Mutex<Option<MakeError>>>,
}

impl Provider {
    fn new(expires: bool) -> Self {
        Self { asked: Arc::default(), expires, fails: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn fail(&self, with: Option<MakeError>) {
        *self.fails.lock().unwrap() = with;
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer: provider::Result = match *self.fails.lock().unwrap() {
            Some(error) => Err(error()),
            None => Ok(Credentials::new(
                "AKIDEXAMPLE",
                "canary-secret",
                Some("canary-session".into()),
                // Far past what a test's machine may take for now.
                self.expires.then(|| UNIX_EPOCH + Duration::from_secs(7_000_000_000)),
                "test",
            )),
        };
        future::ProvideCredentials::ready(answer)
    }
}

fn login(vault: &FakeVault, provider: &Provider) -> AwsLogin {
    let config = AwsLoginConfig {
        mount: "team/aws".into(),
        region: Some("eu-central-1".into()),
        server_id: Some("vault.example.com".into()),
        ..AwsLoginConfig::new("orders")
    };
    AwsLogin::with_credentials(vault.client(), config, SharedCredentialsProvider::new(provider.clone()))
}

#[tokio::test]
async fn the_payload_is_what_vault_wants() {
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    let login = login(&vault, &Provider::new(true));
    assert_eq!(login.describe(), "aws role orders at auth/team/aws");
    let minted = login.login(call()).await.unwrap();
    assert_eq!(minted.life, Life::Leased { ttl: Duration::from_secs(3600), renewable: true });
    assert!(minted.payload.credential.matches(b"hvs.login"));

    let seen = &vault.seen()[0];
    assert_eq!(seen.line, "POST /v1/auth/team/aws/login");
    assert!(!seen.headers.contains_key("x-vault-token"));
    let body = seen.json();
    let decoded =
        |key: &str| String::from_utf8(STANDARD.decode(body[key].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(body["role"], "orders");
    assert_eq!(body["iam_http_request_method"], "POST");
    assert_eq!(decoded("iam_request_url"), "https://sts.eu-central-1.amazonaws.com/");
    assert_eq!(decoded("iam_request_body"), "Action=GetCallerIdentity&Version=2011-06-15");
    let headers = decoded("iam_request_headers");
    assert!(headers.contains("canary-session") && headers.contains("vault.example.com"), "{headers}");
    assert!(!headers.contains("canary-secret"));
    assert!(!format!("{login:?}").contains("canary"), "{login:?}");
}

#[tokio::test]
async fn credentials_that_expire_are_asked_for_once_and_others_each_time() {
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    for (expires, asked) in [(true, 1), (false, 2)] {
        let provider = Provider::new(expires);
        let login = login(&vault, &provider);
        login.login(call()).await.unwrap();
        login.login(call()).await.unwrap();
        assert_eq!(provider.asked(), asked);
    }
}

#[tokio::test]
async fn refused_credentials_are_not_used_again() {
    for (error, class, asked) in [
        (
            "error making upstream request: received error code 403 from STS: <Code>ExpiredToken</Code>",
            Class::Transient,
            2,
        ),
        (
            "error making upstream request: received error code 403 from STS: <Code>InvalidClientTokenId</Code>",
            Class::Permanent,
            2,
        ),
        ("entry for role \"orders\" not found", Class::Permanent, 1),
    ] {
        let vault = FakeVault::always(Act::refusal(400, error)).await;
        let provider = Provider::new(true);
        let login = login(&vault, &provider);
        for _ in 0..2 {
            let failure = login.login(call()).await.unwrap_err();
            assert_eq!(failure.class, class, "{failure}");
            assert!(!failure.message.contains("canary"), "{failure}");
        }
        assert_eq!(provider.asked(), asked, "{error}");
    }
}

#[tokio::test]
async fn no_credentials_is_permanent_until_there_were_some() {
    let vault = FakeVault::always(Act::json(200, GRANTED)).await;
    let provider = Provider::new(false);
    let login = login(&vault, &provider);
    for (error, class, words) in [
        (
            (|| CredentialsError::not_loaded("none")) as MakeError,
            Class::Permanent,
            "looked at the environment",
        ),
        (|| CredentialsError::provider_error("429"), Class::Transient, "no credentials yet"),
        (
            || CredentialsError::provider_timed_out(Duration::from_secs(1)),
            Class::Transient,
            "no credentials yet",
        ),
        (|| CredentialsError::unhandled("io error"), Class::Transient, "no credentials yet"),
        (|| CredentialsError::invalid_configuration("a typo"), Class::Permanent, "a typo"),
        (|| CredentialsError::provider_error("AccessDenied"), Class::Permanent, "trust policy"),
    ] {
        provider.fail(Some(error));
        let failure = login.login(call()).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    assert!(vault.seen().is_empty());
    provider.fail(None);
    login.login(call()).await.unwrap();
    provider.fail(Some(|| CredentialsError::not_loaded("none")));
    assert_eq!(login.login(call()).await.unwrap_err().class, Class::Transient);
}

#[tokio::test]
async fn a_login_is_never_forbidden_and_vaults_own_trouble_passes() {
    for (act, class) in [
        (Act::refusal(403, "permission denied"), Class::Permanent),
        (Act::refusal(404, "else"), Class::Permanent),
        (Act::refusal(500, "internal error"), Class::Transient),
        (Act::refusal(429, "quota"), Class::Transient),
        (Act::Close, Class::Transient),
    ] {
        let vault = FakeVault::always(act).await;
        let failure = login(&vault, &Provider::new(true)).login(call()).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_does_not_hang_the_login() {
    #[derive(Debug)]
    struct Hangs;
    impl ProvideCredentials for Hangs {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(std::future::pending())
        }
    }
    let chain = Chain::of(SharedCredentialsProvider::new(Hangs), None);
    assert_eq!(chain.credentials(UNIX_EPOCH).await.unwrap_err().class, Class::Transient);
}
