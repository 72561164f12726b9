//! `trainyard collector`: follows every container of every training job's pod, and stores its lines.
//!
//! One watch says which containers there are and how far they are; one task a container
//! ([`super::follow`]) brings its lines into the write-ahead log, and one task ships the log to the
//! sinks ([`super::ship`]). All of them know how to go on after a restart, so this module holds no state
//! that matters. When all containers of a pod have ended and so have their logs, the pod gets a
//! condition that says so ([`super::condition`]).
//!
//! One collector runs at a time; the lock of the write-ahead log sees to that.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

mod args;

pub use args::Args;

use self::args::MIB;
use super::{
    archive,
    condition::Condition,
    disk::Folder,
    folder::TextFiles,
    follow::{Following, Outcome},
    http,
    kubelet::KubeLog,
    lake::{Lake, OpenError},
    layout,
    line::StreamId,
    metrics::Metrics,
    pods::{self, Container, ContainerState},
    retain::{self, Retention},
    shard::Shard,
    ship::Shipper,
    sink::Sink,
    store::Store,
    wal::{Limits, Wal, frame::Declared},
};
use crate::{api::names, process};

/// How long the streams may take to finish what is under way when the collector is stopped.
const DRAIN: Duration = Duration::from_secs(20);
/// How often it is looked which streams are not needed any more.
const TIDY: Duration = Duration::from_secs(60);
/// Waits between tries to write a pod's condition: the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why the collector ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// No API server, or no address to listen on.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The write-ahead log is not usable.
    #[error("can't use the write-ahead log in {path}: {source}; check the volume and its rights")]
    Wal {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A second collector.
    #[error(
        "another collector writes to {0}, and two would mix up its files; stop one, or give each its own --wal"
    )]
    Locked(PathBuf),
}

/// Runs the collector until it is told to stop.
///
/// # Errors
/// Where there is no API server, no usable store, or no address to listen on.
pub async fn run(args: Args, process: &process::Args) -> Result<(), RunError> {
    let shutdown = process::shutdown_on_signal();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
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

    let path = args.wal_folder();
    let disk = Folder::new(path.clone());
    let failed = |source| RunError::Wal {
        path: path.clone(),
        source,
    };
    let _lock = match disk.lock() {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(RunError::Locked(path));
        }
        Err(error) => return Err(failed(error)),
    };
    if !args.store.contains("://") {
        std::fs::create_dir_all(&args.store).map_err(|source| OpenError::Place {
            place: args.store.clone(),
            why: source.to_string(),
        })?;
    }
    let lake = Lake::open(&args.store)?;
    let limits = Limits {
        segment: 32 * MIB,
        quota: args.wal_quota,
        job: args.job_quota,
    };
    let epoch = Timestamp::now().as_second().cast_unsigned();
    // What is under way is written after the streams were told to stop.
    let writing = CancellationToken::new();
    let wal = Wal::open(
        disk.clone(),
        epoch,
        limits,
        metrics.clone(),
        writing.clone(),
    )
    .await
    .map_err(failed)?;
    let store = Store::new(lake.clone(), Some(disk.clone()));
    let address = http::serve(args.logs_http, store, client.clone(), shutdown.clone()).await?;
    tracing::info!("stored lines can be read at {address}");

    let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(lake.clone())];
    let text = (args.text).map(|folder| TextFiles::new(folder, args.max_file));
    if let Some(text) = &text {
        sinks.push(Arc::new(text.clone()));
    }
    let hurry = Arc::new(Notify::new());
    let shipper = Shipper {
        wal: wal.clone(),
        disk,
        sinks,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        every: Duration::from_secs(args.ship_seconds),
        hurry: hurry.clone(),
    };
    tokio::spawn(shipper.run());
    let jobs = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    tokio::spawn(archive::run(
        lake.clone(),
        jobs,
        args.cluster.clone(),
        metrics.clone(),
        shutdown.clone(),
    ));
    let retention = Retention {
        lake: lake.clone(),
        text,
        limits: retain::Limits {
            days: args.retain_days,
            bytes: args.retain_bytes,
        },
        wal: wal.clone(),
        metrics: metrics.clone(),
    };
    tokio::spawn(retention.run(shutdown.clone()));

    let pods = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let collector = Collector {
        wal,
        metrics,
        permits: Arc::new(Semaphore::new(args.max_streams as usize)),
        shutdown: shutdown.clone(),
        hurry,
        client,
        lake,
        cluster: args.cluster,
        shard: Shard::ALL,
        followed: HashMap::new(),
        pods: HashMap::new(),
        tasks: JoinSet::new(),
        conditions: JoinSet::new(),
        relisted: HashSet::new(),
        listed: false,
    };
    collector.run(pods, &ready).await;
    writing.cancel();
    Ok(())
}

