//! The root cause of a gang: of the ranks that ended, the one whose end explains the others'.
//!
//! Ranks that lost each other say so in many words, and the clocks of their nodes differ by seconds, so
//! what a rank says counts for more than when it said it. Whoever names another rank is a witness
//! against it.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Diagnosis, RankEvidence, RuleBook,
    catalog::{CATALOG, Weight},
    peers, start,
    verdict::{self, Blame, Verdict},
};
use crate::{
    api::{FailureClass, RootCause},
    plan::Phase,
};

/// An end so much earlier than another (seconds) is earlier whatever the clocks say.
const CLOCK_SKEW: i64 = 5;

/// The root cause among the ranks of an attempt, if one of them has failed or is being ended by someone
/// else.
pub(super) fn failure(ranks: &[RankEvidence], book: &RuleBook) -> Option<Diagnosis> {
    let verdicts: Vec<Verdict> = ranks.iter().filter_map(|r| verdict::of(r, book)).collect();
    let named = peers::named(ranks, &verdicts);
    let Some(root) = verdicts.iter().min_by_key(|v| key(v, &named)) else {
        return lost_node(ranks, &verdicts, book).or_else(|| still_running(ranks, book));
    };
    let root = earlier_cause(root, &verdicts).unwrap_or(root);
    if root.blame >= Blame::Follows
        && let Some(other) = not_started(ranks, book).or_else(|| still_running(ranks, book))
    {
        return Some(other);
    }
    if root.blame >= Blame::Unexplained
        && let Some(lost) = lost_node(ranks, &verdicts, book)
    {
        return Some(lost);
    }
    if root.blame >= Blame::Follows
        && let Some(early) = finished_early(ranks, root, book)
    {
        return Some(early);
    }
    Some(diagnosis(root))
}

/// Sorts the rank to blame to the front.
fn key<'a>(v: &Verdict<'a>, named: &BTreeMap<i32, usize>) -> impl Ord + use<'a> {
    // A message with a meaning needs no witness.
    let witnesses = if v.blame >= Blame::Vague {
        named.get(&v.pod.rank).copied().unwrap_or(0)
    } else {
        0
    };
    let weight = if v.weight == Weight::Proof { 0 } else { 1 };
    (
        v.blame,
        weight,
        Reverse(witnesses),
        v.when.is_none(),
        v.when,
        v.pod.rank,
    )
}

/// A rank that failed of itself well before another was ended from outside: the end is what the failure
/// led to, or chance.
fn earlier_cause<'v, 'a>(root: &Verdict, verdicts: &'v [Verdict<'a>]) -> Option<&'v Verdict<'a>> {
    if root.blame != Blame::Ended {
        return None;
    }
    let ended = root.pod.deletion_requested.or(root.when)?;
    verdicts
        .iter()
        .filter(|v| v.blame == Blame::Cause && v.weight >= Weight::Family)
        .filter(|v| {
            v.when
                .is_some_and(|w| ended.as_second() - w.as_second() >= CLOCK_SKEW)
        })
        .min_by_key(|v| v.when)
}

/// A rank that still counts as running, on a node that does not answer: the others died of it.
fn lost_node(ranks: &[RankEvidence], verdicts: &[Verdict], book: &RuleBook) -> Option<Diagnosis> {
    let silent = ranks.iter().find(|r| {
        let failed = verdicts.iter().any(|v| v.pod.rank == r.pod.rank);
        !failed && !r.pod.terminal() && r.node.is_some_and(|n| !n.ready)
    })?;
    let node = silent.node?;
    let rule = CATALOG.reason("NodeLost", "")?;
    let who = verdict::subject(silent.pod);
    let message = format!("node {} is not ready", node.name);
    Some(Diagnosis {
        class: FailureClass::NodeLost,
        rule: Some(rule.name.clone()),
        root_cause: RootCause {
            reason: "NodeNotReady".into(),
            message,
            ..verdict::at(silent.pod)
        },
        summary: format!(
            "{who} was lost: its node is not ready, and the other ranks lost their connections to it"
        ),
        hint: Some(rule.hint(b"")),
        policy: book.policy_of(rule),
        collateral: false,
    })
}

/// A rank that never started, for which the others waited until they gave up.
fn not_started(ranks: &[RankEvidence], book: &RuleBook) -> Option<Diagnosis> {
    ranks
        .iter()
        .filter(|r| r.pod.phase == Phase::Pending)
        .find_map(|r| start::not_started(r.pod, book))
}

/// A rank that has said why it fails, and hangs in its clean-up while the others lose it.
pub(super) fn still_running(ranks: &[RankEvidence], book: &RuleBook) -> Option<Diagnosis> {
    ranks
        .iter()
        .filter(|r| !r.pod.terminal() && r.tail.is_some())
        .map(|r| verdict::of_log(r, book))
        .filter(|v| v.blame == Blame::Cause && v.raised)
        .min_by_key(|v| v.pod.rank)
        .map(|v| diagnosis(&v))
}

/// A rank that was done while the others still talked to it, so that all they say is that it went away:
/// the program lets its ranks do different things.
fn finished_early(ranks: &[RankEvidence], root: &Verdict, book: &RuleBook) -> Option<Diagnosis> {
    if root.class != FailureClass::Communication {
        return None;
    }
    let done = ranks
        .iter()
        .map(|r| r.pod)
        .filter(|p| p.phase == Phase::Succeeded && !p.interrupted())
        .min_by_key(|p| (p.terminated.as_ref().and_then(|t| t.finished), p.rank))?;
    let rule = CATALOG.rule("finished-early")?;
    let who = verdict::subject(done);
    Some(Diagnosis {
        class: rule.class,
        rule: Some(rule.name.clone()),
        root_cause: RootCause {
            exit_code: Some(0),
            reason: "FinishedEarly".into(),
            message: "it ended with exit code 0 while other ranks still waited for it".into(),
            ..verdict::at(done)
        },
        summary: format!(
            "{who} ended with exit code 0 while other ranks still waited for it; {}",
            root.summary
        ),
        hint: Some(rule.hint(b"")),
        policy: book.policy_of(rule),
        collateral: false,
    })
}

fn diagnosis(root: &Verdict) -> Diagnosis {
    Diagnosis {
        class: root.class,
        rule: root.rule.clone(),
        root_cause: root.root_cause.clone(),
        summary: root.summary.clone(),
        hint: root.hint.clone(),
        policy: root.policy,
        collateral: root.blame >= Blame::Follows,
    }
}
