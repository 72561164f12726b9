//! Answers to a plan's questions: what the watches do not bring. The answers go into [`super::memory`]
//! and come back to the plan as data; a question that could not be answered is answered with nothing,
//! so that no plan waits for ever.
//!
//! Not here: what the answers mean (see [`crate::diagnose`]).

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncReadExt, StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Event, Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use regex::bytes::Regex;
use tokio::time::timeout;

use super::{Context, observe};
use crate::{
    api::{TrainingJob, names},
    diagnose::{NodeFacts, TAIL_BYTES, Tail},
    plan::{Observed, PodFacts, Progress, Question, Reason, StartAnswer, TailAnswer},
};

/// Logs, nodes and the like that are read at the same time for one job.
const PARALLEL: usize = 16;

/// Longest wait for one of them. A node that is lost does not answer, and the diagnosis must not wait
/// for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many records of a log's end are read; what does not fit into [`TAIL_BYTES`] is dropped from
/// the front. A record has at most 16 KiB (the container runtime splits longer lines).
const TAIL_LINES: i64 = 2000;

/// Answers `question` about the open attempt of `job`.
pub async fn answer(context: &Context, job: &TrainingJob, question: &Question, seen: &Observed) {
    let attempt = job.status.as_ref().and_then(|s| s.open_attempt());
    let (Some(attempt), Some(uid)) = (attempt.map(|a| a.number), job.uid()) else {
        return;
    };
    let pods: Vec<&PodFacts> = seen.pods.iter().filter(|p| p.attempt == attempt).collect();
    match question {
        Question::Evidence { ranks, nodes } => {
            let asked = pods.iter().filter(|p| ranks.contains(&p.rank)).copied();
            let asked: Vec<&PodFacts> = asked.collect();
            let mut nodes: BTreeSet<&str> = nodes.iter().map(String::as_str).collect();
            nodes.extend(
                asked
                    .iter()
                    .filter_map(|p| p.node.as_deref())
                    .take(PARALLEL),
            );
            let (nodes, tails) = evidence(context, job, &nodes, &asked).await;
            let now = (context.clock)();
            context.memory.learned(&uid, attempt, |answers| {
                answers.failure_seen.get_or_insert(now);
                answers.nodes.extend(nodes);
                // A rank whose pod is gone in the meantime is answered too, or it would be asked for ever.
                let nothing = |rank: &i32| {
                    let (tail, ended) = (None, true);
                    (*rank, TailAnswer { tail, ended })
                };
                answers.tails.extend(ranks.iter().map(nothing));
                answers.tails.extend(tails);
            });
        }
        Question::Progress { since } => {
            let last = progress(context, job, &pods, *since).await;
            let checked = (context.clock)();
            context.memory.learned(&uid, attempt, |answers| {
                answers.progress = Some(Progress { last, checked });
            });
        }
        Question::Start { rank } => {
            let pod = pods.iter().find(|p| p.rank == *rank);
            let found = match pod {
                Some(pod) => start(context, job, pod).await,
                None => None,
            };
            let asked = (context.clock)();
            context.memory.learned(&uid, attempt, |answers| {
                answers.start.insert(*rank, StartAnswer { found, asked });
            });
        }
    }
}

type Nodes = Vec<(String, Option<NodeFacts>)>;
type Tails = Vec<(i32, TailAnswer)>;

async fn evidence(
    context: &Context,
    job: &TrainingJob,
    nodes: &BTreeSet<&str>,
    pods: &[&PodFacts],
) -> (Nodes, Tails) {
    let nodes = nodes.iter().map(|name| node(context, name)).collect();
    let tails = pods
        .iter()
        .map(|pod| async move {
            let tail = tail(context, job, pod).await.map(Arc::new);
            let ended = pod.terminal();
            (pod.rank, TailAnswer { tail, ended })
        })
        .collect();
    futures::join!(all(nodes), all(tails))
}

/// Does them all, a few at a time.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    stream::iter(futures)
        .buffer_unordered(PARALLEL)
        .collect()
        .await
}

async fn node(context: &Context, name: &str) -> (String, Option<NodeFacts>) {
    let api: Api<Node> = Api::all(context.client.clone());
    let facts = match timeout(PATIENCE, api.get(name)).await {
        Ok(Ok(node)) => Some(observe::node(&node)),
        Ok(Err(error)) => {
            tracing::debug!("node {name} can't be asked for: {error}");
            None
        }
        Err(_) => None,
    };
    (name.to_owned(), facts)
}

/// The end of a rank's log: of the container whose end matters, or that trains.
async fn tail(context: &Context, job: &TrainingJob, pod: &PodFacts) -> Option<Tail> {
    let params = LogParams {
        tail_lines: Some(TAIL_LINES),
        ..log_params(pod)
    };
    let bytes = log(context, job, pod, &params, TAIL_BYTES).await?;
    Some(Tail {
        bytes,
        stamped: true,
    })
}

fn log_params(pod: &PodFacts) -> LogParams {
    let container = pod.terminated.as_ref().map(|t| t.container.clone());
    LogParams {
        container: Some(container.unwrap_or_else(|| names::CONTAINER.into())),
        timestamps: true,
        ..LogParams::default()
    }
}

