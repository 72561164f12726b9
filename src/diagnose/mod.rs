//! PURE: why an attempt ended. Evidence (the gang's pods) → [`Diagnosis`].
//!
//! Evidence is taken strongest first: what Kubernetes itself says it did to the pod (disruption,
//! eviction), then the container's terminated reason, then the exit code. Exit code 137 alone says
//! nothing: preemption, eviction, drain and out-of-memory all end in it.
//!
//! Not here: what to do about it (see [`crate::plan`]).

use crate::{
    api::RootCause,
    plan::{Phase, PodFacts, Reason, Terminated, Waiting},
};

/// Longest message that is copied into a status (bytes): the kubelet gives up to 4 KiB, and ten of
/// them would make the object heavy for everyone who lists jobs.
const MAX_MESSAGE: usize = 1024;

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The failure that explains the others.
    pub root_cause: RootCause,
    /// A retry could end differently.
    pub retryable: bool,
}

/// Reasons of a container that never ran and never will with the same manifest: a retry would only
/// repeat it (kubelet, `pkg/kubelet/images/types.go` and `kuberuntime_container.go`).
const NEVER_STARTS: [&str; 4] = [
    "StartError",
    "ContainerCannotRun",
    "InvalidImageName",
    "ErrImageNeverPull",
];

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
pub fn failure(pods: &[&PodFacts]) -> Option<Diagnosis> {
    pods.iter()
        .filter(|p| p.phase == Phase::Failed || p.interrupted())
        .min_by_key(|p| {
            let end = p.terminated.as_ref();
            let collateral = end.is_some_and(|t| t.exit_code == 143);
            let when = end.and_then(|t| t.finished);
            (!p.interrupted(), collateral, when.is_none(), when, p.rank)
        })
        .map(|p| diagnose(p))
}

/// A rank whose pod is gone: nobody can say how it ended.
#[must_use]
pub fn missing(pod: String, rank: i32) -> Diagnosis {
    Diagnosis {
        root_cause: RootCause {
            rank: Some(rank),
            message: format!(
                "pod {pod} was deleted before it ended; whoever deleted it is in the API server's audit log"
            ),
            pod: Some(pod),
            reason: "PodDeleted".into(),
            ..RootCause::default()
        },
        retryable: true,
    }
}

/// What keeps a pod from starting, in words; None while it only takes its time.
#[must_use]
pub fn start_problem(pod: &PodFacts) -> Option<Reason> {
    let waiting = pod.waiting.as_ref().filter(|w| {
        START_PROBLEMS.contains(&w.reason.as_str()) || NEVER_STARTS.contains(&w.reason.as_str())
    });
    if let Some(Waiting {
        container,
        reason,
        message,
    }) = waiting
    {
        return Some(Reason {
            reason: reason.clone(),
            message: format!(
                "rank {}: container {container} of pod {} can't start: {}",
                pod.rank,
                pod.name,
                bounded(message)
            ),
        });
    }
    pod.unschedulable.as_ref().map(|message| Reason {
        reason: "Unschedulable".into(),
        message: format!(
            "rank {}: no node can take pod {}: {}",
            pod.rank,
            pod.name,
            bounded(message)
        ),
    })
}

/// A pod that waits for something that can't come, such as an image name that no registry could
/// parse.
#[must_use]
pub fn never_starts(pods: &[&PodFacts]) -> Option<Diagnosis> {
    pods.iter()
        .find(|p| {
            p.waiting
                .as_ref()
                .is_some_and(|w| NEVER_STARTS.contains(&w.reason.as_str()))
        })
        .and_then(|p| not_started(p))
}

/// The diagnosis of a pod that did not start in time.
#[must_use]
pub fn not_started(pod: &PodFacts) -> Option<Diagnosis> {
    start_problem(pod).map(|problem| Diagnosis {
        root_cause: RootCause {
            container: pod.waiting.as_ref().map(|w| w.container.clone()),
            reason: problem.reason,
            message: problem.message,
            ..at(pod)
        },
        retryable: false,
    })
}

fn diagnose(pod: &PodFacts) -> Diagnosis {
    let end = pod.terminated.as_ref();
    let root_cause = match (&pod.disruption, end) {
        (Some(why), _) => RootCause {
            container: end.map(|t| t.container.clone()),
            exit_code: end.map(|t| t.exit_code),
            reason: why.reason.clone(),
            message: bounded(&why.message),
            ..at(pod)
        },
        (None, _) if pod.interrupted() => RootCause {
            node: pod.node.clone(),
            exit_code: end.map(|t| t.exit_code),
            ..missing(pod.name.clone(), pod.rank).root_cause
        },
        (None, Some(t)) => RootCause {
            container: Some(t.container.clone()),
            exit_code: Some(t.exit_code),
            reason: t.reason.clone(),
            message: ended(t),
            ..at(pod)
        },
        (None, None) => RootCause {
            reason: "Unknown".into(),
            message: "the pod failed and Kubernetes does not say why".into(),
            ..at(pod)
        },
    };
    Diagnosis {
        retryable: !NEVER_STARTS.contains(&root_cause.reason.as_str()),
        root_cause,
    }
}

fn ended(t: &Terminated) -> String {
    match (t.reason.as_str(), t.message.trim()) {
        ("OOMKilled", _) => {
            "the container used more memory than its limit and the kernel killed it: raise resourcesPerNode.limits.memory, or use less".into()
        }
        (_, "") => format!("exit code {} and no output", t.exit_code),
        (_, message) => bounded(message),
    }
}

fn at(pod: &PodFacts) -> RootCause {
    RootCause {
        rank: Some(pod.rank),
        pod: Some(pod.name.clone()),
        node: pod.node.clone(),
        ..RootCause::default()
    }
}

/// The end of a message is what explains it (a traceback's last line), so that is what is kept.
fn bounded(message: &str) -> String {
    let message = message.trim();
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut start = message.len() - MAX_MESSAGE;
    while !message.is_char_boundary(start) {
        start += 1;
    }
    format!("…{}", &message[start..])
}
