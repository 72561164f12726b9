//! Carrying a plan out: the only code that writes to the API server (but for the Lease).
//!
//! Every write is safe to repeat: the status goes under its resourceVersion, pods and Services have
//! fixed names, deletions name the uid. What the API server refuses for good is remembered and comes
//! back to the plan as data; what may pass is an [`Error`] and tried again.

use std::future::Future;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    Context, events,
    metrics::{ClassLabel, Outcome, OutcomeLabel, ReasonLabel},
    observe::{self, Owner},
};
use crate::{
    api::{Attempt, TrainingJob, conditions, names},
    plan::{Effect, Event, Record, Refusal},
    pods,
    process::REQUEST_TIMEOUT,
};

/// Pods of one gang that are created or deleted at the same time.
const PARALLEL: usize = 16;

/// Why a step of a plan did not go through; it is tried again.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server said no, or could not be asked.
    #[error("can't {what}: {source}")]
    Api {
        /// What was tried, on which object.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("can't {what}: no answer from the API server within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// What was tried, on which object.
        what: String,
    },
    /// Someone else has changed the job since we read it; the watch will bring the newer one.
    #[error("{0} has changed in the meantime")]
    Stale(String),
    /// The job no longer exists.
    #[error("{0} is gone")]
    Gone(String),
}

/// Writes the status, then tells the user about it. Returns the job as stored.
pub async fn record(
    context: &Context,
    job: &TrainingJob,
    record: Record,
) -> Result<TrainingJob, Error> {
    let name = job.name_any();
    let api = jobs(context, job);
    let mut update = job.clone();
    update.status = Some(record.status);
    let what = format!("write the status of TrainingJob {name}");
    let params = PostParams::default();
    let answer = ask(&what, api.replace_status(&name, &params, &update)).await?;
    let mut stored = match context
        .metrics
        .count("update", "trainingjobs/status", answer)
    {
        Ok(stored) => stored,
        Err(error) if code(&error) == Some(409) => return Err(Error::Stale(name)),
        Err(error) if code(&error) == Some(404) => return Err(Error::Gone(name)),
        Err(error) => return Err(failed(what, error)),
    };
    count_ends(context, job, &stored);
    let opened = opened(job, &stored);
    observe::slim(&mut stored);
    context.memory.wrote(&stored, opened);
    if let Some(event) = record.event {
        publish(context, job, event).await;
    }
    Ok(stored)
}

/// The attempt that the write from `before` to `after` opened.
fn opened(before: &TrainingJob, after: &TrainingJob) -> Option<i32> {
    let number = |job: &TrainingJob| Some(job.status.as_ref()?.open_attempt()?.number);
    number(after).filter(|n| number(before) != Some(*n))
}

fn count_ends(context: &Context, before: &TrainingJob, after: &TrainingJob) {
    let (Some(status), was_open) = (
        after.status.as_ref(),
        before.status.as_ref().and_then(|s| s.open_attempt()),
    ) else {
        return;
    };
    let ended = was_open.and_then(|open| {
        status
            .attempts
            .iter()
            .find(|a| a.number == open.number && a.end_time.is_some())
    });
    if let Some(attempt) = ended {
        count_attempt(context, after, attempt, status.finished());
    }
    let had_ended = before.status.as_ref().is_some_and(|s| s.finished());
    if let Some(condition) = status
        .condition(conditions::SUCCEEDED)
        .filter(|_| status.finished() && !had_ended)
    {
        let reason = condition.reason.clone();
        let labels = ReasonLabel { reason };
        context.metrics.jobs_finished.get_or_create(&labels).inc();
    }
}

fn count_attempt(context: &Context, job: &TrainingJob, attempt: &Attempt, finished: bool) {
    let outcome = match (attempt.class, finished) {
        (Some(_), _) => Outcome::Failed,
        (None, true) => Outcome::Succeeded,
        (None, false) => Outcome::Stopped,
    };
    let metrics = &context.metrics;
    let labels = OutcomeLabel { outcome };
    metrics.attempts_ended.get_or_create(&labels).inc();
    let (Some(class), Some(end)) = (attempt.class, &attempt.end_time) else {
        return;
    };
    let labels = ClassLabel {
        class: class.to_string(),
    };
    metrics.attempts_failed.get_or_create(&labels).inc();
    // An attempt that was given up before its time has not run.
    let seconds = end.0.duration_since(attempt.start_time.0).as_secs().max(0);
    let gpus = i64::from(job.spec.num_nodes) * i64::from(job.spec.gpus_per_node);
    let lost = u64::try_from(seconds.saturating_mul(gpus)).unwrap_or(0);
    metrics.gpu_seconds_lost.get_or_create(&labels).inc_by(lost);
}

