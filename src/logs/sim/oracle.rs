//! The judge: what a container wrote, against what the store says.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
};

use super::kubelet::{Written, pieces};
use crate::logs::{
    disk::Disk,
    layout,
    line::{Line, StreamId, nanos},
    record::{End, Gap, Reason, Record},
    store::Store,
    verify,
    wal::{
        frame::Frame,
        scan::{self, Scan},
    },
};

/// Everything that the store has of a stream.
#[derive(Debug, Default)]
pub struct Stored {
    pub lines: Vec<Line>,
    pub gaps: Vec<Gap>,
    pub end: Option<End>,
}

/// Reads a store, independently of its readers.
pub async fn collect<D: Disk>(store: &Store<D>) -> BTreeMap<StreamId, Stored> {
    let mut all = BTreeMap::<StreamId, Stored>::new();
    for (id, files) in store.lake.list("").await.unwrap() {
        let stored = all.entry(id.clone()).or_default();
        for file in layout::cover(&files.lines) {
            let mut decoder = store.lake.lines(&id, file).await.unwrap();
            loop {
                let lines = decoder.next_lines().unwrap();
                if lines.is_empty() {
                    break;
                }
                stored.lines.extend(lines);
            }
        }
        (stored.gaps, stored.end) = store.lake.notes(&files).await.unwrap();
    }
    if let Some(disk) = &store.wal {
        for segment in scan::segments(disk).await.unwrap() {
            let mut scan = Scan::new(disk.clone(), segment);
            let mut names = BTreeMap::new();
            while let Some(frame) = scan.next().await.unwrap() {
                match frame {
                    Frame::Stream(number, by) => {
                        names.insert(number, by.id);
                    }
                    Frame::Records {
                        stream, records, ..
                    } => {
                        let Some(id) = names.get(&stream) else {
                            continue;
                        };
                        let stored = all.entry(id.clone()).or_default();
                        for record in records {
                            match record {
                                Record::Line(line) => {
                                    let last = stored.lines.last().map_or(0, |l| l.seq);
                                    if line.seq > last {
                                        stored.lines.push(line);
                                    }
                                }
                                Record::Gap(gap) if !stored.gaps.contains(&gap) => {
                                    stored.gaps.push(gap);
                                }
                                Record::End(end) => stored.end = Some(end),
                                Record::Gap(_) | Record::File(_) => {}
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

/// Stamp, text, and whether it goes on.
type Piece = (i64, Vec<u8>, bool);

/// What was skipped, in a list that is cheap to go on with.
#[derive(Clone, Debug, Default)]
struct Skipped {
    count: usize,
    last: Option<Rc<(Range<usize>, Skipped)>>,
}

impl Skipped {
    fn and(&self, range: Range<usize>) -> Self {
        if range.is_empty() {
            return self.clone();
        }
        Self {
            count: self.count + range.len(),
            last: Some(Rc::new((range, self.clone()))),
        }
    }

    fn all(&self) -> Vec<usize> {
        let mut all = Vec::new();
        let mut list = self;
        while let Some(last) = &list.last {
            all.extend(last.0.clone());
            list = &last.1;
        }
        all
    }
}

/// What happened to a container.
pub struct Truth {
    pub written: Vec<Written>,
    pub files: usize,
    pub gone: bool,
    /// The collector's volume was lost.
    pub lost: bool,
}

impl Truth {
    /// What the store says against what was written. An error is a broken promise.
    pub fn judge(&self, stored: &Stored) -> Result<(), String> {
        for (at, line) in stored.lines.iter().enumerate() {
            if line.seq != at as u64 + 1 {
                return Err(format!("line {} has number {}", at + 1, line.seq));
            }
        }
        let end = stored.end.as_ref().ok_or("the stream has not ended")?;
        if end.lines != stored.lines.len() as u64 {
            let there = stored.lines.len();
            return Err(format!(
                "the end says {} lines, there are {there}",
                end.lines
            ));
        }
        let missing = self.missing(stored)?;
        if end.complete && !missing.is_empty() {
            return Err(format!("complete, but {missing:?} are missing"));
        }
        if end.complete && !stored.gaps.is_empty() {
            return Err("complete, but there are gaps".into());
        }
        // What the source still had at the end must be there.
        if !self.gone {
            let last = self.files - 1;
            let there = missing.iter().find(|at| self.written[**at].file == last);
            if let Some(at) = there {
                return Err(format!("line {at} is missing, and its file is still there"));
            }
            // Who comes late can't know that nothing was rotated away before, and says so.
            // Who has lost what was noted can't know either.
            let unknown = |gap: &Gap| match gap.reason {
                Reason::ReadLate => true,
                Reason::LogLost => self.lost,
                _ => false,
            };
            let fine = stored.gaps.iter().all(unknown) && end.complete == stored.gaps.is_empty();
            if self.files == 1 && !fine {
                return Err(format!(
                    "nothing was lost, but it is complete: {}, gaps: {:?}",
                    end.complete, stored.gaps
                ));
            }
            if stored.gaps.len() > self.files + 1 + usize::from(self.lost) {
                return Err(format!(
                    "{} gaps for {} files",
                    stored.gaps.len(),
                    self.files
                ));
            }
        }
        if let Some(gap) = stored
            .gaps
            .iter()
            .find(|gap| gap.not_before > gap.after_seq)
        {
            return Err(format!("a gap nowhere: {gap:?}"));
        }
        Ok(())
    }

    /// The indices of the written lines that are not stored. An error where the stored ones are no
    /// subsequence, or something is missing where no gap is.
    fn missing(&self, stored: &Stored) -> Result<Vec<usize>, String> {
        // A line across a rotation may come in two parts, or in one with a part missing.
        let expected: Vec<(usize, Piece)> = (self.written.iter().enumerate())
            .flat_map(|(at, written)| pieces(written).into_iter().map(move |p| (at, p)))
            .collect();
        let may_skip = |after: u64| {
            (stored.gaps.iter()).any(|gap| gap.not_before <= after && after <= gap.after_seq)
        };
        // Where the next line may be, and what was skipped on the way there: the fewest.
        let mut places = BTreeMap::from([(0_usize, Skipped::default())]);
        for line in &stored.lines {
            let skip = may_skip(line.seq - 1);
            let mut next = BTreeMap::<usize, Skipped>::new();
            let key = (nanos(line.time), &line.message, line.flags.partial);
            for (place, skipped) in &places {
                let far = if skip { expected.len() } else { place + 1 };
                let ahead = expected.iter().enumerate().take(far).skip(*place);
                for (at, (_, (time, message, partial))) in ahead {
                    let whole = (*time, message, *partial) == key;
                    // The beginning of a line whose pod vanished.
                    let begun = self.gone
                        && line.seq == stored.lines.len() as u64
                        && line.flags.partial
                        && *time == key.0
                        && message.starts_with(&line.message);
                    if whole || begun {
                        let end = if begun && !whole { at + 1 } else { at };
                        let skipped = skipped.and(*place..end);
                        let known = next.get(&(at + 1));
                        if known.is_none_or(|known| known.count > skipped.count) {
                            next.insert(at + 1, skipped);
                        }
                        if skip && next.len() > 64 {
                            break;
                        }
                    }
                }
            }
            if next.is_empty() {
                let text = String::from_utf8_lossy(&line.message[..line.message.len().min(60)]);
                let at = places.keys().next().copied().unwrap_or(0);
                let wanted = expected.get(at).map(|(_, (time, message, partial))| {
                    (
                        *time,
                        String::from_utf8_lossy(&message[..message.len().min(60)]).into_owned(),
                        *partial,
                    )
                });
                return Err(format!(
                    "line {} (time {}, {text:?}, partial {}) is repeated, or something before it is missing without a gap; next was {wanted:?}; gaps {:?}",
                    line.seq,
                    nanos(line.time),
                    line.flags.partial,
                    stored.gaps
                ));
            }
            places = next;
        }
        let (place, mut skipped) = places
            .into_iter()
            .max_by_key(|(place, skipped)| (*place, std::cmp::Reverse(skipped.count)))
            .unwrap_or_default();
        if place < expected.len() {
            if !may_skip(stored.lines.len() as u64) {
                return Err(format!(
                    "{} of {} lines are missing at the end, and there is no gap; gaps {:?}, end {:?}",
                    expected.len() - place,
                    expected.len(),
                    stored.gaps,
                    stored.end,
                ));
            }
            skipped = skipped.and(place..expected.len());
        }
        let skipped: BTreeSet<usize> = skipped.all().into_iter().map(|at| expected[at].0).collect();
        Ok(skipped.into_iter().collect())
    }
}

/// The verifier agrees.
pub async fn verified<D: Disk>(store: &Store<D>) -> Result<(), String> {
    let reports = verify::verify(store, "", false)
        .await
        .map_err(|e| e.to_string())?;
    match reports.iter().find(|r| !r.problems.is_empty()) {
        Some(report) => Err(format!("the verifier says: {report}")),
        None => Ok(()),
    }
}
