//! PURE: what should happen next to a job. `(job, observed, now) → Plan`.
//!
//! One file a policy: [`start`] opens attempts, [`gang`] follows an open one, [`starting`] and
//! [`progress`] watch over its start and its pace, [`failure`] has it explained when it has failed,
//! [`retry`] decides what to do then, [`finished`] looks after a job that has ended, [`suspend`]
//! stops and resumes, [`stop`] stops pods, [`logs`] keeps them until their lines are stored.
//!
//! A plan either records or acts, never both: while the status is not yet what it should be, the
//! plan is a new status; pods are touched only by a plan that has nothing left to record. So "count
//! before create" holds by construction: an attempt is in the stored status before its first pod
//! can be created, whatever crashes in between.
//!
//! What the watches do not bring (the end of a log, a node's state) a plan asks for:
//! [`Effect::Ask`]. The answer comes back in [`Observed::answers`], and the plan is made anew.
//!
//! No client and no clock here; "not ready yet" is data, not an error.

mod failure;
mod finished;
mod gang;
mod logs;
mod observed;
mod progress;
mod record;
mod retry;
mod start;
mod starting;
mod stop;
mod suspend;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

pub use logs::may_go_alone;
pub use observed::{
    Answers, Observed, Phase, PodFacts, Progress, Reason, Refusal, StartAnswer, TailAnswer,
    Terminated, Waiting,
};

use self::record::Draft;
use crate::api::{TrainingJob, TrainingJobStatus, names};

/// What should happen next. Empty means: nothing until something changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The status to write, where it differs from the stored one.
    pub record: Option<Record>,
    /// What to do to other objects; only where there is nothing to record.
    pub effects: Vec<Effect>,
    /// When to look again even if nothing changes.
    pub requeue: Option<Duration>,
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The whole new status.
    pub status: TrainingJobStatus,
    /// Whether it can wait: see [`Urgency`].
    pub urgency: Urgency,
    /// What to tell the user once it is written.
    pub event: Option<Event>,
}

/// How soon a status has to be written. What can wait is collected by the writer, so that 64 pods
/// becoming ready are not 64 writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Decisions follow from it.
    Now,
    /// Only counts and messages of a gang that is starting differ.
    Soon,
    /// The user would learn nothing new.
    Eventually,
}

/// A change of another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the gang's headless Service, if it is not there.
    CreateService,
    /// Create the pod of this rank of this attempt.
    CreatePod {
        /// Number of the attempt.
        attempt: i32,
        /// Rank of the node.
        rank: i32,
    },
    /// Have this pod's kubelet stop it (gracefully) and keep its log, unless it has been replaced by
    /// another of the same name.
    StopPod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Delete this pod (gracefully), unless it has been replaced by another of the same name.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Let this pod, which is being deleted, go: its logs are stored, or have had their time.
    ReleasePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Delete the job itself, its dependents with it.
    DeleteJob,
    /// Find something out; then plan again.
    Ask(Question),
}

/// What a plan must know about the open attempt and the watches do not bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How ranks ended.
    Evidence {
        /// The end of the logs of these ranks and the state of their cluster nodes; at most
        /// [`MAX_TAILS`] over the life of an attempt.
        ranks: Vec<i32>,
        /// The state of these further cluster nodes.
        nodes: Vec<String>,
    },
    /// The time of the newest log line of any rank that counts as progress.
    Progress {
        /// A line of this time or newer is enough.
        since: Timestamp,
    },
    /// What keeps the pod of this rank from starting.
    Start {
        /// The rank.
        rank: i32,
    },
}

/// Most ranks of one attempt whose logs are read when it has failed: a gang of 1,024 ranks that fails
/// together is explained by its first ones.
pub const MAX_TAILS: usize = 64;

/// An Event about the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Warning rather than Normal.
    pub warning: bool,
    /// CamelCase, from [`crate::api::reasons`] where it is also a condition's.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}

