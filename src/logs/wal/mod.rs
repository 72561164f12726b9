//! The write-ahead log: records of all streams in one sequence of files ("segments"), safe on disk
//! before anybody is told so.
//!
//! ```text
//! append ─┐
//! append ─┼─→ one writer: all that wait go into one write and one fsync ─→ then they are answered
//! append ─┘        │
//!                  └─ seals a segment that is full, or that is asked for; sealed ones are shipped to
//!                     the sinks whole, and cut when every sink has them
//! ```
//!
//! A crash at any instruction leaves whole frames and at most a torn end, behind which nothing is ever
//! written: each start begins a new segment. What is known of each stream is saved in one file before
//! a segment is cut; replaying segments over a newer such file changes nothing, because every record
//! has its place ("ordinal") in its stream.

pub mod frame;
pub mod scan;
pub mod state;
#[cfg(test)]
pub(super) mod tests;
mod writer;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    frame::{Declared, Frame},
    scan::Scan,
    state::{State, Stream, Totals},
    writer::Writer,
};
use super::{
    disk::Disk,
    line::StreamId,
    metrics::Metrics,
    planted::{Bug, planted},
    record::Record,
};

const STATE: &str = "streams.state";
/// Bytes of records that may wait for the disk, of all streams together.
const WAITING: usize = 32 * 1024 * 1024;

/// How large the log may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment is sealed when it has this many bytes.
    pub segment: u64,
    /// Beyond this many bytes nothing more is taken until segments are cut.
    pub quota: u64,
    /// Bytes of messages that one job may store.
    pub job: u64,
}

/// Why records were not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The quota of the whole log; it can be tried again.
    #[error("the write-ahead log is full because the store does not take its lines")]
    Full,
    /// The quota of the job.
    #[error("the job has stored as much as a job may")]
    Job,
    /// The process is ending.
    #[error("the collector is stopping")]
    Stopping,
}

/// A stream that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its number, for [`Wal::append`].
    pub number: u32,
    /// What is known of it.
    pub stream: Stream,
    /// Whether something of it is known.
    pub known: bool,
    /// Whether something of this run of the container is known.
    pub continued: bool,
}

enum Request {
    Open(Box<Declared>, oneshot::Sender<Opened>),
    Append {
        stream: u32,
        records: Vec<Record>,
        answer: oneshot::Sender<Result<Totals, Refused>>,
        _waiting: OwnedSemaphorePermit,
    },
    Find(StreamId, oneshot::Sender<Option<Stream>>),
    /// This log is newer than the one of that epoch.
    After(u64, oneshot::Sender<()>),
    /// Only these pods' streams are still needed.
    Keep(HashSet<String>, oneshot::Sender<()>),
    Seal(oneshot::Sender<Vec<(u64, u64)>>),
    Shipped(oneshot::Sender<HashMap<u32, u64>>),
    Cut(u64, HashMap<u32, u64>, oneshot::Sender<()>),
    Untidy(oneshot::Sender<Vec<(u32, Declared)>>),
    /// Whether the sinks have tidied up.
    Tidied(Vec<(u32, bool)>, oneshot::Sender<()>),
}

/// The log, for those who write to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Wal {
    requests: mpsc::Sender<Request>,
    waiting: Arc<Semaphore>,
    epoch: Arc<AtomicU64>,
}

impl Wal {
    /// Reads the log on `disk`, or begins it with `epoch`, and starts its writer.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn open<D: Disk>(
        disk: D,
        epoch: u64,
        limits: Limits,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let (state, sizes) = recover(&disk, epoch).await?;
        let last = sizes.last_key_value().map_or(state.first, |(n, _)| *n);
        let segment = if planted(Bug::NewSegmentNumberReused) {
            last
        } else {
            last.max(state.first) + 1
        };
        let (requests, receiver) = mpsc::channel(1024);
        let epoch = Arc::new(AtomicU64::new(state.epoch));
        let writer = Writer {
            epoch: epoch.clone(),
            disk,
            limits,
            metrics,
            shutdown,
            state,
            sealed: sizes,
            segment,
            offset: 0,
            declared: HashSet::new(),
            jobs: HashMap::new(),
        };
        tokio::spawn(writer.run(receiver));
        Ok(Self {
            requests,
            waiting: Arc::new(Semaphore::new(WAITING)),
            epoch,
        })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Opens a stream, new or continued. None where the process is ending.
    pub async fn stream(&self, declared: Declared) -> Option<Opened> {
        self.ask(|answer| Request::Open(Box::new(declared), answer))
            .await
    }

    /// Names this log: another one, on a new volume, has another, a greater one for all streams that
    /// both know.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Sees to it that the epoch is greater than that of a log that was there before, whatever the clock
    /// said when this one began. None where the process is ending.
    pub async fn after(&self, epoch: u64) -> Option<()> {
        self.ask(|answer| Request::After(epoch, answer)).await
    }

