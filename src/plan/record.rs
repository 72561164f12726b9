//! Writing into a status: conditions, ledger entries, the ends of a job.
//!
//! Conditions keep their `lastTransitionTime` unless their status changes, so a status that says
//! the same compares equal and is not written again.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::Observed;
use crate::{
    api::{
        Attempt, AvoidedNode, FailureClass, MAX_AVOIDED, MAX_LEDGER, NodeCounts, TrainingJob,
        TrainingJobStatus, conditions, reasons,
    },
    diagnose::Diagnosis,
};

/// A new status under construction.
pub(super) struct Draft {
    pub status: TrainingJobStatus,
    generation: Option<i64>,
    now: Time,
}

/// The three values of a condition's status.
#[derive(Clone, Copy)]
pub(super) enum Is {
    True,
    False,
    Unknown,
}

impl Draft {
    pub fn new(job: &TrainingJob, stored: &TrainingJobStatus, now: Timestamp) -> Self {
        let generation = job.metadata.generation;
        Self {
            status: TrainingJobStatus {
                observed_generation: generation,
                ..stored.clone()
            },
            generation,
            now: whole_seconds(now),
        }
    }

    pub fn now(&self) -> Time {
        self.now.clone()
    }

    /// Sets a condition.
    pub fn set(&mut self, kind: &str, is: Is, reason: &str, message: impl Into<String>) {
        let status = match is {
            Is::True => "True",
            Is::False => "False",
            Is::Unknown => "Unknown",
        };
        let new = Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: self.generation,
            last_transition_time: self.now.clone(),
        };
        let Some(old) = self.status.conditions.iter_mut().find(|c| c.type_ == kind) else {
            self.status.conditions.push(new);
            return;
        };
        let last_transition_time = if old.status == new.status {
            old.last_transition_time.clone()
        } else {
            new.last_transition_time.clone()
        };
        *old = Condition {
            last_transition_time,
            ..new
        };
    }

    /// The job is on its way: summary Unknown with `reason`, and what kstatus makes of it.
    pub fn active(&mut self, reason: &str, message: impl Into<String>) {
        let message = message.into();
        self.set(conditions::SUCCEEDED, Is::Unknown, reason, message.clone());
        self.set(conditions::RECONCILING, Is::True, reason, message);
        self.unset(conditions::STALLED);
    }

    /// The job can't go on until someone does something; it goes on by itself when they have.
    pub fn stalled(&mut self, reason: &str, message: impl Into<String>) {
        let message = message.into();
        self.set(conditions::SUCCEEDED, Is::Unknown, reason, message.clone());
        // Set and not unset before: its transition time would be new each time, and the status with it.
        self.set(conditions::STALLED, Is::True, reason, message);
        self.unset(conditions::RECONCILING);
    }

    /// The job has ended for good.
    pub fn finish(&mut self, succeeded: bool, reason: &str, message: impl Into<String>) {
        let message = message.into();
        let is = if succeeded { Is::True } else { Is::False };
        self.set(conditions::SUCCEEDED, is, reason, message.clone());
        self.set(
            conditions::PODS_READY,
            Is::False,
            reasons::FINISHED,
            "the job has ended",
        );
        self.unset(conditions::RECONCILING);
        if succeeded {
            self.unset(conditions::STALLED);
        } else {
            self.set(conditions::STALLED, Is::True, reason, message);
        }
        self.status.completion_time = Some(self.now());
        self.status.next_retry_time = None;
        self.status.nodes.active = 0;
        self.status.nodes.ready = 0;
    }

    /// Removes a condition.
    pub fn unset(&mut self, kind: &str) {
        self.status.conditions.retain(|c| c.type_ != kind);
    }

    /// Enters a new attempt into the ledger, to start at `start`.
    pub fn open_attempt(&mut self, start: Timestamp) {
        let number = self.status.attempts.last().map_or(1, |a| a.number + 1);
        self.status.attempts.push(Attempt {
            number,
            start_time: whole_seconds(start),
            pods_created: false,
            end_time: None,
            class: None,
            rule: None,
            root_cause: None,
            hint: None,
            decision: None,
            logs: None,
        });
        let surplus = self.status.attempts.len().saturating_sub(MAX_LEDGER);
        self.status.attempts.drain(..surplus);
        self.status.avoided_nodes.retain(|n| n.until.0 > start);
        self.status.nodes = NodeCounts::default();
    }

    /// Ends the open attempt, which failed, and counts it.
    pub fn close_failed(&mut self, diagnosis: &Diagnosis, decision: &str) {
        let open = self.status.open_attempt().is_some();
        self.close_attempt(Some(diagnosis), decision);
        if open {
            *self.status.failures.entry(diagnosis.class).or_default() += 1;
        }
    }

    /// Keeps the next attempts away from a node. The newest ones count, and each once.
    pub fn avoid(&mut self, node: &str, class: FailureClass, until: Timestamp) {
        let avoided = &mut self.status.avoided_nodes;
        avoided.retain(|n| n.name != node);
        avoided.push(AvoidedNode {
            name: node.to_owned(),
            class,
            until: whole_seconds(until),
        });
        let surplus = avoided.len().saturating_sub(MAX_AVOIDED);
        avoided.drain(..surplus);
    }

    /// Ends the open attempt.
    pub fn close_attempt(&mut self, diagnosis: Option<&Diagnosis>, decision: impl Into<String>) {
        let now = self.now();
        if let Some(attempt) = self
            .status
            .attempts
            .last_mut()
            .filter(|a| a.end_time.is_none())
        {
            attempt.end_time = Some(now);
            if let Some(diagnosis) = diagnosis {
                attempt.class = Some(diagnosis.class);
                attempt.rule.clone_from(&diagnosis.rule);
                attempt.root_cause = Some(diagnosis.root_cause.clone());
                attempt.hint.clone_from(&diagnosis.hint);
            }
            attempt.decision = Some(decision.into());
        }
        self.set(
            conditions::PODS_READY,
            Is::False,
            reasons::RETRYING,
            "the attempt has ended",
        );
        self.status.nodes.active = 0;
        self.status.nodes.ready = 0;
    }
}

/// The status without an open attempt that nothing has been created of, and whose time has not come:
/// it leaves no trace and its number is free for the next. The clock alone does not prove that (another
/// replica's may be ahead of ours), so there must be no pod of it either.
pub(super) fn without_unused(
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> TrainingJobStatus {
    let mut status = stored.clone();
    status.attempts.pop_if(|a| {
        a.end_time.is_none()
            && a.start_time.0 > now
            && !a.pods_created
            && observed.created.is_empty()
            && observed.pods.iter().all(|p| p.attempt != a.number)
    });
    status
}

/// Kubernetes keeps times to the second: what is written with more digits would come back different
/// and look like a change.
pub(super) fn whole_seconds(t: Timestamp) -> Time {
    Time(Timestamp::from_second(t.as_second()).unwrap_or(t))
}
