//! Run tokens in namespaces of their own, on OpenBao: HashiCorp has them in Vault Enterprise only.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tenure::clock::Clock;
use tenure::lease::failure::Class;
use tenure::lease::upstream::{CallId, Life, ReadKey, Source as _, Token, TokenSpec};
use tenure::run::Boot;
use tenure::secret::Credential;
use tenure::source::vault::VaultSource;
use tenure::vault::{VaultClient, VaultConfig};

use crate::harness::{Flavor, Server, text};

/// What the login may do in the namespace: as `tenure-login`, from the root. A token for another namespace than its own
/// is made by those with `sudo` only; what such a token may do is still the role's to say.
const LOGIN: &str = r#"
path "NAMESPACE/auth/token/create/run" { capabilities = ["update", "sudo"] }
path "NAMESPACE/auth/token/revoke-accessor" { capabilities = ["update"] }
path "NAMESPACE/auth/token/lookup-accessor" { capabilities = ["update"] }
path "NAMESPACE/sys/leases/lookup" { capabilities = ["update"] }
"#;

/// What a run token of the namespace may do, by its own policy.
const RUN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/vault/orders.hcl"));

/// A namespace with a token role, a value and a database, and a token of the root that may make run tokens there.
fn prepared(server: &Server, namespace: &str) -> Token {
    let put = |path: &str, body: Value| server.admin("PUT", path, Some(&body)).ok();
    put(&format!("sys/namespaces/{namespace}"), json!({}));
    put(&format!("{namespace}/sys/policies/acl/orders"), json!({ "policy": RUN }));
    let role = json!({ "allowed_policies": ["orders"], "orphan": true, "token_no_default_policy": true });
    put(&format!("{namespace}/auth/token/roles/run"), role);
    put(&format!("{namespace}/sys/mounts/kv1"), json!({ "type": "kv", "options": { "version": "1" } }));
    put(&format!("{namespace}/kv1/orders/config"), json!({ "of": namespace }));
    put(&format!("{namespace}/sys/mounts/database"), json!({ "type": "database" }));
    let (postgres, admin) = (&server.stack["postgres"], &server.stack["openbao"]["database_admin"]);
    let connection = json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}:{}/{}?sslmode=disable",
            text(&postgres["host"]), postgres["port"], text(&postgres["dbname"])
        ),
        "username": admin["user"],
        "password": admin["password"],
        "allowed_roles": ["orders"],
    });
    put(&format!("{namespace}/database/config/orders"), connection);
    let role: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/policies/vault/database-role-orders.json"
    )))
    .expect("JSON");
    put(&format!("{namespace}/database/roles/orders"), role);
    let policy = format!("login-{namespace}");
    put(&format!("sys/policies/acl/{policy}"), json!({ "policy": LOGIN.replace("NAMESPACE", namespace) }));
    let made =
        put("auth/token/create", json!({ "policies": [policy], "no_default_policy": true, "ttl": "5m" }));
    Token {
        credential: Credential::new(text(&made["auth"]["client_token"]).to_owned()),
        accessor: text(&made["auth"]["accessor"]).to_owned(),
        policies: vec![],
        orphan: false,
        lent: false,
        namespace: None,
        made: None,
    }
}

struct Stage {
    source: VaultSource,
    boot: Boot,
    login: Token,
    namespace: Arc<str>,
}

impl Stage {
    fn new(server: &Server, namespace: &str) -> Self {
        let client = VaultClient::new(VaultConfig::new(server.says("address")), Clock::system());
        Self {
            source: VaultSource::new(Arc::new(client.expect("a client"))),
            boot: Boot::new().expect("entropy"),
            login: prepared(server, namespace),
            namespace: namespace.into(),
        }
    }

    fn call(&self) -> CallId {
        self.boot.call(&Arc::from("run-namespaces"))
    }

    fn spec(&self, namespace: &str) -> TokenSpec {
        TokenSpec {
            policies: Vec::new(),
            role: "run".into(),
            ttl: Duration::from_secs(60),
            renewable: true,
            meta: BTreeMap::from([("run".to_owned(), "run-namespaces".to_owned())]),
            namespace: Some(namespace.into()),
        }
    }

