//! The merged lines of the selected streams of one job.

use super::*;

/// The selected streams of a job, merged.
pub struct Reader<D> {
    store: Store<D>,
    job: Job,
    attempts: RangeInclusive<u32>,
    rank: Option<u32>,
    tails: Vec<Tail>,
    known: HashMap<StreamId, usize>,
    /// The next line in files of each tail that has one, the earliest first.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    wal: WalTail<D>,
    /// Files are to be looked for: at the beginning, and after a segment was cut.
    look: bool,
    newest: u32,
}

/// Where a reader is in the write-ahead log.
struct WalTail<D> {
    scan: Option<Scan<D>>,
    /// What the segment's numbers stand for, of those that are selected.
    names: HashMap<u32, usize>,
}

fn failed<D>(store: &Store<D>, source: impl Into<store::Error>) -> Error {
    Error::Store {
        place: store.lake.name().to_owned(),
        source: Box::new(source.into()),
    }
}

impl<D: Disk> Reader<D> {
    /// Opens what is stored of `job`.
    ///
    /// # Errors
    /// Where nothing of the selection is stored, unless it is followed; where the store can't be
    /// read.
    pub async fn open(store: Store<D>, job: Job, selection: Selection) -> Result<Self, Error> {
        // The log first: what is cut from it after that is in the files.
        let fresh = store.fresh(&job.namespace, &job.name).await;
        let mut ids: BTreeSet<StreamId> = fresh
            .map_err(|e| failed(&store, e))?
            .into_keys()
            .filter(|id| id.uid == job.uid)
            .collect();
        let scan = first(&store).await?;
        ids.extend(files(&store, &job).await?.into_keys());
        let ids: Vec<StreamId> = ids.into_iter().collect();
        let newest = ids.iter().map(|s| s.attempt).max().unwrap_or(0);
        let attempts = match selection.attempts {
            Attempts::Newest if selection.follow => newest..=u32::MAX,
            Attempts::Newest => newest..=newest,
            Attempts::One(n) => n..=n,
            Attempts::All => 0..=u32::MAX,
        };
        if !selection.follow {
            check(&ids, &job, &attempts, selection.rank)?;
        }
        Ok(Self {
            store,
            job,
            attempts,
            rank: selection.rank,
            tails: Vec::new(),
            known: HashMap::new(),
            heads: BinaryHeap::new(),
            wal: WalTail {
                scan,
                names: HashMap::new(),
            },
            look: true,
            newest,
        })
    }

    /// The place of a stream's tail, where it is selected.
    fn tail(&mut self, id: &StreamId) -> Option<usize> {
        let job = &self.job;
        if id.uid != job.uid || id.job != job.name || id.namespace != job.namespace {
            return None;
        }
        self.newest = self.newest.max(id.attempt);
        let selected =
            self.attempts.contains(&id.attempt) && self.rank.is_none_or(|rank| rank == id.rank);
        selected.then(|| {
            let tails = &mut self.tails;
            *self.known.entry(id.clone()).or_insert_with(|| {
                tails.push(Tail::new(id.clone()));
                tails.len() - 1
            })
        })
    }

