//! Where a stream stands: which lines of a reading are stored already, and which are new.
//!
//! A container's log can't be continued where it broke off. Each reading of it is a suffix of the one
//! file that the kubelet has of it at that moment, and the only question is which line of it has
//! which number. The answer is never taken from the order of stamps or from "older than": clocks go
//! back, and stamps repeat. It is counted, from a line whose number is certain:
//!
//! - the first line of the file, when that is known to be the same file; then all lines are counted
//!   from it, and thousands of identical lines with identical stamps are no question at all;
//! - else an *anchor*: a stored line that begins a run of equal stamps, and does so in the reading too.
//!
//! A file that begins otherwise is another file: the node has rotated it. Whether the stream reaches
//! into it is found by looking for an anchor in all of it ([`Locator`]). Either way lines may be
//! missing at the seam, since the API shows nothing of the old file any more: that is a [`Gap`].
//!
//! Assumed: a rotation takes longer than a tick of the node's clock; a clock that was set back does not
//! give the same nanosecond to the same text again; and no container fills a whole file (10 MiB by
//! default), which is then rotated away, between its start and the first reading of its log, if that is
//! opened or begins within three seconds: the API shows nothing of a file before the first one seen.
//!
//! What another file means, and where lines may be missing, is said in [`rotation`]; readings that bring
//! nothing new are compared in [`search`].
//!
//! Pure: no client, no clock, no files.

mod rotation;
mod search;
#[cfg(test)]
mod tests;

pub use search::{Located, Locator, Proof};

use std::collections::VecDeque;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    line::{Line, from_nanos, nanos},
    planted::{Bug, planted},
    record::{FileStart, Gap, Reason, Record},
};

/// How many of the newest lines are remembered while a stream is followed: 16 KiB.
const REMEMBERED: usize = 1024;
/// How many of them are kept through a restart.
pub const KEPT: usize = 64;
/// A log that begins so soon after its container, or is opened so soon, counts as read from its first
/// file.
const ROTATION: SignedDuration = SignedDuration::from_secs(3);
/// Stamps that are kept between two looks for a rotation, to find where it was: 256 KiB at most.
const STAMPS: usize = 32 * 1024;

/// What a line is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(i64, u64);

impl Key {
    fn new(line: &Line) -> Self {
        let seed = u64::from(line.flags.partial);
        Self(
            nanos(line.time),
            twox_hash::XxHash64::oneshot(seed, &line.message),
        )
    }
}

/// The newest run of lines with equal stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first: Key,
    seq: u64,
    bytes: u64,
}

/// What is known of a run of a container that nothing has been read of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// When it started, by the node's clock.
    pub started: Option<Timestamp>,
    /// Its log was opened so soon that nothing can have been rotated away before.
    pub early: bool,
}

/// Which part of the log to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of the file.
    Whole,
    /// The last so many entries of the file; a long line takes several, so the first line may be cut.
    Tail(u32),
    /// The first so many bytes.
    Head(u32),
}

/// What a line of a reading is.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is stored.
    Stored,
    /// It is new: these records, its own the last.
    New(Vec<Record>),
    /// Its number can't be told; the reading is of no more use.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    None,
    /// The whole file, before its first line.
    Start,
    /// The end of the file, before an anchor.
    Tail { previous: Option<i64>, lines: u32 },
    /// The next line has this number. `first`: it still is in the file's first line.
    Counting { next: i64, first: bool },
}

/// State of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    seq: u64,
    ring: VecDeque<Key>,
    run: Option<Run>,
    #[serde(with = "file")]
    file: Option<FileStart>,
    fresh: Option<Fresh>,
    /// Lines up to this one are known to have no unseen rotation between them.
    checked: u64,
    #[serde(skip)]
    stamps: VecDeque<i64>,
    /// The file whose first line this is was seen; it has not come in the stream yet.
    #[serde(skip)]
    expected: Option<i64>,
    #[serde(skip)]
    reading: Reading,
}

mod file {
    use super::FileStart;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(file: &Option<FileStart>, s: S) -> Result<S::Ok, S::Error> {
        file.map(|f| (f.time, f.seq)).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<FileStart>, D::Error> {
        Ok(Option::<(i64, i64)>::deserialize(d)?.map(|(time, seq)| FileStart { time, seq }))
    }
}

fn soon_after(time: Timestamp, started: Timestamp) -> bool {
    // Clocks of two machines, and a start that is given in whole seconds.
    (-ROTATION..=ROTATION).contains(&time.duration_since(started))
}

fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}

