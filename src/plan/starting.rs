//! A gang that is not complete yet: says what it waits for, finds out what the pods themselves do not
//! say, and ends the attempt when it takes too long.

use k8s_openapi::jiff::{Timestamp, ToSpan};

use super::{
    Effect, Observed, Phase, Plan, PodFacts, Question, Reason, Refusal, StartAnswer, Urgency,
    failure,
    gang::{Gang, deadline, record},
    record::{Draft, Is},
    retry,
};
use crate::{
    api::{TrainingJob, TrainingJobStatus, conditions, reasons},
    diagnose::{self, Diagnosis, RuleBook},
};

/// How long an image may fail to be pulled, or a container to be created, before the attempt fails
/// (seconds). The kubelet goes on trying with a backoff of up to 5 minutes; a registry's short
/// outage fits into this, a wrong name shows in the condition at once.
const START_PROBLEM_PATIENCE: i64 = 300;

/// A pod that a kubelet has had for so long without saying anything has something to tell, in Events:
/// a volume that can't be mounted, for example (seconds).
const QUIET_START: i64 = 20;

/// How long an answer about a pod's start holds (seconds): free GPUs come and go.
const ANSWER_HOLDS: i64 = 60;

pub(super) fn plan(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    observed: &Observed,
    now: Timestamp,
) -> Plan {
    let blocked = Blocked::of(gang, observed, now);
    if let Some(rank) = blocked.as_ref().and_then(|b| b.unasked(now)) {
        return Plan::act(vec![Effect::Ask(Question::Start { rank })]);
    }
    let due = deadline(
        Some(gang.attempt.start_time.0),
        job.spec.start_deadline_seconds,
    );
    let patience = blocked.as_ref().and_then(Blocked::patience);
    let late = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    if late(due) || late(patience) {
        let book = failure::book(job, stored, observed);
        let cause = blocked.as_ref().and_then(|b| b.diagnosis(&book));
        if late(due) {
            let seconds = job.spec.start_deadline_seconds.unwrap_or_default();
            let decision =
                format!("not retried: it was not ready within startDeadlineSeconds ({seconds} s)");
            let cause = cause.unwrap_or_else(|| not_ready(gang, &book));
            let reason = reasons::START_DEADLINE_EXCEEDED;
            return retry::give_up(job, stored, &cause, reason, &decision, now);
        }
        if let Some(cause) = cause {
            return retry::failed(job, stored, &cause, now);
        }
    }
    let holds = blocked.as_ref().and_then(Blocked::answer_holds_until);
    let quiet_until = gang.all().iter().filter_map(|p| quiet_until(p)).min();
    wait(job, stored, gang, blocked.and_then(|b| b.problem()), now)
        .until(due, now)
        .until(patience, now)
        .until(quiet_until.filter(|at| *at > now), now)
        .until(holds, now)
}

/// The rank that keeps the gang from starting.
struct Blocked<'a> {
    pod: &'a PodFacts,
    answer: Option<&'a StartAnswer>,
}

impl<'a> Blocked<'a> {
    /// Of the ranks that there is something to say about, the one whose patience ends first.
    fn of(gang: &Gang<'a>, observed: &'a Observed, now: Timestamp) -> Option<Self> {
        gang.all()
            .into_iter()
            .filter(|p| {
                diagnose::start_problem(p).is_some() || quiet_until(p).is_some_and(|at| at <= now)
            })
            .map(|pod| Self {
                pod,
                answer: observed.answers.start.get(&pod.rank),
            })
            .min_by_key(|b| (b.patience().is_none(), b.patience(), b.pod.rank))
    }

    /// The pod says all that can be found out.
    fn tells_all(&self) -> bool {
        self.pod.unschedulable.is_none() && self.pod.waiting.is_some()
    }

    /// Its rank, where it is to be asked about, and the last answer is old.
    fn unasked(&self, now: Timestamp) -> Option<i32> {
        let old = self.answer_holds_until().is_none_or(|until| until <= now);
        (!self.tells_all() && old).then_some(self.pod.rank)
    }

    fn answer_holds_until(&self) -> Option<Timestamp> {
        let answer = self.answer.filter(|_| !self.tells_all())?;
        answer.asked.checked_add(ANSWER_HOLDS.seconds()).ok()
    }

    fn found(&self) -> Option<&Reason> {
        let answer = self.answer.filter(|_| !self.tells_all())?;
        answer.found.as_ref()
    }

    /// What is wrong, in words.
    fn problem(&self) -> Option<Reason> {
        match (diagnose::start_problem(self.pod), self.found()) {
            (Some(problem), Some(found)) => Some(Reason {
                message: format!("{}; {}", found.message, problem.message),
                ..problem
            }),
            (Some(problem), None) => Some(problem),
            (None, found) => found.cloned(),
        }
    }

