//! Pods that outlive their job: it was deleted, and its pods with it, but they wait for their logs.
//!
//! Reconciles look after the pods of jobs that are there. Here are those whose job is gone, or can't be
//! read: nobody counts their lines any more, and each may go when its logs are stored or have had their
//! time. The set is as large as the number of jobs whose pods are being deleted.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::{
    ResourceExt,
    runtime::{reflector::ObjectRef, reflector::Store},
};

use super::{Context, apply, observe::Owner, watch::GuardedJob};
use crate::plan::{self, Observed};

/// Between two looks at those that wait; the operator hears of a stored log by its watch of pods.
const EVERY: Duration = Duration::from_secs(1);
/// Releases at the same time.
const PARALLEL: usize = 16;

/// Releases pods whose job is gone, until it is dropped.
pub async fn run(context: Arc<Context>, jobs: Store<GuardedJob>) {
    // A job that has not been listed yet is not gone.
    if jobs.wait_until_ready().await.is_err() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        look(&context, &jobs).await;
    }
}

async fn look(context: &Context, jobs: &Store<GuardedJob>) {
    let observed = Observed {
        log_drain: context.log_drain,
        ..Observed::default()
    };
    let now = (context.clock)();
    let orphans = (context.pods.draining().into_iter()).filter(|(owner, _)| !lives(jobs, owner));
    let free: Vec<_> = orphans
        .flat_map(|(owner, pods)| pods.into_iter().map(move |pod| (owner.clone(), pod)))
        .filter(|(_, pod)| plan::may_go_alone(pod, &observed, now))
        .collect();
    stream::iter(free)
        .for_each_concurrent(PARALLEL, |(owner, pod)| async move {
            if let Err(error) = apply::release(context, &owner, &pod.name, &pod.uid).await {
                tracing::warn!("{error}; trying again");
            }
        })
        .await;
}

/// Whether a reconcile will look after the job's pods.
fn lives(jobs: &Store<GuardedJob>, owner: &Owner) -> bool {
    let key = ObjectRef::new(&owner.name).within(&owner.namespace);
    jobs.get(&key)
        .is_some_and(|job| job.0.is_ok() && job.uid().as_ref() == Some(&owner.uid))
}
