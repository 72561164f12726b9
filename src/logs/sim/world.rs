//! One seed's world: containers that write, a collector that is killed and started, and everything
//! that goes wrong in between. The collector's parts are the real ones.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    chance::Chance,
    disk::{self, SimDisk},
    kubelet::{self, SimLog},
    objects::SimObjects,
    oracle::{self, Stored, Truth},
};
use crate::logs::{
    follow::{Following, Outcome},
    lake::Lake,
    line::{Origin, StreamId},
    metrics::Metrics,
    pods::ContainerState,
    ship::Shipper,
    sink::Sink,
    store::Store,
    wal::{Limits, Wal, frame::Declared},
};

/// What may go wrong in this world.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub containers: usize,
    pub rotates: bool,
    pub vanishes: bool,
    pub crashes: u64,
    pub power: bool,
    /// The collector's volume is lost in one of the crashes.
    pub loses_disk: bool,
    pub log: kubelet::Faults,
    pub disk: disk::Faults,
    pub store: u64,
    pub second_sink: bool,
    pub quota: u64,
    pub busy: bool,
}

impl Profile {
    pub fn of(seed: u64) -> Self {
        // Every other world is as bad as it gets.
        if seed % 2 == 1 {
            return Self {
                containers: 2,
                rotates: seed % 4 == 1,
                vanishes: seed.is_multiple_of(7),
                crashes: 5,
                power: true,
                loses_disk: seed % 6 == 5,
                log: kubelet::Faults {
                    refuse: 8,
                    cut: 3,
                    words: 4,
                    slow: 20,
                },
                disk: disk::Faults {
                    error: 20,
                    full: 20,
                    slow: 12,
                },
                store: 4,
                second_sink: seed.is_multiple_of(3),
                quota: 1 << 30,
                busy: false,
            };
        }
        let chance = Chance::new(seed ^ 0x00c0_ffee);
        let some = |n: u64| if chance.one_in(2) { n } else { 0 };
        Self {
            containers: 1 + chance.index(3),
            rotates: chance.one_in(2),
            vanishes: chance.one_in(8),
            crashes: if chance.one_in(2) {
                1 + chance.below(4)
            } else {
                0
            },
            power: chance.one_in(2),
            loses_disk: seed % 10 == 4,
            log: kubelet::Faults {
                refuse: some(6),
                cut: some(3),
                words: some(10),
                slow: some(20),
            },
            disk: disk::Faults {
                error: some(25),
                full: some(25),
                slow: some(100),
            },
            store: some(5),
            // What only a lost log had for it, a second sink never gets.
            second_sink: chance.one_in(3) && seed % 10 != 4,
            quota: if chance.one_in(4) { 30_000 } else { 1 << 30 },
            busy: chance.one_in(3),
        }
    }
}

struct Container {
    id: StreamId,
    log: SimLog,
    state: watch::Sender<ContainerState>,
    gone: bool,
}

