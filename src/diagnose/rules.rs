//! The rules and class policies in force for a job: its own, its runtime's, the cluster's, and those
//! that ship with trainyard, in this order.

use thiserror::Error;

use crate::api::{ClassPolicy, FailureAction, FailureClass, FailureRules};

/// Where rules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `spec.failurePolicy` of the job.
    Job,
    /// `failurePolicy` of its runtime.
    Runtime,
    /// The cluster-wide ConfigMap.
    Cluster,
}

/// A rule that can't be used. The others are.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("failure rule {rule} of the {origin:?} is left out: {problem}")]
pub struct BadRule {
    /// Where it comes from.
    pub origin: Origin,
    /// Its name.
    pub rule: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

/// What is to be done about a failure, with nothing left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Retry, retry uncharged, or fail.
    pub action: FailureAction,
    /// Most retries of one job for failures of this class; None: only backoffLimit counts.
    pub max_retries: Option<i32>,
    /// Seconds before the first retry; None: the job's.
    pub backoff_base_seconds: Option<i64>,
    /// The longest wait, in seconds; None: the job's.
    pub backoff_max_seconds: Option<i64>,
    /// The next attempts prefer other nodes than the one that failed.
    pub avoid_node: bool,
}

/// The rules in force for one job.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// The first that names a class decides.
    classes: Vec<ClassPolicy>,
}

impl RuleBook {
    /// `layers` from the strongest (the job's) to the weakest, over the built-in ones. A rule that can't
    /// be used is left out and reported.
    #[must_use]
    pub fn new(layers: &[(Origin, &FailureRules)]) -> (Self, Vec<BadRule>) {
        let classes = layers.iter().flat_map(|(_, l)| l.classes.clone()).collect();
        (Self { classes }, Vec::new())
    }

    /// What is to be done about a failure of `class` that no rule with a policy of its own matched.
    #[must_use]
    pub fn policy(&self, class: FailureClass) -> Policy {
        self.classes
            .iter()
            .filter(|c| c.class == class)
            .fold(default_policy(class), |policy, c| Policy {
                action: c.action.unwrap_or(policy.action),
                max_retries: c.max_retries.or(policy.max_retries),
                backoff_base_seconds: c.backoff_base_seconds.or(policy.backoff_base_seconds),
                backoff_max_seconds: c.backoff_max_seconds.or(policy.backoff_max_seconds),
                avoid_node: c.avoid_node.unwrap_or(policy.avoid_node),
            })
    }
}

fn default_policy(class: FailureClass) -> Policy {
    use FailureAction::{Fail, Retry, RetryIgnoreLimit};
    use FailureClass as C;
    let (action, max_retries, avoid_node) = match class {
        C::UserError
        | C::DataError
        | C::ConfigError
        | C::Unschedulable
        | C::HostOutOfMemory
        | C::GpuOutOfMemory
        | C::DeadlineExceeded => (Fail, None, false),
        C::ImagePull | C::Communication | C::Storage => (Retry, None, false),
        C::GpuHardware => (RetryIgnoreLimit, Some(5), true),
        C::NodeLost => (RetryIgnoreLimit, Some(10), true),
        C::Preempted | C::Evicted | C::Interrupted => (RetryIgnoreLimit, Some(50), false),
        C::Hang => (Retry, Some(3), true),
        C::Unknown => (Retry, None, false),
    };
    Policy {
        action,
        max_retries,
        backoff_base_seconds: None,
        backoff_max_seconds: None,
        avoid_node,
    }
}
