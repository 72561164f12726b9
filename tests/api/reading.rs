//! Who may read stored logs, with a real API server that says who is who and who may what: directly, and
//! with `kubectl trainyard logs` through its service proxy.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{AuthInfo, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use trainyard::{
    api::TrainingJob,
    logs::{
        http,
        lake::Lake,
        line::{Flags, Line, Origin, Output, StreamId, from_nanos},
        record::Record,
        sink::{Shipment, Sink},
        store::Store,
        wal::frame::Declared,
    },
};

use crate::support;

const PATIENCE: Duration = Duration::from_secs(60);

/// A collector's API with some lines, a Service that leads to it, and two tenants.
struct World {
    client: Client,
    dir: TempDir,
    lake: Lake,
    /// Where the collector is.
    home: String,
    /// The tenants' namespaces.
    a: String,
    b: String,
    address: SocketAddr,
    running: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let client = support::control_plane().await;
        let dir = TempDir::new().unwrap();
        let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
        let running = CancellationToken::new();
        let address = SocketAddr::new(own_address(), 0);
        let store = Store::new(lake.clone(), None);
        let served = http::serve(address, store, client.clone(), running.clone());
        let world = Self {
            home: support::namespace(&client, "reading-home").await,
            a: support::namespace(&client, "reading-a").await,
            b: support::namespace(&client, "reading-b").await,
            address: served.await.unwrap(),
            client,
            dir,
            lake,
            running,
        };
        for tenant in [&world.a, &world.b] {
            world.account(tenant, "reader").await;
            world
                .allow(
                    tenant,
                    "reader",
                    tenant,
                    &json!([
                        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}
                    ]),
                )
                .await;
            world
                .allow(
                    tenant,
                    "reader",
                    &world.home,
                    &json!([
                        {"apiGroups": [""], "resources": ["services/proxy"],
                            "resourceNames": ["trainyard-collector:logs"], "verbs": ["get"]}
                    ]),
                )
                .await;
        }
        world.account(&world.home, "trainyard-log-reader").await;
        world
            .allow(
                &world.home,
                "trainyard-log-reader",
                &world.a,
                &json!([
                    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}
                ]),
            )
            .await;
        world.service().await;
        world
    }

    async fn serve_again(&mut self) {
        self.running = CancellationToken::new();
        let this = &*self;
        support::eventually(PATIENCE, "the port to be free again", || async {
            let store = Store::new(this.lake.clone(), None);
            let served = http::serve(
                this.address,
                store,
                this.client.clone(),
                this.running.clone(),
            );
            served.await.map_err(|e| e.to_string())
        })
        .await;
    }

    async fn create(&self, namespace: &str, version: &str, kind: &str, object: Value) {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let created = api.create(&PostParams::default(), &object).await;
        created.unwrap_or_else(|e| panic!("{kind}: {e}"));
    }

    async fn account(&self, namespace: &str, name: &str) {
        let account = json!({"metadata": {"name": name}});
        self.create(namespace, "v1", "ServiceAccount", account)
            .await;
    }

    /// Lets an account do something in a namespace.
    async fn allow(&self, home: &str, account: &str, namespace: &str, rules: &Value) {
        let name = format!("{home}-{account}");
        let api = "rbac.authorization.k8s.io";
        let role = json!({"metadata": {"name": name}, "rules": rules});
        self.create(namespace, &format!("{api}/v1"), "Role", role)
            .await;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
        });
        self.create(namespace, &format!("{api}/v1"), "RoleBinding", binding)
            .await;
    }

    async fn service(&self) {
        let port = self.address.port();
        let labels = json!({"app.kubernetes.io/name": "trainyard", "app.kubernetes.io/component": "collector"});
        let service = json!({
            "metadata": {"name": "trainyard-collector", "labels": labels},
            "spec": {"ports": [{"name": "logs", "port": 8081, "targetPort": port}]},
        });
        self.create(&self.home, "v1", "Service", service).await;
        let ip = self.address.ip().to_string();
        // The proxy goes to addresses of pods alone.
        let pod = json!({
            "metadata": {"name": "collector"},
            "spec": {
                "serviceAccountName": "trainyard-log-reader",
                "automountServiceAccountToken": false,
                "containers": [{"name": "collector", "image": "none"}],
            },
        });
        self.create(&self.home, "v1", "Pod", pod).await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.home);
        let status = Patch::Merge(json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}));
        let params = PatchParams::default();
        let patched = pods.patch_status("collector", &params, &status);
        patched.await.unwrap();
        let slice = json!({
            "metadata": {"name": "trainyard-collector",
                "labels": {"kubernetes.io/service-name": "trainyard-collector"}},
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [ip],
                "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": "collector", "namespace": self.home},
            }],
            "ports": [{"name": "logs", "port": port, "protocol": "TCP"}],
        });
        self.create(&self.home, "discovery.k8s.io/v1", "EndpointSlice", slice)
            .await;
        let path = format!(
            "/api/v1/namespaces/{}/services/trainyard-collector:logs/proxy/openapi.json",
            self.home
        );
        support::eventually(PATIENCE, "the API server's proxy to find it", || async {
            let request = ::http::Request::get(&path).body(Vec::new()).unwrap();
            let answer = self.client.request_text(request).await;
            answer.map_err(|e| e.to_string())
        })
        .await;
    }

    async fn token(&self, namespace: &str, account: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let made = accounts.create_token_request(account, &params, &request);
        made.await.unwrap().status.unwrap().token
    }

    /// Lines of a job `bert`, with numbers in their text.
    async fn store(&self, namespace: &str, uid: &str, seqs: std::ops::RangeInclusive<u64>) {
        let line = |seq: u64| {
            Record::Line(Line {
                seq,
                time: from_nanos(seq.cast_signed() * 1_000_000),
                observed: from_nanos(0),
                output: Output::Unknown,
                flags: Flags::default(),
                message: format!("{namespace} {seq}").into_bytes(),
            })
        };
        let shipment = Shipment {
            declared: Declared {
                id: StreamId {
                    namespace: namespace.into(),
                    job: "bert".into(),
                    uid: uid.into(),
                    attempt: 1,
                    rank: 0,
                    container: "trainer".into(),
                },
                origin: Origin::default(),
            },
            epoch: 1,
            segment: *seqs.start(),
            records: seqs.map(line).collect(),
        };
        self.lake.store(&shipment).await.unwrap();
    }

    /// The answer to somebody who asks the collector itself.
    async fn ask(&self, namespace: &str, token: Option<&str>) -> (u16, String) {
        let mut config = Config::new(format!("http://{}", self.address).parse().unwrap());
        config.auth_info.token = token.map(|token| token.to_owned().into());
        let client = Client::try_from(config).unwrap();
        let path = format!("/v1/namespaces/{namespace}/jobs/bert/logs?format=raw");
        let request = http_request(&path);
        let response = client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        let text = body.unwrap().to_bytes().to_vec();
        (status, String::from_utf8(text).unwrap())
    }

    /// A kubeconfig with a token alone, or the administrator's with a client certificate.
    fn kubeconfig(&self, token: Option<&str>) -> PathBuf {
        let mut config = Kubeconfig::read_from(support::kubeconfig_path()).unwrap();
        if let Some(token) = token {
            for user in &mut config.auth_infos {
                user.auth_info = Some(AuthInfo {
                    token: Some(token.to_owned().into()),
                    ..AuthInfo::default()
                });
            }
        }
        let name = format!("kubeconfig-{}", token.map_or(0, str::len));
        let path = self.dir.path().join(name);
        std::fs::write(&path, serde_saphyr::to_string(&config).unwrap()).unwrap();
        path
    }

    fn kubectl(&self, token: Option<&str>, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-trainyard"));
        command
            .env("KUBECONFIG", self.kubeconfig(token))
            .env_remove("TRAINYARD_STORE")
            .args(["--trainyard-namespace", &self.home])
            .args(args);
        command
    }
}

