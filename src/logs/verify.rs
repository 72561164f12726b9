//! `trainyard logs verify`: is it all there? Reads every line of a store, and says for each stream how
//! many there are, whether their continuity is proven or where the gaps are, and whether it is complete.
//!
//! It trusts nothing that the writer says of itself, except where it admits a gap. Of lines that `loggen`
//! wrote it also knows which ones there must be ([`super::generated`]).

use std::{collections::BTreeMap, fmt, io, path::PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;
use thiserror::Error;

use super::{
    disk::{Disk, Folder},
    generated::{self, Checked, Checker},
    lake::{Files, Lake, OpenError, decode},
    layout,
    line::{Line, StreamId},
    record::{End, Gap, Record},
    store::{self, Store},
    wal::{
        frame::Frame,
        scan::{self, Scan},
    },
};

/// Arguments of `logs verify`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The store: a folder, or a URL such as s3://bucket/prefix.
    #[arg(long, env = "TRAINYARD_STORE", value_name = "DIR|URL")]
    pub store: String,
    /// The write-ahead log, whose lines belong to the store. By default `wal` in the store's folder.
    #[arg(long, env = "TRAINYARD_WAL", value_name = "DIR")]
    pub wal: Option<PathBuf>,
    /// Only one namespace.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Only one job.
    #[arg(long)]
    pub job: Option<String>,
    /// The lines were written by loggen: check that they are the ones it wrote, all of them, in order.
    #[arg(long)]
    pub generated: bool,
    /// How the report is written.
    #[arg(long, short, default_value = "text")]
    pub output: Output,
}

/// Formats of the report.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// One line a stream, for people.
    Text,
    /// One JSON object a stream, one a line.
    Json,
}

/// Why there is no clean report.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// No store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] store::Error),
    /// The report can't be written.
    #[error("can't print the report: {0}")]
    Print(#[from] io::Error),
    /// Something is wrong with the store.
    #[error(
        "{0} of {1} streams have missing, repeated or damaged lines that no recorded gap explains"
    )]
    Unsound(usize, usize),
}

/// Something that no gap explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    /// Numbers are missing between these two.
    Hole(u64, u64),
    /// A number comes again.
    Repeated(u64),
    /// A file can't be read, or is not what its name says.
    Damaged(String),
    /// It is said to be complete, and is not.
    FalselyComplete,
    /// What is stored is not what loggen wrote.
    Generated(generated::Problem),
}

/// What there is of one stream.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whose.
    #[serde(flatten)]
    pub id: StreamId,
    /// Lines.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// Where lines are, or may be, missing.
    pub gaps: Vec<Gap>,
    /// How it ended, where it has.
    pub end: Option<End>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What was found of loggen's lines, where they are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<Checked>,
    /// Number of the last line.
    #[serde(skip)]
    last: u64,
    #[serde(skip)]
    checker: Option<Checker>,
}

impl Report {
    fn new(id: StreamId, generated: bool) -> Self {
        Self {
            id,
            generated: None,
            checker: generated.then(Checker::default),
            lines: 0,
            bytes: 0,
            gaps: Vec::new(),
            end: None,
            problems: Vec::new(),
            last: 0,
        }
    }

