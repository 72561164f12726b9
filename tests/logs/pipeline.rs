//! The real collector's parts between a fake kubelet and a real disk: `KubeLog` over HTTP, `Following`,
//! the write-ahead log in a temporary folder. And what is stored there, held against what was written.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Config};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use trainyard::logs::{
    disk::Folder,
    follow::{Following, Outcome},
    kubelet::KubeLog,
    lake::{self, Lake},
    layout,
    line::{Line, Origin, StreamId, nanos},
    metrics::Metrics,
    pods::ContainerState,
    record::{End, Gap, Reason, Record},
    ship::Shipper,
    wal::{
        Limits, Wal,
        frame::{Declared, Frame},
        scan::{self, Scan},
    },
};

use crate::{
    files::ENTRY,
    kubelet::{Kubelet, Pod},
};

/// Longest wait for anything, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kubelet, a client and a write-ahead log.
pub struct Pipeline {
    pub kubelet: Kubelet,
    pub wal: Wal,
    pub metrics: Metrics,
    shipper: Shipper<Folder>,
    lake: Lake,
    client: Client,
    limits: Limits,
    folders: Vec<TempDir>,
}

/// One container that is followed.
pub struct Rank {
    pub pod: Arc<Pod>,
    pub id: StreamId,
    state: watch::Sender<ContainerState>,
    task: JoinHandle<Option<Outcome>>,
    started: Timestamp,
    written: Vec<Vec<u8>>,
    last: i64,
}

/// What is stored of one container.
#[derive(Debug, Default)]
pub struct Stored {
    pub lines: Vec<Line>,
    pub gaps: Vec<Gap>,
    pub end: Option<End>,
}

impl Pipeline {
    pub async fn new(kubelet: Kubelet, scheme: &str, quota: u64) -> Self {
        let url = format!("{scheme}://localhost:{}", kubelet.address.port());
        let mut config = Config::new(url.parse().unwrap());
        config.accept_invalid_certs = true;
        let folders: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
        let limits = Limits {
            segment: 1 << 30,
            quota,
            job: u64::MAX,
        };
        let lake = Lake::open(folders[0].path().to_str().unwrap()).unwrap();
        let metrics = Metrics::default();
        let shipper = open(&folders[1], 1, limits, &metrics, &lake).await;
        Self {
            kubelet,
            wal: shipper.wal.clone(),
            metrics,
            shipper,
            lake,
            client: Client::try_from(config).unwrap(),
            limits,
            folders,
        }
    }

    /// The collector is killed and started again, by a clock that went back; its volume may be lost.
    pub async fn restart(&mut self, volume_lost: bool) {
        self.shipper.shutdown.cancel();
        if volume_lost {
            self.folders.push(tempfile::tempdir().unwrap());
        }
        let folder = &self.folders[self.folders.len() - 1];
        self.shipper = open(folder, 0, self.limits, &self.metrics, &self.lake).await;
        self.wal = self.shipper.wal.clone();
    }

    /// Plain HTTP and room enough.
    pub async fn plain() -> Self {
        Self::new(Kubelet::start(None).await, "http", 1 << 30).await
    }

    /// Follows a container that starts now.
    pub fn follow(&self, pod: &str) -> Rank {
        self.follow_from(pod, |_| {})
    }

    /// Follows a container to which something has happened before.
    pub fn follow_from(&self, name: &str, before: impl FnOnce(&mut Rank)) -> Rank {
        let id = StreamId {
            namespace: "ml".into(),
            job: name.into(),
            uid: format!("uid-of-{name}"),
            attempt: 1,
            rank: 0,
            container: "trainer".into(),
        };
        let mut rank = Rank {
            pod: self.kubelet.pod(name),
            id: id.clone(),
            state: watch::channel(ContainerState::Running).0,
            task: tokio::spawn(async { None }),
            started: Timestamp::now(),
            written: Vec::new(),
            last: 0,
        };
        before(&mut rank);
        self.follow_again(&mut rank, None);
        rank
    }

    /// Follows a container that was there before the collector was started again.
    pub fn find_again(&self, rank: &mut Rank) {
        self.follow_again(rank, Some(self.lake.clone()));
    }

