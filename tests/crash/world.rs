//! One run: a job, a cluster, and operator processes that follow each other; until the job's end, and
//! then a long time in which nothing may be written.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trainyard::operator::{self, Limits, Metrics, Scope};

use super::{
    api_server::{ApiServer, Process},
    auditor::{LOG_DRAIN, condition, may_run, numbers, summary},
    collector::{self, LINES, Logs},
    kubelet::{self, Program},
    requests::Weather,
    store::Key,
};

/// What a user does, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Suspend,
    Resume,
    Delete,
    Apply,
    /// The platform team applies the runtime, which is there from the beginning otherwise.
    ApplyRuntime,
}

/// A job's life.
#[derive(Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub spec: Value,
    pub program: Program,
    pub script: Vec<(Duration, Act)>,
    pub end: Expected,
    pub logs: Logs,
    /// Also check that nothing is written afterwards, which takes as long as the rest.
    pub and_rest: bool,
}

/// How a job has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Status and reason of condition Succeeded, and retries.
    As(&'static str, &'static str, i64),
    /// In any way, but for good: where retries depend on what others do to its pods.
    Ended,
    /// There is no job.
    Gone,
}

/// The end of a run.
pub struct End {
    /// Requests of the first process up to the end of the job.
    pub requests: usize,
    /// What went wrong, with the log of all that happened; None if nothing did.
    pub wrong: Option<String>,
}

/// How long a job may take after the user has done all that he does.
const LIMIT: Duration = Duration::from_secs(1800);
/// Longer than the operator goes without looking at a job (10 min).
const QUIET: Duration = Duration::from_secs(700);

/// Runs `scenario`: one operator process after the other, each in its weather (fair weather where no
/// more is given), `pause` after each crash.
pub fn run(scenario: &Scenario, weather: Vec<Weather>, pause: Duration) -> End {
    in_own_time(async move {
        let world = World::new(scenario);
        let mut weather = weather.into_iter();
        let mut number = 1;
        let (mut task, mut process) = world.start(number, weather.next().unwrap_or_default());
        let first = process.clone();
        let limit = LIMIT + scenario.script.last().map_or(Duration::ZERO, |(at, _)| *at);
        let mut ended = std::pin::pin!(timeout(limit, world.end()));
        let end = loop {
            tokio::select! {
                biased;
                end = &mut ended => break end,
                () = process.crashed() => {
                    task.abort();
                    sleep(pause).await;
                    number += 1;
                    (task, process) = world.start(number, weather.next().unwrap_or_default());
                }
            }
        };
        let requests = first.requests();
        if end.is_err() {
            world.wrong("the job never came to its end");
        } else if scenario.and_rest {
            world.check_rest(task).await;
        }
        world.check_end();
        End {
            requests,
            wrong: world.report(),
        }
    })
}

/// Runs `test` on a clock of its own, which passes only when everything waits.
pub fn in_own_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test)
}

pub struct World {
    pub server: ApiServer,
    scenario: Scenario,
    key: Key,
}

impl World {
    /// A cluster with the scenario's job and its runtime; no operator yet.
    pub fn new(scenario: &Scenario) -> Self {
        let server = ApiServer::new();
        let world = Self {
            server: server.clone(),
            scenario: scenario.clone(),
            key: Key::new("trainingjobs", "default", "j"),
        };
        if !scenario
            .script
            .iter()
            .any(|(_, act)| *act == Act::ApplyRuntime)
        {
            world.act(Act::ApplyRuntime);
        }
        world.act(Act::Apply);
        tokio::spawn(stray_pods(server.clone()));
        tokio::spawn(kubelet::run(server.clone(), scenario.program));
        tokio::spawn(kubelet::collect_garbage(server.clone()));
        if scenario.logs == Logs::Stored {
            tokio::spawn(collector::run(server.clone()));
        }
        let (actor, begin) = (world.clone(), Instant::now());
        tokio::spawn(async move {
            for (at, act) in actor.scenario.script.clone() {
                tokio::time::sleep_until(begin + at).await;
                actor.act(act);
            }
        });
        world
    }

    fn clone(&self) -> Self {
        Self {
            server: self.server.clone(),
            scenario: self.scenario.clone(),
            key: self.key.clone(),
        }
    }

    /// Starts an operator process with an empty memory.
    pub fn start(&self, number: usize, weather: Weather) -> (JoinHandle<()>, Arc<Process>) {
        self.server.note(format!("operator {number} starts"));
        let (client, process) = self.server.connect(number, weather);
        let scope = Scope {
            client,
            namespace: None,
            failure_rules: None,
        };
        let server = self.server.clone();
        let task = tokio::spawn(operator::work(
            scope,
            format!("operator-{number}"),
            Arc::new(move || server.now()),
            Metrics::new(&mut Registry::default()),
            Limits {
                concurrency: 64,
                log_drain: Some(LOG_DRAIN),
            },
            CancellationToken::new(),
        ));
        (task, process)
    }

    fn act(&self, act: Act) {
        let (server, key, now) = (&self.server, &self.key, self.server.now());
        server.note(format!("user: {act:?}"));
        let suspend = |value: bool| {
            let _ = server.with(|s| s.edit(key, |job| job["spec"]["suspend"] = value.into()));
        };
        match act {
            Act::Suspend => suspend(true),
            Act::Resume => suspend(false),
            Act::Delete => drop(server.with(|s| s.delete(key, None, now))),
            Act::Apply => {
                let job = json!({
                    "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
                    "metadata": {"name": key.name}, "spec": self.scenario.spec,
                });
                let _ = server.with(|s| s.create(key, job, now));
            }
            Act::ApplyRuntime => {
                let runtime = json!({
                    "apiVersion": "trainyard.dev/v1alpha1", "kind": "ClusterTrainingRuntime",
                    "metadata": {"name": "r", "generation": 1}, "spec": {"image": "localhost/i"},
                });
                let _ = server.with(|s| {
                    s.create(&Key::new("clustertrainingruntimes", "", "r"), runtime, now)
                });
            }
        }
    }