    /// Whether it is proven that every line of the container is there.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.problems.is_empty() && self.end.as_ref().is_some_and(|end| end.complete)
    }

    fn line(&mut self, line: &Line) {
        if line.seq > self.last + 1 {
            self.problems.push(Problem::Hole(self.last, line.seq));
        } else if line.seq <= self.last {
            self.problems.push(Problem::Repeated(line.seq));
        }
        self.last = self.last.max(line.seq);
        self.lines += 1;
        self.bytes += line.message.len() as u64;
        if let Some(checker) = &mut self.checker {
            checker.line(line);
        }
    }

    fn finish(&mut self) {
        self.gaps.sort_by_key(|gap| gap.after_seq);
        self.gaps.dedup();
        // A stream that went on after an end has not ended.
        self.end = self.end.take().filter(|end| end.lines >= self.last);
        if let Some(end) = &self.end {
            if end.lines > self.last {
                self.problems.push(Problem::Hole(self.last, end.lines + 1));
            }
            if end.complete && !self.gaps.is_empty() {
                self.problems.push(Problem::FalselyComplete);
            }
        }
        if let Some(checker) = self.checker.take() {
            let mut checked = checker.finish(&self.gaps);
            let problems = std::mem::take(&mut checked.problems);
            (self.problems).extend(problems.into_iter().map(Problem::Generated));
            self.generated = Some(checked);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let continuity = match self.gaps.len() {
            0 => "continuity proven".to_owned(),
            1 => "1 gap".to_owned(),
            n => format!("{n} gaps"),
        };
        let end = match &self.end {
            Some(end) if end.complete => "complete",
            Some(_) => "ended, not complete",
            None => "not ended",
        };
        write!(
            f,
            "{}: {} lines, {} bytes, {continuity}, {end}",
            self.id, self.lines, self.bytes
        )?;
        if let Some(checked) = &self.generated {
            write!(
                f,
                "\n  as loggen wrote it: {} lines with a number, {} others; {} with a number lie in gaps",
                checked.numbered, checked.unnumbered, checked.in_gaps
            )?;
        }
        for gap in &self.gaps {
            let lost = gap
                .lost
                .map_or("an unknown number of".into(), |n| n.to_string());
            let place = if gap.not_before == gap.after_seq {
                format!("after line {}", gap.after_seq)
            } else {
                format!(
                    "after one of the lines {}-{}",
                    gap.not_before, gap.after_seq
                )
            };
            write!(f, "\n  gap {place}: {lost} lines, {:?}", gap.reason)?;
        }
        for problem in &self.problems {
            match problem {
                Problem::Hole(a, b) => write!(f, "\n  HOLE between lines {a} and {b}")?,
                Problem::Repeated(n) => write!(f, "\n  REPEATED line {n}")?,
                Problem::Damaged(what) => write!(f, "\n  DAMAGED {what}")?,
                Problem::FalselyComplete => write!(f, "\n  said to be complete, but has gaps")?,
                Problem::Generated(what) => write!(f, "\n  {what}")?,
            }
        }
        Ok(())
    }
}

/// Reads all streams of a store below a folder of it, whose lines loggen wrote where `generated` says so.
///
/// # Errors
/// Where the store can't be read at all; what is wrong with a stream is in its report.
pub async fn verify<D: Disk>(
    store: &Store<D>,
    folder: &str,
    generated: bool,
) -> Result<Vec<Report>, store::Error> {
    // The log first: what is cut from it meanwhile is then seen in files. Read last, its lines go on
    // where the files end.
    let mut reports = BTreeMap::new();
    for (id, mut files) in store.lake.list(folder).await? {
        let report = loop {
            let report = Report::new(id.clone(), generated);
            let report = verify_files(&store.lake, report, &files).await?;
            if report.problems.is_empty() {
                break report;
            }
            // A compaction meanwhile puts one file in the place of several, and a list that it runs into
            // may have neither. It does so once a stream, so this ends.
            let now = store.lake.files(&id).await?;
            if now == files {
                break report;
            }
            files = now;
        };
        reports.insert(id, report);
    }
    if let Some(disk) = &store.wal {
        verify_wal(disk, folder, generated, &mut reports).await?;
    }
    let mut reports: Vec<Report> = reports.into_values().collect();
    reports.iter_mut().for_each(Report::finish);
    Ok(reports)
}

