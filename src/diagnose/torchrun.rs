//! What torchrun says of its workers: which one failed first, where, and how.

/// Most lines of a report that are read.
const MAX_LINES: u32 = 400;

/// The report's "Root Cause (first observed failure)".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Global rank.
    pub rank: Option<u32>,
    /// Rank within its pod.
    pub local_rank: Option<u32>,
    /// Name of its host, which is that of its pod.
    pub host: Option<String>,
    /// Its exit code; −n for signal n.
    pub exit_code: Option<i32>,
    /// Such a report, or the line "failed (exitcode: 1) local_rank: 0", is there.
    pub seen: bool,
}

impl Summary {
    /// How many processes each pod runs, as far as the report tells for a pod of rank `node_rank`.
    pub fn processes(&self, node_rank: i32) -> Option<u32> {
        let (rank, local) = (self.rank?, self.local_rank?);
        let node = u32::try_from(node_rank).ok().filter(|n| *n > 0)?;
        let first = rank.checked_sub(local)?;
        (first > 0 && first % node == 0).then(|| first / node)
    }
}

/// Reads the report line by line.
#[derive(Debug, Default)]
pub(super) struct SummaryReader {
    found: Summary,
    /// Lines since the heading.
    within: Option<u32>,
    /// See [`Self::inset`].
    inset: bool,
}

impl SummaryReader {
    pub(super) fn line(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        if text.starts_with(b"Root Cause") && text.ends_with(b":") {
            // The last report is about the last run.
            self.found = Summary {
                seen: true,
                ..Summary::default()
            };
            self.within = Some(0);
            return;
        }
        if text.starts_with(b"=====") {
            self.inset = false;
        }
        let Some(lines) = &mut self.within else {
            if text.starts_with(b"failed (exitcode: ") {
                self.found.seen = true;
                let text = String::from_utf8_lossy(text);
                self.found.exit_code = number(text.split("exitcode: ").nth(1));
                self.found.local_rank = number(text.split("local_rank: ").nth(1));
            }
            return;
        };
        *lines += 1;
        if *lines > MAX_LINES || text.starts_with(b"=====") {
            self.within = None;
            return;
        }
        let text = String::from_utf8_lossy(text);
        let Some((key, value)) = text.split_once(':') else {
            return;
        };
        let value = value.trim();
        match key.trim() {
            "host" => self.found.host = Some(value.chars().take(253).collect()),
            "rank" => {
                self.found.rank = number(Some(value));
                self.found.local_rank = number(value.split("local_rank: ").nth(1));
            }
            "exitcode" => self.found.exit_code = number(Some(value)),
            // What follows is the worker's own traceback.
            "traceback" => {
                self.within = None;
                self.inset = value.starts_with("Traceback");
            }
            _ => {}
        }
    }

    /// The traceback of the process that failed first comes, set in by two blanks.
    pub(super) fn inset(&self) -> bool {
        self.inset
    }

    /// A report has begun and not ended.
    pub(super) fn open(&self) -> bool {
        self.within.is_some()
    }

    pub(super) fn finish(self) -> Summary {
        self.found
    }
}

/// The exception in the error file of the process that failed first, which torchrun copies to the
/// container's termination message (`TORCHELASTIC_ERROR_FILE`): its traceback, as it would be in a log.
/// The kubelet keeps the last 4 KiB, so its beginning may be missing.
pub(super) fn error_file(text: &str) -> Option<String> {
    let text = text.trim();
    if let Ok(file) = serde_json::from_str::<ErrorFile>(text) {
        let stack = file.message.extra_info.py_callstack;
        let told = format!("{stack}\n{}", file.message.message);
        // The call stack usually ends with the exception itself.
        let whole = stack.trim_end().ends_with(file.message.message.trim());
        return Some(if whole { stack } else { told });
    }
    // `…\nValueError: x\n", "timestamp": "1700000000"}}}`
    let end = text.rfind("\", \"timestamp\": \"")?;
    let stack: String = text[..end].replace("\\n", "\n").replace("\\\"", "\"");
    text.ends_with("}}}").then_some(stack)
}

#[derive(serde::Deserialize)]
struct ErrorFile {
    message: ErrorMessage,
}

#[derive(serde::Deserialize)]
struct ErrorMessage {
    message: String,
    #[serde(rename = "extraInfo")]
    extra_info: ExtraInfo,
}

#[derive(serde::Deserialize)]
struct ExtraInfo {
    py_callstack: String,
}

/// The number at the start of a text.
fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    let text = text?;
    let end = text
        .char_indices()
        .find(|(n, c)| !(c.is_ascii_digit() || (*n == 0 && *c == '-')))
        .map_or(text.len(), |(n, _)| n);
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_cause_of_the_report_is_read() {
        let report = "\
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-03-01_10:00:06
  host      : ddp-1-1.ddp.ml.svc
  rank      : 9 (local_rank: 1)
  exitcode  : 1 (pid: 78)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-03-01_10:00:05
  host      : ddp-1-1.ddp.ml.svc
  rank      : 13 (local_rank: 5)
  exitcode  : -9 (pid: 77)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 77
============================================================";
        let mut reader = SummaryReader::default();
        for line in report.lines() {
            reader.line(line.as_bytes());
        }
        let found = reader.finish();
        assert_eq!(
            found,
            Summary {
                rank: Some(13),
                local_rank: Some(5),
                host: Some("ddp-1-1.ddp.ml.svc".into()),
                exit_code: Some(-9),
                seen: true,
            }
        );
        assert_eq!(found.processes(1), Some(8));
        assert_eq!(found.processes(0), None);
    }
}
