//! How complete a job's lines are, by what the store says of itself: names of files, gaps and ends. It is
//! quick, and takes the collector's word for it; `trainyard logs verify` reads every line.

use std::{collections::BTreeMap, io};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Attempts, Error, Job, failed};
use crate::logs::{
    disk::Disk,
    lake::{Files, Lake},
    layout,
    line::StreamId,
    record::{End, Gap, Record},
    store::Store,
};

/// How complete a job's lines are.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Completeness {
    /// Namespace of the job.
    pub namespace: String,
    /// Name of the job.
    pub job: String,
    /// Uid of the job.
    pub uid: String,
    /// Whether every line that its containers wrote is stored, which is proven for each of them.
    pub complete: bool,
    /// The same in words.
    pub summary: String,
    /// Lines of all streams.
    pub lines: u64,
    /// Bytes of their messages, of those streams that have ended.
    pub bytes: u64,
    /// Gaps of all streams.
    pub gaps: usize,
    /// Each container of each rank of each attempt.
    pub streams: Vec<Stream>,
}

/// How complete one stream is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// Number of the attempt.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// Name of the container.
    pub container: String,
    /// Lines that are stored.
    pub lines: u64,
    /// Bytes of their messages; known when the stream has ended.
    pub bytes: Option<u64>,
    /// Whether that is all that the container wrote, which is proven.
    pub complete: bool,
    /// Whether nothing more will come.
    pub ended: bool,
    /// Why it is not complete, in words.
    pub why: Option<String>,
    /// Where lines are, or may be, missing, and why.
    pub gaps: Vec<Gap>,
}

/// What is known of a stream.
#[derive(Default)]
struct Known {
    /// Numbers of first and last lines of what is stored together.
    lines: Vec<(u64, u64)>,
    gaps: Vec<Gap>,
    end: Option<End>,
}

/// How complete the lines of `job` are.
///
/// # Errors
/// Where nothing of it is stored; where the store can't be read.
pub async fn completeness<D: Disk>(
    store: &Store<D>,
    job: &Job,
    attempts: Attempts,
) -> Result<Completeness, Error> {
    // The log first: what is cut from it after that is in the files.
    let mut known = BTreeMap::<StreamId, Known>::new();
    read_wal(store, job, &mut known)
        .await
        .map_err(|e| failed(&store.lake, e))?;
    let lake = &store.lake;
    if let Some(folder) =
        layout::job(&job.namespace, &job.name).filter(|_| layout::is_name(&job.uid))
    {
        let folder = format!("{folder}/uid={}", job.uid);
        let listed = lake.list(&folder).await.map_err(|e| failed(lake, e))?;
        for (id, files) in listed {
            let stream = known.entry(id).or_default();
            stream.add(lake, &files).await?;
        }
    }
    let newest = known.keys().map(|id| id.attempt).max();
    known.retain(|id, _| match attempts {
        Attempts::All => true,
        Attempts::One(n) => id.attempt == n,
        Attempts::Newest => Some(id.attempt) == newest,
    });
    if known.is_empty() {
        return Err(Error::NoJob {
            namespace: job.namespace.clone(),
            job: job.name.clone(),
        });
    }
    Ok(Completeness::of(job, known))
}

async fn read_wal<D: Disk>(
    store: &Store<D>,
    job: &Job,
    known: &mut BTreeMap<StreamId, Known>,
) -> io::Result<()> {
    let of_job =
        |id: &StreamId| id.uid == job.uid && id.job == job.name && id.namespace == job.namespace;
    let read = store.read_wal(of_job, |id, records| {
        if !records.is_empty() {
            let stream = known.entry(id.clone()).or_default();
            records.into_iter().for_each(|record| stream.take(record));
        }
    });
    read.await
}

impl Known {
    fn take(&mut self, record: Record) {
        match record {
            Record::Line(line) => {
                match self.lines.last_mut() {
                    Some((_, last)) if *last + 1 == line.seq => *last = line.seq,
                    _ => self.lines.push((line.seq, line.seq)),
                }
                self.end = None;
            }
            Record::Gap(gap) => self.gaps.push(gap),
            Record::End(end) => self.end = Some(end),
            Record::File(_) => {}
        }
    }

    async fn add(&mut self, lake: &Lake, files: &Files) -> Result<(), Error> {
        let (gaps, end) = lake.notes(files).await.map_err(|e| failed(lake, e))?;
        self.lines.extend(&files.lines);
        self.gaps.extend(gaps);
        self.end = self.end.take().or(end);
        Ok(())
    }

    fn stream(mut self, id: &StreamId) -> Stream {
        self.gaps.sort_by_key(|gap| gap.after_seq);
        self.gaps.dedup();
        let (mut lines, mut last, mut holes) = (0, 0, 0);
        for (from, to) in layout::cover(&self.lines) {
            holes += from.saturating_sub(last + 1);
            lines += to - from.max(last + 1) + 1;
            last = to;
        }
        // A stream that went on after an end has not ended.
        let end = self.end.filter(|end| end.lines >= last);
        holes += end.as_ref().map_or(0, |end| end.lines - last);
        let proven = end.as_ref().is_some_and(|end| end.complete);
        let complete = proven && holes == 0 && self.gaps.is_empty();
        let why = if holes > 0 {
            Some(format!("{holes} lines that were stored are not there"))
        } else if !self.gaps.is_empty() {
            let n = self.gaps.len();
            Some(format!("lines are, or may be, missing in {n} places"))
        } else if end.is_none() {
            Some("it has not ended, or its end is not stored yet".into())
        } else if complete {
            None
        } else {
            Some("its end is not proven".into())
        };
        Stream {
            attempt: id.attempt,
            rank: id.rank,
            container: id.container.clone(),
            lines,
            bytes: end.as_ref().map(|end| end.bytes),
            complete,
            ended: end.is_some(),
            why,
            gaps: self.gaps,
        }
    }
}

impl Completeness {
    fn of(job: &Job, known: BTreeMap<StreamId, Known>) -> Self {
        let streams: Vec<Stream> = known.into_iter().map(|(id, k)| k.stream(&id)).collect();
        let complete = streams.iter().filter(|stream| stream.complete).count();
        let ended = streams.iter().filter(|stream| stream.ended).count();
        let lines = streams.iter().map(|stream| stream.lines).sum();
        let gaps = streams.iter().map(|stream| stream.gaps.len()).sum();
        Self {
            namespace: job.namespace.clone(),
            job: job.name.clone(),
            uid: job.uid.clone(),
            complete: complete == streams.len(),
            summary: format!(
                "{complete} of {} streams are complete, {} have not ended; {lines} lines, {gaps} gaps",
                streams.len(),
                streams.len() - ended
            ),
            lines,
            bytes: streams.iter().filter_map(|stream| stream.bytes).sum(),
            gaps,
            streams,
        }
    }
}
