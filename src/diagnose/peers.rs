//! Which ranks the others' messages name: "Ranks 3 failed to pass monitoredBarrier", the host at the
//! other end of a connection that broke, torchrun's report.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;

use super::{RankEvidence, verdict::Verdict};

/// Most processes that a pod is thought to run.
const MAX_PROCESSES: u32 = 64;

/// Group 1 is a list of global ranks.
static RANKS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    compile(&[
        r"Ranks? (\d+(?:, ?\d+)*) failed to pass monitoredBarrier",
        r"unhealthy tasks?.*task:(\d+)",
        r"/task:(\d+) (?:heartbeat|has|is unhealthy|failed)",
        r"(?:mpirun|prterun) noticed that process rank (\d+)",
        r"task (\d+): (?:Killed|Exited|Segmentation|Aborted|Bus error|Out Of Memory)",
        r"(?:connection|connect) (?:closed|to|with|from) (?:by )?(?:peer )?rank (\d+)",
        r"Connection closed by remote peer .*rank (\d+)",
    ])
});

/// Group 1 is a host.
static HOSTS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    compile(&[
        r"remote=\[?([A-Za-z0-9][\w.:-]*?)\]?:\d+\)?",
        r"Connection (?:closed|reset|refused) by (?:remote )?peer \[([\w.:-]+)\]",
        r"Connection closed by (?:remote )?peer ([\w.-]+)<\d+>",
        r"[Cc]onnect to ([\w.-]+)<\d+> (?:failed|returned)",
        r"The node '([\w.-]+?)_\d+_\d+' has failed",
        r"client socket has (?:timed out|failed) .*connect to \(([\w.-]+), \d+\)",
        r"from peer ([\w.-]+)<\d+>",
    ])
});

fn compile(patterns: &[&str]) -> Vec<Regex> {
    patterns.iter().filter_map(|p| Regex::new(p).ok()).collect()
}

/// How many ranks name each node rank.
pub(super) fn named(ranks: &[RankEvidence], verdicts: &[Verdict]) -> BTreeMap<i32, usize> {
    let processes = processes(verdicts);
    let mut named = BTreeMap::new();
    let mut witness = |by: i32, rank: i32| {
        if by != rank {
            *named.entry(rank).or_insert(0) += 1;
        }
    };
    for v in verdicts {
        let by = v.pod.rank;
        let text = &v.root_cause.message;
        for captures in RANKS.iter().filter_map(|r| r.captures(text)) {
            for global in captures[1]
                .split(',')
                .filter_map(|n| n.trim().parse::<u32>().ok())
            {
                witness(by, i32::try_from(global / processes).unwrap_or(i32::MAX));
            }
        }
        for captures in HOSTS.iter().filter_map(|r| r.captures(text)) {
            if let Some(rank) = pod_of(ranks, &captures[1]) {
                witness(by, rank);
            }
        }
    }
    named
}

/// The rank whose pod has this host name: its name, alone or before its Service's.
fn pod_of(ranks: &[RankEvidence], host: &str) -> Option<i32> {
    let first = host.split('.').next().unwrap_or(host);
    let found = ranks
        .iter()
        .find(|r| r.pod.name == first || r.pod.ip.as_deref() == Some(host));
    found.map(|r| r.pod.rank)
}

/// How many processes each pod runs: torch counts ranks over all of them.
fn processes(verdicts: &[Verdict]) -> u32 {
    let reported = verdicts.iter().find_map(|v| {
        let report = v.report.as_ref()?;
        report.summary.processes(v.pod.rank)
    });
    if let Some(n) = reported {
        return n.clamp(1, MAX_PROCESSES);
    }
    let fits = |n: u32| {
        verdicts.iter().all(|v| {
            let node = u32::try_from(v.pod.rank).unwrap_or(0);
            v.report
                .iter()
                .flat_map(|r| &r.ranks)
                .all(|rank| rank / n == node)
        })
    };
    (1..=MAX_PROCESSES).find(|n| fits(*n)).unwrap_or(1)
}
