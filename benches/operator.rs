//! `make bench`: how fast, how frugal. Prints and asserts nothing: the machine is noisy.
//!
//! Pods run on simulated nodes (kwok), so that the control plane is what is measured. The peer in the
//! same run is bare pods: what the same API server, scheduler and kubelets do without any operator.
//! Started by dev/bench, which brings up the cluster and the simulated nodes.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use trainyard::api::{ClusterTrainingRuntime, TrainingJob};

/// Objects that are created at the same time, for pods and jobs alike.
const PARALLEL: usize = 50;

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::var("BENCH_JOBS")
        .unwrap_or_else(|_| "300 1000 10000".into())
        .split_whitespace()
        .map(|n| n.parse().expect("BENCH_JOBS is a list of numbers"))
        .collect();
    let client = Client::try_default()
        .await
        .expect("start this through dev/bench");
    runtime(&client).await;
    println!(
        "{:>7}  {:>10} {:>10} {:>6}  {:>12} {:>12}  {:>7} {:>9} {:>10}",
        "jobs",
        "pods/s",
        "jobs/s",
        "ratio",
        "first pod p50",
        "p99",
        "cpu s",
        "peak MiB",
        "writes/job"
    );
    for size in sizes {
        let bare = bare_pods(&client, size).await;
        jobs(&client, size, bare).await;
    }
}

/// N pods without an operator: pods a second from the first create to the last Succeeded.
async fn bare_pods(client: &Client, n: usize) -> f64 {
    let namespace = namespace(client).await;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let begin = Instant::now();
    let pod = |i: usize| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("bare-{i}")},
            "spec": {
                "restartPolicy": "Never", "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "containers": [{"name": "trainer", "image": "none", "command": ["true"]}],
            },
        }))
        .expect("a pod");
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &pod)
                .await
                .expect("a pod is created")
        }
    };
    stream::iter(0..n)
        .map(pod)
        .buffer_unordered(PARALLEL)
        .collect::<Vec<_>>()
        .await;
    let succeeded =
        |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
    until_all(&api, n, succeeded).await;
    let rate = per_second(n, begin.elapsed());
    remove(client, &namespace).await;
    rate
}

/// N one-pod jobs under an operator with default flags, then its restart over them.
async fn jobs(client: &Client, n: usize, bare: f64) {
    let namespace = namespace(client).await;
    let api: Api<TrainingJob> = Api::namespaced(client.clone(), &namespace);
    let seen = watch_pods(client, &namespace);
    let mut operator = Operator::start(&namespace);
    let begin = Instant::now();
    let job = |i: usize| {
        let job: TrainingJob = serde_json::from_value(json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": format!("job-{i}")},
            "spec": {"runtimeRef": {"name": "bench-kwok"}, "command": ["true"]},
        }))
        .expect("a job");
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &job)
                .await
                .expect("a job is created");
            (format!("job-{i}"), Instant::now())
        }
    };
    let created: Vec<(String, Instant)> = stream::iter(0..n)
        .map(job)
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    until_all(&api, n, |j: &TrainingJob| {
        j.status.as_ref().is_some_and(|s| s.finished())
    })
    .await;
    let rate = per_second(n, begin.elapsed());
    let mut waits: Vec<f64> = {
        let seen = seen.lock().expect("no panic");
        created
            .iter()
            .filter_map(|(job, at)| {
                Some(
                    seen.get(&format!("{job}-1-0"))?
                        .saturating_duration_since(*at),
                )
            })
            .map(|wait| wait.as_secs_f64())
            .collect()
    };
    let (cpu, peak) = operator.usage();
    let writes: f64 = operator.writes().await;
    println!(
        "{n:>7}  {bare:>10.1} {rate:>10.1} {:>5.0}%  {:>11.2} s {:>10.2} s  {cpu:>7.1} {peak:>9.1} {:>10.2}",
        rate / bare * 100.0,
        percentile(&mut waits, 50),
        percentile(&mut waits, 99),
        writes / n as f64
    );
    operator.stop();

    let begin = Instant::now();
    let mut operator = Operator::start(&namespace);
    let caught_up = operator.caught_up(n).await;
    println!(
        "         restart over {n} jobs: {} after {:.1} s, {:.0} writes, peak {:.1} MiB",
        if caught_up {
            "caught up"
        } else {
            "NOT caught up"
        },
        begin.elapsed().as_secs_f64(),
        operator.writes().await,
        operator.usage().1
    );
    operator.stop();
    remove(client, &namespace).await;
}

