//! Why one rank ended: what Kubernetes says of its pod, then of its container, then its log, then the
//! exit code. Exit code 137 alone says nothing: preemption, eviction, drain and out-of-memory all end
//! in it.

use k8s_openapi::jiff::Timestamp;

use super::{
    RankEvidence, RuleBook,
    catalog::{CATALOG, Role, Rule, Seen, Weight},
    findings::{Finding, Kind},
    line::without_colours,
    log::{Reader, Report},
    memory,
    rules::Policy,
    torchrun,
    words::{self, bounded, telling_line},
};
use crate::{
    api::{FailureClass, RootCause, names},
    plan::{Phase, PodFacts, Terminated},
};

/// How much a rank is to blame; the first is the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blame {
    /// Kubernetes, or someone, ended the pod from outside: never another rank's doing.
    Ended,
    /// A failure of its own.
    Cause,
    /// Something went wrong that may or may not be its own.
    Vague,
    /// It failed and nothing says why.
    Unexplained,
    /// What it says follows from another process's end.
    Follows,
    /// SIGTERM, which is how a gang is ended.
    Terminated,
}

/// What is known of a rank's end.
#[derive(Debug)]
pub(super) struct Verdict<'a> {
    pub pod: &'a PodFacts,
    pub class: FailureClass,
    pub rule: Option<String>,
    pub blame: Blame,
    pub weight: Weight,
    pub root_cause: RootCause,
    pub summary: String,
    pub hint: Option<String>,
    pub policy: Policy,
    /// When it ended, by its node's clock.
    pub when: Option<Timestamp>,
    /// An exception that nothing caught says so.
    pub raised: bool,
    /// Its log.
    pub report: Option<Report>,
}

/// Why the rank ended; None while it has not failed.
pub(super) fn of<'a>(evidence: &RankEvidence<'a>, book: &RuleBook) -> Option<Verdict<'a>> {
    let pod = evidence.pod;
    if pod.phase != Phase::Failed && !pod.interrupted() {
        return None;
    }
    let verdict = before_its_removal(evidence, book)
        .or_else(|| ended(evidence, book))
        .or_else(|| of_container(evidence, book))
        .unwrap_or_else(|| of_log(evidence, book));
    Some(custom(evidence, book, verdict))
}

/// "rank 1 (pod ddp-2-1 on node gpu-7)"
pub(super) fn subject(pod: &PodFacts) -> String {
    let on = pod
        .node
        .as_ref()
        .map_or(String::new(), |n| format!(" on node {n}"));
    format!("rank {} (pod {}{on})", pod.rank, pod.name)
}

pub(super) fn at(pod: &PodFacts) -> RootCause {
    RootCause {
        rank: Some(pod.rank),
        pod: Some(pod.name.clone()),
        node: pod.node.clone(),
        ..RootCause::default()
    }
}

impl<'a> Verdict<'a> {
    fn new(pod: &'a PodFacts, class: FailureClass, blame: Blame, book: &RuleBook) -> Self {
        let end = pod.terminated.as_ref();
        Self {
            pod,
            class,
            rule: None,
            blame,
            weight: Weight::Vague,
            root_cause: RootCause {
                container: end.map(|t| t.container.clone()),
                exit_code: end.map(|t| t.exit_code),
                reason: end.map_or_else(|| "Unknown".into(), |t| t.reason.clone()),
                ..at(pod)
            },
            summary: String::new(),
            hint: None,
            policy: book.policy(class),
            when: end.and_then(|t| t.finished),
            raised: false,
            report: None,
        }
    }

    fn by(mut self, rule: &Rule, line: &[u8], book: &RuleBook) -> Self {
        self.class = rule.class;
        self.rule = Some(rule.name.clone());
        self.weight = rule.weight;
        self.hint = Some(rule.hint(line));
        self.policy = book.policy_of(rule);
        self
    }
}

/// A pod that had failed of its own before a drain or a taint removed it: those remove ended pods too.
fn before_its_removal<'a>(evidence: &RankEvidence<'a>, book: &RuleBook) -> Option<Verdict<'a>> {
    const REMOVES_ENDED: [&str; 2] = ["DeletionByTaintManager", "EvictionByEvictionAPI"];
    let pod = evidence.pod;
    let reason = pod.disruption.as_ref()?.reason.as_str();
    let code = pod.terminated.as_ref()?.exit_code;
    let of_itself = !matches!(code, 0 | 130 | 137 | 143);
    if pod.phase != Phase::Failed || !of_itself || !REMOVES_ENDED.contains(&reason) {
        return None;
    }
    let verdict = of_log(evidence, book);
    let definite = verdict.blame == Blame::Cause && verdict.raised;
    definite.then_some(verdict)
}

