//! The one task that writes the log.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, Opened, Refused, Request, STATE, frame, scan, size,
    state::{State, Stream, Totals},
};
use crate::logs::{
    disk::Disk,
    metrics::Metrics,
    planted::{Bug, planted},
    record::Record,
};

/// What one write takes at most, beyond the request that crosses it.
const GROUP: usize = 1024 * 1024;
/// Waits before a failed write is repeated: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) struct Writer<D> {
    pub(super) disk: D,
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) shutdown: CancellationToken,
    pub(super) state: State,
    /// Sealed segments and their bytes.
    pub(super) sealed: BTreeMap<u64, u64>,
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Streams that the current segment has declared.
    pub(super) declared: HashSet<u32>,
    /// Bytes stored, by uid of the job.
    pub(super) jobs: HashMap<String, u64>,
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
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        for stream in self.state.streams.values() {
            *self.jobs.entry(stream.declared.id.uid.clone()).or_default() += stream.totals.bytes;
        }
        self.metrics.wal_bytes.set(self.used().cast_signed());
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
                self.metrics.job_full.inc();
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
        // Before the answers, so that nobody who has one sees an older size.
        self.metrics.wal_bytes.set(self.used().cast_signed());
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
                let known = stream.ordinal > 0;
                let continued =
                    known && stream.declared.origin.container_id == declared.origin.container_id;
                if stream.declared != *declared {
                    stream.declared = *declared;
                    self.declared.remove(&number);
                }
                stream.forgotten = false;
                let stream = stream.clone();
                let _ = answer.send(Opened {
                    number,
                    stream,
                    known,
                    continued,
                });
            }
            Request::Find(id, answer) => {
                let number = self.state.number(&id);
                let stream = number.and_then(|n| self.state.streams.get(&n).cloned());
                let _ = answer.send(stream);
            }
            Request::After(epoch, answer) => {
                if epoch >= self.state.epoch {
                    self.state.epoch = epoch + 1;
                    self.save().await?;
                    self.epoch.store(self.state.epoch, Ordering::Relaxed);
                }
                let _ = answer.send(());
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
                let _ = answer.send(self.sealed.iter().map(|(n, bytes)| (*n, *bytes)).collect());
            }
            Request::Shipped(answer) => {
                let streams = self.state.streams.iter();
                let _ = answer.send(streams.map(|(n, s)| (*n, s.shipped)).collect());
            }
            Request::Untidy(answer) => {
                let streams = self.state.streams.iter();
                let untidy = streams
                    .filter(|(_, s)| s.untidy > 0 && s.end.is_some() && s.shipped == s.ordinal);
                let untidy = untidy.map(|(n, s)| (*n, s.declared.clone()));
                let _ = answer.send(untidy.collect());
            }
            Request::Tidied(streams, answer) => {
                for (number, done) in streams {
                    if let Some(stream) = self.state.streams.get_mut(&number) {
                        stream.untidy = if done {
                            0
                        } else {
                            stream.untidy.saturating_sub(1)
                        };
                    }
                }
                let _ = answer.send(());
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

    /// Saves what is known of all streams, again and again until it works. None where the process is
    /// ending.
    async fn save(&mut self) -> Option<()> {
        let saved = self.state.save();
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
        Some(())
    }

    async fn cut(&mut self, segment: u64) -> Option<()> {
        self.state.first = self.state.first.max(segment + 1);
        self.save().await?;
        let used: HashSet<&String> = (self.state.streams.values())
            .map(|s| &s.declared.id.uid)
            .collect();
        self.jobs.retain(|uid, _| used.contains(uid));
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