/// A container that is or was followed, as long as its pod is there.
struct Followed {
    pod_uid: String,
    /// The run of the container that its task reads or has read.
    container_id: String,
    state: watch::Sender<ContainerState>,
    active: bool,
    outcome: Option<Outcome>,
}

type Done = (StreamId, Option<Outcome>);

struct Collector {
    wal: Wal,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
    hurry: Arc<Notify>,
    client: Client,
    lake: Lake,
    cluster: String,
    shard: Shard,
    followed: HashMap<StreamId, Followed>,
    /// By uid.
    pods: HashMap<String, Pod>,
    tasks: JoinSet<Done>,
    /// Conditions that are being written.
    conditions: JoinSet<()>,
    /// Uids of the pods of a list that is under way.
    relisted: HashSet<String>,
    /// All pods are known.
    listed: bool,
}

impl Collector {
    async fn run(mut self, pods: Api<Pod>, ready: &AtomicBool) {
        let config = watcher::Config::default().labels(names::LABEL_JOB_UID);
        let mut events = watcher(pods, config).default_backoff().boxed();
        let mut tidy = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(done) = self.tasks.join_next() => self.finished(done),
                Some(_) = self.conditions.join_next() => {}
                _ = tidy.tick(), if self.listed => {
                    self.wal.keep(self.pods.keys().cloned().collect()).await;
                }
                event = events.next() => match event {
                    Some(Ok(event)) => if self.observe(event) {
                        self.listed = true;
                        ready.store(true, Ordering::Relaxed);
                    },
                    Some(Err(error)) => {
                        self.metrics.watch_errors.inc();
                        tracing::warn!("can't watch the pods, will try again: {error}");
                    }
                    // kube's watcher does not end.
                    None => break,
                }
            }
        }
        drop(events);
        let drained = tokio::time::timeout(DRAIN, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("some streams did not finish in {} s", DRAIN.as_secs());
        }
    }

    /// Takes in one event; true where a list is complete.
    fn observe(&mut self, event: watcher::Event<Pod>) -> bool {
        match event {
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(pod) => {
                self.relisted.extend(pod.uid());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let there = std::mem::take(&mut self.relisted);
                self.gone(|uid| !there.contains(uid));
                return true;
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                let gone = pod.uid().unwrap_or_default();
                self.gone(|uid| uid == gone);
            }
        }
        false
    }

    fn apply(&mut self, mut pod: Pod) {
        let Some(containers) = pods::containers(&pod) else {
            tracing::debug!("{} is labelled as no rank of a job", pod.name_any());
            return;
        };
        for container in containers {
            self.apply_container(&pod, container);
        }
        // Thousands of pods are kept, and this is the largest part of them.
        pod.metadata.managed_fields = None;
        let uid = pod.uid().unwrap_or_default();
        self.pods.insert(uid.clone(), pod);
        self.settle(&uid);
    }

    fn apply_container(&mut self, pod: &Pod, container: Container) {
        let started = matches!(
            container.state,
            ContainerState::Running | ContainerState::Terminated | ContainerState::Discarded
        );
        let (id, origin) = (&container.id, &container.origin);
        if let Some(followed) = self.followed.get_mut(id) {
            if followed.pod_uid != origin.pod_uid && followed.active {
                // Not the operator's doing: it makes one pod for each rank of an attempt.
                tracing::warn!(
                    "{} says it is {id}, which another pod is: its lines are not stored",
                    pod.name_any()
                );
                return;
            }
            followed.state.send_if_modified(|state| {
                std::mem::replace(state, container.state) != container.state
            });
            let same =
                followed.pod_uid == origin.pod_uid && followed.container_id == origin.container_id;
            if followed.active || same {
                return;
            }
        }
        if !started || !self.shard.owns(id) {
            return;
        }
        if layout::folder(id).is_none() {
            tracing::warn!(
                "{id} is no stream that can be stored: a part of its name is no file name"
            );
            return;
        }
        self.start(pod, container);
    }

    fn start(&mut self, pod: &Pod, container: Container) {
        let Container {
            id,
            mut origin,
            started,
            state,
        } = container;
        let (sender, receiver) = watch::channel(state);
        self.followed.insert(
            id.clone(),
            Followed {
                pod_uid: origin.pod_uid.clone(),
                container_id: origin.container_id.clone(),
                state: sender,
                active: true,
                outcome: None,
            },
        );
        origin.cluster.clone_from(&self.cluster);
        let following = Following {
            wal: self.wal.clone(),
            log: KubeLog {
                pods: Api::namespaced(self.client.clone(), &id.namespace),
                pod: pod.name_any(),
                container: id.container.clone(),
            },
            declared: Declared {
                id: id.clone(),
                origin,
            },
            lake: (!self.listed).then(|| self.lake.clone()),
            started,
            state: receiver,
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
        };
        let (permits, metrics) = (self.permits.clone(), self.metrics.clone());
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            metrics.waiting.inc();
            let permit = tokio::select! {
                permit = permits.acquire_owned() => permit.ok(),
                () = shutdown.cancelled() => None,
            };
            metrics.waiting.dec();
            let outcome = match permit {
                Some(_permit) => following.run().await,
                None => None,
            };
            (id, outcome)
        });
    }

    /// Tells the streams of pods that are gone.
    fn gone(&mut self, gone: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| !gone(uid));
        self.followed.retain(|_, followed| {
            if gone(&followed.pod_uid) {
                followed.state.send_replace(ContainerState::Gone);
                return followed.active;
            }
            true
        });
    }

    fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let (id, outcome) = match done {
            Ok(done) => done,
            Err(error) => {
                // Its entry stays as active, so a stream whose task panicked is not begun again
                // before the collector is.
                tracing::error!("a stream's task failed: {error}");
                return;
            }
        };
        if outcome.is_some() {
            self.hurry.notify_one();
        }
        if let Some(followed) = self.followed.get_mut(&id) {
            followed.active = false;
            followed.outcome = outcome;
            let pod_uid = followed.pod_uid.clone();
            if *followed.state.borrow() == ContainerState::Gone && !self.pods.contains_key(&pod_uid)
            {
                self.followed.remove(&id);
            }
            self.settle(&pod_uid);
        }
    }

    /// Writes a pod's condition where the ends of all its logs are settled.
    fn settle(&mut self, uid: &str) {
        let Some(pod) = self.pods.get(uid).filter(|pod| pods::is_over(pod)) else {
            return;
        };
        let mut outcomes = Vec::new();
        for container in pods::containers(pod).into_iter().flatten() {
            if container.state == ContainerState::Gone {
                continue;
            }
            match self.followed.get(&container.id) {
                Some(followed) if followed.pod_uid == uid => match followed.outcome {
                    Some(outcome) => outcomes.push(outcome),
                    None => return,
                },
                _ => return,
            }
        }
        let condition = Condition::new(&outcomes);
        if condition.is_on(pod) {
            return;
        }
        let pod = pod.clone();
        let pods = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let shutdown = self.shutdown.clone();
        self.conditions.spawn(async move {
            let mut wait = BACKOFF.0;
            while let Err(error) = condition.put(&pods, &pod).await {
                tracing::warn!(
                    "can't tell pod {} that its logs are stored: {error}; will try again",
                    pod.name_any()
                );
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(BACKOFF.1);
            }
        });
    }
}
