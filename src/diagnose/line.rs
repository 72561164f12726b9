//! One line of a log without what loggers, launchers and terminals put before it: colours, times,
//! levels, "[rank3]:", "[default0]:", srun's and mpirun's numbers, glog's file and line.

use std::{borrow::Cow, sync::LazyLock};

use regex::bytes::{Regex, RegexBuilder};

/// Most bytes of a line that are looked at.
pub(super) const MAX_LINE: usize = 16 * 1024;
/// Most prefixes that are taken off.
const MAX_PREFIXES: usize = 8;

/// How bad the program itself calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

/// Which process wrote a line, as far as its prefix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// Global rank.
    Rank(u32),
    /// Rank within the pod.
    Local(u32),
    /// A number of which nobody knows what it counts.
    Other(u32),
}

/// A line and what its prefixes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// What is left, with its indentation.
    pub text: Cow<'a, [u8]>,
    pub source: Option<Source>,
    pub level: Option<Level>,
    /// C++ code wrote it, by glog's prefix: Python's loggers have nothing to do with it.
    pub native: bool,
}

/// What no program dies of, though it may speak of things that programs die of: Python's and libraries'
/// warnings, NCCL's plain talk, points of a list of advice, and a table's row that says "none".
static ADVICE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let written = [
        r"^(?:\S+:\d+: )?\w*Warning: ",
        r"(?i)^[\w./-]{1,60}: warning: ",
        r"\bNCCL INFO ",
        r#"^[ \t]*(?:[>-]|\d+[.)])[ \t]+['"`]"#,
        r"^[ \t]*\*[ \t]",
        r"(?i)^[^,;]{1,100}(?:\.{2,}|[:=|])[ \t]*(?:0|none(?: found)?|no|ok|pass(?:ed)?|healthy|n/a|false)[ \t|]*$",
        r"Compile with .?TORCH_USE_CUDA_DSA",
    ];
    let all = written.join("|");
    RegexBuilder::new(&all).unicode(false).build().ok()
});

/// Whether a line without its prefixes is only [advice](ADVICE).
pub(super) fn advises(text: &[u8]) -> bool {
    ADVICE.as_ref().is_some_and(|r| r.is_match(text))
}

#[derive(Clone, Copy)]
enum Prefix {
    Rank,
    Local,
    Other,
    Nothing,
    Level,
    Loose,
}

