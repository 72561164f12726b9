//! Kubernetes' words in a person's: exit codes, signals, and the one line of a message that says what
//! happened.

/// Longest message that is copied into a status (bytes): the kubelet gives up to 4 KiB, and ten of
/// them would make the object heavy for everyone who lists jobs.
const MAX_MESSAGE: usize = 1024;

/// What is said of a pod that someone deleted.
pub(super) const DELETED: &str =
    "was deleted before it had ended; the API server's audit log says by whom";
/// What can be done about it.
pub(super) const DELETED_HINT: &str = "Someone, or a controller, deleted the pod; nothing is wrong with the job. To stop a job, set spec.suspend or delete the TrainingJob.";

pub(super) fn deleted(pod: &str) -> String {
    format!("pod {pod} {DELETED}")
}

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
    match signal(code - 128) {
        Some(name) => format!("code {code} ({name})"),
        None => format!("code {code}"),
    }
}

/// Name of a signal.
pub(super) fn signal(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        _ => return None,
    })
}

/// What a user can do about a signal that nothing explains.
pub(super) fn signal_hint(number: i32) -> &'static str {
    match number {
        9 => {
            "Something killed the process with SIGKILL and Kubernetes does not say who. Most often that is the kernel for want of memory: compare the memory use with resourcesPerNode.limits.memory and look into the node's kernel log."
        }
        7 => {
            "SIGBUS most often means that /dev/shm is full (raise the runtime's shmSize), or that a file shrank while it was mapped into memory."
        }
        4 => {
            "SIGILL: a library was built for a newer processor than the node's. Use an image for this node type."
        }
        11 => {
            "SIGSEGV comes from native code: set PYTHONFAULTHANDLER=1 to see where, and look for libraries of versions that do not fit together."
        }
        6 => "The program aborted itself in native code; what it printed before says why.",
        15 => "Something asked the process to end (SIGTERM).",
        _ => "Set PYTHONFAULTHANDLER=1 to see where the program was when the signal came.",
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
