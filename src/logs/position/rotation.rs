//! The file behind the stream: where another one began, and the gap there.
//!
//! The kubelet shows one file at a time and does not say when it is another one. Here is what follows
//! from the stamp of its first line, from a search through all of it, and from its end.
//!
//! Not here: when these are asked ([`crate::logs::source`]), the numbers of lines ([`super`]).

use k8s_openapi::jiff::Timestamp;

use super::{Located, Position, from_nanos, signed, unsigned};
use crate::logs::{
    planted::{Bug, planted},
    record::{FileStart, Gap, Reason, Record},
};

impl Position {
    pub(super) fn enter(&mut self, file: FileStart) {
        self.file = Some(file);
        self.expected = None;
        self.checked = self.seq;
        self.stamps.clear();
    }

    /// Another file begins with line `seq`, which is stored or the next to come.
    pub(super) fn crossed(&mut self, time: i64, seq: u64, precise: bool) -> Vec<Record> {
        let after = seq.saturating_sub(1);
        let file = FileStart {
            time,
            seq: signed(seq),
        };
        let gap = Gap {
            after_seq: after,
            not_before: if precise {
                after
            } else {
                self.checked.min(after)
            },
            from: None,
            to: Some(from_nanos(time)),
            reason: Reason::RotatedWhileFollowed,
            lost: None,
        };
        self.enter(file);
        if planted(Bug::NoGapWhenRotatedLive) {
            return vec![Record::File(file)];
        }
        vec![Record::Gap(gap), Record::File(file)]
    }

    /// The file begins with a line of this stamp, seen when line `seq` was the last that had come.
    /// `soon`: since the last such look no second rotation can have been. None where the whole file
    /// must be read to find out what that means.
    pub fn head_seen(&mut self, time: i64, seq: u64, soon: bool) -> Option<Vec<Record>> {
        let file = self.file?;
        if file.time == time {
            let known = usize::try_from(seq - self.checked.min(seq)).unwrap_or(usize::MAX);
            self.stamps.drain(..known.min(self.stamps.len()));
            self.stamps.shrink_to_fit();
            self.checked = seq;
            return Some(Vec::new());
        }
        let whole = self.stamps.len() as u64 == self.seq - self.checked;
        if !whole {
            return None;
        }
        if let Some(at) = self.stamps.iter().position(|s| *s == time) {
            let seq = self.checked + at as u64 + 1;
            return Some(self.crossed(time, seq, soon));
        }
        self.expected = Some(time);
        Some(Vec::new())
    }

    /// What a search through the whole file has found.
    pub fn located(&mut self, found: &Located) -> Vec<Record> {
        if let Some(seq) = found.stream_has {
            let Some(time) = found.first else {
                return Vec::new();
            };
            if self.file.is_none_or(|f| f.time == time) {
                // The same file after all, however it was counted; or nobody knows any more which it was.
                self.file = Some(FileStart { time, seq });
                return vec![Record::File(FileStart { time, seq })];
            }
            let mut records = self.crossed(time, unsigned(seq), false);
            let file = FileStart { time, seq };
            self.file = Some(file);
            if let Some(last) = records.last_mut() {
                *last = Record::File(file);
            }
            return records;
        }
        // Nothing of it is stored.
        let gap = Gap {
            after_seq: self.seq,
            not_before: self.checked.min(self.seq),
            from: self.last_time(),
            to: found.first.map(from_nanos),
            reason: Reason::RotatedAway,
            lost: None,
        };
        self.starts(None);
        if planted(Bug::NoGapWhenRotatedAway) {
            return Vec::new();
        }
        vec![Record::Gap(gap)]
    }

    /// Why an empty log may not be all of it: it was opened late, and a file may have been rotated away.
    #[must_use]
    pub fn gap_if_empty(&self, now: Timestamp) -> Option<Gap> {
        let fresh = self.fresh.filter(|fresh| !fresh.early)?;
        Some(Gap {
            from: Some(fresh.started?),
            ..self.gap_at_end(Reason::ReadLate, now)
        })
    }

    /// A gap at the end.
    #[must_use]
    pub fn gap_at_end(&self, reason: Reason, now: Timestamp) -> Gap {
        Gap {
            after_seq: self.seq,
            not_before: self.checked.min(self.seq),
            from: self.last_time(),
            to: Some(now),
            reason,
            lost: None,
        }
    }
}
