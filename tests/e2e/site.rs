//! A test's own site on the shared cluster: a namespace with the chart's RBAC, a runtime, operators
//! that it starts and kills, and a history of every pod that ever was in it.
//!
//! Operators run as processes of the test (so that they can be killed at any moment), scoped to the
//! site's namespace and acting as the chart's ServiceAccount: what the chart does not allow fails
//! here too.

use std::{
    future::Future,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::{Instant, sleep},
};
use trainyard::api::{TrainingJob, TrainingJobStatus, TrainingRuntime, conditions};

use crate::history::PodHistory;

/// Longest wait for anything that a healthy cluster of two slow cores does.
pub const PATIENCE: Duration = Duration::from_secs(400);

/// The image of jobs that need only a shell.
pub const BUSYBOX: &str = "localhost/trainyard/busybox:dev";

/// Tests that break a node take this for writing, all others for reading.
static NODES: std::sync::LazyLock<std::sync::Arc<RwLock<()>>> =
    std::sync::LazyLock::new(Default::default);

/// Held by a site for as long as it relies on (or breaks) the nodes.
#[allow(dead_code, reason = "held, never read")]
enum Nodes {
    Whole(OwnedRwLockReadGuard<()>),
    Broken(OwnedRwLockWriteGuard<()>),
}

pub struct Site {
    pub client: Client,
    pub namespace: String,
    pub history: PodHistory,
    folder: PathBuf,
    _nodes: Nodes,
}

impl Site {
    /// A site named after the test.
    pub async fn new(name: &str) -> Self {
        let nodes = Nodes::Whole(NODES.clone().read_owned().await);
        Self::with(name, nodes).await
    }

    /// A site whose test breaks nodes or needs all of them, alone on the cluster.
    pub async fn alone(name: &str) -> Self {
        let nodes = Nodes::Broken(NODES.clone().write_owned().await);
        Self::with(name, nodes).await
    }

