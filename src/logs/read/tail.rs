//! Reads one stream forward: its files one after the other, while others are put in their place.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, failed, file::File, filter::Filter};
use crate::logs::{
    lake::{Files, Lake},
    layout,
    line::{Line, Origin, StreamId},
    sink,
};

/// A line that is handed on, and whose it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The place of its stream among those of the reader.
    pub at: usize,
    /// Who wrote it.
    pub origin: Arc<Origin>,
    /// The line.
    pub line: Line,
}

/// Files that are opened ahead in a search: of most of them no more than the end is looked at.
const AHEAD: usize = 4;

/// A file that is being opened in a task of its own.
type Opening = ((u64, u64), AbortOnDropHandle<Result<File, sink::Error>>);

/// One stream.
#[derive(Default)]
pub(super) struct Tail {
    /// Number of the last line that is behind: handed on, or not wanted.
    pub read: u64,
    /// Number of the last line of all, where the stream has ended.
    pub end: Option<u64>,
    files: VecDeque<(u64, u64)>,
    /// Those of them that are being opened, in order.
    opening: VecDeque<Opening>,
    file: Option<File>,
    batch: VecDeque<Line>,
    /// Of the last line; never goes back, so that the order of the stream is kept.
    time: Option<Timestamp>,
}

impl Tail {
    /// After the line with this number.
    pub fn new(read: u64) -> Self {
        Self {
            read,
            ..Self::default()
        }
    }

    /// Where a line comes among those of other streams.
    pub fn stamp(&mut self, time: Timestamp) -> Timestamp {
        *self
            .time
            .insert(self.time.map_or(time, |last| last.max(time)))
    }

    /// Goes on in these files, as far as line `last`.
    pub fn go_on_in(&mut self, files: &Files, last: u64) {
        let wanted = |(first, end): &(u64, u64)| *end > self.read && *first <= last;
        self.files = layout::cover(&files.lines)
            .into_iter()
            .filter(wanted)
            .collect();
        self.opening.clear();
        self.file = None;
        self.batch.clear();
    }

    /// Whether the next line in files is known already.
    pub fn is_ready(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether that line is known, and its number is at most `last`.
    pub fn is_ready_for(&self, last: u64) -> bool {
        self.batch.front().is_some_and(|line| line.seq <= last)
    }

    /// The stamp of the next wanted line in files. None where there is none.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn peek(
        &mut self,
        lake: &Lake,
        id: &StreamId,
        filter: &Filter,
    ) -> Result<Option<Timestamp>, Error> {
        loop {
            if let Some(line) = self.batch.front() {
                let time = line.time;
                return Ok(Some(self.stamp(time)));
            }
            if let Some(file) = &mut self.file {
                match file.next_lines(lake, filter, self.read).await {
                    Ok(lines) if lines.is_empty() => {
                        self.read = self.read.max(file.lines.1);
                        self.file = None;
                    }
                    Ok(lines) => self.batch = lines.into(),
                    Err(error) => {
                        let lines = file.lines;
                        self.replaced(lake, id, lines, error).await?;
                    }
                }
                continue;
            }
            let Some((lines, opened)) = self.open_next(lake, id, filter).await else {
                return Ok(None);
            };
            match opened {
                Ok(file) => self.file = Some(file),
                Err(error) => self.replaced(lake, id, lines, error).await?,
            }
        }
    }

    async fn open_next(
        &mut self,
        lake: &Lake,
        id: &StreamId,
        filter: &Filter,
    ) -> Option<((u64, u64), Result<File, sink::Error>)> {
        let ahead = if filter.wants_all() { 1 } else { AHEAD };
        while self.opening.len() < ahead
            && let Some(lines) = self.files.pop_front()
        {
            let (lake, id, filter) = (lake.clone(), id.clone(), filter.clone());
            let task = async move { File::open(&lake, &id, lines, &filter).await };
            let task = AbortOnDropHandle::new(tokio::spawn(task));
            self.opening.push_back((lines, task));
        }
        let (lines, task) = self.opening.pop_front()?;
        let failed = |source| sink::Error::Objects {
            path: format!("a file of {id}"),
            source: object_store::Error::JoinError { source },
        };
        Some((lines, task.await.unwrap_or_else(|error| Err(failed(error)))))
    }

    /// A file can't be read. A compaction may have put another one in its place.
    async fn replaced(
        &mut self,
        lake: &Lake,
        id: &StreamId,
        lines: (u64, u64),
        error: sink::Error,
    ) -> Result<(), Error> {
        let now = lake.files(id).await.map_err(|e| failed(lake, e))?;
        if now.lines.contains(&lines) {
            return Err(failed(lake, error));
        }
        self.go_on_in(&now, u64::MAX);
        Ok(())
    }

    /// Hands on the line that was peeked at. `at` is the stream's place.
    pub fn take(&mut self, at: usize) -> Option<Entry> {
        let line = self.batch.pop_front()?;
        self.read = line.seq;
        let origin = self.file.as_ref().map(|file| file.origin().clone());
        Some(Entry {
            at,
            origin: origin.unwrap_or_default(),
            line,
        })
    }
}

/// The selected streams. Their places never change.
#[derive(Default)]
pub(super) struct Tails {
    tails: Vec<Tail>,
    ids: Vec<StreamId>,
    places: HashMap<StreamId, usize>,
}

impl Tails {
    /// The place of a stream, a new one after line `read` where it has none.
    pub fn place(&mut self, id: &StreamId, read: impl FnOnce() -> u64) -> usize {
        if let Some(place) = self.places.get(id) {
            return *place;
        }
        self.tails.push(Tail::new(read()));
        self.ids.push(id.clone());
        self.places.insert(id.clone(), self.ids.len() - 1);
        self.ids.len() - 1
    }

    /// Whose a place is.
    pub fn id(&self, at: usize) -> &StreamId {
        &self.ids[at]
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&StreamId, &Tail)> {
        self.ids.iter().zip(&self.tails)
    }
}

impl std::ops::Index<usize> for Tails {
    type Output = Tail;

    fn index(&self, at: usize) -> &Tail {
        &self.tails[at]
    }
}

impl std::ops::IndexMut<usize> for Tails {
    fn index_mut(&mut self, at: usize) -> &mut Tail {
        &mut self.tails[at]
    }
}
