//! PURE: why an attempt ended. Evidence (the gang's pods) → [`Diagnosis`].
//!
//! Evidence is taken strongest first: what Kubernetes itself says it did to the pod (disruption,
//! eviction), then the container's terminated reason, then the exit code. Exit code 137 alone says
//! nothing: preemption, eviction, drain and out-of-memory all end in it.
//!
//! Not here: what to do about it (see [`crate::plan`]).

mod evidence;
mod rules;
mod stub;
#[cfg(test)]
mod tests;
mod words;

pub use evidence::{NodeFacts, RankEvidence, TAIL_BYTES, Tail};
pub use rules::{BadRule, Origin, Policy, RuleBook};
pub use stub::*;

use words::{bounded, telling_line};

use crate::{
    api::{FailureAction, FailureClass, RootCause, names},
    plan::{Phase, PodFacts, Reason, Terminated},
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
    /// Of class `class`, which no rule of the log has found.
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

/// Waiting reasons of a container that will never run with the same manifest: a retry would only
/// repeat it (kubelet, `pkg/kubelet/images/types.go`).
const NEVER_STARTS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];

/// What a container runtime says of a command that is not in the image. Its other reasons not to
/// start a container (a device hook that fails, no cgroup) are the node's, and another node or
/// another time may mend them.
const BAD_COMMAND: [&str; 4] = [
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
];

/// The reason of a [`start_problem`] that is the cluster's: no node has room.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// Waiting reasons that mean trouble, not progress.
const START_PROBLEMS: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "SignatureValidationFailed",
];

/// The root cause among the pods of an attempt, if one of them has failed or is being ended by
/// someone else. A gang fails as one: the earliest failure that no other explains. A pod that was
/// ended from outside comes first, because that is never another rank's doing; SIGTERM (143) comes
/// last, because it usually is.
#[must_use]
pub fn failure(ranks: &[RankEvidence], book: &RuleBook) -> Option<Diagnosis> {
    ranks
        .iter()
        .map(|r| r.pod)
        .filter(|p| p.phase == Phase::Failed || p.interrupted())
        .min_by_key(|p| {
            let end = p.terminated.as_ref();
            let collateral = end.is_some_and(|t| t.exit_code == 143);
            let when = end.and_then(|t| t.finished);
            (!p.interrupted(), collateral, when.is_none(), when, p.rank)
        })
        .map(|p| diagnose(p, book))
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
    let summary = format!(
        "rank {rank} (pod {pod}) was deleted before it had ended; the API server's audit log says by whom"
    );
    Diagnosis::of(
        FailureClass::Interrupted,
        RootCause {
            rank: Some(rank),
            message: format!(
                "pod {pod} was deleted before it had ended; the API server's audit log says by whom"
            ),
            pod: Some(pod.clone()),
            reason: "PodDeleted".into(),
            ..RootCause::default()
        },
        summary,
        book,
    )
}

/// What keeps a pod from starting, in words; None while it only takes its time.
#[must_use]
pub fn start_problem(pod: &PodFacts) -> Option<Reason> {
    let waiting = pod.waiting.as_ref().filter(|w| {
        START_PROBLEMS.contains(&w.reason.as_str()) || NEVER_STARTS.contains(&w.reason.as_str())
    });
    if let Some(waiting) = waiting {
        let said = match waiting.message.trim() {
            "" => String::new(),
            _ => format!(": {}", bounded(&waiting.message)),
        };
        let remedy = if root_user(pod) {
            " (give the image a numeric USER other than 0)"
        } else {
            ""
        };
        return Some(Reason {
            reason: waiting.reason.clone(),
            message: format!(
                "rank {}: container {} of pod {} can't start: {}{said}{remedy}",
                pod.rank, waiting.container, pod.name, waiting.reason,
            ),
        });
    }
    pod.unschedulable.as_ref().map(|message| {
        let said = match message.trim() {
            "" => String::new(),
            _ => format!(": {}", bounded(message)),
        };
        Reason {
            reason: UNSCHEDULABLE.into(),
            message: format!("rank {}: no node can take pod {}{said}", pod.rank, pod.name),
        }
    })
}

/// The image runs as root, which Pod Security "restricted" forbids: no wait will change that.
fn root_user(pod: &PodFacts) -> bool {
    pod.waiting
        .as_ref()
        .is_some_and(|w| w.message.contains("runAsNonRoot"))
}

/// A pod that waits for something that can't come, such as an image name that no registry could
/// parse.
#[must_use]
pub fn never_starts(pods: &[&PodFacts], book: &RuleBook) -> Option<Diagnosis> {
    pods.iter()
        .find(|p| {
            let waiting = p.waiting.as_ref();
            root_user(p) || waiting.is_some_and(|w| NEVER_STARTS.contains(&w.reason.as_str()))
        })
        .and_then(|p| not_started(p, book))
}