    /// The next lines in the uniform format, whole ones; None where nothing more is there now.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn next_block(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut block = Vec::new();
        loop {
            if self.look {
                self.look().await?;
            }
            while block.len() < BLOCK {
                let Some(Reverse((_, at))) = self.heads.pop() else {
                    break;
                };
                self.tails[at].take(&mut block);
                self.push_head(at).await?;
            }
            if !self.heads.is_empty() {
                return Ok(Some(block));
            }
            let more = self.read_wal(&mut block).await?;
            if !block.is_empty() {
                return Ok(Some(block));
            }
            if !more && !self.look {
                return Ok(None);
            }
        }
    }

    /// Looks for files with lines that were not read yet.
    async fn look(&mut self) -> Result<(), Error> {
        self.look = false;
        for (id, files) in files(&self.store, &self.job).await? {
            let Some(at) = self.tail(&id) else {
                continue;
            };
            let (_, end) =
                (self.store.lake.notes(&files).await).map_err(|e| failed(&self.store, e))?;
            let tail = &mut self.tails[at];
            if let Some(end) = end {
                tail.end = Some(tail.end.map_or(end.lines, |known| known.max(end.lines)));
            }
            tail.files = layout::cover(&files.lines)
                .into_iter()
                .filter(|(_, last)| *last > tail.read)
                .collect();
            tail.decoder = None;
            tail.batch.clear();
            self.push_head(at).await?;
        }
        Ok(())
    }

    async fn push_head(&mut self, at: usize) -> Result<(), Error> {
        let tail = &mut self.tails[at];
        if let Some(time) = tail.peek(&self.store).await? {
            self.heads.push(Reverse((time, at)));
        }
        Ok(())
    }

    /// Reads on in the write-ahead log; true where there may be more.
    async fn read_wal(&mut self, block: &mut Vec<u8>) -> Result<bool, Error> {
        if self.wal.scan.is_none() {
            self.wal.scan = first(&self.store).await?;
        }
        let mut queues = BTreeMap::<usize, VecDeque<Line>>::new();
        let mut bytes = 0;
        let mut more = true;
        while bytes < WINDOW {
            let Some(scan) = &mut self.wal.scan else {
                more = false;
                break;
            };
            let frame = match scan.next().await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // It was cut, so its lines are in files.
                    self.look = true;
                    self.next_segment().await?;
                    continue;
                }
                frame => frame.map_err(|e| failed(&self.store, e))?,
            };
            let Some(frame) = frame else {
                if self.next_segment().await? {
                    continue;
                }
                more = false;
                break;
            };
            match frame {
                Frame::Stream(number, by) => match self.tail(&by.id) {
                    Some(at) => {
                        self.wal.names.insert(number, at);
                    }
                    None => {
                        self.wal.names.remove(&number);
                    }
                },
                Frame::Records {
                    stream, records, ..
                } => {
                    let Some(at) = self.wal.names.get(&stream).copied() else {
                        continue;
                    };
                    for record in records {
                        match record {
                            Record::Line(line) => {
                                bytes += line.message.len() + 64;
                                self.tails[at].end = None;
                                queues.entry(at).or_default().push_back(line);
                            }
                            Record::End(end) => self.tails[at].end = Some(end.lines),
                            Record::Gap(_) | Record::File(_) => {}
                        }
                    }
                }
            }
        }
        self.merge(queues, block).await?;
        Ok(more)
    }

    /// Goes on to the next segment, if there is one and nothing more can come in this one.
    async fn next_segment(&mut self) -> Result<bool, Error> {
        let (Some(disk), Some(scan)) = (&self.store.wal, &mut self.wal.scan) else {
            return Ok(false);
        };
        let segments = scan::segments(disk)
            .await
            .map_err(|e| failed(&self.store, e))?;
        let next = segments.into_iter().find(|n| *n > scan.segment);
        let Some(next) = next else {
            return Ok(false);
        };
        // It may have grown before the next one was begun.
        match scan.peek().await {
            Ok(true) => Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&self.store, error))
            }
            Ok(false) | Err(_) => {
                *scan = Scan::new(disk.clone(), next);
                self.wal.names.clear();
                Ok(true)
            }
        }
    }

    /// Puts lines of several streams in the order of their times.
    async fn merge(
        &mut self,
        mut queues: BTreeMap<usize, VecDeque<Line>>,
        block: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut heads = BinaryHeap::new();
        for (at, queue) in &mut queues {
            let read = self.tails[*at].read;
            queue.retain(|line| line.seq > read);
            // What is missing in between was cut before it was read here.
            if queue.front().is_some_and(|line| line.seq > read + 1) {
                self.fill(*at, queue[0].seq - 1, block).await?;
            }
            heads.extend(
                queue
                    .front()
                    .map(|l| Reverse((self.tails[*at].stamp(l.time), *at))),
            );
        }
        while let Some(Reverse((_, at))) = heads.pop() {
            let Some(queue) = queues.get_mut(&at) else {
                continue;
            };
            if let Some(line) = queue.pop_front() {
                self.tails[at].write(&line, block);
            }
            heads.extend(
                queue
                    .front()
                    .map(|l| Reverse((self.tails[at].stamp(l.time), at))),
            );
        }
        Ok(())
    }

    /// Reads the lines of one stream up to `last` from its files.
    async fn fill(&mut self, at: usize, last: u64, block: &mut Vec<u8>) -> Result<(), Error> {
        let id = self.tails[at].id.clone();
        let files = self.store.lake.files(&id).await;
        let files = files.map_err(|e| failed(&self.store, e))?;
        let tail = &mut self.tails[at];
        tail.files = layout::cover(&files.lines)
            .into_iter()
            .filter(|(first, end)| *end > tail.read && *first <= last)
            .collect();
        tail.decoder = None;
        tail.batch.clear();
        while tail.peek(&self.store).await?.is_some() && tail.read < last {
            tail.take(block);
        }
        Ok(())
    }

    /// Whether every selected stream has been read to its end.
    #[must_use]
    pub fn ended(&self) -> bool {
        let ended = |tail: &Tail| tail.end.is_some_and(|lines| tail.read >= lines);
        self.tails.iter().all(ended)
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
    store.lake.list(&folder).await.map_err(|e| failed(store, e))
}

