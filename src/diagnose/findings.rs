//! What went wrong in a log, and which of it ended the program.
//!
//! A log is full of errors that ended nothing: retried, caught and logged, of an earlier run, or of the
//! interpreter taking itself apart. What counts is the last thing that the program did not survive.

use std::collections::BTreeMap;

use super::{
    announcement::Announcement,
    catalog::{CATALOG, Role, Rule, Seen, Weight},
    line::{Level, Line, Source},
    log::{Chain, bad, kept},
    progress::Progress,
    torchrun::Summary,
};

/// Most findings that are kept of one log; of more, the middle is dropped.
const MAX_FINDINGS: usize = 400;
/// States of progress after which a program has survived an exception that nobody announced.
const SURVIVED_EXCEPTION: u32 = 3;
/// The same for an error that was only logged.
const SURVIVED_LINE: u32 = 2;
/// Ordinary lines after which it has, whatever they say.
const SURVIVED_ANYTHING: u32 = 300;
/// Ordinary lines after which it has survived what is often survived, such as a script's command.
const SURVIVED_OFTEN: u32 = 4;
/// Ordinary lines between two failures that show that the first did not end the program.
const WENT_ON: u32 = 3;
/// A retry that is announced within so many lines is a retry of what has just failed.
const NEAR: u64 = 60;
const MAX_SOURCES: usize = 256;

/// How something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A line of its own.
    #[default]
    Line,
    /// The end of a traceback.
    Exception,
    /// The end of a traceback that a logger or a thread wrote: the program may have gone on.
    Logged,
    /// Python's own complaints, which end nothing: "Exception ignored in".
    Noise,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The rule that knows it; None for an exception that none knows.
    pub rule: Option<&'static Rule>,
    /// The line without its prefixes.
    pub text: String,
    /// The line with them.
    pub raw: String,
    /// Its number in the log, from 1.
    pub number: u64,
    pub source: Option<Source>,
    pub kind: Kind,
    /// Ordinary lines of the log before it.
    pub ordinary: u32,
}

impl Finding {
    pub(super) fn role(&self) -> Role {
        self.rule.map_or(Role::Cause, |r| r.role)
    }

    pub(super) fn weight(&self) -> Weight {
        self.rule.map_or(Weight::Vague, |r| r.weight)
    }
}

/// A finding and what was counted when it came.
#[derive(Clone, Debug)]
struct Entry {
    finding: Finding,
    at: Count,
    retried: bool,
}

/// Ordinary lines so far.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    lines: u32,
    progress: u32,
}

impl Count {
    fn since(self, then: Self) -> Self {
        Self {
            lines: self.lines.saturating_sub(then.lines),
            progress: self.progress.saturating_sub(then.progress),
        }
    }
}

/// What is kept of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    entries: Vec<Entry>,
    /// Survived ones, which matter only where nothing else is left.
    survived: Option<Finding>,
    all: Count,
    by_source: BTreeMap<Option<Source>, Count>,
    last_progress: Option<Progress>,
    /// What the next traceback of a source is.
    expected: Vec<(Option<Source>, Kind)>,
    /// How it belongs to the one before.
    chained: Vec<(Option<Source>, Chain)>,
    /// Ordinary lines before a launcher reported that a child process had failed.
    reported: Option<u32>,
    /// The last line was one that its level calls an error.
    error_before: bool,
}

impl Findings {
    /// A line that says something of the lines around it: a new run, a retry, noise to come. It is no
    /// finding then.
    pub(super) fn announces(
        &mut self,
        text: &[u8],
        source: Option<Source>,
        level: Option<Level>,
    ) -> bool {
        self.error_before = false;
        let announced = Announcement::of(text);
        match announced {
            Some(Announcement::Restart) => self.restart(),
            Some(Announcement::Noise) => self.expect(source, Kind::Noise),
            Some(Announcement::Thread) => self.expect(source, Kind::Logged),
            Some(Announcement::Retry) => self.retry(source),
            None => self.error_before = level.is_some_and(|l| l >= Level::Warning),
        }
        announced.is_some()
    }

    /// What came before belongs to another run.
    fn restart(&mut self) {
        self.entries.clear();
        self.survived = None;
        self.reported = None;
        self.expected.clear();
        self.chained.clear();
    }

    fn expect(&mut self, source: Option<Source>, kind: Kind) {
        self.expected.retain(|(s, _)| *s != source);
        if self.expected.len() < MAX_SOURCES {
            self.expected.push((source, kind));
        }
    }

    /// Says how the next traceback of this source belongs to the last.
    pub(super) fn chain(&mut self, source: Option<Source>, chain: Chain) {
        self.chained.retain(|(s, _)| *s != source);
        if self.chained.len() < MAX_SOURCES {
            self.chained.push((source, chain));
        }
    }