async fn verify_files(
    lake: &Lake,
    mut report: Report,
    files: &Files,
) -> Result<Report, store::Error> {
    let id = report.id.clone();
    for (first, last) in layout::cover(&files.lines) {
        if first > report.last + 1 {
            report.problems.push(Problem::Hole(report.last, first));
            report.last = first - 1;
        }
        let damaged = |why: String| Problem::Damaged(format!("file {first}-{last}: {why}"));
        let before = report.lines;
        match lake.lines(&id, (first, last)).await {
            Ok(mut decoder) => loop {
                match decode(&id, &mut decoder) {
                    Ok(Some(lines)) => lines.iter().for_each(|line| report.line(line)),
                    Ok(None) => break,
                    Err(error) => {
                        report.problems.push(damaged(error.to_string()));
                        break;
                    }
                }
            },
            Err(error) => report.problems.push(damaged(error.to_string())),
        }
        if report.lines - before != last + 1 - first || report.last != last {
            let why = format!("it has {} lines", report.lines - before);
            report.problems.push(damaged(why));
        }
    }
    let (gaps, end) = lake.notes(files).await?;
    (report.gaps, report.end) = (gaps, end);
    Ok(report)
}

async fn verify_wal<D: Disk>(
    disk: &D,
    folder: &str,
    generated: bool,
    reports: &mut BTreeMap<StreamId, Report>,
) -> io::Result<()> {
    for segment in scan::segments(disk).await? {
        let mut scan = Scan::new(disk.clone(), segment);
        let mut names = BTreeMap::new();
        loop {
            let frame = match scan.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            match frame {
                Frame::Stream(number, by) => {
                    let selected = layout::folder(&by.id).is_some_and(|f| f.starts_with(folder));
                    if selected {
                        names.insert(number, by.id);
                    }
                }
                Frame::Records {
                    stream, records, ..
                } => {
                    let Some(id) = names.get(&stream) else {
                        continue;
                    };
                    let report = reports
                        .entry(id.clone())
                        .or_insert_with(|| Report::new(id.clone(), generated));
                    for record in records {
                        match record {
                            // What is in files already, or was written again after a failed fsync.
                            Record::Line(line) if line.seq <= report.last => {}
                            Record::Line(line) => report.line(&line),
                            Record::Gap(gap) => report.gaps.push(gap),
                            Record::End(end) => report.end = Some(end),
                            Record::File(_) => {}
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Runs the verifier, and prints its report.
///
/// # Errors
/// Where the store can't be read, or has a hole or a repeated line that no gap explains.
pub async fn run(args: Args) -> Result<(), VerifyError> {
    let mut store = Store::at(&args.store)?;
    if let Some(wal) = args.wal {
        store.wal = Some(Folder::new(wal));
    }
    let mut folder = String::new();
    if let Some(namespace) = &args.namespace {
        folder = format!("namespace={namespace}");
        if let Some(job) = &args.job {
            folder += &format!("/job={job}");
        }
    }
    let mut reports = verify(&store, &folder, args.generated).await?;
    if store.wal.is_some() && reports.iter().any(|r| !r.problems.is_empty()) {
        // A live store may have shipped a segment between the two readings of it.
        reports = verify(&store, &folder, args.generated).await?;
    }
    let reports: Vec<&Report> = reports
        .iter()
        .filter(|r| args.job.as_ref().is_none_or(|job| *job == r.id.job))
        .collect();
    let mut out = io::BufWriter::new(io::stdout());
    for report in &reports {
        use io::Write;
        match args.output {
            Output::Text => writeln!(out, "{report}")?,
            Output::Json => {
                let mut value = serde_json::to_value(report).map_err(io::Error::from)?;
                value["complete"] = report.complete().into();
                writeln!(out, "{value}")?;
            }
        }
    }
    let unsound = reports.iter().filter(|r| !r.problems.is_empty()).count();
    {
        use io::Write;
        let complete = reports.iter().filter(|r| r.complete()).count();
        let gaps: usize = reports.iter().map(|r| r.gaps.len()).sum();
        if matches!(args.output, Output::Text) {
            writeln!(
                out,
                "{} streams, {} lines: {complete} complete, {gaps} gaps, {unsound} unsound",
                reports.len(),
                reports.iter().map(|r| r.lines).sum::<u64>()
            )?;
        }
        out.flush()?;
    }
    if unsound > 0 {
        return Err(VerifyError::Unsound(unsound, reports.len()));
    }
    Ok(())
}
