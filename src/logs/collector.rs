//! `trainyard collector`: follows every container of every training job's pod, and stores its lines.
//!
//! One watch says which containers there are and how far they are; one task a container joins its
//! [`super::source`] to a [`super::sink`]. Both know how to go on after a restart, so this module
//! holds no state that matters. What the sink refuses is kept and tried again, and meanwhile
//! nothing more is read: a full disk costs memory for one batch a container, not the process.
//!
//! One collector runs at a time; the sink sees to that.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args as ClapArgs;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    folder::LocalFolder,
    http,
    line::{Line, StreamId},
    metrics::Metrics,
    pods::{self, Container, ContainerState},
    position::Position,
    sink::{self, End, Sink, Writer},
    source::{Event, KubeLog, Source},
    store::Store,
};
use crate::{api::names, process};

/// How long the streams may take to finish what is under way when the collector is stopped.
const DRAIN: Duration = Duration::from_secs(20);
/// Waits before what the sink refused is tried again: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Flags of the collector.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder in which the lines are stored.
    #[arg(
        long,
        env = "TRAINYARD_STORE",
        value_name = "DIR",
        default_value = "/var/lib/trainyard/logs"
    )]
    pub store: PathBuf,
    /// Follow only the pods of one namespace; by default those of all.
    #[arg(long, env = "TRAINYARD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Address at which the stored lines can be read (kubectl trainyard logs).
    #[arg(long, env = "TRAINYARD_LOGS_HTTP", default_value = "0.0.0.0:8081")]
    pub logs_http: SocketAddr,
    /// Size in bytes after which a new file is begun.
    #[arg(
        long,
        env = "TRAINYARD_MAX_FILE",
        value_name = "BYTES",
        default_value_t = 64 * 1024 * 1024,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_file: u64,
    /// How many containers are followed at a time; further ones wait, and are read when it is
    /// their turn.
    #[arg(
        long,
        env = "TRAINYARD_MAX_STREAMS",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_streams: u32,
}

/// Why the collector ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// No API server, or no address to listen on.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The store is not usable.
    #[error(transparent)]
    Sink(#[from] sink::Error),
}

/// Runs the collector until it is told to stop.
///
/// # Errors
/// Where there is no API server, no usable store, or no address to listen on.
pub async fn run(args: Args, process: &process::Args) -> Result<(), RunError> {
    let shutdown = process::shutdown_on_signal();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let store = Store::new(args.store);
    let sink = LocalFolder::open(store.clone(), args.max_file)?;
    let client = process::client().await?;
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = ready.clone();
    process::serve(
        process.http,
        registry,
        move || is_ready.load(Ordering::Relaxed),
        shutdown.clone(),
    )
    .await?;
    let address = http::serve(args.logs_http, store, client.clone(), shutdown.clone()).await?;
    tracing::info!("stored lines can be read at {address}");

    let pods = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut collector = Collector {
        shared: Shared {
            sink: Arc::new(sink),
            metrics,
            permits: Arc::new(Semaphore::new(args.max_streams as usize)),
            shutdown: shutdown.clone(),
        },
        client,
        followed: HashMap::new(),
        tasks: JoinSet::new(),
        relisted: HashSet::new(),
    };
    let config = watcher::Config::default().labels(names::LABEL_JOB_UID);
    let mut events = watcher(pods, config).default_backoff().boxed();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(done) = collector.tasks.join_next() => collector.finished(done),
            event = events.next() => match event {
                Some(Ok(event)) => if collector.observe(event) {
                    ready.store(true, Ordering::Relaxed);
                },
                Some(Err(error)) => {
                    collector.shared.metrics.watch_errors.inc();
                    tracing::warn!("can't watch the pods, will try again: {error}");
                }
                // kube's watcher does not end.
                None => break,
            }
        }
    }
    drop(events);
    let drained = tokio::time::timeout(DRAIN, async {
        while collector.tasks.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("some streams did not finish in {} s", DRAIN.as_secs());
    }
    Ok(())
}

