use super::*;
use crate::lease::upstream::Life;
use crate::run::Boot;

struct Stand {
    vault: DevVault,
    boot: Boot,
}

impl Stand {
    fn new() -> Self {
        let vault = DevVault::new(Clock::simulated(), DevConfig::default());
        vault.token_role("run", TokenRole::orphan(&["database/creds/", "secret/"]));
        vault.token_role("child", TokenRole { orphan: false, ..TokenRole::orphan(&["database/creds/"]) });
        vault.database_role("orders", DatabaseRole { ttl: secs(60), max_ttl: secs(150) });
        Self { vault, boot: Boot::new().expect("entropy") }
    }

    fn call(&self) -> CallId {
        self.boot.call(&"run-1".into())
    }

    async fn login(&self) -> Token {
        self.vault.login(self.call()).await.expect("login").payload
    }

    async fn token(&self, login: &Token, role: &str, ttl: u64) -> Token {
        let spec = TokenSpec {
            role: role.into(),
            policies: Vec::new(),
            namespace: None,
            ttl: secs(ttl),
            renewable: true,
            meta: Default::default(),
        };
        self.vault.create_token(self.call(), login, &spec).await.expect("token").payload
    }

    async fn read(&self, token: &Token, path: &str) -> Result<Minted<Answer>, Failure> {
        let key = ReadKey { path: path.into(), query: "".into(), list: false };
        self.vault.read(self.call(), token, &key).await
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_renewal_reaches_to_the_maximum_and_no_further() {
    let stand = Stand::new();
    let login = stand.login().await;
    let token = stand.token(&login, "run", 3600).await;
    let lease = stand.read(&token, "database/creds/orders").await.expect("minted");
    assert_eq!(lease.life, Life::Leased { ttl: secs(60), renewable: true });
    let id = lease.payload.lease_id;
    for (after, granted) in [(50, 60), (50, 50), (40, 10)] {
        tokio::time::sleep(secs(after)).await;
        let renewed = stand.vault.renew_lease(stand.call(), &token, &id, secs(60)).await.expect("renewed");
        assert_eq!(renewed.ttl, secs(granted));
    }
    assert_eq!(stand.vault.alive(), 1);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(stand.vault.alive(), 0);
    let gone = stand.vault.renew_lease(stand.call(), &token, &id, secs(60)).await.expect_err("gone");
    assert_eq!(gone.class, Class::LeaseGone);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_off_a_token_ends_with_it_and_an_orphan_outlives_its_maker() {
    let stand = Stand::new();
    let login = stand.login().await;
    let (orphan, child) = (stand.token(&login, "run", 600).await, stand.token(&login, "child", 600).await);
    let user = |_| stand.vault.leases().last().map(|lease| lease.username.clone()).expect("a lease");
    let of_orphan = stand.read(&orphan, "database/creds/orders").await.map(user).expect("minted");
    let of_child = stand.read(&child, "database/creds/orders").await.map(user).expect("minted");
    stand.vault.revoke_token(stand.call(), &login).await.expect("revoked");
    assert!(stand.vault.is_alive(&of_orphan) && !stand.vault.is_alive(&of_child));
    let lost = stand.vault.lookup_token(stand.call(), &child).await.expect_err("lost");
    assert_eq!(lost.class, Class::TokenLost);
    let refused = stand.read(&child, "database/creds/orders").await.expect_err("refused");
    assert_eq!((refused.class, refused.status), (Class::Forbidden, Some(403)));
    let login = stand.login().await;
    stand.vault.revoke_accessor(stand.call(), &login, None, &orphan.accessor).await.expect("revoked");
    assert_eq!(stand.vault.alive(), 0);
    assert!(!stand.vault.accessor_lives(stand.call(), &login, None, &orphan.accessor).await.expect("asked"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_takes_its_leases_along() {
    let stand = Stand::new();
    let login = stand.login().await;
    let token = stand.token(&login, "run", 20).await;
    stand.read(&token, "database/creds/orders").await.expect("minted");
    tokio::time::sleep(secs(20)).await;
    assert_eq!((stand.vault.alive(), stand.vault.tokens().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_role_reads_what_it_allows() {
    let stand = Stand::new();
    let login = stand.login().await;
    assert_eq!(stand.vault.put("app", serde_json::json!({ "key": "one" })), 1);
    assert_eq!(stand.vault.put("app", serde_json::json!({ "key": "two" })), 2);
    let (run, child) = (stand.token(&login, "run", 600).await, stand.token(&login, "child", 600).await);
    let value = stand.read(&run, "secret/data/app").await.expect("read");
    assert_eq!((value.payload.version, &*value.payload.mount_type), (Some(2), "kv"));
    assert_eq!(value.life, Life::Static { keep: true });
    for (token, path, class) in [
        (&child, "secret/data/app", Class::Forbidden),
        (&login, "secret/data/app", Class::Forbidden),
        (&run, "secret/data/none", Class::NotFound),
        (&run, "database/creds/none", Class::Permanent),
    ] {
        assert_eq!(stand.read(token, path).await.expect_err("refused").class, class, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_switches_do_what_they_say_and_the_log_tells_of_each_call() {
    let stand = Stand::new();
    let login = stand.login().await;
    let token = stand.token(&login, "run", 600).await;
    stand.vault.clear_calls();
    stand.vault.fail_next(1, Class::Transient);
    assert_eq!(stand.read(&token, "database/creds/orders").await.expect_err("off").status, Some(503));
    stand.vault.lose_answers(1);
    assert_eq!(stand.read(&token, "database/creds/orders").await.expect_err("lost").class, Class::Transient);
    assert_eq!(stand.vault.alive(), 1, "it was made all the same");
    stand.vault.hang();
    let started = tokio::time::Instant::now();
    assert_eq!(stand.read(&token, "database/creds/orders").await.expect_err("hangs").class, Class::Transient);
    assert_eq!(started.elapsed(), secs(10));
    stand.vault.recover();
    stand.vault.set_latency(secs(2));
    let minted = stand.read(&token, "database/creds/orders").await.expect("recovered");
    assert_eq!(started.elapsed(), secs(12));
    let calls = stand.vault.calls();
    let outcomes: Vec<_> = calls.iter().filter_map(|call| call.outcome).collect();
    let failed = Err(Class::Transient);
    assert_eq!(outcomes, [failed, failed, failed, Ok(())]);
    assert_eq!(calls[3].at, minted.sent, "a life is counted from when it was asked for");
}