/// Tried in this order until none matches. Group 1 is the number or the level.
static PREFIXES: LazyLock<Vec<(Prefix, Regex)>> = LazyLock::new(|| {
    const LEVEL: &str = r"(DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRITICAL|FATAL|Debug|Info|Warning|Error|Critical|Fatal)";
    let written = [
        // torch.distributed's excepthook and C++ log.
        (Prefix::Rank, r"^\[rank ?(\d{1,6})\]:? ?".to_owned()),
        // torchrun --tee, and its role names.
        (Prefix::Local, r"^\[(?:default|trainer|worker|Gang)(\d{1,6})\]: ?".to_owned()),
        // mpirun --tag-output
        (Prefix::Rank, r"^\[\d+,(\d{1,6})\]<std(?:err|out)>: ?".to_owned()),
        // srun --label
        (Prefix::Other, r"^ {0,4}(\d{1,5}): ".to_owned()),
        // Ray
        (Prefix::Nothing, r"^\([A-Za-z_][\w.:]* pid=\d+[^)]{0,80}\) ?".to_owned()),
        // 2026-03-01T10:00:05.123Z, [2026-03-01 10:00:05,123], 2026/03/01 10:00:05
        (
            Prefix::Nothing,
            r"^[\[(]?\d{4}[-/]\d\d[-/]\d\d[T _]\d\d:\d\d:\d\d(?:[.,:]\d{1,9})?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?[\])]?(?:[ \t]*[:;,|-])?[ \t]?".to_owned(),
        ),
        (Prefix::Nothing, r"^[\[(]?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?[\])]?(?:[ \t]*[:;,|-])?[ \t]".to_owned()),
        // syslog, dmesg
        (Prefix::Nothing, r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [\w.-]+ ".to_owned()),
        (Prefix::Nothing, r"^\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] ".to_owned()),
        (Prefix::Nothing, r"^\[ *\d+\.\d{3,6}\] ".to_owned()),
        // glog, absl, torch
        (
            Prefix::Level,
            r"^\[?([DIWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +(?:\d+ )?[\w./<>-]+:\d+\] ?".to_owned(),
        ),
        (Prefix::Level, r"^\[?([IWEF]) +(?:\d+ )?[\w./-]+:\d+\] ?".to_owned()),
        // transformers: [WARNING|trainer.py:12] 2026-… >> text
        (Prefix::Level, format!(r"^\[{LEVEL}\|[\w./-]+:\d+\] ?")),
        (Prefix::Nothing, r"^>> ".to_owned()),
        // What belongs to an ExceptionGroup.
        (Prefix::Nothing, r"^ +\| ?".to_owned()),
        // loguru: | ERROR    | module:function:12 - text
        (Prefix::Level, format!(r"^\|? ?{LEVEL} *\| [\w.<>]+:[\w<>]+:\d+ - ")),
        (Prefix::Level, format!(r"^{LEVEL}:[\w.]+: ?")),
        (Prefix::Level, format!(r"^[\w.\[\]-]{{1,60}} - {LEVEL} - ")),
        (Prefix::Level, format!(r"^[\[(<]{LEVEL}[\])>][ :-]*")),
        (Prefix::Level, format!(r"^{LEVEL}(?: +- | +\| |: | {{2,}}|\t| \[)")),
        (Prefix::Loose, r"^level=(debug|info|warn|warning|error|fatal) ".to_owned()),
        // [launch.py:321:sigkill_handler], [train.py:12]
        (Prefix::Nothing, r"^\[[\w./-]+:\d+(?::\w+)?\] ?".to_owned()),
        // [PG 0 (default_pg) Rank 3], kept by others: only the brackets that name a module go.
        (Prefix::Nothing, r"^\[(?:__main__|[a-z_]+(?:\.[a-z_]+)+)\][ :-]*".to_owned()),
    ];
    written
        .into_iter()
        .filter_map(|(kind, text)| {
            let built = RegexBuilder::new(&text).unicode(false).build();
            Some((kind, built.ok()?))
        })
        .collect()
});

impl<'a> Line<'a> {
    /// Takes the prefixes off.
    pub(super) fn of(raw: &'a [u8]) -> Self {
        let mut text = without_colours(raw);
        let mut source = None;
        let mut level = None;
        let mut native = false;
        let mut start = 0;
        for _ in 0..MAX_PREFIXES {
            let rest = &text[start..];
            // Indented text has no prefix, nor has what begins with a lower-case word.
            let may = rest
                .first()
                .is_some_and(|b| matches!(b, b'[' | b'(' | b'<' | b'>' | b'|' | b'0'..=b'9' | b'A'..=b'Z' | b' ' | b'l'))
                || rest.windows(3).take(64).any(|w| w == b" - ");
            if !may {
                break;
            }
            let Some((kind, captures)) = PREFIXES
                .iter()
                .find_map(|(kind, regex)| Some((*kind, regex.captures(rest)?)))
            else {
                break;
            };
            let group = captures.get(1).map_or(&b""[..], |g| g.as_bytes());
            let number = || std::str::from_utf8(group).ok()?.parse().ok();
            match kind {
                Prefix::Rank => source = number().map(Source::Rank).or(source),
                Prefix::Local => source = source.or_else(|| number().map(Source::Local)),
                Prefix::Other => source = source.or_else(|| number().map(Source::Other)),
                Prefix::Level | Prefix::Loose => level = level.max(level_of(group)),
                Prefix::Nothing => {}
            }
            let end = captures.get(0).map_or(0, |g| g.end());
            if end == 0 {
                break;
            }
            let taken = &rest[..end];
            native |= matches!(kind, Prefix::Level)
                && [&b".cpp:"[..], b".cc:", b".h:"]
                    .iter()
                    .any(|file| memchr::memmem::find(taken, file).is_some());
            start += end;
        }
        let text = match &mut text {
            Cow::Borrowed(bytes) => Cow::Borrowed(trimmed(&bytes[start..])),
            Cow::Owned(bytes) => Cow::Owned(trimmed(&bytes[start..]).to_vec()),
        };
        Self {
            text,
            source,
            level,
            native,
        }
    }

    pub(super) fn indented(&self) -> bool {
        self.text.first().is_some_and(|b| matches!(b, b' ' | b'\t'))
    }

    pub(super) fn blank(&self) -> bool {
        self.text.iter().all(u8::is_ascii_whitespace)
    }
}

fn level_of(word: &[u8]) -> Option<Level> {
    Some(match word.first()?.to_ascii_uppercase() {
        b'D' => Level::Debug,
        b'I' | b'N' => Level::Info,
        b'W' => Level::Warning,
        b'E' => Level::Error,
        _ => Level::Fatal,
    })
}

fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

/// Without ANSI escape sequences.
pub(super) fn without_colours(raw: &[u8]) -> Cow<'_, [u8]> {
    const ESC: u8 = 0x1b;
    if memchr::memchr(ESC, raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(ESC, rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.first() {
            // CSI: parameters, then one final byte.
            Some(b'[') => {
                let end = rest
                    .iter()
                    .skip(1)
                    .position(|b| (0x40..=0x7e).contains(b))
                    .map_or(rest.len(), |n| n + 2);
                rest = &rest[end..];
            }
            // OSC: to BEL or ESC \.
            Some(b']') => {
                let end = rest
                    .iter()
                    .position(|b| matches!(*b, 0x07 | ESC))
                    .map_or(rest.len(), |n| n + usize::from(rest[n] == 0x07));
                rest = &rest[end..];
            }
            Some(_) => rest = &rest[1..],
            None => {}
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(raw: &str) -> (String, Option<Source>, Option<Level>) {
        let line = Line::of(raw.as_bytes());
        (
            String::from_utf8_lossy(&line.text).into_owned(),
            line.source,
            line.level,
        )
    }

    #[test]
    fn prefixes_are_taken_off_and_what_they_say_is_kept() {
        use Level::{Error, Info, Warning};
        use Source::{Local, Other, Rank};
        for (raw, text, source, level) in [
            ("ValueError: x", "ValueError: x", None, None),
            (
                "[rank3]: ValueError: x",
                "ValueError: x",
                Some(Rank(3)),
                None,
            ),
            (
                "[rank3]:   File \"a.py\"",
                "  File \"a.py\"",
                Some(Rank(3)),
                None,
            ),
            ("[default1]:[rank5]: boom", "boom", Some(Rank(5)), None),
            ("[default1]:boom", "boom", Some(Local(1)), None),
            (" 3: boom", "boom", Some(Other(3)), None),
            ("[1,7]<stderr>: boom", "boom", Some(Rank(7)), None),
            (
                "[rank1]:[E1124 10:00:00.123456789 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog",
                "[Rank 1] Watchdog",
                Some(Rank(1)),
                Some(Error),
            ),
            (
                "E0325 20:57:27.620000 2606 site-packages/torch/distributed/elastic/multiprocessing/api.py:869] failed",
                "failed",
                None,
                Some(Error),
            ),
            (
                "2020-05-04 09:05:40.719332: E    1578 tensorflow/compiler/xla_util.cc:76] OP_REQUIRES",
                "OP_REQUIRES",
                None,
                Some(Error),
            ),
            ("ERROR:root:boom", "boom", None, Some(Error)),
            ("WARNING:torch.distributed.run:", "", None, Some(Warning)),
            (
                "2026-03-01 10:00:05,123 - my.module - ERROR - boom",
                "boom",
                None,
                Some(Error),
            ),
            (
                "[2026-03-01 10:00:05,123] [INFO] [launch.py:321:sigkill_handler] Killing subprocess 12",
                "Killing subprocess 12",
                None,
                Some(Info),
            ),
            (
                "2026-03-01 10:00:05.123 | WARNING  | train:main:12 - boom",
                "boom",
                None,
                Some(Warning),
            ),
            ("2026-03-01T10:00:05.123456789Z boom", "boom", None, None),
            (
                "[WARNING|trainer.py:12] 2026-03-01 10:00:05,123 >> boom",
                "boom",
                None,
                Some(Warning),
            ),
            ("\x1b[31mERROR\x1b[0m: boom", "boom", None, Some(Error)),
            (
                "(RayTrainWorker pid=12, ip=10.0.0.1) boom",
                "boom",
                None,
                None,
            ),
            (
                "  File \"a.py\", line 3",
                "  File \"a.py\", line 3",
                None,
                None,
            ),
            ("[0]:", "[0]:", None, None),
            ("loss: 0.3", "loss: 0.3", None, None),
        ] {
            assert_eq!(told(raw), (text.to_owned(), source, level), "{raw}");
        }
    }
}
