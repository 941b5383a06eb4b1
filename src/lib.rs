//! Tenure: a Vault-aware credential broker sidecar. A credential lives exactly as long as the work that needs it, and
//! an auditor can prove it.
//!
//! # The way of one read
//!
//! ```text
//! door ── caller + request ──▶ broker ── policy: may this caller ask for that? ──▶ no: a line, 403
//!                                │ yes
//!                                ▼
//!                     leases of the run (one keeper for each) ── miss ──▶ source (Vault, with the run's token)
//!                                │ a live grant
//!                                ▼
//!                     audit: a receipt for its line (none: 503) ──▶ the door opens the secret with it, and answers
//! ```
//!
//! Renewal, rotation and revocation happen off this path, in keepers.
//!
//! # Words
//!
//! A **run** is the unit of work that credentials are tied to; its **run token** is an orphan made for it from a token
//! role under the **login token**, and all **leases** of the run hang off it, so that one revocation ends them all. A
//! **caller** is the local process that asks; a **door** is the protocol by which it does. A **grant** is one token or
//! secret that a lease holds at a time; its **keeper** is the task that mints, renews, rotates and revokes it.
//!
//! The process beside which the broker runs is a run of its own. Others are *registered*: their **registrant** says what
//! they are, the first **rule** that matches says what they may have, within what the registrant has itself, and who
//! presents a run's **handle** as its Vault token is that run. A run's **standing** is how far the platform confirms what
//! was said of it, from *asserted* to *verified*; its **subject** is on whose behalf it acts, and a **seal** is a subject
//! that an entry step had signed for one execution. A run's **life** says when it must end: at its deadline, when somebody
//! says so, when the platform does.
//!
//! # Map
//!
//! Each module uses only what stands above it; `tests/architecture.rs` checks that.
//!
//! | module | what it is |
//! |---|---|
//! | [`secret`], [`clock`], [`backoff`], [`caller`], [`causes`] | values: what must not be printed, time, retry delays, who asks |
//! | [`supervise`], [`init`] | tasks that do not die silently; signals, and what the first process of a container owes |
//! | [`lease`] | the life cycle: one pure state machine ([`lease::state`]), what its readers see ([`lease::view`]), one task for each lease ([`lease::keeper`]), and the seams to upstream ([`lease::upstream`]) |
//! | [`run`] | what a run is, what is said of it and by whom it is confirmed, and the ids that both logs know it by |
//! | [`policy`], [`audit`], [`metrics`] | who may ask for what, and what runs may have ([`policy::rules`]); the hash-chained log; what is counted |
//! | [`runs`] | all runs: the registry of those that are open, how one begins, its life (pure, as a lease's is), its token and its leases; the journal of what a crash would leave |
//! | [`broker`] | one read, from the caller to the receipt; runs, as those see them who register them |
//! | [`door`] | the Vault API on a Unix socket and on loopback TCP, that of AWS's Secrets Manager extension, and the pages about runs |
//! | [`aws`], `https` | what adapters connect with: every AWS SDK client of ours, and everything else: one TLS stack, one reading of what failed |
//! | [`vault`], [`identity`], [`source`] | adapters: the client to Vault, the logins (AWS IAM and others), Vault as a source, and a small Vault in memory |
//! | [`workflow`], [`subject`] | adapters: Step Functions and the ECS task metadata endpoint; whose tokens are believed |
//! | [`config`] | file, environment and flags, checked as a whole |
//! | [`app`] | the composition: the only module that names adapters, but for what an auditor's command asks without a broker |
//! | [`demo`], [`dev`] | the broker on a small Vault in memory: to look at, and to develop against |
//! | [`lambda`] | the broker as a Lambda extension, in the life cycle of a function |
//! | [`cli`] | the commands |
//! | `fuzz` | what is fuzzed: for tests and the fuzzer alone, and may use all of the others |
//!
//! # What never happens
//!
//! - A [`secret::Secret`] is opened without an [`audit::Receipt`]: nothing is disclosed that is not on record.
//! - [`lease::state`] reads a clock, logs, or calls anything: time and outcomes are handed to it.
//! - A caller that goes away cancels a call to upstream: it only ever waits for what a keeper publishes.
//! - A login or run token leaves the process other than to Vault.
//! - What is merely said of a run widens what it gets: a rule that gives more than the registrant has wants it verified.
//! - A handle, a task token or what proves a subject is logged.

pub mod app;
pub mod audit;
pub mod aws;
pub mod backoff;
pub mod broker;
pub mod caller;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod dev;
pub mod door;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod https;
pub mod identity;
pub mod init;
pub mod lambda;
pub mod lease;
pub mod metrics;
pub mod policy;
pub mod run;
pub mod runs;
pub mod secret;
pub mod source;
pub mod subject;
pub mod supervise;
pub mod vault;
pub mod workflow;
