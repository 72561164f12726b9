//! The merged lines of the selected streams of one job.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    io,
    ops::RangeInclusive,
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Attempts, Error, Job, Selection, check,
    cursor::Cursor,
    failed,
    filter::Filter,
    tail::{Entry, Tails},
};
use crate::logs::{
    disk::Disk,
    lake::Files,
    layout,
    line::{Line, Origin, StreamId, nanos},
    record::Record,
    store::Store,
    wal::{
        frame::Frame,
        scan::{self, Scan},
    },
};

/// Lines are handed on in batches of about so many bytes.
const BATCH: usize = 64 * 1024;
/// What of the write-ahead log is merged at a time.
const WINDOW: usize = 1024 * 1024;
/// Streams whose first lines are looked for at a time.
const OPENED: usize = 16;

/// The selected streams of a job, merged.
pub struct Reader<D> {
    store: Store<D>,
    job: Job,
    attempts: RangeInclusive<u32>,
    selection: Selection,
    filter: Filter,
    tails: Tails,
    /// The next line in files of each stream that has one, the earliest first.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// A stream whose next line is to be looked for before anything else.
    owed: Option<usize>,
    wal: WalTail<D>,
    /// Files are to be looked for: at the beginning, and after a segment was cut.
    look: bool,
    /// Those that were found when it was opened.
    found: Option<BTreeMap<StreamId, Files>>,
    newest: u32,
}

/// Where a reader is in the write-ahead log.
struct WalTail<D> {
    scan: Option<Scan<D>>,
    /// What the segment's numbers stand for, of those that are selected.
    names: HashMap<u32, (usize, Arc<Origin>)>,
}

type Queues = BTreeMap<usize, VecDeque<Entry>>;

impl<D: Disk> Reader<D> {
    /// Opens what is stored of `job`.
    ///
    /// # Errors
    /// Where nothing of the selection is stored, unless it is followed; where the store can't be
    /// read.
    pub async fn open(store: Store<D>, job: Job, selection: Selection) -> Result<Self, Error> {
        // The log first: what is cut from it after that is in the files.
        let fresh = store.fresh(&job.namespace, &job.name).await;
        let mut last = BTreeMap::<StreamId, u64>::new();
        for (id, fresh) in fresh.map_err(|e| failed(&store.lake, e))? {
            if id.uid == job.uid {
                last.insert(id, fresh.last);
            }
        }
        let scan = first(&store).await?;
        let found = files(&store, &job).await?;
        for (id, files) in &found {
            let end = files.lines.iter().map(|(_, end)| *end).max().unwrap_or(0);
            let known = last.entry(id.clone()).or_default();
            *known = end.max(*known);
        }
        let newest = last.keys().map(|id| id.attempt).max().unwrap_or(0);
        let first = selection.cursor.as_ref().map_or(newest, |c| c.first);
        let attempts = match selection.attempts {
            Attempts::Newest if selection.follow => first..=u32::MAX,
            Attempts::Newest => first..=first,
            Attempts::One(n) => n..=n,
            Attempts::All => 0..=u32::MAX,
        };
        if !selection.follow && selection.cursor.is_none() {
            let ids: BTreeSet<&StreamId> = last.keys().collect();
            check(&ids, &job, &attempts, &selection)?;
        }
        let mut filter = selection.filter.clone();
        if let Some(cursor) = &selection.cursor {
            filter.since = cursor.since.map(crate::logs::line::from_nanos);
            filter.until = cursor.until.map(crate::logs::line::from_nanos);
        }
        let mut reader = Self {
            store,
            job,
            attempts,
            selection,
            filter,
            tails: Tails::default(),
            heads: BinaryHeap::new(),
            owed: None,
            wal: WalTail {
                scan,
                names: HashMap::new(),
            },
            look: true,
            found: Some(found),
            newest,
        };
        reader.skip_to_the_tail(&last);
        Ok(reader)
    }

    /// Of the last n lines of all streams, no more than n are of one. Where not all lines are wanted,
    /// there is no telling how many are passed over.
    fn skip_to_the_tail(&mut self, last: &BTreeMap<StreamId, u64>) {
        let Some(n) = self.selection.tail.filter(|_| self.filter.wants_all()) else {
            return;
        };
        for (id, last) in last {
            if let Some(at) = self.place(id) {
                let tail = &mut self.tails[at];
                tail.read = tail.read.max(last.saturating_sub(n as u64));
            }
        }
    }

    /// What was selected.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whose the lines at a place are.
    #[must_use]
    pub fn stream(&self, at: usize) -> &StreamId {
        self.tails.id(at)
    }

