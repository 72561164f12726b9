//! The tables `jobs` and `attempts` beside the lines: what ran, and why it failed, when the object is
//! gone.
//!
//! The collector watches the TrainingJobs and stores a job's row when it has started, after each
//! attempt, when it has ended, when its logs are settled, and when it is deleted; and a row for each
//! attempt that has ended, so that the table has the whole ledger while the status keeps the newest ten.
//! A row is an object of its own that is replaced as a whole. What happens to a job while no collector
//! runs is stored when one does again, if the job is still there.
//!
//! Not here: lines, and deleting rows ([`super::retain`]).

mod recall;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use recall::{nothing, recall};

use super::{lake::Lake, layout, metrics::Metrics, sink::Error};
use crate::api::{TrainingJob, conditions};

/// Jobs that wait for the store at most; the watch is not read on beyond that.
const MAX_WAITING: usize = 20_000;
/// Waits between tries while the store takes nothing: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

type Guarded = DeserializeGuard<TrainingJob>;

/// What of a job is worth a new row; equal where nothing of that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Digest {
    generation: Option<i64>,
    /// Number of each attempt that has ended, and whether its logs are settled.
    ended: Vec<(i32, bool)>,
    succeeded: Option<String>,
    logs: Option<String>,
    deleted: bool,
}

impl Digest {
    /// None for a job that has not started.
    fn of(job: &TrainingJob, deleted: bool) -> Option<Self> {
        let status = job
            .status
            .as_ref()
            .filter(|s| !s.attempts.is_empty() || s.finished())?;
        let ended = status.attempts.iter().filter(|a| a.end_time.is_some());
        let is = |kind| status.condition(kind).map(|c| c.status.clone());
        Some(Self {
            generation: job.metadata.generation,
            ended: ended.map(|a| (a.number, a.logs.is_some())).collect(),
            succeeded: is(conditions::SUCCEEDED),
            logs: is(conditions::LOGS_COMPLETE),
            deleted,
        })
    }
}

/// When something that a row says last changed, by the job's own clock.
fn changed(job: &TrainingJob) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let conditions = status.conditions.iter().map(|c| c.last_transition_time.0);
    let attempts = status
        .attempts
        .iter()
        .filter_map(|a| a.end_time.as_ref().map(|t| t.0));
    conditions.chain(attempts).max()
}

struct Waiting {
    job: TrainingJob,
    deleted: Option<Timestamp>,
}

/// Stores the rows of all jobs, until the process ends.
pub async fn run(
    lake: Lake,
    jobs: Api<Guarded>,
    cluster: String,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut archive = Archive {
        lake,
        cluster,
        metrics,
        known: HashMap::new(),
        earlier: None,
        waiting: BTreeMap::new(),
        retry: Retry::default(),
    };
    let mut events = watcher(jobs, watcher::Config::default())
        .default_backoff()
        .boxed();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            event = events.next(), if archive.waiting.len() < MAX_WAITING => match event {
                Some(Ok(event)) => archive.observe(event),
                Some(Err(error)) => {
                    archive.metrics.watch_errors.inc();
                    tracing::warn!("can't watch the TrainingJobs, will try again: {error}");
                }
                None => return,
            },
            () = tokio::time::sleep_until(archive.retry.at), if !archive.waiting.is_empty() => {
                archive.store_one().await;
            }
        }
    }
}

/// When the store is tried next.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            wait: BACKOFF.0,
        }
    }
}

struct Archive {
    lake: Lake,
    cluster: String,
    metrics: Metrics,
    /// By uid: what was seen last of the jobs that are there.
    known: HashMap<String, Digest>,
    /// By uid: when a row was stored, as it was when the collector started.
    earlier: Option<HashMap<String, Timestamp>>,
    /// By uid: their newest state.
    waiting: BTreeMap<String, Waiting>,
    retry: Retry,
}

