//! `kubectl trainyard explain JOB`: fetches a job and the last lines of the ranks that failed it, and
//! has [`super::story`] tell what happened. A job that is gone is asked for where its lines are. Lines come from the collector (or its store), and
//! where that has none from the pod, while there is one.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal,
    num::NonZeroUsize,
    time::Duration,
};

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, api::LogParams};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    cluster::{self, Cluster},
    explain::Output,
    lines::{self, Lines, Question},
    story::{self, Story},
};
use crate::{
    api::{Attempt, RootCause, TrainingJob, names},
    logs::{
        archive,
        http::{self, parameters::Parameters},
        read::Format,
        store::Store,
    },
    process::REQUEST_TIMEOUT,
};

/// How many of a rank's last lines are looked through for the decisive one.
const KEPT: usize = 400;

/// The largest job that is read: more than the API server stores.
const MAX_JOB: u64 = 16 * 1024 * 1024;

/// Longest time for reading one rank's lines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the story can't be told.
#[derive(Debug, Error)]
pub enum Error {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The job.
    #[error("TrainingJob {name} in namespace {namespace} can't be read: {why}")]
    Job {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What the API server said.
        why: String,
    },
}

/// The story of the job, as text or JSON.
///
/// # Errors
/// Where the job can't be read. Lines that can't be read are said to be missing.
pub async fn story(
    name: &str,
    store: Option<&str>,
    output: Output,
    cluster: &cluster::Args,
) -> Result<String, Error> {
    let cluster = cluster.cluster().await?;
    let job = match live(name, &cluster).await? {
        Some(job) => job,
        None => stored(name, store, &cluster).await?,
    };
    let mut lines = BTreeMap::new();
    for attempt in job.status.iter().flat_map(|s| &s.attempts) {
        if let Some(cause) = attempt
            .root_cause
            .as_ref()
            .filter(|c| c.exit_code.is_some())
        {
            lines.insert(
                attempt.number,
                last_lines(name, attempt, cause, store, &cluster).await,
            );
        }
    }
    let story = Story::of(&job, lines);
    Ok(match output {
        Output::Text => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            story::tell(&story, Timestamp::now(), colour)
        }
        Output::Json => serde_json::to_string_pretty(&story).unwrap_or_default() + "\n",
    })
}

/// The job that is in the cluster; None where it is not.
async fn live(name: &str, cluster: &Cluster) -> Result<Option<TrainingJob>, Error> {
    let jobs: Api<TrainingJob> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let why = match timeout(REQUEST_TIMEOUT, jobs.get_opt(name)).await {
        Ok(Ok(job)) => return Ok(job),
        Ok(Err(kube::Error::Api(status))) => status.message.clone(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer from the API server".into(),
    };
    Err(unread(name, cluster, why))
}

/// The job as it was stored last.
async fn stored(name: &str, store: Option<&str>, cluster: &Cluster) -> Result<TrainingJob, Error> {
    let namespace = &cluster.namespace;
    let failed = |why: String| {
        unread(
            name,
            cluster,
            format!("it is not in the cluster, and {why}"),
        )
    };
    if let Some(place) = store {
        let store = Store::at(place).map_err(|e| failed(e.to_string()))?;
        let job = archive::recall(&store.lake, namespace, name).await;
        let job = job.map_err(|e| failed(e.to_string()))?;
        return job.ok_or_else(|| failed(archive::nothing(namespace, name)));
    }
    let asked = async {
        let body = cluster.ask(&http::job_path(namespace, name)).await;
        let mut text = Vec::new();
        let read = body.map_err(|e| e.to_string())?.take(MAX_JOB);
        std::pin::pin!(read)
            .read_to_end(&mut text)
            .await
            .map_err(|e| e.to_string())?;
        serde_json::from_slice(&text).map_err(|e| e.to_string())
    };
    let answer = timeout(PATIENCE, asked).await;
    answer
        .unwrap_or_else(|_| Err("the collector does not answer".into()))
        .map_err(failed)
}

fn unread(name: &str, cluster: &Cluster, why: String) -> Error {
    Error::Job {
        name: name.to_owned(),
        namespace: cluster.namespace.clone(),
        why,
    }
}

/// The last lines of the rank that failed the attempt, or why there are none.
async fn last_lines(
    job: &str,
    attempt: &Attempt,
    cause: &RootCause,
    store: Option<&str>,
    cluster: &Cluster,
) -> Result<Vec<String>, String> {
    let (Some(rank), Some(pod)) = (cause.rank, &cause.pod) else {
        return Err("no rank is to blame".into());
    };
    let question = Question {
        job: job.to_owned(),
        parameters: Parameters {
            attempt: Some(attempt.number.to_string()),
            rank: u32::try_from(rank).ok(),
            tail: NonZeroUsize::new(KEPT),
            format: Some(Format::Raw.as_str().to_owned()),
            ..Parameters::default()
        },
    };
    let stored = async {
        let lines = match store {
            Some(place) => {
                Lines::of_store(place, Some(cluster), &cluster.namespace, question).await
            }
            None => Lines::of_collector(cluster, question).await,
        };
        from_lines(lines?).await
    };
    let stored = async {
        stored
            .await
            .map_err(|error: lines::Error| error.to_string())
    };
    let stored = timeout(PATIENCE, stored)
        .await
        .unwrap_or_else(|_| Err("they take too long".into()));
    match stored {
        Ok(lines) if !lines.is_empty() => Ok(lines),
        stored => match from_pod(pod, cause, cluster).await {
            Some(lines) => Ok(lines),
            None => stored,
        },
    }
}

async fn from_lines(mut lines: Lines<'_>) -> Result<Vec<String>, lines::Error> {
    let mut last = Last::default();
    loop {
        let block = lines.next().await?;
        last.take(&block.data);
        if block.last {
            return Ok(last.finish());
        }
    }
}

async fn from_pod(pod: &str, cause: &RootCause, cluster: &Cluster) -> Option<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let container = cause.container.clone();
    let params = LogParams {
        container: Some(container.unwrap_or_else(|| names::CONTAINER.into())),
        tail_lines: i64::try_from(KEPT).ok(),
        ..LogParams::default()
    };
    let stream = timeout(REQUEST_TIMEOUT, pods.log_stream(pod, &params)).await;
    timeout(PATIENCE, newest(stream.ok()?.ok()?))
        .await
        .ok()?
        .ok()
}

async fn newest(mut body: impl AsyncBufRead + Unpin) -> std::io::Result<Vec<String>> {
    let mut last = Last::default();
    loop {
        let data = body.fill_buf().await?;
        let n = data.len();
        if n == 0 {
            return Ok(last.finish());
        }
        last.take(data);
        body.consume_unpin(n);
    }
}

/// The last lines of a text that comes in pieces.
#[derive(Default)]
struct Last {
    lines: VecDeque<String>,
    rest: Vec<u8>,
}

impl Last {
    fn take(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.rest);
        let text = String::from_utf8_lossy(&line);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text.trim_end().to_owned());
    }

    fn finish(mut self) -> Vec<String> {
        if !self.rest.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_in_whatever_pieces_they_come() {
        let mut last = Last::default();
        for piece in ["loss", " 0.4\nplain text", " here\n", "cut"] {
            last.take(piece.as_bytes());
        }
        assert_eq!(last.finish(), ["loss 0.4", "plain text here", "cut"]);
        let mut last = Last::default();
        last.take("x\n".repeat(KEPT + 5).as_bytes());
        last.take(b"\xff\n");
        let lines = last.finish();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[KEPT - 1], "\u{fffd}");
    }
}
