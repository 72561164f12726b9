//! The rules and class policies in force for a job: its own, its runtime's, the cluster's, and those
//! that ship with trainyard, in this order.

use std::sync::{Arc, LazyLock};

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use thiserror::Error;

use super::catalog::Rule;
use crate::{
    api::{ClassPolicy, FailureAction, FailureClass, FailureRule, FailureRules},
    plan::PodFacts,
};

/// The largest compiled form of a pattern that someone has written (bytes): `\w{1000}` is refused.
const SIZE_LIMIT: usize = 256 * 1024;

/// Where rules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `spec.failurePolicy` of the job.
    Job,
    /// `failurePolicy` of its runtime.
    Runtime,
    /// The cluster-wide ConfigMap.
    Cluster,
}

/// A rule that can't be used. The others are.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("failure rule {rule} of the {origin:?} is left out: {problem}")]
pub struct BadRule {
    /// Where it comes from.
    pub origin: Origin,
    /// Its name.
    pub rule: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

/// What is to be done about a failure, with nothing left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Retry, retry uncharged, or fail.
    pub action: FailureAction,
    /// Most retries of one job for failures of this class; None: only backoffLimit counts.
    pub max_retries: Option<i32>,
    /// Seconds before the first retry; None: the job's.
    pub backoff_base_seconds: Option<i64>,
    /// The longest wait, in seconds; None: the job's.
    pub backoff_max_seconds: Option<i64>,
    /// The next attempts prefer other nodes than the one that failed.
    pub avoid_node: bool,
}

/// The rules in force for one job.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    /// From the strongest to the weakest.
    rules: Arc<[Custom]>,
    /// The first that names a class decides.
    classes: Vec<ClassPolicy>,
}

/// A rule that someone has written, compiled.
#[derive(Debug)]
pub(super) struct Custom {
    pub rule: FailureRule,
    log: Vec<Regex>,
    message: Vec<Regex>,
}

/// A match of such a rule.
pub(super) struct Matched<'a> {
    pub rule: &'a FailureRule,
    /// The line of the log that matched, where one was asked for.
    pub line: Option<String>,
}

/// What is done about a class where nobody has said otherwise.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClassDefault {
    class: FailureClass,
    /// Why so.
    #[allow(dead_code)]
    why: String,
    action: FailureAction,
    #[serde(default)]
    max_retries: Option<i32>,
    #[serde(default)]
    backoff_base_seconds: Option<i64>,
    #[serde(default)]
    backoff_max_seconds: Option<i64>,
    #[serde(default)]
    avoid_node: bool,
}

const CLASSES: &str = include_str!("rules/classes.yaml");

static DEFAULTS: LazyLock<Vec<ClassDefault>> =
    LazyLock::new(|| serde_saphyr::from_str(CLASSES).unwrap_or_default());

impl RuleBook {
    /// `layers` from the strongest (the job's) to the weakest, over the built-in ones. A rule that can't
    /// be used is left out and reported.
    #[must_use]
    pub fn new(layers: &[(Origin, &FailureRules)]) -> (Self, Vec<BadRule>) {
        let mut bad = Vec::new();
        let mut rules = Vec::new();
        let mut classes = Vec::new();
        for (origin, layer) in layers {
            let mut report = |rule: &str, problem| {
                bad.push(BadRule {
                    origin: origin.clone(),
                    rule: rule.to_owned(),
                    problem,
                });
            };
            for rule in &layer.rules {
                match Custom::new(rule) {
                    Ok(custom) => rules.push(custom),
                    Err(problem) => report(&rule.name, problem),
                }
            }
            for class in &layer.classes {
                let more = class.max_retries.is_some() || class.avoid_node.is_some();
                let backoff =
                    class.backoff_base_seconds.is_some() || class.backoff_max_seconds.is_some();
                match impossible(
                    class.action,
                    more || backoff,
                    class.backoff_base_seconds,
                    class.backoff_max_seconds,
                ) {
                    None => classes.push(class.clone()),
                    Some(problem) => report(&format!("for class {}", class.class), problem),
                }
            }
        }
        let book = Self {
            rules: rules.into(),
            classes,
        };
        (book, bad)
    }

    /// What is to be done about a failure of `class` that no rule with a policy of its own matched.
    #[must_use]
    pub fn policy(&self, class: FailureClass) -> Policy {
        // From the weakest to the strongest, each over the one before.
        self.classes.iter().rev().filter(|c| c.class == class).fold(
            default_policy(class),
            |policy, c| {
                policy.with(
                    c.action,
                    c.max_retries,
                    c.backoff_base_seconds,
                    c.backoff_max_seconds,
                    c.avoid_node,
                )
            },
        )
    }

    /// What is to be done about a failure that a built-in rule has found. A class that someone has
    /// given a policy is treated so, whatever the rule says.
    pub(super) fn policy_of(&self, rule: &Rule) -> Policy {
        let policy = self.policy(rule.class);
        if self.classes.iter().any(|c| c.class == rule.class) {
            return policy;
        }
        policy.with(rule.action, rule.max_retries, None, None, rule.avoid_node)
    }

    /// The same for a rule that someone has written.
    pub(super) fn policy_of_custom(&self, rule: &FailureRule) -> Policy {
        self.policy(rule.class).with(
            rule.action,
            rule.max_retries,
            rule.backoff_base_seconds,
            rule.backoff_max_seconds,
            rule.avoid_node,
        )
    }

    /// The first rule that someone has written and that matches. `lines` is the log without stamps and
    /// colours.
    pub(super) fn custom(&self, pod: &PodFacts, lines: &[&[u8]]) -> Option<Matched<'_>> {
        self.rules.iter().find_map(|r| r.matches(pod, lines))
    }

    /// Whether there are any to ask.
    pub(super) fn has_custom(&self) -> bool {
        !self.rules.is_empty()
    }
}