impl Position {
    /// Number of the last line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Stamp of the last line.
    #[must_use]
    pub fn last_time(&self) -> Option<Timestamp> {
        self.ring.back().map(|key| from_nanos(key.0))
    }

    /// What is kept of it through a restart.
    #[must_use]
    pub fn kept(&self) -> Self {
        let skip = self.ring.len().saturating_sub(KEPT);
        Self {
            seq: self.seq,
            ring: self.ring.iter().skip(skip).copied().collect(),
            run: self.run,
            file: if planted(Bug::SnapshotForgetsFile) {
                None
            } else {
                self.file
            },
            fresh: self.fresh,
            checked: self.checked,
            ..Self::default()
        }
    }

    /// The container runs, for the first time or anew: nothing of its log is stored.
    pub fn starts(&mut self, started: Option<Timestamp>) {
        self.fresh = Some(Fresh {
            started,
            early: false,
        });
        self.file = None;
        self.expected = None;
        self.checked = self.seq;
        self.stamps.clear();
    }

    /// A fresh run's log is opened at `now`.
    pub fn opened(&mut self, now: Timestamp) {
        if let Some(fresh) = &mut self.fresh {
            fresh.early |= fresh
                .started
                .is_some_and(|started| soon_after(now, started));
        }
    }

    /// Takes in what was stored, at a restart, in the order of the stream.
    pub fn stored(&mut self, record: &Record) {
        match record {
            Record::Line(line) => self.recall(line),
            Record::File(file) => {
                self.file = Some(*file);
                self.checked = self.checked.max(unsigned(file.seq)).min(self.seq);
            }
            // Lines before it may be stored that are known of by nothing else.
            Record::Gap(gap) => self.seq = self.seq.max(gap.after_seq),
            Record::End(end) => self.seq = self.seq.max(end.lines),
        }
    }

    /// Takes in a stored line.
    pub fn recall(&mut self, line: &Line) {
        self.fresh = None;
        self.seq = line.seq - 1;
        self.push(Key::new(line), line.message.len());
        self.seq = line.seq;
    }

