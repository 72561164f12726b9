//! The source: one container's lines, in the order of its log, once each.
//!
//! It opens the container's log when the container has started (it is told so, it does not ask),
//! and opens it again as often as it ends while the container runs: at rotation, at the API
//! server's 4-hour limit, at errors. It is done when a read that was *opened after* the container
//! had exited reached its end, which is what proves that nothing is missing at the end; or when the
//! pod is gone.
//!
//! Not here: which containers there are ([`super::pods`]), what is stored already
//! ([`super::position`]), where lines go ([`super::sink`]).

#[cfg(test)]
mod tests;

use std::{future::Future, pin::Pin, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, api::LogParams};
use thiserror::Error;
use tokio::{sync::watch, time::Instant};

use super::{
    line::{Line, Output},
    metrics::Metrics,
    pods::ContainerState,
    position::{Admitted, Position},
};
use crate::process::REQUEST_TIMEOUT;

/// The longest piece of a line that is one record; a longer line is split, always in the same places.
pub const MAX_PIECE: usize = 256 * 1024;
/// A batch is handed on when it holds this many bytes, or when nothing more is there yet.
const BATCH_BYTES: usize = 64 * 1024;
/// A batch of empty lines is bounded too.
const BATCH_LINES: usize = 4096;
/// Silence after which an open stream is opened again: a connection to a node that vanished never
/// says so, and the client has no read timeout.
const IDLE: Duration = Duration::from_mins(5);
/// The same once the container has exited or its pod is gone. Short, because after a rotation the
/// kubelet may not end a followed stream, and safe, because the last read starts before its end.
const IDLE_AT_END: Duration = Duration::from_secs(3);
/// Waits between failures: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Failures in a row after which the log of an exited container counts as gone (about 20 minutes).
const MAX_FAILURES_AT_END: u32 = 45;

/// A way to read one container's log. The kubelet's, or a test's script.
pub trait Open: Send {
    /// The log's bytes: each line `TIMESTAMP MESSAGE`.
    type Reader: AsyncBufRead + Send + Unpin;
    /// Opens the log at `since` (a whole second), and goes on at its end if `follow`.
    fn open(
        &self,
        since: Option<Timestamp>,
        follow: bool,
    ) -> impl Future<Output = Result<Self::Reader, OpenError>> + Send;
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

/// The log endpoint of the API server.
pub struct KubeLog {
    /// The pods of the namespace.
    pub pods: Api<Pod>,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

impl Open for KubeLog {
    type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

    async fn open(
        &self,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<Self::Reader, OpenError> {
        let params = LogParams {
            container: Some(self.container.clone()),
            follow,
            since_time: since,
            timestamps: true,
            ..LogParams::default()
        };
        // Only the answer is waited for with a limit; the stream behind it may last for days.
        let opened =
            tokio::time::timeout(REQUEST_TIMEOUT, self.pods.log_stream(&self.pod, &params));
        match opened.await {
            Ok(Ok(reader)) => Ok(Box::pin(reader)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(OpenError::Gone),
            Ok(Err(error)) => Err(OpenError::Failed(error.to_string())),
            Err(_) => Err(OpenError::Failed(format!(
                "no answer within {} s",
                REQUEST_TIMEOUT.as_secs()
            ))),
        }
    }
}

/// What [`Source::next`] brings.
#[derive(Debug)]
pub enum Event {
    /// New lines, at least one.
    Lines(Vec<Line>),
    /// Nothing more will come. `complete` where the end of the log was read after the container had
    /// exited and nothing is known to be missing; otherwise the pod or its log vanished first.
    End {
        /// See above.
        complete: bool,
    },
}

struct Stream<R> {
    reader: R,
    /// Opened after the container had exited: its end is the end.
    last: bool,
    /// When something came for the last time.
    fed: Instant,
    /// It brought something that makes its end prove nothing.
    doubtful: bool,
}

/// Which part of a line is being read.
enum Piece {
    First,
    /// Of a line of this time; None where it has none and is dropped.
    Further(Option<Timestamp>),
}

/// The lines of one container.
pub struct Source<O: Open> {
    open: O,
    state: watch::Receiver<ContainerState>,
    position: Position,
    metrics: Metrics,
    stream: Option<Stream<O::Reader>>,
    /// The end was read; whether it proves that nothing is missing.
    end: Option<bool>,
    /// Streams that ended without a new line, in a row.
    failures: u32,
    /// What has come of a line whose end has not.
    rest: Vec<u8>,
    /// Whether `rest` begins a line or goes on with one.
    piece: Piece,
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
            end: None,
            failures: 0,
            rest: Vec::new(),
            piece: Piece::First,
        }
    }