/// Kubernetes, or someone, ended the pod.
fn ended<'a>(evidence: &RankEvidence<'a>, book: &RuleBook) -> Option<Verdict<'a>> {
    let pod = evidence.pod;
    let who = subject(pod);
    if let Some(why) = &pod.disruption {
        let code = pod.terminated.as_ref().map_or(String::new(), |t| {
            format!(", exit {}", words::exit(t.exit_code))
        });
        let told = match why.message.trim() {
            "" => String::new(),
            _ => format!(": {}", telling_line(&why.message)),
        };
        let lost = why.reason == "DeletionByTaintManager" && lost_node(evidence);
        let reason = if lost {
            "NodeLost"
        } else {
            why.reason.as_str()
        };
        let mut verdict = Verdict::new(pod, FailureClass::Evicted, Blame::Ended, book);
        let mut said = "was ended by Kubernetes";
        if let Some(rule) = CATALOG.reason(reason, &why.message) {
            verdict = verdict.by(rule, why.message.as_bytes(), book);
            said = rule.said.as_deref().unwrap_or(said);
        }
        verdict.root_cause.reason.clone_from(&why.reason);
        verdict.root_cause.message = bounded(&why.message);
        verdict.summary = format!("{who} {said} ({}{told}{code})", why.reason);
        return Some(verdict);
    }
    if !pod.interrupted() {
        return None;
    }
    let mut verdict = Verdict::new(pod, FailureClass::Interrupted, Blame::Ended, book);
    verdict.root_cause.reason = "PodDeleted".into();
    verdict.root_cause.message = words::deleted(&pod.name);
    verdict.root_cause.container = None;
    verdict.summary = format!("{who} {}", words::DELETED);
    verdict.hint = Some(words::DELETED_HINT.into());
    Some(verdict)
}

/// The cluster node does not answer, or is gone.
fn lost_node(evidence: &RankEvidence) -> bool {
    const GONE: [&str; 3] = [
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/out-of-service",
    ];
    evidence.node.is_some_and(|n| {
        !n.ready
            || n.taints
                .iter()
                .any(|t| GONE.iter().any(|g| t.starts_with(g)))
    })
}

/// The container's own reason says enough.
fn of_container<'a>(evidence: &RankEvidence<'a>, book: &RuleBook) -> Option<Verdict<'a>> {
    let pod = evidence.pod;
    let end = pod.terminated.as_ref()?;
    let rule = CATALOG.reason(&end.reason, &end.message)?;
    let who = subject(pod);
    let inner = inner(end);
    let mut verdict = Verdict::new(pod, rule.class, Blame::Cause, book);
    verdict = verdict.by(rule, end.message.as_bytes(), book);
    if end.reason == "OOMKilled" {
        let report = read(evidence);
        let message = memory::limit_exceeded(evidence.memory_limit, report.as_ref());
        verdict.summary = format!("{who}{inner} was OOMKilled: {message}");
        verdict.hint = Some(memory::hint(evidence.memory_limit));
        verdict.root_cause.message = message;
        return Some(verdict);
    }
    let told = telling_line(&end.message);
    let said = rule.said.as_deref().unwrap_or("was ended");
    verdict.summary = format!("{who}{inner} {said}: {told}");
    verdict.root_cause.message = bounded(&end.message);
    Some(verdict)
}

/// ": container fetch" where it is not the training container.
fn inner(end: &Terminated) -> String {
    if end.container == names::CONTAINER {
        String::new()
    } else {
        format!(": container {}", end.container)
    }
}

/// The end of the log, or what the kubelet has kept of it.
fn read(evidence: &RankEvidence) -> Option<Report> {
    let end = evidence.pod.terminated.as_ref();
    let trainer = end.is_none_or(|t| t.container == names::CONTAINER);
    let tail = evidence.tail.filter(|t| trainer && !t.bytes.is_empty());
    let said = end.map_or("", |t| t.message.as_str());
    if let Some(thrown) = torchrun::error_file(said) {
        let report = Reader::read(thrown.as_bytes(), false);
        if report.findings.decisive(&report.summary).is_some() {
            return Some(report);
        }
    }
    match tail {
        Some(tail) => {
            let report = Reader::read(&tail.bytes, tail.stamped);
            let silent = report.findings.decisive(&report.summary).is_none();
            if silent && !said.trim().is_empty() && !contains(&tail.bytes, said) {
                // The program may have written its own /dev/termination-log.
                let written = Reader::read(said.as_bytes(), false);
                if written.findings.decisive(&written.summary).is_some() {
                    return Some(written);
                }
            }
            Some(report)
        }
        None if said.trim().is_empty() => None,
        None => Some(Reader::read(said.as_bytes(), false)),
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.trim().as_bytes()).is_some()
}

