//! The watches: jobs, pods and runtimes of the cluster (or of one namespace), kept in memory as the
//! little that a plan needs, and what they trigger: a reconcile of the job concerned.
//!
//! Pods are kept as [`PodFacts`] by job instead of in a reflector store: a plan needs all pods of one
//! job at once, and a hundredth of their size. The lists are complete before anything is planned.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    memory::Memory,
    observe::{self, Owner},
};
use crate::{
    api::{
        ClusterTrainingRuntime, RuntimeKind, RuntimeSnapshot, TrainingJob, TrainingRuntime, names,
    },
    plan::PodFacts,
};

/// A job as the API server holds it, or why it can't be read.
pub type GuardedJob = DeserializeGuard<TrainingJob>;
/// A reconcile to be triggered.
pub type Trigger = ObjectRef<GuardedJob>;

/// Triggers wait here while the controller is busy; the watches pause when it is full.
const QUEUE: usize = 1024;

/// What is watched.
#[derive(Clone)]
pub struct Scope {
    /// The API client.
    pub client: Client,
    /// None for all.
    pub namespace: Option<String>,
    /// Namespace and name of the `ConfigMap` with failure rules for the whole cluster; None for none.
    pub failure_rules: Option<(String, String)>,
}

impl Scope {
    /// The API of a namespaced resource within the scope.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// All pods of all jobs, by the job's uid, then attempt and rank.
#[derive(Default)]
pub struct PodIndex {
    pods: RwLock<HashMap<String, JobPods>>,
    /// The jobs that have pods that are being deleted and wait for their logs.
    draining: Mutex<HashSet<Owner>>,
}

type JobPods = BTreeMap<(i32, i32), PodFacts>;

impl PodIndex {
    /// The pods of one job.
    pub fn of(&self, uid: &str) -> Vec<PodFacts> {
        let index = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        index
            .get(uid)
            .map(|pods| pods.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The jobs some of whose pods are being deleted and wait for their logs, with those pods.
    pub fn draining(&self) -> Vec<(Owner, Vec<PodFacts>)> {
        let mut draining = self.lock_draining();
        let mut all = Vec::new();
        draining.retain(|owner| {
            let mut pods = self.of(&owner.uid);
            pods.retain(PodFacts::draining);
            let some = !pods.is_empty();
            if some {
                all.push((owner.clone(), pods));
            }
            some
        });
        all
    }

    /// This pod has been let go: nobody needs to do so again before the watch has shown that it is gone.
    pub fn released(&self, owner: &str, pod: &str) {
        let mut index = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        let pods = index
            .get_mut(owner)
            .into_iter()
            .flat_map(BTreeMap::values_mut);
        for facts in pods.filter(|p| p.uid == pod) {
            facts.held = false;
        }
    }

    fn lock_draining(&self) -> MutexGuard<'_, HashSet<Owner>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, owner: &Owner, pod: PodFacts) {
        if pod.draining() {
            self.lock_draining().insert(owner.clone());
        }
        let mut index = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        let pods = index.entry(owner.uid.clone()).or_default();
        pods.insert((pod.attempt, pod.rank), pod);
    }

    fn remove(&self, uid: &str, pod: &PodFacts) {
        let mut index = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pods) = index.get_mut(uid) {
            pods.remove(&(pod.attempt, pod.rank));
            if pods.is_empty() {
                index.remove(uid);
            }
        }
    }

    fn replace(&self, all: HashMap<String, JobPods>, draining: HashSet<Owner>) {
        *self.pods.write().unwrap_or_else(PoisonError::into_inner) = all;
        *self.lock_draining() = draining;
    }
}

/// The watched jobs: a store, and the stream that fills it and triggers reconciles.
pub fn jobs(
    scope: &Scope,
    memory: Arc<Memory>,
) -> (
    Store<GuardedJob>,
    impl Stream<Item = Result<GuardedJob, watcher::Error>> + use<>,
) {
    let (store, writer) = reflector::store();
    let stream = watcher(scope.api::<GuardedJob>(), watcher::Config::default())
        .default_backoff()
        .modify(|job: &mut GuardedJob| {
            if let Ok(job) = &mut job.0 {
                observe::slim(job);
            }
        })
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(Event::Delete(job)) = event
                && let Some(uid) = job.uid()
            {
                memory.forget(&uid);
            }
        })
        .touched_objects();
    (store, stream)
}

/// Watches the pods of all jobs into `index`. Resolves when the first list is complete; from then on
/// the returned channel triggers the owners.
pub async fn pods(
    scope: &Scope,
    index: Arc<PodIndex>,
    memory: Arc<Memory>,
) -> mpsc::Receiver<Trigger> {
    let config = watcher::Config::default().labels(names::LABEL_JOB_UID);
    let stream = watcher(scope.api::<Pod>(), config).default_backoff();
    let (triggers, receiver) = mpsc::channel(QUEUE);
    let (listed, ready) = oneshot::channel();
    tokio::spawn(follow_pods(stream.boxed(), index, memory, triggers, listed));
    let _ = ready.await;
    receiver
}

