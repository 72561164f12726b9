//! The source: one container's lines, in the order of its log, once each, and where some are missing.
//!
//! It opens the container's log when the container has started (it is told so, it does not ask), and
//! again as often as it ends while the container runs: at rotation, at the API server's 4-hour limit,
//! at errors, and where a proxy ends it without a word. What of a reading is new is [`super::position`]'s
//! to say; this is about which part to read next:
//!
//! ```text
//! start, or a new file ─→ whole file, followed
//! it broke             ─→ the last lines, followed; where nothing in them is known: whole file
//! another file began   ─→ search the whole file for a stored line ─→ gap; whole file
//! every few seconds of a busy stream, and at the end: is the file still the same one?
//! container exited     ─→ read to the end; then the last line alone: is it the last stored one?
//! ```
//!
//! The end is proven by the second of these readings, because the end of the first may be that of a
//! connection: the API server ends an answer properly when its own connection to the node breaks.
//!
//! The seam for another source (an agent that reads the node's files): it gives the same [`Event`]s.
//!
//! Which file the kubelet shows, and whether it ends where the store does, is found out in [`file`].
//!
//! Not here: which containers there are ([`super::pods`]), where lines go ([`super::follow`]).

mod file;
mod pieces;
#[cfg(test)]
mod tests;

use std::{future::Future, io, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use k8s_openapi::jiff::Timestamp;
use thiserror::Error;
use tokio::{sync::watch, time::Instant};

pub use self::pieces::MAX_PIECE;
use self::pieces::{Pieces, is_kubelets};
use super::{
    line::{Flags, Line, Output},
    metrics::Metrics,
    planted::{Bug, planted},
    pods::ContainerState,
    position::{Admitted, Part, Position},
    record::{Reason, Record},
};

/// A batch is handed on when it holds this many bytes, or when nothing more is there yet.
const BATCH_BYTES: usize = 64 * 1024;
/// A batch of empty lines is bounded too.
const BATCH_LINES: usize = 4096;
/// Silence after which an open stream is opened again: a connection to a node that vanished never
/// says so, and the client has no read timeout.
const IDLE: Duration = Duration::from_mins(5);
/// The same once the container has exited or its pod is gone, and for readings that do not follow.
const IDLE_AT_END: Duration = Duration::from_secs(3);
/// Silence after which a stream that was opened before the container exited is given up once it has: the
/// rest is read anew, and at once, since the kubelet throws the log of a deleted pod away within a second
/// or two, and ends a followed one up to 5 s late.
const IDLE_ONCE_EXITED: Duration = Duration::from_millis(100);
/// Silence after which lines that were not recognised are read in another way.
const UNDECIDED: Duration = Duration::from_secs(1);
/// Waits between failures: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Failures in a row after which the log of an exited container counts as gone (about 20 minutes).
const MAX_FAILURES_AT_END: u32 = 45;
/// The same where the pod is being deleted, which waits for the outcome (about 6 seconds).
const MAX_FAILURES_ONCE_DISCARDED: u32 = 4;
/// A busy stream is looked at for a rotation after so many bytes and so much time.
const LOOK: (usize, Duration) = (512 * 1024, Duration::from_secs(2));
/// And once it has been silent for so long, after fewer bytes: what is kept for the next look is memory
/// that a stream that says nothing should not have.
const QUIET: (usize, Duration) = (64 * 1024, Duration::from_mins(1));

/// A way to read one container's log. The kubelet's, or a simulation's.
pub trait Open: Send + Sync {
    /// The log's bytes: each line `TIMESTAMP MESSAGE`.
    type Reader: AsyncBufRead + Send + Unpin;
    /// Opens a part of the log, and goes on at its end if `follow`. Answers or fails in time.
    fn open(
        &self,
        part: Part,
        follow: bool,
    ) -> impl Future<Output = Result<Self::Reader, OpenError>> + Send;
    /// What time it is.
    fn now(&self) -> Timestamp;
}

/// Why a log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The pod is gone, and its log with it.
    #[error("the pod is gone")]
    Gone,
    /// Anything else; it is tried again.
    #[error("{0}")]
    Failed(String),
}

