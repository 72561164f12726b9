//! PURE: the bytes of a reading → lines.

use k8s_openapi::jiff::Timestamp;

use crate::logs::line::{Flags, Line, Output};

/// The longest piece of a line that is one record; a longer line is split, always in the same places.
pub const MAX_PIECE: usize = 256 * 1024;

/// Cuts a reading into lines, and long lines into pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// What has come of a line whose end has not.
    rest: Vec<u8>,
    /// The stamp of the line of which `rest` is a further piece.
    further: Option<Timestamp>,
}

pub(super) struct Piece {
    /// How many bytes were used.
    pub(super) used: usize,
    /// Whether it is the first piece of its line.
    pub(super) first: bool,
    /// What became whole by them: a line, or words that are none.
    pub(super) line: Option<Result<Line, Vec<u8>>>,
}

impl Pieces {
    pub(super) fn take(&mut self, data: &[u8]) -> Piece {
        let data = &data[..data.len().min(MAX_PIECE - self.rest.len())];
        let newline = data.iter().position(|b| *b == b'\n');
        let used = newline.map_or(data.len(), |at| at + 1);
        self.rest
            .extend_from_slice(&data[..newline.unwrap_or(used)]);
        let first = self.further.is_none();
        let whole = newline.is_some() || self.rest.len() == MAX_PIECE;
        Piece {
            used,
            first,
            line: whole.then(|| self.cut(newline.is_some())),
        }
    }

    /// What is left at the end.
    pub(super) fn rest(&mut self) -> Option<(Result<Line, Vec<u8>>, bool)> {
        let first = self.further.is_none();
        (!self.rest.is_empty()).then(|| (self.cut(false), first))
    }

    fn cut(&mut self, end: bool) -> Result<Line, Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        let (time, message) = match self.further {
            Some(time) => (Some(time), rest.as_slice()),
            None => split_time(&rest),
        };
        self.further = time.filter(|_| !end);
        let Some(time) = time else {
            return Err(rest);
        };
        Ok(Line {
            seq: 0,
            time,
            observed: time,
            output: Output::Unknown,
            flags: Flags {
                partial: !end,
                ..Flags::default()
            },
            message: message.to_vec(),
        })
    }
}

/// What the kubelet writes behind lines when it can't read on (cri-client's logs.go, and
/// kuberuntime_container.go); what it writes instead of any line has no time and is known by that.
const WORDS: [&[u8]; 4] = [
    b"unable to retrieve container logs for ",
    b"failed to read log file \"/",
    b"failed to create fsnotify watcher: ",
    b"failed to watch directory \"/",
];

/// Whether the kubelet's words for "that is not all of it" are behind the beginning of a line: it puts
/// no newline before them, and may say them twice in the same place.
pub(super) fn is_kubelets(rest: &Result<Line, Vec<u8>>) -> bool {
    let says = |line: &Line, words: &[u8]| memchr::memmem::find(&line.message, words).is_some();
    rest.as_ref()
        .is_ok_and(|line| WORDS.iter().any(|words| says(line, words)))
}

/// The kubelet's `TIMESTAMP MESSAGE`.
pub(super) fn split_time(text: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    match std::str::from_utf8(&text[..end])
        .ok()
        .and_then(|t| t.parse().ok())
    {
        Some(time) => (Some(time), text.get(end + 1..).unwrap_or_default()),
        None => (None, text),
    }
}
