//! What a reader of logs needs to know of the job itself: which one has the name now, and when it
//! has ended.

use std::time::Duration;

use futures::TryStreamExt;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::time::timeout;

use super::{
    disk::Folder,
    read::{Error, Job, Reader, Selection},
    store::Store,
};
use crate::api::{TrainingJob, TrainingJobStatus};

/// The API server is only asked for better answers; without one the store alone gives them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the lines of the job that has this name: the one that is in the cluster where there is one
/// and its name was used before, otherwise the newest in the store.
///
/// # Errors
/// As [`Reader::open`].
pub async fn open(
    store: Store,
    client: Option<&Client>,
    namespace: &str,
    name: &str,
    selection: Selection,
) -> Result<(Reader<Folder>, Job), Error> {
    let (job, is_live) = match &selection.cursor {
        // Also where another job has the name by now.
        Some(cursor) => (job(namespace, name, cursor.uid.clone()), false),
        None => find(&store, client, namespace, name).await?,
    };
    let opened = Reader::open(store, job.clone(), selection).await;
    match opened {
        Ok(reader) => Ok((reader, job)),
        Err(Error::NoJob { namespace, job }) if is_live => Err(Error::NotYet { namespace, job }),
        Err(error) => Err(error),
    }
}

/// The job that has this name, and whether it is in the cluster.
///
/// # Errors
/// Where there is none, and where the store can't be read.
pub async fn find(
    store: &Store,
    client: Option<&Client>,
    namespace: &str,
    name: &str,
) -> Result<(Job, bool), Error> {
    let live = match client {
        Some(client) => live_uid(client, namespace, name).await,
        None => None,
    };
    if let Some(uid) = live {
        return Ok((job(namespace, name, uid), true));
    }
    let newest = store.newest_uid(namespace, name).await;
    let newest = newest.map_err(|source| Error::Store {
        place: store.lake.name().to_owned(),
        source: Box::new(source),
    })?;
    match newest {
        Some(uid) => Ok((job(namespace, name, uid), false)),
        None => Err(Error::NoJob {
            namespace: namespace.into(),
            job: name.into(),
        }),
    }
}

fn job(namespace: &str, name: &str, uid: String) -> Job {
    Job {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid,
    }
}

async fn live_uid(client: &Client, namespace: &str, name: &str) -> Option<String> {
    let jobs: Api<TrainingJob> = Api::namespaced(client.clone(), namespace);
    match timeout(PATIENCE, jobs.get_metadata_opt(name)).await {
        Ok(Ok(job)) => job?.uid(),
        Ok(Err(error)) => {
            tracing::debug!("can't ask for job {namespace}/{name}: {error}");
            None
        }
        Err(_) => None,
    }
}

/// Is over when the job has ended for good, is gone, or has been replaced by another of its name.
pub async fn ended(client: Client, job: Job) {
    let jobs: Api<TrainingJob> = Api::namespaced(client, &job.namespace);
    let over = |now: &Option<TrainingJob>| {
        now.as_ref().is_none_or(|now| {
            now.uid().as_deref() != Some(&job.uid)
                || now.status.as_ref().is_some_and(TrainingJobStatus::finished)
        })
    };
    let mut changes = std::pin::pin!(watcher::watch_object(jobs, &job.name).default_backoff());
    loop {
        match changes.try_next().await {
            Ok(Some(now)) if over(&now) => return,
            Ok(Some(_)) => {}
            Ok(None) => return std::future::pending().await,
            Err(error) => tracing::debug!("can't watch job {}: {error}", job.name),
        }
    }
}
