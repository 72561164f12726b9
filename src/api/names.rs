//! Names that other programs rely on: labels, annotations, environment variables, object names.
//! Each is spelled here once; `docs/reference.md` describes them for users.

/// API group of all custom resources.
pub const GROUP: &str = "trainyard.dev";

/// Value of `spec.managedBy` (and its meaning when unset) for jobs that this operator runs.
pub const MANAGED_BY: &str = "trainyard.dev/operator";

/// Field manager and reporting controller of everything that the operator writes.
pub const OPERATOR: &str = "trainyard-operator";

/// Label on pods and Services: the `TrainingJob`'s name.
pub const LABEL_JOB: &str = "trainyard.dev/job-name";
/// Label on pods and Services: the `TrainingJob`'s uid, which outlives a name that is used again.
pub const LABEL_JOB_UID: &str = "trainyard.dev/job-uid";
/// Label on pods: the attempt's number, from 1.
pub const LABEL_ATTEMPT: &str = "trainyard.dev/attempt";
/// Label on pods: the node's rank in the gang, from 0.
pub const LABEL_RANK: &str = "trainyard.dev/rank";
/// Kubernetes' recommended label; its value on everything that trainyard makes.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const LABEL_MANAGED_BY_VALUE: &str = "trainyard";

/// Finalizer on pods: one that is deleted, by whomever, stays until its logs are drained.
pub const FINALIZER_LOGS: &str = "trainyard.dev/logs";
/// Type of the condition that the collector sets on a pod that has ended. True: every line of its
/// containers is stored. False: the rest is not to be had, and the gaps are recorded. Absent: not
/// known yet.
pub const POD_LOGS_COMPLETE: &str = "trainyard.dev/LogsComplete";

/// Label that hands a pod to a Kueue queue (Kueue's documentation, "Run Plain Pods").
pub const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// Label that joins the pods of one attempt into one Kueue workload.
pub const KUEUE_GROUP: &str = "kueue.x-k8s.io/pod-group-name";
/// Annotation: how many pods the Kueue workload has.
pub const KUEUE_GROUP_SIZE: &str = "kueue.x-k8s.io/pod-group-total-count";

/// Default name of the `ConfigMap` with failure rules for the whole cluster.
pub const FAILURE_RULES: &str = "trainyard-failure-rules";
/// Its key.
pub const FAILURE_RULES_KEY: &str = "rules.yaml";

/// Name of the one container that runs the user's command.
pub const CONTAINER: &str = "trainer";

/// Port on rank 0 at which a gang meets (PyTorch's default `MASTER_PORT`).
pub const RENDEZVOUS_PORT: u16 = 29500;

/// Environment variable in every rank: the job's name.
pub const ENV_JOB: &str = "TRAINYARD_JOB";
/// Environment variable in every rank: the attempt's number, from 1.
pub const ENV_ATTEMPT: &str = "TRAINYARD_ATTEMPT";
/// Environment variable in every rank: the node's rank, from 0.
pub const ENV_RANK: &str = "TRAINYARD_RANK";
/// Environment variable in every rank: the gang's number of nodes.
pub const ENV_NUM_NODES: &str = "TRAINYARD_NUM_NODES";
/// Environment variable in every rank: DNS name of rank 0, at which a gang can meet.
pub const ENV_RANK0_HOST: &str = "TRAINYARD_RANK0_HOST";

/// Longest name of a `TrainingJob`: its pods are `{job}-{attempt}-{rank}`, which is also their host
/// name, so at most 63 characters (RFC 1123), and `-{attempt}-{rank}` takes up to 10.
pub const MAX_JOB_NAME: usize = 53;

/// A pod's name: `{job}-{attempt}-{rank}`. It is unique for ever within the job, which is what makes
/// "at most one pod for each (job, attempt, rank)" a matter of the API server's name check.
#[must_use]
pub fn pod_name(job: &str, attempt: i32, rank: i32) -> String {
    format!("{job}-{attempt}-{rank}")
}