/// What [`Source::next`] brings.
#[derive(Debug)]
pub enum Event {
    /// New lines, gaps and file starts, at least one.
    Records(Vec<Record>),
    /// Nothing more will come. `proven` where the end of the log was read; gaps may be before it.
    End {
        /// See above.
        proven: bool,
    },
}

struct Stream<R> {
    reader: R,
    /// Opened after the container had exited: its end may be the end.
    last: bool,
    /// When something came for the last time.
    fed: Instant,
}

/// Which way to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Resume,
    Whole,
    Search,
    Prove,
}

/// The lines of one container.
pub struct Source<O: Open> {
    open: O,
    state: watch::Receiver<ContainerState>,
    position: Position,
    metrics: Metrics,
    stream: Option<Stream<O::Reader>>,
    next: Next,
    end: Option<bool>,
    /// Readings in a row that brought nothing new.
    failures: u32,
    /// Proofs in a row that an empty log is empty.
    empty: u32,
    pieces: Pieces,
    /// What came behind the last newline of a reading to the end: a last line, if the proof agrees.
    rest: Option<(Position, Vec<Record>)>,
    /// Bytes since, and when, it was last looked for a rotation.
    looked: (usize, Instant),
}

impl<O: Open> Source<O> {
    /// The lines after `position`.
    pub fn new(
        open: O,
        state: watch::Receiver<ContainerState>,
        position: Position,
        metrics: Metrics,
    ) -> Self {
        Self {
            open,
            state,
            position,
            metrics,
            stream: None,
            next: Next::Resume,
            end: None,
            failures: 0,
            empty: 0,
            pieces: Pieces::default(),
            rest: None,
            looked: (0, Instant::now()),
        }
    }

