//! What the collector tells the operator: a condition on each pod that has ended, once the ends of all
//! its containers' logs are settled. So the operator knows when a pod may be deleted, with nothing but
//! its own watch of pods.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{follow::Outcome, wal::state::Totals};
use crate::{
    api::{LogsStatus, names, reasons},
    process::REQUEST_TIMEOUT,
};

/// The condition for a pod whose containers ended so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is True.
    pub complete: bool,
    /// `N lines, B bytes`, and `, G gaps` where there are some.
    pub message: String,
}

impl Condition {
    /// Of all containers that ran.
    #[must_use]
    pub fn new(outcomes: &[Outcome]) -> Self {
        let complete = outcomes.iter().all(|o| o.complete);
        let totals = outcomes.iter().fold(Totals::default(), |sum, o| Totals {
            lines: sum.lines + o.totals.lines,
            bytes: sum.bytes + o.totals.bytes,
            gaps: sum.gaps + o.totals.gaps,
        });
        let mut message = format!("{} lines, {} bytes", totals.lines, totals.bytes);
        if totals.gaps > 0 {
            message += &format!(", {} gaps", totals.gaps);
        }
        Self { complete, message }
    }

    /// What a condition says; None where it does not know.
    #[must_use]
    pub fn read(condition: &PodCondition) -> Option<LogsStatus> {
        let complete = match condition.status.as_str() {
            "True" => true,
            "False" => false,
            _ => return None,
        };
        let message = condition.message.as_deref().unwrap_or_default();
        let count = |unit: &str| {
            let parts = message.split(", ").map(|part| part.split_once(' '));
            let found = parts.flatten().find(|(_, of)| *of == unit);
            found.and_then(|(n, _)| n.parse().ok()).unwrap_or(0)
        };
        Some(LogsStatus {
            complete,
            lines: count("lines"),
            bytes: count("bytes"),
            gaps: count("gaps"),
        })
    }

    fn status(&self) -> &'static str {
        if self.complete { "True" } else { "False" }
    }

    /// Whether the pod says so already.
    #[must_use]
    pub fn is_on(&self, pod: &Pod) -> bool {
        let conditions = pod
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .filter(|c| c.type_ == names::POD_LOGS_COMPLETE)
            .any(|c| c.status == self.status() && c.message.as_deref() == Some(&self.message))
    }

    /// Writes it into the pod's status.
    ///
    /// # Errors
    /// Where the API server refuses, or does not answer. A pod that is gone needs no condition.
    pub async fn put(&self, pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
        let reason = if self.complete {
            reasons::END_PROVEN
        } else {
            reasons::GAP_RECORDED
        };
        let patch = json!({
            // Of another pod of this name it would not be true.
            "metadata": {"uid": pod.uid()},
            "status": {"conditions": [{
                "type": names::POD_LOGS_COMPLETE, "status": self.status(), "reason": reason,
                "message": self.message,
                "lastTransitionTime": k8s_openapi::jiff::Timestamp::now().to_string(),
            }]},
        });
        // A strategic merge: the conditions of others stay.
        let (name, params, patch) = (
            pod.name_any(),
            PatchParams::default(),
            Patch::Strategic(patch),
        );
        let patched = pods.patch_status(&name, &params, &patch);
        match timeout(REQUEST_TIMEOUT, patched).await {
            Ok(Ok(_)) => Ok(()),
            // Gone, or (422: a uid can't be changed) replaced by another of the same name.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 422) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gap_makes_a_pod_incomplete() {
        let outcome = |complete, gaps| Outcome {
            complete,
            totals: Totals {
                lines: 10,
                bytes: 100,
                gaps,
            },
        };
        let whole = Condition::new(&[outcome(true, 0), outcome(true, 0)]);
        assert_eq!(whole.message, "20 lines, 200 bytes");
        assert!(whole.complete);
        let gap = Condition::new(&[outcome(true, 0), outcome(false, 2)]);
        assert_eq!(gap.message, "20 lines, 200 bytes, 2 gaps");
        assert!(!gap.complete);
        let pod = |status: &str, message: &str| {
            serde_json::from_value::<Pod>(json!({"status": {"conditions": [
                {"type": names::POD_LOGS_COMPLETE, "status": status, "message": message}
            ]}}))
            .unwrap()
        };
        let said = |pod: Pod| Condition::read(&pod.status.unwrap().conditions.unwrap()[0]);
        let logs = |complete, gaps| LogsStatus {
            complete,
            lines: 20,
            bytes: 200,
            gaps,
        };
        assert_eq!(said(pod("True", &whole.message)), Some(logs(true, 0)));
        assert_eq!(said(pod("False", &gap.message)), Some(logs(false, 2)));
        assert_eq!(said(pod("Unknown", &gap.message)), None);
        assert!(whole.is_on(&pod("True", "20 lines, 200 bytes")));
        assert!(!gap.is_on(&pod("True", "20 lines, 200 bytes, 2 gaps")));
    }
}
