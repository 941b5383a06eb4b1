use super::*;
use crate::clock::Clock;
use crate::lease::failure::Class;
use crate::lease::upstream::{CallId, Login as _, Source as _, Token, TransitKey};
use crate::run::arn::ExecutionArn;
use crate::run::seal::{Terms, Unsealed};
use crate::run::subject::{Assurance, Subject, SubjectKind};
use crate::source::dev::{DevConfig, DevVault, Operation};

struct Stage {
    clock: Clock,
    vault: DevVault,
    login: Token,
    key: TransitKey,
    subjects: Subjects,
    root: ExecutionArn,
}

fn call() -> CallId {
    CallId { request: "boot-1".into(), run: "run-1".into(), chain: None }
}

impl Stage {
    async fn new() -> Self {
        let clock = Clock::simulated();
        let vault = DevVault::new(
            clock.clone(),
            DevConfig { login_ttl: Duration::from_secs(24 * 3600), ..DevConfig::default() },
        );
        vault.rotate_transit_key("transit", "tenure-subject");
        let login = vault.login(call()).await.unwrap().payload;
        let key = TransitKey { mount: "transit".into(), name: "tenure-subject".into() };
        let subjects = Subjects::new(None, Duration::from_secs(60));
        let root = "arn:aws:states:eu-west-1:123456789012:execution:orders:a".parse().unwrap();
        Self { clock, vault, login, key, subjects, root }
    }

    async fn seal(&self) -> Credential {
        let now = self.clock.now().wall();
        let subject = Subject {
            id: "ada".to_owned(),
            kind: SubjectKind::Person,
            issuer: Some("https://id.example.com".to_owned()),
            assurance: Assurance::Verified,
            groups: Vec::new(),
        };
        let checked = Checked { subject, expires: now + Duration::from_secs(24 * 3600) };
        let terms = Terms { max_age: Duration::from_secs(24 * 3600), ends_with_token: true, groups: &[] };
        let unsealed = Unsealed::new(&checked, &self.root, now, terms).unwrap();
        let signed = self.vault.sign(call(), &self.login, &self.key, unsealed.input()).await.unwrap();
        Credential::new(unsealed.sealed(&signed))
    }

    async fn check(&self, seal: &Credential) -> Result<Checked, SubjectError> {
        let ask = || self.vault.public_keys(call(), &self.login, &self.key);
        self.subjects.check(seal, Lineage::of(&self.root), self.clock.now(), Some(&ask)).await
    }

    fn asked(&self) -> usize {
        self.vault.count(Operation::PublicKeys)
    }
}

async fn later(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn many_seals_cost_one_question() {
    let stage = Stage::new().await;
    let seal = stage.seal().await;
    stage.vault.set_latency(Duration::from_millis(50));
    let checks = (0..200).map(|_| stage.check(&seal));
    for said in futures_of(checks).await {
        assert_eq!(said.unwrap().subject.id, "ada");
    }
    assert_eq!(stage.asked(), 1);
}

/// Runs them side by side on this task.
async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, said) in &mut all {
            if said.is_none()
                && let std::task::Poll::Ready(value) = one.as_mut().poll(context)
            {
                *said = Some(value);
            }
        }
        match all.iter().all(|(_, said)| said.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, said)| said).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_noticed_at_once_and_a_retirement_soon() {
    let stage = Stage::new().await;
    let old = stage.seal().await;
    stage.check(&old).await.unwrap();
    stage.vault.rotate_transit_key("transit", "tenure-subject");
    let new = stage.seal().await;
    // Upstream was asked just now: the new version has to wait for a moment.
    assert!(matches!(stage.check(&new).await, Err(SubjectError::Refused(_))));
    later(10).await;
    stage.check(&new).await.unwrap();
    assert_eq!(stage.asked(), 2);
    stage.check(&old).await.unwrap();
    stage.vault.retire_transit_key("transit", "tenure-subject", 2);
    stage.check(&old).await.unwrap();
    later(FRESH.as_secs()).await;
    let said = stage.check(&old).await.unwrap_err().to_string();
    assert!(said.contains("versions below 2 were retired"), "{said}");
    stage.check(&new).await.unwrap();
    assert_eq!(stage.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_for_an_hour_and_asked_about_now_and_then() {
    let stage = Stage::new().await;
    let seal = stage.seal().await;
    stage.check(&seal).await.unwrap();
    stage.vault.fail(Class::Transient);
    later(FRESH.as_secs()).await;
    for _ in 0..50 {
        stage.check(&seal).await.unwrap();
    }
    assert_eq!(stage.asked(), 2);
    later(LONGEST.as_secs() - FRESH.as_secs()).await;
    for _ in 0..50 {
        assert!(matches!(stage.check(&seal).await, Err(SubjectError::Unavailable(_))));
    }
    assert_eq!(stage.asked(), 3);
    stage.vault.recover();
    later(10).await;
    stage.check(&seal).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_configured_is_said() {
    let stage = Stage::new().await;
    let lineage = Lineage::of(&stage.root);
    let now = stage.clock.now();
    let said = stage.subjects.check(&stage.seal().await, lineage, now, None).await.unwrap_err();
    assert!(said.to_string().contains("[subject.seal]"));
    let said =
        stage.subjects.check(&Credential::new("eyJ.a.b".into()), lineage, now, None).await.unwrap_err();
    assert!(said.to_string().contains("[[subject.issuer]]"));
    let said = stage.check(&Credential::new("tns1.x".into())).await.unwrap_err();
    assert!(said.to_string().contains("four parts"));
    assert_eq!(stage.asked(), 0);
}
