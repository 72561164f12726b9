//! What is known of how a rank ended, beyond its pod: the end of its log, its cluster node, its
//! memory limit. Gathered by [`crate::operator`] while it still exists, bounded in bytes.

use k8s_openapi::jiff::Timestamp;

use crate::plan::PodFacts;

/// Most bytes of the end of a rank's log that are looked at. A traceback, NCCL's flight recorder and
/// the report of torchrun fit together.
pub const TAIL_BYTES: usize = 64 * 1024;

/// Everything that is known of one rank of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct RankEvidence<'a> {
    /// Its pod.
    pub pod: &'a PodFacts,
    /// The end of its log, where it could be read.
    pub tail: Option<&'a Tail>,
    /// Its cluster node, where it could be asked.
    pub node: Option<&'a NodeFacts>,
    /// The memory limit of the training container, as written in the manifest.
    pub memory_limit: Option<&'a str>,
}

impl<'a> RankEvidence<'a> {
    /// Of a rank of which only the pod is known.
    #[must_use]
    pub fn of(pod: &'a PodFacts) -> Self {
        Self {
            pod,
            tail: None,
            node: None,
            memory_limit: None,
        }
    }
}

/// The end of a container's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The container's bytes; the first line may be cut.
    pub bytes: Vec<u8>,
    /// Each line begins with the time at which the node read it (RFC 3339, nanoseconds) and a space,
    /// as the API gives it with `timestamps=true`. Nodes' clocks differ by seconds.
    pub stamped: bool,
}

/// A cluster node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Condition Ready is True.
    pub ready: bool,
    /// `spec.unschedulable`: cordoned, as before a drain.
    pub unschedulable: bool,
    /// Taints as `key=value:effect`.
    pub taints: Vec<String>,
    /// Other conditions that say something is wrong, as `type: reason: message`: memory or disk
    /// pressure, and what a node problem detector reports (a GPU's Xid, for example).
    pub problems: Vec<String>,
    /// When Ready last changed.
    pub ready_since: Option<Timestamp>,
}
