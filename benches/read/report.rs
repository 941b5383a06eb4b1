//! What both benches of the broker say alike: of themselves, and of the machine.

use std::time::Duration;

use super::Failed;

pub(crate) fn setting(name: &str, default: usize) -> Result<usize, Failed> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is a number").into()),
        Err(_) => Ok(default),
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!(
        "{} cores of {}, Linux {}",
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

pub(crate) fn pause(span: Duration) {
    let _ = rustix::thread::nanosleep(&rustix::time::Timespec {
        tv_sec: span.as_secs().cast_signed(),
        tv_nsec: span.subsec_nanos().into(),
    });
}
