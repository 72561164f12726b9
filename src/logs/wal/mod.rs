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
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    frame::{Declared, Frame},
    scan::Scan,
    state::{State, Stream, Totals},
};
use super::{
    disk::Disk,
    line::StreamId,
    metrics::Metrics,
    planted::{Bug, planted},
    record::Record,
};

const STATE: &str = "streams.state";
/// What one write takes at most, beyond the request that crosses it.
const GROUP: usize = 1024 * 1024;
/// Waits before a failed write is repeated: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
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
    /// Only these pods' streams are still needed.
    Keep(HashSet<String>, oneshot::Sender<()>),
    Seal(oneshot::Sender<Vec<u64>>),
    Shipped(oneshot::Sender<HashMap<u32, u64>>),
    Cut(u64, HashMap<u32, u64>, oneshot::Sender<()>),
}

/// The log, for those who write to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Wal {
    requests: mpsc::Sender<Request>,
    waiting: Arc<Semaphore>,
    /// Names this log.
    pub epoch: u64,
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
        let epoch = state.epoch;
        let writer = Writer {
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

    /// What is known of a stream.
    pub async fn find(&self, id: &StreamId) -> Option<Stream> {
        self.ask(|answer| Request::Find(id.clone(), answer))
            .await
            .flatten()
    }

    /// Stores records of a stream; when it returns they are safe. One call at a time a stream.
    ///
    /// # Errors
    /// Where none of them is stored.
    pub async fn append(&self, stream: u32, records: Vec<Record>) -> Result<Totals, Refused> {
        let bytes: usize = records.iter().map(size).sum();
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

    /// Seals the current segment, and gives all sealed ones, the oldest first. None where the process
    /// is ending.
    pub async fn seal(&self) -> Option<Vec<u64>> {
        self.ask(Request::Seal).await
    }

    /// The place of each stream's first record that the sinks may lack.
    pub async fn shipped(&self) -> Option<HashMap<u32, u64>> {
        self.ask(Request::Shipped).await
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

struct Writer<D> {
    disk: D,
    limits: Limits,
    metrics: Metrics,
    shutdown: CancellationToken,
    state: State,
    /// Sealed segments and their bytes.
    sealed: BTreeMap<u64, u64>,
    segment: u64,
    offset: u64,
    /// Streams that the current segment has declared.
    declared: HashSet<u32>,
    /// Bytes stored, by uid of the job.
    jobs: HashMap<String, u64>,
}

type Answer = oneshot::Sender<Result<Totals, Refused>>;

#[derive(Default)]
struct Group {
    data: Vec<u8>,
    records: Vec<(u32, Vec<Record>, Answer)>,
    ordinals: HashMap<u32, u64>,
    declared: Vec<u32>,
    /// Kept until the records are safe: they bound what waits.
    waiting: Vec<OwnedSemaphorePermit>,
}

impl<D: Disk> Writer<D> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        for stream in self.state.streams.values() {
            *self.jobs.entry(stream.declared.id.uid.clone()).or_default() += stream.totals.bytes;
        }
        while let Some(request) = requests.recv().await {
            let mut group = Group::default();
            let mut next = Some(request);
            // What is no append ends the group, so that it sees what came before it.
            while let Some(request) = next.take() {
                match request {
                    Request::Append {
                        stream,
                        records,
                        answer,
                        _waiting,
                    } => {
                        group.waiting.push(_waiting);
                        self.stage(&mut group, stream, records, answer);
                        if group.data.len() < GROUP {
                            next = requests.try_recv().ok();
                        }
                    }
                    other => {
                        if self.write(std::mem::take(&mut group)).await.is_none() {
                            return;
                        }
                        if self.serve(other).await.is_none() {
                            return;
                        }
                    }
                }
            }
            if self.write(group).await.is_none() {
                return;
            }
        }
    }

    fn used(&self) -> u64 {
        self.offset + self.sealed.values().sum::<u64>()
    }

    fn stage(
        &mut self,
        group: &mut Group,
        number: u32,
        records: Vec<Record>,
        answer: oneshot::Sender<Result<Totals, Refused>>,
    ) {
        let Some(stream) = self.state.streams.get(&number) else {
            let _ = answer.send(Err(Refused::Stopping));
            return;
        };
        let bytes: u64 = records.iter().map(|r| size(r) as u64).sum();
        // Records without lines are few, and say what is missing: they are always taken.
        if records.iter().any(|r| matches!(r, Record::Line(_))) {
            // An empty log takes anything: no batch waits for room that there will never be.
            let used = self.used() + group.data.len() as u64;
            if used > 0 && used + bytes > self.limits.quota {
                let _ = answer.send(Err(Refused::Full));
                return;
            }
            let job = self.jobs.get(&stream.declared.id.uid).copied();
            if job.unwrap_or(0) + bytes > self.limits.job {
                let _ = answer.send(Err(Refused::Job));
                return;
            }
        }
        if planted(Bug::AckBeforeWrite) {
            let mut stream = stream.clone();
            stream.stored(&records, self.segment);
            let totals = stream.totals;
            let (unheard, _) = oneshot::channel();
            let _ = answer.send(Ok(totals));
            return self.encode(group, number, records, unheard);
        }
        self.encode(group, number, records, answer);
    }

    fn encode(
        &mut self,
        group: &mut Group,
        number: u32,
        records: Vec<Record>,
        answer: oneshot::Sender<Result<Totals, Refused>>,
    ) {
        let Some(stream) = self.state.streams.get(&number) else {
            return;
        };
        if !self.declared.contains(&number) && !group.declared.contains(&number) {
            frame::put_stream(number, &stream.declared, &mut group.data);
            group.declared.push(number);
        }
        let ordinal = group.ordinals.entry(number).or_insert(stream.ordinal);
        frame::put_records(number, *ordinal, &records, &mut group.data);
        *ordinal += records.len() as u64;
        group.records.push((number, records, answer));
    }

    /// Writes the group, again and again until it is safe. None where the process is ending.
    async fn write(&mut self, mut group: Group) -> Option<()> {
        if group.records.is_empty() {
            return Some(());
        }
        let mut wait = BACKOFF.0;
        loop {
            if planted(Bug::AckBeforeSync) {
                let name = scan::name(self.segment);
                let _ = self
                    .disk
                    .write(&name, self.offset, group.data.clone())
                    .await;
                self.written(group);
                return Some(());
            }
            let tried = self.try_write(&group.data).await;
            match tried {
                Ok(()) => break,
                Err((error, synced)) => {
                    self.metrics.wal_errors.inc();
                    tracing::warn!(
                        "can't write to the write-ahead log: {error}; lines wait until it works: check the volume's space"
                    );
                    if synced {
                        // After a failed fsync nobody knows what the file holds: it is left alone.
                        self.roll();
                        group = self.encoded_again(group);
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
        self.written(group);
        if self.offset >= self.limits.segment {
            self.roll();
        }
        Some(())
    }

    async fn try_write(&self, data: &[u8]) -> Result<(), (io::Error, bool)> {
        let name = scan::name(self.segment);
        self.disk
            .write(&name, self.offset, data.to_vec())
            .await
            .map_err(|e| (e, false))?;
        self.disk.sync(&name).await.map_err(|e| (e, true))
    }

    /// The same records for a new segment, which must declare their streams.
    fn encoded_again(&mut self, group: Group) -> Group {
        let mut again = Group {
            waiting: group.waiting,
            ..Group::default()
        };
        for (number, records, answer) in group.records {
            self.encode(&mut again, number, records, answer);
        }
        again
    }

    fn written(&mut self, group: Group) {
        self.offset += group.data.len() as u64;
        self.declared.extend(group.declared);
        for (number, records, answer) in group.records {
            let Some(stream) = self.state.streams.get_mut(&number) else {
                continue;
            };
            let before = stream.totals.bytes;
            stream.stored(&records, self.segment);
            let bytes = stream.totals.bytes - before;
            *self.jobs.entry(stream.declared.id.uid.clone()).or_default() += bytes;
            let _ = answer.send(Ok(stream.totals));
        }
        self.metrics.wal_bytes.set(self.used().cast_signed());
    }

    fn roll(&mut self) {
        self.sealed.insert(self.segment, self.offset);
        self.segment += 1;
        self.offset = 0;
        self.declared.clear();
    }

    /// None where the process is ending.
    async fn serve(&mut self, request: Request) -> Option<()> {
        match request {
            Request::Append { .. } => {}
            Request::Open(declared, answer) => {
                let number = self.state.number(&declared.id).unwrap_or_else(|| {
                    self.state.next += 1;
                    self.state.next - 1
                });
                let stream = self
                    .state
                    .streams
                    .entry(number)
                    .or_insert_with(|| Stream::new((*declared).clone()));
                let continued = stream.ordinal > 0
                    && stream.declared.origin.container_id == declared.origin.container_id;
                if stream.declared != *declared {
                    stream.declared = *declared;
                    self.declared.remove(&number);
                }
                stream.forgotten = false;
                let stream = stream.clone();
                let _ = answer.send(Opened {
                    number,
                    stream,
                    continued,
                });
            }
            Request::Find(id, answer) => {
                let number = self.state.number(&id);
                let stream = number.and_then(|n| self.state.streams.get(&n).cloned());
                let _ = answer.send(stream);
            }
            Request::Keep(pods, answer) => {
                for stream in self.state.streams.values_mut() {
                    stream.forgotten = !pods.contains(&stream.declared.origin.pod_uid);
                }
                let _ = answer.send(());
            }
            Request::Seal(answer) => {
                if self.offset > 0 {
                    self.roll();
                }
                let _ = answer.send(self.sealed.keys().copied().collect());
            }
            Request::Shipped(answer) => {
                let streams = self.state.streams.iter();
                let _ = answer.send(streams.map(|(n, s)| (*n, s.shipped)).collect());
            }
            Request::Cut(segment, shipped, answer) => {
                for (number, ordinal) in shipped {
                    if let Some(stream) = self.state.streams.get_mut(&number) {
                        stream.shipped = stream.shipped.max(ordinal);
                    }
                }
                self.cut(segment).await?;
                let _ = answer.send(());
            }
        }
        Some(())
    }

    async fn cut(&mut self, segment: u64) -> Option<()> {
        self.state.first = self.state.first.max(segment + 1);
        let saved = self.state.save();
        let used: HashSet<&String> = (self.state.streams.values())
            .map(|s| &s.declared.id.uid)
            .collect();
        self.jobs.retain(|uid, _| used.contains(uid));
        let mut wait = BACKOFF.0;
        while let Err(error) = self.disk.replace(STATE, saved.clone()).await {
            self.metrics.wal_errors.inc();
            tracing::warn!("can't save what the write-ahead log knows: {error}");
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
        let cut: Vec<u64> = self.sealed.range(..=segment).map(|(n, _)| *n).collect();
        for segment in cut {
            // One that stays is deleted at the next start.
            if let Err(error) = self.disk.delete(&scan::name(segment)).await {
                tracing::warn!("can't delete a segment of the write-ahead log: {error}");
            }
            self.sealed.remove(&segment);
        }
        self.metrics.wal_bytes.set(self.used().cast_signed());
        Some(())
    }
}
