//! Performs the calls of our own tokens: the login token and the run token.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::Instrument as _;

use super::busy::Busy;
use super::journal::{Journal, TokenKind};
use crate::audit::{Audit, Entry, Event, RunStamp};
use crate::clock::{Clock, Moment, Until};
use crate::lease::failure::{Class, Failure};
use crate::lease::keeper::{Performer, Refusal, TokenKeeper};
use crate::lease::state::{Call, Outcome};
use crate::lease::upstream::{BoxFuture, CallId, Life, Login, Minted, Source, Token, TokenSpec};
use crate::run::{Boot, Run};

/// What every performer needs to make a call and to tell of it.
pub(super) struct Context {
    pub(super) source: Arc<dyn Source>,
    pub(super) audit: Audit,
    pub(super) journal: Journal,
    pub(super) boot: Boot,
    pub(super) clock: Clock,
    pub(super) run: Arc<Run>,
    pub(super) stamp: Arc<RunStamp>,
    /// When the run must be over, as of now.
    pub(super) deadline: Mutex<Option<Until>>,
    /// How long a call waits for the token that it is to be made with.
    pub(super) patience: Duration,
    /// Counts the calls that are under way.
    pub(super) busy: Busy,
    /// Counts the leases that are replaced by new ones.
    pub(super) rotations: Arc<AtomicU64>,
}

impl Context {
    pub(super) fn deadline(&self) -> Option<Until> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn extend(&self, until: Until) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    pub(super) fn call(&self) -> CallId {
        self.boot.call(&self.run.id)
    }

    /// Notes how a call went, with whatever `more` adds.
    pub(super) fn note<'a, T>(
        &'a self,
        event: Event,
        call: &'a CallId,
        result: &'a Result<T, Failure>,
        more: impl FnOnce(Entry<'a>, &'a T) -> Entry<'a>,
    ) {
        match result {
            Ok(value) => {
                let entry = Entry::done(event).run(&self.stamp).request(&call.request);
                self.audit.note(&more(entry, value));
            }
            Err(failure) => {
                tracing::warn!(call = %event, request = %call.request, class = failure.class.word(), "{failure}");
                self.audit.note(&Entry::failed(event, failure).run(&self.stamp).request(&call.request));
            }
        }
    }

    /// Takes a new token into the journal; one that cannot be recorded is revoked and not used.
    async fn recorded(&self, minted: Minted<Token>, kind: TokenKind) -> Result<Minted<Arc<Token>>, Failure> {
        // What is lent is not for the next start to revoke.
        let recorded = match minted.payload.lent {
            true => Ok(()),
            false => self.journal.record(&minted.payload, kind).await,
        };
        let Err(error) = recorded else {
            let Minted { payload, sent, life } = minted;
            return Ok(Minted { payload: Arc::new(payload), sent, life });
        };
        let revoked = self.source.revoke_token(self.call(), &minted.payload).await;
        tracing::error!(%error, revoked = revoked.is_ok(), "a token that cannot be recorded is not used");
        Err(Failure::new(
            Class::Transient,
            format!("the token could not be recorded and was given up: {error}"),
        ))
    }

    /// Revokes a token by itself. One that upstream does not know any more counts as revoked.
    async fn revoke(&self, token: &Token, what: &'static str) -> Result<(), Failure> {
        let call = self.call();
        let result = self.source.revoke_token(call.clone(), token).await;
        self.note(Event::RevokeRequested, &call, &result, |entry, ()| entry.detail(what));
        result
    }

    fn confirmed(&self, what: &str) {
        self.audit.note(&Entry::done(Event::RevokeConfirmed).run(&self.stamp).detail(what));
    }

    fn unconfirmed(&self, what: &str, why: &Failure) {
        tracing::warn!("it is not known whether the {what} is revoked: {why}");
        self.audit.note(&Entry::failed(Event::RevokeUnconfirmed, why).run(&self.stamp).detail(what));
    }
}

/// What the log lines of a keeper's call are said in: for which run, and of what. It is no reader's, who may have gone away
/// meanwhile.
pub(super) fn span<P>(context: &Context, call: &Call<P>, of: &str) -> tracing::Span {
    let word = match call {
        Call::Mint { .. } => "mint",
        Call::Renew { .. } => "renew",
        Call::Check { .. } => "check",
        Call::Revoke { .. } => "revoke",
    };
    tracing::info_span!("upstream", call = word, of, run = %context.run.id)
}