/// A program that ended of itself, or was killed by someone who does not say so.
pub(super) fn of_log<'a>(evidence: &RankEvidence<'a>, book: &RuleBook) -> Verdict<'a> {
    let pod = evidence.pod;
    let who = subject(pod);
    let report = read(evidence);
    let mut verdict = Verdict::new(pod, FailureClass::Unknown, Blame::Unexplained, book);
    let exited = match &pod.terminated {
        Some(end) => {
            if end.exit_code == 143 {
                verdict.blame = Blame::Terminated;
            }
            format!(
                "{who}{} exited with {}",
                inner(end),
                words::exit(end.exit_code)
            )
        }
        None if pod.phase == Phase::Failed => format!("{who} failed"),
        None => format!("{who} has failed and not ended"),
    };
    let found = report
        .as_ref()
        .and_then(|r| r.findings.decisive(&r.summary));
    if let Some(found) = found {
        verdict = explained(verdict, found, book);
        verdict.summary = format!("{exited}: {}", found.text.trim_end_matches('.'));
    } else {
        unexplained(&mut verdict, report.as_ref(), &exited);
    }
    if verdict.class == FailureClass::HostOutOfMemory {
        verdict.hint = verdict
            .hint
            .map(|h| memory::with_limit(&h, evidence.memory_limit));
    }
    verdict.report = report;
    by_node(evidence, verdict, &exited, book)
}

fn explained<'a>(verdict: Verdict<'a>, found: &Finding, book: &RuleBook) -> Verdict<'a> {
    let terminated = verdict.blame == Blame::Terminated;
    let mut verdict = match found.rule {
        Some(rule) => verdict.by(rule, found.text.as_bytes(), book),
        None => verdict,
    };
    verdict.blame = match found.role() {
        Role::Cause if found.weight() >= Weight::Family => Blame::Cause,
        _ if terminated => Blame::Terminated,
        Role::Cause => Blame::Vague,
        Role::Collateral | Role::Wrapper => Blame::Follows,
    };
    verdict.raised = found.kind == Kind::Exception;
    verdict.root_cause.message.clone_from(&found.text);
    verdict
}

/// No line of the log explains it.
fn unexplained(verdict: &mut Verdict, report: Option<&Report>, exited: &str) {
    let end = verdict.pod.terminated.as_ref();
    let summary = report.map(|r| &r.summary).filter(|s| s.seen);
    if let Some((code, signal)) = summary
        .and_then(|s| s.exit_code)
        .filter(|c| *c < 0)
        .map(|c| (c, -c))
    {
        let which = summary
            .and_then(|s| s.local_rank)
            .map_or("one of its processes".into(), |l| {
                format!("its process {l}")
            });
        let name = words::signal(signal).unwrap_or("a signal");
        verdict.blame = if code == -15 {
            Blame::Terminated
        } else {
            Blame::Vague
        };
        verdict.root_cause.message = format!("{which} was killed by {name}");
        verdict.summary = format!("{exited}: {which} was killed by {name}");
        verdict.hint = Some(words::signal_hint(signal).into());
        return;
    }
    if summary.is_some() {
        verdict.blame = Blame::Follows;
    }
    let Some(end) = end else {
        let message = "Kubernetes does not say why";
        verdict.root_cause.message = format!("the pod failed and {message}");
        verdict.summary = format!("{exited} and {message}");
        return;
    };
    let signal = end.exit_code - 128;
    if words::signal(signal).is_some() && signal != 15 && signal != 6 {
        verdict.blame = Blame::Vague;
        verdict.hint = Some(words::signal_hint(signal).into());
    }
    let last = report.and_then(|r| r.last.as_ref()).map(|(line, _)| line);
    if end.message.trim().is_empty() && last.is_none() {
        verdict.root_cause.message = format!("exit {} and no output", words::exit(end.exit_code));
        verdict.summary = format!("{exited} and no output");
    } else if end.message.trim().is_empty() {
        let line = last.map_or("", String::as_str);
        verdict.root_cause.message = bounded(line);
        verdict.summary = format!("{exited}; its last line: {line}");
    } else {
        verdict.root_cause.message = bounded(&end.message);
        verdict.summary = format!("{exited}: {}", telling_line(&end.message));
    }
}