/// Notes when a watch shows each pod for the first time: the API server keeps whole seconds only.
fn watch_pods(client: &Client, namespace: &str) -> Arc<Mutex<BTreeMap<String, Instant>>> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let (note, api) = (
        seen.clone(),
        Api::<Pod>::namespaced(client.clone(), namespace),
    );
    tokio::spawn(async move {
        let mut pods = watcher(api, watcher::Config::default())
            .touched_objects()
            .boxed();
        while let Some(pod) = pods.next().await {
            if let (Ok(pod), Ok(mut seen)) = (pod, note.lock()) {
                seen.entry(pod.name_any()).or_insert_with(Instant::now);
            }
        }
    });
    seen
}

fn percentile(values: &mut [f64], p: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) * p / 100)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Counts by a watch-like poll whose cost does not grow with what is polled: lists come from the
/// API server's cache, half a second apart.
async fn until_all<K>(api: &Api<K>, n: usize, done: impl Fn(&K) -> bool)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = ListParams::default().match_any();
    loop {
        let list = api.list(&params).await.expect("a list");
        if list.items.iter().filter(|k| done(k)).count() >= n {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The operator as a process of its own, with default flags but for its scope and its port.
struct Operator {
    child: Child,
    port: u16,
}

impl Operator {
    fn start(namespace: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port")
            .port();
        let child =
            Command::new(std::env::var("TRAINYARD_BINARY").expect("start this through dev/bench"))
                .args([
                    "operator",
                    "--namespace",
                    namespace,
                    "--lease-namespace",
                    namespace,
                ])
                .arg(format!("--http=127.0.0.1:{port}"))
                .stderr(Stdio::null())
                .spawn()
                .expect("the operator starts");
        Self { child, port }
    }

    /// CPU seconds so far and the peak of resident memory in MiB.
    fn usage(&self) -> (f64, f64) {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
        };
        let stat = read("stat");
        let ticks: f64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|t| t.parse::<f64>().ok())
            .sum();
        let peak = read("status").lines().find_map(|l| {
            l.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<f64>()
                .ok()
        });
        (ticks / 100.0, peak.unwrap_or_default() / 1024.0)
    }

    /// A counter of /metrics, over all its labels.
    async fn metric(&self, name: &str) -> f64 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await else {
            return 0.0;
        };
        let _ = stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text.lines()
            .filter(|l| l.starts_with(name))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, n| sum + n)
    }

    async fn writes(&self) -> f64 {
        self.metric("trainyard_operator_writes_total").await
    }

    /// Waits until every job has been looked at once, at most two minutes.
    async fn caught_up(&mut self, n: usize) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(120) {
            if self
                .metric("trainyard_operator_reconcile_seconds_count")
                .await
                >= n as f64
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// SIGTERM, so that the Lease is given back and a restart need not wait for it to run out.
    fn stop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

async fn runtime(client: &Client) {
    let runtime: ClusterTrainingRuntime = serde_json::from_value(json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "bench-kwok"},
        "spec": {
            "image": "none", "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        },
    }))
    .expect("a runtime");
    let api = Api::<ClusterTrainingRuntime>::all(client.clone());
    let _ = api.create(&PostParams::default(), &runtime).await;
}

async fn namespace(client: &Client) -> String {
    let name = format!("bench-{:06x}", rand::random::<u32>() & 0xff_ffff);
    let object: Namespace =
        serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .expect("a namespace");
    name
}

/// Deletes a namespace and waits until it is gone, so that the next measurement is alone.
async fn remove(client: &Client, name: &str) {
    let api = Api::<Namespace>::all(client.clone());
    let _ = api.delete(name, &DeleteParams::default()).await;
    while api.get_opt(name).await.expect("an answer").is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn per_second(n: usize, time: Duration) -> f64 {
    n as f64 / time.as_secs_f64()
}
