//! The collector's parts: streams, the write-ahead log on a real disk, and a shipper to a store that may
//! refuse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Config};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use trainyard::logs::{
    disk::Folder,
    follow::{Following, Outcome},
    kubelet::KubeLog,
    line::{Origin, StreamId},
    metrics::Metrics,
    pods::ContainerState,
    ship::Shipper,
    sink::{Error, Shipment, Sink},
    wal::{Limits, Wal, frame::Declared},
};

use crate::node::{self, Node};

/// A store that takes lines, or refuses.
#[derive(Default)]
struct Store {
    refuses: AtomicBool,
}

impl Sink for Store {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn store<'a>(&'a self, _: &'a Shipment) -> BoxFuture<'a, Result<(), Error>> {
        let refused = self.refuses.load(Ordering::Relaxed).then(|| Error::Silent {
            path: "bench".into(),
            seconds: 0,
        });
        Box::pin(async { refused.map_or(Ok(()), Err) })
    }
}

pub struct Collector {
    pub wal: Wal,
    pub metrics: Metrics,
    client: Client,
    store: Arc<Store>,
    state: watch::Sender<ContainerState>,
    streams: JoinSet<Option<Outcome>>,
    shutdown: CancellationToken,
    _folder: TempDir,
}

impl Collector {
    pub async fn new(node: &Node, quota: u64, refuses: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, shutdown) = (Metrics::default(), CancellationToken::new());
        let limits = Limits {
            segment: 8 << 20,
            quota,
            job: u64::MAX,
        };
        let disk = Folder::new(folder.path().into());
        let wal = Wal::open(disk.clone(), 1, limits, metrics.clone(), shutdown.clone());
        let wal = wal.await.unwrap();
        let store = Arc::new(Store {
            refuses: refuses.into(),
        });
        let shipper = Shipper {
            wal: wal.clone(),
            disk,
            sinks: vec![store.clone()],
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            every: Duration::from_secs(1),
            hurry: Arc::default(),
        };
        tokio::spawn(shipper.run());
        let mut config = Config::new(node.address.parse().unwrap());
        config.accept_invalid_certs = true;
        Self {
            wal,
            metrics,
            client: Client::try_from(config).unwrap(),
            store,
            state: watch::channel(ContainerState::Running).0,
            streams: JoinSet::new(),
            shutdown,
            _folder: folder,
        }
    }

    /// Follows so many containers.
    pub fn follow(&mut self, containers: usize) -> Vec<StreamId> {
        (0..containers)
            .map(|n| {
                let id = StreamId {
                    namespace: "ml".into(),
                    job: "bert".into(),
                    uid: "u".into(),
                    attempt: 1,
                    rank: u32::try_from(n).unwrap(),
                    container: "trainer".into(),
                };
                let following = Following {
                    wal: self.wal.clone(),
                    declared: Declared {
                        id: id.clone(),
                        origin: Origin::default(),
                    },
                    lake: None,
                    started: Some(Timestamp::now()),
                    state: self.state.subscribe(),
                    log: KubeLog {
                        pods: Api::namespaced(self.client.clone(), "ml"),
                        pod: node::name(n),
                        container: "trainer".into(),
                    },
                    metrics: self.metrics.clone(),
                    shutdown: self.shutdown.clone(),
                };
                self.streams.spawn(following.run());
                id
            })
            .collect()
    }

    /// The store takes lines again.
    pub fn accept(&self) {
        self.store.refuses.store(false, Ordering::Relaxed);
    }

    /// All containers exit. How many streams have ended complete and not, by then.
    pub async fn exit(&mut self, node: &Node, patience: Duration) -> (u64, u64) {
        node.exit();
        self.state.send_replace(ContainerState::Terminated);
        let ended = async { while self.streams.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, ended).await;
        (self.metrics.complete.get(), self.metrics.incomplete.get())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Memory of this process in bytes.
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap() * 1024
}
