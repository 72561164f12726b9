//! PURE: why an attempt ended. Evidence (the gang's pods, the ends of their logs, their nodes) →
//! [`Diagnosis`].
//!
//! Evidence is taken strongest first: what Kubernetes itself says it did to the pod, then the
//! container's reason, then the log, then the exit code ([`verdict`]). Of the ranks of a gang, the one
//! is blamed whose end explains the others' ([`gang`]). What messages mean is data: `rules/*.yaml`.
//!
//! Not here: what to do about it (see [`crate::plan`]).

mod announcement;
mod catalog;
mod evidence;
mod findings;
mod gang;
mod json;
mod line;
mod literal;
mod log;
mod memory;
pub mod offline;
mod peers;
mod progress;
mod rules;
mod start;
#[cfg(test)]
mod tests;
mod torchrun;
mod unfinished;
mod verdict;
mod words;

pub use evidence::{NodeFacts, RankEvidence, TAIL_BYTES, Tail};
pub use rules::{BadRule, Origin, Policy, RuleBook};
pub use start::{UNSCHEDULABLE, never_starts, not_started, refused, start_problem, stuck};

use crate::{
    api::{FailureAction, FailureClass, RootCause},
    plan::{Phase, PodFacts},
};

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What kind of failure it is.
    pub class: FailureClass,
    /// The rule that says so, where one does.
    pub rule: Option<String>,
    /// The failure that explains the others.
    pub root_cause: RootCause,
    /// The same as a sentence without its beginning "attempt n failed: ".
    pub summary: String,
    /// What the user can do, in a sentence.
    pub hint: Option<String>,
    /// What is to be done about it.
    pub policy: Policy,
    /// All that has been seen so far follows from something that has not: the rank to blame may show
    /// within seconds.
    pub collateral: bool,
}

impl Diagnosis {
    /// Of class `class`, which no rule has found.
    fn of(class: FailureClass, root_cause: RootCause, summary: String, book: &RuleBook) -> Self {
        Self {
            class,
            rule: None,
            root_cause,
            summary,
            hint: None,
            policy: book.policy(class),
            collateral: false,
        }
    }
}

/// The root cause among the pods of an attempt, if one of them has failed or is being ended by
/// someone else. A gang fails as one: the failure that no other explains.
#[must_use]
pub fn failure(ranks: &[RankEvidence], book: &RuleBook) -> Option<Diagnosis> {
    gang::failure(ranks, book)
}

/// Whether a rank has failed, or is being ended by someone else: then the attempt is over, and
/// evidence is to be gathered.
#[must_use]
pub fn has_failed(pods: &[&PodFacts]) -> bool {
    pods.iter()
        .any(|p| p.phase == Phase::Failed || p.interrupted())
}

/// A rank whose pod is gone: nobody can say how it ended.
#[must_use]
pub fn missing(pod: String, rank: i32, book: &RuleBook) -> Diagnosis {
    let summary = format!("rank {rank} (pod {pod}) {}", words::DELETED);
    let root_cause = RootCause {
        rank: Some(rank),
        message: words::deleted(&pod),
        pod: Some(pod),
        reason: "PodDeleted".into(),
        ..RootCause::default()
    };
    let diagnosis = Diagnosis::of(FailureClass::Interrupted, root_cause, summary, book);
    Diagnosis {
        hint: Some(words::DELETED_HINT.into()),
        ..diagnosis
    }
}

/// No rank has logged anything, or made progress, for `seconds`. A rank that has said why it fails, and
/// hangs only in its clean-up, is the failure that it says.
#[must_use]
pub fn hang(ranks: &[RankEvidence], seconds: i64, book: &RuleBook) -> Diagnosis {
    if let Some(thrown) = gang::still_running(ranks, book) {
        return thrown;
    }
    let message = format!("no progress for {seconds} s (progressTimeoutSeconds)");
    // A rank on a node that does not answer, else one that has ended while the others wait for it.
    let silent = ranks.iter().find(|r| r.node.is_some_and(|n| !n.ready));
    let root = silent.map_or_else(RootCause::default, |r| verdict::at(r.pod));
    let who = silent.map_or(String::new(), |r| {
        format!(
            "; {} is on a node that is not ready",
            verdict::subject(r.pod)
        )
    });
    let root_cause = RootCause {
        reason: "NoProgress".into(),
        message: message.clone(),
        ..root
    };
    let diagnosis = Diagnosis::of(
        FailureClass::Hang,
        root_cause,
        format!("{message}{who}"),
        book,
    );
    Diagnosis {
        hint: Some("All ranks were silent. Usual reasons: a collective that not all ranks enter, a data loader that waits for a lock or a mount, a rank that is stuck on its GPU. If the program is only quiet for long, raise progressTimeoutSeconds.".into()),
        ..diagnosis
    }
}

/// The operator can't vouch for the attempt after its own restart, and starts it again.
#[must_use]
pub fn operator_restarted(book: &RuleBook) -> Diagnosis {
    let message = "trainyard's operator was restarted before all pods of the attempt were created";
    let root_cause = RootCause {
        reason: "OperatorRestarted".into(),
        message: message.into(),
        ..RootCause::default()
    };
    let diagnosis = Diagnosis::of(FailureClass::Interrupted, root_cause, message.into(), book);
    Diagnosis {
        policy: Policy {
            action: FailureAction::RetryIgnoreLimit,
            backoff_base_seconds: Some(0),
            backoff_max_seconds: Some(0),
            ..diagnosis.policy
        },
        ..diagnosis
    }
}

/// A deadline of the job has passed.
#[must_use]
pub fn deadline(message: &str, reason: &str, book: &RuleBook) -> Diagnosis {
    let root_cause = RootCause {
        reason: reason.into(),
        message: message.into(),
        ..RootCause::default()
    };
    let class = FailureClass::DeadlineExceeded;
    let diagnosis = Diagnosis::of(class, root_cause, message.into(), book);
    Diagnosis {
        hint: Some("If the job needs longer, raise the deadline; if not, look where its time went: kubectl trainyard logs JOB.".into()),
        ..diagnosis
    }
}

/// What the built-in rule of that name looks for, in a sentence.
#[must_use]
pub fn rule_description(name: &str) -> Option<String> {
    let rule = catalog::CATALOG.rules.iter().find(|r| r.name == name)?;
    Some(rule.description.clone())
}