/// When a grant ends, for its audit line.
pub(super) fn ends<P>(minted: &Minted<P>) -> Option<Moment> {
    match minted.life {
        Life::Leased { ttl, .. } => Some(minted.sent.plus(ttl)),
        Life::Static { .. } => None,
    }
}

/// The failure that a refusal by a token's keeper means for whoever needs the token.
pub(super) fn refused(what: &str, refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Failed { failure, retry_in } => {
            let mut failure = Failure::clone(&failure);
            failure.retry_after = failure.retry_after.or(Some(retry_in));
            failure
        }
        Refusal::TooLong { reach } => Failure::new(
            Class::Permanent,
            format!("the {what} cannot live longer than {}", humantime::format_duration(reach)),
        ),
        Refusal::Over => {
            Failure::new(Class::Transient, format!("the {what} has been given up: the broker is stopping"))
        }
        Refusal::TimedOut { phase } => {
            Failure::new(Class::Transient, format!("there is no {what} yet (its state: {phase})"))
        }
    }
}

/// The login token.
pub(super) struct LoginPerformer {
    pub(super) login: Arc<dyn Login>,
    pub(super) context: Arc<Context>,
}

impl Performer<Arc<Token>> for LoginPerformer {
    fn perform(&self, call: Call<Arc<Token>>) -> BoxFuture<'static, Outcome<Arc<Token>>> {
        let (login, context) = (Arc::clone(&self.login), Arc::clone(&self.context));
        let span = span(&context, &call, "login token");
        let performed = async move {
            let _call = context.busy.begin();
            match call {
                Call::Mint { .. } => Outcome::Minted(log_in(&*login, &context).await),
                Call::Renew { payload, ask, .. } => {
                    Outcome::Renewed(renew(&context, &payload, ask, "login token").await)
                }
                Call::Check { payload } => Outcome::Checked(check(&context, &payload).await),
                Call::Revoke { payload } => Outcome::Revoked(end_login(&context, &payload).await),
            }
        };
        Box::pin(performed.instrument(span))
    }
}

async fn log_in(login: &dyn Login, context: &Context) -> Result<Minted<Arc<Token>>, Failure> {
    let call = context.call();
    let result = login.login(call.clone()).await;
    context.note(Event::Login, &call, &result, |entry, minted| entry.expires(ends(minted)));
    context.recorded(result?, TokenKind::Login).await
}

async fn renew(
    context: &Context,
    token: &Token,
    ask: Duration,
    what: &'static str,
) -> Result<crate::lease::upstream::Renewed, Failure> {
    let call = context.call();
    let result = context.source.renew_token(call.clone(), token, Some(ask)).await;
    // A refused renewal of a token says nothing else than a look-up would: ask that.
    let result = match result {
        Err(failure) if failure.class == Class::Forbidden => Err(match check(context, token).await {
            Err(lookup) if lookup.class == Class::TokenLost => failure.decided(Class::TokenLost),
            Ok(()) => failure.decided(Class::Denied),
            Err(_) => failure.decided(Class::Transient),
        }),
        other => other,
    };
    let event = if what == "login token" { Event::LoginRenew } else { Event::Renew };
    context.note(event, &call, &result, |entry, renewed| {
        entry.expires(renewed.sent.plus(renewed.ttl)).detail(what)
    });
    result
}

async fn check(context: &Context, token: &Token) -> Result<(), Failure> {
    let call = context.call();
    let result = context.source.lookup_token(call.clone(), token).await;
    if let Err(failure) = &result
        && failure.class == Class::TokenLost
    {
        context
            .audit
            .note(&Entry::failed(Event::TokenLost, failure).run(&context.stamp).request(&call.request));
    }
    result
}