/// The beginning of the write-ahead log.
async fn first<D: Disk>(store: &Store<D>) -> Result<Option<Scan<D>>, Error> {
    let Some(disk) = &store.wal else {
        return Ok(None);
    };
    let segments = scan::segments(disk).await.map_err(|e| failed(store, e))?;
    Ok(segments
        .first()
        .map(|segment| Scan::new(disk.clone(), *segment)))
}

/// Reads one stream forward.
struct Tail {
    id: StreamId,
    formatter: Formatter,
    /// Number of the last line that was handed on.
    read: u64,
    /// Number of the last line of all, where the stream has ended.
    end: Option<u64>,
    files: VecDeque<(u64, u64)>,
    decoder: Option<Decoder>,
    batch: VecDeque<Line>,
    /// Of the last line; never goes back, so that the order of the stream is kept.
    time: Timestamp,
}

impl Tail {
    fn new(id: StreamId) -> Self {
        Self {
            formatter: Formatter::new(&id),
            id,
            read: 0,
            end: None,
            files: VecDeque::new(),
            decoder: None,
            batch: VecDeque::new(),
            time: Timestamp::MIN,
        }
    }

    fn stamp(&mut self, time: Timestamp) -> Timestamp {
        self.time = self.time.max(time);
        self.time
    }

    /// The time of the next line in files. None where there is none.
    async fn peek<D: Disk>(&mut self, store: &Store<D>) -> Result<Option<Timestamp>, Error> {
        loop {
            while self.batch.front().is_some_and(|line| line.seq <= self.read) {
                self.batch.pop_front();
            }
            if let Some(line) = self.batch.front() {
                let time = line.time;
                return Ok(Some(self.stamp(time)));
            }
            if let Some(decoder) = &mut self.decoder {
                match decode(&self.id, decoder).map_err(|e| failed(store, e))? {
                    Some(batch) => self.batch = batch.into(),
                    None => self.decoder = None,
                }
                continue;
            }
            let Some(file) = self.files.pop_front() else {
                return Ok(None);
            };
            match store.lake.lines(&self.id, file).await {
                Ok(decoder) => self.decoder = Some(decoder),
                Err(error) => {
                    // A compaction may have put another one in its place.
                    let now = store.lake.files(&self.id).await;
                    let now = now.map_err(|e| failed(store, e))?;
                    if now.lines.contains(&file) {
                        return Err(failed(store, error));
                    }
                    self.files = layout::cover(&now.lines)
                        .into_iter()
                        .filter(|(_, last)| *last > self.read)
                        .collect();
                }
            }
        }
    }

    /// Hands on the line that was peeked at.
    fn take(&mut self, to: &mut Vec<u8>) {
        if let Some(line) = self.batch.pop_front() {
            self.write(&line, to);
        }
    }

    fn write(&mut self, line: &Line, to: &mut Vec<u8>) {
        self.formatter.write(line, to);
        self.read = line.seq;
    }
}
