//! The effective configuration in words, each setting with where it came from: what `config check` prints.

use std::path::Path;
use std::time::Duration;

use super::document::Document;
use super::problem::Origin;
use super::{Allow, Config, LogFormat, audit, lambda, login, secrets_manager, subject};
use crate::policy::rules::Verification;

/// A setting, as it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, dotted.
    pub key: String,
    /// Its value, as TOML; a comment where only words can say it.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// All settings that have a value, in the order of the file's tables.
pub(crate) fn settings(config: &Config, document: &Document) -> Vec<Setting> {
    let mut list = List { document, settings: Vec::new() };
    let vault = &config.vault;
    list.text("vault.address", Some(&vault.address));
    list.text("vault.namespace", vault.namespace.as_ref());
    list.path("vault.ca_file", vault.ca_file.as_deref());
    list.path("vault.client_cert", vault.client.as_ref().map(|client| client.cert.as_path()));
    list.path("vault.client_key", vault.client.as_ref().map(|client| client.key.as_path()));
    list.text("vault.tls_server_name", vault.tls_server_name.as_ref());
    list.duration("vault.connect_timeout", vault.connect_timeout);
    list.duration("vault.request_timeout", vault.request_timeout);
    login::settings(&config.login, &mut list);
    list.text("run.token_role", config.run.token_role.as_ref());
    list.duration("run.ttl", config.run.ttl);
    list.path("run.journal", config.run.journal.as_deref());
    list.text("run.verification", Some(&verification(config.run.verification)));
    list.plain("run.max_runs", &config.run.max_runs);
    for rule in &config.run.rules {
        list.text(&format!("{}.token_role", rule.name), Some(&rule.token_role.to_string()));
        if !rule.policies.is_empty() {
            list.texts(&format!("{}.policies", rule.name), &rule.policies);
        }
        list.duration(&format!("{}.max_ttl", rule.name), rule.max_ttl);
        list.text(&format!("{}.verification", rule.name), Some(&verification(rule.verification)));
    }
    list.duration("workflow.heartbeat", config.workflow.heartbeat);
    if let Some(poll) = config.workflow.poll {
        list.duration("workflow.poll", poll);
    }
    list.plain("workflow.account_rate", &config.workflow.account_rate);
    list.plain("workflow.brokers", &config.workflow.brokers);
    subject::settings(&config.subject, &mut list);
    if let Some(unix) = &config.listen.unix {
        list.path("listen.unix.path", Some(&unix.path));
        list.text("listen.unix.mode", Some(&format!("{:04o}", unix.mode)));
        unix.owner.into_iter().for_each(|id| list.plain("listen.unix.owner", &id));
        unix.group.into_iter().for_each(|id| list.plain("listen.unix.group", &id));
        list.plain("listen.unix.allow", &allow(&unix.allow));
    }
    if let Some(tcp) = &config.listen.tcp {
        list.text("listen.tcp.address", Some(&tcp.address.to_string()));
        list.path("listen.tcp.token_file", Some(&tcp.token_file));
    }
    if let Some(listen) = &config.listen.secrets_manager {
        secrets_manager::settings(listen, &mut list);
    }
    audit::settings(&config.audit, &mut list);
    list.duration("audit.anchor", config.audit_anchor.unwrap_or_default());
    if let Some(hmac) = &config.audit_hmac {
        audit::hmac_settings(hmac, &mut list);
    }
    list.plain("cache.max_leases", &config.cache.max_leases);
    list.duration("cache.kv_fresh", config.cache.kv_fresh);
    list.duration("cache.kv_stale", config.cache.kv_stale);
    list.plain("cache.kv_bytes", &config.cache.kv_bytes);
    list.duration("cache.read_timeout", config.cache.read_timeout);
    list.text("log.filter", Some(&config.log.filter.to_string()));
    let format = match config.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    list.text("log.format", Some(&format.to_owned()));
    list.duration("shutdown.grace", config.shutdown.grace);
    let stop = config.shutdown.stop_timeout.map(|stop| humantime::format_duration(stop).to_string());
    list.text("shutdown.stop_timeout", stop.as_ref());
    for (key, word) in lambda::word(&config.lambda) {
        list.text(key, Some(&word.to_owned()));
    }
    list.duration("lambda.init_timeout", config.lambda.init_timeout);
    list.text("lambda.namespace", config.lambda.metrics.as_ref());
    for (i, path) in config.prefetch.iter().enumerate() {
        list.text(&format!("prefetch[{i}].path"), Some(&path.to_string()));
    }
    list.settings
}

fn verification(verification: Verification) -> String {
    match verification {
        Verification::Off => "off",
        Verification::Warn => "warn",
        Verification::Require => "require",
    }
    .to_owned()
}

pub(super) struct List<'a> {
    document: &'a Document,
    settings: Vec<Setting>,
}

impl List<'_> {
    pub(super) fn plain(&mut self, key: &str, value: &dyn ToString) {
        let (key, value) = (key.to_owned(), value.to_string());
        let origin = self.document.said(&key);
        self.settings.push(Setting { key, value, origin });
    }

    pub(super) fn text(&mut self, key: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.plain(key, &toml::Value::String(value.clone()));
        }
    }

    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        let values = values.iter().cloned().map(toml::Value::String).collect();
        self.plain(key, &toml::Value::Array(values));
    }

    pub(super) fn path(&mut self, key: &str, path: Option<&Path>) {
        self.text(key, path.map(|path| path.display().to_string()).as_ref());
    }

    pub(super) fn duration(&mut self, key: &str, length: Duration) {
        self.text(key, Some(&humantime::format_duration(length).to_string()));
    }
}

fn allow(allow: &Allow) -> String {
    let Allow::Listed(peers) = allow else { return "# the process's own user".to_owned() };
    let peers: Vec<String> = peers
        .iter()
        .map(|peer| {
            let ids = [("uid", peer.uid), ("gid", peer.gid)];
            let ids: Vec<_> =
                ids.iter().filter_map(|(name, id)| Some(format!("{name} = {}", (*id)?))).collect();
            format!("{{ {} }}", ids.join(", "))
        })
        .collect();
    format!("[{}]", peers.join(", "))
}
