//! The policies that are compared. All but trainyard's are a line of judgement each.

use crate::evidence::Evidence;

/// Retries of the simple policies, and trainyard's default `backoffLimit`.
pub const LIMIT: i32 = 3;

/// The policies, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A failed job has failed.
    None,
    /// Any failure is retried, three times (`backoffLimit` of a batch/v1 Job, `max_restarts` of torchrun).
    Blind,
    /// Exit codes of 128 and above are retried, three times: Kubeflow's `restartPolicy: ExitCode`.
    ExitCode,
    /// trainyard, on a scheduler that does not know the nodes to avoid.
    Trainyard,
    /// trainyard.
    Avoiding,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::Blind,
        Self::ExitCode,
        Self::Trainyard,
        Self::Avoiding,
    ];

    /// Name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Blind => "blind x3",
            Self::ExitCode => "exit >= 128",
            Self::Trainyard => "trainyard",
            Self::Avoiding => "+ avoidance",
        }
    }

    /// What a simple policy does after retry `retries`: seconds until the next one, or the end. Waits as
    /// trainyard and batch/v1 do: 10 s, doubled each time.
    pub fn simple(self, evidence: &Evidence, retries: i32) -> Option<i64> {
        let again = match self {
            Self::Blind => true,
            Self::ExitCode => evidence.exit_code() >= 128,
            _ => false,
        };
        (again && retries < LIMIT).then(|| 10 << retries)
    }
}
