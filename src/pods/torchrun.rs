//! Launcher `torchrun`: the command under PyTorch's elastic launcher, configured by the environment
//! (`PET_*` is how torchrun reads every one of its options: torch/distributed/argparse_util.py).
//!
//! The static rendezvous is used, so that torch's ranks follow from trainyard's: the processes of
//! node r are `r × numProcPerNode …`. Elastic restarts stay off: trainyard restarts the gang, with a
//! reason in its ledger.

use k8s_openapi::api::core::v1::EnvVar;

use super::{Rank, var};
use crate::api::names;

/// The user's command under torchrun. `--no-python` runs it as it is, so that `python -m pkg`,
/// a shell script and a binary all work; a command that already calls torchrun keeps its options.
pub(super) fn command(command: &[String]) -> Vec<String> {
    let program = command.first().map_or("", String::as_str);
    let module = command.windows(2).find(|w| w[0] == "-m").map(|w| &w[1]);
    if program.rsplit('/').next() == Some("torchrun")
        || module.is_some_and(|m| m == "torch.distributed.run")
    {
        return command.to_vec();
    }
    let mut wrapped = vec!["torchrun".to_owned(), "--no-python".to_owned()];
    wrapped.extend_from_slice(command);
    wrapped
}

pub(super) fn env(rank: Rank) -> Vec<EnvVar> {
    vec![
        var("PET_NNODES", rank.job.spec.num_nodes),
        var("PET_NPROC_PER_NODE", rank.procs_per_node()),
        var("PET_NODE_RANK", rank.rank),
        var("PET_MASTER_ADDR", rank.rank0_host()),
        var("PET_MASTER_PORT", names::RENDEZVOUS_PORT),
        var("PET_MAX_RESTARTS", 0),
        // torchrun copies the error file of the process that failed first to its own: here it becomes
        // the container's termination message, which the kubelet reports. Processes write one where
        // their main is decorated with torch.distributed.elastic.multiprocessing.errors.record.
        var("TORCHELASTIC_ERROR_FILE", "/dev/termination-log"),
    ]
}