/// What every stream's task needs.
struct Shared<S> {
    sink: Arc<S>,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            sink: self.sink.clone(),
            metrics: self.metrics.clone(),
            permits: self.permits.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// A container that is or was followed, as long as its pod is there.
struct Followed {
    pod_uid: String,
    /// The run of the container that its task reads or has read.
    container_id: Option<String>,
    state: watch::Sender<ContainerState>,
    active: bool,
}

struct Collector<S: Sink> {
    shared: Shared<S>,
    client: Client,
    followed: HashMap<StreamId, Followed>,
    tasks: JoinSet<StreamId>,
    /// Uids of the pods of a list that is under way.
    relisted: HashSet<String>,
}

impl<S: Sink> Collector<S> {
    /// Takes in one event; true where a list is complete.
    fn observe(&mut self, event: watcher::Event<Pod>) -> bool {
        match event {
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(pod) => {
                self.relisted.extend(pod.uid());
                self.apply(&pod);
            }
            watcher::Event::InitDone => {
                let there = std::mem::take(&mut self.relisted);
                self.gone(|uid| !there.contains(uid));
                return true;
            }
            watcher::Event::Apply(pod) => self.apply(&pod),
            watcher::Event::Delete(pod) => {
                let gone = pod.uid().unwrap_or_default();
                self.gone(|uid| uid == gone);
            }
        }
        false
    }

    fn apply(&mut self, pod: &Pod) {
        let Some(containers) = pods::containers(pod) else {
            tracing::debug!("{} is labelled as no rank of a job", pod.name_any());
            return;
        };
        let pod_uid = pod.uid().unwrap_or_default();
        for container in containers {
            self.apply_container(pod, &pod_uid, container);
        }
    }

    fn apply_container(&mut self, pod: &Pod, pod_uid: &str, container: Container) {
        let started = matches!(
            container.state,
            ContainerState::Running | ContainerState::Terminated
        );
        if let Some(followed) = self.followed.get_mut(&container.id) {
            if followed.pod_uid != pod_uid && followed.active {
                // Not the operator's doing: it makes one pod for each rank of an attempt.
                tracing::warn!(
                    "{} says it is {}, which another pod is: its lines are not stored",
                    pod.name_any(),
                    container.id
                );
                return;
            }
            followed.state.send_if_modified(|state| {
                std::mem::replace(state, container.state) != container.state
            });
            let same =
                followed.pod_uid == pod_uid && followed.container_id == container.container_id;
            if followed.active || same {
                return;
            }
        }
        if !started {
            return;
        }
        let (state, receiver) = watch::channel(container.state);
        let log = KubeLog {
            pods: Api::namespaced(self.client.clone(), &container.id.namespace),
            pod: pod.name_any(),
            container: container.id.container.clone(),
        };
        self.followed.insert(
            container.id.clone(),
            Followed {
                pod_uid: pod_uid.to_owned(),
                container_id: container.container_id.clone(),
                state,
                active: true,
            },
        );
        self.tasks.spawn(follow(
            self.shared.clone(),
            container.id,
            container.container_id,
            log,
            receiver,
        ));
    }

    /// Tells the streams of pods that are gone.
    fn gone(&mut self, gone: impl Fn(&str) -> bool) {
        self.followed.retain(|_, followed| {
            if gone(&followed.pod_uid) {
                followed.state.send_replace(ContainerState::Gone);
                return followed.active;
            }
            true
        });
    }

