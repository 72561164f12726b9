//! Lines that say something of the lines around them: a new run, a retry, noise to come.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// What a line says of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    /// What came before belongs to another run.
    Restart,
    /// The next traceback is one of Python's own complaints, which end nothing.
    Noise,
    /// The next traceback is that of a thread, which ends alone.
    Thread,
    /// What has just failed is tried again, or done without.
    Retry,
}

static RESTART: LazyLock<Option<Regex>> = LazyLock::new(|| {
    any(&[
        // torchrun
        r"will restart worker group",
        r"(?i)worker group .{0,40}restart(?:ing|ed)",
        r"restart_count=[1-9]",
        // Lightning, Accelerate, home-made loops.
        r"(?i)\b(?:re-?start(?:ing|ed)?|re-?launch(?:ing|ed)?|resum(?:ing|ed)|relaunching) (?:the )?(?:training|trainer|job|run|attempt|from|process|worker)",
        r"(?i)^[=#*> -]{0,20}(?:start(?:ing)? )?(?:attempt|run|try|restart) *#?\d+(?: ?(?:/|of) ?\d+)?[=#*<: -]{0,20}$",
    ])
});

static RETRY: LazyLock<Option<Regex>> = LazyLock::new(|| {
    any(&[
        r"(?i)\b(?:retrying|re-trying|will retry|to retry|retry (?:in|after|attempt|\d)|retries left|trying again|try again in|re-?connecting|reconnected|backing off)\b",
        r"(?i)\b(?:attempt|try|retry) *#?\d+ ?(?:/|of) ?\d+\b",
        r"(?i)\b(?:falling back|fall back to|fallback to|skipping|skipped|ignoring|ignored|recovered|continuing|will continue|using default|disabling|proceeding without)\b",
        r"Retry\(total=[1-9]",
    ])
});

static GAVE_UP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    any(&[
        r"(?i)\b(?:giving up|gave up|exhausted|no more retries|max(?:imum)?[ _-](?:number of )?(?:retries|attempts)|aborting|cannot continue|not retrying|after \d+ (?:attempts|retries|tries))\b",
    ])
});

static NOISE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    any(&[
        r"^Exception ignored (?:in|on|while)",
        r"^--- Logging error ---",
        r"^Error in (?:atexit|sys\.excepthook|sys\.exitfunc)",
    ])
});

static THREAD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    any(&[
        // Java quotes the thread's name, and ends.
        r#"^Exception in thread [^"]"#,
        r"^Exception in (?:callback|Tornado)",
    ])
});

fn any(patterns: &[&str]) -> Option<Regex> {
    let all = patterns.join("|");
    RegexBuilder::new(&all).unicode(false).build().ok()
}

fn says(what: &LazyLock<Option<Regex>>, text: &[u8]) -> bool {
    what.as_ref().is_some_and(|r| r.is_match(text))
}

impl Announcement {
    /// Of a line without its prefixes; None where it says nothing of others.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        if says(&RESTART, text) {
            Some(Self::Restart)
        } else if says(&NOISE, text) {
            Some(Self::Noise)
        } else if says(&THREAD, text) {
            Some(Self::Thread)
        } else if says(&RETRY, text) && !says(&GAVE_UP, text) && !text.starts_with(b"Traceback") {
            Some(Self::Retry)
        } else {
            None
        }
    }
}