    /// Waits until the user has done all that he does, the job and its logs have ended, no pod runs,
    /// and none waits to be let go.
    pub async fn end(&self) {
        if let Some((last, _)) = self.scenario.script.last() {
            sleep(*last).await;
        }
        let mut changes = self.server.changes();
        loop {
            changes.mark_unchanged();
            let ended = self.server.with_quietly(|store| {
                let job_ended = match (store.get(&self.key), &self.scenario.end) {
                    (job, Expected::Gone) => job.is_none(),
                    (Some(job), _) => ["Succeeded", "LogsComplete"].iter().all(|kind| {
                        let is = condition(&job["status"], kind).0;
                        !matches!(is.as_str(), "" | "Unknown")
                    }),
                    (None, _) => false,
                };
                let counts = self.scenario.logs == Logs::Stored;
                let stopped = |pod: &Value| pod["spec"]["activeDeadlineSeconds"].is_number();
                let over = |pod: &Value| {
                    let going = pod["metadata"]["deletionTimestamp"].is_string();
                    let kept = counts && stopped(pod);
                    !may_run(pod) && !going && !kept
                };
                job_ended && store.list("pods", "").all(|(_, pod)| over(pod))
            });
            if ended {
                return;
            }
            let _ = changes.changed().await;
        }
    }

    /// After the end: nothing is written, neither by this process nor by its successor.
    pub async fn check_rest(&self, task: JoinHandle<()>) {
        sleep(Duration::from_secs(30)).await;
        let before = self.server.state().writes;
        sleep(QUIET).await;
        if self.server.state().writes != before {
            self.wrong("something was written although nothing had changed");
        }
        task.abort();
        let before = self.server.state().writes;
        let (task, _) = self.start(9, Weather::default());
        sleep(QUIET).await;
        task.abort();
        if self.server.state().writes != before {
            self.wrong("a restart over a job at rest wrote something");
        }
    }

    pub fn check_end(&self) {
        let end = self.server.with_quietly(|store| {
            let status = &store.get(&self.key)?["status"];
            let (is, reason) = summary(status);
            Some((is, reason, status["retries"].as_i64().unwrap_or(0)))
        });
        let wanted = match self.scenario.end {
            Expected::As(is, reason, n) => Some((is.to_owned(), reason.to_owned(), n)),
            Expected::Ended => end.clone(),
            Expected::Gone => None,
        };
        if end != wanted {
            self.wrong(&format!("the end is {end:?}, not {wanted:?}"));
        }
        self.check_logs();
    }

    /// What the status says of the logs is true.
    fn check_logs(&self) {
        let job = self
            .server
            .with_quietly(|store| store.get(&self.key).cloned());
        let Some(job) = job else { return };
        let uid = job["metadata"]["uid"].as_str().unwrap_or_default();
        let pods = self.server.state().auditor.started(uid);
        let all = LINES * pods;
        let is = condition(&job["status"], "LogsComplete").0;
        let logs = &job["status"]["logs"];
        let (complete, lines) = (
            logs["complete"] == true,
            logs["lines"].as_i64().unwrap_or(0),
        );
        if complete != (is == "True") || complete != (self.scenario.logs == Logs::Stored) {
            self.wrong(&format!("LogsComplete is {is}, and status.logs {logs}"));
        }
        if complete && lines < all {
            self.wrong(&format!("{lines} lines of {pods} pods are all of them"));
        }
    }

    pub fn wrong(&self, what: &str) {
        self.server.state().auditor.broken.insert(what.into());
    }

    pub fn report(&self) -> Option<String> {
        let state = self.server.state();
        let broken: Vec<&str> = state.auditor.broken.iter().map(String::as_str).collect();
        let log: Vec<&str> = state.log.iter().take(400).map(String::as_str).collect();
        let name = self.scenario.name;
        (!broken.is_empty())
            .then(|| format!("{name}:\n  {}\n{}", broken.join("\n  "), log.join("\n")))
    }
}

/// Checks that a pod of an earlier attempt does not run on beside the current one. Runs for ever.
async fn stray_pods(server: ApiServer) {
    const PATIENCE: u32 = 60; // one request without an answer takes 20 s
    let mut seconds: BTreeMap<String, u32> = BTreeMap::new();
    let mut changes = server.changes();
    loop {
        let strays: Vec<String> = server.with_quietly(|store| {
            let alive: Vec<_> = store
                .list("pods", "")
                .filter(|(_, pod)| may_run(pod))
                .collect();
            let is_stray = |pod: &Value| {
                let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
                alive.iter().any(|(_, other)| {
                    other["metadata"]["ownerReferences"][0]["uid"] == *owner
                        && numbers(other).0 > numbers(pod).0
                })
            };
            let strays = alive
                .iter()
                .filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_null() && is_stray(pod));
            strays.map(|(key, _)| key.name.clone()).collect()
        });
        seconds.retain(|name, _| strays.contains(name));
        for name in &strays {
            let n = seconds.entry(name.clone()).or_default();
            *n += 1;
            if *n == PATIENCE {
                let broken = format!("{name} of an earlier attempt runs on beside a later attempt");
                server.state().auditor.broken.insert(broken);
            }
        }
        if strays.is_empty() {
            let _ = changes.changed().await;
        } else {
            sleep(Duration::from_secs(1)).await;
        }
    }
}
