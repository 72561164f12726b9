//! A message that goes on in the next line: "RuntimeError: Error(s) in loading state_dict for Net:" says
//! less than the line after it. Which line belongs to which exception; what the whole means is
//! [`super::findings`]' business.

use super::{
    line::{Line, Source},
    log::looks_like_exception,
};

/// Lines of other processes that may come between an exception and the rest of its message.
const MAX_GAP: u32 = 16;
/// The rest of a message has so many letters at least.
const MIN_LETTERS: usize = 8;

/// An exception whose own line announces another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    source: Option<Source>,
    /// Number of its line.
    pub number: u64,
    /// Lines since.
    lines: u32,
}

/// What the next line is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The rest of its message.
    Rest,
    /// Another process's: the rest may still come.
    Between,
    /// Something else: the message had no more to say.
    Other,
}

impl Unfinished {
    /// The exception in line `number`; None where its message is whole.
    pub(super) fn of(line: &Line, number: u64) -> Option<Self> {
        let text = line.text.trim_ascii_end();
        // Keras: "Exception encountered when calling Dense.call()."
        let announces = text.ends_with(b":") || text.ends_with(b"().");
        announces.then_some(Self {
            source: line.source,
            number,
            lines: 0,
        })
    }

    pub(super) fn next(&mut self, line: &Line) -> Next {
        self.lines += 1;
        if line.source != self.source {
            return if self.lines > MAX_GAP {
                Next::Other
            } else {
                Next::Between
            };
        }
        let text = line.text.trim_ascii();
        let letters = text.iter().filter(|b| b.is_ascii_alphabetic()).count();
        if line.level.is_some() || looks_like_exception(text) || letters < MIN_LETTERS {
            Next::Other
        } else {
            Next::Rest
        }
    }
}