/// The diagnosis of a pod that did not start in time.
#[must_use]
pub fn not_started(pod: &PodFacts, book: &RuleBook) -> Option<Diagnosis> {
    start_problem(pod).map(|problem| {
        let class = match problem.reason.as_str() {
            UNSCHEDULABLE => FailureClass::Unschedulable,
            r if r.contains("Image") || r == "RegistryUnavailable" => FailureClass::ImagePull,
            _ => FailureClass::ConfigError,
        };
        let mut diagnosis = Diagnosis::of(
            class,
            RootCause {
                container: pod.waiting.as_ref().map(|w| w.container.clone()),
                reason: problem.reason,
                message: problem.message.clone(),
                ..at(pod)
            },
            problem.message,
            book,
        );
        diagnosis.policy.action = FailureAction::Fail;
        diagnosis
    })
}

fn diagnose(pod: &PodFacts, book: &RuleBook) -> Diagnosis {
    let end = pod.terminated.as_ref();
    let who = subject(pod);
    let code = end.map_or(String::new(), |t| {
        format!(", exit {}", words::exit(t.exit_code))
    });
    if let Some(why) = &pod.disruption {
        let said = match why.message.trim() {
            "" => String::new(),
            _ => format!(": {}", telling_line(&why.message)),
        };
        let summary = format!(
            "{who} {} ({}{said}{code})",
            words::disruption(&why.reason),
            why.reason
        );
        return Diagnosis::of(
            words::disruption_class(&why.reason),
            RootCause {
                container: end.map(|t| t.container.clone()),
                exit_code: end.map(|t| t.exit_code),
                reason: why.reason.clone(),
                message: bounded(&why.message),
                ..at(pod)
            },
            summary,
            book,
        );
    }
    if pod.interrupted() {
        let deleted = missing(pod.name.clone(), pod.rank, book);
        return Diagnosis {
            summary: format!(
                "{who} was deleted before it had ended; the API server's audit log says by whom"
            ),
            root_cause: RootCause {
                node: pod.node.clone(),
                exit_code: end.map(|t| t.exit_code),
                ..deleted.root_cause
            },
            ..deleted
        };
    }
    let Some(end) = end else {
        let message = "the pod failed and Kubernetes does not say why";
        return Diagnosis::of(
            FailureClass::Unknown,
            RootCause {
                reason: "Unknown".into(),
                message: message.into(),
                ..at(pod)
            },
            format!("{who} failed and Kubernetes does not say why"),
            book,
        );
    };
    terminated(pod, &who, end, book)
}

/// A container that ended of itself.
fn terminated(pod: &PodFacts, who: &str, end: &Terminated, book: &RuleBook) -> Diagnosis {
    let never_ran = matches!(end.reason.as_str(), "StartError" | "ContainerCannotRun");
    let bad_command = never_ran
        && BAD_COMMAND
            .iter()
            .any(|b| end.message.to_lowercase().contains(b));
    let inner = if end.container == names::CONTAINER {
        String::new()
    } else {
        format!(": container {}", end.container)
    };
    let (message, summary) = if end.reason == "OOMKilled" {
        let message = "the container used more memory than its limit and the kernel killed it: raise resourcesPerNode.limits.memory, or use less";
        let summary = format!("{who}{inner} was OOMKilled: {message}");
        (message.to_owned(), summary)
    } else if never_ran {
        let told = telling_line(&end.message);
        let remedy = if bad_command {
            " (correct spec.command, or the image)"
        } else {
            ""
        };
        let summary = format!("{who}{inner} could not start its command: {told}{remedy}");
        (bounded(&end.message), summary)
    } else if end.message.trim().is_empty() {
        let message = format!("exit {} and no output", words::exit(end.exit_code));
        (
            message.clone(),
            format!(
                "{who}{inner} exited with {} and no output",
                words::exit(end.exit_code)
            ),
        )
    } else {
        let told = telling_line(&end.message);
        let code = words::exit(end.exit_code);
        (
            bounded(&end.message),
            format!("{who}{inner} exited with {code}: {told}"),
        )
    };
    let class = match end.reason.as_str() {
        "OOMKilled" => FailureClass::HostOutOfMemory,
        _ if bad_command => FailureClass::UserError,
        _ => FailureClass::Unknown,
    };
    Diagnosis::of(
        class,
        RootCause {
            container: Some(end.container.clone()),
            exit_code: Some(end.exit_code),
            reason: end.reason.clone(),
            message,
            ..at(pod)
        },
        summary,
        book,
    )
}

/// "rank 1 (pod ddp-2-1 on node gpu-7)"
fn subject(pod: &PodFacts) -> String {
    let on = pod
        .node
        .as_ref()
        .map_or(String::new(), |n| format!(" on node {n}"));
    format!("rank {} (pod {}{on})", pod.rank, pod.name)
}

fn at(pod: &PodFacts) -> RootCause {
    RootCause {
        rank: Some(pod.rank),
        pod: Some(pod.name.clone()),
        node: pod.node.clone(),
        ..RootCause::default()
    }
}
