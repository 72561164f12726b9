//! An attempt of which a rank has failed: evidence is gathered while it exists, the root cause is
//! found, and [`retry`] decides.
//!
//! The first failure that shows need not be the first that happened: when a rank dies, the others
//! fail of the lost connection within seconds, and kubelets report in any order. So where all that is
//! seen is the consequence of something else, the gang gets a few seconds for the rank to blame to
//! show itself; and if it does not, the ranks that still run are read too.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Effect, MAX_TAILS, Observed, Plan, PodFacts, Question, gang::Gang, retry};
use crate::{
    api::{FailureRules, TrainingJob, TrainingJobStatus, names},
    diagnose::{self, BadRule, Diagnosis, Origin, RankEvidence, RuleBook},
    pods,
};

/// How long the rank to blame may take to show (seconds). Ranks that lose a peer fail at once or at
/// their next collective; a kubelet reports an end within a second or two.
const SETTLE: i64 = 5;

/// Most cluster nodes that are asked about at once.
const MAX_NODES: usize = 16;

/// The rules in force for the job.
pub(super) fn book(job: &TrainingJob, stored: &TrainingJobStatus, observed: &Observed) -> RuleBook {
    let mut layers = own_layers(job, stored);
    layers.push((Origin::Cluster, &observed.cluster_rules));
    RuleBook::new(&layers).0
}

/// The rules of the job and its runtime that can't be used. Only those: the cluster's are judged once,
/// where they are read, and not again at the start of every job.
pub(super) fn bad_rules(job: &TrainingJob, stored: &TrainingJobStatus) -> Vec<BadRule> {
    RuleBook::new(&own_layers(job, stored)).1
}

fn own_layers<'a>(
    job: &'a TrainingJob,
    stored: &'a TrainingJobStatus,
) -> Vec<(Origin, &'a FailureRules)> {
    let own = job.spec.failure_policy.as_ref().map(|p| &p.own);
    let runtime = stored.runtime.as_ref();
    let runtime = runtime.and_then(|r| r.spec.failure_policy.as_ref());
    let own = own.map(|rules| (Origin::Job, rules));
    let runtime = runtime.map(|rules| (Origin::Runtime, rules));
    own.into_iter().chain(runtime).collect()
}

/// The plan of an attempt that has failed. None while none of its ranks has.
pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Option<Plan> {
    let pods = gang.all();
    if !diagnose::has_failed(&pods) {
        let diagnosis = deleted(job, stored, gang, observed)?;
        return Some(retry::failed(job, stored, &diagnosis, now));
    }
    if let Some(ask) = ask_nodes(&pods, observed).or_else(|| ask(failed_first(&pods), observed)) {
        return Some(ask);
    }
    let diagnosis = explain(job, stored, gang, observed)?;
    if diagnosis.collateral && !pods.iter().all(|p| p.terminal()) {
        let seen = observed.answers.failure_seen.unwrap_or(now);
        let settled = seen.checked_add(SETTLE.seconds()).unwrap_or(now);
        if now < settled {
            return Some(Plan::default().until(Some(settled), now));
        }
        let running = pods.iter().filter(|p| !p.terminal()).copied();
        if let Some(ask) = ask(running, observed) {
            return Some(ask);
        }
    }
    Some(retry::failed(job, stored, &diagnosis, now))
}

/// What is known so far of why the attempt failed.
pub(super) fn explain(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
) -> Option<Diagnosis> {
    let book = book(job, stored, observed);
    let limit = pods::memory_limit(job);
    diagnose::failure(&evidence(gang, observed, limit.as_deref()), &book)
}

/// All that is known of the ranks that have a pod.
pub(super) fn evidence<'a>(
    gang: &Gang<'a>,
    observed: &'a Observed,
    memory_limit: Option<&'a str>,
) -> Vec<RankEvidence<'a>> {
    let answers = &observed.answers;
    gang.all()
        .into_iter()
        .map(|pod| RankEvidence {
            pod,
            tail: answers.tails.get(&pod.rank).and_then(|t| t.tail.as_deref()),
            node: (pod.node.as_ref()).and_then(|n| answers.nodes.get(n)?.as_ref()),
            memory_limit,
        })
        .collect()
}

/// The ranks that ended of themselves, the first to end first. What Kubernetes or a person ended
/// explains itself.
fn failed_first<'a>(pods: &[&'a PodFacts]) -> impl Iterator<Item = &'a PodFacts> + use<'a> {
    let mut failed: Vec<&PodFacts> = pods
        .iter()
        .copied()
        .filter(|p| p.phase == super::Phase::Failed && !p.interrupted())
        .collect();
    failed.sort_by_key(|p| {
        let finished = p.terminated.as_ref().and_then(|t| t.finished);
        (finished.is_none(), finished, p.rank)
    });
    failed.into_iter()
}

/// Asks for the logs of those pods that have not been read to their end.
pub(super) fn ask<'a>(
    pods: impl Iterator<Item = &'a PodFacts>,
    observed: &Observed,
) -> Option<Plan> {
    let tails = &observed.answers.tails;
    let room = MAX_TAILS.saturating_sub(tails.len());
    let known = |p: &PodFacts| tails.get(&p.rank).is_some_and(|t| t.ended || !p.terminal());
    // Those that were read while they ran take no further room.
    let (again, new): (Vec<_>, Vec<_>) = pods
        .filter(|p| !known(p))
        .map(|p| p.rank)
        .partition(|rank| tails.contains_key(rank));
    let ranks: Vec<i32> = again
        .into_iter()
        .chain(new.into_iter().take(room))
        .collect();
    let nodes = Vec::new();
    (!ranks.is_empty()).then(|| Plan::act(vec![Effect::Ask(Question::Evidence { ranks, nodes })]))
}

/// Asks for the nodes whose pods a taint or the loss of the node ended: only the node says which of
/// the two it was.
fn ask_nodes(pods: &[&PodFacts], observed: &Observed) -> Option<Plan> {
    const ENDED_WITH_NODE: [&str; 2] = ["DeletionByTaintManager", "DeletionByPodGC"];
    let ended = pods.iter().filter(|p| {
        let reason = p.disruption.as_ref().map(|d| d.reason.as_str());
        reason.is_some_and(|r| ENDED_WITH_NODE.contains(&r))
    });
    let nodes: BTreeSet<String> = ended
        .filter_map(|p| p.node.clone())
        .filter(|n| !observed.answers.nodes.contains_key(n))
        .take(MAX_NODES)
        .collect();
    let ranks = Vec::new();
    let nodes: Vec<String> = nodes.into_iter().collect();
    (!nodes.is_empty()).then(|| Plan::act(vec![Effect::Ask(Question::Evidence { ranks, nodes })]))
}

/// A rank whose pod is gone.
fn deleted(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
) -> Option<Diagnosis> {
    let &rank = gang.missing.first()?;
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let pod = names::pod_name(name, gang.attempt.number, rank);
    let book = book(job, stored, observed);
    Some(diagnose::missing(pod, rank, &book))
}
