//! From a token to a seal and back, over the embedded Vault, as `tenure subject` does it.

use std::sync::Arc;

use serde_json::json;
use tenure::app::Upstream;
use tenure::app::subject::{SubjectFailure, seal, verify};
use tenure::config::{Environment, Overrides, parse};
use tenure::lease::failure::Class;
use tenure::run::arn::ExecutionArn;
use tenure::run::seal::Lineage;
use tenure::secret::Credential;
use tenure::source::dev::{DevConfig, DevVault, Operation};

use super::keys::Key;
use super::provider::Provider;
use super::{NOW, clock};

struct Stage {
    provider: Provider,
    key: Key,
    vault: DevVault,
    upstream: Upstream,
    clock: tenure::clock::Clock,
    config: tenure::config::Subject,
    root: ExecutionArn,
}

async fn stage(more: &str) -> Stage {
    let key = Key::rsa("k", 0);
    let provider = Provider::start(&[&key]).await;
    let clock = clock();
    let vault = DevVault::new(clock.clone(), DevConfig::default());
    vault.rotate_transit_key("transit", "tenure-subject");
    let upstream = Upstream::new(Arc::new(vault.clone()), Arc::new(vault.clone()));
    let text = format!(
        r#"
        [vault]
        address = "https://vault.internal:8200"
        [vault.auth.aws]
        role = "orders"
        [listen.unix]
        path = "/run/tenure/tenure.sock"
        [audit]
        stdout = true
        [subject]
        groups = ["admins"]
        {more}
        [subject.seal]
        [[subject.issuer]]
        url = "{}"
        audiences = ["tenure"]
        allow_loopback_http = true
        "#,
        provider.issuer
    );
    let file = Some(("tenure.toml".as_ref(), text.as_str()));
    let loaded = parse(file, &Environment::default(), &Overrides::default(), clock.now());
    let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config.subject;
    let root = arn("root");
    Stage { provider, key, vault, upstream, clock, config, root }
}

fn arn(name: &str) -> ExecutionArn {
    format!("arn:aws:states:eu-west-1:123456789012:execution:orders:{name}").parse().expect("an ARN")
}

impl Stage {
    fn token(&self) -> Credential {
        Credential::new(self.key.token(&self.provider.claims_with("groups", json!(["staff", "admins"]))))
    }

    async fn seal(&self) -> Result<tenure::app::subject::Sealing, SubjectFailure> {
        seal(&self.config, &self.upstream, &self.clock, &self.token(), &self.root).await
    }

    async fn verify(
        &self,
        text: &str,
        execution: &ExecutionArn,
    ) -> Result<tenure::run::subject::Checked, SubjectFailure> {
        let token = Credential::new(text.to_owned());
        verify(&self.config, &self.upstream, &self.clock, &token, Lineage::of(execution)).await
    }
}

#[tokio::test]
async fn a_token_becomes_a_seal_for_one_execution() {
    let stage = stage("").await;
    let sealing = stage.seal().await.unwrap();
    assert_eq!(sealing.subject.groups, ["admins"]);
    assert_eq!(sealing.expires.as_secs(), NOW + 600, "it ends with its token");
    assert!(sealing.text.starts_with("tns1.") && sealing.text.len() < 1024, "{} bytes", sealing.text.len());
    let said = stage.verify(&sealing.text, &stage.root).await.unwrap();
    assert_eq!((said.subject, said.expires), (sealing.subject, sealing.expires));
    let said = stage.verify(&sealing.text, &arn("other")).await.unwrap_err();
    assert!(said.to_string().contains("another execution"));
    assert!(stage.vault.tokens().is_empty(), "logins are revoked");
    assert_eq!(stage.vault.count(Operation::Login), 3);
}

#[tokio::test]
async fn a_seal_may_outlive_its_token_where_the_start_is_what_counts() {
    let stage = stage("expiry = \"at-start\"").await;
    let sealing = stage.seal().await.unwrap();
    assert_eq!(sealing.expires.as_secs(), NOW + 12 * 3600);
    stage.clock.jump(3_600_000);
    stage.verify(&sealing.text, &stage.root).await.unwrap();
    stage.clock.jump(12 * 3_600_000);
    let said = stage.verify(&sealing.text, &stage.root).await.unwrap_err();
    assert!(said.to_string().contains("has expired"));
}

#[tokio::test]
async fn what_stands_in_the_way_is_said() {
    let stage = stage("").await;
    let text = stage.seal().await.unwrap().text;
    let again = seal(&stage.config, &stage.upstream, &stage.clock, &Credential::new(text), &stage.root).await;
    assert!(again.unwrap_err().to_string().contains("a seal already"));
    stage.vault.clear_calls();
    stage.clock.jump(3_600_000);
    assert!(matches!(stage.seal().await, Err(SubjectFailure::Refused(why)) if why.contains("expired")));
    assert!(stage.vault.calls().is_empty(), "Vault is not asked for a bad token");
    stage.clock.jump(-3_600_000);
    stage.vault.fail(Class::Transient);
    assert!(matches!(stage.seal().await, Err(SubjectFailure::Unavailable(_))));
    stage.vault.recover();
    stage.provider.down();
    assert!(matches!(stage.seal().await, Err(SubjectFailure::Unavailable(_))));
    let mut config = stage.config.clone();
    config.seal = None;
    let said = seal(&config, &stage.upstream, &stage.clock, &stage.token(), &stage.root).await.unwrap_err();
    assert!(said.to_string().contains("[subject.seal]"));
}

#[tokio::test]
async fn a_retired_key_seals_nothing_any_more() {
    let stage = stage("").await;
    let text = stage.seal().await.unwrap().text;
    stage.vault.rotate_transit_key("transit", "tenure-subject");
    stage.verify(&text, &stage.root).await.expect("rotated, not retired");
    stage.vault.retire_transit_key("transit", "tenure-subject", 2);
    let said = stage.verify(&text, &stage.root).await.unwrap_err();
    assert!(said.to_string().contains("versions below 2 were retired"), "{said}");
    let new = stage.seal().await.unwrap().text;
    stage.verify(&new, &stage.root).await.unwrap();
}
