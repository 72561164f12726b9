//! Reading back: the stored lines of a job, those of all ranks merged by time, also while they are
//! being written and after the pods are gone.
//!
//! Lines of one container keep their stored order, whatever their stamps say. Files are opened only
//! for the moment in which a piece is read, so a gang of a thousand ranks costs no thousand open
//! files. Following looks for growth a few times a second: unlike notifications that works on every
//! volume.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    fs::File,
    future::Future,
    io::{self, Read, Seek},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

use super::{
    line::{self, StreamId},
    store::{LogFile, Store},
};

/// Text is handed on in pieces of about this size.
const BLOCK: usize = 64 * 1024;
/// What all streams of one reader may buffer together, beyond the line that each is at.
const BUFFERS: usize = 1024 * 1024;
/// Between two looks for growth; more with very many ranks.
const POLL: Duration = Duration::from_millis(200);
/// How long, at least and at most, last lines are waited for after the job has ended: containers
/// that ran for a moment may not be in the store yet, and one whose pod vanished may never end.
const LINGER: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(10));

/// Why there is nothing to read.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing of the job.
    #[error(
        "no lines of job {job} in namespace {namespace} are stored: check the name and the namespace; lines from before the collector was installed are not there"
    )]
    NoJob {
        /// Namespace that was asked for.
        namespace: String,
        /// Job that was asked for.
        job: String,
    },
    /// The job is there, its lines are not.
    #[error(
        "job {job} in namespace {namespace} has not logged anything yet: --follow waits for its lines; kubectl describe trainingjob {job} -n {namespace} says what it waits for"
    )]
    NotYet {
        /// Namespace that was asked for.
        namespace: String,
        /// Job that was asked for.
        job: String,
    },
    /// Not that attempt.
    #[error("no lines of attempt {attempt} are stored; there are lines of {there}")]
    NoAttempt {
        /// What was asked for.
        attempt: u32,
        /// What there is.
        there: String,
    },
    /// Not that rank.
    #[error("no lines of rank {rank} are stored for {attempt}; there are lines of {there}")]
    NoRank {
        /// What was asked for.
        rank: u32,
        /// Of which attempt.
        attempt: String,
        /// What there is.
        there: String,
    },
    /// The folder or a file.
    #[error("can't read the store in {path}: {source}; check --store and its rights")]
    Io {
        /// The store.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The collector is being stopped.
    #[error("the collector is stopping; ask again in a moment")]
    Stopping,
}

/// Which attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attempts {
    /// The newest one; when following, those after it too.
    #[default]
    Newest,
    /// One.
    One(u32),
    /// All.
    All,
}

impl FromStr for Attempts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Self::Newest),
            "all" => Ok(Self::All),
            n => n
                .parse()
                .map(Self::One)
                .map_err(|_| "an attempt is its number, from 1, or `all`, or `newest`".to_owned()),
        }
    }
}

impl std::fmt::Display for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::All => f.write_str("all"),
            Self::One(n) => n.fmt(f),
        }
    }
}

/// What to read of a job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Which attempts.
    pub attempts: Attempts,
    /// One rank, or all.
    pub rank: Option<u32>,
    /// Go on with lines, ranks and attempts that are still to come.
    pub follow: bool,
}

/// One job, by its uid.
#[derive(Clone, Debug)]
pub struct Job {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// The selected streams of a job, merged.
pub struct Reader {
    store: Store,
    job: Job,
    attempts: RangeInclusive<u32>,
    rank: Option<u32>,
    tails: Vec<Tail>,
    known: BTreeSet<StreamId>,
    /// The next line of each tail that has one, the earliest first. Refilled when it is empty.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
}

impl Reader {
    /// Opens what is stored of `job`.
    ///
    /// # Errors
    /// Where nothing of the selection is stored, unless it is followed; where the store can't be
    /// read.
    pub fn open(store: Store, job: Job, selection: Selection) -> Result<Self, Error> {
        let io = |source| failed(&store, source);
        let streams = store
            .streams(&job.namespace, &job.name, &job.uid)
            .map_err(io)?;
        let newest = streams.iter().map(|s| s.attempt).max().unwrap_or(0);
        let attempts = match selection.attempts {
            Attempts::Newest if selection.follow => newest..=u32::MAX,
            Attempts::Newest => newest..=newest,
            Attempts::One(n) => n..=n,
            Attempts::All => 0..=u32::MAX,
        };
        if !selection.follow {
            check(&streams, &job, &attempts, selection.rank)?;
        }
        let mut reader = Self {
            store,
            job,
            attempts,
            rank: selection.rank,
            tails: Vec::new(),
            known: BTreeSet::new(),
            heads: BinaryHeap::new(),
        };
        reader.add(streams);
        Ok(reader)
    }