    /// A traceback begins.
    pub(super) fn expected(
        &mut self,
        source: Option<Source>,
        level: Option<Level>,
    ) -> (Kind, Chain) {
        let chained = self.chained.iter().position(|(s, _)| *s == source);
        let chain = chained.map_or(Chain::None, |n| self.chained.swap_remove(n).1);
        if let Some(n) = self.expected.iter().position(|(s, _)| *s == source) {
            return (self.expected.swap_remove(n).1, chain);
        }
        let logged = self.error_before || bad(level);
        self.error_before = false;
        let tagged = matches!(source, Some(Source::Rank(_)));
        let kind = if logged && !tagged {
            Kind::Logged
        } else {
            Kind::Exception
        };
        (kind, chain)
    }

    fn retry(&mut self, source: Option<Source>) {
        let Some(last) = self.entries.last().map(|e| e.finding.number) else {
            return;
        };
        for entry in self.entries.iter_mut().rev().take(8) {
            let same = entry.finding.source == source || source.is_none();
            let tagged = matches!(entry.finding.source, Some(Source::Rank(_)))
                && entry.finding.kind == Kind::Exception;
            if same && !tagged && last.saturating_sub(entry.finding.number) < NEAR {
                entry.retried = true;
            }
        }
    }

    /// Something went wrong.
    pub(super) fn add(&mut self, mut finding: Finding, chain: Chain) {
        finding.ordinary = self.all.lines;
        if finding.role() == Role::Wrapper {
            self.reported.get_or_insert(finding.ordinary);
        }
        let at = self.counted(finding.source);
        let entry = Entry {
            finding,
            at,
            retried: false,
        };
        if chain != Chain::None
            && let Some(before) =
                self.entries.iter_mut().rev().find(|e| {
                    e.finding.source == entry.finding.source && e.finding.kind != Kind::Line
                })
        {
            if prefers_later(&before.finding, &entry.finding, chain) {
                let kind = before.finding.kind;
                *before = entry;
                if kind == Kind::Noise {
                    before.finding.kind = kind;
                }
            } else {
                before.at = entry.at;
                before.finding.ordinary = entry.finding.ordinary;
            }
            return;
        }
        if self.entries.len() >= MAX_FINDINGS {
            self.entries.remove(MAX_FINDINGS / 2);
        }
        self.entries.push(entry);
    }

    /// The message of the exception in line `number` goes on with `rest`. False where that exception
    /// is no finding of its own: it only led to another one.
    pub(super) fn extend(&mut self, number: u64, rest: &[u8]) -> bool {
        let mut latest = self.entries.iter_mut().rev();
        let Some(Entry { finding, .. }) = latest.find(|e| e.finding.number == number) else {
            return false;
        };
        let find = |text: &[u8]| {
            CATALOG.find(&Seen {
                text,
                level: None,
                exception: true,
            })
        };
        let wordless = finding
            .text
            .split_once(':')
            .is_some_and(|(_, said)| said.is_empty());
        let rest = rest.trim_ascii();
        let whole = [finding.text.as_bytes(), rest].join(&b' ');
        let rule = find(rest).or_else(|| wordless.then(|| find(&whole)).flatten());
        if let Some(rule) = rule.filter(|r| r.weight >= finding.weight() || finding.rule.is_none())
        {
            finding.rule = Some(rule);
        }
        finding.text = kept(&whole);
        true
    }

    /// A line in which nothing went wrong.
    pub(super) fn ordinary(&mut self, line: &Line, progress: Option<&Progress>) {
        let new = progress.is_some_and(|p| self.last_progress.as_ref() != Some(p));
        if new {
            self.last_progress = progress.cloned();
            self.reported = None;
        }
        // Stack frames and dumps say nothing of going on.
        let talks =
            !line.indented() && !line.text.starts_with(b"frame #") && !line.text.starts_with(b"#");
        let count = |c: &mut Count| {
            c.lines = c.lines.saturating_add(u32::from(talks));
            c.progress = c.progress.saturating_add(u32::from(new));
        };
        count(&mut self.all);
        if self.by_source.len() < MAX_SOURCES || self.by_source.contains_key(&line.source) {
            count(self.by_source.entry(line.source).or_default());
        }
        if new || self.all.lines.is_multiple_of(64) {
            self.forget_survived();
        }
    }

    /// What a process of `source` has said: its own lines and those without a name.
    fn counted(&self, source: Option<Source>) -> Count {
        let of = |s| self.by_source.get(&s).copied().unwrap_or_default();
        match source {
            None => self.all,
            Some(_) => {
                let (own, nobody) = (of(source), of(None));
                Count {
                    lines: own.lines + nobody.lines,
                    progress: own.progress + nobody.progress,
                }
            }
        }
    }

    /// Puts aside what the program went on after.
    pub(super) fn forget_survived(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        for entry in entries {
            if self.has_survived(&entry) {
                if entry.finding.kind == Kind::Exception {
                    self.survived = Some(entry.finding);
                }
            } else {
                self.entries.push(entry);
            }
        }
    }