impl Policy {
    fn with(
        self,
        action: Option<FailureAction>,
        max_retries: Option<i32>,
        base: Option<i64>,
        max: Option<i64>,
        avoid_node: Option<bool>,
    ) -> Self {
        Self {
            action: action.unwrap_or(self.action),
            max_retries: max_retries.or(self.max_retries),
            backoff_base_seconds: base.or(self.backoff_base_seconds),
            backoff_max_seconds: max.or(self.backoff_max_seconds),
            avoid_node: avoid_node.unwrap_or(self.avoid_node),
        }
    }
}

fn default_policy(class: FailureClass) -> Policy {
    let found = DEFAULTS.iter().find(|d| d.class == class);
    found.map_or(
        Policy {
            action: FailureAction::Fail,
            max_retries: None,
            backoff_base_seconds: None,
            backoff_max_seconds: None,
            avoid_node: false,
        },
        |d| Policy {
            action: d.action,
            max_retries: d.max_retries,
            backoff_base_seconds: d.backoff_base_seconds,
            backoff_max_seconds: d.backoff_max_seconds,
            avoid_node: d.avoid_node,
        },
    )
}

/// What can't be meant. The API server refuses the same in a job; a ConfigMap has no such check.
fn impossible(
    action: Option<FailureAction>,
    more: bool,
    base: Option<i64>,
    max: Option<i64>,
) -> Option<String> {
    if action == Some(FailureAction::Fail) && more {
        return Some("action Fail allows no retry, so maxRetries, avoidNode and the backoff mean nothing with it: remove them, or choose Retry".into());
    }
    match (base, max) {
        (Some(base), Some(max)) if base > max => Some(format!(
            "backoffBaseSeconds {base} exceeds backoffMaxSeconds {max}: raise the maximum"
        )),
        _ => None,
    }
}

impl Custom {
    fn new(rule: &FailureRule) -> Result<Self, String> {
        let nothing = rule.on_exit_codes.is_empty()
            && rule.on_log_patterns.is_empty()
            && rule.on_pod_reasons.is_empty()
            && rule.on_pod_conditions.is_empty()
            && rule.on_termination_message.is_empty();
        if nothing {
            return Err("it does not say what it matches: give onLogPatterns, onExitCodes, onPodReasons, onPodConditions or onTerminationMessage".into());
        }
        let more = rule.max_retries.is_some() || rule.avoid_node.is_some();
        let backoff = rule.backoff_base_seconds.is_some() || rule.backoff_max_seconds.is_some();
        if let Some(problem) = impossible(
            rule.action,
            more || backoff,
            rule.backoff_base_seconds,
            rule.backoff_max_seconds,
        ) {
            return Err(problem);
        }
        if rule.on_exit_codes.contains(&0) {
            return Err("onExitCodes has 0, which is success: remove it".into());
        }
        Ok(Self {
            log: compiled("onLogPatterns", &rule.on_log_patterns)?,
            message: compiled("onTerminationMessage", &rule.on_termination_message)?,
            rule: rule.clone(),
        })
    }

    fn matches(&self, pod: &PodFacts, lines: &[&[u8]]) -> Option<Matched<'_>> {
        let rule = &self.rule;
        let end = pod.terminated.as_ref();
        let code = rule.on_exit_codes.is_empty()
            || end.is_some_and(|t| rule.on_exit_codes.contains(&t.exit_code));
        let message = self.message.is_empty()
            || end.is_some_and(|t| {
                self.message
                    .iter()
                    .any(|m| m.is_match(t.message.as_bytes()))
            });
        if !(code && message && self.reasons(pod) && self.conditions(pod)) {
            return None;
        }
        if self.log.is_empty() {
            return Some(Matched { rule, line: None });
        }
        let line = lines
            .iter()
            .rev()
            .find(|line| self.log.iter().any(|p| p.is_match(line)))?;
        let line = Some(super::log::kept(line));
        Some(Matched { rule, line })
    }

    fn reasons(&self, pod: &PodFacts) -> bool {
        let wanted = &self.rule.on_pod_reasons;
        let given = [
            pod.disruption.as_ref().map(|d| &d.reason),
            pod.terminated.as_ref().map(|t| &t.reason),
            pod.waiting.as_ref().map(|w| &w.reason),
        ];
        wanted.is_empty() || given.into_iter().flatten().any(|r| wanted.contains(r))
    }

    fn conditions(&self, pod: &PodFacts) -> bool {
        let wanted = &self.rule.on_pod_conditions;
        wanted.is_empty()
            || wanted.iter().any(|w| {
                let (kind, reason) = w
                    .split_once('=')
                    .map_or((w.as_str(), None), |(k, r)| (k, Some(r)));
                pod.conditions.iter().any(|c| {
                    let (k, r) = c.split_once('=').unwrap_or((c, ""));
                    k == kind && reason.is_none_or(|wanted| wanted == r)
                })
            })
    }
}

fn compiled(field: &str, patterns: &[String]) -> Result<Vec<Regex>, String> {
    patterns
        .iter()
        .map(|pattern| {
            RegexBuilder::new(pattern)
                .size_limit(SIZE_LIMIT)
                .dfa_size_limit(SIZE_LIMIT)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => format!(
                        "the pattern {pattern:?} in {field} is too large: use fewer or smaller repetitions"
                    ),
                    error => {
                        let why = error.to_string();
                        let why = why.lines().last().unwrap_or_default();
                        let why = why.strip_prefix("error: ").unwrap_or(why);
                        format!("the pattern {pattern:?} in {field} is no regular expression: {why}")
                    }
                })
        })
        .collect()
}
