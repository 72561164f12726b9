//! Stopping pods that are not needed any more, so that nothing they wrote is lost.
//!
//! A kubelet throws the log of a deleted pod away as soon as its containers have ended, which may be
//! before anybody has read its last lines. So a pod that runs is not deleted: it is given an
//! `activeDeadlineSeconds` that is over. Its kubelet then stops it in the same way (SIGTERM, grace
//! period, SIGKILL), and it stays, Failed, with its log. It is deleted when its lines are counted, or have had their time. A
//! kubelet that does not do this in time is not there, and the pod is deleted without more ado.
//!
//! Where nobody collects logs, pods are deleted at once.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{Effect, Observed, Plan, PodFacts};
use crate::{
    api::{TrainingJob, TrainingJobStatus},
    pods,
};

/// How much longer than its grace period a kubelet may take to stop a pod (seconds).
const MARGIN: i64 = 30;

/// Stops those of the pods that may still run and that nobody is stopping yet.
pub(super) fn stop(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    pods: &[&PodFacts],
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let running = pods
        .iter()
        .filter(|p| !p.terminal() && p.deletion.is_none());
    for pod in running {
        let patience = patience(job, stored, pod).filter(|at| now < *at);
        let has_log = observed.log_drain.is_some() && pod.accepted.is_some();
        let (name, uid) = (pod.name.clone(), pod.uid.clone());
        match patience.filter(|_| has_log) {
            None => plan.effects.push(Effect::DeletePod { name, uid }),
            Some(at) => {
                if !pod.stopping {
                    plan.effects.push(Effect::StopPod { name, uid });
                }
                plan = plan.until(Some(at), now);
            }
        }
    }
    plan
}

/// Until when a pod of an attempt that has ended may take to stop.
fn patience(job: &TrainingJob, stored: &TrainingJobStatus, pod: &PodFacts) -> Option<Timestamp> {
    let attempt = stored.attempts.iter().find(|a| a.number == pod.attempt)?;
    let end = attempt.end_time.as_ref()?.0;
    let seconds = pods::grace(job).saturating_add(MARGIN);
    end.checked_add(seconds.seconds()).ok()
}

/// Deletes pods that were stopped and whose lines are counted.
pub(super) fn tidy(stored: &TrainingJobStatus, observed: &Observed) -> Vec<Effect> {
    let counted = |pod: &PodFacts| {
        let attempt = stored.attempts.iter().find(|a| a.number == pod.attempt);
        attempt.is_none_or(|a| a.logs.is_some())
    };
    let pods = observed.pods.iter();
    pods.filter(|p| p.stopping && p.terminal() && p.deletion.is_none() && counted(p))
        .map(|p| Effect::DeletePod {
            name: p.name.clone(),
            uid: p.uid.clone(),
        })
        .collect()
}
