//! What hangs off a run's token: the token itself, its leases, and who shares them.

use std::sync::Arc;
use std::time::Duration;

use super::Runs;
use super::active::{Active, Registrant, Secrets};
use super::leases::Leases;
use super::life::Life;
use super::tokens::{Context, Grant, LeaseIds, RunPerformer};
use crate::backoff::Backoff;
use crate::clock::Until;
use crate::lease::keeper::{Keeper, TokenKeeper};
use crate::lease::state::Terms;
use crate::run::{Kind, Run};

/// What hangs off a run's token.
pub struct Work {
    /// What its token is made from, and the token's keeper; `None` where leases hang off the login token.
    pub token: Option<(Arc<Grant>, TokenKeeper)>,
    /// The keeper of the token that leases hang off.
    pub parent: TokenKeeper,
    /// The leases.
    pub leases: Leases,
    pub(super) context: Arc<Context>,
}

/// The terms of our own tokens.
pub(super) fn token_terms(until: Option<Until>) -> Terms {
    Terms {
        keep: true,
        revocable: true,
        fresh: Duration::ZERO,
        stale: Duration::ZERO,
        backoff: Backoff::UPSTREAM,
        until,
    }
}

impl Runs {
    /// The run's token and leases; they begin with the first read.
    pub fn work<'a>(&self, active: &'a Arc<Active>) -> &'a Arc<Work> {
        active.work_or(|| if active.shares() { self.shared_work(active) } else { self.start_work(active) })
    }

    fn start_work(&self, active: &Active) -> Arc<Work> {
        let common = &self.common;
        let grant = match &active.rule {
            Some(rule) => Some(Arc::new(Grant {
                role: Arc::clone(&rule.token_role),
                policies: rule.policies.clone(),
                namespace: rule.namespace.clone(),
            })),
            None => common.own_token.clone(),
        };
        let context = common.context(active);
        let minted = Arc::new(LeaseIds::default());
        let token = grant.map(|grant| {
            let performer = Arc::new(RunPerformer {
                grant: Arc::clone(&grant),
                ttl: common.token_ttl,
                login: self.login.clone(),
                leases: Arc::clone(&minted),
                context: Arc::clone(&context),
            });
            let terms = token_terms(context.deadline());
            let keeper =
                Keeper::start("run", terms, None, performer, common.clock.clone(), &common.supervisor);
            common.supervisor.spawn("login watch", retry_after_login(self.login.clone(), keeper.clone()));
            (grant, keeper)
        });
        let parent = token.as_ref().map_or_else(|| self.login.clone(), |(_, token)| token.clone());
        let leases = Leases::new(
            active.number,
            Arc::clone(&self.pool),
            parent.clone(),
            minted,
            self.values.clone(),
            Arc::clone(&context),
            common.supervisor.clone(),
        );
        Arc::new(Work { token, parent, leases, context })
    }

    /// What runs of the same rule share: the token and the leases of a run of its own, which ends with the last of them.
    fn shared_work(&self, active: &Active) -> Arc<Work> {
        let Some(rule) = &active.rule else { return self.start_work(active) };
        let mut shared = self.shared();
        if let Some((work, users)) = shared.get_mut(&rule.name) {
            *users += 1;
            return Arc::clone(work);
        }
        let mut run = Run::new(Arc::clone(&active.run.id), Kind::Process);
        run.tags = Box::new([("shared_by".into(), rule.name.as_str().into())]);
        let life = Life::new(self.own.deadline(), None);
        let number = self.number();
        let made = Run::new_id().ok().and_then(|id| {
            run.id = id;
            let rule = Some(Arc::clone(rule));
            let now = self.common.clock.now();
            Active::new(run, number, Registrant::Own, rule, life, now, Secrets::default()).ok()
        });
        // Without randomness for an id it has a token of its own.
        let work = self.start_work(made.as_ref().unwrap_or(active));
        if made.is_some() {
            shared.insert(rule.name.clone(), (Arc::clone(&work), 1));
        }
        work
    }

    /// A run that shares what it has with others of its rule is over. Returns whether nobody else uses that any more.
    pub(super) fn leaves_as_the_last(&self, active: &Active) -> bool {
        let Some(rule) = &active.rule else { return true };
        let mut shared = self.shared();
        let Some((_, users)) = shared.get_mut(&rule.name) else { return true };
        *users = users.saturating_sub(1);
        *users == 0 && shared.remove(&rule.name).is_some()
    }
}

impl Work {
    pub(super) fn thawed(&self) {
        if let Some((_, token)) = &self.token {
            token.thawed();
        }
        for entry in self.leases.all() {
            entry.keeper.thawed();
        }
    }

    /// One revocation ends all. Without a token of its own the leases end with the login token.
    pub(super) fn end(&self) {
        self.leases.end();
        if let Some((_, token)) = &self.token {
            token.request_end();
        }
    }
}

/// With each new login the run token is tried again at once: that there was none may be all that stood in its way.
async fn retry_after_login(login: TokenKeeper, token: TokenKeeper) {
    let mut watch = login.watch();
    let mut ends = token.watch();
    let mut logins = 0;
    loop {
        let view = watch.see();
        if view.ended || ends.see().ended {
            return;
        }
        if view.seq > logins {
            logins = view.seq;
            token.retry();
        }
        tokio::select! {
            () = watch.changed() => {}
            () = ends.changed() => {}
        }
    }
}