/// The collector's process.
struct Process {
    wal: Wal,
    tasks: Vec<JoinHandle<()>>,
    outcomes: Vec<watch::Receiver<Option<Outcome>>>,
    shutdown: CancellationToken,
    shipper: Arc<Shipper<SimDisk>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct World {
    chance: Chance,
    profile: Profile,
    containers: Vec<Container>,
    disk: SimDisk,
    objects: SimObjects,
    second: SimObjects,
    /// The volume has been lost.
    lost: bool,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub faults: u64,
    pub lines: u64,
    pub gaps: u64,
    pub complete: u64,
    pub streams: u64,
}

async fn ended(process: &mut Process, deadline: Instant) -> Result<(), String> {
    for outcome in &mut process.outcomes {
        let ended = tokio::time::timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
        if !matches!(ended, Ok(Ok(_))) {
            return Err("a stream does not end".into());
        }
    }
    Ok(())
}

/// Lives through one seed. An error is a broken promise.
pub async fn live(seed: u64) -> Result<Seen, String> {
    let profile = Profile::of(seed);
    let chance = Chance::new(seed);
    let containers = (0..profile.containers)
        .map(|rank| Container {
            id: StreamId {
                namespace: "ml".into(),
                job: "bert".into(),
                uid: "u-1".into(),
                attempt: 1,
                rank: u32::try_from(rank).unwrap(),
                container: "trainer".into(),
            },
            log: SimLog::new(chance.clone(), profile.log),
            state: watch::channel(ContainerState::Running).0,
            gone: false,
        })
        .collect();
    let world = World {
        disk: SimDisk::new(chance.clone(), profile.disk),
        objects: SimObjects::new(chance.clone(), profile.store),
        second: SimObjects::new(chance.clone(), profile.store),
        containers,
        chance,
        profile,
        lost: false,
    };
    world.live().await
}

impl World {
    async fn start(&self) -> Option<Process> {
        let shutdown = CancellationToken::new();
        let limits = Limits {
            segment: if self.profile.busy { 200_000 } else { 4_000 },
            quota: self.profile.quota,
            job: u64::MAX,
        };
        let metrics = Metrics::default();
        let wal = loop {
            let opened = Wal::open(
                self.disk.clone(),
                7,
                limits,
                metrics.clone(),
                shutdown.clone(),
            );
            // It would exit, and be started again.
            let opened = tokio::time::timeout(Duration::from_mins(10), opened)
                .await
                .ok()?;
            match opened {
                Ok(wal) => break wal,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        let lake = Lake::new(Arc::new(self.objects.clone()), "simulated");
        let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(lake.clone())];
        if self.profile.second_sink {
            sinks.push(Arc::new(Lake::new(Arc::new(self.second.clone()), "second")));
        }
        let shipper = Arc::new(Shipper {
            wal: wal.clone(),
            disk: self.disk.clone(),
            sinks,
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            every: Duration::from_secs(3),
            hurry: Arc::new(Notify::new()),
        });
        let mut tasks = Vec::new();
        {
            let shipper = shipper.clone();
            let shutdown = shutdown.clone();
            tasks.push(tokio::spawn(async move {
                while shipper.round().await.is_some() {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(shipper.every) => {}
                    }
                }
            }));
        }
        let mut outcomes = Vec::new();
        for container in &self.containers {
            let following = Following {
                wal: wal.clone(),
                declared: Declared {
                    id: container.id.clone(),
                    origin: Origin {
                        container_id: "containerd://1".into(),
                        ..Origin::default()
                    },
                },
                lake: Some(lake.clone()),
                started: Some(container.log.started()),
                state: container.state.subscribe(),
                log: container.log.clone(),
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
            };
            let (done, outcome) = watch::channel(None);
            outcomes.push(outcome);
            tasks.push(tokio::spawn(async move {
                let outcome = following.run().await;
                done.send_replace(outcome);
            }));
        }
        Some(Process {
            wal,
            tasks,
            outcomes,
            shutdown,
            shipper,
        })
    }

    fn kill(&mut self, process: Option<Process>, power: bool) {
        drop(process);
        self.disk = self.disk.crash(power);
        self.objects = self.objects.crash();
        self.second = self.second.crash();
        self.chance.count();
    }

    async fn live(mut self) -> Result<Seen, String> {
        let mut process = self.start().await;
        let mut crashes = self.profile.crashes;
        let rounds = 20 + self.chance.below(40);
        for _ in 0..rounds {
            self.happen();
            self.chance.pause(900).await;
            if crashes > 0 && self.chance.one_in(8) {
                crashes -= 1;
                if self.chance.one_in(2) {
                    self.disk.die_in(1 + self.chance.below(20));
                    self.chance.pause(2000).await;
                }
                self.kill(process.take(), self.profile.power);
                // Its volume, too: not after the pods may have been deleted.
                if self.profile.loses_disk && !self.lost && self.chance.one_in(2) {
                    self.disk = self.disk.lose();
                    self.lost = true;
                }
                self.chance.pause(3000).await;
                process = self.start().await;
            }
            if process.is_none() {
                self.kill(None, self.profile.power);
                process = self.start().await;
            }
        }
        for at in 0..self.containers.len() {
            self.chance.pause(500).await;
            let container = &self.containers[at];
            if self.chance.one_in(4) {
                container.log.write(b"no newline", false, false);
            }
            container.log.exit();
            if self.chance.one_in(3) {
                self.chance.pause(4000).await;
            }
            container.state.send_replace(ContainerState::Terminated);
            if self.profile.vanishes && self.chance.one_in(2) {
                self.chance.pause(3000).await;
                self.containers[at].gone = true;
                self.containers[at].log.remove();
                self.containers[at].state.send_replace(ContainerState::Gone);
            }
        }
        if crashes > 0 {
            self.chance.pause(6000).await;
            self.kill(process.take(), self.profile.power);
            process = self.start().await;
        }
        // Faults end at some time, and then it must come right.
        self.chance.pause(10_000).await;
        self.chance.calm();
        let mut process = match process {
            Some(process) => process,
            None => self.start().await.ok_or("it does not start")?,
        };
        let deadline = Instant::now() + Duration::from_hours(3);
        ended(&mut process, deadline).await?;
        if self.chance.one_in(2) {
            // Who was told so may delete the pods at once, whatever happens to the collector.
            self.kill(Some(process), self.profile.power);
            for container in &self.containers {
                container.log.remove();
                container.state.send_replace(ContainerState::Gone);
            }
            process = self.start().await.ok_or("it does not start")?;
            ended(&mut process, deadline).await?;
        }
        self.judge(process).await
    }

