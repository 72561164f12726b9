//! Makes the lines: the same ones for the same seed.

use std::{collections::VecDeque, fmt::Write as _};

use clap::ValueEnum;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use super::{END, Numbered, Plain, SAME, index};
use crate::logs::line::Output;

/// Longer lines reach the node's log in pieces.
pub const LONG: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// What lines are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// What training programs print.
    Plain,
    /// Hundreds of them in one write.
    Burst,
    /// One byte each.
    Byte,
    /// Nothing at all.
    Empty,
    /// A bar that is drawn again and again in one line, with `\r`.
    Progress,
    /// Colours.
    Ansi,
    /// Bytes that are no UTF-8.
    Binary,
    /// Longer than the 16 KiB at which a container runtime splits lines.
    Long,
    /// One MiB.
    Huge,
    /// Thousands that are all the same.
    Same,
}

/// How often each kind comes.
const WEIGHTS: [(Kind, u32); 10] = [
    (Kind::Plain, 600),
    (Kind::Burst, 60),
    (Kind::Byte, 30),
    (Kind::Empty, 20),
    (Kind::Progress, 30),
    (Kind::Ansi, 60),
    (Kind::Binary, 30),
    (Kind::Long, 5),
    (Kind::Huge, 1),
    (Kind::Same, 3),
];

/// Bytes for one output, to be written at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which.
    pub output: Output,
    /// Lines, each with its newline.
    pub bytes: Vec<u8>,
    /// It has a line longer than [`LONG`], or one without a newline. The pieces of such a line lie one
    /// behind the other in the node's log only if the other output is quiet meanwhile: with something
    /// between them, the kubelet shows that in the middle of the line, and nobody can tell any more what
    /// was written.
    pub alone: bool,
}

/// Makes lines.
#[derive(Debug)]
pub struct Generator {
    seed: u32,
    random: SmallRng,
    kinds: Vec<(Kind, u32)>,
    /// One of each to begin with, so that a short run has all of them.
    first: VecDeque<Kind>,
    numbers: [u64; 2],
    plain: [Plain; 2],
    steps: u64,
}

impl Generator {
    /// Lines of these kinds; of all, where none is named.
    #[must_use]
    pub fn new(seed: u32, kinds: &[Kind]) -> Self {
        let wanted = |kind: &Kind| kinds.is_empty() || kinds.contains(kind);
        let kinds: Vec<_> = WEIGHTS.into_iter().filter(|(k, _)| wanted(k)).collect();
        Self {
            seed,
            random: SmallRng::seed_from_u64(seed.into()),
            first: kinds.iter().map(|(kind, _)| *kind).collect(),
            kinds,
            numbers: [0; 2],
            plain: Default::default(),
            steps: 0,
        }
    }

    fn kind(&mut self) -> Kind {
        if let Some(kind) = self.first.pop_front() {
            return kind;
        }
        let total: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.random_range(0..total);
        for (kind, weight) in &self.kinds {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Plain
    }

    /// The next lines.
    pub fn piece(&mut self) -> Piece {
        let output = if self.random.random_ratio(1, 4) {
            Output::Stderr
        } else {
            Output::Stdout
        };
        let kind = self.kind();
        let mut bytes = Vec::new();
        match kind {
            Kind::Plain | Kind::Progress | Kind::Ansi | Kind::Binary => {
                self.numbered(output, kind, &mut bytes);
            }
            Kind::Burst => {
                for _ in 0..self.random.random_range(50..400) {
                    self.numbered(output, kind, &mut bytes);
                }
            }
            Kind::Byte => {
                let first = if output == Output::Stderr { b'A' } else { b'a' };
                for letter in 0..26 {
                    self.unnumbered(output, &[first + letter], &mut bytes);
                }
            }
            // Of what is empty nobody can tell where it came from.
            Kind::Empty => {
                for _ in 0..self.random.random_range(1..10) {
                    self.unnumbered(Output::Stdout, b"", &mut bytes);
                }
                return Piece {
                    output: Output::Stdout,
                    bytes,
                    alone: false,
                };
            }
            Kind::Same => {
                for _ in 0..self.random.random_range(2000..5000) {
                    self.unnumbered(output, SAME[index(output)], &mut bytes);
                }
            }
            Kind::Long | Kind::Huge => self.numbered(output, kind, &mut bytes),
        }
        Piece {
            output,
            bytes,
            alone: matches!(kind, Kind::Long | Kind::Huge),
        }
    }

    /// The last lines of both outputs.
    pub fn end(&mut self) -> [Piece; 2] {
        [Output::Stderr, Output::Stdout].map(|output| {
            let mut bytes = Vec::new();
            self.number(output, END, &mut bytes);
            if output == Output::Stderr {
                bytes.push(b'\n');
            }
            Piece {
                output,
                bytes,
                alone: output == Output::Stdout,
            }
        })
    }

    fn unnumbered(&mut self, output: Output, text: &[u8], to: &mut Vec<u8>) {
        self.plain[index(output)].add(text);
        to.extend_from_slice(text);
        to.push(b'\n');
    }

    fn numbered(&mut self, output: Output, kind: Kind, to: &mut Vec<u8>) {
        let payload = self.payload(kind);
        self.number(output, &payload, to);
        to.push(b'\n');
    }

    fn number(&mut self, output: Output, payload: &[u8], to: &mut Vec<u8>) {
        let at = index(output);
        self.numbers[at] += 1;
        let (plain, sum) = self.plain[at].take();
        let line = Numbered {
            seed: self.seed,
            output,
            number: self.numbers[at],
            plain,
            sum,
            payload,
        };
        line.write(to);
    }

    fn payload(&mut self, kind: Kind) -> Vec<u8> {
        self.steps += 1;
        let (step, random) = (self.steps, &mut self.random);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = match kind {
            Kind::Progress => (0..=10).try_for_each(|tenth| {
                let (bar, percent) = ("█".repeat(tenth), tenth * 10);
                write!(text, "\rprogress {percent:3}% |{bar:10}| {tenth}0/100")
            }),
            Kind::Ansi => {
                let colour = random.random_range(31..37);
                write!(
                    text,
                    "ansi \x1b[1;{colour}mWARNING\x1b[0m step {step} \x1b[2K\x1b[Gslow"
                )
            }
            Kind::Binary => return binary(random),
            Kind::Long => return filled(random, LONG * 5 / 4..LONG * 12),
            Kind::Huge => return filled(random, MIB..MIB + 1),
            _ => {
                let loss = random.random_range(0.01..9.9);
                let tokens = random.random_range(80_000..120_000);
                let lr = 3e-4 / f64::from(random.random_range(1..9_u32));
                write!(
                    text,
                    "plain step {step} loss {loss:.4} lr {lr:.2e} tokens/s {tokens} grad_norm {:.3}",
                    loss / 3.0
                )
            }
        };
        text.into_bytes()
    }
}

/// Any bytes but a newline, with no `\r` at the end, and no UTF-8.
fn binary(random: &mut SmallRng) -> Vec<u8> {
    let mut payload = vec![0; random.random_range(1..300)];
    random.fill_bytes(&mut payload);
    for byte in &mut payload {
        if *byte == b'\n' {
            *byte = 0;
        }
    }
    payload.push(0xff);
    payload
}

fn filled(random: &mut SmallRng, bytes: std::ops::Range<usize>) -> Vec<u8> {
    let length = random.random_range(bytes);
    (0..length)
        .map(|_| random.random_range(b' '..=b'~'))
        .collect()
}
