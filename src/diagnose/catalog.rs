//! The rules that ship with trainyard: `rules/*.yaml`, parsed once, and found by line.
//!
//! A rule's regular expressions are compiled when a line first contains a text without which they can't
//! match (see [`super::literal`]): most never are, and the operator stays small.

use std::sync::{LazyLock, OnceLock};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

use super::{line::Level, literal};
use crate::api::{FailureAction, FailureClass};

/// The largest compiled form of a built-in pattern (bytes).
const SIZE_LIMIT: usize = 1 << 20;

/// The rules by topic, in the order in which they are tried. What is special comes before what is
/// general: the Python families close the list.
const FILES: [(&str, &str); 15] = [
    ("kubernetes", include_str!("rules/kubernetes.yaml")),
    ("gpu-hardware", include_str!("rules/gpu-hardware.yaml")),
    ("gpu-memory", include_str!("rules/gpu-memory.yaml")),
    ("host-memory", include_str!("rules/host-memory.yaml")),
    ("cuda", include_str!("rules/cuda.yaml")),
    ("amd", include_str!("rules/amd.yaml")),
    ("communication", include_str!("rules/communication.yaml")),
    ("storage", include_str!("rules/storage.yaml")),
    ("object-store", include_str!("rules/object-store.yaml")),
    ("hub", include_str!("rules/hub.yaml")),
    ("data", include_str!("rules/data.yaml")),
    ("frameworks", include_str!("rules/frameworks.yaml")),
    ("launchers", include_str!("rules/launchers.yaml")),
    ("shell", include_str!("rules/shell.yaml")),
    ("python", include_str!("rules/python.yaml")),
];

/// Texts that say how lines belong together: a log is looked at more closely from there on.
const STRUCTURE: [&[u8]; 5] = [
    b"traceback (most recent call last)",
    b"root cause",
    b"failed (exitcode",
    b"exception ignored",
    b"exception in thread",
];

/// How the names of exceptions end. A healthy line has "error_rate" or "MeanSquaredError 0.4", seldom
/// such a name as it stands before a message, in a record, or alone.
const EXCEPTIONS: [&[u8]; 4] = [b"Error", b"Exception", b"Interrupt", b"SystemExit"];

/// What a match says about other ranks' failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Role {
    /// A failure of its own.
    #[default]
    Cause,
    /// Follows from the failure of another process, where there is one.
    Collateral,
    /// Only says that a child process failed.
    Wrapper,
}

/// How much a match weighs against another one in the same log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Weight {
    /// How a process ends that something else has already brought down: an abort, a core dump.
    Aftermath,
    /// Anything might have raised this: decides only where nothing else does.
    Vague,
    /// A family of exceptions, such as TypeError.
    Family,
    /// A message with one meaning.
    #[default]
    Specific,
    /// What the hardware itself reports: decides whatever else went wrong after it.
    Proof,
}

/// In which lines a rule may match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Scope {
    /// The last line of a traceback, or a line that looks like one.
    Exception,
    /// Not in lines that their level calls a warning or less.
    #[default]
    Error,
    /// In every line.
    Any,
}

/// A regular expression for one line, compiled when it is first needed.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: String) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| compile(&self.text).ok())
            .as_ref()
    }

    pub(super) fn matches(&self, line: &[u8]) -> bool {
        self.regex().is_some_and(|r| r.is_match(line))
    }

    fn captures<'t>(&self, line: &'t [u8]) -> Option<Captures<'t>> {
        self.regex()?.captures(line)
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .build()
}

/// One rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: String,
    #[allow(dead_code)] // For readers, and a test that it is there.
    description: String,
    class: FailureClass,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    weight: Weight,
    #[serde(default)]
    scope: Scope,
    /// Lines of the log.
    #[serde(default)]
    log: Vec<String>,
    /// Lines that are not meant, though `log` matches.
    #[serde(default)]
    unless: Vec<String>,
    /// Reasons of a pod or a container.
    #[serde(default)]
    reasons: Vec<String>,
    /// What Kubernetes says with the reason.
    #[serde(default)]
    message: Vec<String>,
    /// "was evicted by its node"
    #[serde(default)]
    said: Option<String>,
    #[serde(default)]
    action: Option<FailureAction>,
    #[serde(default)]
    max_retries: Option<i32>,
    #[serde(default)]
    avoid_node: Option<bool>,
    /// A pod that waits for this reason waits for ever.
    #[serde(default)]
    never_starts: bool,
    /// Programs, most of all shell scripts, often go on after it: a few lines more show that one did.
    #[serde(default)]
    often_survived: bool,
    /// A sentence that is put before the hint where all the named groups in it matched.
    #[serde(default)]
    numbers: Option<String>,
    hint: String,
    #[allow(dead_code)]
    source: String,
}

/// A rule that ships with trainyard.
#[derive(Debug)]
pub(super) struct Rule {
    pub name: String,
    /// Its place among the rules.
    pub order: usize,
    pub description: String,
    pub class: FailureClass,
    pub role: Role,
    pub weight: Weight,
    pub said: Option<String>,
    pub action: Option<FailureAction>,
    pub max_retries: Option<i32>,
    pub avoid_node: Option<bool>,
    pub never_starts: bool,
    pub often_survived: bool,
    scope: Scope,
    log: Vec<Pattern>,
    unless: Vec<Pattern>,
    reasons: Vec<String>,
    message: Vec<Pattern>,
    numbers: Option<String>,
    hint: String,
}

