//! Upstream is down for a while.

use std::time::Duration;

use serde_json::json;

use super::reader::Reader;
use super::stage::{GATEWAY, PAYMENTS, REFUNDS};
use super::timeline::Tone;
use super::{DemoError, Show, ensure, off, random};
use crate::lease::failure::Class;

/// Longer than a value is fresh, so that it is served stale.
const LASTS: Duration = Duration::from_millis(1500);

impl Show<'_> {
    /// Upstream fails: what is held goes on being served, and what is not held is refused clearly.
    pub(super) async fn outage(&mut self, reader: &mut Reader, username: &str) -> Result<(), DemoError> {
        self.upstream.fail(Class::Transient);
        self.upstream.clear_calls();
        self.line.event(Tone::Bad, "outage", "upstream answers every call with 503, sealed")?;
        let began = self.line.elapsed();
        let (mut reads, mut stale) = (0, None);
        while self.line.elapsed() - began < LASTS {
            let lease = self.granted(reader, PAYMENTS).await?;
            ensure(
                lease.value == username && lease.source == "cache",
                "the lease was not served from the cache",
            )?;
            ensure(self.upstream.is_alive(&lease.value), "a reader got a dead credential")?;
            let value = self.granted(reader, GATEWAY).await?;
            reads += 2;
            if value.source == "stale" && stale.is_none() {
                ensure(value.warned, "a stale value came without a warning")?;
                let text = format!(
                    "{GATEWAY} is past its second of freshness: served, labelled stale, age {} s",
                    value.age
                );
                self.line.event(Tone::Warn, "stale", &text)?;
                stale = Some(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure(stale.is_some(), "the value was never labelled stale")?;
        let refused = reader.read(REFUNDS).await.or_else(off)?;
        ensure(refused.status == 503, format!("what is not held was answered with {}", refused.status))?;
        ensure(!refused.header("retry-after").is_empty(), "the refusal does not say when to try again")?;
        self.line.event(
            Tone::Warn,
            "refused",
            &format!(
                "{REFUNDS} was never read before: 503, try again in {} s",
                refused.header("retry-after")
            ),
        )?;
        let calls = self.upstream.calls().len();
        ensure(calls <= 10, format!("{calls} calls to an upstream that is down"))?;
        let (reads, calls) = (format!("{reads} reads served"), format!("{calls} calls upstream"));
        self.line.more(&format!("{} meanwhile, {}", self.line.paint(&reads, Tone::Bold), calls))?;
        let version = self.upstream.put("gateway", json!({ "key": format!("gw-{}", random()?) }));
        self.upstream.recover();
        let began = self.line.elapsed();
        loop {
            let value = self.granted(reader, GATEWAY).await?;
            if value.version == Some(version) && value.source != "stale" {
                break;
            }
            ensure(self.line.elapsed() - began < Duration::from_secs(8), "it did not recover")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let text = format!("upstream is back; {GATEWAY} version {version} is served, nothing was restarted");
        self.line.event(Tone::Good, "recovered", &text)?;
        Ok(())
    }
}