/// At most the last `keep` bytes of what the API gives of a log; None where it gives nothing.
async fn log(
    context: &Context,
    job: &TrainingJob,
    pod: &PodFacts,
    params: &LogParams,
    keep: usize,
) -> Option<Vec<u8>> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &job.namespace()?);
    let read = async {
        let stream = api.log_stream(&pod.name, params).await?;
        Ok::<_, kube::Error>(last_bytes(stream, keep).await)
    };
    match timeout(PATIENCE, read).await {
        Ok(Ok(bytes)) => Some(bytes),
        Ok(Err(error)) => {
            tracing::debug!("the log of pod {} can't be read: {error}", pod.name);
            None
        }
        Err(_) => {
            tracing::debug!(
                "the log of pod {} was not there within {PATIENCE:?}",
                pod.name
            );
            None
        }
    }
}

/// Reads to the end and keeps the last `keep` bytes. What an error cuts off is missing at the end,
/// which is better than nothing.
async fn last_bytes(stream: impl AsyncRead, keep: usize) -> Vec<u8> {
    let mut stream = std::pin::pin!(stream);
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        bytes.extend_from_slice(&chunk[..n]);
        if bytes.len() > 2 * keep {
            bytes.drain(..bytes.len() - keep);
        }
    }
    bytes.drain(..bytes.len().saturating_sub(keep));
    bytes
}

/// The time of the newest line after `since` that counts as progress, of the first rank that has one.
async fn progress(
    context: &Context,
    job: &TrainingJob,
    pods: &[&PodFacts],
    since: Timestamp,
) -> Option<Timestamp> {
    // The API server has taken the pattern, and the start of the attempt has reported one that is not
    // ours to read; without a pattern every line counts.
    let pattern = job.spec.progress_pattern.as_deref();
    let pattern = pattern.and_then(|p| Regex::new(p).ok());
    // The API takes whole seconds, and kube rounds to the nearest.
    let floor = Timestamp::from_second(since.as_second()).ok();
    let params = |pod| LogParams {
        since_time: floor,
        tail_lines: Some(if pattern.is_some() { TAIL_LINES } else { 1 }),
        ..log_params(pod)
    };
    let pattern = pattern.as_ref();
    let looks: Vec<_> = pods
        .iter()
        .copied()
        .filter(|p| !p.terminal())
        .map(|pod| async move {
            let bytes = log(context, job, pod, &params(pod), 1 << 20).await?;
            newest(&bytes, pattern).filter(|time| *time > since)
        })
        .collect();
    let mut times = stream::iter(looks).buffer_unordered(PARALLEL);
    while let Some(time) = times.next().await {
        if time.is_some() {
            return time;
        }
    }
    None
}

/// Time of the last line that matches.
fn newest(log: &[u8], pattern: Option<&Regex>) -> Option<Timestamp> {
    log.rsplit(|b| *b == b'\n').find_map(|line| {
        let end = line.iter().position(|b| *b == b' ')?;
        let (stamp, text) = line.split_at(end);
        let counts = pattern.is_none_or(|p| p.is_match(text));
        let stamp = counts.then(|| std::str::from_utf8(stamp).ok())??;
        stamp.parse().ok()
    })
}

/// What keeps a pod from starting, beyond what the pod says.
async fn start(context: &Context, job: &TrainingJob, pod: &PodFacts) -> Option<Reason> {
    if pod.unschedulable.is_some() {
        let runtime = &job.status.as_ref()?.runtime.as_ref()?.spec;
        let (resource, wanted) = (&runtime.gpu_resource_name, job.spec.gpus_per_node);
        let message = context
            .capacity
            .missing(&context.client, resource, wanted)
            .await?;
        return Some(Reason {
            reason: crate::diagnose::UNSCHEDULABLE.into(),
            message,
        });
    }
    let api: Api<Event> = Api::namespaced(context.client.clone(), &job.namespace()?);
    let params = ListParams::default()
        .fields(&format!("involvedObject.uid={},type=Warning", pod.uid))
        .limit(50);
    let events = timeout(PATIENCE, api.list(&params)).await.ok()?;
    let events = events
        .inspect_err(|error| tracing::debug!("Events about pod {}: {error}", pod.name))
        .ok()?;
    let newest = events.items.into_iter().max_by_key(|e| {
        let time = e.last_timestamp.as_ref().map(|t| t.0);
        time.or_else(|| e.event_time.as_ref().map(|t| t.0))
    })?;
    let said = newest.message.unwrap_or_default();
    Some(Reason {
        reason: newest.reason?,
        message: format!(
            "rank {}: pod {} can't start: {}",
            pod.rank,
            pod.name,
            said.trim()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_newest_line_that_matches_and_any_byte_is_taken() {
        let log = b"2026-03-01T10:00:01.5Z step 1\n2026-03-01T10:00:09Z \xff waiting\ncut";
        let at = |s: &str| Some(s.parse::<Timestamp>().unwrap());
        assert_eq!(newest(log, None), at("2026-03-01T10:00:09Z"));
        let steps = Regex::new("step [0-9]+").unwrap();
        assert_eq!(newest(log, Some(&steps)), at("2026-03-01T10:00:01.5Z"));
        assert_eq!(newest(b"", None), None);
        assert_eq!(newest(log, Some(&Regex::new("epoch").unwrap())), None);
    }

    #[tokio::test]
    async fn of_a_long_log_the_end_is_kept() {
        let log: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let end = last_bytes(&log[..], 1000).await;
        assert_eq!(end, log[99_000..]);
        assert_eq!(last_bytes(&log[..10], 1000).await, log[..10]);
    }
}