    fn follow_again(&self, rank: &mut Rank, lake: Option<Lake>) {
        let following = Following {
            wal: self.wal.clone(),
            declared: Declared {
                id: rank.id.clone(),
                origin: Origin {
                    container_id: "containerd://1".into(),
                    ..Origin::default()
                },
            },
            lake,
            started: Some(rank.started),
            state: rank.state.subscribe(),
            log: KubeLog {
                pods: Api::namespaced(self.client.clone(), "ml"),
                pod: rank.id.job.clone(),
                container: rank.id.container.clone(),
            },
            metrics: self.metrics.clone(),
            shutdown: self.shipper.shutdown.clone(),
        };
        rank.task = tokio::spawn(following.run());
    }

    /// Waits until so many lines of it are stored.
    pub async fn has(&self, rank: &Rank, lines: u64) {
        let name = format!("{lines} lines of {}", rank.id);
        let stored = || async { self.wal.find(&rank.id).await.map(|s| s.totals.lines) };
        until(&name, || async { stored().await >= Some(lines) }).await;
    }

    /// Ships what is in the log, which makes room in it.
    pub async fn ship(&self) {
        self.shipper.round().await.unwrap();
    }

    /// Everything that is stored, by job.
    pub async fn stored(&self) -> BTreeMap<String, Stored> {
        let mut all = BTreeMap::<String, Stored>::new();
        for (id, files) in self.lake.list("").await.unwrap() {
            let stored = all.entry(id.job.clone()).or_default();
            for file in layout::cover(&files.lines) {
                let mut decoder = self.lake.lines(&id, file).await.unwrap();
                while let Some(lines) = lake::decode(&id, &mut decoder).unwrap() {
                    stored.lines.extend(lines);
                }
            }
            (stored.gaps, stored.end) = self.lake.notes(&files).await.unwrap();
        }
        let disk = &self.shipper.disk;
        for segment in scan::segments(disk).await.unwrap() {
            let mut scan = Scan::new(disk.clone(), segment);
            let mut names = BTreeMap::new();
            while let Some(frame) = scan.next().await.unwrap() {
                match frame {
                    Frame::Stream(number, by) => {
                        names.insert(number, by.id.job);
                    }
                    Frame::Records {
                        stream, records, ..
                    } => {
                        let stored = all.entry(names[&stream].clone()).or_default();
                        records.into_iter().for_each(|r| stored.take(r));
                    }
                }
            }
        }
        all
    }
}

async fn open(
    folder: &TempDir,
    epoch: u64,
    limits: Limits,
    metrics: &Metrics,
    lake: &Lake,
) -> Shipper<Folder> {
    let (disk, shutdown) = (Folder::new(folder.path().into()), CancellationToken::new());
    let wal = Wal::open(
        disk.clone(),
        epoch,
        limits,
        metrics.clone(),
        shutdown.clone(),
    );
    Shipper {
        wal: wal.await.unwrap(),
        disk,
        sinks: vec![Arc::new(lake.clone())],
        metrics: metrics.clone(),
        shutdown,
        every: Duration::MAX,
        hurry: Arc::default(),
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shipper.shutdown.cancel();
    }
}

impl Stored {
    fn take(&mut self, record: Record) {
        match record {
            Record::Line(line) => self.lines.push(line),
            Record::Gap(gap) => self.gaps.push(gap),
            Record::End(end) => self.end = Some(end),
            Record::File(_) => {}
        }
    }

    pub fn reasons(&self) -> Vec<Reason> {
        self.gaps.iter().map(|gap| gap.reason).collect()
    }
}

impl Rank {
    /// The container writes a line.
    pub fn write(&mut self, message: &[u8]) {
        self.write_next(message, true);
    }

    /// The same, maybe with no newline behind it.
    pub fn write_next(&mut self, message: &[u8], newline: bool) {
        let time = nanos(Timestamp::now()).max(self.last + 1);
        // Each entry of a long line has a stamp.
        self.last = time + i64::try_from(message.len() / ENTRY).unwrap();
        self.write_at(time, message, newline);
    }