/// What the node itself reports decides where the log does not: a broken GPU, or that it is gone.
fn by_node<'a>(
    evidence: &RankEvidence<'a>,
    mut verdict: Verdict<'a>,
    exited: &str,
    book: &RuleBook,
) -> Verdict<'a> {
    let sure = verdict.blame == Blame::Cause && verdict.weight >= Weight::Family;
    let Some(node) = evidence.node else {
        return verdict;
    };
    let broken = node.problems.iter().find_map(|problem| {
        let seen = Seen {
            text: problem.as_bytes(),
            level: None,
            exception: false,
        };
        let rule = CATALOG.find(&seen)?;
        (rule.class == FailureClass::GpuHardware && rule.weight == Weight::Proof)
            .then_some((rule, problem))
    });
    // A definite failure of another kind stands, whatever else the node reports.
    let other = !matches!(
        verdict.class,
        FailureClass::GpuHardware | FailureClass::Communication | FailureClass::Unknown
    );
    if let Some((rule, problem)) = broken.filter(|_| !(sure && other)) {
        // The log's own line stays the decisive one where it tells of the same fault.
        let told = matches!(verdict.blame, Blame::Cause | Blame::Vague)
            && verdict.class != FailureClass::Communication
            && verdict.rule.is_some();
        if verdict.class == FailureClass::GpuHardware && told {
            verdict.summary = format!("{}; its node reports: {problem}", verdict.summary);
        } else {
            verdict = verdict.by(rule, problem.as_bytes(), book);
            verdict.summary = format!("{exited}, and its node reports: {problem}");
        }
        if !told {
            verdict.root_cause.message = bounded(problem);
        }
        verdict.blame = Blame::Cause;
        verdict.weight = Weight::Proof;
    } else if !sure && !node.ready && verdict.blame != Blame::Terminated {
        if let Some(rule) = CATALOG.reason("NodeLost", "") {
            verdict = verdict.by(rule, b"", book);
        }
        verdict.blame = Blame::Cause;
        verdict.root_cause.message = format!("node {} is not ready", node.name);
        verdict.summary = format!("{exited}, and its node {} is not ready", node.name);
    }
    verdict
}

/// Rules that people have written come before all others. They say what a failure is called and what
/// is done about it; whose failure it is they leave alone, except where nothing else knew.
fn custom<'a>(
    evidence: &RankEvidence<'a>,
    book: &RuleBook,
    mut verdict: Verdict<'a>,
) -> Verdict<'a> {
    if !book.has_custom() {
        return verdict;
    }
    let pod = evidence.pod;
    let said = pod.terminated.as_ref().map_or("", |t| t.message.as_str());
    let (bytes, stamped) = match evidence.tail {
        Some(tail) => (tail.bytes.as_slice(), tail.stamped),
        None => (said.as_bytes(), false),
    };
    let plain: Vec<_> = bytes
        .split(|b| matches!(b, b'\n' | b'\r'))
        .map(|line| {
            if stamped {
                super::log::unstamped(line)
            } else {
                line
            }
        })
        .map(without_colours)
        .collect();
    let lines: Vec<&[u8]> = plain.iter().map(AsRef::as_ref).collect();
    let Some(found) = book.custom(pod, &lines) else {
        return verdict;
    };
    verdict.class = found.rule.class;
    verdict.rule = Some(found.rule.name.clone());
    verdict.policy = book.policy_of_custom(found.rule);
    verdict.hint.clone_from(&found.rule.hint);
    if matches!(verdict.blame, Blame::Vague | Blame::Unexplained) {
        verdict.blame = Blame::Cause;
    }
    verdict.weight = verdict.weight.max(Weight::Specific);
    if let Some(line) = found.line
        && verdict.blame != Blame::Ended
    {
        let exited = pod.terminated.as_ref().map_or("failed".into(), |t| {
            format!("exited with {}", words::exit(t.exit_code))
        });
        verdict.summary = format!("{} {exited}: {line}", subject(pod));
        verdict.root_cause.message = line;
    }
    verdict
}
