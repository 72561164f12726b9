//! Reads a log once, in pieces of any size, and keeps what may explain its end.
//!
//! Most lines contain no text that any rule needs and are only looked at by the gate. While something
//! has gone wrong and it is open whether the program recovers, every line is looked at.

use super::{
    catalog::{CATALOG, Rule, Seen},
    findings::{Finding, Findings, Kind},
    json,
    line::{Level, Line, MAX_LINE, Source, advises, without_colours},
    progress,
    torchrun::{Summary, SummaryReader},
    unfinished::{Next, Unfinished},
};

/// Longest text of a line that is kept (bytes).
const MAX_KEPT: usize = 1024;

/// What a log says.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What may explain its end.
    pub findings: Findings,
    /// torchrun's own account.
    pub summary: Summary,
    /// The last line with words in it, and its number.
    pub last: Option<(String, u64)>,
    /// Global ranks that have written into it.
    pub ranks: Vec<u32>,
}

/// A log that is being read.
pub(super) struct Reader {
    /// Each line begins with the node's time; None: to be found out from the first one.
    stamped: Option<bool>,
    /// Number of the current line, from 1.
    number: u64,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// The rest of a huge line is not looked at.
    skipping: bool,
    last: Vec<u8>,
    last_number: u64,
    tracebacks: Vec<Traceback>,
    /// Every line matters.
    attentive: bool,
    /// The last exception, where its message goes on below.
    unfinished: Option<Unfinished>,
    report: Report,
    summary: SummaryReader,
}

/// A traceback whose exception has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traceback {
    source: Option<Source>,
    kind: Kind,
    chain: Chain,
    lines: u32,
}

/// How a traceback belongs to the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Chain {
    #[default]
    None,
    /// "During handling of the above exception, another exception occurred"
    During,
    /// "The above exception was the direct cause of the following exception"
    Direct,
    /// The exception of a worker process, within the message of the one that was raised for it.
    Inner,
}

/// A traceback that is longer is none.
const MAX_TRACEBACK: u32 = 2000;
/// Most tracebacks that are open at a time: of so many processes' lines mixed.
const MAX_OPEN: usize = 64;
const MAX_RANKS: usize = 1024;

impl Reader {
    pub(super) fn new(stamped: bool) -> Self {
        Self {
            stamped: Some(stamped),
            number: 1,
            rest: Vec::new(),
            skipping: false,
            last: Vec::new(),
            last_number: 0,
            tracebacks: Vec::new(),
            attentive: false,
            unfinished: None,
            report: Report::default(),
            summary: SummaryReader::default(),
        }
    }

    /// Finds out whether the lines are stamped.
    pub(super) fn detecting() -> Self {
        Self {
            stamped: None,
            ..Self::new(false)
        }
    }

    /// All of `bytes` at once.
    pub(super) fn read(bytes: &[u8], stamped: bool) -> Report {
        let mut reader = Self::new(stamped);
        reader.push(bytes);
        reader.finish()
    }

    /// The next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (line, newline) = (&bytes[..end], bytes[end] == b'\n');
            if self.rest.is_empty() && !self.skipping {
                self.segment(line);
            } else {
                self.keep(line);
                let whole = std::mem::take(&mut self.rest);
                self.segment(&whole);
                self.rest = whole;
                self.rest.clear();
                self.skipping = false;
            }
            if newline {
                self.number += 1;
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Keeps the beginning of a line, up to a bound.
    fn keep(&mut self, piece: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&piece[..piece.len().min(room)]);
        self.skipping |= piece.len() > room;
    }

    pub(super) fn finish(mut self) -> Report {
        if !self.rest.is_empty() {
            let whole = std::mem::take(&mut self.rest);
            self.segment(&whole);
        }
        self.report.findings.forget_survived();
        let last = std::mem::take(&mut self.last);
        if !last.is_empty() {
            let line = Line::of(&last);
            self.report.last = Some((kept(&line.text), self.last_number));
        }
        self.report.summary = self.summary.finish();
        self.report
    }

    /// A line, or a state of a progress bar.
    fn segment(&mut self, raw: &[u8]) {
        let mut raw = &raw[..raw.len().min(MAX_LINE)];
        if self.stamped.is_none() && !raw.is_empty() {
            self.stamped = Some(unstamped(raw).len() < raw.len());
        }
        if self.stamped == Some(true) {
            raw = unstamped(raw);
        }
        if raw.iter().any(u8::is_ascii_alphanumeric) {
            self.last.clear();
            self.last.extend_from_slice(&raw[..raw.len().min(MAX_KEPT)]);
            self.last_number = self.number;
        }
        let hit = CATALOG.may_match(raw);
        if !hit && !self.attentive {
            return;
        }
        self.look(raw, hit);
    }

