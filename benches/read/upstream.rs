//! An upstream that answers at once and keeps nothing: what is measured is the broker's time and memory, not its own.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure::clock::Clock;
use tenure::lease::failure::Failure;
use tenure::lease::upstream::{
    Answer, BoxFuture, CallId, Life, Login, Minted, PublicKeys, ReadKey, Renewed, Signed, Source, Token,
    TokenSpec, TransitKey,
};
use tenure::secret::{Credential, Secret};

/// Longer than any measurement.
const TTL: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
pub(crate) struct Instant(pub(crate) Clock);

impl Instant {
    fn minted<P>(&self, payload: P) -> Minted<P> {
        Minted { payload, sent: self.0.now(), life: Life::Leased { ttl: TTL, renewable: true } }
    }

    fn token(&self) -> Minted<Token> {
        self.minted(Token {
            credential: Credential::new("hvs.CAESIJ2xKqGzvXlR".into()),
            accessor: "0e9e354a520df04867c874cd6a1ee8d0".into(),
            policies: vec!["default".into(), "orders".into()],
            orphan: true,
            lent: false,
            namespace: None,
            made: None,
        })
    }

    fn renewed(&self) -> Renewed {
        Renewed { sent: self.0.now(), ttl: TTL, renewable: true }
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

fn at_once<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Login for Instant {
    fn login(&self, _: CallId) -> BoxFuture<'_, Result<Minted<Token>, Failure>> {
        at_once(Ok(self.token()))
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
        at_once(Ok(self.token()))
    }

    fn renew_token<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        at_once(Ok(self.renewed()))
    }

    fn lookup_token<'a>(&'a self, _: CallId, _: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        at_once(Ok(()))
    }

    fn revoke_token<'a>(&'a self, _: CallId, _: &'a Token) -> BoxFuture<'a, Result<(), Failure>> {
        at_once(Ok(()))
    }

    fn revoke_accessor<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        at_once(Ok(()))
    }

    fn accessor_lives<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        at_once(Ok(false))
    }

    fn lease_lives<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        at_once(Ok(false))
    }

    fn read<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        key: &'a ReadKey,
    ) -> BoxFuture<'a, Result<Minted<Answer>, Failure>> {
        at_once(Ok(self.minted(answer(&key.path))))
    }

    fn renew_lease<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Renewed, Failure>> {
        at_once(Ok(self.renewed()))
    }

    fn sign<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TransitKey,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Signed, Failure>> {
        at_once(Ok(Signed { version: 1, signature: [0; 64] }))
    }

    fn public_keys<'a>(
        &'a self,
        _: CallId,
        _: &'a Token,
        _: &'a TransitKey,
    ) -> BoxFuture<'a, Result<PublicKeys, Failure>> {
        at_once(Ok(PublicKeys { least: 1, keys: BTreeMap::new(), sent: self.0.now() }))
    }

    fn forget_connections(&self) {}
}