impl Archive {
    fn observe(&mut self, event: watcher::Event<Guarded>) {
        let (job, deleted) = match event {
            watcher::Event::Apply(job) | watcher::Event::InitApply(job) => (job, None),
            watcher::Event::Delete(job) => (job, Some(Timestamp::now())),
            watcher::Event::Init | watcher::Event::InitDone => return,
        };
        // One that can't be read is the operator's to complain of.
        let Ok(job) = job.0 else { return };
        let uid = job.uid().unwrap_or_default();
        let Some(digest) = Digest::of(&job, deleted.is_some()) else {
            return;
        };
        if self.known.get(&uid) == Some(&digest) {
            return;
        }
        if deleted.is_some() {
            self.known.remove(&uid);
        } else {
            self.known.insert(uid.clone(), digest);
        }
        self.waiting.insert(uid, Waiting { job, deleted });
    }

    async fn store_one(&mut self) {
        if let Err(error) = self.try_one().await {
            self.metrics.archive_errors.inc();
            let seconds = self.retry.wait.as_secs();
            tracing::warn!("can't store what jobs ran: {error}; will try again in {seconds} s");
            self.retry.at = Instant::now() + self.retry.wait;
            self.retry.wait = (self.retry.wait * 2).min(BACKOFF.1);
        } else {
            self.retry = Retry::default();
        }
    }

    async fn try_one(&mut self) -> Result<(), Error> {
        if self.earlier.is_none() {
            let rows = self.lake.rows(layout::JOBS).await?.into_iter();
            let uid = |path: &str| layout::uid_of_job_row(path).map(str::to_owned);
            let times = rows.filter_map(|(path, time)| Some((uid(path.as_ref())?, time)));
            self.earlier = Some(times.collect());
        }
        let Some((uid, waiting)) = self.waiting.first_key_value() else {
            return Ok(());
        };
        if !self.is_stored(uid, waiting) {
            store(&self.lake, &self.cluster, &waiting.job, waiting.deleted).await?;
        }
        self.waiting.pop_first();
        Ok(())
    }

    /// Whether a collector before this one has stored all that there will be to say of the job. So a
    /// restart over 10,000 jobs that have ended stores nothing.
    fn is_stored(&self, uid: &str, waiting: &Waiting) -> bool {
        let job = &waiting.job;
        let over = waiting.deleted.is_none()
            && (job.status.as_ref()).is_some_and(|s| s.finished() && s.logs_settled());
        let earlier = self.earlier.as_ref().and_then(|all| all.get(uid));
        // Times in a status are cut to the second.
        let margin = Duration::from_secs(2);
        over && earlier.zip(changed(job)).is_some_and(|(stored, changed)| {
            changed
                .checked_add(margin)
                .is_ok_and(|changed| changed < *stored)
        })
    }
}

/// Stores the rows of a job: first those of its attempts. `deleted`: when it was seen to be gone.
///
/// # Errors
/// Where the store refuses. It can be repeated.
pub async fn store(
    lake: &Lake,
    cluster: &str,
    job: &TrainingJob,
    deleted: Option<Timestamp>,
) -> Result<(), Error> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let uid = job.uid().unwrap_or_default();
    let attempts = job.status.iter().flat_map(|s| &s.attempts);
    for attempt in attempts.filter(|a| a.end_time.is_some()) {
        let row = table::attempt(job, attempt, cluster);
        let path = layout::attempt_row(&namespace, &name, &uid, attempt.number);
        put(lake, path, "attempt", &row).await?;
    }
    let row = table::job(job, cluster, deleted);
    put(lake, layout::job_row(&namespace, &name, &uid), "job", &row).await
}

async fn put(
    lake: &Lake,
    path: Option<object_store::path::Path>,
    table: &str,
    row: &table::Row,
) -> Result<(), Error> {
    // The API server takes no name that is none of a file.
    let Some(path) = path else { return Ok(()) };
    let data = table::encode(table, row).map_err(|source| Error::Parquet {
        path: path.to_string(),
        source,
    })?;
    lake.put_row(&path, data).await
}
