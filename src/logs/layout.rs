//! PURE: where in the store a stream's objects are.
//!
//! ```text
//! namespace=ml/job=bert/uid=6f…/attempt=1/rank=0/trainer-000000000001-000000004096.parquet
//! └ Hive-style folders: DuckDB, Spark and pyarrow│       └ numbers of its first and last line
//!   read them as columns                         │
//!                                                trainer-6f3a-000000000007.json: gaps and the end
//! _jobs/namespace=ml/job=bert/uid=6f….parquet                       one row: what ran
//! _attempts/namespace=ml/job=bert/uid=6f…/attempt=000001.parquet    one row: how it ended
//! ```
//!
//! Objects with lines are never changed. A compaction puts one file in the place of several: while both are there
//! the longer one counts ([`cover`]).

use std::fmt::Write as _;

use object_store::path::Path;

use super::line::StreamId;

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines.
    Lines {
        /// Number of the first one.
        first: u64,
        /// Number of the last one.
        last: u64,
    },
    /// Gaps, or an end.
    Notes,
}

/// Whether a name from outside (a label, a URL) is safe as a part of a path.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The folder of all jobs of one name.
#[must_use]
pub fn job(namespace: &str, job: &str) -> Option<String> {
    (is_name(namespace) && is_name(job)).then(|| format!("namespace={namespace}/job={job}"))
}

/// The folder of a stream. None where a part of its name is no file name.
#[must_use]
pub fn folder(id: &StreamId) -> Option<String> {
    (is_name(&id.uid) && is_name(&id.container)).then_some(())?;
    let mut folder = job(&id.namespace, &id.job)?;
    let _ = write!(
        folder,
        "/uid={}/attempt={}/rank={}",
        id.uid, id.attempt, id.rank
    );
    Some(folder)
}

/// The object of these lines.
#[must_use]
pub fn lines(id: &StreamId, first: u64, last: u64) -> Option<Path> {
    let name = format!("{}-{first:012}-{last:012}.parquet", id.container);
    Some(Path::from(format!("{}/{name}", folder(id)?)))
}

/// The object of the gaps and the end that were in one segment of a write-ahead log.
#[must_use]
pub fn notes(id: &StreamId, epoch: u64, segment: u64) -> Option<Path> {
    let name = format!("{}-{epoch:x}-{segment:012}.json", id.container);
    Some(Path::from(format!("{}/{name}", folder(id)?)))
}

/// Folder of the rows of all jobs. What begins so is passed over by Spark, Hive and pyarrow where they are
/// given the whole store, so that they take it for a table of lines.
pub const JOBS: &str = "_jobs";
/// Folder of the rows of all attempts.
pub const ATTEMPTS: &str = "_attempts";

/// The object with the row of a job.
#[must_use]
pub fn job_row(namespace: &str, name: &str, uid: &str) -> Option<Path> {
    let job = job(namespace, name).filter(|_| is_name(uid))?;
    Some(Path::from(format!("{JOBS}/{job}/uid={uid}.parquet")))
}

/// The object with the row of an attempt.
#[must_use]
pub fn attempt_row(namespace: &str, name: &str, uid: &str, attempt: i32) -> Option<Path> {
    let folder = attempt_rows(namespace, name, uid)?;
    Some(Path::from(format!("{folder}/attempt={attempt:06}.parquet")))
}

/// The folder of the rows of all attempts of a job.
#[must_use]
pub fn attempt_rows(namespace: &str, name: &str, uid: &str) -> Option<String> {
    let job = job(namespace, name).filter(|_| is_name(uid))?;
    Some(format!("{ATTEMPTS}/{job}/uid={uid}"))
}

/// The uid of the job whose row an object is.
#[must_use]
pub fn uid_of_job_row(path: &str) -> Option<&str> {
    let file = path.strip_prefix(JOBS)?.rsplit('/').next()?;
    file.strip_prefix("uid=")?.strip_suffix(".parquet")
}

/// Which write-ahead log, and which of its segments, an object of gaps and ends came from: those of a
/// stream are newer the greater this is.
#[must_use]
pub fn noted_in(path: &str) -> Option<(u64, u64)> {
    let (name, segment) = path.strip_suffix(".json")?.rsplit_once('-')?;
    let epoch = name.rsplit_once('-')?.1;
    Some((u64::from_str_radix(epoch, 16).ok()?, segment.parse().ok()?))
}

/// Whose an object is, and what.
#[must_use]
pub fn parse(path: &str) -> Option<(StreamId, Kind)> {
    let mut parts = path.split('/');
    let mut part = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix('=');
    let (namespace, job, uid) = (part("namespace")?, part("job")?, part("uid")?);
    let (attempt, rank) = (part("attempt")?.parse().ok()?, part("rank")?.parse().ok()?);
    let name = parts.next().filter(|_| parts.next().is_none())?;
    let (container, kind) = if let Some(name) = name.strip_suffix(".parquet") {
        let (name, last) = name.rsplit_once('-')?;
        let (container, first) = name.rsplit_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (container, Kind::Lines { first, last })
    } else {
        let name = name.strip_suffix(".json")?.rsplit_once('-')?.0;
        (name.rsplit_once('-')?.0, Kind::Notes)
    };
    let id = StreamId {
        namespace: namespace.into(),
        job: job.into(),
        uid: uid.into(),
        attempt,
        rank,
        container: container.into(),
    };
    Some((id, kind))
}

/// The files to read, in order, of those that are there: each that is not a part of another. Between
/// two of them there may be a hole; they never overlap, unless something wrote them that is not us.
#[must_use]
pub fn cover(files: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted = files.to_vec();
    sorted.sort_unstable_by_key(|(first, last)| (*first, std::cmp::Reverse(*last)));
    let mut covered = 0;
    sorted.retain(|(_, last)| {
        let longer = *last > covered;
        covered = covered.max(*last);
        longer
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_their_names() {
        let id = StreamId {
            namespace: "ml".into(),
            job: "bert-7".into(),
            uid: "u-1".into(),
            attempt: 2,
            rank: 13,
            container: "istio-proxy".into(),
        };
        let path = lines(&id, 1, 4096).unwrap();
        assert_eq!(
            path.as_ref(),
            "namespace=ml/job=bert-7/uid=u-1/attempt=2/rank=13/istio-proxy-000000000001-000000004096.parquet"
        );
        let kind = Kind::Lines {
            first: 1,
            last: 4096,
        };
        assert_eq!(parse(path.as_ref()), Some((id.clone(), kind)));
        let path = notes(&id, 0xabc, 7).unwrap();
        assert_eq!(parse(path.as_ref()), Some((id.clone(), Kind::Notes)));
        assert_eq!(noted_in(path.as_ref()), Some((0xabc, 7)));
        for bad in ["..", "a/b", "", ".x"] {
            let id = StreamId {
                job: bad.into(),
                ..id.clone()
            };
            assert_eq!(lines(&id, 1, 1), None, "{bad}");
        }
    }

    #[test]
    fn the_longer_file_counts() {
        assert_eq!(
            cover(&[(51, 100), (1, 50), (1, 100), (101, 120)]),
            [(1, 100), (101, 120)]
        );
        assert_eq!(cover(&[(1, 2), (5, 6)]), [(1, 2), (5, 6)]);
        assert_eq!(cover(&[]), []);
    }
}
