//! PURE: a job's status and its ranks' last lines → its story, as a person would tell it.
//!
//! Not here: where they come from (see [`super::explain_job`]).

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::Serialize;

use crate::api::{Attempt, FailureClass, LogsStatus, TrainingJob, conditions};

/// How many lines of the failing rank are shown around the decisive one.
const LINES: usize = 12;

/// The story of a job.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// Name of the job.
    pub job: String,
    /// Its namespace.
    pub namespace: String,
    /// Reason of condition Succeeded: how the job stands, in one word.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// Retries charged to backoffLimit, and the limit.
    pub retries: i32,
    /// See above.
    pub backoff_limit: i32,
    /// Restarts that were not charged.
    pub retries_ignored: i32,
    /// Failed attempts by class, over the job's whole life.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<FailureClass, i32>,
    /// Nodes that the next attempts avoid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub avoided_nodes: Vec<String>,
    /// What is stored of its logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsStatus>,
    /// The newest attempts, oldest first; all of them where the job is gone.
    pub attempts: Vec<Chapter>,
}

/// One attempt.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chapter {
    /// As the status has it: class, rule, root cause, hint, decision.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// What the rule that matched looks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The failing rank's last lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Shown>,
    /// Why there are no lines, where there should be some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_lines: Option<String>,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its text.
    pub text: String,
    /// It decided the class.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub decisive: bool,
}

impl Story {
    /// Of a job; `lines` has the last lines of the failing rank by attempt, or why there are none.
    #[must_use]
    pub fn of(job: &TrainingJob, mut lines: BTreeMap<i32, Result<Vec<String>, String>>) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let succeeded = status.condition(conditions::SUCCEEDED);
        Self {
            job: job.name_any(),
            namespace: job.namespace().unwrap_or_default(),
            reason: succeeded.map_or("Pending".into(), |c| c.reason.clone()),
            message: succeeded.map_or_else(
                || {
                    "trainyard has not looked at it yet; is the operator running? (kubectl get pods -A -l app.kubernetes.io/component=operator)".into()
                },
                |c| c.message.clone(),
            ),
            retries: status.retries,
            backoff_limit: job.spec.backoff_limit,
            retries_ignored: status.retries_ignored,
            failures: status.failures.clone(),
            avoided_nodes: status.avoided_nodes.iter().map(|n| n.name.clone()).collect(),
            logs: status.logs,
            attempts: status
                .attempts
                .iter()
                .map(|a| chapter(a.clone(), lines.remove(&a.number)))
                .collect(),
        }
    }
}

fn chapter(attempt: Attempt, lines: Option<Result<Vec<String>, String>>) -> Chapter {
    let decisive = attempt.root_cause.as_ref().map(|c| c.message.clone());
    let (lines, no_lines) = match lines {
        Some(Ok(lines)) => (around(&lines, &decisive.unwrap_or_default()), None),
        Some(Err(why)) => (Vec::new(), Some(why)),
        None => (Vec::new(), None),
    };
    let rule = attempt.rule.as_deref();
    Chapter {
        why: rule.and_then(crate::diagnose::rule_description),
        lines,
        no_lines,
        attempt,
    }
}

/// The decisive line with some before and after it; without one, the last.
fn around(lines: &[String], message: &str) -> Vec<Shown> {
    let wanted = message.trim_start_matches('…').lines().next_back();
    let wanted: String = wanted
        .unwrap_or_default()
        .trim()
        .chars()
        .take(120)
        .collect();
    let decisive = (!wanted.is_empty())
        .then(|| lines.iter().rposition(|l| l.contains(&wanted)))
        .flatten();
    let end = decisive.map_or(lines.len(), |i| (i + 1 + LINES / 4).min(lines.len()));
    let start = end.saturating_sub(LINES);
    (start..end)
        .map(|i| Shown {
            text: lines[i].clone(),
            decisive: Some(i) == decisive,
        })
        .collect()
}