    fn look(&mut self, raw: &[u8], hit: bool) {
        if raw.starts_with(b"{")
            && let Some(record) = json::Record::of(raw)
        {
            self.record(&record, raw);
            return;
        }
        let mut line = Line::of(raw);
        // The report of torchrun has the traceback of the process that failed first, set in.
        if self.summary.inset() && line.text.starts_with(b"  ") {
            line.text = line.text[2..].to_vec().into();
        }
        self.note_rank(line.source);
        if line.blank() {
            return;
        }
        self.summary.line(&line.text);
        let exception = self.closes_traceback(&line);
        if exception.is_none() && self.structure(&line) {
            self.unfinished = None;
            self.attentive = true;
            return;
        }
        if exception.is_none() && self.continues(&line) {
            return;
        }
        let kind = exception.map_or(Kind::Line, |t| t.kind);
        let looks = exception.is_some() || looks_like_exception(&line.text);
        let seen = Seen {
            text: &line.text,
            level: line.level,
            exception: looks,
        };
        // A line of a frame says what was run, not what went wrong.
        let within = exception.is_none() && line.indented() && self.open(line.source).is_some();
        let advice = !looks && advises(&line.text);
        let rule = if (hit || looks) && !within && !advice {
            CATALOG.find(&seen)
        } else {
            None
        };
        if rule.is_some() || exception.is_some() {
            self.found(&line, raw, rule, kind, exception);
            self.attentive = true;
        } else if !within {
            self.ordinary(&line);
        }
    }

    /// A record of a logger that writes JSON: its error or message is the line, the end of its
    /// traceback an exception.
    fn record(&mut self, record: &json::Record, raw: &[u8]) {
        let line = Line {
            text: record.text.as_bytes().into(),
            source: None,
            level: record.level,
            native: false,
        };
        let kind = match (record.raised, record.level) {
            (true, Some(Level::Fatal)) => Kind::Exception,
            (true, _) => Kind::Logged,
            (false, _) => Kind::Line,
        };
        let seen = Seen {
            text: &line.text,
            level: line.level,
            exception: record.raised || looks_like_exception(&line.text),
        };
        let rule = if bad(record.level) {
            CATALOG.find(&seen)
        } else {
            None
        };
        if rule.is_some() {
            self.found(&line, raw, rule, kind, None);
            self.attentive = true;
        } else {
            self.ordinary(&line);
        }
    }

    /// Lines that only say how the others belong together.
    fn structure(&mut self, line: &Line) -> bool {
        let text = line.text.trim_ascii_start();
        let text = text.strip_prefix(b"traceback : ").unwrap_or(text);
        if text.starts_with(b"Traceback (most recent call last)")
            || text.starts_with(b"Original Traceback (most recent call last)")
            || text.ends_with(b"Exception Group Traceback (most recent call last):")
        {
            let inner = text.starts_with(b"Original");
            self.open_traceback(line, inner);
            return true;
        }
        let chain = if text.starts_with(b"During handling of the above exception") {
            Chain::During
        } else if text.starts_with(b"The above exception was the direct cause") {
            Chain::Direct
        } else {
            // A traceback after what C++ has logged is no logger's.
            let level = line.level.filter(|_| !line.native);
            return self.report.findings.announces(text, line.source, level);
        };
        self.report.findings.chain(line.source, chain);
        true
    }

    fn open_traceback(&mut self, line: &Line, inner: bool) {
        let (kind, mut chain) = self.report.findings.expected(line.source, line.level);
        if inner {
            chain = Chain::Inner;
        }
        self.tracebacks.retain(|t| t.source != line.source);
        if self.tracebacks.len() < MAX_OPEN {
            self.tracebacks.push(Traceback {
                source: line.source,
                kind,
                chain,
                lines: 0,
            });
        }
    }

    fn open(&self, source: Option<Source>) -> Option<&Traceback> {
        self.tracebacks.iter().find(|t| t.source == source)
    }