    fn finished(&mut self, done: Result<StreamId, tokio::task::JoinError>) {
        let id = match done {
            Ok(id) => id,
            Err(error) => {
                // Its entry stays as active, so a stream whose task panicked is not begun again
                // before the collector is.
                tracing::error!("a stream's task failed: {error}");
                return;
            }
        };
        if let Some(followed) = self.followed.get_mut(&id) {
            followed.active = false;
            if *followed.state.borrow() == ContainerState::Gone {
                self.followed.remove(&id);
            }
        }
    }
}

/// Stores the lines of one container until its end.
async fn follow<S: Sink>(
    shared: Shared<S>,
    id: StreamId,
    container_id: Option<String>,
    log: KubeLog,
    state: watch::Receiver<ContainerState>,
) -> StreamId {
    let Shared {
        sink,
        metrics,
        permits,
        shutdown,
    } = shared;
    metrics.waiting.inc();
    let permit = tokio::select! {
        permit = permits.acquire_owned() => permit.ok(),
        () = shutdown.cancelled() => None,
    };
    metrics.waiting.dec();
    if permit.is_none() {
        return id;
    }
    // After a restart: most containers of the pods that are still there were read to their end.
    let stored = sink.end(&id).await;
    if stored.is_some_and(|end| end.complete && end.container_id == container_id) {
        return id;
    }
    let Some((mut writer, stored)) = open(&*sink, &id, &metrics, &shutdown).await else {
        return id;
    };
    tracing::debug!("following {id} after line {}", stored.seq);
    metrics.streams.inc();
    let mut seq = stored.seq;
    let position = Position::resumed(stored.seq, &stored.tail);
    let mut source = Source::new(log, state, position, metrics.clone());
    let end = loop {
        let event = tokio::select! {
            event = source.next() => event,
            () = shutdown.cancelled() => break None,
        };
        match event {
            Event::Lines(lines) => {
                if !store(&mut writer, &lines, &id, &metrics, &shutdown).await {
                    break None;
                }
                seq = lines.last().map_or(seq, |l| l.seq);
                metrics.lines.inc_by(lines.len() as u64);
                let bytes: usize = lines.iter().map(|l| l.message.len()).sum();
                metrics.bytes.inc_by(bytes as u64);
            }
            Event::End { complete } => {
                if complete {
                    metrics.complete.inc();
                } else {
                    metrics.incomplete.inc();
                    tracing::warn!("{id}: its pod vanished before the end of its log was proven");
                }
                break Some(End {
                    container_id,
                    complete,
                    lines: seq,
                });
            }
        }
    };
    metrics.streams.dec();
    if let Err(error) = writer.close(end).await {
        metrics.store_errors.inc();
        tracing::warn!("{error}");
    }
    id
}

/// Opens a stream of the sink, again and again until it works. None where it never will, or the
/// collector is being stopped.
async fn open<S: Sink>(
    sink: &S,
    id: &StreamId,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Option<(S::Writer, sink::Stored)> {
    let mut wait = BACKOFF.0;
    loop {
        match sink.open(id).await {
            Ok(opened) => return Some(opened),
            Err(error) => {
                metrics.store_errors.inc();
                tracing::warn!("{id}: {error}");
                if !matches!(error, sink::Error::Write { .. }) {
                    return None;
                }
            }
        }
        pause(&mut wait, shutdown).await?;
    }
}

/// Stores lines, again and again until it works. False where the collector is being stopped.
async fn store(
    writer: &mut impl Writer,
    lines: &[Line],
    id: &StreamId,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> bool {
    let mut wait = BACKOFF.0;
    loop {
        match writer.append(lines).await {
            Ok(()) => return true,
            Err(error) => {
                metrics.store_errors.inc();
                tracing::warn!("{id}: {error}");
            }
        }
        if pause(&mut wait, shutdown).await.is_none() {
            return false;
        }
    }
}

/// None where the collector is being stopped meanwhile.
async fn pause(wait: &mut Duration, shutdown: &CancellationToken) -> Option<()> {
    let now = *wait;
    *wait = (now * 2).min(BACKOFF.1);
    tokio::time::timeout(now, shutdown.cancelled())
        .await
        .err()
        .map(|_| ())
}