    async fn run_token(&self) -> Token {
        let spec = self.spec(&self.namespace);
        self.source.create_token(self.call(), &self.login, &spec).await.expect("a run token").payload
    }

    async fn token_lives(&self, token: &Token) -> bool {
        let namespace = token.namespace.as_deref();
        let lives = self.source.accessor_lives(self.call(), &self.login, namespace, &token.accessor);
        lives.await.expect("an answer")
    }
}

fn key(path: &str) -> ReadKey {
    ReadKey { path: path.into(), query: "".into(), list: false }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn a_run_token_lives_and_ends_in_its_namespace() {
    let server = Flavor::OpenBao.shared();
    let stage = Stage::new(server, "team-life");
    block_on(async {
        let Stage { source, login, .. } = &stage;
        let token = stage.run_token().await;
        assert!(token.orphan && token.policies == ["orders"], "{token:?}");
        // OpenBao names the state after a write, and takes it back with all that follows.
        assert!(token.made.as_ref().is_some_and(|made| made.index.is_some()), "an X-Vault-Index");
        source.lookup_token(stage.call(), &token).await.expect("known");
        source.renew_token(stage.call(), &token, Some(Duration::from_secs(60))).await.expect("renewed");

        let value = source.read(stage.call(), &token, &key("kv1/orders/config")).await.expect("a value");
        assert_eq!(value.life, Life::Static { keep: true });
        let leased = source.read(stage.call(), &token, &key("database/creds/orders")).await.expect("a lease");
        let lease_id = Arc::clone(&leased.payload.lease_id);
        let longer = Duration::from_secs(90);
        source.renew_lease(stage.call(), &token, &lease_id, longer).await.expect("a lease that is renewed");
        let namespace = token.namespace.as_deref();
        let lives = || source.lease_lives(stage.call(), login, namespace, &lease_id);
        assert!(lives().await.expect("an answer") && stage.token_lives(&token).await);

        // The same token is nobody in the root.
        let elsewhere = Token { namespace: None, ..token.clone() };
        let refused = source.read(stage.call(), &elsewhere, &key("kv1/orders/config")).await.unwrap_err();
        assert_eq!(refused.class, Class::Forbidden, "{refused}");

        source.revoke_token(stage.call(), &token).await.expect("revoked");
        assert!(!stage.token_lives(&token).await);
        let lost = source.lookup_token(stage.call(), &token).await.unwrap_err();
        assert_eq!(lost.class, Class::TokenLost, "{lost}");
        for _ in 0..100 {
            if !lives().await.expect("an answer") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the lease outlives its token");
    });
}

#[test]
fn what_a_crash_left_is_revoked_by_its_accessor_in_its_namespace() {
    let server = Flavor::OpenBao.shared();
    let stage = Stage::new(server, "team-crash");
    block_on(async {
        let Stage { source, login, .. } = &stage;
        let token = stage.run_token().await;
        let namespace = token.namespace.as_deref();
        source.revoke_accessor(stage.call(), login, namespace, &token.accessor).await.expect("revoked");
        assert!(!stage.token_lives(&token).await);
        source
            .revoke_accessor(stage.call(), login, namespace, &token.accessor)
            .await
            .expect("once more: no harm");
    });
}

#[test]
fn what_the_namespace_refuses_is_named_with_its_cure() {
    let server = Flavor::OpenBao.shared();
    let stage = Stage::new(server, "team-refused");
    let refused = |namespace: &'static str| {
        let (spec, stage) = (stage.spec(namespace), &stage);
        async move { stage.source.create_token(stage.call(), &stage.login, &spec).await.unwrap_err() }
    };
    block_on(async {
        let nowhere = refused("team-nowhere").await;
        assert!(matches!(nowhere.class, Class::Forbidden | Class::NotFound), "{nowhere}");
        assert!(nowhere.message.contains("namespace team-nowhere"), "{nowhere}");
        let without_sudo = LOGIN.replace("NAMESPACE", "team-refused").replace(r#", "sudo""#, "");
        let policy = json!({ "policy": without_sudo });
        server.admin("PUT", "sys/policies/acl/login-team-refused", Some(&policy)).ok();
        let unprivileged = refused("team-refused").await;
        assert!(unprivileged.message.contains("update and sudo on team-refused/auth"), "{unprivileged}");
    });
}