    /// The same at a time of its own.
    pub fn write_at(&mut self, time: i64, message: &[u8], newline: bool) {
        self.written.push(message.to_vec());
        self.pod.change(|files| files.write(time, message, newline));
    }

    /// The same in the file that was rotated away last.
    pub fn write_late(&mut self, message: &[u8]) {
        self.last += 1;
        self.written.push(message.to_vec());
        self.pod
            .change(|files| files.write_late(self.last, message));
    }

    /// Time of the last line.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The container exits, and the API says so.
    pub fn exit(&self) {
        self.pod.change(|files| files.exited = true);
        self.state.send_replace(ContainerState::Terminated);
    }

    /// The API says that the pod is gone.
    pub fn gone(&self) {
        self.state.send_replace(ContainerState::Gone);
    }

    /// What came of it.
    pub async fn ended(&mut self) -> Outcome {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end", self.id));
        ended.unwrap().unwrap()
    }

    /// All lines are stored, once, in order, and it is known that they are all.
    pub fn whole(&self, stored: &Stored) -> Result<(), String> {
        let lines: Vec<&Vec<u8>> = stored.lines.iter().map(|line| &line.message).collect();
        let written: Vec<&Vec<u8>> = self.written.iter().collect();
        if lines != written {
            return Err(format!("{} stored: {}", self.id, texts(&lines)));
        }
        let complete = stored.end.as_ref().is_some_and(|end| end.complete);
        if !complete || !stored.gaps.is_empty() {
            return Err(format!("{}: {:?} {:?}", self.id, stored.gaps, stored.end));
        }
        Ok(())
    }

    /// What is stored was written, once, in order, and where something is missing is a gap. Gives the
    /// indices of what is missing. Lines must differ.
    pub fn missing(&self, stored: &Stored) -> Result<Vec<usize>, String> {
        let may = |seq: u64| {
            (stored.gaps.iter()).any(|gap| gap.not_before <= seq && seq <= gap.after_seq)
        };
        let mut missing = Vec::new();
        let mut at = 0;
        for line in &stored.lines {
            let (seq, text) = (line.seq, String::from_utf8_lossy(&line.message));
            // A pod that vanished may leave half a line, which is missing for all that.
            let half = line.flags.partial;
            let is = |written: &Vec<u8>| {
                *written == line.message || half && written.starts_with(&line.message)
            };
            let Some(skipped) = self.written[at..].iter().position(is) else {
                return Err(format!(
                    "{}: line {seq} {text:?} is repeated or out of order",
                    self.id
                ));
            };
            if skipped > 0 && !may(seq - 1) {
                return Err(format!(
                    "{}: no gap before line {seq}: {:?}",
                    self.id, stored.gaps
                ));
            }
            missing.extend(at..at + skipped);
            at += skipped + usize::from(!half);
        }
        let last = stored.lines.last().map_or(0, |line| line.seq);
        if at < self.written.len() && !may(last) {
            return Err(format!("{}: no gap at the end", self.id));
        }
        missing.extend(at..self.written.len());
        let complete = stored.end.as_ref().is_some_and(|end| end.complete);
        if complete && !(missing.is_empty() && stored.gaps.is_empty()) {
            return Err(format!(
                "{}: complete, but {missing:?} are missing",
                self.id
            ));
        }
        Ok(missing)
    }
}

fn texts(lines: &[&Vec<u8>]) -> String {
    let text = |line: &&Vec<u8>| String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
    format!("{:?}", lines.iter().take(40).map(text).collect::<Vec<_>>())
}

/// Waits until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let begin = Instant::now();
    while !so().await {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The ends of all; panics with what is wrong with any of them.
pub async fn all_whole(pipeline: &Pipeline, ranks: Vec<Rank>) {
    let mut ranks = ranks;
    for rank in &mut ranks {
        rank.ended().await;
    }
    let stored = pipeline.stored().await;
    let wrong = ranks
        .iter()
        .filter_map(|rank| rank.whole(&stored[&rank.id.job]).err());
    let wrong: Vec<String> = wrong.collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        ranks.len(),
        wrong.join("\n")
    );
}
