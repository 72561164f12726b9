//! One look at one job: observe, plan, apply, until there is nothing left to record or to ask.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::controller::Action};

use super::{Context, apply, ask, watch};
use crate::{
    api::TrainingJob,
    plan::{self, Effect, Observed, Urgency},
};

/// A reconcile records and asks at most so often before it lets others go first: start, end, question
/// and retry of an attempt follow each other at once, and nothing needs more.
const MAX_STEPS: usize = 8;

/// How long changes of each urgency are collected, counted from the last write of the job.
fn collect(urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Now => Duration::ZERO,
        Urgency::Soon => Duration::from_secs(5),
        Urgency::Eventually => Duration::from_secs(60),
    }
}

/// The shortest wait before a failed reconcile is tried again; doubled each time, up to a minute.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Looks at a job and does what there is to do.
///
/// # Errors
/// What the API server did not take; [`retry`] says when it is tried again.
pub async fn reconcile(
    guarded: Arc<watch::GuardedJob>,
    context: Arc<Context>,
) -> Result<Action, apply::Error> {
    let job = match &guarded.0 {
        Ok(job) => job,
        Err(error) => {
            let name = error.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(
                "TrainingJob {name} can't be read and is left alone: {error}; apply it anew"
            );
            return Ok(Action::await_change());
        }
    };
    let begin = std::time::Instant::now();
    let result = look(job, &context).await;
    context
        .metrics
        .reconcile_seconds
        .observe(begin.elapsed().as_secs_f64());
    match result {
        Ok(action) => {
            context.memory.went_through(&uid(job));
            Ok(action)
        }
        Err(apply::Error::Gone(_)) => Ok(Action::await_change()),
        // The watch is about to bring the newer job and trigger the next look; the time is a backstop.
        Err(apply::Error::Stale(_)) => Ok(Action::requeue(RETRY)),
        Err(error) => Err(error),
    }
}

async fn look(watched: &TrainingJob, context: &Context) -> Result<Action, apply::Error> {
    let uid = uid(watched);
    let mut job = context.memory.newest(watched);
    for _ in 0..MAX_STEPS {
        let observed = observe(&job, context);
        let plan = plan::plan(&job, &observed, (context.clock)());
        if let Some(record) = plan.record {
            if let Some(wait) = context
                .memory
                .since_write(&uid)
                .and_then(|since| collect(record.urgency).checked_sub(since))
                .filter(|wait| !wait.is_zero())
            {
                return Ok(Action::requeue(plan.requeue.map_or(wait, |r| r.min(wait))));
            }
            job = apply::record(context, &job, record).await?;
            continue;
        }
        if let [Effect::Ask(question)] = plan.effects.as_slice() {
            ask::answer(context, &job, question, &observed).await;
            continue;
        }
        if !plan.effects.is_empty() {
            apply::effects(context, &job, plan.effects).await?;
        }
        return Ok(requeue(plan.requeue, watched, &job, context));
    }
    Ok(Action::requeue(RETRY))
}

/// When to look again. A job at rest that is known to have ended is not looked at again; anything
/// else is now and then, in case a trigger was lost.
fn requeue(
    wait: Option<Duration>,
    watched: &TrainingJob,
    job: &TrainingJob,
    context: &Context,
) -> Action {
    // Its logs too.
    let finished = (watched.status.as_ref()).is_some_and(|s| s.finished() && s.logs_settled());
    match wait {
        Some(wait) => Action::requeue(wait.min(watch::RESYNC)),
        None if finished => {
            context.memory.forget(&uid(watched));
            Action::await_change()
        }
        // A refusal that may pass is tried again soon; a gang at work is looked at rarely.
        None if refused(job, context) => Action::requeue(MAX_RETRY / 6),
        None => Action::requeue(watch::RESYNC),
    }
}

fn refused(job: &TrainingJob, context: &Context) -> bool {
    let attempt = job.status.as_ref().and_then(|s| s.open_attempt());
    attempt.is_some_and(|a| {
        context
            .memory
            .recall(&uid(job), Some(a.number))
            .refusal
            .is_some()
    })
}

/// The surroundings of the job: what the watches say, and what we know that they do not say yet.
fn observe(job: &TrainingJob, context: &Context) -> Observed {
    let uid = uid(job);
    let attempt = job.status.as_ref().and_then(|s| s.open_attempt());
    if let Some(attempt) = attempt.filter(|a| a.start_time.0 > (context.clock)()) {
        context.memory.vouch(&uid, attempt.number);
    }
    // Memory first: a pod that the watch shows in between is then in both, never in neither.
    let remembered = context.memory.recall(&uid, attempt.map(|a| a.number));
    let mut pods = context.pods.of(&uid);
    for pod in remembered.unseen {
        if !pods.iter().any(|p| p.name == pod.name) {
            pods.push(pod);
        }
    }
    Observed {
        pods,
        runtime: context.runtimes.of(job),
        opened_here: remembered.opened_here,
        created: remembered.created,
        refusal: remembered.refusal,
        answers: remembered.answers,
        cluster_rules: context.cluster_rules.now(),
        log_drain: context.log_drain,
    }
}

/// When a failed reconcile is tried again.
pub fn retry(job: Arc<watch::GuardedJob>, error: &apply::Error, context: Arc<Context>) -> Action {
    context.metrics.reconcile_errors.inc();
    let Ok(job) = &job.0 else {
        return Action::await_change();
    };
    let failures = context.memory.failed(&uid(job));
    let wait = RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(MAX_RETRY);
    tracing::warn!(
        job = job.name_any(),
        "{error}; trying again in {:.1} s",
        wait.as_secs_f64()
    );
    Action::requeue(wait)
}

fn uid(job: &TrainingJob) -> String {
    job.uid().unwrap_or_default()
}
