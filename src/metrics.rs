//! What is counted, for Prometheus. No label ever carries a path's value or a caller: cardinality stays fixed.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::audit::Counters;
use crate::lease::view::Freshness;

type ByWord = Family<Vec<(&'static str, &'static str)>, Counter>;

/// The counters and gauges. The ones on the path of a read are looked up once, here.
pub struct Metrics {
    registry: Registry,
    reads: [Counter; 3],
    /// Requests refused by policy or by a limit.
    pub denied: Counter,
    /// Reads that upstream failed.
    pub failed: Counter,
    /// Reads refused because their audit line could not be written.
    pub unaudited: Counter,
    /// Leases and values held.
    pub leases: Gauge,
    /// Runs that are open or closing, the process's own among them.
    pub runs: Gauge,
    /// Seconds left of the login token.
    pub login_left: Gauge,
    /// Seconds left of the run token.
    pub run_left: Gauge,
    /// 1 if everything is there.
    pub ready: Gauge,
    /// Connections that doors hold open.
    pub connections: Gauge,
    /// Connections closed at once, as their party may have no more.
    pub turned_away: Counter,
    /// Times that the system had no connection to give.
    pub accept_failures: Counter,
    let_go: ByWord,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tenure");
        let reads = ByWord::default();
        registry.register("reads", "Secrets disclosed, by where they came from", reads.clone());
        let refusals = ByWord::default();
        registry.register("refusals", "Requests that got no secret, by why", refusals.clone());
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let seconds = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
            gauge
        };
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let let_go = ByWord::default();
        registry.register(
            "connections_let_go",
            "Connections that were told to go, by why: nothing came, the request was not whole or the answer not \
             taken in time, or another one of the same party took their place",
            let_go.clone(),
        );
        let of = |family: &ByWord, name, word| family.get_or_create(&vec![(name, word)]).clone();
        Self {
            reads: [Freshness::Cache, Freshness::Vault, Freshness::Stale]
                .map(|from| of(&reads, "source", from.word())),
            denied: of(&refusals, "reason", "denied"),
            failed: of(&refusals, "reason", "upstream"),
            unaudited: of(&refusals, "reason", "unaudited"),
            leases: gauge(&mut registry, "leases", "Leases and values held"),
            runs: gauge(&mut registry, "runs", "Runs that are open or closing"),
            login_left: seconds(&mut registry, "login_left", "What is left of the login token"),
            run_left: seconds(&mut registry, "run_left", "What is left of the run token"),
            ready: gauge(
                &mut registry,
                "ready",
                "1 if the login, the run token and every prefetch are there",
            ),
            connections: gauge(&mut registry, "connections", "Connections that doors hold open"),
            turned_away: counter(
                &mut registry,
                "connections_turned_away",
                "Connections closed at once, as their party may have no more",
            ),
            accept_failures: counter(
                &mut registry,
                "accept_failures",
                "Times that the system had no connection to give",
            ),
            let_go,
            registry,
        }
    }
}

impl Metrics {
    /// Counts a disclosure.
    pub fn granted(&self, from: Freshness) {
        let index = match from {
            Freshness::Cache => 0,
            Freshness::Vault => 1,
            Freshness::Stale => 2,
        };
        if let Some(counter) = self.reads.get(index) {
            counter.inc();
        }
    }

    /// Counts connections that were told to go; `why` is one of a few words.
    pub fn let_go(&self, why: &'static str, count: u64) {
        if count > 0 {
            self.let_go.get_or_create(&vec![("why", why)]).inc_by(count);
        }
    }

    /// How many disclosures there were that came from there.
    #[must_use]
    pub fn reads(&self, from: Freshness) -> u64 {
        let [cache, vault, stale] = &self.reads;
        match from {
            Freshness::Cache => cache.get(),
            Freshness::Vault => vault.get(),
            Freshness::Stale => stale.get(),
        }
    }

    /// Everything in the text format, with what the audit log counts itself.
    #[must_use]
    pub fn text(&self, audit: Counters) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        let end = "# EOF\n";
        text.truncate(text.len().saturating_sub(if text.ends_with(end) { end.len() } else { 0 }));
        let counted = [
            ("audit_lines", "Audit lines written", audit.written),
            ("audit_refused", "Decisions whose line could not be written", audit.refused),
            ("audit_dropped", "Lifecycle lines dropped while the log could not be written", audit.dropped),
            ("audit_failed_writes", "Writes to the audit log that failed", audit.failed_writes),
        ];
        for (name, help, value) in counted {
            let _ = writeln!(
                text,
                "# HELP tenure_{name} {help}.\n# TYPE tenure_{name} counter\ntenure_{name}_total {value}"
            );
        }
        text.push_str(end);
        text
    }
}
