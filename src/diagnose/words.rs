//! Kubernetes' words in a person's: exit codes, reasons of a disruption, and the one line of a log's
//! end that says what happened.

use crate::api::FailureClass;

/// Longest message that is copied into a status (bytes): the kubelet gives up to 4 KiB, and ten of
/// them would make the object heavy for everyone who lists jobs.
const MAX_MESSAGE: usize = 1024;

/// The end of a message is what explains it (a traceback's last line), so that is what is kept.
pub(super) fn bounded(message: &str) -> String {
    let message = message.trim();
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut start = message.len() - MAX_MESSAGE;
    while !message.is_char_boundary(start) {
        start += 1;
    }
    format!("…{}", &message[start..])
}

/// "code 139 (SIGSEGV)"
pub(super) fn exit(code: i32) -> String {
    let signal = match code {
        129 => " (SIGHUP)",
        130 => " (SIGINT)",
        132 => " (SIGILL)",
        134 => " (SIGABRT)",
        135 => " (SIGBUS)",
        136 => " (SIGFPE)",
        137 => " (SIGKILL)",
        139 => " (SIGSEGV)",
        143 => " (SIGTERM)",
        _ => "",
    };
    format!("code {code}{signal}")
}

/// What was done to a pod whose condition `DisruptionTarget`, or whose status, gives this reason.
pub(super) fn disruption(reason: &str) -> &'static str {
    match reason {
        "PreemptionByScheduler" | "Preempting" => "had to make room for a pod of higher priority",
        "DeletionByTaintManager" => "was evicted by a taint of its node",
        "EvictionByEvictionAPI" => "was evicted, as when a node is drained",
        "DeletionByPodGC" | "NodeLost" => "was lost with its node",
        "Evicted" => "was evicted by its node",
        "Terminated" | "NodeShutdown" | "Shutdown" => "was ended by its node's shutdown",
        _ => "was ended by Kubernetes",
    }
}

/// The class of such an end.
pub(super) fn disruption_class(reason: &str) -> FailureClass {
    match reason {
        "PreemptionByScheduler" | "Preempting" => FailureClass::Preempted,
        "DeletionByPodGC" | "NodeLost" => FailureClass::NodeLost,
        _ => FailureClass::Evicted,
    }
}

/// The line of a message that says what happened: the last that names an exception, else the last
/// with words in it. torchrun ends with a report of its own, in which the program's error is not.
pub(super) fn telling_line(message: &str) -> String {
    const REPORT: &str = "ChildFailedError";
    let lines = || message.lines().rev().map(str::trim);
    let exception = lines().map(unprefixed).find(|l| names_exception(l));
    let told = match exception {
        Some(line) => line.to_owned(),
        None if message.contains(REPORT) => {
            let code = lines()
                .find_map(|l| l.strip_prefix("exitcode"))
                .map(|l| l.trim_start_matches([' ', ':']))
                .map_or(String::new(), |l| format!(" (exit code {l})"));
            format!(
                "torchrun says that one of its processes failed{code}; that process's own error is further up in the log"
            )
        }
        None => lines()
            .find(|l| l.chars().any(char::is_alphanumeric))
            .unwrap_or("it says nothing")
            .to_owned(),
    };
    bounded(&told).trim_end_matches('.').to_owned()
}

/// Without the "[rank3]: " that PyTorch puts before the lines of a traceback.
fn unprefixed(line: &str) -> &str {
    line.strip_prefix("[rank")
        .and_then(|l| l.split_once("]:"))
        .map_or(line, |(_, rest)| rest.trim_start())
}

/// "torch.OutOfMemoryError: CUDA out of memory" and the like: how Python ends a traceback.
fn names_exception(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    let last = name.rsplit('.').next().unwrap_or_default();
    let exception = ["Error", "Exception", "Interrupt"]
        .iter()
        .any(|end| last.ends_with(end));
    exception
        && last != "ChildFailedError"
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
}
