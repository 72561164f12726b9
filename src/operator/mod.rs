//! The operator: observe → plan → apply. The only writer of everything but logs.
//!
//! [`watch`] and [`observe`] turn the cluster into plain data, [`crate::plan`] decides, [`ask`] finds
//! out what a plan must know beyond that, [`apply`] writes; [`orphans`] sees to pods whose job is gone;
//! [`memory`] bridges the time until a watch shows our own writes; [`leader`] makes sure that one
//! replica works at a time. The judgement is all in `plan`; there is none here.

mod apply;
mod ask;
mod capacity;
mod cluster_rules;
mod events;
mod leader;
mod memory;
mod metrics;
mod observe;
mod orphans;
mod reconcile;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use clap::Args as ClapArgs;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Client,
    runtime::{Controller, controller},
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{api::names, process};
use capacity::Capacity;
use cluster_rules::ClusterRules;
use leader::Leadership;
pub use metrics::Metrics;
pub use observe::pod_facts;
pub use watch::Scope;

/// Flags of the operator.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Run only the TrainingJobs of this namespace; all where unset.
    #[arg(long, env = "TRAINYARD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Namespace of the Lease by which replicas agree on a leader.
    #[arg(long, env = "POD_NAMESPACE", default_value = "trainyard")]
    pub lease_namespace: String,
    /// Name of that Lease.
    #[arg(long, default_value = names::OPERATOR)]
    pub lease_name: String,
    /// Name of this replica; unique. A random one where unset.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Name of the ConfigMap, in the namespace of the Lease, with failure rules for the whole cluster
    /// under the key rules.yaml. It need not exist.
    #[arg(long, default_value = names::FAILURE_RULES)]
    pub failure_rules: String,
    /// How many jobs are worked on at the same time.
    #[arg(long, default_value_t = 64)]
    pub concurrency: u16,
    /// How many seconds a pod that has ended and is deleted is kept for the collector to store its
    /// log to the end. 0 where no collector runs: pods then go at once.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub log_drain_seconds: u32,
}

impl Args {
    fn log_drain(&self) -> Option<SignedDuration> {
        let seconds = i64::from(self.log_drain_seconds);
        (seconds > 0).then(|| SignedDuration::from_secs(seconds))
    }
}

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// It no longer leads.
    #[error(transparent)]
    Leader(#[from] leader::Error),
}

/// How [`work`] works.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many jobs at the same time.
    pub concurrency: u16,
    /// How long a pod that has ended waits for its logs. None where nobody collects them.
    pub log_drain: Option<SignedDuration>,
}

/// Where the operator takes the time from: plans compare it with the times in a status, so a test can
/// let hours pass.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What every reconcile needs.
pub struct Context {
    clock: Clock,
    client: Client,
    identity: String,
    pods: Arc<watch::PodIndex>,
    runtimes: watch::Runtimes,
    cluster_rules: ClusterRules,
    capacity: Capacity,
    memory: Arc<memory::Memory>,
    metrics: Metrics,
    log_drain: Option<SignedDuration>,
}

/// Runs until SIGTERM (then it finishes what is under way) or until leadership is lost.
///
/// # Errors
/// Where there is no API server to talk to, or leadership is lost.
pub async fn run(args: Args, process: &process::Args) -> Result<(), RunError> {
    let client = process::client().await?;
    let shutdown = process::shutdown_on_signal();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    // A replica that waits for the Lease is ready: it is doing its work, which is to wait.
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = ready.clone();
    let http = CancellationToken::new();
    process::serve(
        process.http,
        registry,
        move || is_ready.load(Ordering::Relaxed),
        http.clone(),
    )
    .await?;

    let identity = args
        .identity
        .clone()
        .unwrap_or_else(|| format!("{}-{:08x}", names::OPERATOR, rand::random::<u32>()));
    let leadership = Leadership::new(
        client.clone(),
        &args.lease_namespace,
        &args.lease_name,
        &identity,
    );
    tracing::info!("{identity} waits to lead");
    let since = tokio::select! {
        since = leadership.acquire() => since,
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!("{identity} leads");
    metrics.leader.set(1);
    let limits = Limits {
        concurrency: args.concurrency,
        log_drain: args.log_drain(),
    };
    let scope = Scope {
        client,
        namespace: args.namespace,
        failure_rules: Some((args.lease_namespace, args.failure_rules)),
    };
    let result = tokio::select! {
        lost = leadership.hold(since) => Err(lost.into()),
        () = work(scope, identity, Arc::new(Timestamp::now), metrics.clone(), limits, shutdown) => {
            leadership.release().await;
            Ok(())
        }
    };
    metrics.leader.set(0);
    http.cancel();
    result
}

/// Works on jobs until `shutdown`, then finishes the reconciles under way.
pub async fn work(
    scope: Scope,
    identity: String,
    clock: Clock,
    metrics: Metrics,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let scope = Scope {
        client: process::impatient(scope.client),
        ..scope
    };
    let memory = Arc::new(memory::Memory::default());
    let pods = Arc::new(watch::PodIndex::default());
    let (jobs, job_stream) = watch::jobs(&scope, memory.clone());
    let owners = watch::pods(&scope, pods.clone(), memory.clone()).await;
    let cluster_rules = match &scope.failure_rules {
        Some((namespace, name)) => {
            let (client, identity) = (scope.client.clone(), identity.clone());
            cluster_rules::watch(client, namespace, name, identity, metrics.clone()).await
        }
        None => ClusterRules::default(),
    };
    let (runtimes, waiting) = watch::runtimes(&scope, jobs.clone()).await;
    let context = Arc::new(Context {
        clock,
        client: scope.client,
        identity,
        pods,
        runtimes,
        cluster_rules,
        capacity: Capacity::default(),
        memory,
        metrics,
        log_drain: limits.log_drain,
    });
    let orphans = orphans::run(context.clone(), jobs.clone());
    let controller = Controller::for_stream(job_stream, jobs)
        .with_config(controller::Config::default().concurrency(limits.concurrency))
        .reconcile_on(receive(owners))
        .reconcile_on(receive(waiting))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile::reconcile, reconcile::retry, context)
        .for_each(|result| async move {
            match result {
                // A pod of a job that is gone: the garbage collector and `orphans` will see to it.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                // Logged by the retry, with the time of the next try.
                Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        });
    tokio::select! {
        () = controller => {}
        () = orphans => {}
    }
}

fn receive(channel: mpsc::Receiver<watch::Trigger>) -> impl Stream<Item = watch::Trigger> {
    stream::unfold(channel, |mut channel| async move {
        channel.recv().await.map(|item| (item, channel))
    })
}