    /// Waits for the next lines. May be dropped and called again without losing any.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(complete) = self.end {
                return Event::End { complete };
            }
            let mut lines = Vec::new();
            if self.stream.is_some() {
                self.read(&mut lines).await;
            } else {
                self.back_off().await;
                if let Err(OpenError::Gone) = self.open_stream().await {
                    self.salvage(&mut lines);
                    if lines.is_empty() {
                        return Event::End { complete: false };
                    }
                }
            }
            if !lines.is_empty() {
                return Event::Lines(lines);
            }
        }
    }

    /// Opens the stream, once the container has started.
    async fn open_stream(&mut self) -> Result<(), OpenError> {
        let state = match self.state.wait_for(|s| *s != ContainerState::Waiting).await {
            Ok(state) => *state,
            Err(_) => ContainerState::Gone,
        };
        // Without a sender nobody would ever say that the pod is gone.
        if state == ContainerState::Gone || self.state.has_changed().is_err() {
            return Err(OpenError::Gone);
        }
        let last = state == ContainerState::Terminated;
        if last && self.failures > MAX_FAILURES_AT_END {
            return Err(OpenError::Gone);
        }
        match self.open.open(self.position.since(), !last).await {
            Ok(reader) => {
                self.position.reopened();
                // The stream brings whole lines again, so what was cut off is not needed.
                self.rest = Vec::new();
                self.piece = Piece::First;
                self.metrics.opened.inc();
                self.stream = Some(Stream {
                    reader,
                    last,
                    fed: Instant::now(),
                    doubtful: false,
                });
                Ok(())
            }
            Err(error) => {
                if let OpenError::Failed(why) = &error {
                    tracing::debug!("can't open a log, will try again: {why}");
                    self.metrics.errors.inc();
                }
                self.failures = self.failures.saturating_add(1);
                Err(error)
            }
        }
    }

    /// Waits before the stream is opened again, but not once the container's state has changed.
    async fn back_off(&mut self) {
        if self.failures > 0 {
            let wait = BACKOFF
                .0
                .saturating_mul(1 << (self.failures - 1).min(10))
                .min(BACKOFF.1)
                .mul_f64(rand::random_range(0.8..1.2));
            let _ = tokio::time::timeout(wait, self.state.changed()).await;
        }
    }

    /// Reads what is there, and waits only where that is nothing.
    async fn read(&mut self, lines: &mut Vec<Line>) {
        let mut bytes = 0;
        while bytes < BATCH_BYTES && lines.len() < BATCH_LINES {
            let Some(stream) = &mut self.stream else {
                return;
            };
            let data = if lines.is_empty() {
                let limit = match *self.state.borrow_and_update() {
                    ContainerState::Waiting | ContainerState::Running => IDLE,
                    ContainerState::Terminated | ContainerState::Gone => IDLE_AT_END,
                };
                let closed = self.state.has_changed().is_err();
                tokio::select! {
                    data = stream.reader.fill_buf() => data,
                    // The limit is another one now.
                    _ = self.state.changed(), if !closed => return,
                    () = tokio::time::sleep_until(stream.fed + limit) => {
                        Err(std::io::ErrorKind::TimedOut.into())
                    }
                }
            } else {
                match stream.reader.fill_buf().now_or_never() {
                    Some(data) => data,
                    None => return,
                }
            };
            match data {
                Ok([]) => self.ended(lines),
                Ok(data) => {
                    let data = &data[..data.len().min(MAX_PIECE - self.rest.len())];
                    let newline = data.iter().position(|b| *b == b'\n');
                    let used = newline.map_or(data.len(), |at| at + 1);
                    self.rest
                        .extend_from_slice(&data[..newline.unwrap_or(used)]);
                    stream.reader.consume_unpin(used);
                    stream.fed = Instant::now();
                    bytes += used;
                    if newline.is_some() || self.rest.len() == MAX_PIECE {
                        self.cut(newline.is_some(), lines);
                    }
                }
                Err(error) => {
                    if error.kind() != std::io::ErrorKind::TimedOut {
                        tracing::debug!("a log stream broke, will open it again: {error}");
                        self.metrics.errors.inc();
                    }
                    self.stream = None;
                    self.failures = self.failures.saturating_add(1);
                }
            }
        }
    }

    /// The stream ended without an error.
    fn ended(&mut self, lines: &mut Vec<Line>) {
        let last = self.stream.as_ref().is_some_and(|s| s.last);
        if last && !self.rest.is_empty() {
            self.cut(true, lines);
        }
        let doubtful = self.stream.take().is_some_and(|s| s.doubtful);
        if last {
            self.end = Some(!doubtful && !self.position.unproven());
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Makes a line of `rest`: the end of a line, or a piece where it grows too long.
    fn cut(&mut self, end: bool, lines: &mut Vec<Line>) {
        let rest = std::mem::take(&mut self.rest);
        let (time, message) = match self.piece {
            Piece::First => split_time(&rest),
            Piece::Further(time) => (time, rest.as_slice()),
        };
        self.piece = if end {
            Piece::First
        } else {
            Piece::Further(time)
        };
        let Some(time) = time else {
            // Not the container's: the kubelet puts a time before each line. It is the kubelet
            // saying why it can't read the log, or the end of a line that began before `since`,
            // which is stored already.
            if !self.position.replaying() {
                tracing::warn!(
                    "instead of a log line: {}",
                    String::from_utf8_lossy(message)
                );
                self.doubt();
            }
            self.metrics.foreign.inc();
            return;
        };
        let line = Line {
            seq: 0,
            time,
            output: Output::Unknown,
            partial: !end,
            message: message.to_vec(),
        };
        if let Admitted::New { line, gap } = self.position.admit(line) {
            if gap {
                self.metrics.gaps.inc();
                self.doubt();
            }
            self.failures = 0;
            lines.push(line);
        }
    }

    fn doubt(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.doubtful = true;
        }
    }

    /// What came of a line before its pod vanished, rather than nothing. While lines repeat it may
    /// be the beginning of one that is stored.
    fn salvage(&mut self, lines: &mut Vec<Line>) {
        if !self.rest.is_empty() && !self.position.replaying() {
            self.cut(false, lines);
        }
        self.rest = Vec::new();
    }
}

/// The kubelet's `TIMESTAMP MESSAGE`.
fn split_time(text: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let end = text.iter().position(|b| *b == b' ').unwrap_or(text.len());
    match std::str::from_utf8(&text[..end])
        .ok()
        .and_then(|t| t.parse().ok())
    {
        Some(time) => (Some(time), text.get(end + 1..).unwrap_or_default()),
        None => (None, text),
    }
}
