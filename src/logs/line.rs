//! One log line, whose it is, and the uniform text format for people:
//!
//! ```text
//! 2026-03-01T09:15:42.123456789Z bert/1/0 - epoch 3 loss 0.41
//! time in UTC, nanoseconds       │        │ └ message, escaped where needed
//!          job/attempt/rank ─────┘        └ output
//! ```
//!
//! - A container other than `trainer` is named too: `bert/1/0/istio-proxy`.
//! - Output is `stdout`, `stderr`, or `-` where the source does not say. The kubelet's log endpoint
//!   does not: it merges both (its `stream=` parameter is behind a feature gate, and reading the two
//!   apart would lose their order). So `-` is what the API source writes, and nobody has to guess.
//! - A `+` after the output means: the line was too long for one record and goes on in the next one
//!   of this container.
//! - Bytes that would break "one line is one line", steer a terminal, or are no UTF-8 are written
//!   as `\xhh`. A backslash stands for itself, except where it begins what would read as such an
//!   escape: there it is `\x5c`. So unescaping gives back exactly the container's bytes.
//!
//! Not here: where lines come from and where they go.

#[cfg(test)]
mod tests;

use std::{fmt, io::Write, sync::Arc};

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use thiserror::Error;

use crate::api::names;

/// Whose lines they are: one container of one rank of one attempt of one job.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct StreamId {
    /// Namespace of the job.
    pub namespace: String,
    /// Name of the job.
    pub job: String,
    /// Uid of the job, which outlives a name that is used again.
    pub uid: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Rank in the gang, from 0.
    pub rank: u32,
    /// Name of the container.
    pub container: String,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}/{}",
            self.namespace, self.job, self.attempt, self.rank, self.container
        )
    }
}

/// Which of the container's outputs a line came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Output {
    /// The source does not say.
    #[default]
    Unknown,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    /// All of them; a place in it is how the write-ahead log spells one.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Stdout, Self::Stderr];

    /// How it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "-",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What is to be known of a line besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// No newline followed: it goes on in the next record, or was the last that came.
    pub partial: bool,
    /// Something secret was taken out of it.
    pub redacted: bool,
    /// It is stamped earlier than the line before it: the node's clock went back, or the outputs raced.
    pub clock_back: bool,
}

impl Flags {
    /// As one byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.partial) | u8::from(self.redacted) << 1 | u8::from(self.clock_back) << 2
    }

    /// From that byte.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self {
            partial: bits & 1 != 0,
            redacted: bits & 2 != 0,
            clock_back: bits & 4 != 0,
        }
    }
}

/// Who wrote the lines of a stream: where its container ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// Name of the cluster, as the collector was told it.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// The run of the container, by the runtime's id.
    pub container_id: String,
    /// The image that ran.
    pub image: String,
}

/// Nanoseconds since 1970, as the store keeps times; those beyond the years 1677–2262 are cut.
#[must_use]
pub fn nanos(time: Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The time of [`nanos`].
#[must_use]
pub fn from_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// One line of a container, or one piece of a line that is too long for one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number within the stream, from 1, without holes.
    pub seq: u64,
    /// When the container runtime read it. Not always in order: a node's clock may be set back.
    pub time: Timestamp,
    /// When the collector received it.
    pub observed: Timestamp,
    /// Where it came from.
    pub output: Output,
    /// What else is to be known of it.
    pub flags: Flags,
    /// The container's bytes, without the newline.
    pub message: Vec<u8>,
}

/// The first fields of a line in the uniform format, as the reader needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Name of the job.
    pub job: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// Name of the container.
    pub container: &'a str,
    /// The line; its seq, which the text does not hold, is 0.
    pub line: Line,
}