    /// Where it stands, after everything that [`Source::next`] has brought.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.open.now()
    }

    /// Closes the stream, so that nobody waits for its reader: what it would bring is read later.
    pub fn pause(&mut self) {
        self.stream = None;
        self.next = Next::Resume;
        self.drop_rest();
    }

    /// Takes back a last line that is not proven to be one.
    fn drop_rest(&mut self) {
        if let Some((before, _)) = self.rest.take() {
            self.position = before;
        }
    }

    /// Waits for the next records. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(proven) = self.end {
                return Event::End { proven };
            }
            let mut records = Vec::new();
            if self.stream.is_some() {
                if self.should_look() {
                    self.look(&mut records).await;
                }
                if self.stream.is_some() && records.is_empty() {
                    self.read(&mut records).await;
                }
            } else {
                self.back_off().await;
                let tried = match self.next {
                    Next::Search => self.search(&mut records).await,
                    Next::Prove => self.prove(&mut records).await,
                    Next::Resume | Next::Whole => self.open_stream().await,
                };
                if let Err(OpenError::Gone) = tried {
                    let reason = if self.gave_up() {
                        Reason::Unreadable
                    } else {
                        Reason::PodGone
                    };
                    self.salvage(&mut records);
                    if !planted(Bug::GoneIsComplete) {
                        let gap = self.position.gap_at_end(reason, self.open.now());
                        records.push(Record::Gap(gap));
                    }
                    self.end = Some(planted(Bug::GoneIsComplete));
                }
            }
            if !records.is_empty() {
                return Event::Records(records);
            }
        }
    }

    fn should_look(&self) -> bool {
        let quiet = self.quiet_at().is_some_and(|at| at <= Instant::now());
        quiet || self.looked.0 >= LOOK.0 && self.looked.1.elapsed() >= LOOK.1
    }

    /// From when on the stream counts as silent, if it should be looked at then.
    fn quiet_at(&self) -> Option<Instant> {
        let stream = self.stream.as_ref().filter(|_| self.looked.0 >= QUIET.0);
        stream.map(|stream| stream.fed + QUIET.1)
    }

    /// Whether the container has exited. An error where nothing more can be read.
    async fn exited(&mut self) -> Result<bool, OpenError> {
        let state = match self.state.wait_for(|s| *s != ContainerState::Waiting).await {
            Ok(state) => *state,
            Err(_) => ContainerState::Gone,
        };
        // Without a sender nobody would ever say that the pod is gone.
        if state == ContainerState::Gone || self.state.has_changed().is_err() {
            return Err(OpenError::Gone);
        }
        if self.gave_up() {
            return Err(OpenError::Gone);
        }
        Ok(matches!(
            state,
            ContainerState::Terminated | ContainerState::Discarded
        ))
    }

    /// Whether the log of an exited container could not be read too often.
    fn gave_up(&self) -> bool {
        match *self.state.borrow() {
            ContainerState::Terminated => self.failures > MAX_FAILURES_AT_END,
            ContainerState::Discarded => self.failures > MAX_FAILURES_ONCE_DISCARDED,
            ContainerState::Waiting | ContainerState::Running | ContainerState::Gone => false,
        }
    }

    async fn open_part(&mut self, part: Part, follow: bool) -> Result<O::Reader, OpenError> {
        let opened = self.open.open(part, follow).await;
        match &opened {
            Ok(_) => {
                self.metrics.opened.inc();
            }
            Err(error) => {
                if let OpenError::Failed(why) = error {
                    tracing::debug!("can't open a log, will try again: {why}");
                    self.metrics.errors.inc();
                }
                self.failures = self.failures.saturating_add(1);
            }
        }
        opened
    }

    async fn open_stream(&mut self) -> Result<(), OpenError> {
        let last = self.exited().await?;
        let part = match self.next {
            Next::Resume => self.position.resume(),
            _ => Part::Whole,
        };
        let now = self.open.now();
        let reader = self.open_part(part, !last).await?;
        self.position.opened(now);
        self.position.begin(part);
        self.pieces = Pieces::default();
        self.stream = Some(Stream {
            reader,
            last,
            fed: Instant::now(),
        });
        Ok(())
    }

    /// Waits before the log is opened again, but not once the container's state has changed.
    async fn back_off(&mut self) {
        if self.failures > 0 {
            // Spread, but the same in each run of a simulation.
            let spread = (self.position.seq().wrapping_mul(0x9e37_79b9) >> 16) % 400;
            let wait = BACKOFF
                .0
                .saturating_mul(1 << (self.failures - 1).min(10))
                .min(BACKOFF.1)
                .mul_f64(0.8 + spread as f64 / 1000.0);
            let _ = tokio::time::timeout(wait, self.state.changed()).await;
        }
    }

    fn failed(&mut self, next: Next) {
        tracing::trace!(
            "a reading brought nothing new; next: {next:?}, failures: {}, line {}",
            self.failures,
            self.position.seq()
        );
        self.stream = None;
        self.next = next;
        self.failures = self.failures.saturating_add(1);
    }

    /// Reads what is there, and waits only where that is nothing.
    async fn read(&mut self, records: &mut Vec<Record>) {
        let mut bytes = 0;
        while bytes < BATCH_BYTES && records.len() < BATCH_LINES {
            let quiet_at = self.quiet_at();
            let Some(stream) = &mut self.stream else {
                return;
            };
            let data = if records.is_empty() {
                let limit = match *self.state.borrow_and_update() {
                    _ if self.position.undecided() => UNDECIDED,
                    ContainerState::Waiting | ContainerState::Running => IDLE,
                    ContainerState::Terminated | ContainerState::Discarded if !stream.last => {
                        IDLE_ONCE_EXITED
                    }
                    ContainerState::Terminated
                    | ContainerState::Discarded
                    | ContainerState::Gone => IDLE_AT_END,
                };
                let closed = self.state.has_changed().is_err();
                tokio::select! {
                    biased;
                    data = stream.reader.fill_buf() => data,
                    // The limit is another one now.
                    _ = self.state.changed(), if !closed => return,
                    () = tokio::time::sleep_until(quiet_at.unwrap_or(stream.fed)), if quiet_at.is_some() => return,
                    () = tokio::time::sleep_until(stream.fed + limit) => {
                        Err(io::ErrorKind::TimedOut.into())
                    }
                }
            } else {
                match stream.reader.fill_buf().now_or_never() {
                    Some(data) => data,
                    None => return,
                }
            };
            match data {
                Ok([]) => self.ended(records),
                Ok(data) => {
                    let piece = self.pieces.take(data);
                    stream.reader.consume_unpin(piece.used);
                    stream.fed = Instant::now();
                    bytes += piece.used;
                    self.looked.0 += piece.used;
                    if let Some(line) = piece.line {
                        self.admit(line, piece.first, records);
                    }
                }
                Err(error) => {
                    if error.kind() != io::ErrorKind::TimedOut {
                        tracing::debug!("a log stream broke, will open it again: {error}");
                        self.metrics.errors.inc();
                    }
                    let next = if self.position.undecided() {
                        Next::Whole
                    } else {
                        Next::Resume
                    };
                    self.failed(next);
                }
            }
        }
    }

    fn admit(&mut self, line: Result<Line, Vec<u8>>, first: bool, records: &mut Vec<Record>) {
        let mut line = match line {
            Ok(line) => line,
            Err(words) => {
                // The kubelet puts a time before each line. It is the kubelet saying why it can't
                // read the log, and nothing behind it can be counted.
                tracing::warn!(
                    "instead of a log line: {}",
                    String::from_utf8_lossy(&words[..words.len().min(200)])
                );
                self.metrics.foreign.inc();
                if !planted(Bug::CountsForeignWords) {
                    self.failed(Next::Whole);
                    return;
                }
                Line {
                    seq: 0,
                    time: self.open.now(),
                    observed: self.open.now(),
                    output: Output::Unknown,
                    flags: Flags::default(),
                    message: words,
                }
            }
        };
        line.observed = self.open.now();
        if planted(Bug::SkipsEmptyLines) && line.message.is_empty() {
            return;
        }
        let tail = self.position.undecided();
        match self.position.admit(line, first) {
            Admitted::Stored => {}
            Admitted::New(mut new) => {
                self.failures = 0;
                self.empty = 0;
                records.append(&mut new);
            }
            Admitted::Unknown => {
                let next = if tail { Next::Whole } else { Next::Search };
                // At once, unless it goes round in circles.
                let failures = self.failures;
                self.failed(next);
                if tail && failures == 0 {
                    self.failures = 0;
                }
            }
        }
    }

    /// The stream ended without an error.
    fn ended(&mut self, records: &mut Vec<Record>) {
        let last = self.stream.take().is_some_and(|s| s.last);
        if planted(Bug::KeepsCutOffHalf)
            && let Some((line, first)) = self.pieces.rest()
        {
            self.admit(line, first, records);
        }
        let undecided = self.position.undecided();
        self.next = Next::Prove;
        if last && let Some((line, first)) = self.pieces.rest() {
            // Maybe the last line, without a newline; maybe half of one, where a connection broke.
            if is_kubelets(&line) {
                self.metrics.foreign.inc();
                self.failed(Next::Whole);
                return;
            }
            let before = self.position.clone();
            let mut rest = Vec::new();
            self.admit(line, first, &mut rest);
            if !rest.is_empty() {
                self.rest = Some((before, rest));
            }
            if self.next != Next::Prove {
                return;
            }
        }
        if last && self.position.at_end() {
            if planted(Bug::EndWithoutProof) {
                self.end = Some(true);
            }
            return;
        }
        self.drop_rest();
        self.failed(if last && self.position.at_start() {
            Next::Search
        } else if undecided {
            Next::Whole
        } else {
            Next::Resume
        });
    }

    /// What came of a line before its pod vanished, rather than nothing.
    fn salvage(&mut self, records: &mut Vec<Record>) {
        self.drop_rest();
        if self.position.caught_up()
            && let Some((Ok(line), first)) = self.pieces.rest()
        {
            self.admit(Ok(line), first, records);
        }
    }
}
