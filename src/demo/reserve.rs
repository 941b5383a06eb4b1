//! The first state: one broker beside its task, many readers of one credential, which is renewed and then replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use super::reader::Reader;
use super::stage::{self, MAX_TTL, ORDERS, TTL};
use super::timeline::{Row, Tone};
use super::{DemoError, Show, ensure, off};
use crate::app::App;
use crate::config::RunEnv;
use crate::run::request::Facts;
use crate::source::dev::{Logged, Operation};

/// Readers at the same moment.
pub(super) const READERS: usize = 64;

const STATE: &str = "Reserve";

impl Show<'_> {
    /// Returns the accessor of the run's token, and the database user that was served first: nobody gets them again.
    pub(super) async fn reserve(&mut self) -> Result<(String, String), DemoError> {
        self.line.heading(STATE, "state 1 of 2: a broker beside its task")?;
        let facts =
            Facts { execution: stage::ORDER.parse().ok(), state: Some(STATE.into()), ..Facts::default() };
        let config = self.dir.reserve(&self.clock)?;
        let app = self.start(STATE, &config, RunEnv { facts, ..RunEnv::default() }).await?;
        let token = self.token("run")?;
        let named = |key: &str, value: &str| token.meta.get(key).is_some_and(|text| text == value);
        ensure(named("execution_arn", stage::ORDER), "the run token does not name the execution")?;
        ensure(named("state", STATE), "the run token does not name the state")?;
        ensure(token.meta.contains_key("audit_head"), "the run token does not pin the audit log's head")?;
        let text = format!("an orphan made for this run; upstream's own log will show order-4711, {STATE}");
        self.line.event(Tone::Good, "run token", &text)?;
        let username = self.herd(&app).await?;
        self.rotation(&app, username.clone()).await?;
        self.end(app, STATE).await?;
        Ok((token.accessor, username))
    }

    /// Many readers at the same moment get the same credential, from one mint.
    async fn herd(&mut self, app: &App) -> Result<String, DemoError> {
        let socket = self.dir.socket(STATE);
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(Reader::connect(&socket, None).await.or_else(off)?);
        }
        let mut reads = tokio::task::JoinSet::new();
        for mut reader in readers {
            reads.spawn(async move { reader.read(ORDERS).await });
        }
        let started = self.line.elapsed();
        let mut users = BTreeSet::new();
        while let Some(read) = reads.join_next().await {
            let got = read.or_else(|error| off(error.to_string()))?.or_else(off)?;
            ensure(got.status == 200, format!("a reader was answered with {}", got.status))?;
            users.insert(got.text("/data/username").to_owned());
            self.secrets.insert(got.text("/data/password").to_owned());
        }
        let took = self.line.elapsed() - started;
        let mints = self.upstream.count(Operation::Read);
        ensure(users.len() == 1, format!("{READERS} readers got {} different credentials", users.len()))?;
        ensure(mints == 1, format!("{mints} mints for {READERS} readers"))?;
        ensure(self.upstream.alive() == 1, "there is not one database user")?;
        let username = users.pop_first().unwrap_or_default();
        ensure(self.upstream.is_alive(&username), "the credential is dead")?;
        ensure(app.audit().healthy(), "the audit log cannot be written")?;
        let text = format!(
            "{READERS} at once, each on a connection of its own, answered in {} ms",
            took.as_millis()
        );
        self.line.event(Tone::Good, "readers", &text)?;
        let text = self.line.paint("1 mint", Tone::Bold);
        self.line.more(&format!(
            "{text}: {username}, good for {} s, {} s at most",
            TTL.as_secs(),
            MAX_TTL.as_secs()
        ))?;
        Ok(username)
    }

    /// Reads on, until the credential was renewed and then replaced before its end.
    async fn rotation(&mut self, app: &App, first: String) -> Result<(), DemoError> {
        let mut reader = self.reader(STATE, None).await?;
        let began = self.line.elapsed();
        let mut rows = vec![Row::new(first, began)];
        let (mut reads, mut renewals) = (0, 0);
        let mut rotated = None;
        loop {
            let now = self.line.elapsed();
            ensure(now - began < MAX_TTL * 2, "the credential was not replaced in time")?;
            let got = self.granted(&mut reader, ORDERS).await?;
            reads += 1;
            ensure(self.upstream.is_alive(&got.value), format!("a reader got {}, which is dead", got.value))?;
            let leases = self.upstream.leases();
            let left =
                |name: &str| leases.iter().find(|lease| lease.username == name).map(|lease| lease.left);
            for row in &mut rows {
                if left(&row.name).is_some() {
                    row.lived.1 = now;
                }
            }
            let renewed = self.renewals();
            if let Some(row) = rows.last_mut()
                && renewed > renewals
            {
                // The first time it gets its whole life anew, then what is left until its maximum.
                let first = row.renewed.is_empty();
                row.renewed.push(now);
                let name = row.name.clone();
                let left = left(&name).unwrap_or_default();
                let shorter = left + Duration::from_millis(500) < TTL;
                ensure(shorter != first, format!("renewal {renewed} left it {left:?}"))?;
                let left = left.as_secs_f64();
                let (tone, text) = match first {
                    true => {
                        (Tone::Good, format!("{name} is good for {left:.1} s again, long before its end"))
                    }
                    false => (
                        Tone::Warn,
                        format!("{name} gets {left:.1} s: its maximum is near, a replacement is planned"),
                    ),
                };
                self.line.event(tone, "renewed", &text)?;
                renewals = renewed;
            }
            let last = rows.last().map(|row| row.name.clone()).unwrap_or_default();
            if got.value == last {
                if let Some(row) = rows.last_mut() {
                    row.served.1 = now;
                }
            } else {
                let old = left(&last);
                let Some(old) = old else { return off(format!("{last} was dead before it was replaced")) };
                ensure(renewals > 0, "it was replaced before it was ever renewed")?;
                rows.push(Row::new(got.value.clone(), now));
                self.line.event(
                    Tone::Good,
                    "rotated",
                    &format!(
                        "{} from now on; the old one was alive for another {:.1} s",
                        got.value,
                        old.as_secs_f64()
                    ),
                )?;
                rotated = Some(now);
            }
            if let Some(left) = left(&got.value) {
                self.line.life(&got.value, left, TTL)?;
            }
            if rotated.is_some_and(|at| now - at > Duration::from_millis(1200)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mints = self.upstream.count(Operation::Read);
        ensure(mints == 2, format!("{mints} mints for two credentials"))?;
        ensure(app.broker().ready().ready, "the broker is not ready")?;
        let none = self.line.paint("none dead", Tone::Bold);
        self.line.event(Tone::Good, "reads", &format!("{reads} since then, {none}; 2 mints in all"))?;
        let to = self.line.elapsed();
        self.line.chart(&rows, began, to)?;
        Ok(())
    }

    /// Renewals of leases that upstream has granted.
    fn renewals(&self) -> usize {
        let granted =
            |call: &&Logged| call.operation == Operation::RenewLease && call.outcome == Some(Ok(()));
        self.upstream.calls().iter().filter(granted).count()
    }
}