/// Why some text is no line in the uniform format.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "not a line of the form `TIME JOB/ATTEMPT/RANK OUTPUT MESSAGE`: the {0} is missing or wrong"
)]
pub struct ParseError(&'static str);

/// Writes lines of one stream in the uniform format.
#[derive(Clone, Debug)]
pub struct Formatter {
    /// ` job/attempt/rank `, made once.
    identity: Arc<str>,
}

impl Formatter {
    /// For the lines of `id`.
    #[must_use]
    pub fn new(id: &StreamId) -> Self {
        let mut identity = format!(" {}/{}/{}", id.job, id.attempt, id.rank);
        if id.container != names::CONTAINER {
            identity.push('/');
            identity.push_str(&id.container);
        }
        identity.push(' ');
        Self {
            identity: identity.into(),
        }
    }

    /// Appends `line` and a newline to `to`.
    pub fn write(&self, line: &Line, to: &mut Vec<u8>) {
        write_time(line.time, to);
        to.extend_from_slice(self.identity.as_bytes());
        to.extend_from_slice(line.output.as_str().as_bytes());
        if line.flags.partial {
            to.push(b'+');
        }
        to.push(b' ');
        escape(&line.message, to);
        to.push(b'\n');
    }
}

/// Parses one line of the uniform format, with or without its newline.
///
/// # Errors
/// Where it is none.
pub fn parse(text: &[u8]) -> Result<Parsed<'_>, ParseError> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut fields = text.splitn(4, |b| *b == b' ');
    let mut field = |name| {
        let bytes = fields.next().ok_or(ParseError(name))?;
        Ok::<_, ParseError>((
            bytes,
            std::str::from_utf8(bytes).map_err(|_| ParseError(name)),
        ))
    };
    let time = field("time")?.1?.parse().map_err(|_| ParseError("time"))?;
    let identity = field("job/attempt/rank")?.1?;
    let output = field("output")?.1?;
    let message = unescape(field("message")?.0);

    let wrong = ParseError("job/attempt/rank");
    let mut parts = identity.splitn(4, '/');
    let (Some(job), Some(attempt), Some(rank)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong);
    };
    let (Ok(attempt), Ok(rank)) = (attempt.parse(), rank.parse()) else {
        return Err(wrong);
    };
    let (name, partial) = match output.strip_suffix('+') {
        Some(name) => (name, true),
        None => (output, false),
    };
    let output = Output::ALL
        .into_iter()
        .find(|o| o.as_str() == name)
        .ok_or(ParseError("output"))?;
    Ok(Parsed {
        job,
        attempt,
        rank,
        container: parts.next().unwrap_or(names::CONTAINER),
        line: Line {
            seq: 0,
            time,
            observed: time,
            output,
            flags: Flags {
                partial,
                ..Flags::default()
            },
            message,
        },
    })
}

/// The time of a line in the uniform format, without parsing the rest.
#[must_use]
pub fn time_of(text: &[u8]) -> Option<Timestamp> {
    let end = text.iter().position(|b| *b == b' ')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// Always UTC and nine digits, so that the lines of all nodes compare as text.
fn write_time(time: Timestamp, to: &mut Vec<u8>) {
    let t = TimeZone::UTC.to_datetime(time);
    // Writing to a Vec can't fail.
    let _ = write!(
        to,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond()
    );
}

/// Whether a character is kept out of the text: controls would break the line or steer the
/// terminal of whoever reads it, and U+2028/2029 end a line for some programs.
fn unprintable(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}')
}

fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether `bytes` begins as an escape does.
fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'\\', b'x', a, b, ..] if is_hex(*a) && is_hex(*b))
}

/// Appends `message` to `to`, escaped as the module says.
pub fn escape(message: &[u8], to: &mut Vec<u8>) {
    let hex = |bytes: &[u8], to: &mut Vec<u8>| {
        for b in bytes {
            let _ = write!(to, "\\x{b:02x}");
        }
    };
    // Nearly every line is plain ASCII without a backslash.
    if message
        .iter()
        .all(|b| matches!(b, b' '..=b'[' | b']'..=b'~' | b'\t'))
    {
        to.extend_from_slice(message);
        return;
    }
    for chunk in message.utf8_chunks() {
        let valid = chunk.valid();
        let mut plain = 0;
        for (at, c) in valid.char_indices() {
            // What follows an invalid byte can't finish an escape, so the chunk is context enough.
            if unprintable(c) || (c == '\\' && is_escape(&valid.as_bytes()[at..])) {
                let end = at + c.len_utf8();
                to.extend_from_slice(&valid.as_bytes()[plain..at]);
                hex(&valid.as_bytes()[at..end], to);
                plain = end;
            }
        }
        to.extend_from_slice(&valid.as_bytes()[plain..]);
        hex(chunk.invalid(), to);
    }
}

/// The bytes that [`escape`] made `text` from.
#[must_use]
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let digit = |b: u8| if b <= b'9' { b - b'0' } else { b - b'a' + 10 };
    let mut message = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        message.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if is_escape(rest) {
            message.push(digit(rest[2]) << 4 | digit(rest[3]));
            rest = &rest[4..];
        } else {
            message.push(b'\\');
            rest = &rest[1..];
        }
    }
    message.extend_from_slice(rest);
    message
}
