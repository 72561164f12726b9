//! A failed attempt as Kubernetes shows it: the gang's pods, their logs, their cluster nodes.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use k8s_openapi::jiff::{Timestamp, ToSpan};
use trainyard::{
    diagnose::{NodeFacts, Tail},
    plan::{Phase, PodFacts, Reason, Terminated},
};

use crate::{
    dice::Dice,
    texts::{Library, Rendering},
    world::Fault,
};

/// A point of simulated time, in seconds from its beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time within the century")
}

/// What is left of an attempt.
#[derive(Debug)]
pub struct Evidence {
    /// When the failure happened.
    pub failed: i64,
    /// A hang: nothing ended, and nothing has been written since [`Self::failed`].
    pub silent: bool,
    /// All pods, by rank.
    pub pods: Vec<PodFacts>,
    /// Their logs' ends, by rank.
    pub tails: Vec<Arc<Tail>>,
    /// Their nodes, by name.
    pub nodes: BTreeMap<String, NodeFacts>,
}

/// Where and when an attempt runs.
pub struct Stage<'a> {
    /// Number of the attempt.
    pub attempt: i32,
    /// Node of each rank.
    pub nodes: &'a [u32],
    /// When its pods started.
    pub started: i64,
}

/// A pod that runs.
pub fn pod(stage: &Stage, rank: usize) -> PodFacts {
    let index = i32::try_from(rank).unwrap_or_default();
    PodFacts {
        name: format!("train-{}-{index}", stage.attempt),
        uid: format!("pod-{}-{index}", stage.attempt),
        attempt: stage.attempt,
        rank: index,
        node: Some(node_name(stage.nodes[rank])),
        accepted: Some(at(stage.started)),
        phase: Phase::Running,
        ready: true,
        ..PodFacts::default()
    }
}

/// "gpu-17"
pub fn node_name(node: u32) -> String {
    format!("gpu-{node}")
}

impl Evidence {
    /// The rank to blame ends first. Ranks that fail with it end within the same second, ranks that fail
    /// of it within four; nodes' clocks differ by up to half a second.
    pub fn of(
        fault: &Fault,
        stage: &Stage,
        failed: i64,
        library: &Library,
        dice: &mut Dice,
    ) -> Self {
        let text = &library.texts[fault.text];
        let mut evidence = Self {
            failed,
            silent: text.silent,
            pods: Vec::with_capacity(stage.nodes.len()),
            tails: Vec::with_capacity(stage.nodes.len()),
            nodes: BTreeMap::new(),
        };
        for rank in 0..stage.nodes.len() {
            let skew = dice.below(1001) as i64 - 500;
            let to_blame = rank == fault.rank;
            let own = library.own(fault.text, fault.variant, rank);
            let (shown, later) = if to_blame {
                (own, 0)
            } else if text.everywhere || text.silent {
                (own, dice.below(900) as i64)
            } else {
                (
                    library.peer(fault.text, dice, rank),
                    1000 + dice.below(3000) as i64,
                )
            };
            let end = failed * 1000 + later + skew;
            let mut pod = pod(stage, rank);
            if to_blame && !text.silent {
                self::end(&mut pod, shown, &text.reason, end);
                evidence.disrupt(&mut pod, fault, library, end);
            } else if !text.silent {
                let reason = if text.everywhere {
                    text.reason.as_str()
                } else {
                    "Error"
                };
                self::end(&mut pod, shown, reason, end);
            }
            evidence.pods.push(pod);
            evidence.tails.push(Arc::new(stamped(shown, end)));
        }
        evidence
    }

    /// What Kubernetes did to the pod, and what it says of its node.
    fn disrupt(&mut self, pod: &mut PodFacts, fault: &Fault, library: &Library, end: i64) {
        let text = &library.texts[fault.text];
        if let Some(why) = &text.disruption {
            pod.disruption = Some(Reason {
                reason: why.reason.clone(),
                message: why.message.clone(),
            });
            let asked = at(end / 1000 - 1);
            pod.deletion_requested = Some(asked);
            pod.deletion = asked.checked_add(30.seconds()).ok();
        }
        if text.alive {
            pod.phase = Phase::Running;
            pod.terminated = None;
        }
        let name = pod.node.clone().unwrap_or_default();
        let facts = NodeFacts {
            name: name.clone(),
            ready: text.node_ready,
            unschedulable: text.node_unschedulable,
            taints: text.node_taints.clone(),
            problems: text.node_problems.clone(),
            ready_since: None,
        };
        self.nodes.insert(name, facts);
    }

    /// The exit code that a policy without any understanding sees: that of the first pod to end. A pod
    /// that never ended, or ended with 0 on SIGTERM, counts as killed: kinder to such a policy than
    /// Kubernetes is.
    pub fn exit_code(&self) -> i32 {
        self.pods
            .iter()
            .filter(|p| p.interrupted() || p.phase == Phase::Failed)
            .filter_map(|p| p.terminated.as_ref())
            .min_by_key(|t| t.finished)
            .map(|t| t.exit_code)
            .filter(|code| *code != 0)
            .unwrap_or(137)
    }
}

fn end(pod: &mut PodFacts, shown: &Rendering, reason: &str, end: i64) {
    let Some(exit_code) = shown.exit else {
        return; // blocked in a collective
    };
    pod.ready = false;
    pod.phase = if exit_code == 0 {
        Phase::Succeeded
    } else {
        Phase::Failed
    };
    pod.terminated = Some(Terminated {
        container: "trainer".into(),
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { reason }.into(),
        message: message(shown),
        finished: Some(at(end.div_euclid(1000) + 1)),
    });
}

/// FallbackToLogsOnError: the last 80 lines or 2048 bytes, whichever is smaller (Kubernetes'
/// documentation, "Determine the Reason for Pod Failure").
fn message(shown: &Rendering) -> String {
    let mut size = 0;
    let fits = |line: &&String| {
        size += line.len() + 1;
        size <= 2048
    };
    let mut lines: Vec<&str> = shown
        .lines
        .iter()
        .rev()
        .take(80)
        .take_while(fits)
        .map(String::as_str)
        .collect();
    lines.reverse();
    lines.join("\n")
}

/// The log as the API gives it with timestamps; its last line is a fraction of a second before `end`.
fn stamped(shown: &Rendering, end: i64) -> Tail {
    let mut bytes = String::with_capacity(shown.lines.iter().map(|l| l.len() + 32).sum());
    let first = end - 20 - shown.lines.len() as i64;
    let mut second = i64::MIN;
    let mut date = String::new();
    for (i, line) in shown.lines.iter().enumerate() {
        let millis = first + i as i64;
        if millis.div_euclid(1000) != second {
            second = millis.div_euclid(1000);
            date = at(second).to_string();
            date.truncate(19);
        }
        let _ = writeln!(bytes, "{date}.{:03}000001Z {line}", millis.rem_euclid(1000));
    }
    Tail {
        bytes: bytes.into_bytes(),
        stamped: true,
    }
}