    /// What is known of a stream.
    pub async fn find(&self, id: &StreamId) -> Option<Stream> {
        self.ask(|answer| Request::Find(id.clone(), answer))
            .await
            .flatten()
    }

    /// Stores records of a stream, at most a few MiB of them; when it returns they are safe. One call at a
    /// time a stream.
    ///
    /// # Errors
    /// Where none of them is stored.
    pub async fn append(&self, stream: u32, records: Vec<Record>) -> Result<Totals, Refused> {
        let bytes: usize = records.iter().map(size).sum();
        debug_assert!(
            bytes < frame::MAX_FRAME,
            "a frame that nobody would read back"
        );
        let permits = u32::try_from(bytes.min(WAITING)).unwrap_or(u32::MAX);
        let waiting = self.waiting.clone().acquire_many_owned(permits).await;
        let Ok(waiting) = waiting else {
            return Err(Refused::Stopping);
        };
        self.ask(|answer| Request::Append {
            stream,
            records,
            answer,
            _waiting: waiting,
        })
        .await
        .unwrap_or(Err(Refused::Stopping))
    }

    /// Says which pods there are: the streams of all others are forgotten once they are shipped.
    pub async fn keep(&self, pods: HashSet<String>) {
        self.ask(|answer| Request::Keep(pods, answer)).await;
    }

    /// Seals the current segment, and gives all sealed ones, the oldest first, with the number of bytes
    /// that are safe: what is behind them (after a failed fsync) may be gone after a crash, and nobody
    /// may be given it. None where the process is ending.
    pub async fn seal(&self) -> Option<Vec<(u64, u64)>> {
        self.ask(Request::Seal).await
    }

    /// The place of each stream's first record that the sinks may lack.
    pub async fn shipped(&self) -> Option<HashMap<u32, u64>> {
        self.ask(Request::Shipped).await
    }

    /// The streams that have ended, and that the sinks have all of and have not tidied up. None where the
    /// process is ending.
    pub async fn untidy(&self) -> Option<Vec<(u32, Declared)>> {
        self.ask(Request::Untidy).await
    }

    /// Says of each such stream whether the sinks have tidied up. It may be forgotten in a crash.
    pub async fn tidied(&self, streams: Vec<(u32, bool)>) {
        self.ask(|answer| Request::Tidied(streams, answer)).await;
    }

    /// Every sink has everything up to this segment, which must be a sealed one, and of each stream
    /// what comes before such a place.
    pub async fn cut(&self, segment: u64, shipped: HashMap<u32, u64>) {
        self.ask(|answer| Request::Cut(segment, shipped, answer))
            .await;
    }
}

fn size(record: &Record) -> usize {
    match record {
        Record::Line(line) => line.message.len() + 64,
        _ => 256,
    }
}

async fn recover<D: Disk>(disk: &D, epoch: u64) -> io::Result<(State, BTreeMap<u64, u64>)> {
    let saved = match disk.read(STATE, 0, usize::MAX).await {
        Ok(data) => State::load(&data).map_err(|e| {
            io::Error::new(e.kind(), format!("{STATE} of the write-ahead log: {e}"))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => State {
            epoch,
            ..State::default()
        },
        Err(error) => return Err(error),
    };
    let mut state = saved;
    let mut sizes = BTreeMap::new();
    for segment in scan::segments(disk).await? {
        if segment < state.first {
            disk.delete(&scan::name(segment)).await?;
            continue;
        }
        let mut numbers = HashMap::new();
        let mut scan = Scan::new(disk.clone(), segment);
        while let Some(frame) = scan.next().await? {
            replay(&mut state, &mut numbers, segment, frame);
        }
        // A killed process may have left what is not on the disk yet; from here on it counts.
        disk.sync(&scan::name(segment)).await?;
        sizes.insert(segment, scan.offset);
    }
    if state.first == 0 {
        // So that the log keeps its name.
        disk.replace(STATE, state.save()).await?;
    }
    Ok((state, sizes))
}

fn replay(state: &mut State, declared: &mut HashMap<u32, ()>, segment: u64, frame: Frame) {
    match frame {
        Frame::Stream(number, by) => {
            declared.insert(number, ());
            state.next = state.next.max(number + 1);
            let stream = state
                .streams
                .entry(number)
                .or_insert_with(|| Stream::new((*by).clone()));
            stream.declared = *by;
            stream.segment = stream.segment.max(segment);
        }
        Frame::Records {
            stream,
            ordinal,
            records,
        } => {
            let Some(stream) = state.streams.get_mut(&stream) else {
                return;
            };
            if stream.ordinal == 0 && stream.totals.lines == 0 {
                // Forgotten before, and what is in this segment was shipped then.
                stream.ordinal = stream.ordinal.max(ordinal);
            }
            let known =
                usize::try_from(stream.ordinal.saturating_sub(ordinal)).unwrap_or(usize::MAX);
            let known = if planted(Bug::ReplayIgnoresOrdinals) {
                0
            } else {
                known
            };
            if let Some(new) = records.get(known..) {
                stream.stored(new, segment);
            }
        }
    }
}