async fn end_login(context: &Context, token: &Token) -> Result<(), Failure> {
    if token.lent {
        let entry = Entry::done(Event::LoginEnd).run(&context.stamp);
        context.audit.note(&entry.detail("not revoked: the login token is somebody else's"));
        return Ok(());
    }
    context.revoke(token, "login token").await?;
    match context.source.lookup_token(context.call(), token).await {
        Err(failure) if failure.class == Class::TokenLost => context.confirmed("login token"),
        Ok(()) => return Err(Failure::new(Class::Transient, "upstream still knows the login token")),
        Err(failure) if failure.class == Class::Transient => return Err(failure),
        Err(failure) => context.unconfirmed("login token", &failure),
    }
    context.journal.settle(&token.accessor).await;
    Ok(())
}

/// The leases that hang off a run's token, until each one's own end: what a revocation must be seen to have ended.
#[derive(Debug, Default)]
pub(super) struct LeaseIds {
    known: Mutex<Known>,
    /// Those that were alive when the run's end began. Upstream may be late in ending them, and each is looked for until
    /// it is gone, whatever its own end.
    ending: OnceLock<Vec<(Arc<str>, Arc<Token>)>>,
}

/// By the lease's id: each renewal looks its own up, and there may be ten thousand.
#[derive(Debug, Default)]
struct Known {
    leases: BTreeMap<Arc<str>, LeaseOf>,
    /// With so many, those that are over are let go of.
    full: usize,
}

/// What is known of a lease: the token that it hangs off, of which a run that was extended has two for a while.
#[derive(Debug)]
struct LeaseOf {
    token: Arc<Token>,
    until: Until,
}

impl LeaseIds {
    pub(super) fn add(&self, id: &Arc<str>, token: &Arc<Token>, until: Until, now: Moment) {
        let mut known = self.known();
        if known.leases.len() >= known.full {
            known.leases.retain(|_, lease| !lease.until.is_over(now));
            known.full = 2 * known.leases.len() + 4;
        }
        known.leases.insert(Arc::clone(id), LeaseOf { token: Arc::clone(token), until });
    }

    pub(super) fn extend(&self, lease_id: &str, until: Until) {
        if let Some(known) = self.known().leases.get_mut(lease_id) {
            known.until = until;
        }
    }

    /// The leases that end with `token`.
    fn ending(&self, token: &Arc<Token>, now: Moment) -> Vec<Arc<str>> {
        let all = self.ending.get_or_init(|| {
            let known = self.known();
            let alive = known.leases.iter().filter(|(_, lease)| !lease.until.is_over(now));
            alive.map(|(id, lease)| (Arc::clone(id), Arc::clone(&lease.token))).collect()
        });
        all.iter().filter(|(_, of)| Arc::ptr_eq(of, token)).map(|(id, _)| Arc::clone(id)).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run's token is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token role.
    pub role: Arc<str>,
    /// Its policies, where not all that the token role allows.
    pub policies: Vec<String>,
    /// The token role's namespace; `None`: the broker's own.
    pub namespace: Option<Arc<str>>,
}

/// The run token.
pub(super) struct RunPerformer {
    pub(super) grant: Arc<Grant>,
    /// Its time to live where the run has no deadline.
    pub(super) ttl: Duration,
    pub(super) login: TokenKeeper,
    pub(super) leases: Arc<LeaseIds>,
    pub(super) context: Arc<Context>,
}

impl Performer<Arc<Token>> for RunPerformer {
    fn perform(&self, call: Call<Arc<Token>>) -> BoxFuture<'static, Outcome<Arc<Token>>> {
        let run = RunToken {
            grant: Arc::clone(&self.grant),
            ttl: self.ttl,
            login: self.login.clone(),
            leases: Arc::clone(&self.leases),
            context: Arc::clone(&self.context),
        };
        let span = span(&run.context, &call, "run token");
        let performed = async move {
            let _call = run.context.busy.begin();
            match call {
                Call::Mint { .. } => Outcome::Minted(run.make().await),
                Call::Renew { payload, ask, .. } => {
                    Outcome::Renewed(renew(&run.context, &payload, ask, "run token").await)
                }
                Call::Check { payload } => Outcome::Checked(check(&run.context, &payload).await),
                Call::Revoke { payload } => Outcome::Revoked(run.end(&payload).await),
            }
        };
        Box::pin(performed.instrument(span))
    }
}

use RunPerformer as RunToken;

