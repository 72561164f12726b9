//! Readings that bring nothing new: is the stored end the end, and where in the file is a stored line?

use super::{Key, Line, Part, Position, signed};

impl Position {
    /// The part whose reading proves that the last stored line is the last of the file.
    #[must_use]
    pub fn proof(&self) -> Proof {
        let run = self.run.filter(|_| self.fresh.is_none());
        let lines = run.map_or(0, |run| self.seq + 1 - run.seq);
        let bytes = run.map_or(0, |run| run.bytes);
        // The runtime splits long lines into entries, typically of 16 KiB.
        let entries = if lines <= 1 && bytes < 4096 {
            1
        } else {
            lines + bytes / 4096 + 2
        };
        Proof {
            part: Part::Tail(u32::try_from(entries).unwrap_or(u32::MAX)),
            run: run.map(|run| run.first),
            last: self.ring.back().copied().filter(|_| run.is_some()),
            lines,
            all: lines == self.seq || entries == 1,
            count: None,
            previous: None,
            read: 0,
        }
    }
}

/// Compares a reading of the end of the file with the stored end.
#[derive(Debug)]
pub struct Proof {
    /// What to read.
    pub part: Part,
    run: Option<Key>,
    last: Option<Key>,
    lines: u64,
    /// The reading's first line is a whole one that nothing precedes.
    all: bool,
    /// Lines of the run so far, once it has begun.
    count: Option<u64>,
    previous: Option<Key>,
    read: u64,
}

impl Proof {
    /// Takes the next line of the reading.
    pub fn feed(&mut self, line: &Line, first: bool) {
        let key = Key::new(line);
        let begins = first
            && match self.previous {
                None => self.all,
                Some(previous) => previous.0 != key.0,
            };
        if begins {
            self.count = (self.run == Some(key)).then_some(1);
        } else {
            self.count = self
                .count
                .filter(|_| self.run.is_some_and(|run| run.0 == key.0))
                .map(|n| n + 1);
        }
        self.previous = Some(key);
        self.read += 1;
    }

    /// Whether the reading, at its end, is what is stored.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.last {
            None => self.read == 0,
            Some(last) => self.count == Some(self.lines) && self.previous == Some(last),
        }
    }
}

/// Looks through the whole file for a stored line.
#[derive(Debug)]
pub struct Locator<'a> {
    position: &'a Position,
    /// The stamp of a line that is at the end of the file: a reading without it was cut short.
    until: Option<i64>,
    reached: bool,
    read: i64,
    previous: Option<i64>,
    found: Located,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Stamp of the file's first line, if it has one.
    pub first: Option<i64>,
    /// Number of that line, if the stream reaches into the file.
    pub stream_has: Option<i64>,
}

impl<'a> Locator<'a> {
    /// For a file in which a line has the stamp `until`, after everything that is stored; none in an
    /// empty file.
    #[must_use]
    pub fn new(position: &'a Position, until: Option<i64>) -> Self {
        Self {
            position,
            until,
            reached: until.is_none(),
            read: 0,
            previous: None,
            found: Located::default(),
        }
    }

    /// Takes the next line of the reading; true where the search can end.
    pub fn feed(&mut self, line: &Line, first: bool) -> bool {
        let key = Key::new(line);
        self.found.first.get_or_insert(key.0);
        self.read += 1;
        if first && self.until == Some(key.0) {
            self.reached = true;
        }
        if first
            && self.previous != Some(key.0)
            && let Some(seq) = self.position.find(key)
        {
            self.found.stream_has = Some(signed(seq) - self.read + 1);
        }
        self.previous = Some(key.0);
        self.found.stream_has.is_some()
    }

    /// What was found. None where the reading was cut short.
    #[must_use]
    pub fn found(self) -> Option<Located> {
        (self.found.stream_has.is_some() || self.reached).then_some(self.found)
    }
}
