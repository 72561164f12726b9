//! What readers read: the files in the lake, and what is still in the write-ahead log beside it.

use std::{collections::BTreeMap, io, path::Path};

use k8s_openapi::jiff::Timestamp;
use thiserror::Error;

use super::{
    disk::{Disk, Folder},
    lake::{Lake, OpenError},
    layout,
    line::StreamId,
    record::Record,
    sink,
    wal::{
        frame::Frame,
        scan::{self, Scan},
    },
};

/// Why something could not be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The files.
    #[error(transparent)]
    Lake(#[from] sink::Error),
    /// The write-ahead log.
    #[error("can't read the write-ahead log: {0}")]
    Wal(#[from] io::Error),
}

/// Stored lines, and where they are.
#[derive(Clone, Debug)]
pub struct Store<D = Folder> {
    /// The files.
    pub lake: Lake,
    /// The write-ahead log, where it can be read from here.
    pub wal: Option<D>,
}

/// What the write-ahead log has of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// When its first line came.
    pub since: Option<Timestamp>,
    /// Number of its last line; 0 where there is none.
    pub last: u64,
}

impl Store {
    /// Name of the write-ahead log's folder in a store that is a folder itself.
    pub const WAL: &'static str = "wal";

    /// The store at a place, a folder or a URL, to be read.
    ///
    /// # Errors
    /// Where there is none.
    pub fn at(place: &str) -> Result<Self, OpenError> {
        let wal = Path::new(place).join(Self::WAL);
        Ok(Self {
            lake: Lake::open(place)?,
            wal: wal.is_dir().then(|| Folder::new(wal)),
        })
    }
}

impl<D: Disk> Store<D> {
    /// Of its two parts.
    #[must_use]
    pub fn new(lake: Lake, wal: Option<D>) -> Self {
        Self { lake, wal }
    }

    /// The uid of the newest job of that name: the one whose first line was stored last.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn newest_uid(&self, namespace: &str, job: &str) -> Result<Option<String>, Error> {
        let mut first = BTreeMap::<String, Option<Timestamp>>::new();
        let mut seen = |uid: String, time: Option<Timestamp>| {
            let known = first.entry(uid).or_default();
            *known = [*known, time].into_iter().flatten().min();
        };
        for (id, fresh) in self.fresh(namespace, job).await? {
            seen(id.uid, fresh.since);
        }
        if let Some(folder) = layout::job(namespace, job) {
            for (id, files) in self.lake.list(&folder).await? {
                seen(id.uid, files.since);
            }
        }
        let newest = first.into_iter().max_by_key(|(_, time)| *time);
        Ok(newest.map(|(uid, _)| uid))
    }

    /// The streams of a job that the write-ahead log has something of.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn fresh(&self, namespace: &str, job: &str) -> io::Result<BTreeMap<StreamId, Fresh>> {
        let mut streams = BTreeMap::<StreamId, Fresh>::new();
        let of_job = |id: &StreamId| id.namespace == namespace && id.job == job;
        self.read_wal(of_job, |id, records| {
            let known = streams.entry(id.clone()).or_default();
            for record in &records {
                if let Record::Line(line) = record {
                    known.since = known.since.or(Some(line.observed));
                    known.last = known.last.max(line.seq);
                }
            }
        })
        .await?;
        Ok(streams)
    }

    /// Gives `take` what the write-ahead log has of the selected streams, in the order in which it came;
    /// of a stream that is declared there, nothing first. What is cut meanwhile is in the lake.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn read_wal(
        &self,
        selected: impl Fn(&StreamId) -> bool,
        mut take: impl FnMut(&StreamId, Vec<Record>),
    ) -> io::Result<()> {
        let Some(disk) = &self.wal else {
            return Ok(());
        };
        for segment in scan::segments(disk).await? {
            let mut scan = Scan::new(disk.clone(), segment);
            let mut names = BTreeMap::new();
            loop {
                match scan.next().await {
                    Ok(Some(Frame::Stream(number, by))) if selected(&by.id) => {
                        take(&by.id, Vec::new());
                        names.insert(number, by.id);
                    }
                    Ok(Some(Frame::Stream(..))) => {}
                    Ok(Some(Frame::Records {
                        stream, records, ..
                    })) => {
                        if let Some(id) = names.get(&stream) {
                            take(id, records);
                        }
                    }
                    Ok(None) => break,
                    // Its lines are in the lake now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
