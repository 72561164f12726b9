//! The operator's metrics. Labels are bounded: no job, pod or namespace names.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Handles to the operator's metrics.
#[derive(Clone)]
pub struct Metrics {
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// Seconds of one reconcile, its requests included.
    pub reconcile_seconds: Histogram,
    /// Reconciles that failed and are tried again.
    pub reconcile_errors: Counter,
    /// Requests that change something.
    pub writes: Family<WriteLabels, Counter>,
    /// Jobs that ended for good.
    pub jobs_finished: Family<ReasonLabel, Counter>,
    /// Attempts that ended.
    pub attempts_ended: Family<OutcomeLabel, Counter>,
    /// Attempts that failed, by class.
    pub attempts_failed: Family<ClassLabel, Counter>,
    /// GPU-seconds of attempts that failed, by class: duration × nodes × GPUs of each.
    pub gpu_seconds_lost: Family<ClassLabel, Counter>,
    /// Failure rules of the cluster-wide `ConfigMap` that can't be used.
    pub bad_failure_rules: Gauge,
}

/// Label of what failed: the class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabel {
    /// See [`crate::api::FailureClass`].
    pub class: String,
}

/// Labels of [`Metrics::writes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// create, update or delete.
    pub verb: &'static str,
    /// pods, services, events, trainingjobs, trainingjobs/status.
    pub resource: &'static str,
    /// Whether the API server took it.
    pub result: WriteResult,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WriteResult {
    /// Taken.
    Ok,
    /// 409: someone else was first.
    Conflict,
    /// Anything else.
    Error,
}

/// Label of [`Metrics::jobs_finished`]: the reason of condition Succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// See [`crate::api::reasons`].
    pub reason: String,
}

/// Label of [`Metrics::attempts_ended`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// succeeded, or the root cause's reason where Kubernetes defines it, or Other.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// All ranks ended with 0.
    Succeeded,
    /// It failed.
    Failed,
    /// The job was suspended.
    Stopped,
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            reconcile_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            reconcile_errors: Counter::default(),
            writes: Family::default(),
            jobs_finished: Family::default(),
            attempts_ended: Family::default(),
            attempts_failed: Family::default(),
            gpu_seconds_lost: Family::default(),
            bad_failure_rules: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("trainyard_operator");
        let m = metrics.clone();
        registry.register("leader", "1 while this replica leads", m.leader);
        registry.register(
            "reconcile_seconds",
            "Duration of one reconcile, its requests included",
            m.reconcile_seconds,
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that failed and are tried again",
            m.reconcile_errors,
        );
        registry.register("writes", "Requests that change something", m.writes);
        registry.register("jobs_finished", "Jobs that ended for good", m.jobs_finished);
        registry.register("attempts_ended", "Attempts that ended", m.attempts_ended);
        registry.register(
            "attempts_failed",
            "Attempts that failed, by class",
            m.attempts_failed,
        );
        registry.register(
            "gpu_seconds_lost",
            "GPU-seconds of attempts that failed, by class: duration x nodes x GPUs of each",
            m.gpu_seconds_lost,
        );
        registry.register(
            "bad_failure_rules",
            "Failure rules of the cluster-wide ConfigMap that can't be used",
            m.bad_failure_rules,
        );
        metrics
    }

    /// Counts a write by its result, which it passes on.
    pub fn count<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        result: Result<T, kube::Error>,
    ) -> Result<T, kube::Error> {
        let outcome = match &result {
            Ok(_) => WriteResult::Ok,
            Err(kube::Error::Api(status)) if status.code == 409 => WriteResult::Conflict,
            Err(_) => WriteResult::Error,
        };
        self.count_write(verb, resource, outcome);
        result
    }

    /// Counts an Event that was to be published.
    pub fn count_event<E>(&self, result: &Result<(), E>) {
        let outcome = match result {
            Ok(()) => WriteResult::Ok,
            Err(_) => WriteResult::Error,
        };
        self.count_write("create", "events", outcome);
    }

    fn count_write(&self, verb: &'static str, resource: &'static str, result: WriteResult) {
        let labels = WriteLabels {
            verb,
            resource,
            result,
        };
        self.writes.get_or_create(&labels).inc();
    }
}