impl RunToken {
    async fn make(&self) -> Result<Minted<Arc<Token>>, Failure> {
        let context = &self.context;
        // Waiting for the login takes its time, too: what is left is counted after it.
        let login = self.login.get(Duration::ZERO, context.patience).await;
        login.map_err(|refusal| refused("login token", refusal))?;
        let deadline = context.deadline();
        let ttl = deadline.map_or(self.ttl, |deadline| deadline.left(context.clock.now()));
        if ttl < Duration::from_secs(1) {
            return Err(Failure::new(
                Class::Permanent,
                "the run's deadline has passed: it gets no token any more",
            ));
        }
        let mut meta = context.run.metadata();
        let head = context.audit.head();
        meta.insert("boot".to_owned(), context.boot.id().to_owned());
        meta.insert("audit_seq".to_owned(), head.seq.to_string());
        meta.insert("audit_head".to_owned(), head.hash.to_string());
        meta.insert("audit_began".to_owned(), context.audit.began().pin());
        let ttl = Duration::from_secs(ttl.as_secs());
        let Grant { role, policies, namespace } = &*self.grant;
        let spec = TokenSpec {
            role: role.to_string(),
            policies: policies.clone(),
            namespace: namespace.clone(),
            ttl,
            renewable: deadline.is_none(),
            meta,
        };
        let call = context.call();
        let (calling, wanted) = (&call, &spec);
        let create = |login: Arc<Token>| async move {
            context.source.create_token(calling.clone(), &login, wanted).await
        };
        let result = with_login(&self.login, context.patience, create).await;
        context.note(Event::RunStart, &call, &result, |entry, minted| {
            entry.detail(&spec.role).expires(ends(minted))
        });
        let minted = result?;
        if !minted.payload.orphan {
            tracing::warn!(
                role = &**role,
                "the run token is not an orphan: it ends with the login token; set orphan=true on the token role"
            );
        }
        context.recorded(minted, TokenKind::Run).await
    }

    /// Revokes the token and, with the login token's right to look, sees that it and its leases are gone.
    async fn end(&self, token: &Arc<Token>) -> Result<(), Failure> {
        let context = &self.context;
        let leases = self.leases.ending(token, context.clock.now());
        let leases = &*leases;
        context.revoke(token, "run token").await?;
        let seen = with_login(&self.login, context.patience, |login| async move {
            self.seen_gone(&login, token, leases).await
        })
        .await;
        match seen {
            Ok(leases) => context.confirmed(&format!("run token and {leases} leases")),
            Err(failure) if failure.class == Class::Transient => return Err(failure),
            Err(failure) => context.unconfirmed("run token", &failure),
        }
        context.journal.settle(&token.accessor).await;
        Ok(())
    }

    async fn seen_gone(&self, login: &Token, token: &Token, leases: &[Arc<str>]) -> Result<usize, Failure> {
        let (context, namespace) = (&self.context, token.namespace.as_deref());
        if context.source.accessor_lives(context.call(), login, namespace, &token.accessor).await? {
            return Err(Failure::new(Class::Transient, "upstream still knows the run token"));
        }
        // Upstream revokes the leases of a revoked token by itself, a little later.
        for lease_id in leases {
            let mut tries = 0;
            while context.source.lease_lives(context.call(), login, namespace, lease_id).await? {
                tries += 1;
                if tries == 5 {
                    return Err(Failure::new(
                        Class::Transient,
                        format!("upstream still knows the lease {lease_id}"),
                    ));
                }
                tokio::time::sleep(Duration::from_millis(20 << tries)).await;
            }
        }
        Ok(leases.len())
    }
}

/// Asks with the login token; should that one turn out to be lost, once more with the next. A login token is used so
/// rarely that this may be the first use since it was lost.
pub(super) async fn with_login<T, F>(
    login: &TokenKeeper,
    patience: Duration,
    ask: impl Fn(Arc<Token>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut again = true;
    loop {
        let taken = login.get(Duration::ZERO, patience).await;
        let failure = match taken.map(|taken| taken.held) {
            Ok(held) => match ask(Arc::clone(&held.payload)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => login.decide(held.seq, failure, patience).await,
            },
            Err(refusal) => refused("login token", refusal),
        };
        match failure.class {
            Class::TokenLost if again => again = false,
            Class::TokenLost => return Err(failure.decided(Class::Transient)),
            _ => return Err(failure),
        }
    }
}