    /// The traceback that this line ends: its first line without indentation.
    fn closes_traceback(&mut self, line: &Line) -> Option<Traceback> {
        let at = self
            .tracebacks
            .iter()
            .position(|t| t.source == line.source)?;
        let open = &mut self.tracebacks[at];
        open.lines += 1;
        let too_long = open.lines > MAX_TRACEBACK;
        if too_long {
            self.tracebacks.swap_remove(at);
            return None;
        }
        if line.indented() || !names_something(&line.text) {
            return None;
        }
        // Lines of other processes come between those of a traceback.
        if !exception_name(&line.text) {
            return None;
        }
        Some(self.tracebacks.swap_remove(at))
    }

    /// Whether this line is the rest of the last exception's message.
    fn continues(&mut self, line: &Line) -> bool {
        let Some(unfinished) = &mut self.unfinished else {
            return false;
        };
        let (next, number) = (unfinished.next(line), unfinished.number);
        if next != Next::Between {
            self.unfinished = None;
        }
        next == Next::Rest && self.report.findings.extend(number, &line.text)
    }

    fn found(
        &mut self,
        line: &Line,
        raw: &[u8],
        rule: Option<&'static Rule>,
        kind: Kind,
        traceback: Option<Traceback>,
    ) {
        let finding = Finding {
            rule,
            text: kept(&line.text),
            raw: kept(&without_colours(raw)),
            number: self.number,
            source: line.source,
            kind,
            ordinary: 0,
        };
        let chain = traceback.map_or(Chain::None, |t| t.chain);
        if traceback.is_some() {
            self.unfinished = Unfinished::of(line, self.number);
        }
        self.report.findings.add(finding, chain);
    }

    /// A line in which nothing went wrong: enough of them show that the program went on.
    fn ordinary(&mut self, line: &Line) {
        let findings = &mut self.report.findings;
        let progress = progress::of(&line.text);
        findings.ordinary(line, progress.as_ref());
        let open = !self.tracebacks.is_empty() || self.summary.open();
        self.attentive = open || !findings.settled();
    }

    fn note_rank(&mut self, source: Option<Source>) {
        if let Some(Source::Rank(rank)) = source
            && self.report.ranks.len() < MAX_RANKS
            && !self.report.ranks.contains(&rank)
        {
            self.report.ranks.push(rank);
        }
    }
}

/// Without the time that the node has put before the line.
pub(super) fn unstamped(raw: &[u8]) -> &[u8] {
    // 2026-03-01T10:00:05.123456789Z, or with +01:00
    let stamp = |at: &usize| {
        *at >= 20
            && raw[..4].iter().all(u8::is_ascii_digit)
            && raw[10] == b'T'
            && (raw[at - 1] == b'Z' || raw[at - 3] == b':')
    };
    let end = memchr::memchr(b' ', &raw[..raw.len().min(40)]);
    end.filter(stamp).map_or(raw, |at| &raw[at + 1..])
}

/// As text, bounded.
pub(super) fn kept(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_KEPT)]);
    text.into_owned()
}

fn names_something(text: &[u8]) -> bool {
    text.first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
}

/// A dotted name, alone or before a colon: how Python begins the last line of a traceback.
fn exception_name(text: &[u8]) -> bool {
    let name = text.split(|b| *b == b':').next().unwrap_or_default();
    let name = name.trim_ascii_end();
    let alone = name.len() == text.trim_ascii_end().len();
    let dotted = !name.is_empty()
        && name.len() < 200
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'<' | b'>'));
    let last = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
    // "loss: 0.3" is none; an exception's name begins with a capital, or it is in a module.
    let capital = last.first().is_some_and(u8::is_ascii_uppercase);
    let known = exception_suffix(last);
    let module = name.contains(&b'.');
    dotted && (known || (capital && (alone || module)) || (alone && module))
}

fn exception_suffix(name: &[u8]) -> bool {
    [
        &b"Error"[..],
        b"Exception",
        b"Interrupt",
        b"Exit",
        b"Warning",
        b"Timeout",
        b"error",
        b"Failure",
        b"Killed",
        b"NotFound",
        b"Expired",
        b"Iteration",
    ]
    .iter()
    .any(|s| name.ends_with(s))
}

/// Without a traceback before it (which was cut off, or is in another log).
pub(super) fn looks_like_exception(text: &[u8]) -> bool {
    let name = text.split(|b| *b == b':').next().unwrap_or_default();
    let last = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
    let suffix = [&b"Error"[..], b"Exception", b"Interrupt", b"SystemExit"]
        .iter()
        .any(|s| last.ends_with(s));
    suffix
        && name.len() < 200
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
}

/// Whether a level says that something failed.
pub(super) fn bad(level: Option<Level>) -> bool {
    level.is_some_and(|l| l >= Level::Error)
}
