//! Fuzzed: the configuration and the environment.

use std::path::Path;
use std::time::Duration;

use super::{Environment, Origin, Overrides, parse};
use crate::clock::Moment;
use crate::fuzz::secret;

const NOW: Moment = Moment::new(Duration::ZERO, Duration::from_secs(1_767_225_600));

/// A file, and after a zero byte variables, a line each. What is taken keeps what `Config` promises; what is wrong is told
/// in lines, each of which names a place that is there.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let environment: Environment = variables.lines().filter_map(|line| line.split_once('=')).collect();
    let read = || parse(Some((Path::new("f.toml"), file)), &environment, &Overrides::default(), NOW);
    if let Some(token) = environment.var("TENURE_TASK_TOKEN") {
        let mark = secret(data);
        let mut marked: Vec<(&str, String)> = variables
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(n, v)| (n, v.to_owned()))
            .collect();
        marked.push(("TENURE_TASK_TOKEN", format!("{token}{mark}")));
        let marked: Environment = marked.into_iter().collect();
        let told = match parse(Some((Path::new("f.toml"), file)), &marked, &Overrides::default(), NOW) {
            Ok(loaded) => format!("{loaded:?}"),
            Err(problems) => problems.to_string(),
        };
        assert!(!told.contains(&mark), "{told}");
    }
    let loaded = match read() {
        Ok(loaded) => loaded,
        Err(problems) => {
            let lines = file.split('\n').count();
            for problem in problems.list() {
                assert!(!problem.message.is_empty() && !problem.to_string().contains('\n'), "{problem:?}");
                if let Origin::File { line, .. } = problem.origin {
                    assert!(line <= lines, "{problem:?} of {lines} lines");
                }
            }
            return;
        }
    };
    let again = read().expect("the same again");
    assert_eq!((&again.config, &again.settings), (&loaded.config, &loaded.settings));
    let config = &loaded.config;
    assert!(!config.vault.address.ends_with('/') && config.vault.address.starts_with("http"));
    assert!(config.run.ttl >= Duration::from_secs(1) && config.run.ttl.subsec_nanos() == 0);
    assert!(config.listen.unix.is_some() || config.listen.tcp.is_some());
    if let Some(unix) = &config.listen.unix {
        assert!(unix.path.as_os_str().len() <= 107 && unix.mode & 0o7 == 0 && unix.mode & 0o600 == 0o600);
    }
    if let Some(tcp) = &config.listen.tcp {
        assert!(tcp.address.ip().is_loopback());
    }
    let mut paths: Vec<_> = config.prefetch.iter().map(ToString::to_string).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), config.prefetch.len(), "a path is prefetched once");
    assert!(!loaded.settings.is_empty());
    assert!(loaded.run.deadline.is_none_or(|deadline| !deadline.len().is_zero()));
}
