//! Host memory in words: the limit and the peak, where they are known.

use super::log::Report;

/// What an OOM kill means.
pub(super) fn limit_exceeded(limit: Option<&str>, report: Option<&Report>) -> String {
    let limit = limit.map_or(String::new(), |l| format!(" ({l})"));
    let peak = report
        .and_then(peak)
        .map_or(String::new(), |p| format!(", when the process had {p}"));
    format!(
        "the container used more memory than its limit{limit} and the kernel killed it{peak}: raise resourcesPerNode.limits.memory, or use less"
    )
}

/// What to do about it.
pub(super) fn hint(limit: Option<&str>) -> String {
    let now = limit.map_or(String::new(), |l| format!(", which is {l} now"));
    format!(
        "Raise resourcesPerNode.limits.memory{now}, or use less: fewer data loader workers, smaller prefetch and batches, files read in pieces. Shared memory (shmSize) counts as well."
    )
}

/// A rule's hint with the limit, where the rule does not name one.
pub(super) fn with_limit(hint: &str, limit: Option<&str>) -> String {
    match limit {
        Some(limit) if hint.contains("limits.memory") => format!("{hint} The limit is {limit}."),
        _ => hint.to_owned(),
    }
}

/// The kernel's own count, where its message is in the log.
fn peak(report: &Report) -> Option<String> {
    let found = report.findings.decisive(&report.summary)?;
    let (_, rest) = found.text.split_once("anon-rss:")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let kib: u64 = rest[..end].parse().ok()?;
    Some(format!("{} MiB", kib / 1024))
}