fn http_request(path: &str) -> ::http::Request<kube::client::Body> {
    let request = ::http::Request::get(path);
    request.body(kube::client::Body::empty()).unwrap()
}

/// Of this machine, as others reach it: the API server's proxy goes to no loopback address.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Sends nothing.
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_reads_its_own_logs_and_no_others() {
    let world = World::new().await;
    let (a, b) = (world.a.as_str(), world.b.as_str());
    world.store(a, "u-a", 1..=3).await;
    world.store(b, "u-b", 1..=3).await;
    let lines = |namespace: &str| {
        (1..=3)
            .map(|n| format!("{namespace} {n}\n"))
            .collect::<String>()
    };
    let (token_a, token_b) = (
        world.token(a, "reader").await,
        world.token(b, "reader").await,
    );

    assert_eq!(world.ask(a, Some(&token_a)).await, (200, lines(a)));
    assert_eq!(world.ask(b, Some(&token_b)).await, (200, lines(b)));
    let (code, text) = world.ask(b, Some(&token_a)).await;
    assert_eq!(code, 403, "{text}");
    let who = format!(
        "you are system:serviceaccount:{a}:reader, and you may not read logs in namespace {b}"
    );
    assert!(text.contains(&who), "{text}");
    // Signed, but its account is gone; and one that nobody signed.
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), b);
    accounts
        .delete("reader", &DeleteParams::default())
        .await
        .unwrap();
    let gone = || async {
        match world.ask(b, Some(&token_b)).await {
            (401, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    support::eventually(
        PATIENCE,
        "a token of an account that is gone to be refused",
        gone,
    )
    .await;
    assert_eq!(world.ask(b, Some("garbage")).await.0, 401);
    assert_eq!(world.ask(a, None).await.0, 401);

    // Through the API server's proxy, which keeps the Authorization header to itself.
    let raw = |namespace| ["-n", namespace, "logs", "bert", "-o", "raw"];
    let (code, out, error) = run(world.kubectl(Some(&token_a), &raw(a)));
    assert_eq!((code, out), (Some(0), lines(a)), "{error}");
    let (code, out, error) = run(world.kubectl(Some(&token_a), &raw(b)));
    assert_eq!((code, out), (Some(1), String::new()));
    assert!(error.contains(&who), "{error}");
    // An administrator with a certificate reads by a token of the account for that.
    let (code, out, error) = run(world.kubectl(None, &raw(a)));
    assert_eq!((code, out), (Some(0), lines(a)), "{error}");
    let (code, _, error) = run(world.kubectl(None, &raw(b)));
    assert_eq!(code, Some(1));
    assert!(error.contains("trainyard-log-reader"), "{error}");
    // It is told what is wrong before anybody is asked.
    let (code, _, error) = run(world.kubectl(None, &["logs", "bert", "--grep", "("]));
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_replaced_costs_a_follower_no_line_and_repeats_none() {
    let mut world = World::new().await;
    let a = world.a.clone();
    let jobs: Api<TrainingJob> = Api::namespaced(world.client.clone(), &a);
    let job = serde_json::from_value(json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "bert"},
        "spec": {"runtimeRef": {"name": "pytorch"}, "command": ["true"]},
    }));
    let job = jobs
        .create(&PostParams::default(), &job.unwrap())
        .await
        .unwrap();
    let uid = job.uid().unwrap();
    world.store(&a, &uid, 1..=3).await;
    let token = world.token(&a, "reader").await;
    let mut follower = world
        .kubectl(Some(&token), &["-n", &a, "logs", "bert", "-f", "-o", "raw"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let out = BufReader::new(follower.stdout.take().unwrap());
    std::thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    let mut came = Vec::new();
    for round in 1..=3 {
        while came.len() < round * 3 {
            let line = tokio::time::timeout(PATIENCE, lines.recv()).await;
            came.push(
                line.unwrap_or_else(|_| panic!("no line after {came:?}"))
                    .expect("it goes on"),
            );
        }
        world.running.cancel();
        world
            .store(&a, &uid, round as u64 * 3 + 1..=round as u64 * 3 + 3)
            .await;
        world.serve_again().await;
    }
    jobs.delete("bert", &DeleteParams::default()).await.unwrap();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.recv()).await.unwrap() {
        came.push(line);
    }
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    let expected: Vec<_> = (1..=12).map(|n| format!("{a} {n}")).collect();
    assert_eq!(came, expected);
}
