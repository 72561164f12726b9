//! Checks the lines, in the order in which they are stored, with nothing but themselves to go by.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{END, Numbered, Plain, index, plain_output};
use crate::logs::{
    line::{Line, Output},
    record::Gap,
};

/// Problems that are kept of one stream; more say nothing new.
const PROBLEMS: usize = 100;
/// What gaps may explain is kept until the end, up to so many.
const SUSPECTS: usize = 64 * 1024;
/// A line that is longer than this was never written.
const LONGEST: usize = 4 * 1024 * 1024;

/// What is wrong with a stored line, or between two of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    /// Numbered lines are missing: output, the first and the last one.
    Missing(&'static str, u64, u64),
    /// Lines without a number: output, the number they stand before, how many were written, how many
    /// there are.
    Unnumbered(&'static str, u64, u64, u64),
    /// As many as were written, but not the same ones, or in another order: output, number behind them.
    Changed(&'static str, u64),
    /// This number comes again.
    Repeated(&'static str, u64),
    /// This number comes after a later one.
    Late(&'static str, u64),
    /// The stored line with this number in the store is none that was written.
    Damaged(u64),
    /// It is another generator's.
    Foreign(u64),
    /// The last line of this output is missing.
    NoEnd(&'static str),
    /// There are more problems than can be told apart.
    TooMany,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(output, first, last) => {
                write!(f, "MISSING {output} lines {first}-{last} as written")
            }
            Self::Unnumbered(output, number, written, stored) => write!(
                f,
                "{written} lines without a number were written before {output} line {number}, {stored} are stored"
            ),
            Self::Changed(output, number) => write!(
                f,
                "CHANGED lines without a number before {output} line {number} as written"
            ),
            Self::Repeated(output, number) => {
                write!(f, "REPEATED {output} line {number} as written")
            }
            Self::Late(output, number) => {
                write!(f, "OUT OF ORDER {output} line {number} as written")
            }
            Self::Damaged(seq) => write!(f, "DAMAGED line {seq}: it was never written so"),
            Self::Foreign(seq) => write!(f, "line {seq} is another container's"),
            Self::NoEnd(output) => write!(f, "the last line of {output} is MISSING"),
            Self::TooMany => write!(f, "and so many more that they are not counted"),
        }
    }
}

/// The result for one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Numbered lines that are stored.
    pub numbered: u64,
    /// Other lines that are stored.
    pub unnumbered: u64,
    /// Numbered lines that are missing, and lie in a recorded gap.
    pub in_gaps: u64,
    /// What no gap explains, the first ones.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

/// A problem that a gap may explain: one that lies after one of the stored lines `after..before`.
#[derive(Clone, Debug)]
struct Suspect {
    problem: Problem,
    after: u64,
    before: u64,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    number: u64,
    /// Where the line of that number is stored.
    seq: u64,
    plain: Plain,
    /// Missing so far: first → last.
    missing: BTreeMap<u64, u64>,
    ended: bool,
}

/// Checks one stream.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    seed: Option<u32>,
    outputs: [Progress; 2],
    /// Pieces of a line whose last one has not come, and where the first one is stored.
    pieces: Option<(u64, Vec<u8>)>,
    /// The last line that was right.
    good: u64,
    suspects: Vec<Suspect>,
    /// From here on, it is not known yet before which good line the suspects are.
    open: usize,
    checked: Checked,
}

impl Checker {
    /// Takes in the next stored line, or piece of one.
    pub fn line(&mut self, line: &Line) {
        let (first, mut text) = self.pieces.take().unwrap_or((line.seq, Vec::new()));
        text.extend_from_slice(&line.message);
        if line.flags.partial && text.len() <= LONGEST {
            self.pieces = Some((first, text));
        } else {
            self.whole(first, line.seq, &text);
        }
    }

    /// A whole line, in the store's lines `first..=last`.
    fn whole(&mut self, first: u64, last: u64, text: &[u8]) {
        if let Some(output) = plain_output(text) {
            self.outputs[index(output)].plain.add(text);
            self.checked.unnumbered += 1;
            return;
        }
        let Some(line) = Numbered::parse(text) else {
            self.suspect(Problem::Damaged(first), self.good, u64::MAX);
            return;
        };
        if *self.seed.get_or_insert(line.seed) != line.seed {
            self.suspect(Problem::Foreign(first), self.good, u64::MAX);
            return;
        }
        for suspect in &mut self.suspects[self.open..] {
            suspect.before = suspect.before.min(first);
        }
        self.open = self.suspects.len();
        self.good = last;
        self.checked.numbered += 1;
        self.numbered(first, last, &line);
    }

    fn numbered(&mut self, first: u64, last: u64, line: &Numbered<'_>) {
        let output = line.output.as_str();
        let progress = &mut self.outputs[index(line.output)];
        let (plain, sum) = progress.plain.take();
        let (number, next, after) = (line.number, progress.number + 1, progress.seq);
        if number < next {
            let late = fill(&mut progress.missing, number);
            let problem = if late {
                Problem::Late(output, number)
            } else {
                Problem::Repeated(output, number)
            };
            // No gap explains that: nothing lies between a line and the same line.
            self.suspect(problem, u64::MAX, 0);
            return;
        }
        progress.number = number;
        progress.seq = last;
        progress.ended = line.payload == END;
        if number > next {
            progress.missing.insert(next, number - 1);
            self.suspect(Problem::Missing(output, next, number - 1), after, first);
        } else if plain < line.plain {
            let problem = Problem::Unnumbered(output, number, line.plain, plain);
            self.suspect(problem, after, first);
        } else if plain > line.plain {
            let problem = Problem::Unnumbered(output, number, line.plain, plain);
            self.suspect(problem, u64::MAX, 0);
        } else if sum != line.sum {
            self.suspect(Problem::Changed(output, number), u64::MAX, 0);
        }
    }

    fn suspect(&mut self, mut problem: Problem, mut after: u64, before: u64) {
        if self.suspects.len() > SUSPECTS {
            return;
        }
        if self.suspects.len() == SUSPECTS {
            (problem, after) = (Problem::TooMany, u64::MAX);
        }
        self.suspects.push(Suspect {
            problem,
            after,
            before,
        });
    }

    /// The result, with the gaps that the store admits.
    #[must_use]
    pub fn finish(mut self, gaps: &[Gap]) -> Checked {
        if let Some((first, text)) = self.pieces.take() {
            self.whole(first, u64::MAX, &text);
        }
        for output in [Output::Stdout, Output::Stderr] {
            let progress = &self.outputs[index(output)];
            let (number, after, further) = (progress.number, progress.seq, progress.plain.lines);
            if !progress.ended {
                self.suspect(Problem::NoEnd(output.as_str()), after, u64::MAX);
            } else if further > 0 {
                let problem = Problem::Unnumbered(output.as_str(), number + 1, 0, further);
                self.suspect(problem, u64::MAX, 0);
            }
        }
        let explained = |suspect: &Suspect| {
            (gaps.iter())
                .any(|gap| gap.not_before < suspect.before && gap.after_seq >= suspect.after)
        };
        for suspect in self.suspects {
            let missing = match suspect.problem {
                Problem::Missing(output, first, last) => {
                    let output = usize::from(output == Output::Stderr.as_str());
                    left(&self.outputs[output].missing, first, last)
                }
                _ => 0,
            };
            if explained(&suspect) {
                self.checked.in_gaps += missing;
            } else if missing > 0 || !matches!(suspect.problem, Problem::Missing(..)) {
                self.checked.problems.push(suspect.problem);
            }
        }
        self.checked.problems.truncate(PROBLEMS);
        self.checked
    }
}

/// How many of these numbers did not come later.
fn left(missing: &BTreeMap<u64, u64>, first: u64, last: u64) -> u64 {
    (missing.range(first..=last))
        .map(|(from, to)| to + 1 - from)
        .sum()
}

/// Takes a number out of the missing ones; false where it is not missing.
fn fill(missing: &mut BTreeMap<u64, u64>, number: u64) -> bool {
    let found = missing.range(..=number).next_back();
    let Some((first, last)) = found
        .map(|(f, l)| (*f, *l))
        .filter(|(_, last)| *last >= number)
    else {
        return false;
    };
    missing.remove(&first);
    if first < number {
        missing.insert(first, number - 1);
    }
    if number < last {
        missing.insert(number + 1, last);
    }
    true
}
