//! Retention: whole attempts are deleted, the oldest first, by age and by the size of the store; and the
//! store is counted while it is listed.
//!
//! What the collector still follows is never deleted, however large or old it is: its stream is known to
//! the write-ahead log until its pod is gone and all of it is shipped.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    folder::TextFiles,
    lake::{Files, Lake},
    layout,
    line::StreamId,
    metrics::Metrics,
    sink::Error,
    wal::Wal,
};

const EVERY: Duration = Duration::from_hours(1);
/// Streams that are deleted at a time.
const PARALLEL: usize = 8;
const DAY: i64 = 24 * 60 * 60;

/// What is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Days; None: for ever.
    pub days: Option<u32>,
    /// Bytes; None: any number.
    pub bytes: Option<u64>,
}

/// One attempt of a job, with all its ranks and containers.
#[derive(Debug)]
struct Attempt {
    /// When the newest of its objects was stored.
    until: Option<Timestamp>,
    bytes: u64,
    streams: Vec<(StreamId, Files)>,
}

/// All attempts, the oldest first.
fn attempts(all: BTreeMap<StreamId, Files>) -> Vec<Attempt> {
    let mut attempts = BTreeMap::<_, Attempt>::new();
    for (id, files) in all {
        let key = (
            id.namespace.clone(),
            id.job.clone(),
            id.uid.clone(),
            id.attempt,
        );
        let attempt = attempts.entry(key).or_insert(Attempt {
            until: None,
            bytes: 0,
            streams: Vec::new(),
        });
        attempt.until = attempt.until.max(files.until);
        attempt.bytes += files.bytes;
        attempt.streams.push((id, files));
    }
    let mut attempts: Vec<Attempt> = attempts.into_values().collect();
    attempts.sort_by_key(|attempt| attempt.until);
    attempts
}

/// Deletes what is beyond the limits.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The store.
    pub lake: Lake,
    /// The second sink, where there is one: an attempt is deleted from both.
    pub text: Option<TextFiles>,
    /// What is kept.
    pub limits: Limits,
    /// Knows what is still followed.
    pub wal: Wal,
    /// Counters.
    pub metrics: Metrics,
}

impl Retention {
    /// Counts and deletes, now and every hour, until the process ends.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                done = self.once(Timestamp::now()) => if let Err(error) = done {
                    tracing::warn!(
                        "can't count the store and delete what is beyond its limits: {error}; it is tried again in an hour"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Counts and deletes once.
    ///
    /// # Errors
    /// Where the store refuses. What is deleted by then stays deleted, and it can be repeated.
    pub async fn once(&self, now: Timestamp) -> Result<(), Error> {
        let attempts = attempts(self.lake.list("").await?);
        let mut total: u64 = attempts.iter().map(|attempt| attempt.bytes).sum();
        self.metrics.store_bytes.set(total.cast_signed());
        let before = self.limits.days.and_then(|days| {
            now.checked_sub(SignedDuration::from_secs(i64::from(days) * DAY))
                .ok()
        });
        for attempt in attempts {
            let old = before.is_some_and(|before| attempt.until.is_some_and(|u| u < before));
            let large = self.limits.bytes.is_some_and(|bytes| total > bytes);
            if (old || large) && !self.followed(&attempt).await {
                self.delete(&attempt).await?;
                total -= attempt.bytes;
                self.metrics.store_bytes.set(total.cast_signed());
            }
        }
        match before {
            Some(before) => self.forget_rows(before).await,
            None => Ok(()),
        }
    }

    /// Deletes the rows of jobs and attempts that were stored before that: with the lines that they
    /// speak of. They are too small to count.
    async fn forget_rows(&self, before: Timestamp) -> Result<(), Error> {
        for table in [layout::ATTEMPTS, layout::JOBS] {
            for (path, stored) in self.lake.rows(table).await? {
                if stored < before {
                    self.lake.forget_row(&path).await?;
                }
            }
        }
        Ok(())
    }

    async fn followed(&self, attempt: &Attempt) -> bool {
        for (id, _) in &attempt.streams {
            if self.wal.find(id).await.is_some() {
                return true;
            }
        }
        false
    }

    async fn delete(&self, attempt: &Attempt) -> Result<(), Error> {
        // Boxed, because the compiler can't tell otherwise that the futures may change threads.
        let deleted: Vec<BoxFuture<'_, Result<(), Error>>> = (attempt.streams.iter())
            .map(|(id, files)| Box::pin(self.forget(id, files)) as _)
            .collect();
        let deleted = futures::stream::iter(deleted).buffer_unordered(PARALLEL);
        deleted.try_collect::<()>().await?;
        self.metrics.deleted_attempts.inc();
        self.metrics.deleted_bytes.inc_by(attempt.bytes);
        if let Some((id, _)) = attempt.streams.first() {
            tracing::info!(
                "deleted the lines of attempt {} of {}/{} ({} bytes): beyond what is kept",
                id.attempt,
                id.namespace,
                id.job,
                attempt.bytes
            );
        }
        Ok(())
    }

    async fn forget(&self, id: &StreamId, files: &Files) -> Result<(), Error> {
        self.lake.forget(id, files).await?;
        match &self.text {
            Some(text) => text.forget(id).await,
            None => Ok(()),
        }
    }
}