/// A line of a log, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub text: &'a [u8],
    pub level: Option<Level>,
    /// It ends a traceback, or looks like an exception's own line.
    pub exception: bool,
}

impl Rule {
    fn in_scope(&self, seen: &Seen) -> bool {
        match self.scope {
            Scope::Any => true,
            Scope::Exception => seen.exception,
            Scope::Error => seen.exception || seen.level.is_none_or(|l| l >= Level::Error),
        }
    }

    /// What the user can do about `line`, which this rule matches.
    pub(super) fn hint(&self, line: &[u8]) -> String {
        let numbers = self.numbers.as_deref().and_then(|template| {
            self.log
                .iter()
                .chain(&self.message)
                .find_map(|p| filled(template, p, line))
        });
        match numbers {
            Some(numbers) => format!("{numbers} {}", self.hint),
            None => self.hint.clone(),
        }
    }
}

/// `template` with each `{name}` replaced by the group of that name; None where one did not match.
fn filled(template: &str, pattern: &Pattern, line: &[u8]) -> Option<String> {
    let captures = pattern.captures(line)?;
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        out.push_str(before);
        let group = captures.name(name)?;
        out.push_str(&String::from_utf8_lossy(group.as_bytes()));
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// All rules, and the texts that lead to them.
pub(super) struct Catalog {
    pub rules: Vec<Rule>,
    gate: AhoCorasick,
    /// The texts of the gate that matter in any line; the others only where an exception is named.
    anywhere: AhoCorasick,
    exceptions: AhoCorasick,
    /// For each text of the gate, the rules and their patterns that can't match without it.
    behind: Vec<Vec<(u16, u16)>>,
}

/// The built-in rules.
pub(super) static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::load);

impl Catalog {
    /// A file that can't be read is left out; a test makes sure that there is none.
    fn load() -> Self {
        let written = FILES
            .iter()
            .filter_map(|(_, text)| serde_saphyr::from_str::<Vec<Written>>(text).ok())
            .flatten();
        let patterns = |texts: Vec<String>| texts.into_iter().map(Pattern::new).collect();
        let rules: Vec<Rule> = written
            .enumerate()
            .map(|(order, w)| Rule {
                name: w.name,
                order,
                description: w.description,
                class: w.class,
                role: w.role,
                weight: w.weight,
                said: w.said,
                action: w.action,
                max_retries: w.max_retries,
                avoid_node: w.avoid_node,
                never_starts: w.never_starts,
                often_survived: w.often_survived,
                scope: w.scope,
                log: patterns(w.log),
                unless: patterns(w.unless),
                reasons: w.reasons,
                message: patterns(w.message),
                numbers: w.numbers,
                hint: w.hint,
            })
            .collect();
        let mut texts: Vec<Vec<u8>> = STRUCTURE.iter().map(|t| t.to_vec()).collect();
        let mut behind: Vec<Vec<(u16, u16)>> = vec![Vec::new(); texts.len()];
        for (r, rule) in rules.iter().enumerate() {
            for (p, pattern) in rule.log.iter().enumerate() {
                let (Ok(r), Ok(p)) = (u16::try_from(r), u16::try_from(p)) else {
                    continue;
                };
                for text in literal::required(&pattern.text, false).unwrap_or_default() {
                    if let Some(known) = texts.iter().position(|t| *t == text) {
                        behind[known].push((r, p));
                    } else {
                        texts.push(text);
                        behind.push(vec![(r, p)]);
                    }
                }
            }
        }
        let anywhere: Vec<&Vec<u8>> = texts
            .iter()
            .zip(&behind)
            .filter(|(_, behind)| {
                let mut scopes = behind.iter().map(|(r, _)| rules[usize::from(*r)].scope);
                behind.is_empty() || scopes.any(|s| s != Scope::Exception)
            })
            .map(|(text, _)| text)
            .collect();
        Self {
            anywhere: gate(&anywhere, true),
            exceptions: gate(&EXCEPTIONS, false),
            gate: gate(&texts, true),
            rules,
            behind,
        }
    }

