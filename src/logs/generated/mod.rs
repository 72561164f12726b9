//! PURE: lines that prove themselves. `loggen` writes them, and a checker that is given only what is
//! stored says which are missing, repeated, out of order or damaged.
//!
//! ```text
//! ty 5f3a9c21 o 42 3 9a8b7c6d 01234567 plain step 17 loss 0.0312
//!    seed     │ │  │ │        │        └ payload: its kind, then anything but a newline
//!    output ──┘ │  │ │        └ checksum of the rest of the line
//!    number ────┘  │ └ checksum of the lines without a number before it
//!                  └ how many of those there are since the number before
//! ```
//!
//! - Standard output and standard error are numbered apart: a runtime reads them through two pipes, so
//!   the order between them is nobody's.
//! - Empty lines, one-byte lines and lines that are all the same have no room for a number, or would
//!   not be the same with one. The next numbered line of their output counts them; whose they are shows
//!   in their text ([`plain_output`]).
//! - The last line of each output is of kind `end`, and that of standard output has no newline.
//! - No line ends with `\r`: containerd takes `\r\n` for an end of line, so that byte is lost before
//!   anybody could collect it.
//!
//! Not made here: clock steps and identical timestamps. The node stamps lines, and a container can't
//! make it stamp wrongly; the simulation does ([`super::sim`], in tests).

mod check;
mod make;
#[cfg(test)]
mod tests;

use std::io::Write;

pub use self::{
    check::{Checked, Checker, Problem},
    make::{Generator, Kind, LONG, Piece},
};
use super::line::Output;

const MAGIC: &[u8] = b"ty ";
/// What the payload of an output's last line begins with.
const END: &[u8] = b"end";
const SAME: [&[u8]; 2] = [
    b"standard output says this again and again",
    b"standard error says this again and again",
];

/// A line with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered<'a> {
    seed: u32,
    output: Output,
    number: u64,
    /// Lines without a number before it.
    plain: u64,
    /// Their checksum.
    sum: u32,
    payload: &'a [u8],
}

impl<'a> Numbered<'a> {
    fn write(&self, to: &mut Vec<u8>) {
        let begin = to.len();
        self.write_head(to);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&to[begin..]);
        crc.update(self.payload);
        // Writing to a Vec can't fail.
        let _ = write!(to, "{:08x} ", crc.finalize());
        to.extend_from_slice(self.payload);
    }

    fn write_head(&self, to: &mut Vec<u8>) {
        let output = if self.output == Output::Stderr {
            'e'
        } else {
            'o'
        };
        let (seed, number, plain, sum) = (self.seed, self.number, self.plain, self.sum);
        to.extend_from_slice(MAGIC);
        let _ = write!(to, "{seed:08x} {output} {number} {plain} {sum:08x} ");
    }

    /// None where it is not exactly what [`Numbered::write`] writes.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mut fields = text.strip_prefix(MAGIC)?.splitn(7, |b| *b == b' ');
        let mut field = || std::str::from_utf8(fields.next()?).ok();
        let hex = |text| u32::from_str_radix(text, 16).ok();
        let seed = hex(field()?)?;
        let output = match field()? {
            "o" => Output::Stdout,
            "e" => Output::Stderr,
            _ => return None,
        };
        let (number, plain) = (field()?.parse().ok()?, field()?.parse().ok()?);
        let sum = hex(field()?)?;
        let _checksum = field()?;
        let payload = fields.next()?;
        let line = Self {
            seed,
            output,
            number,
            plain,
            sum,
            payload,
        };
        // Numbers can be spelt in several ways, of which one is right.
        let mut same = Vec::with_capacity(text.len());
        line.write(&mut same);
        (same == text).then_some(line)
    }
}

/// The output that a line without a number came from; None where no such line was written.
fn plain_output(text: &[u8]) -> Option<Output> {
    match text {
        [] | [b'a'..=b'z'] => Some(Output::Stdout),
        [b'A'..=b'Z'] => Some(Output::Stderr),
        _ if text == SAME[0] => Some(Output::Stdout),
        _ if text == SAME[1] => Some(Output::Stderr),
        _ => None,
    }
}

/// Where in an array an output has its place.
fn index(output: Output) -> usize {
    usize::from(output == Output::Stderr)
}

/// The lines of one output since its last number.
#[derive(Clone, Debug, Default)]
struct Plain {
    lines: u64,
    sum: crc32fast::Hasher,
}

impl Plain {
    fn add(&mut self, text: &[u8]) {
        self.lines += 1;
        self.sum.update(text);
        self.sum.update(b"\n");
    }

    /// How many and their checksum; and begins anew.
    fn take(&mut self) -> (u64, u32) {
        let plain = std::mem::take(self);
        (plain.lines, plain.sum.finalize())
    }
}