    fn has_survived(&self, entry: &Entry) -> bool {
        let uncaught = entry.finding.kind == Kind::Exception;
        // torch's own hook writes this prefix for exceptions that nothing has caught.
        if uncaught && matches!(entry.finding.source, Some(Source::Rank(_))) {
            return false;
        }
        let since = self.counted(entry.finding.source).since(entry.at);
        let often = entry.finding.kind == Kind::Line
            && entry.finding.rule.is_some_and(|r| r.often_survived);
        let alive = since.lines.min(self.before_a_report(&entry.finding));
        if often && alive >= SURVIVED_OFTEN {
            return true;
        }
        let enough = if uncaught && !entry.retried {
            SURVIVED_EXCEPTION
        } else {
            SURVIVED_LINE
        };
        since.progress >= enough || since.lines >= SURVIVED_ANYTHING
    }

    /// Ordinary lines between a failure and a launcher's report, which is long and shows no life.
    fn before_a_report(&self, failure: &Finding) -> u32 {
        let end = self.reported.unwrap_or(self.all.lines);
        end.saturating_sub(failure.ordinary)
    }

    /// Nothing is open.
    pub(super) fn settled(&self) -> bool {
        self.entries.is_empty()
    }

    /// What ended the program, as far as the log tells.
    pub(super) fn decisive(&self, summary: &Summary) -> Option<&Finding> {
        let entries: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|e| e.finding.kind != Kind::Noise)
            .collect();
        let causes = |least: Weight, most: Weight, retried: bool| -> Vec<&Finding> {
            entries
                .iter()
                .filter(|e| e.retried == retried)
                .map(|e| &e.finding)
                .filter(|f| f.role() == Role::Cause)
                .filter(|f| f.weight() >= least && f.weight() <= most)
                .collect()
        };
        let proof = causes(Weight::Proof, Weight::Proof, false);
        // The kernel's own report says more than what CUDA makes of it, and stands first in the rules.
        if let Some(first) = proof.iter().min_by_key(|f| f.rule.map(|r| r.order)) {
            return Some(first);
        }
        let solid = causes(Weight::Family, Weight::Specific, false);
        if let Some(found) = pick(&solid, summary) {
            return Some(clearest(found, &solid));
        }
        let vague = pick(&causes(Weight::Vague, Weight::Vague, false), summary);
        let retried = causes(Weight::Family, Weight::Proof, true);
        if let Some(found) = vague {
            let unknown = found
                .rule
                .is_none_or(|r| r.class == crate::api::FailureClass::Unknown);
            return match retried.last() {
                Some(last) if unknown => Some(last),
                _ => Some(found),
            };
        }
        let of_role = |role| {
            entries
                .iter()
                .map(|e| &e.finding)
                .find(move |f| f.role() == role)
        };
        let collateral = of_role(Role::Collateral);
        // Other processes' lines went on while one of them had ended.
        if summary.rank.is_some()
            && summary.exit_code == Some(1)
            && let Some(survived) = self.survived.as_ref().filter(|f| f.role() == Role::Cause)
        {
            return Some(survived);
        }
        let aftermath = causes(Weight::Aftermath, Weight::Aftermath, false);
        collateral
            .or_else(|| pick(&aftermath, summary))
            .or_else(|| retried.last().copied())
            .or_else(|| of_role(Role::Wrapper))
    }
}

/// Of several failures without a recovery between them: the exceptions before mere lines, those of the
/// process that the launcher blames before others, and the first unless the program went on after it.
fn pick<'a>(found: &[&'a Finding], summary: &Summary) -> Option<&'a Finding> {
    let ended = |f: &&&Finding| f.kind == Kind::Exception;
    let mut pool: Vec<&&Finding> = found.iter().filter(ended).collect();
    if pool.is_empty() {
        pool = found.iter().collect();
    }
    let blamed = |f: &&&Finding| match f.source {
        Some(Source::Rank(rank)) => summary.rank == Some(rank),
        Some(Source::Local(local)) => summary.local_rank == Some(local),
        _ => false,
    };
    let of_blamed: Vec<&&Finding> = pool.iter().copied().filter(blamed).collect();
    if !of_blamed.is_empty() {
        pool = of_blamed;
    }
    let (first, last) = (pool.first()?, pool.last()?);
    let went_on = last.ordinary.saturating_sub(first.ordinary) >= WENT_ON;
    if went_on { Some(last) } else { Some(first) }
}

/// Of the failures of the same class close to `found`, the first with a message of one meaning.
fn clearest<'a>(found: &'a Finding, all: &[&'a Finding]) -> &'a Finding {
    let class = |f: &Finding| f.rule.map(|r| r.class);
    let near = |f: &&&Finding| {
        f.weight() > found.weight()
            && class(f) == class(found)
            && (f.source == found.source || f.source.is_none())
            && f.number.abs_diff(found.number) <= NEAR
    };
    all.iter().find(near).copied().unwrap_or(found)
}

/// Of two exceptions of one chain, whether the later one says more.
fn prefers_later(before: &Finding, later: &Finding, chain: Chain) -> bool {
    let firm = |f: &Finding| f.role() == Role::Cause && f.weight() >= Weight::Family;
    let special = |f: &Finding| f.role() == Role::Cause && f.weight() >= Weight::Specific;
    match chain {
        Chain::None => true,
        Chain::Inner | Chain::During => firm(later) || !firm(before),
        Chain::Direct => !special(before) && (firm(later) || !firm(before)),
    }
}