    /// Whether there are lines, and none of them is remembered.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.seq > 0 && self.ring.is_empty() && self.fresh.is_none()
    }

    /// Number of the line that begins the newest run of equal stamps, of those taken in.
    #[must_use]
    pub fn run_begins(&self) -> Option<u64> {
        self.run.map(|run| run.seq)
    }

    /// The part to open so that the stream goes on with the least to read again.
    #[must_use]
    pub fn resume(&self) -> Part {
        // Every line of such a part that is stored is also remembered.
        let lines = self.ring.len().saturating_sub(1).min(512);
        match u32::try_from(lines) {
            Ok(lines) if lines >= 2 && self.fresh.is_none() => Part::Tail(lines),
            _ => Part::Whole,
        }
    }

    /// A reading of that part begins.
    pub fn begin(&mut self, part: Part) {
        self.reading = match part {
            Part::Tail(_) => Reading::Tail {
                previous: None,
                lines: 0,
            },
            Part::Whole | Part::Head(_) => Reading::Start,
        };
    }

    /// Whether the numbers of the reading are not certain yet, though lines of it may have come.
    #[must_use]
    pub fn undecided(&self) -> bool {
        matches!(self.reading, Reading::Tail { .. })
    }

    /// Whether the reading has reached what is not stored.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        matches!(self.reading, Reading::Counting { next, .. } if next > signed(self.seq))
    }

    /// Whether a reading that ends here has shown every line of the file.
    #[must_use]
    pub fn at_end(&self) -> bool {
        match self.reading {
            Reading::Counting { .. } => self.caught_up(),
            Reading::Start => self.fresh.is_some(),
            Reading::None | Reading::Tail { .. } => false,
        }
    }

    /// Whether a reading of the whole file has brought nothing, although its lines are expected.
    #[must_use]
    pub fn at_start(&self) -> bool {
        self.reading == Reading::Start && self.fresh.is_none()
    }

    /// Whether nothing of this run of the container is stored.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh.is_some()
    }

    /// Whether the file that the stream is in begins with a line of this stamp.
    #[must_use]
    pub fn is_file(&self, time: i64) -> bool {
        self.file.is_some_and(|file| file.time == time)
    }

    /// Says what the next line of the reading is. `first`: it is the first piece of its line.
    pub fn admit(&mut self, line: Line, first: bool) -> Admitted {
        let key = Key::new(&line);
        match self.reading {
            Reading::None => Admitted::Unknown,
            Reading::Start => self.admit_first(line, key),
            Reading::Tail { previous, lines } => {
                // The first line may be a cut one; it only says which stamp comes before.
                if first && lines > 0 && previous != Some(key.0) {
                    let Some(seq) = self.find(key) else {
                        return Admitted::Unknown;
                    };
                    self.reading = Reading::Counting {
                        next: signed(seq) + 1,
                        first: false,
                    };
                    return Admitted::Stored;
                }
                if lines as usize > REMEMBERED {
                    return Admitted::Unknown;
                }
                self.reading = Reading::Tail {
                    previous: Some(key.0),
                    lines: lines + u32::from(first),
                };
                Admitted::Stored
            }
            Reading::Counting {
                next,
                first: in_first,
            } => {
                let in_first = in_first && !first;
                if planted(Bug::DropsOlderStamps) && self.last_time().is_some_and(|t| line.time < t)
                {
                    return Admitted::Stored;
                }
                self.reading = Reading::Counting {
                    next: next + 1,
                    first: in_first,
                };
                if next > signed(self.seq) {
                    return Admitted::New(self.take(line, key));
                }
                // The first line of a file may be cut in another place than it was when it came.
                if !in_first && self.remembered(next).is_some_and(|k| k != key) {
                    return Admitted::Unknown;
                }
                Admitted::Stored
            }
        }
    }

    fn admit_first(&mut self, line: Line, key: Key) -> Admitted {
        if let Some(fresh) = self.fresh.take() {
            let file = FileStart {
                time: key.0,
                seq: signed(self.seq) + 1,
            };
            // A stamp before the start says that the clock went back, and nothing of how late it is.
            let late = !fresh.early
                && fresh
                    .started
                    .is_some_and(|started| !soon_after(line.time, started));
            let gap = late.then_some({
                Record::Gap(Gap {
                    after_seq: self.seq,
                    not_before: self.seq,
                    from: fresh.started,
                    to: Some(line.time),
                    reason: Reason::ReadLate,
                    lost: None,
                })
            });
            self.enter(file);
            self.reading = Reading::Counting {
                next: file.seq + 1,
                first: true,
            };
            let mut records: Vec<_> = gap.into_iter().chain([Record::File(file)]).collect();
            records.append(&mut self.take(line, key));
            return Admitted::New(records);
        }
        match self.file {
            Some(file) if file.time == key.0 => {
                self.reading = Reading::Counting {
                    next: file.seq,
                    first: true,
                };
                self.admit(line, false)
            }
            _ => Admitted::Unknown,
        }
    }

    /// Numbers a new line.
    fn take(&mut self, mut line: Line, key: Key) -> Vec<Record> {
        let mut records = Vec::new();
        if self.expected == Some(key.0) {
            records.extend(self.crossed(key.0, self.seq + 1, false));
        }
        line.flags.clock_back = self.ring.back().is_some_and(|last| key.0 < last.0);
        self.push(key, line.message.len());
        self.seq += 1;
        line.seq = self.seq;
        if self.stamps.len() < STAMPS {
            self.stamps.push_back(key.0);
        }
        records.push(Record::Line(line));
        records
    }

    fn push(&mut self, key: Key, bytes: usize) {
        match &mut self.run {
            Some(run) if run.first.0 == key.0 => run.bytes += bytes as u64,
            run => {
                *run = Some(Run {
                    first: key,
                    seq: self.seq + 1,
                    bytes: bytes as u64,
                });
            }
        }
        if self.ring.len() == REMEMBERED {
            self.ring.pop_front();
        }
        self.ring.push_back(key);
    }

    fn remembered(&self, seq: i64) -> Option<Key> {
        let back = usize::try_from(signed(self.seq) - seq).ok()?;
        let at = self.ring.len().checked_sub(back + 1)?;
        self.ring.get(at).copied()
    }

    /// The number of the stored line that begins a run of equal stamps with this line.
    fn find(&self, key: Key) -> Option<u64> {
        if let Some(run) = self.run.filter(|run| run.first == key) {
            return Some(run.seq);
        }
        let before = self.seq - self.ring.len() as u64;
        let begins = |at: usize| match at.checked_sub(1) {
            Some(previous) => self.ring[previous].0 != key.0,
            // Only the stream's first line has none before it.
            None => before == 0,
        };
        (0..self.ring.len())
            .rev()
            .find(|at| self.ring[*at] == key && begins(*at))
            .map(|at| before + at as u64 + 1)
    }
}