    async fn with(name: &str, nodes: Nodes) -> Self {
        let client = Client::try_default()
            .await
            .expect("no cluster: run this through `dev/test e2e`, which brings one up");
        let namespace = format!("{name}-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let folder = std::env::temp_dir().join(format!("trainyard-e2e-{namespace}"));
        std::fs::create_dir_all(&folder).unwrap();
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {
                "trainyard.dev/e2e": "true",
                // Whatever trainyard makes must pass the strictest policy.
                "pod-security.kubernetes.io/enforce": "restricted",
            }},
        }))
        .unwrap();
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let site = Self {
            history: PodHistory::watch(client.clone(), &namespace).await,
            client,
            namespace,
            folder,
            _nodes: nodes,
        };
        site.install_rbac();
        site.runtime("busybox", BUSYBOX, "plain").await;
        site
    }

    /// The chart's RBAC for this namespace alone.
    fn install_rbac(&self) {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/trainyard");
        let manifests = run(Command::new("helm")
            .args(["template", &self.namespace, chart])
            .args(["--namespace", &self.namespace])
            .args(["--set", "rbac.aggregateToDefaultRoles=false"])
            .args(["--set", "collector.store.emptyDir=true"])
            .arg(format!("--set=watchNamespace={}", self.namespace))
            // Cluster-scoped names must differ between sites.
            .arg(format!("--set=fullnameOverride={}", self.namespace))
            .arg("--show-only=templates/operator-rbac.yaml")
            .arg("--show-only=templates/collector-rbac.yaml"));
        let file = self.folder.join("rbac.yaml");
        std::fs::write(&file, manifests).unwrap();
        run(Command::new("kubectl").arg("apply").arg("-f").arg(&file));
    }

    /// A TrainingRuntime of this namespace.
    pub async fn runtime(&self, name: &str, image: &str, launcher: &str) {
        let runtime: TrainingRuntime = serde_json::from_value(json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRuntime",
            "metadata": {"name": name},
            "spec": {"image": image, "launcher": launcher, "terminationGracePeriodSeconds": 2},
        }))
        .unwrap();
        let api = Api::<TrainingRuntime>::namespaced(self.client.clone(), &self.namespace);
        api.create(&PostParams::default(), &runtime).await.unwrap();
    }

    /// Starts an operator for this namespace, where nobody collects logs.
    pub fn operator(&self) -> Process {
        self.operator_that_drains(0)
    }

    /// Starts an operator for this namespace that keeps deleted pods for so many seconds until their
    /// logs are stored.
    pub fn operator_that_drains(&self, seconds: u32) -> Process {
        let log = self.folder.join("operator.log");
        let lease = format!("--lease-name={}-operator", self.namespace);
        let namespace = format!("--lease-namespace={}", self.namespace);
        let rules = format!("--failure-rules={}-failure-rules", self.namespace);
        let drain = format!("--log-drain-seconds={seconds}");
        self.process("operator", &[&lease, &namespace, &rules, &drain], &log)
    }

    /// Starts a collector for this namespace, and says where it keeps the lines.
    pub fn collector(&self) -> (Process, PathBuf) {
        self.collector_with(&[])
    }

    /// The same, with further flags.
    pub fn collector_with(&self, flags: &[&str]) -> (Process, PathBuf) {
        let store = self.folder.join("store");
        std::fs::create_dir_all(&store).unwrap();
        let log = self.folder.join("collector.log");
        let store_flag = format!("--store={}", store.display());
        let flags = [&[store_flag.as_str(), "--logs-http=127.0.0.1:0"], flags].concat();
        let process = self.process("collector", &flags, &log);
        (process, store)
    }

    fn process(&self, component: &str, args: &[&str], log: &PathBuf) -> Process {
        let account = self.account(component);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        // A measurement takes the optimized build.
        let program = std::env::var_os("TRAINYARD_E2E_PROGRAM")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_trainyard").into());
        let child = Command::new(program)
            .args([component, "--http", "127.0.0.1:0"])
            .args(["--namespace", &self.namespace])
            .args(args)
            .env("KUBECONFIG", self.impersonating(&account))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Process(child)
    }

    /// The operator's user name in the audit log.
    pub fn operator_account(&self) -> String {
        self.account("operator")
    }

    fn account(&self, component: &str) -> String {
        let namespace = &self.namespace;
        format!("system:serviceaccount:{namespace}:{namespace}-{component}")
    }

    fn impersonating(&self, account: &str) -> PathBuf {
        let mut config = Kubeconfig::read().unwrap();
        for user in &mut config.auth_infos {
            if let Some(auth) = &mut user.auth_info {
                auth.impersonate = Some(account.to_owned());
            }
        }
        let file = self
            .folder
            .join(account.rsplit(':').next().unwrap_or_default());
        std::fs::write(&file, serde_saphyr::to_string(&config).unwrap()).unwrap();
        file
    }

    pub fn jobs(&self) -> Api<TrainingJob> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a job on the busybox runtime; `spec` is merged over its defaults.
    pub async fn submit(&self, name: &str, spec: Value) -> TrainingJob {
        let mut whole = json!({"runtimeRef": {"kind": "TrainingRuntime", "name": "busybox"}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let job: TrainingJob = serde_json::from_value(json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": name}, "spec": whole,
        }))
        .unwrap();
        let jobs = self.jobs();
        jobs.create(&PostParams::default(), &job).await.unwrap()
    }

    /// Waits until the job's status is as wanted.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&TrainingJobStatus) -> bool,
    ) -> TrainingJobStatus {
        let jobs = self.jobs();
        eventually(&format!("TrainingJob {name}: {what}"), || async {
            let status = jobs.get(name).await.unwrap().status.unwrap_or_default();
            if wanted(&status) {
                Ok(status)
            } else {
                Err(serde_json::to_string_pretty(&status).unwrap())
            }
        })
        .await
    }

    /// Waits until the job has ended for good.
    pub async fn ended(&self, name: &str) -> TrainingJobStatus {
        self.until(name, "to end", TrainingJobStatus::finished)
            .await
    }

    /// Waits until the job runs on all nodes.
    pub async fn running(&self, name: &str) -> TrainingJobStatus {
        self.until(name, "to run", |s| reason(s) == "Running").await
    }

    /// Waits until the job has ended and it is settled what is stored of its logs.
    pub async fn drained(&self, name: &str) -> TrainingJobStatus {
        self.until(name, "to have its logs settled", |s| {
            s.finished() && s.logs_settled()
        })
        .await
    }

    /// The pods of the namespace.
    pub async fn pod_list(&self) -> Vec<Pod> {
        let pods = self.pods();
        pods.list(&ListParams::default()).await.unwrap().items
    }
}

impl Drop for Site {
    /// The namespace goes with its contents; on a failure it stays to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "namespace {} and the logs in {} are left to be looked at",
                self.namespace,
                self.folder.display()
            );
            return;
        }
        let _ = Command::new("kubectl")
            .args(["delete", "namespace", &self.namespace, "--wait=false"])
            .stdout(Stdio::null())
            .status();
        let _ = Command::new("kubectl")
            .args([
                "delete",
                "clusterrole,clusterrolebinding",
                "--wait=false",
                "--ignore-not-found",
            ])
            .arg(format!("{}-operator-cluster", self.namespace))
            .stdout(Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A component that runs until it is dropped.
pub struct Process(Child);

impl Process {
    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// The most memory that it has had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok());
        kib.unwrap_or(0) * 1024
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        run(Command::new("kill").args(["-TERM", &pid]));
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `check` succeeds; then gives what it gave, else panics with what it last said.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    check: impl Fn() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) if begin.elapsed() > PATIENCE => {
                panic!(
                    "waited {} s for {what}; last seen:\n{last}",
                    PATIENCE.as_secs()
                )
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The reason of condition Succeeded.
pub fn reason(status: &TrainingJobStatus) -> &str {
    status
        .condition(conditions::SUCCEEDED)
        .map_or("", |c| &c.reason)
}

/// The message of condition Succeeded.
pub fn message(status: &TrainingJobStatus) -> &str {
    status
        .condition(conditions::SUCCEEDED)
        .map_or("", |c| &c.message)
}

/// Runs a command and gives its standard output; panics with its errors where it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run this through `dev/test e2e`"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Deletes an object at once.
pub async fn delete_now<K>(api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    api.delete(name, &params).await.unwrap();
}

/// The name of each, sorted.
pub fn names<K: ResourceExt>(objects: &[K]) -> Vec<String> {
    let mut names: Vec<String> = objects.iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}