/// Carries out the effects. The Service comes first: without it, ranks could not find each other.
pub async fn effects(
    context: &Context,
    job: &TrainingJob,
    effects: Vec<Effect>,
) -> Result<(), Error> {
    if effects.contains(&Effect::CreateService) && !create_service(context, job).await? {
        return Ok(());
    }
    // All of them, also after an error: a request that is dropped may be carried out all the same,
    // and then we would not know of the pod.
    let results: Vec<_> = stream::iter(effects)
        .map(|effect| one(context, job, effect))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn one(context: &Context, job: &TrainingJob, effect: Effect) -> Result<(), Error> {
    match effect {
        // The Service is there; questions are answered by `ask`.
        Effect::CreateService | Effect::Ask(_) => Ok(()),
        Effect::CreatePod { attempt, rank } => create_pod(context, job, attempt, rank).await,
        Effect::DeletePod { name, uid } => {
            let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace(job));
            delete(context, api, "pods", &name, &uid, DeleteParams::default()).await
        }
        Effect::StopPod { name, uid } => {
            let what = format!("stop pod {name}");
            let patch = json!({"metadata": {"uid": uid}, "spec": {"activeDeadlineSeconds": 1}});
            patch_pod(context, &namespace(job), &name, what, patch).await
        }
        Effect::ReleasePod { name, uid } => {
            let owner = Owner {
                namespace: namespace(job),
                name: job.name_any(),
                uid: job.uid().unwrap_or_default(),
            };
            release(context, &owner, &name, &uid).await
        }
        Effect::DeleteJob => {
            let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
            let (api, params) = (jobs(context, job), DeleteParams::background());
            delete(context, api, "trainingjobs", &name, &uid, params).await
        }
    }
}

/// False where the name is taken or the API server refuses, which is remembered for the plan.
async fn create_service(context: &Context, job: &TrainingJob) -> Result<bool, Error> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), &namespace(job));
    let service = pods::service(job);
    let what = format!("create Service {}", service.name_any());
    let answer = ask(&what, api.create(&PostParams::default(), &service)).await?;
    match context.metrics.count("create", "services", answer) {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(409) => {
            let found = ask(&what, api.get(&service.name_any())).await?;
            let found = found.map_err(|e| failed(what, e))?;
            let ours = controlled_by(&found, job);
            if !ours {
                let message = format!(
                    "a Service named {} exists that is not this job's, and the gang needs that name: delete it or rename the job",
                    job.name_any()
                );
                refuse(context, job, message, false);
            }
            Ok(ours)
        }
        Err(error) => refused_or_failed(context, job, what, error).map(|()| false),
    }
}

/// Takes our finalizer from a pod of `job` that is being deleted.
pub async fn release(context: &Context, job: &Owner, name: &str, uid: &str) -> Result<(), Error> {
    let what = format!("release pod {name}, whose logs are stored or have had their time");
    let taken = [names::FINALIZER_LOGS];
    // Another pod of this name keeps its own.
    let patch = json!({"metadata": {"uid": uid, "$deleteFromPrimitiveList/finalizers": taken}});
    patch_pod(context, &job.namespace, name, what, patch).await?;
    context.pods.released(&job.uid, uid);
    Ok(())
}

async fn patch_pod(
    context: &Context,
    namespace: &str,
    name: &str,
    what: String,
    patch: Value,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    let answer = ask(&what, api.patch(name, &params, &patch)).await?;
    match context.metrics.count("patch", "pods", answer) {
        Ok(_) => Ok(()),
        // Gone already, or (422: a uid can't be changed) replaced by another of the same name.
        Err(error) if matches!(code(&error), Some(404 | 422)) => Ok(()),
        Err(error) => Err(failed(what, error)),
    }
}

