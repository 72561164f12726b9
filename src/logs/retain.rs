//! Retention: whole attempts are deleted, the oldest first, by age and by the size of the store. What
//! the collector still follows is never deleted.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    lake::{Files, Lake},
    line::StreamId,
    sink::Error,
    wal::Wal,
};

const EVERY: Duration = Duration::from_hours(1);
const DAY: i64 = 24 * 60 * 60;

/// What is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Days; None: for ever.
    pub days: Option<u32>,
    /// Bytes; None: any number.
    pub bytes: Option<u64>,
}

type Attempt<'a> = Vec<(&'a StreamId, &'a Files)>;

/// The attempts to delete, the oldest first.
fn expired(all: &BTreeMap<StreamId, Files>, limits: Limits, now: Timestamp) -> Vec<Attempt<'_>> {
    let mut attempts = BTreeMap::<_, Attempt<'_>>::new();
    for (id, files) in all {
        let key = (&id.namespace, &id.job, &id.uid, id.attempt);
        attempts.entry(key).or_default().push((id, files));
    }
    let mut attempts: Vec<_> = attempts
        .into_values()
        .map(|streams| (streams.iter().filter_map(|(_, f)| f.until).max(), streams))
        .collect();
    attempts.sort_by_key(|(until, _)| *until);
    let mut total: u64 = all.values().map(|files| files.bytes).sum();
    let before = limits.days.and_then(|days| {
        now.checked_sub(SignedDuration::from_secs(i64::from(days) * DAY))
            .ok()
    });
    let mut expired = Vec::new();
    for (until, streams) in attempts {
        let old = before.is_some_and(|before| until.is_some_and(|until| until < before));
        let large = limits.bytes.is_some_and(|bytes| total > bytes);
        if old || large {
            total -= streams.iter().map(|(_, files)| files.bytes).sum::<u64>();
            expired.push(streams);
        }
    }
    expired
}

/// Deletes what is beyond the limits, now and every hour, until the process ends.
pub async fn run(lake: Lake, limits: Limits, wal: Wal, shutdown: CancellationToken) {
    if limits.days.is_none() && limits.bytes.is_none() {
        return;
    }
    loop {
        if let Err(error) = once(&lake, limits, &wal).await {
            tracing::warn!("can't delete what is too old: {error}");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn once(lake: &Lake, limits: Limits, wal: &Wal) -> Result<(), Error> {
    let all = lake.list("").await?;
    'attempts: for streams in expired(&all, limits, Timestamp::now()) {
        for (id, _) in &streams {
            if wal.find(id).await.is_some() {
                continue 'attempts;
            }
        }
        for (id, files) in &streams {
            lake.forget(id, files).await?;
        }
        if let Some((id, _)) = streams.first() {
            tracing::info!(
                "deleted the lines of attempt {} of {}/{}: beyond what is kept",
                id.attempt,
                id.namespace,
                id.job
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_attempts_go_first() {
        let now = Timestamp::from_second(100 * DAY).unwrap();
        let all: BTreeMap<_, _> = [(1, 0, 10), (1, 1, 50), (2, 0, 60), (3, 0, 70)]
            .into_iter()
            .map(|(attempt, rank, day)| {
                let id = StreamId {
                    namespace: "ml".into(),
                    job: "bert".into(),
                    uid: "u".into(),
                    attempt,
                    rank,
                    container: "trainer".into(),
                };
                let files = Files {
                    until: Timestamp::from_second(day * DAY).ok(),
                    bytes: 100,
                    ..Files::default()
                };
                (id, files)
            })
            .collect();
        let gone = |days, bytes| {
            let limits = Limits { days, bytes };
            let expired = expired(&all, limits, now);
            expired.iter().map(|a| a[0].0.attempt).collect::<Vec<_>>()
        };
        assert_eq!(gone(None, None), Vec::<u32>::new());
        assert_eq!(gone(Some(45), None), [1], "its newest line counts");
        assert_eq!(gone(None, Some(200)), [1]);
        assert_eq!(gone(None, Some(199)), [1, 2]);
        assert_eq!(gone(Some(35), Some(100)), [1, 2]);
    }
}
