//! Whether the run's token could read what is to be prefetched. Nothing is read: a read would mint.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::report::{Cure, Report, Step};
use super::{Bench, cure};
use crate::lease::upstream::Token;
use crate::vault::{Ask, CONTROL_LIMIT, CapabilitiesRequest, Envelope, Reply};

/// Each path of the configuration, with the token that will read it.
pub(super) async fn examined(bench: &Bench<'_>, token: &Token, report: &mut Report) {
    let paths: Vec<String> =
        bench.doctor.config.prefetch.iter().map(|path| path.as_str().to_owned()).collect();
    if paths.is_empty() {
        return;
    }
    let call = bench.call();
    let ask = Ask::with(&call, token, CONTROL_LIMIT);
    let asked = bench.client.execute(ask, &CapabilitiesRequest { paths: paths.clone() }).await;
    let known = asked.ok().filter(|reply| reply.status.is_success()).and_then(|reply| capabilities(&reply));
    for path in &paths {
        let mount = match mount(bench, token, path).await {
            Ok(mount) => mount,
            Err(cause) => {
                let cure = cure::policy(
                    "If something is mounted there, no policy of the run reaches it",
                    path,
                    "read",
                );
                report.wrong(Step::Prefetch, format!("{path}: {cause}"), cure);
                continue;
            }
        };
        let Some(held) = known.as_ref().and_then(|known| known.get(path)) else {
            report.unknown(
                Step::Prefetch,
                format!("{path}: the run token reaches its mount; whether it may read just that path, it may not ask"),
                cure::policy("To have it judged", "sys/capabilities-self", "update"),
            );
            continue;
        };
        if !held.iter().any(|held| matches!(held.as_str(), "read" | "root")) {
            let cause = format!("{path}: the run token may not read it (it has: {})", held.join(", "));
            report.wrong(Step::Prefetch, cause, cure::policy("No policy of the run allows it", path, "read"));
            continue;
        }
        if let Some(metadata) = mount.metadata(path)
            && bench.read(token, &metadata).await.is_ok_and(|reply| reply.status == 404)
        {
            report.wrong(
                Step::Prefetch,
                format!("{path}: the run token may read it, and there is nothing"),
                Cure::new(
                    "Correct the path, or write the value:",
                    format!("vault kv put {} …", mount.kv_name(path)),
                ),
            );
            continue;
        }
        report.good(Step::Prefetch, format!("{path}: may be read, from a mount of type {}", mount.kind));
    }
}

fn capabilities(reply: &Reply) -> Option<BTreeMap<String, Vec<String>>> {
    let data = Envelope::of(reply).ok()?.data?;
    let all: BTreeMap<String, &RawValue> = serde_json::from_str(data.get()).ok()?;
    Some(
        all.into_iter()
            .filter_map(|(path, held)| Some((path, serde_json::from_str(held.get()).ok()?)))
            .collect(),
    )
}

/// What a path lies in.
#[derive(Debug, Deserialize)]
struct Mount {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

impl Mount {
    /// Where version 2 of KV says of a value that it is there, without saying it.
    fn metadata(&self, path: &str) -> Option<String> {
        let versioned = self.options.as_ref()?.get("version")? == "2";
        let rest = path.strip_prefix(&self.path)?.strip_prefix("data/")?;
        (self.kind == "kv" && versioned).then(|| format!("{}metadata/{rest}", self.path))
    }

    fn kv_name(&self, path: &str) -> String {
        let rest = path.strip_prefix(&self.path).unwrap_or(path);
        format!("{}{}", self.path, rest.strip_prefix("data/").unwrap_or(rest))
    }
}

/// What KV clients ask before each read too. It needs no policy but one that reaches into the mount.
async fn mount(bench: &Bench<'_>, token: &Token, path: &str) -> Result<Mount, String> {
    let reply =
        bench.read(token, &format!("sys/internal/ui/mounts/{path}")).await.map_err(|it| it.message)?;
    if reply.status == 403 {
        return Err(
            "nothing is mounted there, or no policy of the run token reaches into that mount".to_owned()
        );
    }
    let reply = reply.accepted().map_err(|failure| failure.message)?;
    let data = Envelope::of(&reply).map_err(|failure| failure.message)?.data;
    data.and_then(|data| serde_json::from_str(data.get()).ok())
        .ok_or_else(|| "its mount is not told".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versioned_value_has_metadata_beside_it() {
        let mount = |version: &str| Mount {
            path: "team/kv/".to_owned(),
            kind: "kv".to_owned(),
            options: Some([("version".to_owned(), version.to_owned())].into()),
        };
        assert_eq!(mount("2").metadata("team/kv/data/a/b").as_deref(), Some("team/kv/metadata/a/b"));
        assert_eq!(mount("2").kv_name("team/kv/data/a/b"), "team/kv/a/b");
        assert_eq!(mount("2").metadata("team/kv/other/a"), None);
        assert_eq!(mount("1").metadata("team/kv/data/a"), None);
    }
}
