//! Launcher `plain`: the command as it is, once in each node. The variables here tell every rank of
//! every launcher who it is.

use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;

use super::{Rank, var};
use crate::api::names;

pub(super) fn env(rank: Rank) -> Vec<EnvVar> {
    vec![
        var(names::ENV_JOB, rank.job.name_any()),
        var(names::ENV_ATTEMPT, rank.attempt),
        var(names::ENV_RANK, rank.rank),
        var(names::ENV_NUM_NODES, rank.job.spec.num_nodes),
        var(names::ENV_RANK0_HOST, rank.rank0_host()),
    ]
}
