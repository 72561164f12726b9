//! The layout of the local folder, for its writer and its reader alike:
//!
//! ```text
//! namespace=ml/job=bert/uid=6f…/attempt=1/rank=0/trainer-000000000001.log
//! └ Hive-style folders: pandas and DuckDB read    │       └ number of the file's first line
//!   them as columns                               └ container
//!                                               trainer.end: how its log ended, as JSON
//! ```
//!
//! Files are only appended to, and never renamed or overwritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    line::{self, StreamId},
    sink::End,
};

/// A folder of logs.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// One file of a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// Number of its first line.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Store {
    /// The store in `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn job(&self, namespace: &str, job: &str) -> Option<PathBuf> {
        (is_name(namespace) && is_name(job)).then(|| {
            self.root
                .join(format!("namespace={namespace}"))
                .join(format!("job={job}"))
        })
    }

    /// The folder of a stream's files. None where a part of its name is no file name.
    #[must_use]
    pub fn folder(&self, id: &StreamId) -> Option<PathBuf> {
        (is_name(&id.uid) && is_name(&id.container)).then_some(())?;
        Some(
            self.job(&id.namespace, &id.job)?
                .join(format!("uid={}", id.uid))
                .join(format!("attempt={}", id.attempt))
                .join(format!("rank={}", id.rank)),
        )
    }

    /// Uid of the newest job of that name: the one whose first line is the latest.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn newest_uid(&self, namespace: &str, job: &str) -> io::Result<Option<String>> {
        let Some(folder) = self.job(namespace, job) else {
            return Ok(None);
        };
        let mut newest = None;
        for uid in children(&folder, "uid=")? {
            let mut first = None;
            for id in self.streams(namespace, job, &uid)? {
                first = match (first, self.first_time(&id)?) {
                    (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
                    (a, b) => a.or(b),
                };
            }
            newest = newest.max(Some((first, uid)));
        }
        Ok(newest.map(|(_, uid)| uid))
    }

    fn first_time(&self, id: &StreamId) -> io::Result<Option<k8s_openapi::jiff::Timestamp>> {
        let Some(file) = self.files(id)?.into_iter().next() else {
            return Ok(None);
        };
        let mut head = [0; 64];
        let n = io::Read::read(&mut fs::File::open(file.path)?, &mut head)?;
        Ok(line::time_of(&head[..n]))
    }

    /// The streams of a job, by attempt, rank and container.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn streams(&self, namespace: &str, job: &str, uid: &str) -> io::Result<Vec<StreamId>> {
        let Some(folder) = self.job(namespace, job).filter(|_| is_name(uid)) else {
            return Ok(Vec::new());
        };
        let folder = folder.join(format!("uid={uid}"));
        let mut streams = Vec::new();
        for attempt in numbers(&folder, "attempt=")? {
            let folder = folder.join(format!("attempt={attempt}"));
            for rank in numbers(&folder, "rank=")? {
                let mut containers: Vec<String> =
                    children(&folder.join(format!("rank={rank}")), "")?
                        .iter()
                        .filter_map(|name| {
                            name.strip_suffix(".end")
                                .or_else(|| Some(split_file_name(name)?.0))
                                .map(Into::into)
                        })
                        .collect();
                containers.sort_unstable();
                containers.dedup();
                streams.extend(containers.into_iter().map(|container| StreamId {
                    namespace: namespace.into(),
                    job: job.into(),
                    uid: uid.into(),
                    attempt,
                    rank,
                    container,
                }));
            }
        }
        Ok(streams)
    }

    /// The files of a stream, in the order of their lines.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub fn files(&self, id: &StreamId) -> io::Result<Vec<LogFile>> {
        let Some(folder) = self.folder(id) else {
            return Ok(Vec::new());
        };
        let mut files: Vec<LogFile> = children(&folder, "")?
            .iter()
            .filter_map(|name| {
                let (container, first) = split_file_name(name)?;
                (container == id.container).then(|| LogFile {
                    first,
                    path: folder.join(name),
                })
            })
            .collect();
        files.sort_unstable();
        Ok(files)
    }

    /// How a stream ended. None while it has not, or where that can't be read.
    #[must_use]
    pub fn end(&self, id: &StreamId) -> Option<End> {
        serde_json::from_slice(&fs::read(self.end_path(id)?).ok()?).ok()
    }

    /// The file that [`Store::end`] reads.
    #[must_use]
    pub fn end_path(&self, id: &StreamId) -> Option<PathBuf> {
        Some(self.folder(id)?.join(format!("{}.end", id.container)))
    }
}

/// Name of the file of `container` whose first line has number `first`.
#[must_use]
pub fn file_name(container: &str, first: u64) -> String {
    format!("{container}-{first:012}.log")
}

fn split_file_name(name: &str) -> Option<(&str, u64)> {
    let (container, first) = name.strip_suffix(".log")?.rsplit_once('-')?;
    Some((container, first.parse().ok()?))
}

/// Whether a name from outside (a label, a URL) is safe as a part of a path.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What stands behind `prefix` in the names of a folder's children. A folder that is not there has
/// none.
fn children(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry?
            .file_name()
            .to_str()
            .and_then(|n| n.strip_prefix(prefix))
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn numbers(folder: &Path, prefix: &str) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = children(folder, prefix)?
        .iter()
        .filter_map(|n| n.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