    fn add(&mut self, streams: Vec<StreamId>) {
        for id in streams {
            let selected =
                self.attempts.contains(&id.attempt) && self.rank.is_none_or(|rank| rank == id.rank);
            if selected && self.known.insert(id.clone()) {
                self.tails.push(Tail::new(id));
            }
        }
    }

    /// The next lines in the uniform format, whole ones; None where nothing more is there now.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let chunk = (BUFFERS / self.tails.len().max(1)).clamp(4096, BLOCK);
        let mut block = Vec::new();
        if self.heads.is_empty() {
            for at in 0..self.tails.len() {
                self.push_head(at, chunk)?;
            }
        }
        while block.len() < BLOCK {
            let Some(Reverse((_, at))) = self.heads.pop() else {
                break;
            };
            block.extend_from_slice(self.tails[at].take());
            self.push_head(at, chunk)?;
        }
        Ok((!block.is_empty()).then_some(block))
    }

    fn push_head(&mut self, at: usize, chunk: usize) -> Result<(), Error> {
        let head = self.tails[at].peek(&self.store, chunk);
        if let Some(time) = head.map_err(|e| failed(&self.store, e))? {
            self.heads.push(Reverse((time, at)));
        }
        Ok(())
    }

    /// Looks for ranks and attempts that came since.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let job = &self.job;
        let streams = self
            .store
            .streams(&job.namespace, &job.name, &job.uid)
            .map_err(|e| failed(&self.store, e))?;
        self.add(streams);
        Ok(())
    }

    /// Whether every selected stream has been stored to its end. Lines may still be unread.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.tails.iter().all(|t| self.store.end(&t.id).is_some())
    }

    /// Whether the store has an attempt after the selected ones.
    fn passed(&self) -> bool {
        let job = &self.job;
        self.store
            .streams(&job.namespace, &job.name, &job.uid)
            .is_ok_and(|streams| streams.iter().any(|s| s.attempt > *self.attempts.end()))
    }
}

fn failed(store: &Store, source: io::Error) -> Error {
    Error::Io {
        path: store.root().to_owned(),
        source,
    }
}

/// Says what is there instead, where nothing is selected.
fn check(
    streams: &[StreamId],
    job: &Job,
    attempts: &RangeInclusive<u32>,
    rank: Option<u32>,
) -> Result<(), Error> {
    if streams.is_empty() {
        return Err(Error::NoJob {
            namespace: job.namespace.clone(),
            job: job.name.clone(),
        });
    }
    let selected = || streams.iter().filter(|s| attempts.contains(&s.attempt));
    if selected().next().is_none() {
        return Err(Error::NoAttempt {
            attempt: *attempts.start(),
            there: enumerate("attempt", streams.iter().map(|s| s.attempt)),
        });
    }
    if let Some(rank) = rank
        && !selected().any(|s| s.rank == rank)
    {
        return Err(Error::NoRank {
            rank,
            attempt: enumerate("attempt", selected().map(|s| s.attempt)),
            there: enumerate("rank", selected().map(|s| s.rank)),
        });
    }
    Ok(())
}