async fn create_pod(
    context: &Context,
    job: &TrainingJob,
    attempt: i32,
    rank: i32,
) -> Result<(), Error> {
    let pod = match pods::pod(job, attempt, rank) {
        Ok(pod) if context.log_drain.is_some() => pods::held(pod),
        Ok(pod) => pod,
        Err(error) => {
            refuse(context, job, error.to_string(), true);
            return Ok(());
        }
    };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace(job));
    let what = format!("create pod {}", pod.name_any());
    let (memory, uid) = (&context.memory, job.uid().unwrap_or_default());
    let asked_before = memory.asks(&uid, attempt, rank);
    let answer = ask(&what, api.create(&PostParams::default(), &pod)).await?;
    let stored = match context.metrics.count("create", "pods", answer) {
        Ok(stored) => stored,
        // It is there already: an earlier request went through whose answer we did not get.
        Err(error) if code(&error) == Some(409) => {
            match ask(&what, api.get(&pod.name_any())).await? {
                Ok(stored) => stored,
                Err(error) if code(&error) == Some(404) && asked_before => {
                    memory.existed(&uid, attempt, rank);
                    return Ok(());
                }
                Err(error) => return Err(failed(what, error)),
            }
        }
        Err(error) => {
            if code(&error).is_some_and(|code| code < 500) {
                memory.not_created(&uid, attempt, rank);
            }
            return refused_or_failed(context, job, what, error);
        }
    };
    match observe::pod(&stored).filter(|(owner, _)| Some(&owner.uid) == job.uid().as_ref()) {
        Some((owner, facts)) => context.memory.created(&owner.uid, facts),
        None => {
            let name = stored.name_any();
            let message = format!(
                "a pod named {name} exists that is not this job's: delete it or rename the job"
            );
            refuse(context, job, message, false);
        }
    }
    Ok(())
}

/// A 4xx is the job's (or its namespace's) to mend, so it goes to the user; anything else is ours to
/// try again. 403 is an admission policy or a quota, which may change; the other codes will not.
fn refused_or_failed(
    context: &Context,
    job: &TrainingJob,
    what: String,
    error: kube::Error,
) -> Result<(), Error> {
    match &error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            // A namespace that is being deleted takes no pods; the job is deleted with it.
            refuse(context, job, status.message.clone(), status.code != 403);
            Ok(())
        }
        _ => Err(failed(what, error)),
    }
}

fn refuse(context: &Context, job: &TrainingJob, message: String, permanent: bool) {
    let attempt = job.status.as_ref().and_then(|s| s.open_attempt());
    let (Some(attempt), Some(uid)) = (attempt, job.uid()) else {
        return;
    };
    tracing::warn!(job = job.name_any(), "refused: {message}");
    let refusal = Refusal { message, permanent };
    context.memory.refused(&uid, attempt.number, refusal);
}

async fn delete<K>(
    context: &Context,
    api: Api<K>,
    resource: &'static str,
    name: &str,
    uid: &str,
    params: DeleteParams,
) -> Result<(), Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = params.preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    let what = format!("delete {resource}/{name}");
    let answer = ask(&what, api.delete(name, &params)).await?;
    match context.metrics.count("delete", resource, answer) {
        Ok(_) => Ok(()),
        // Gone already, or replaced by another of the same name.
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(failed(what, error)),
    }
}

/// Tells the user. A lost Event is logged and not tried again: the status has it all.
async fn publish(context: &Context, job: &TrainingJob, event: Event) {
    let about = job.object_ref(&());
    let result = events::publish(&context.client, &context.identity, about, event).await;
    context.metrics.count_event(&result);
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}

async fn ask<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, Error> {
    timeout(REQUEST_TIMEOUT, request)
        .await
        .map_err(|_| Error::Timeout { what: what.into() })
}

fn failed(what: String, source: kube::Error) -> Error {
    Error::Api {
        what,
        source: Box::new(source),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn controlled_by(object: &impl Resource, job: &TrainingJob) -> bool {
    let uid = job.uid().unwrap_or_default();
    object
        .meta()
        .owner_references
        .iter()
        .flatten()
        .any(|o| o.uid == uid)
}

fn namespace(job: &TrainingJob) -> String {
    job.namespace().unwrap_or_default()
}

fn jobs(context: &Context, job: &TrainingJob) -> Api<TrainingJob> {
    Api::namespaced(context.client.clone(), &namespace(job))
}
