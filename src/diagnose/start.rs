//! Before the start: what keeps a pod from running, and whether waiting can help.

use super::{
    Diagnosis, RuleBook,
    catalog::{CATALOG, Rule},
    verdict::at,
    words::{bounded, telling_line},
};
use crate::{
    api::{FailureAction, FailureClass, RootCause},
    plan::{PodFacts, Reason},
};

/// The reason of a [`start_problem`] that is the cluster's: no node has room.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// Waiting reasons that mean trouble, not progress (kubelet, `pkg/kubelet/images/types.go` and
/// `pkg/kubelet/kuberuntime`).
const START_PROBLEMS: [&str; 12] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CreatePodSandboxError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// What keeps a pod from starting, in words; None while it only takes its time.
#[must_use]
pub fn start_problem(pod: &PodFacts) -> Option<Reason> {
    let waiting = pod
        .waiting
        .as_ref()
        .filter(|w| START_PROBLEMS.contains(&w.reason.as_str()));
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

/// The rule for what keeps the pod from starting.
fn rule(pod: &PodFacts) -> Option<&'static Rule> {
    match (&pod.waiting, &pod.unschedulable) {
        (Some(waiting), _) => CATALOG.reason(&waiting.reason, &waiting.message),
        (None, Some(message)) => CATALOG.reason(UNSCHEDULABLE, message),
        _ => None,
    }
}

/// A pod that waits for something that can't come, such as an image name that no registry could parse,
/// or that the registry says it does not have.
#[must_use]
pub fn never_starts(pods: &[&PodFacts], book: &RuleBook) -> Option<Diagnosis> {
    pods.iter()
        .filter(|p| p.waiting.is_some() && start_problem(p).is_some())
        .find(|p| root_user(p) || rule(p).is_some_and(|r| r.never_starts))
        .and_then(|p| not_started(p, book))
}

/// The diagnosis of a pod that did not start in time.
#[must_use]
pub fn not_started(pod: &PodFacts, book: &RuleBook) -> Option<Diagnosis> {
    let problem = start_problem(pod)?;
    let said = pod.waiting.as_ref().map(|w| w.message.as_str());
    let said = said.or(pod.unschedulable.as_deref()).unwrap_or_default();
    let rule = rule(pod);
    let class = rule.map_or(
        match problem.reason.as_str() {
            UNSCHEDULABLE => FailureClass::Unschedulable,
            _ => FailureClass::ConfigError,
        },
        |r| r.class,
    );
    let mut policy = rule.map_or_else(|| book.policy(class), |r| book.policy_of(r));
    if root_user(pod) {
        policy.action = FailureAction::Fail;
    }
    Some(Diagnosis {
        class,
        rule: rule.map(|r| r.name.clone()),
        root_cause: RootCause {
            container: pod.waiting.as_ref().map(|w| w.container.clone()),
            reason: problem.reason,
            message: problem.message.clone(),
            ..at(pod)
        },
        summary: problem.message,
        hint: rule.map(|r| r.hint(said.as_bytes())),
        policy,
        collateral: false,
    })
}

/// The API server, or an admission policy, did not take a pod. What is permanent is in the job's or the
/// namespace's hands; the rest (a quota) passes when others end.
#[must_use]
pub fn refused(message: &str, permanent: bool, book: &RuleBook) -> Diagnosis {
    let rule = CATALOG.reason("Refused", message);
    let class = rule.map_or(FailureClass::ConfigError, |r| r.class);
    let mut policy = book.policy(class);
    if permanent {
        policy.action = FailureAction::Fail;
    }
    Diagnosis {
        class,
        rule: rule.map(|r| r.name.clone()),
        root_cause: RootCause {
            reason: "PodRefused".into(),
            message: bounded(message),
            ..RootCause::default()
        },
        summary: format!(
            "the API server does not take the job's pods: {}",
            telling_line(message)
        ),
        hint: rule.map(|r| r.hint(message.as_bytes())),
        policy,
        collateral: false,
    }
}

/// The diagnosis of a pod that says nothing itself and did not start in time; `found` is what an Event
/// says of it.
#[must_use]
pub fn stuck(pod: &PodFacts, found: &Reason, book: &RuleBook) -> Diagnosis {
    let rule = CATALOG.reason(&found.reason, &found.message);
    let class = rule.map_or(FailureClass::ConfigError, |r| r.class);
    Diagnosis {
        class,
        rule: rule.map(|r| r.name.clone()),
        root_cause: RootCause {
            reason: found.reason.clone(),
            message: bounded(&found.message),
            ..at(pod)
        },
        summary: found.message.clone(),
        hint: rule.map(|r| r.hint(found.message.as_bytes())),
        policy: rule.map_or_else(|| book.policy(class), |r| book.policy_of(r)),
        collateral: false,
    }
}
