//! Somebody stops an execution in mid-run: its run is over, and what it started, and nothing else.

use std::time::Duration;

use super::charge::Registered;
use super::stage::{ORDER, PAYMENTS, SCORES, SCREENING};
use super::timeline::Tone;
use super::{DemoError, Show, ensure, off};
use crate::audit::{Event, Line};

/// A heartbeat is sent every second; the rest is for a machine that is busy.
const SOON: Duration = Duration::from_secs(4);

const TIMED_OUT: &str = "TaskTimedOut";
const PARENT_OVER: &str = "the run or execution that started it is over";

impl Show<'_> {
    pub(super) async fn abort(
        &mut self,
        order: &mut Registered,
        nested: &mut Registered,
        other: &mut Registered,
    ) -> Result<(), DemoError> {
        ensure(self.platform.beats(ORDER) > 1, "the run sends no heartbeats")?;
        self.platform.abort(ORDER);
        let began = self.line.elapsed();
        let text = "somebody stops order-4711; the next heartbeat learns it from the platform (a fake one)";
        self.line.event(Tone::Bad, "abort", text)?;
        for (run, path, name, why) in [
            (&mut *order, PAYMENTS, "order-4711", TIMED_OUT),
            (&mut *nested, SCORES, "screen-4711", PARENT_OVER),
        ] {
            self.over(run, path, began).await?;
            let got = run.reader.read(path).await.or_else(off)?;
            ensure(got.status == 410, format!("{name} was answered with {}", got.status))?;
            ensure(got.error().contains(why), format!("{name} is not told why: {}", got.error()))?;
            let word = if why == TIMED_OUT { "over" } else { "over, too" };
            self.line.event(Tone::Good, word, &format!("{name}'s handle: 410, {why}"))?;
        }
        let all = [&*order, &*nested];
        while all.iter().any(|run| self.lives(run)) {
            ensure(self.line.elapsed() - began < SOON, "an aborted run's credentials live on")?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = (self.line.elapsed() - began).as_secs_f64();
        let after = self.line.paint(&format!("{took:.1} s"), Tone::Bold);
        let text =
            format!("both tokens and both database users, {after} after the abort; the worker did nothing");
        self.line.event(Tone::Good, "gone", &text)?;
        self.recorded(order, nested).await?;
        // Of the nested run's own task the platform has said nothing.
        ensure(self.platform.beats(SCREENING) > 1, "the nested run sends no heartbeats")?;
        self.line.breathe().await;
        let kept = self.granted(&mut other.reader, PAYMENTS).await?;
        ensure(kept.value == other.username && self.lives(other), "a run was ended that was not meant")?;
        let text = format!("order-4712 goes on with {}: it was not meant", kept.value);
        self.line.event(Tone::Good, "kept", &text)?;
        Ok(())
    }

    /// Waits until a run's handle is refused. Until the heartbeat tells, it is served.
    async fn over(&mut self, run: &mut Registered, path: &str, began: Duration) -> Result<(), DemoError> {
        loop {
            let got = run.reader.read(path).await.or_else(off)?;
            match got.status {
                410 => return Ok(()),
                200 => {}
                status => return off(format!("an aborted run was answered with {status}: {}", got.error())),
            }
            ensure(self.line.elapsed() - began < SOON, "an aborted run goes on")?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether upstream knows a run's token, or its database user.
    fn lives(&self, run: &Registered) -> bool {
        let token = self.upstream.tokens().iter().any(|token| token.accessor == run.accessor);
        token || self.upstream.is_alive(&run.username)
    }

    /// The log says why each is over, and that upstream has confirmed that its token is gone.
    async fn recorded(&mut self, order: &Registered, nested: &Registered) -> Result<(), DemoError> {
        let began = self.line.elapsed();
        loop {
            let lines = self.lines()?;
            let find = |run: &Registered, event: Event| {
                let of = |line: &&Line| line.run.as_ref().is_some_and(|about| about.id == run.id);
                lines.iter().filter(of).find(|line| line.event == event)
            };
            let confirmed = |run| find(run, Event::RevokeConfirmed).is_some();
            if let (Some(first), Some(then)) = (find(order, Event::RunEnd), find(nested, Event::RunEnd))
                && confirmed(order)
                && confirmed(nested)
            {
                let why = |line: &Line, why| line.detail.as_ref().is_some_and(|detail| detail.contains(why));
                ensure(
                    why(first, TIMED_OUT) && why(then, PARENT_OVER),
                    "the log does not say why it is over",
                )?;
                let above = then.run.as_ref().map(|run| (run.parents.clone(), run.parent.clone()));
                let expected = (vec![ORDER.to_owned()], Some(order.id.clone()));
                ensure(above == Some(expected), "the log does not say what started the nested run")?;
                let text = format!(
                    "lines {} and {} say which run is over, and why; the revocations are confirmed",
                    first.seq, then.seq
                );
                return Ok(self.line.event(Tone::Good, "on record", &text)?);
            }
            ensure(self.line.elapsed() - began < SOON, "the log does not say that the runs are over")?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
