//! Readings that do not follow: is the file that the kubelet shows still the one that was followed,
//! where in it are stored lines, and does it end where they do?
//!
//! Not here: when these are asked ([`super::Source::next`]), what the answers mean for the numbers of
//! lines ([`crate::logs::position`]).

use std::time::Duration;

use futures::AsyncBufReadExt;
use tokio::time::Instant;

use super::{
    IDLE_AT_END, Next, Open, OpenError, Source,
    pieces::{Pieces, split_time},
};
use crate::logs::{
    line::{Line, nanos},
    planted::{Bug, planted},
    position::{Locator, Part},
    record::Record,
};

/// Longest time for a reading that does not follow.
const SEARCH: Duration = Duration::from_mins(5);
/// A stamp is shorter than this.
const HEAD: u32 = 64;
/// Within this time after a look no second rotation can have been.
const ONE_ROTATION: Duration = Duration::from_secs(3);
/// How often nothing must have been there until a log counts as empty.
const EMPTY: u32 = 3;

impl<O: Open> Source<O> {
    /// Reads a part that does not follow, a line at a time, until `feed` has enough. None where it
    /// broke, or brought what is no line.
    async fn scan(
        &mut self,
        part: Part,
        mut feed: impl FnMut(&Line, bool) -> bool,
    ) -> Result<Option<()>, OpenError> {
        let mut reader = self.open_part(part, false).await?;
        let deadline = Instant::now() + SEARCH;
        let mut pieces = Pieces::default();
        loop {
            let silence = Instant::now() + IDLE_AT_END;
            let data = tokio::time::timeout_at(deadline.min(silence), reader.fill_buf()).await;
            let Ok(Ok(data)) = data else {
                self.metrics.errors.inc();
                return Ok(None);
            };
            if data.is_empty() {
                return Ok(match pieces.rest() {
                    Some((Ok(line), first)) => {
                        feed(&line, first);
                        Some(())
                    }
                    Some((Err(_), _)) => None,
                    None => Some(()),
                });
            }
            let piece = pieces.take(data);
            reader.consume_unpin(piece.used);
            match piece.line {
                Some(Ok(line)) if feed(&line, piece.first) => return Ok(Some(())),
                Some(Err(_)) => return Ok(None),
                _ => {}
            }
        }
    }

    /// The stamp that the file begins with; None where that did not come.
    async fn head(&mut self) -> Result<Option<i64>, OpenError> {
        let mut reader = self.open_part(Part::Head(HEAD), false).await?;
        let mut head = Vec::new();
        loop {
            let data = tokio::time::timeout(IDLE_AT_END, reader.fill_buf()).await;
            let Ok(Ok(data)) = data else {
                return Ok(None);
            };
            let n = data.len();
            head.extend_from_slice(data);
            reader.consume_unpin(n);
            // A stamp that is cut off may still look like one.
            if let Some(end) = head.iter().position(|b| *b == b' ') {
                return Ok(split_time(&head[..end]).0.map(nanos));
            }
            if n == 0 {
                return Ok(None);
            }
        }
    }

    /// Looks whether the file that is followed is still the file.
    pub(super) async fn look(&mut self, records: &mut Vec<Record>) {
        let soon = self.looked.1.elapsed() <= ONE_ROTATION;
        self.looked = (0, Instant::now());
        let seq = self.position.seq();
        if !self.position.caught_up() {
            return;
        }
        let Ok(Some(time)) = self.head().await else {
            return;
        };
        match self.position.head_seen(time, seq, soon) {
            Some(mut seen) => records.append(&mut seen),
            // Which line it is, all of the file has to say.
            None => {
                self.stream = None;
                self.next = Next::Whole;
            }
        }
    }

    /// Finds out whether the stream reaches into the file that is there now.
    pub(super) async fn search(&mut self, records: &mut Vec<Record>) -> Result<(), OpenError> {
        self.exited().await?;
        // A line that is certainly behind everything that is stored. A long one shows another stamp
        // when it is cut, so every other time more of the end is read.
        let lines = if self.failures.is_multiple_of(2) {
            200
        } else {
            1
        };
        let (mut until, mut n) = (None, 0_u32);
        let read = self.scan(Part::Tail(lines), |line, first| {
            if first {
                until = Some(nanos(line.time));
                n += 1;
            }
            false
        });
        if read.await?.is_none() {
            self.failed(Next::Search);
            return Ok(());
        }
        let position = std::mem::take(&mut self.position);
        let mut locator = Locator::new(&position, until);
        let read = self
            .scan(Part::Whole, |line, first| locator.feed(line, first))
            .await;
        let found = locator.found();
        self.position = position;
        let Some(found) = read?.and(found) else {
            self.failed(Next::Search);
            return Ok(());
        };
        if found.first.is_none() && found.stream_has.is_none() {
            // Nothing came, which a broken connection looks like, too.
            self.empty += 1;
            if self.empty < EMPTY {
                self.failed(Next::Search);
                return Ok(());
            }
        }
        self.empty = 0;
        records.append(&mut self.position.located(&found));
        self.next = Next::Whole;
        Ok(())
    }

    /// Compares the end of the log with the stored end.
    pub(super) async fn prove(&mut self, records: &mut Vec<Record>) -> Result<(), OpenError> {
        self.exited().await?;
        let mut proof = self.position.proof();
        let part = proof.part;
        let read = self
            .scan(part, |line, first| {
                proof.feed(line, first);
                false
            })
            .await;
        let held = self.rest.take();
        let holds = matches!(read, Ok(Some(()))) && proof.holds();
        if !holds {
            if let Some((before, _)) = held {
                self.position = before;
            }
            read?;
            self.failed(Next::Whole);
            return Ok(());
        }
        if self.position.is_fresh() {
            self.empty += 1;
            if self.empty < EMPTY {
                self.failed(Next::Whole);
                return Ok(());
            }
            let gap = self.position.gap_if_empty(self.open.now());
            records.extend(gap.map(Record::Gap));
        } else if !planted(Bug::NoProbeAtEnd) {
            // Is it the file in which the stream began, or has there been a rotation?
            let head = self.head().await;
            let same = match &head {
                Ok(Some(time)) => self.position.is_file(*time),
                _ => false,
            };
            if !same {
                let known = matches!(head, Ok(Some(_)));
                if let Some((before, _)) = held {
                    self.position = before;
                }
                head?;
                self.failed(if known { Next::Search } else { Next::Prove });
                if !known {
                    self.next = Next::Whole;
                }
                return Ok(());
            }
        }
        if let Some((_, mut rest)) = held {
            records.append(&mut rest);
        }
        self.end = Some(true);
        Ok(())
    }
}
