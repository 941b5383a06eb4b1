//! `tenure doctor`: each step from the configuration to a credential, tried in order, and what is wrong with it.
//!
//! Where Vault can be asked without changing anything, it is; where only trying tells (a login, a run token), it is tried
//! for real, and what that made is ended again. No secret is read, so no database user is made.

mod credentials;
mod cure;
mod local;
mod prefetch;
pub mod report;
mod rights;
mod vault;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::report::{Cure, Report, Step};
use super::{Process, client, login};
use crate::clock::Clock;
use crate::config::{Config, Method};
use crate::lease::failure::Failure;
use crate::lease::upstream::{CallId, Source as _, Token};
use crate::run::Boot;
use crate::source::vault::VaultSource;
use crate::vault::{Ask, CONTROL_LIMIT, Reply, VaultClient};

/// The life of the run tokens that are made: longer than their examination takes, should their revocation fail.
const SHORT: Duration = Duration::from_secs(60);

/// One examination. It remembers the tokens that it made until they are ended.
pub struct Doctor {
    config: Config,
    run: Process,
    boot: Boot,
    clock: Clock,
    /// Login tokens before the run tokens that hang off them.
    made: Mutex<Vec<Token>>,
}

/// What the steps that talk to Vault have in common.
struct Bench<'a> {
    doctor: &'a Doctor,
    client: Arc<VaultClient>,
    source: VaultSource,
}

impl Bench<'_> {
    fn call(&self) -> CallId {
        self.doctor.boot.call(&self.doctor.run.id)
    }

    /// A question to Vault with that token.
    async fn read(&self, token: &Token, path: &str) -> Result<Reply, Failure> {
        let call = self.call();
        self.client.read(Ask::with(&call, token, CONTROL_LIMIT), path, "", false).await
    }
}

impl Doctor {
    /// Of that configuration, as that run.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(config: Config, run: Process, clock: Clock) -> Result<Self, super::AppError> {
        let boot = Boot::new().map_err(super::no_randomness)?;
        Ok(Self { config, run, boot, clock, made: Mutex::default() })
    }

    /// All steps, each judged or skipped with the reason; what they made is ended again.
    pub async fn examine(&self) -> Report {
        let mut report = Report::default();
        report.good(Step::Configuration, "every setting makes sense");
        self.upstream(&mut report).await;
        local::listeners(&self.config.listen, &mut report);
        local::records(&self.config, &mut report);
        match self.leave().await {
            Ok(0) => {}
            Ok(count) => report.good(
                Step::LeftBehind,
                format!("nothing: {count} {} revoked", if count == 1 { "token was" } else { "tokens were" }),
            ),
            Err(failure) => report.wrong(
                Step::LeftBehind,
                format!("a token that this examination made could not be revoked: {failure}"),
                cure::policy("It ends by itself. Let it end itself", "auth/token/revoke-self", "update"),
            ),
        }
        report.in_order()
    }

    /// Ends the tokens that were made and are not ended yet: for who breaks the examination off. Returns how many.
    ///
    /// # Errors
    /// The last failure; the token ends by its own time to live.
    pub async fn leave(&self) -> Result<usize, Failure> {
        let tokens = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        if tokens.is_empty() {
            return Ok(0);
        }
        let source = VaultSource::new(Arc::new(client(&self.config.vault, &self.clock)?));
        let mut outcome = Ok(tokens.len());
        for token in tokens.iter().rev() {
            if let Err(failure) = source.revoke_token(self.boot.call(&self.run.id), token).await {
                outcome = Err(failure);
            }
        }
        outcome
    }

    fn remember(&self, token: &Token) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(token.clone());
    }

    fn forget(&self, token: &Token) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|held| held.accessor != token.accessor);
    }

    async fn upstream(&self, report: &mut Report) {
        let client = match client(&self.config.vault, &self.clock) {
            Ok(client) => Arc::new(client),
            Err(failure) => {
                report.wrong(Step::Vault, failure.message, Cure::new("Correct vault.address.", ""));
                return after_vault(report, "the address of Vault is wrong");
            }
        };
        let (method, why) = match login::meant(&self.config.login) {
            Ok((method, why)) => (Some(method), why),
            Err(failure) => {
                let cure = Cure::new(
                    "Configure the method that is meant on this machine, or put its file there.",
                    "",
                );
                report.wrong(Step::Credentials, failure.message, cure);
                (None, None)
            }
        };
        let bench = Bench {
            doctor: self,
            client: Arc::clone(&client),
            source: VaultSource::new(Arc::clone(&client)),
        };
        let mut arn = None;
        let mut ready = false;
        match method {
            Some(Method::Aws(aws)) => {
                let aws = login::aws(aws, Arc::clone(&client), &self.run);
                let seen = credentials::aws(&aws, report).await;
                (arn, ready) = (seen.arn, seen.ready);
            }
            Some(other) => ready = credentials::file(other, why.as_deref(), report),
            None => {}
        }
        if !vault::reached(&bench, report).await {
            return after_vault(report, "Vault cannot be used");
        }
        let Some(method) = method.filter(|_| ready) else {
            report.skipped(Step::Login, "there is nothing to log in with");
            return after_login(report, "there is no login");
        };
        let Some(token) = vault::login(&bench, method, arn.as_deref(), report).await else {
            return after_login(report, "there is no login");
        };
        rights::examined(&bench, method, &token, report).await;
    }
}

fn after_vault(report: &mut Report, why: &str) {
    report.skipped(Step::Login, why);
    after_login(report, why);
}

fn after_login(report: &mut Report, why: &str) {
    for step in [Step::LoginPolicy, Step::RunToken, Step::AuditedHeaders, Step::Prefetch] {
        report.skipped(step, why);
    }
}