/// `ranks 0-3, 5`.
fn enumerate(what: &str, numbers: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for n in numbers.collect::<BTreeSet<_>>() {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let plural = runs.len() > 1 || runs.first().is_some_and(|(a, b)| a != b);
    let runs: Vec<_> = runs
        .iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    format!(
        "{what}{} {}",
        if plural { "s" } else { "" },
        runs.join(", ")
    )
}

/// Reads one stream forward through its files.
struct Tail {
    id: StreamId,
    file: Option<LogFile>,
    offset: u64,
    /// What was read and not taken; the next line is `buffer[start..end]` once it is whole.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of the last line; never goes back, so that the order of the stream is kept.
    time: Timestamp,
}

impl Tail {
    fn new(id: StreamId) -> Self {
        Self {
            id,
            file: None,
            offset: 0,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            time: Timestamp::MIN,
        }
    }

    /// Makes sure that the next line is whole, and gives its time. None where it is not there yet.
    fn peek(&mut self, store: &Store, chunk: usize) -> io::Result<Option<Timestamp>> {
        let mut searched = self.start;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                self.end = searched + at + 1;
                let time = line::time_of(&self.buffer[self.start..self.end]);
                self.time = time.map_or(self.time, |t| t.max(self.time));
                return Ok(Some(self.time));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if !self.fill(store, chunk)? {
                return Ok(None);
            }
        }
    }

    /// The line that was peeked at.
    fn take(&mut self) -> &[u8] {
        let line = self.start..self.end;
        self.start = self.end;
        &self.buffer[line]
    }

    /// Reads on. False where nothing more is there.
    fn fill(&mut self, store: &Store, chunk: usize) -> io::Result<bool> {
        let mut next: Option<LogFile> = None;
        loop {
            if let Some(current) = &self.file {
                let mut file = File::open(&current.path)?;
                file.seek(io::SeekFrom::Start(self.offset))?;
                let n = file.take(chunk as u64).read_to_end(&mut self.buffer)?;
                if n > 0 {
                    self.offset += n as u64;
                    return Ok(true);
                }
            }
            // The old file may have grown before the new one was begun, so it is read once more
            // after the new one was seen.
            if let Some(next) = next.take() {
                self.file = Some(next);
                self.offset = 0;
                continue;
            }
            let first = self.file.as_ref().map(|f| f.first);
            next = store
                .files(&self.id)?
                .into_iter()
                .find(|f| first.is_none_or(|first| f.first > first));
            if next.is_none() {
                return Ok(false);
            }
        }
    }
}

/// Sends everything that `reader` selects to `out`. With `ended`, goes on until that has happened
/// and the last lines are there, or a later attempt has taken over from the one asked for. Ends
/// when nobody listens any more.
///
/// # Errors
/// Where the store can't be read.
pub async fn send(
    mut reader: Reader,
    ended: Option<impl Future<Output = ()>>,
    out: mpsc::Sender<Result<Vec<u8>, Error>>,
) -> Result<(), Error> {
    let follow = ended.is_some();
    let mut ended = std::pin::pin!(async {
        match ended {
            Some(ended) => ended.await,
            None => std::future::pending().await,
        }
    });
    let mut linger: Option<Instant> = None;
    loop {
        // Whether it was over is asked before reading: what is not there after that never will be.
        let work = tokio::task::spawn_blocking(move || {
            let over = reader.ended();
            let block = reader.next_block();
            (reader, over, block)
        });
        let over;
        let block;
        (reader, over, block) = match work.await {
            Ok((reader, over, block)) => (reader, over, block?),
            // Only where the process is ending.
            Err(_) => return Ok(()),
        };
        if let Some(block) = block {
            if out.send(Ok(block)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if !follow {
            return Ok(());
        }
        if let Some(since) = linger
            && since.elapsed() > if over { LINGER.0 } else { LINGER.1 }
        {
            return Ok(());
        }
        let many = u32::try_from(reader.tails.len() / 200).unwrap_or(5).min(4);
        tokio::select! {
            () = &mut ended, if linger.is_none() => linger = Some(Instant::now()),
            () = tokio::time::sleep(POLL * (1 + many)) => {}
            () = out.closed() => return Ok(()),
        }
        reader.refresh()?;
        if linger.is_none() && reader.passed() {
            linger = Some(Instant::now());
        }
    }
}
