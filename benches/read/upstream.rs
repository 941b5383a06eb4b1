//! An upstream that answers at once, or after a while that is stated, and keeps nothing but counts of what it was asked:
//! what is measured is the broker's time and memory, not its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenure::app::Upstream;
use tenure::clock::Clock;
use tenure::lease::failure::Failure;
use tenure::lease::upstream::{
    Answer, BoxFuture, CallId, DataKey, Life, Login, Minted, PublicKeys, ReadKey, Renewed, Signed, Source,
    Token, TokenSpec, TransitKey,
};
use tenure::secret::{Credential, Secret};

/// Longer than any measurement.
const TTL: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
pub(crate) struct Instant {
    pub(crate) clock: Clock,
    /// How long each answer takes.
    pub(crate) latency: Duration,
    /// How long a secret lives, from when it was made or renewed.
    pub(crate) ttl: Duration,
    pub(crate) calls: Arc<Calls>,
}

/// How often it was asked.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) created: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) revoked: AtomicU64,
    /// To renew a secret.
    pub(crate) renewed: AtomicU64,
    /// For a login, the renewal of a token, a look.
    pub(crate) other: AtomicU64,
}

impl Instant {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), latency: Duration::ZERO, ttl: TTL, calls: Arc::default() }
    }

    /// It, with nothing beside it.
    pub(crate) fn as_upstream(&self) -> Upstream {
        let upstream = Arc::new(self.clone());
        Upstream::new(Arc::clone(&upstream) as _, upstream)
    }

    fn answer<'a, T: Send + 'a>(&self, asked: &AtomicU64, value: T) -> BoxFuture<'a, T> {
        asked.fetch_add(1, Ordering::Relaxed);
        let latency = self.latency;
        if latency.is_zero() {
            return Box::pin(std::future::ready(value));
        }
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            value
        })
    }

    fn minted<P>(&self, payload: P, ttl: Duration) -> Minted<P> {
        Minted { payload, sent: self.clock.now(), life: Life::Leased { ttl, renewable: true } }
    }

    fn token(&self) -> Minted<Token> {
        let token = Token {
            credential: Credential::new("hvs.CAESIJ2xKqGzvXlR".into()),
            accessor: "0e9e354a520df04867c874cd6a1ee8d0".into(),
            policies: vec!["default".into(), "orders".into()],
            orphan: true,
            lent: false,
            namespace: None,
            made: None,
        };
        self.minted(token, TTL)
    }

    fn renewed(&self, ttl: Duration) -> Renewed {
        Renewed { sent: self.clock.now(), ttl, renewable: true }
    }
}

/// An answer as Vault's database engine gives it.
pub(crate) fn answer(path: &str) -> Answer {
    let name = path.rsplit('/').next().unwrap_or_default();
    let data =
        format!(r#"{{"password":"9-QxpRX6VgZqNcdHPZyt","username":"v-token-{name}-mGdpVzPHcqbTJr81JF"}}"#);
    Answer {
        request_id: "5a4e53e5-d2c9-3b5e-9b1b-6a0a9c2b6c3f".into(),
        lease_id: format!("{path}/hvJ6rZ0mV1cQ5u7dXw2kLb3N").into(),
        data: Secret::new(data.into_bytes()),
        warnings: Vec::new(),
        mount_type: "database".into(),
        version: None,
    }
}

impl Login for Instant {
    fn login(&self, _: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        self.answer(&self.calls.other, Ok(self.token()))
    }

    fn describe(&self) -> String {
        "an upstream that answers at once".into()
    }
}

impl Source for Instant {
    fn create_token<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TokenSpec,
    ) -> BoxFuture<'a, Result<Minted<Token>, Failure>> {
        self.answer(&self.calls.created, Ok(self.token()))
    }

    fn renew_token<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        self.answer(&self.calls.other, Ok(self.renewed(TTL)))
    }

    fn lookup_token<'a>(&'a self, _: CallId, _: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        self.answer(&self.calls.other, Ok(()))
    }

    fn revoke_token<'a>(&'a self, _: CallId, _: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        self.answer(&self.calls.revoked, Ok(()))
    }

    fn revoke_accessor<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.answer(&self.calls.revoked, Ok(()))
    }

    fn accessor_lives<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        self.answer(&self.calls.other, Ok(false))
    }

    fn lease_lives<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        self.answer(&self.calls.other, Ok(false))
    }

    fn read<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        key: &'a ReadKey,
    ) -> BoxFuture<'a, Result<Minted<Answer>, Failure>> {
        self.answer(&self.calls.read, Ok(self.minted(answer(&key.path), self.ttl)))
    }

    fn renew_lease<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        self.answer(&self.calls.renewed, Ok(self.renewed(self.ttl)))
    }

    fn sign<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TransitKey,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Signed, Failure>> {
        self.answer(&self.calls.other, Ok(Signed { version: 1, signature: [0; 64] }))
    }

    fn public_keys<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TransitKey,
    ) -> BoxFuture<'a, Result<PublicKeys, Failure>> {
        self.answer(
            &self.calls.other,
            Ok(PublicKeys { least: 1, keys: BTreeMap::new(), sent: self.clock.now() }),
        )
    }

    fn data_key<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TransitKey,
    ) -> BoxFuture<'a, Result<Minted<DataKey>, Failure>> {
        let key = DataKey { plain: [0; 32].into(), wrapped: String::new() };
        let life = Life::Static { keep: true };
        self.answer(&self.calls.other, Ok(Minted { payload: key, sent: self.clock.now(), life }))
    }

    fn forget_connections(&self) {}
}