/// Decides what should happen next to `job`.
#[must_use]
pub fn plan(job: &TrainingJob, observed: &Observed, now: Timestamp) -> Plan {
    if !ours(job) {
        return Plan::default();
    }
    if job.metadata.deletion_timestamp.is_some() {
        return released(
            Plan::default(),
            &TrainingJobStatus::default(),
            observed,
            now,
        );
    }
    let mut stored = job.status.clone().unwrap_or_default();
    logs::settle(job, &mut stored, observed, now);
    let mut plan = policy(job, &stored, observed, now);
    if let Some(record) = &mut plan.record {
        logs::keep_count(&stored, &mut record.status, observed);
        if record.status.finished() && !stored.finished() {
            logs::drain(job, &mut record.status, observed, now);
        }
    }
    plan = plan.without_noop(job.status.as_ref());
    if plan.record.is_none() && plan.effects.is_empty() {
        plan = plan.and(stop::stop(
            job,
            &stored,
            &strays(&stored, observed),
            observed,
            now,
        ));
    }
    if plan.record.is_none() && plan.effects.is_empty() && Some(&stored) != job.status.as_ref() {
        plan.record = gang::record(Draft::new(job, &stored, now), Urgency::Soon).record;
        plan = plan.without_noop(job.status.as_ref());
    }
    let counted = job.status.as_ref();
    released(
        plan,
        counted.unwrap_or(&TrainingJobStatus::default()),
        observed,
        now,
    )
}

fn policy(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    if stored.finished() {
        finished::plan(job, stored, observed, now)
    } else if let Some(plan) = gang::done(job, stored, observed, now) {
        plan
    } else if let Some(plan) = suspend::plan(job, stored, observed, now) {
        plan
    } else if let Some(attempt) = stored.open_attempt() {
        gang::plan(job, stored, attempt, observed, now)
    } else {
        start::plan(job, stored, observed, now)
    }
}

/// The plan, and the pods that may go now. A question is answered first.
fn released(
    mut plan: Plan,
    stored: &TrainingJobStatus,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    if plan.record.is_none() && !matches!(plan.effects.as_slice(), [Effect::Ask(_)]) {
        plan.effects.extend(logs::release(stored, observed, now));
        plan.effects.extend(stop::tidy(stored, observed));
    }
    plan.until(logs::next_release(observed, now), now)
}

/// Pods of earlier attempts. They are stopped before the next attempt begins; one that shows only
/// then (its creation was answered too late, or to nobody) would hold its GPUs beside the gang.
fn strays<'a>(stored: &TrainingJobStatus, observed: &'a Observed) -> Vec<&'a PodFacts> {
    let open = stored.open_attempt().map(|a| a.number);
    let pods = observed.pods.iter();
    pods.filter(|p| open.is_some_and(|n| n != p.attempt))
        .collect()
}

/// Whether this operator is the one to run the job.
fn ours(job: &TrainingJob) -> bool {
    job.spec
        .managed_by
        .as_ref()
        .is_none_or(|by| by == names::MANAGED_BY)
}

impl Plan {
    fn record(status: TrainingJobStatus, event: Option<Event>) -> Self {
        Self {
            record: Some(Record {
                status,
                urgency: Urgency::Now,
                event,
            }),
            ..Self::default()
        }
    }

    fn act(effects: Vec<Effect>) -> Self {
        Self {
            effects,
            ..Self::default()
        }
    }

    /// What is done besides, and the earlier of the two looks.
    fn and(mut self, other: Self) -> Self {
        self.effects.extend(other.effects);
        self.requeue = [self.requeue, other.requeue].into_iter().flatten().min();
        self
    }

    /// Looks again at `at`, if that is sooner than what was planned.
    fn until(mut self, at: Option<Timestamp>, now: Timestamp) -> Self {
        if let Some(at) = at {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            self.requeue = Some(self.requeue.map_or(wait, |earlier| earlier.min(wait)));
        }
        self
    }

    /// Quiet at rest: a status that is already stored is not written again.
    fn without_noop(mut self, stored: Option<&TrainingJobStatus>) -> Self {
        if self
            .record
            .as_ref()
            .is_some_and(|r| Some(&r.status) == stored)
        {
            self.record = None;
        }
        debug_assert!(
            self.record.is_none() || self.effects.is_empty(),
            "a plan either records or acts"
        );
        self
    }
}

/// "1 node", "8 nodes".
fn nodes(n: i32) -> String {
    if n == 1 {
        "1 node".into()
    } else {
        format!("{n} nodes")
    }
}
