//! The same judgement for any log anywhere: a stream of bytes, and the exit code and reason where they
//! are known. Memory does not grow with the log.

use std::io::{self, Read};

use serde::Serialize;

use super::{
    RuleBook,
    catalog::{CATALOG, Role, Weight},
    findings::Kind,
    log::{Reader, Report},
    words,
};
use crate::api::{FailureAction, FailureClass};

/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;

/// How sure the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Confidence {
    /// The message has one meaning, or Kubernetes says so.
    High,
    /// Likely: a general message, or one that usually follows from something else.
    Medium,
    /// Nothing tells.
    Unknown,
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What kind of failure it is.
    pub class: FailureClass,
    /// The rule that says so.
    pub rule: Option<String>,
    /// How sure that is.
    pub confidence: Confidence,
    /// The decisive line, as it is in the log, without colours.
    pub line: Option<String>,
    /// Its number, from 1.
    pub line_number: Option<u64>,
    /// What the user can do.
    pub hint: Option<String>,
    /// Whether starting it again unchanged may help.
    pub retry: bool,
}

/// Reads `log` to its end.
///
/// # Errors
/// Where it can't be read.
pub fn explain(
    mut log: impl Read,
    exit_code: Option<i32>,
    reason: Option<&str>,
) -> io::Result<Explanation> {
    let mut reader = Reader::detecting();
    let mut buffer = vec![0; BUFFER];
    loop {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => reader.push(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let report = reader.finish();
    Ok(judge(&report, exit_code, reason))
}

fn judge(report: &Report, exit_code: Option<i32>, reason: Option<&str>) -> Explanation {
    let book = RuleBook::default();
    let found = report.findings.decisive(&report.summary);
    let mut told = Explanation {
        class: FailureClass::Unknown,
        rule: None,
        confidence: Confidence::Unknown,
        line: found.map(|f| f.raw.clone()),
        line_number: found.map(|f| f.number),
        hint: None,
        retry: book.policy(FailureClass::Unknown).action != FailureAction::Fail,
    };
    if exit_code == Some(0) && reason.is_none_or(|r| r == "Completed") {
        told.line = None;
        told.line_number = None;
        told.retry = false;
        told.hint = Some(
            "Exit code 0: the program says that it succeeded. Errors in its log were survived."
                .into(),
        );
        return told;
    }
    let by_reason = reason.and_then(|r| CATALOG.reason(r, ""));
    if let Some(rule) = by_reason {
        told.class = rule.class;
        told.rule = Some(rule.name.clone());
        told.confidence = Confidence::High;
        told.hint = Some(rule.hint(b""));
        told.retry = book.policy_of(rule).action != FailureAction::Fail;
        if found.is_none_or(|f| f.rule.is_none_or(|r| r.class != rule.class)) {
            told.line = None;
            told.line_number = None;
        }
        return told;
    }
    let Some((found, rule)) = found.and_then(|f| Some((f, f.rule?))) else {
        let signal = exit_code
            .map(|c| c - 128)
            .or_else(|| report.summary.exit_code.map(|c| -c))
            .filter(|s| words::signal(*s).is_some());
        told.hint = signal.map(|s| words::signal_hint(s).to_owned());
        if told.line.is_none() {
            told.line = report.last.as_ref().map(|(line, _)| line.clone());
            told.line_number = report.last.as_ref().map(|(_, number)| *number);
        }
        return told;
    };
    told.class = rule.class;
    told.rule = Some(rule.name.clone());
    told.hint = Some(rule.hint(found.text.as_bytes()));
    told.retry = book.policy_of(rule).action != FailureAction::Fail;
    told.confidence = if rule.class == FailureClass::Unknown {
        Confidence::Unknown
    } else if rule.role == Role::Cause
        && (rule.weight >= Weight::Specific
            || (rule.weight == Weight::Family && found.kind == Kind::Exception))
    {
        Confidence::High
    } else {
        Confidence::Medium
    };
    told
}