/// The story as text. `colour` marks the decisive lines for a terminal.
#[must_use]
pub fn tell(story: &Story, now: Timestamp, colour: bool) -> String {
    let mut text = format!("{} ({}): {}\n", story.job, story.namespace, story.reason);
    let _ = writeln!(text, "  {}", story.message);
    let mut spent = format!("retries: {} of {}", story.retries, story.backoff_limit);
    if story.retries_ignored > 0 {
        let _ = write!(
            spent,
            ", and {} that were not charged",
            story.retries_ignored
        );
    }
    if !story.failures.is_empty() {
        let counts: Vec<String> = story
            .failures
            .iter()
            .map(|(class, n)| format!("{n} × {class}"))
            .collect();
        let _ = write!(spent, "; failed attempts: {}", counts.join(", "));
    }
    let _ = writeln!(text, "  {spent}");
    if !story.avoided_nodes.is_empty() {
        let _ = writeln!(text, "  avoids: {}", story.avoided_nodes.join(", "));
    }
    if let Some(logs) = &story.logs {
        let _ = writeln!(text, "  logs: {}", stored(logs));
    }
    for chapter in &story.attempts {
        text.push('\n');
        tell_attempt(&mut text, chapter, now, colour);
    }
    text
}

/// "1200 lines are stored, and that is all of them"
fn stored(logs: &LogsStatus) -> String {
    let lines = format!("{} lines are stored", logs.lines);
    match (logs.complete, logs.gaps) {
        (true, _) => format!("{lines}, and that is proven to be all of them"),
        (false, 0) => format!("{lines} of the attempts that have ended"),
        (false, 1) => format!("{lines}; in one place some are missing, or may be"),
        (false, n) => format!("{lines}; in {n} places some are missing, or may be"),
    }
}

fn tell_attempt(text: &mut String, chapter: &Chapter, now: Timestamp, colour: bool) {
    let attempt = &chapter.attempt;
    let start = attempt.start_time.0;
    let _ = write!(text, "Attempt {}  {start}  ", attempt.number);
    let _ = match (&attempt.end_time, attempt.class) {
        (Some(end), Some(class)) => writeln!(
            text,
            "failed after {}: {class}{}",
            length(end.0.duration_since(start)),
            attempt
                .rule
                .as_ref()
                .map_or(String::new(), |r| format!(" (rule {r})"))
        ),
        (Some(end), None) => writeln!(text, "ended after {}", length(end.0.duration_since(start))),
        (None, _) if start > now => {
            writeln!(text, "starts in {}", length(start.duration_since(now)))
        }
        (None, _) => writeln!(text, "under way for {}", length(now.duration_since(start))),
    };
    if let Some(cause) = &attempt.root_cause {
        let mut who = Vec::new();
        who.extend(cause.rank.map(|r| format!("rank {r}")));
        who.extend(cause.pod.as_ref().map(|p| format!("pod {p}")));
        who.extend(cause.node.as_ref().map(|n| format!("node {n}")));
        who.push(cause.reason.clone());
        who.extend(cause.exit_code.map(|c| format!("exit code {c}")));
        let _ = writeln!(text, "  where:   {}", who.join(", "));
        let _ = writeln!(
            text,
            "  what:    {}",
            cause.message.replace('\n', "\n           ")
        );
    }
    for line in &chapter.lines {
        let _ = match (line.decisive, colour) {
            (true, true) => writeln!(text, "  \x1b[1;31m> {}\x1b[0m", line.text),
            (true, false) => writeln!(text, "  > {}", line.text),
            (false, _) => writeln!(text, "  | {}", line.text),
        };
    }
    if let Some(why) = &chapter.no_lines {
        let _ = writeln!(text, "  | (its lines can't be read: {why})");
    }
    for (label, words) in [
        ("why", &chapter.why),
        ("decided", &attempt.decision),
        ("to do", &attempt.hint),
    ] {
        if let Some(words) = words {
            let _ = writeln!(text, "  {:<8} {words}", format!("{label}:"));
        }
    }
}

