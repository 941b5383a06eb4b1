//! The second state: one worker serves many executions, each by a run of its own that it registers, and one of them
//! starts another execution.

use serde_json::json;

use super::reader::Reader;
use super::stage::{GATEWAY, ORDER, OTHER_ORDER, PAYMENTS, SCORES, SCREENING};
use super::timeline::Tone;
use super::{DemoError, Show, ensure, off, random};
use crate::config::RunEnv;

pub(super) const STATE: &str = "Charge";

/// What a state may take. The rules allow a minute.
const TIMEOUT_SECONDS: u64 = 30;

/// A run that was registered, and a workload that reads for it.
pub(super) struct Registered {
    pub(super) id: String,
    pub(super) reader: Reader,
    /// The database user that it got.
    pub(super) username: String,
    /// The accessor of its token.
    pub(super) accessor: String,
    handle: String,
}

/// What is registered, and by whom.
struct Wanted<'a> {
    execution: &'a str,
    state: &'a str,
    /// The token role that its rule gives.
    role: &'a str,
    /// What it reads first.
    path: &'a str,
    /// The handle of the run that registers it; `None`: the worker does.
    by: Option<&'a str>,
}

impl Show<'_> {
    /// `accessor` and `username`: the first state's token and its database user, which nobody may get again.
    pub(super) async fn charge(&mut self, accessor: &str, username: &str) -> Result<(), DemoError> {
        self.line
            .heading(STATE, "state 2 of 2: one worker for many executions, a run and a handle for each")?;
        self.upstream.put("gateway", json!({ "key": format!("gw-{}", random()?) }));
        let config = self.dir.charge(&self.clock)?;
        let app = self.start(STATE, &config, RunEnv::default()).await?;
        let mut worker = self.reader(STATE, None).await?;
        self.refused(&mut worker, PAYMENTS, "the worker itself").await?;
        self.line.event(
            Tone::Good,
            "worker",
            &format!("by itself it may read nothing: {PAYMENTS} is refused, 403"),
        )?;

        let wanted = Wanted { execution: ORDER, state: STATE, role: "charge", path: PAYMENTS, by: None };
        let mut order = self.registered(&wanted).await?;
        ensure(order.accessor != accessor, "the second state got the first one's run token")?;
        ensure(order.username != username, "the second state got the first one's credential")?;
        let text = format!(
            "order-4711 by POST /tenure/runs, {TIMEOUT_SECONDS} s at most; verified: the platform knows its task"
        );
        self.line.event(Tone::Good, "run", &text)?;
        self.line.more(&format!("{} read with its handle as the Vault token", order.username))?;
        self.line.breathe().await;
        let mut other = self.registered(&Wanted { execution: OTHER_ORDER, ..wanted }).await?;
        ensure(other.username != order.username, "two runs got one credential")?;
        self.line.event(Tone::Good, "run", &format!("order-4712: a token of its own, {}", other.username))?;
        self.line.breathe().await;

        let mut nested = self.nested(&order).await?;
        self.refused(&mut order.reader, SCORES, "order-4711").await?;
        self.refused(&mut nested.reader, PAYMENTS, "screen-4711").await?;
        let text = "neither of the two may read the other's: 403 and 403, by upstream's policy";
        self.line.event(Tone::Good, "apart", text)?;
        self.line.breathe().await;

        let gateway = self.granted(&mut order.reader, GATEWAY).await?;
        ensure(gateway.version == Some(1), "the gateway's key is not version 1")?;
        self.outage(&mut order.reader, &order.username).await?;
        self.line.breathe().await;
        self.abort(&mut order, &mut nested, &mut other).await?;
        drop((worker, order, nested, other));
        self.end(app, STATE).await
    }

    /// The execution that "Charge" starts: its run is registered by that state's run, with that run's handle.
    async fn nested(&mut self, parent: &Registered) -> Result<Registered, DemoError> {
        let wanted = Wanted {
            execution: SCREENING,
            state: "Score",
            role: "fraud",
            path: SCORES,
            by: Some(&parent.handle),
        };
        let nested = self.registered(&wanted).await?;
        let token = self.token("fraud")?;
        let named = |key: &str, value: &str| token.meta.get(key).is_some_and(|text| text == value);
        ensure(named("parent_execution_arn", ORDER), "upstream does not learn what started the execution")?;
        ensure(named("parent_run", &parent.id), "upstream does not learn which run registered the other")?;
        self.line.event(
            Tone::Good,
            "nested",
            "it starts fraud:screen-4711, a run that it registers with its own handle",
        )?;
        let chain = self.line.paint("started by order-4711", Tone::Bold);
        self.line.more(&format!("another token role, {}; upstream's log shows: {chain}", nested.username))?;
        self.line.breathe().await;
        Ok(nested)
    }

    /// Registers a run as the task of a state would, and reads its first secret with the handle.
    async fn registered(&mut self, wanted: &Wanted<'_>) -> Result<Registered, DemoError> {
        let Wanted { execution, state, role, path, by } = *wanted;
        let task_token = random()?;
        self.platform.enter(execution, state, &task_token);
        let before = self.tokens(role).len();
        let run = json!({
            "execution_arn": execution,
            "state": state,
            "task_token": task_token,
            "timeout_seconds": TIMEOUT_SECONDS,
        });
        let got = self.reader(STATE, by).await?.register(&run).await.or_else(off)?;
        ensure(got.status == 201, format!("{execution} was answered with {}: {}", got.status, got.error()))?;
        ensure(got.text("/verified") == "verified", format!("{execution} is not verified"))?;
        ensure(self.tokens(role).len() == before, "a run that reads nothing has a token already")?;
        let (id, handle) = (got.text("/id").to_owned(), got.text("/handle").to_owned());
        self.secrets.extend([task_token, handle.clone()]);
        let mut reader = self.reader(STATE, Some(&handle)).await?;
        let username = self.granted(&mut reader, path).await?.value;
        let token = self.tokens(role).into_iter().find(|token| token.meta.get("run") == Some(&id));
        let Some(token) = token else { return off(format!("no token of the role {role} names {id}")) };
        let named = |key: &str, value: &str| token.meta.get(key).is_some_and(|text| text == value);
        ensure(named("execution_arn", execution), "a run's token does not name its execution")?;
        ensure(named("state", state), "a run's token does not name its state")?;
        ensure(token.left.as_secs() <= TIMEOUT_SECONDS, "a run's token outlives the run's deadline")?;
        Ok(Registered { id, reader, username, accessor: token.accessor, handle })
    }

    /// A read that upstream's policy must refuse.
    async fn refused(&mut self, reader: &mut Reader, path: &str, who: &str) -> Result<(), DemoError> {
        let got = reader.read(path).await.or_else(off)?;
        ensure(got.status == 403, format!("{who} was answered {} for {path}", got.status))
    }
}