    fn diagnosis(&self, book: &RuleBook) -> Option<Diagnosis> {
        let found = self.found();
        match (diagnose::not_started(self.pod, book), found) {
            (Some(diagnosis), Some(found)) => Some(Diagnosis {
                summary: format!("{}; {}", found.message, diagnosis.summary),
                ..diagnosis
            }),
            (Some(diagnosis), None) => Some(diagnosis),
            (None, found) => found.map(|f| diagnose::stuck(self.pod, f, book)),
        }
    }

    /// When it ends the attempt: some time after a kubelet began to try, which may be long after the
    /// attempt's start where GPUs are scarce. None for a pod that no node has, and for one that only
    /// takes its time.
    fn patience(&self) -> Option<Timestamp> {
        self.problem()
            .filter(|r| r.reason != diagnose::UNSCHEDULABLE)?;
        let since = self.pod.accepted?;
        since.checked_add(START_PROBLEM_PATIENCE.seconds()).ok()
    }
}

fn wait(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    problem: Option<Reason>,
    now: Timestamp,
) -> Plan {
    let mut draft = gang.counted(job, stored, now);
    let waits = ready_of(job, gang);
    let nothing_to_tell = problem.is_none();
    let (reason, message) = problem.map_or((reasons::STARTING.to_owned(), waits.clone()), |r| {
        (r.reason, format!("{waits}; {}", r.message))
    });
    draft.active(
        reasons::STARTING,
        format!("attempt {} starts: {message}", gang.attempt.number),
    );
    draft.set(conditions::PODS_READY, Is::False, &reason, message);
    draft.status.next_retry_time = None;
    // A pod that is simply starting is no news: a job of one pod that starts within a minute costs no
    // write for it.
    let same = nothing_to_tell && draft.status.nodes.ready == stored.nodes.ready;
    let urgency = if same {
        Urgency::Eventually
    } else {
        Urgency::Soon
    };
    record(draft, urgency)
}

/// When a pod that has been with a kubelet and says nothing starts to be worth a question.
fn quiet_until(pod: &PodFacts) -> Option<Timestamp> {
    if pod.ready || pod.phase != Phase::Pending || pod.waiting.is_some() {
        return None;
    }
    pod.accepted?.checked_add(QUIET_START.seconds()).ok()
}

/// "2 of 8 nodes are ready"
pub(super) fn ready_of(job: &TrainingJob, gang: &Gang) -> String {
    let up = |p: &&&PodFacts| p.ready || p.phase == Phase::Succeeded;
    match (gang.pods.values().filter(up).count(), job.spec.num_nodes) {
        (_, 1) => "the node is not ready".into(),
        (ready, all) => format!("{ready} of {all} nodes are ready"),
    }
}

fn not_ready(gang: &Gang, book: &RuleBook) -> Diagnosis {
    let waiting = gang.pods.values().filter(|p| !p.ready && !p.terminal());
    let ranks: Vec<String> = waiting.map(|p| p.rank.to_string()).collect();
    let (word, shown) = match ranks.len() {
        1 => ("rank", ranks.join("")),
        2..=8 => ("ranks", ranks.join(", ")),
        n => (
            "ranks",
            format!(
                "{} and {} more",
                ranks[..8.min(n)].join(", "),
                n.saturating_sub(8)
            ),
        ),
    };
    let message = format!(
        "{word} {shown} did not become ready; kubectl describe pod shows what they wait for"
    );
    diagnose::deadline(&message, reasons::START_DEADLINE_EXCEEDED, book)
}

/// The API server did not take a pod: tells the user, and ends the job where trying again is no use.
/// None where the status says so already and it is to be tried again.
pub(super) fn refused(
    job: &TrainingJob,
    stored: &TrainingJobStatus,
    gang: &Gang,
    refusal: &Refusal,
    book: &RuleBook,
    now: Timestamp,
) -> Option<Plan> {
    let due = deadline(
        Some(gang.attempt.start_time.0),
        job.spec.start_deadline_seconds,
    );
    let cause = diagnose::refused(&refusal.message, refusal.permanent, book);
    if refusal.permanent {
        let decision = "not retried: the same pod would be refused again";
        let reason = reasons::INVALID_POD;
        return Some(retry::give_up(job, stored, &cause, reason, decision, now));
    }
    if due.is_some_and(|at| at <= now) {
        let decision = "not retried: the nodes did not start in time";
        let reason = reasons::START_DEADLINE_EXCEEDED;
        return Some(retry::give_up(job, stored, &cause, reason, decision, now));
    }
    let mut draft = Draft::new(job, stored, now);
    let message = cause.summary;
    draft.active(
        reasons::STARTING,
        format!("attempt {} starts: {message}", gang.attempt.number),
    );
    draft.set(conditions::PODS_READY, Is::False, "PodsRefused", message);
    (draft.status != *stored).then(|| record(draft, Urgency::Now))
}
