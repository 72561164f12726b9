#![allow(missing_docs)]
use super::*;
use crate::plan::Reason;
pub fn hang(_: &[RankEvidence], seconds: i64, book: &RuleBook) -> Diagnosis {
    let m = format!("no rank has written a log line for {seconds} s");
    Diagnosis::of(
        FailureClass::Hang,
        RootCause {
            reason: "Hang".into(),
            message: m.clone(),
            ..RootCause::default()
        },
        m,
        book,
    )
}
pub fn operator_restarted(book: &RuleBook) -> Diagnosis {
    let m = "trainyard's operator was restarted while it created this attempt's pods".to_owned();
    let mut d = Diagnosis::of(
        FailureClass::Interrupted,
        RootCause {
            reason: "OperatorRestarted".into(),
            message: m.clone(),
            ..RootCause::default()
        },
        m,
        book,
    );
    d.policy.backoff_base_seconds = Some(0);
    d
}
pub fn refused(message: &str, book: &RuleBook) -> Diagnosis {
    let m = format!("its pods can't be created: {}", message.trim());
    Diagnosis::of(
        FailureClass::ConfigError,
        RootCause {
            reason: "InvalidPod".into(),
            message: m.clone(),
            ..RootCause::default()
        },
        m,
        book,
    )
}
pub fn deadline(message: String, reason: &str, book: &RuleBook) -> Diagnosis {
    Diagnosis::of(
        FailureClass::DeadlineExceeded,
        RootCause {
            reason: reason.into(),
            message: message.clone(),
            ..RootCause::default()
        },
        message,
        book,
    )
}
pub fn stuck(pod: &PodFacts, found: &Reason, book: &RuleBook) -> Diagnosis {
    Diagnosis::of(
        FailureClass::ConfigError,
        RootCause {
            reason: found.reason.clone(),
            message: found.message.clone(),
            ..at(pod)
        },
        found.message.clone(),
        book,
    )
}
pub fn rule_description(_: &str) -> Option<String> {
    None
}