/// "41 s", "12 min", "3.5 h"
fn length(duration: SignedDuration) -> String {
    match duration.as_secs() {
        s @ ..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{}.{} h", s / 3600, s % 3600 / 360),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job() -> TrainingJob {
        serde_json::from_value(json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "bert", "namespace": "ml"},
            "spec": {"runtimeRef": {"name": "pytorch"}, "command": ["python"]},
            "status": {
                "retries": 1, "retriesIgnored": 1,
                "failures": {"Preempted": 1, "UserError": 1},
                "logs": {"complete": true, "lines": 1200, "bytes": 48000},
                "avoidedNodes": [{"name": "gpu-7", "class": "GpuHardware", "until": "2026-03-02T10:00:00Z"}],
                "conditions": [{"type": "Succeeded", "status": "False", "reason": "NotRetryable",
                    "message": "attempt 2 failed: …; not retried: a user error, which every attempt would repeat",
                    "lastTransitionTime": "2026-03-01T10:09:00Z"}],
                "attempts": [
                    {"number": 1, "startTime": "2026-03-01T10:00:00Z", "endTime": "2026-03-01T10:01:59Z",
                     "class": "Preempted", "decision": "started again at once, not charged to backoffLimit",
                     "rootCause": {"rank": 0, "pod": "bert-1-0", "node": "gpu-7", "reason": "PreemptionByScheduler", "message": "had to make room"}},
                    {"number": 2, "startTime": "2026-03-01T10:02:00Z", "endTime": "2026-03-01T10:09:00Z",
                     "class": "UserError", "hint": "correct the program",
                     "decision": "not retried: a user error, which every attempt would repeat",
                     "rootCause": {"rank": 1, "pod": "bert-2-1", "exitCode": 1, "reason": "Error", "message": "ValueError: expected 10 classes"}},
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_story_reads_as_a_person_would_tell_it() {
        let mut lines: Vec<String> = (0..30).map(|n| format!("step {n}")).collect();
        lines.push("ValueError: expected 10 classes, got 12".into());
        lines.push("[rank1]: bye".into());
        let story = Story::of(&job(), BTreeMap::from([(2, Ok(lines))]));
        let now = "2026-03-01T11:00:00Z".parse().unwrap();
        let told = tell(&story, now, false);
        let expected = "bert (ml): NotRetryable
  attempt 2 failed: …; not retried: a user error, which every attempt would repeat
  retries: 1 of 3, and 1 that were not charged; failed attempts: 1 × UserError, 1 × Preempted
  avoids: gpu-7
  logs: 1200 lines are stored, and that is proven to be all of them

Attempt 1  2026-03-01T10:00:00Z  failed after 119 s: Preempted
  where:   rank 0, pod bert-1-0, node gpu-7, PreemptionByScheduler
  what:    had to make room
  decided: started again at once, not charged to backoffLimit

Attempt 2  2026-03-01T10:02:00Z  failed after 7 min: UserError
  where:   rank 1, pod bert-2-1, Error, exit code 1
  what:    ValueError: expected 10 classes
  | step 20
  | step 21
  | step 22
  | step 23
  | step 24
  | step 25
  | step 26
  | step 27
  | step 28
  | step 29
  > ValueError: expected 10 classes, got 12
  | [rank1]: bye
  decided: not retried: a user error, which every attempt would repeat
  to do:   correct the program
";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_job_without_a_status_and_one_at_work_can_be_told_of_too() {
        let mut job = job();
        job.status = None;
        let now = "2026-03-01T10:00:30Z".parse().unwrap();
        let told = tell(&Story::of(&job, BTreeMap::new()), now, false);
        assert!(told.contains("has not looked at it yet"), "{told}");
        let mut job = self::job();
        let status = job.status.as_mut().unwrap();
        status.attempts.truncate(1);
        status.attempts[0].end_time = None;
        let told = tell(&Story::of(&job, BTreeMap::new()), now, false);
        assert!(told.contains("under way for 30 s"), "{told}");
    }

    #[test]
    fn without_a_decisive_line_the_last_ones_are_shown_and_none_is_marked() {
        let lines: Vec<String> = (0..30).map(|n| format!("step {n}")).collect();
        let shown = around(&lines, "the container used more memory than its limit");
        assert_eq!(shown.len(), LINES);
        assert_eq!(shown.last().unwrap().text, "step 29");
        assert!(shown.iter().all(|l| !l.decisive));
        assert!(around(&[], "x").is_empty());
    }
}
