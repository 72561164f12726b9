//! Where a stream stands: numbers new lines and drops those that a reopened stream brings again.
//!
//! A log stream of the API can only be resumed at a whole second, so every reopening brings lines
//! that have been stored already. They are recognised by what they are (time and hash), not by
//! their order: the runtime's stamps are slightly out of order where stdout and stderr race, and go
//! back with the node's clock, so that "drop what is not newer" would lose lines.
//!
//! Pure: no client, no clock, no files. The lossless pipeline's anchor and gap records will be made
//! here; today a possible gap is only reported ([`Position::gap`]).

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use k8s_openapi::jiff::Timestamp;

use super::line::Line;

/// How many of the newest lines are remembered: what bounds a stream's memory (16 KiB). Of older
/// lines, those before the oldest remembered one are dropped by their time alone.
pub const REMEMBERED: usize = 1024;

type Key = (Timestamp, u64);

/// State of one stream.
#[derive(Debug, Default)]
pub struct Position {
    seq: u64,
    /// The newest lines, in the order of the stream.
    ring: VecDeque<Key>,
    /// While a reopened stream repeats itself.
    replay: Option<Replay>,
}

#[derive(Debug)]
struct Replay {
    /// Lines that may come again, and how often.
    expected: HashMap<Key, u32>,
    /// Lines before this one were stored before anything remembered.
    oldest: Timestamp,
    newest: Timestamp,
    /// Whether a remembered line came again, which proves that nothing is missing in between.
    anchored: bool,
}

impl Position {
    /// After the lines of `tail`, the newest that are stored; the last of them has number `seq`.
    pub fn resumed<'a>(seq: u64, tail: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut position = Self {
            seq,
            ..Self::default()
        };
        for line in tail {
            position.remember(key(line));
        }
        position
    }

    /// Number of the last line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The time from which a stream must be opened to continue this one: a whole second, because
    /// the API rounds, and one earlier, for lines whose stamps are slightly out of order.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        let newest = self.ring.iter().map(|(time, _)| *time).max()?;
        Timestamp::from_second(newest.as_second() - 1).ok()
    }

    /// A stream was opened from [`Position::since`]: it will repeat lines.
    pub fn reopened(&mut self) {
        let times = || self.ring.iter().map(|(time, _)| *time);
        self.replay = times().min().zip(times().max()).map(|(oldest, newest)| {
            let mut expected = HashMap::new();
            for key in &self.ring {
                *expected.entry(*key).or_insert(0) += 1;
            }
            Replay {
                expected,
                // With room left in the ring nothing older exists.
                oldest: if self.ring.len() < REMEMBERED {
                    Timestamp::MIN
                } else {
                    oldest
                },
                newest,
                anchored: false,
            }
        });
    }

    /// Whether the stream still repeats what may be stored already.
    #[must_use]
    pub fn replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether the stream repeats, and has not brought a stored line yet: nothing proves so far that
    /// it continues where the store ends.
    #[must_use]
    pub fn unproven(&self) -> bool {
        self.replay.as_ref().is_some_and(|r| !r.anchored)
    }

    /// Numbers `line`, or drops it where it is stored already.
    pub fn admit(&mut self, mut line: Line) -> Admitted {
        let key = key(&line);
        let mut gap = false;
        if let Some(replay) = &mut self.replay {
            if let Some(count) = replay.expected.get_mut(&key) {
                replay.anchored = true;
                *count -= 1;
                if *count == 0 {
                    replay.expected.remove(&key);
                }
                if replay.expected.is_empty() {
                    self.replay = None;
                }
                return Admitted::Repeated;
            }
            if line.time < replay.oldest {
                return Admitted::Repeated;
            }
            if line.time > replay.newest {
                gap = !replay.anchored;
                self.replay = None;
            }
        }
        self.seq += 1;
        line.seq = self.seq;
        self.remember(key);
        Admitted::New { line, gap }
    }

    fn remember(&mut self, key: Key) {
        if self.ring.len() == REMEMBERED {
            self.ring.pop_front();
        }
        self.ring.push_back(key);
    }
}

/// What [`Position::admit`] says of a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is stored already.
    Repeated,
    /// It is new, and numbered.
    New {
        /// The line.
        line: Line,
        /// Whether lines may be missing before it: the stream was reopened and repeated none of
        /// those that were stored, for example because the node rotated them away meanwhile.
        gap: bool,
    },
}

/// The hash need only agree within one process: after a restart it is made anew from the store.
fn key(line: &Line) -> Key {
    let mut hasher = DefaultHasher::new();
    line.message.hash(&mut hasher);
    line.partial.hash(&mut hasher);
    (line.time, hasher.finish())
}
