//! What the collector tells the operator: a condition on each pod that has ended, once the ends of all
//! its containers' logs are settled. So the operator knows when a pod may be deleted, with nothing but
//! its own watch of pods.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{follow::Outcome, wal::state::Totals};
use crate::process::REQUEST_TIMEOUT;

/// Type of the condition. True: every line of the pod's containers is stored. False: the rest is not
/// to be had, and the gaps are recorded. Absent or Unknown: not known yet.
pub const LOGS_COMPLETE: &str = "trainyard.dev/LogsComplete";
/// Reason where it is True.
pub const REASON_PROVEN: &str = "EndProven";
/// Reason where it is False.
pub const REASON_GAP: &str = "GapRecorded";

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
            .filter(|c| c.type_ == LOGS_COMPLETE)
            .any(|c| c.status == self.status() && c.message.as_deref() == Some(&self.message))
    }

    /// Writes it into the pod's status.
    ///
    /// # Errors
    /// Where the API server refuses, or does not answer. A pod that is gone needs no condition.
    pub async fn put(&self, pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
        let reason = if self.complete {
            REASON_PROVEN
        } else {
            REASON_GAP
        };
        let patch = json!({
            // Of another pod of this name it would not be true.
            "metadata": {"uid": pod.uid()},
            "status": {"conditions": [{
                "type": LOGS_COMPLETE, "status": self.status(), "reason": reason,
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
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
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
                {"type": LOGS_COMPLETE, "status": status, "message": message}
            ]}}))
            .unwrap()
        };
        assert!(whole.is_on(&pod("True", "20 lines, 200 bytes")));
        assert!(!gap.is_on(&pod("True", "20 lines, 200 bytes, 2 gaps")));
    }
}
