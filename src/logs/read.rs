//! Reading back: the stored lines of a job, those of all ranks merged by time, also while they are
//! being written and after the pods are gone.
//!
//! Lines of one container keep their stored order, whatever their stamps say. First come the files, all
//! streams merged; then the write-ahead log, in the order in which lines came, which is nearly the same.
//! A segment that is cut meanwhile is no loss: its lines are in files then, and are read there. Following
//! looks for growth a few times a second: unlike notifications that works on every volume, and a line is
//! seen as soon as it is safe.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    future::Future,
    io,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

use super::{
    columns::Decoder,
    disk::Disk,
    lake::{Files, decode},
    layout,
    line::{Formatter, Line, StreamId},
    record::Record,
    store::{self, Store},
    wal::{
        frame::Frame,
        scan::{self, Scan},
    },
};

/// Text is handed on in pieces of about this size.
const BLOCK: usize = 64 * 1024;
/// What of the write-ahead log is merged at a time.
const WINDOW: usize = 1024 * 1024;
/// Between two looks for growth.
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
    /// The store.
    #[error("can't read the store in {place}: {source}; check --store and its rights")]
    Store {
        /// Where it is.
        place: String,
        /// Why not.
        source: Box<store::Error>,
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

mod reader;

pub use reader::Reader;

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

/// Starts to [`send`] what `reader` selects; an error comes as the last block. It ends when the
/// receiver is dropped.
pub fn start<D: Disk>(
    reader: Reader<D>,
    ended: Option<impl Future<Output = ()> + Send + 'static>,
) -> mpsc::Receiver<Result<Vec<u8>, Error>> {
    let (out, blocks) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(error) = send(reader, ended, out.clone()).await {
            let _ = out.send(Err(error)).await;
        }
    });
    blocks
}

/// Sends everything that `reader` selects to `out`. With `ended`, goes on until that has happened
/// and the last lines are there, or a later attempt has taken over from the one asked for. Ends
/// when nobody listens any more.
///
/// # Errors
/// Where the store can't be read.
pub async fn send<D: Disk>(
    mut reader: Reader<D>,
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
        if let Some(block) = reader.next_block().await? {
            if out.send(Ok(block)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        if !follow {
            return Ok(());
        }
        if let Some(since) = linger
            && since.elapsed() > if reader.ended() { LINGER.0 } else { LINGER.1 }
        {
            return Ok(());
        }
        tokio::select! {
            () = &mut ended, if linger.is_none() => linger = Some(Instant::now()),
            () = tokio::time::sleep(POLL) => {}
            () = out.closed() => return Ok(()),
        }
        if linger.is_none() && reader.passed() {
            linger = Some(Instant::now());
        }
    }
}