    /// Something happens to the containers.
    fn happen(&self) {
        let chance = &self.chance;
        for container in &self.containers {
            let log = &container.log;
            let burst = match chance.below(10) {
                0 => 200 + chance.below(if self.profile.busy { 3000 } else { 800 }),
                1..=3 => 0,
                _ => 1 + chance.below(8),
            };
            let identical = chance.one_in(4);
            for n in 0..burst {
                if identical {
                    log.write(b"same", true, n > 0);
                    continue;
                }
                let message = match chance.below(30) {
                    0 => Vec::new(),
                    1 => vec![b'x'],
                    2 => vec![0xff, 0xfe, b'\r', 27, b'['],
                    3 => b"10%\r20%\r30%".to_vec(),
                    4 if burst < 10 => {
                        let size = 1 + chance.index(60_000);
                        vec![b'l'; size]
                    }
                    5 if burst < 10 && chance.one_in(10) => {
                        let size = MAX_LINE - 200_000 + chance.index(200_000);
                        vec![b'L'; size]
                    }
                    _ => format!("step {}", chance.below(1000)).into_bytes(),
                };
                log.write(&message, true, chance.one_in(5));
            }
            if self.profile.rotates && chance.one_in(8) && log.rotate(chance.below(3)) {
                chance.count();
            }
            if chance.one_in(25) {
                let by = chance.below(7_200_000_000_000) as i64 - 3_600_000_000_000;
                log.step_clock(by);
                chance.count();
            }
        }
    }

    async fn judge(&self, process: Process) -> Result<Seen, String> {
        // With what is in the log alone, then with all of it shipped, then after a last crash.
        let store = |objects: &SimObjects, disk: Option<SimDisk>| {
            Store::new(Lake::new(Arc::new(objects.clone()), "simulated"), disk)
        };
        let mut seen = Seen {
            faults: self.chance.faults(),
            ..Seen::default()
        };
        let fresh = store(&self.objects, Some(self.disk.clone()));
        for round in 0..3 {
            let all = match round {
                0 => {
                    // Nothing may be cut between the two readings.
                    for task in &process.tasks {
                        task.abort();
                    }
                    tokio::time::sleep(Duration::from_mins(5)).await;
                    oracle::collect(&fresh).await
                }
                1 => {
                    let shipped =
                        tokio::time::timeout(Duration::from_hours(1), process.shipper.round());
                    shipped.await.ok().flatten().ok_or("it is not shipped")?;
                    let lake = store(&self.objects, None);
                    oracle::verified(&lake).await?;
                    oracle::collect(&lake).await
                }
                _ if self.profile.second_sink => {
                    let lake = store(&self.second, None);
                    oracle::verified(&lake).await?;
                    oracle::collect(&lake).await
                }
                _ => continue,
            };
            self.compare(&all)
                .map_err(|e| format!("round {round}: {e}"))?;
            if round == 1 {
                for stored in all.values() {
                    seen.lines += stored.lines.len() as u64;
                    seen.gaps += stored.gaps.len() as u64;
                    seen.streams += 1;
                    seen.complete += u64::from(stored.end.as_ref().is_some_and(|e| e.complete));
                }
            }
        }
        for container in &self.containers {
            let known = process.wal.find(&container.id).await;
            if known.is_none_or(|stream| stream.end.is_none()) {
                return Err("the log has forgotten an end".into());
            }
        }
        Ok(seen)
    }

    fn compare(&self, all: &BTreeMap<StreamId, Stored>) -> Result<(), String> {
        for container in &self.containers {
            let (written, files) = container.log.truth();
            let truth = Truth {
                written,
                files,
                gone: container.gone,
                lost: self.lost,
            };
            let stored = all.get(&container.id);
            let stored = stored.ok_or_else(|| format!("nothing of {}", container.id))?;
            truth
                .judge(stored)
                .map_err(|e| format!("{}: {e}", container.id))?;
        }
        Ok(())
    }
}

/// The longest line that a container writes here.
const MAX_LINE: usize = 700_000;