    /// Where it is: after all lines that were handed on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let mut cursor = Cursor {
            uid: self.job.uid.clone(),
            first: *self.attempts.start(),
            since: self.filter.since.map(nanos),
            until: self.filter.until.map(nanos),
            ..Cursor::default()
        };
        for (id, tail) in self.tails.all() {
            cursor.set(id, tail.read);
        }
        cursor
    }

    /// The place of a stream, where it is selected.
    fn place(&mut self, id: &StreamId) -> Option<usize> {
        let job = &self.job;
        if id.uid != job.uid || id.job != job.name || id.namespace != job.namespace {
            return None;
        }
        self.newest = self.newest.max(id.attempt);
        if !self.attempts.contains(&id.attempt) || !self.selection.wants(id) {
            return None;
        }
        let cursor = self.selection.cursor.as_ref();
        let read = || cursor.map_or(0, |cursor| cursor.read(id));
        Some(self.tails.place(id, read))
    }

    /// The next lines, in order; None where nothing more is there now.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn next_lines(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let mut entries = Vec::new();
        loop {
            if self.look {
                self.look().await?;
            }
            self.merge_files(&mut entries).await?;
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
            let more = self.read_wal(&mut entries).await?;
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
            if !more && !self.look {
                return Ok(None);
            }
        }
    }

    /// Some lines from files; none where there are none.
    async fn merge_files(&mut self, entries: &mut Vec<Entry>) -> Result<(), Error> {
        let mut bytes = 0;
        loop {
            if let Some(at) = self.owed {
                // Finding the next match may take long, and those that were found are waited for.
                if !entries.is_empty() && !self.filter.wants_all() && !self.tails[at].is_ready() {
                    return Ok(());
                }
                self.push_head(at).await?;
                self.owed = None;
            }
            if bytes >= BATCH {
                return Ok(());
            }
            let Some(Reverse((_, at))) = self.heads.pop() else {
                return Ok(());
            };
            let entry = self.tails[at].take(at);
            bytes += entry.as_ref().map_or(0, |e| e.line.message.len() + 64);
            entries.extend(entry);
            self.owed = Some(at);
        }
    }

    async fn push_head(&mut self, at: usize) -> Result<(), Error> {
        let id = self.tails.id(at).clone();
        let peeked = self.tails[at].peek(&self.store.lake, &id, &self.filter);
        if let Some(time) = peeked.await? {
            self.heads.push(Reverse((time, at)));
        }
        Ok(())
    }

    /// Looks for files with lines that were not read yet, and for the first line of each stream in them.
    async fn look(&mut self) -> Result<(), Error> {
        self.look = false;
        let found = match self.found.take() {
            Some(found) => found,
            None => files(&self.store, &self.job).await?,
        };
        let found: Vec<_> = (found.into_iter())
            .filter_map(|(id, files)| Some((self.place(&id)?, id, files)))
            .collect();
        let (lake, filter) = (self.store.lake.clone(), Arc::new(self.filter.clone()));
        let follow = self.selection.follow;
        let mut opening = futures::stream::iter(found)
            .map(|(at, id, files)| {
                let mut tail = std::mem::take(&mut self.tails[at]);
                let (lake, filter) = (lake.clone(), filter.clone());
                // A task of its own, so that a search takes all cores.
                AbortOnDropHandle::new(tokio::spawn(async move {
                    if follow {
                        let (_, end) = lake.notes(&files).await.map_err(|e| failed(&lake, e))?;
                        tail.end = tail.end.max(end.map(|end| end.lines));
                    }
                    tail.go_on_in(&files, u64::MAX);
                    let head = tail.peek(&lake, &id, &filter).await?;
                    Ok::<_, Error>((at, tail, head))
                }))
            })
            .buffer_unordered(OPENED);
        let mut opened = Vec::new();
        while let Some(done) = opening.next().await {
            opened.push(done.map_err(|e| failed(&lake, io::Error::other(e)))??);
        }
        drop(opening);
        for (at, tail, head) in opened {
            self.tails[at] = tail;
            self.heads.extend(head.map(|time| Reverse((time, at))));
        }
        Ok(())
    }

    /// Reads on in the write-ahead log; true where there may be more.
    async fn read_wal(&mut self, entries: &mut Vec<Entry>) -> Result<bool, Error> {
        if self.wal.scan.is_none() {
            self.wal.scan = first(&self.store).await?;
        }
        let mut queues = Queues::new();
        let mut bytes = 0;
        let mut more = true;
        while bytes < WINDOW {
            let Some(scan) = &mut self.wal.scan else {
                more = false;
                break;
            };
            let frame = match scan.next().await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // It was cut, and so were all before it: their lines are in files.
                    self.look = true;
                    self.wal.scan = None;
                    self.wal.names.clear();
                    break;
                }
                frame => frame.map_err(|e| failed(&self.store.lake, e))?,
            };
            let Some(frame) = frame else {
                if self.next_segment().await? {
                    continue;
                }
                more = false;
                break;
            };
            bytes += self.take_frame(frame, &mut queues);
        }
        self.merge_wal(queues, entries).await?;
        Ok(more)
    }

    /// Takes in a frame; how many bytes it has of selected streams.
    fn take_frame(&mut self, frame: Frame, queues: &mut Queues) -> usize {
        let (stream, records) = match frame {
            Frame::Stream(number, by) => {
                match self.place(&by.id) {
                    Some(at) => {
                        let name = (at, Arc::new(by.origin));
                        self.wal.names.insert(number, name);
                    }
                    None => {
                        self.wal.names.remove(&number);
                    }
                }
                return 0;
            }
            Frame::Records {
                stream, records, ..
            } => (stream, records),
        };
        let Some((at, origin)) = self.wal.names.get(&stream) else {
            return 0;
        };
        let (at, tail) = (*at, &mut self.tails[*at]);
        let mut bytes = 0;
        for record in records {
            match record {
                Record::Line(line) => {
                    bytes += line.message.len() + 64;
                    tail.end = None;
                    let origin = origin.clone();
                    let queue = queues.entry(at).or_default();
                    queue.push_back(Entry { at, origin, line });
                }
                Record::End(end) => tail.end = Some(end.lines),
                Record::Gap(_) | Record::File(_) => {}
            }
        }
        bytes
    }

    /// Goes on to the next segment, if there is one and nothing more can come in this one.
    async fn next_segment(&mut self) -> Result<bool, Error> {
        let (Some(disk), Some(scan)) = (&self.store.wal, &mut self.wal.scan) else {
            return Ok(false);
        };
        let segments = scan::segments(disk)
            .await
            .map_err(|e| failed(&self.store.lake, e))?;
        let next = segments.into_iter().find(|n| *n > scan.segment);
        let Some(next) = next else {
            return Ok(false);
        };
        // It may have grown before the next one was begun.
        match scan.peek().await {
            Ok(true) => Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.store.lake, error))
            }
            Ok(false) | Err(_) => {
                *scan = Scan::new(disk.clone(), next);
                self.wal.names.clear();
                Ok(true)
            }
        }
    }

    /// Puts lines of several streams in the order of their times.
    async fn merge_wal(&mut self, mut queues: Queues, to: &mut Vec<Entry>) -> Result<(), Error> {
        let mut heads = BinaryHeap::new();
        for (at, queue) in &mut queues {
            let read = self.tails[*at].read;
            queue.retain(|entry| entry.line.seq > read);
            let Some((first, last)) = queue.front().zip(queue.back()) else {
                continue;
            };
            let (first, last) = (first.line.seq, last.line.seq);
            // What is missing in between was cut before it was read here.
            if first > read + 1 {
                self.fill(*at, first - 1, to).await?;
            }
            self.tails[*at].read = last;
            queue.retain(|entry| self.filter.wants(&entry.line));
            heads.extend(self.stamped(*at, queue.front().map(|e| &e.line)));
        }
        while let Some(Reverse((_, at))) = heads.pop() {
            if let Some(queue) = queues.get_mut(&at) {
                to.extend(queue.pop_front());
                heads.extend(self.stamped(at, queue.front().map(|e| &e.line)));
            }
        }
        Ok(())
    }

    fn stamped(&mut self, at: usize, line: Option<&Line>) -> Option<Reverse<(Timestamp, usize)>> {
        line.map(|line| Reverse((self.tails[at].stamp(line.time), at)))
    }

    /// Reads the lines of one stream up to `last` from its files.
    async fn fill(&mut self, at: usize, last: u64, to: &mut Vec<Entry>) -> Result<(), Error> {
        let id = self.tails.id(at).clone();
        let lake = &self.store.lake;
        let files = lake.files(&id).await.map_err(|e| failed(lake, e))?;
        let tail = &mut self.tails[at];
        tail.go_on_in(&files, last);
        while tail.peek(lake, &id, &self.filter).await?.is_some() && tail.is_ready_for(last) {
            to.extend(tail.take(at));
        }
        // What comes after is in the log.
        tail.go_on_in(&Files::default(), 0);
        Ok(())
    }

    /// Whether every selected stream has been read to its end.
    #[must_use]
    pub fn ended(&self) -> bool {
        (self.tails.all()).all(|(_, tail)| tail.end.is_some_and(|lines| tail.read >= lines))
    }

    /// Whether the store has an attempt after the selected ones.
    pub(super) fn passed(&self) -> bool {
        self.newest > *self.attempts.end()
    }
}

async fn files<D: Disk>(store: &Store<D>, job: &Job) -> Result<BTreeMap<StreamId, Files>, Error> {
    let Some(folder) = layout::job(&job.namespace, &job.name).filter(|_| layout::is_name(&job.uid))
    else {
        return Ok(BTreeMap::new());
    };
    let folder = format!("{folder}/uid={}", job.uid);
    let listed = store.lake.list(&folder).await;
    listed.map_err(|e| failed(&store.lake, e))
}

/// The beginning of the write-ahead log.
async fn first<D: Disk>(store: &Store<D>) -> Result<Option<Scan<D>>, Error> {
    let Some(disk) = &store.wal else {
        return Ok(None);
    };
    let segments = scan::segments(disk).await;
    let segments = segments.map_err(|e| failed(&store.lake, e))?;
    Ok(segments
        .first()
        .map(|segment| Scan::new(disk.clone(), *segment)))
}
