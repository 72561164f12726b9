//! Keeping away from nodes that failed this job: *preferred* node affinity, one term a node. Required
//! affinity would leave a retry unschedulable where no other node is free.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm,
};

use crate::api::TrainingJob;

/// The heaviest there is: a fault of the hardware outweighs any other preference.
const WEIGHT: i32 = 100;

/// The job's own affinity, and its avoided nodes.
pub(super) fn nodes(affinity: Option<Affinity>, job: &TrainingJob) -> Option<Affinity> {
    let avoided = job.status.as_ref().map_or(&[][..], |s| &s.avoided_nodes);
    if avoided.is_empty() {
        return affinity;
    }
    let mut affinity = affinity.unwrap_or_default();
    let node = affinity
        .node_affinity
        .get_or_insert_with(NodeAffinity::default);
    node.preferred_during_scheduling_ignored_during_execution
        .get_or_insert_default()
        .extend(avoided.iter().map(|n| term(&n.name)));
    Some(affinity)
}

/// The field, not the label kubernetes.io/hostname: that one may be another name, or missing. A field
/// selector takes one value, hence one term for each node.
fn term(node: &str) -> PreferredSchedulingTerm {
    PreferredSchedulingTerm {
        weight: WEIGHT,
        preference: NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "NotIn".into(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        },
    }
}