async fn follow_pods(
    mut stream: futures::stream::BoxStream<'static, Result<Event<Pod>, watcher::Error>>,
    index: Arc<PodIndex>,
    memory: Arc<Memory>,
    triggers: mpsc::Sender<Trigger>,
    listed: oneshot::Sender<()>,
) {
    let mut listed = Some(listed);
    let mut list: HashMap<String, JobPods> = HashMap::new();
    let mut owners: HashMap<String, Owner> = HashMap::new();
    let mut draining = HashSet::new();
    let mut begin = Instant::now();
    while let Some(event) = stream.next().await {
        match event {
            Err(error) => tracing::warn!("watching pods: {error}"),
            Ok(Event::Init) => {
                list.clear();
                draining.clear();
                begin = Instant::now();
            }
            Ok(Event::InitApply(pod)) => {
                if let Some((owner, facts)) = observe::pod(&pod) {
                    let key = (facts.attempt, facts.rank);
                    if facts.draining() {
                        draining.insert(owner.clone());
                    }
                    list.entry(owner.uid.clone())
                        .or_default()
                        .insert(key, facts);
                    owners.insert(owner.uid.clone(), owner);
                }
            }
            Ok(Event::InitDone) => {
                index.replace(std::mem::take(&mut list), std::mem::take(&mut draining));
                memory.relisted(begin);
                // Nobody listens before the first list is complete, and then every job is
                // reconciled anyway.
                if let Some(listed) = listed.take() {
                    owners.clear();
                    let _ = listed.send(());
                }
                for owner in owners.drain().map(|(_, owner)| owner) {
                    let _ = triggers.send(trigger(&owner)).await;
                }
            }
            Ok(Event::Apply(pod)) => {
                if let Some((owner, facts)) = observe::pod(&pod) {
                    let (attempt, rank) = (facts.attempt, facts.rank);
                    index.insert(&owner, facts);
                    memory.seen(&owner.uid, attempt, rank);
                    let _ = triggers.send(trigger(&owner)).await;
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some((owner, facts)) = observe::pod(&pod) {
                    index.remove(&owner.uid, &facts);
                    memory.seen(&owner.uid, facts.attempt, facts.rank);
                    let _ = triggers.send(trigger(&owner)).await;
                }
            }
        }
    }
}

fn trigger(owner: &Owner) -> Trigger {
    ObjectRef::new(&owner.name).within(&owner.namespace)
}

/// The watched runtimes of both kinds.
#[derive(Clone)]
pub struct Runtimes {
    cluster: Store<ClusterTrainingRuntime>,
    namespaced: Store<TrainingRuntime>,
}

impl Runtimes {
    /// The runtime that a job refers to, as it is now.
    pub fn of(&self, job: &TrainingJob) -> Option<RuntimeSnapshot> {
        let wanted = &job.spec.runtime_ref;
        let (generation, spec) = match wanted.kind {
            RuntimeKind::ClusterTrainingRuntime => {
                let runtime = self.cluster.get(&ObjectRef::new(&wanted.name))?;
                (runtime.metadata.generation, runtime.spec.clone())
            }
            RuntimeKind::TrainingRuntime => {
                let key = ObjectRef::new(&wanted.name).within(&job.namespace()?);
                let runtime = self.namespaced.get(&key)?;
                (runtime.metadata.generation, runtime.spec.runtime.clone())
            }
        };
        Some(RuntimeSnapshot {
            kind: wanted.kind,
            name: wanted.name.clone(),
            generation: generation.unwrap_or_default(),
            spec,
        })
    }
}

/// Watches the runtimes. Resolves when both lists are complete; from then on the returned channel
/// triggers the jobs that wait for a runtime that has just appeared.
pub async fn runtimes(
    scope: &Scope,
    jobs: Store<GuardedJob>,
) -> (Runtimes, mpsc::Receiver<Trigger>) {
    let (triggers, receiver) = mpsc::channel(QUEUE);
    let waiting = jobs.clone();
    let cluster = follow_runtimes(
        Api::<ClusterTrainingRuntime>::all(scope.client.clone()),
        RuntimeKind::ClusterTrainingRuntime,
        jobs,
        triggers.clone(),
    );
    let namespaced = follow_runtimes(
        scope.api::<TrainingRuntime>(),
        RuntimeKind::TrainingRuntime,
        waiting,
        triggers,
    );
    let runtimes = Runtimes {
        cluster,
        namespaced,
    };
    let _ = runtimes.cluster.wait_until_ready().await;
    let _ = runtimes.namespaced.wait_until_ready().await;
    (runtimes, receiver)
}

fn follow_runtimes<K>(
    api: Api<K>,
    kind: RuntimeKind,
    jobs: Store<GuardedJob>,
    triggers: mpsc::Sender<Trigger>,
) -> Store<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    tokio::spawn(async move {
        let mut stream = stream.boxed();
        while let Some(runtime) = stream.next().await {
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::warn!("watching {kind}s: {error}");
                    continue;
                }
            };
            let name = runtime.name_any();
            let waiting = jobs.state().into_iter().filter(|job| {
                job.0.as_ref().is_ok_and(|job| {
                    let wanted = &job.spec.runtime_ref;
                    let started = job.status.as_ref().is_some_and(|s| s.start_time.is_some());
                    wanted.name == name && wanted.kind == kind && !started
                })
            });
            for job in waiting {
                let _ = triggers.send(ObjectRef::from_obj(&*job)).await;
            }
        }
    });
    store
}

/// How long an unchanged job may go without being looked at: a backstop for lost triggers.
pub const RESYNC: Duration = Duration::from_secs(600);