    /// The rule of this name.
    pub(super) fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|r| r.name == name)
    }

    /// Whether some rule might match `line`, or the line belongs to what one might match.
    pub(super) fn may_match(&self, line: &[u8]) -> bool {
        self.anywhere.is_match(line) || (self.names_exception(line) && self.gate.is_match(line))
    }

    fn names_exception(&self, line: &[u8]) -> bool {
        self.exceptions.find_iter(line).any(|name| {
            let next = line.get(name.end());
            next.is_none_or(|b| matches!(b, b':' | b'(' | b'"' | b'\\' | 0x1b))
        })
    }

    /// The first rule that matches a line of a log.
    pub(super) fn find(&self, seen: &Seen) -> Option<&Rule> {
        let mut candidates: Vec<(u16, u16)> = Vec::new();
        for hit in self.gate.find_overlapping_iter(seen.text) {
            candidates.extend(&self.behind[hit.pattern().as_usize()]);
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().find_map(|(r, p)| {
            let rule = self.rules.get(usize::from(r))?;
            let found = rule.in_scope(seen)
                && rule.log[usize::from(p)].matches(seen.text)
                && !rule.unless.iter().any(|u| u.matches(seen.text));
            found.then_some(rule)
        })
    }

    /// The first rule for a reason that Kubernetes gives, and what it says with it.
    pub(super) fn reason(&self, reason: &str, message: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            let reason = rule.reasons.iter().any(|r| match r.strip_suffix('*') {
                Some(start) => reason.starts_with(start),
                None => r == reason,
            });
            let said = rule.message.is_empty()
                || rule.message.iter().any(|m| m.matches(message.as_bytes()));
            let meant = !rule.unless.iter().any(|u| u.matches(message.as_bytes()));
            reason && said && meant
        })
    }
}

fn gate<T: AsRef<[u8]>>(texts: &[T], any_case: bool) -> AhoCorasick {
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(any_case)
        .build(texts)
        .unwrap_or_else(|_| no_gate())
}

#[allow(clippy::expect_used)]
fn no_gate() -> AhoCorasick {
    // No texts: cannot fail.
    AhoCorasick::new(std::iter::empty::<&[u8]>()).expect("an automaton of nothing")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_rule_is_whole_and_each_of_its_patterns_can_be_found() {
        let mut names = BTreeSet::new();
        let mut count = 0;
        for (file, text) in FILES {
            let rules: Vec<Written> =
                serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{file}: {e}"));
            for rule in rules {
                let name = &rule.name;
                count += 1;
                assert!(names.insert(name.clone()), "{name} twice");
                let fits = name.len() <= 63
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                assert!(fits, "{name} is no name for a rule");
                for (field, value) in [
                    ("description", &rule.description),
                    ("hint", &rule.hint),
                    ("source", &rule.source),
                ] {
                    assert!(!value.trim().is_empty(), "{name} has no {field}");
                }
                assert!(rule.hint.len() <= 512, "{name}: a hint is a sentence");
                assert!(
                    !(rule.log.is_empty() && rule.reasons.is_empty()),
                    "{name} matches nothing"
                );
                for pattern in &rule.log {
                    compile(pattern).unwrap_or_else(|e| panic!("{name}: {e}"));
                    let texts = literal::required(pattern, false);
                    assert!(
                        texts.is_some_and(|t| !t.is_empty()),
                        "{name}: {pattern} has no text of three letters that a line must contain"
                    );
                }
                for pattern in rule.unless.iter().chain(&rule.message) {
                    compile(pattern).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
            }
        }
        assert_eq!(CATALOG.rules.len(), count);
        println!("{count} rules, {} texts", CATALOG.behind.len());
    }

    #[test]
    fn the_lines_of_a_healthy_run_pass_the_gate_unseen() {
        for line in [
            "[INFO] train: epoch 1 | step 5 | loss 0.1 | error_rate 0.3 | val_error=0.2 | grad_norm 1.33",
            "{'loss': 1.23, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.3}",
            "lm loss: 3.1 | number of skipped iterations:   0 | number of nan iterations:   0 |",
            "n:12:12 [0] NCCL INFO Channel 00/32 : 0 1 2 3",
            "saved checkpoint to /ckpt/step_1000",
            " 47%|####7     | 940/2000 [03:12<03:36,  4.90it/s, loss=1.234, val_error=0.12]",
            "Validation: 100%|##########| 50/50 [00:03<00:00, 16.2it/s]",
            "2026-03-01 10:00:05,123 - train - INFO - val_error: 0.25, test error 0.3, 0 errors",
            "eval | error: 12.5 | word error rate 0.11 | MeanSquaredError 0.4 | mean_absolute_error: 0.2",
            "I0301 10:00:05.123456 17 trainer.py:88] global_step = 1200, images/sec: 811.2, ETA: 2:01:07",
            "2026-03-01 10:00:05 WARNING train.py:12: learning rate scheduler stepped before the optimizer",
            "/usr/lib/python3/site-packages/torch/optim/lr_scheduler.py:216: UserWarning: Detected call of `lr_scheduler.step()`",
            "steps: 100 | time per step (ms): 210.1 | memory: 71.2 GiB | tokens per second: 12000 | TFLOPs: 410",
            "Epoch 3/10 ━━━━━━━━━━━━━━━ 12s 3ms/step - accuracy: 0.91 - loss: 0.3 - val_accuracy: 0.9",
            "gradient norm clipped to 1.0; device: cuda:0; memory allocated 12.3 GB, reserved 14.0 GB",
            "Downloading shards: 100%|##########| 4/4 [00:10<00:00]",
            "wandb: Syncing run lively-sun-12",
            "[rank0]: saving model to /out/model.safetensors, 0 failed reads",
        ] {
            assert!(!CATALOG.may_match(line.as_bytes()), "{line}");
        }
        assert!(CATALOG.may_match(b"my.lib.OwnError: what"));
    }
}
