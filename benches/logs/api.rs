//! As much of a Kubernetes API server as the candidates ask: the pods of one job on one node, their logs,
//! and who may read; over TLS, on loopback.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    path::Path as FilePath,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
    serve::Listener,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use crate::node::Log;

pub const CONTAINER: &str = "trainer";
const NODE: &str = "gpu-0";
const CERTIFICATE: &str = include_str!("../../tests/logs/tls/certificate.pem");
const KEY: &[u8] = include_bytes!("../../tests/logs/tls/key.pem");

/// What it shows.
pub struct Api {
    pub logs: Vec<watch::Sender<Log>>,
    pub exited: watch::Receiver<bool>,
    /// When the containers began.
    pub begin: Timestamp,
    /// Pods of which the collector says that all their lines are stored.
    pub complete: Mutex<BTreeSet<String>>,
}

type Shared = State<Arc<Api>>;
type Asked = Query<HashMap<String, String>>;

/// The name of a rank's pod.
pub fn pod(rank: usize) -> String {
    format!("bert-1-{rank}")
}

/// The id of its container.
pub fn id(rank: usize) -> String {
    format!("{rank:064x}")
}

/// Serves it in the background, and writes a kubeconfig into the folder.
pub async fn serve(api: Arc<Api>, folder: &FilePath) -> io::Result<()> {
    let certificate =
        CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(KEY).map_err(io::Error::other)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(io::Error::other)?;
    let listener = Tls {
        tcp: TcpListener::bind("127.0.0.1:0").await?,
        tls: TlsAcceptor::from(Arc::new(config)),
    };
    let address = listener.tcp.local_addr()?;
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, CERTIFICATE)?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": "ml"}}],
        "clusters": [{"name": "bench", "cluster": {
            "server": format!("https://localhost:{}", address.port()), "certificate-authority": authority}}],
        "users": [{"name": "bench", "user": {"token": "bench"}}],
    });
    std::fs::write(folder.join("kubeconfig"), config.to_string())?;
    tokio::spawn(async move { axum::serve(listener, router(api)).await });
    Ok(())
}

struct Tls {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            // A client that goes away is nothing to speak of.
            if let Ok((tcp, address)) = self.tcp.accept().await
                && tcp.set_nodelay(true).is_ok()
                && let Ok(stream) = self.tls.accept(tcp).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn router(api: Arc<Api>) -> Router {
    let named = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "1"}});
    let list = |kind: &str, item: Value| {
        let list = json!({"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": "1"}, "items": [item]});
        get(|| async { Json(list) })
    };
    let jobs = "/apis/trainyard.dev/v1alpha1";
    Router::new()
        .route("/api/v1/pods", get(pods))
        .route("/api/v1/namespaces/ml/pods", get(pods))
        .route("/api/v1/namespaces/ml/pods/{pod}/log", get(log))
        .route("/api/v1/namespaces/ml/pods/{pod}/status", patch(condition))
        .route("/api/v1/namespaces", list("NamespaceList", named("ml")))
        .route("/api/v1/nodes", list("NodeList", named(NODE)))
        .route(
            "/api/v1/nodes/gpu-0",
            get(move || async move { Json(named(NODE)) }),
        )
        .route(&format!("{jobs}/trainingjobs"), get(trainingjobs))
        .route(
            &format!("{jobs}/namespaces/ml/trainingjobs"),
            get(trainingjobs),
        )
        .route(
            &format!("{jobs}/namespaces/ml/trainingjobs/bert"),
            get(|| async { Json(job()) }),
        )
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            post(review),
        )
        .with_state(api)
}

/// Everybody may.
async fn review(Json(mut review): Json<Value>) -> (StatusCode, Json<Value>) {
    review["status"] =
        json!({"authenticated": true, "user": {"username": "bench"}, "allowed": true});
    (StatusCode::CREATED, Json(review))
}

fn job() -> Value {
    json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "bert", "namespace": "ml", "uid": "u", "resourceVersion": "1"},
        "spec": {"runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"]},
    })
}

async fn trainingjobs(Query(asked): Asked) -> Response {
    if asked.contains_key("watch") {
        return Body::from_stream(stream::pending::<io::Result<Bytes>>()).into_response();
    }
    Json(
        json!({"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJobList",
        "metadata": {"resourceVersion": "1"}, "items": [job()]}),
    )
    .into_response()
}

impl Api {
    fn pod(&self, rank: usize) -> Value {
        let exited = *self.exited.borrow();
        let (phase, state) = if exited {
            let state = json!({"terminated": {"exitCode": 0, "startedAt": self.begin.to_string()}});
            ("Succeeded", state)
        } else {
            (
                "Running",
                json!({"running": {"startedAt": self.begin.to_string()}}),
            )
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod(rank), "namespace": "ml", "uid": format!("uid-{rank}"),
                "resourceVersion": if exited { "2" } else { "1" },
                "labels": {
                    "trainyard.dev/job-name": "bert", "trainyard.dev/job-uid": "u",
                    "trainyard.dev/attempt": "1", "trainyard.dev/rank": rank.to_string(),
                }},
            "spec": {"nodeName": NODE, "containers": [{"name": CONTAINER, "image": "pytorch"}]},
            "status": {"phase": phase, "podIP": "10.88.0.2", "containerStatuses": [{
                "name": CONTAINER, "containerID": format!("containerd://{}", id(rank)), "image": "pytorch",
                "imageID": "", "ready": !exited, "restartCount": 0, "started": !exited, "state": state,
            }]},
        })
    }

    fn pods(&self) -> Vec<Value> {
        (0..self.logs.len()).map(|rank| self.pod(rank)).collect()
    }

    /// A watch's words that all pods are like this now.
    fn events(&self, kind: &str) -> Bytes {
        let event = |pod: Value| json!({"type": kind, "object": pod}).to_string() + "\n";
        self.pods()
            .into_iter()
            .map(event)
            .collect::<String>()
            .into()
    }
}

async fn pods(State(api): Shared, Query(asked): Asked) -> Response {
    if !asked.contains_key("watch") {
        return Json(json!({"apiVersion": "v1", "kind": "PodList",
            "metadata": {"resourceVersion": "1"}, "items": api.pods()}))
        .into_response();
    }
    let known = asked
        .get("resourceVersion")
        .is_some_and(|v| !v.is_empty() && v != "0");
    let mut first = if known {
        Bytes::new()
    } else {
        api.events("ADDED")
    }
    .to_vec();
    if asked.get("sendInitialEvents").is_some_and(|v| v == "true") {
        let bookmark = json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {
            "resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}}});
        first.extend(format!("{bookmark}\n").bytes());
    }
    let exit = async move {
        let _ = api.exited.clone().wait_for(|exited| *exited).await;
        api.events("MODIFIED")
    };
    let events = stream::once(async move { Bytes::from(first) })
        .chain(stream::once(exit))
        .chain(stream::pending());
    Body::from_stream(events.map(io::Result::Ok)).into_response()
}

async fn condition(
    State(api): Shared,
    Path(name): Path<String>,
    Json(patch): Json<Value>,
) -> Json<Value> {
    if patch["status"]["conditions"][0]["status"] == "True" {
        api.complete.lock().expect("no panic").insert(name.clone());
    }
    let rank = name.rsplit('-').next().and_then(|rank| rank.parse().ok());
    Json(api.pod(rank.unwrap_or(0)))
}

async fn log(State(api): Shared, Path(name): Path<String>, Query(asked): Asked) -> Response {
    let rank = name
        .rsplit('-')
        .next()
        .and_then(|rank| rank.parse::<usize>().ok());
    let Some(log) = rank.and_then(|rank| api.logs.get(rank)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let number = |name| asked.get(name).and_then(|n| n.parse().ok());
    let (block, from) = match number("tailLines") {
        Some(lines) => tail(&log.borrow().blocks, lines),
        None => (0, 0),
    };
    let reading = Reading {
        log: log.subscribe(),
        block,
        from,
        left: number("limitBytes").unwrap_or(usize::MAX),
        follow: asked.get("follow").is_some_and(|v| v == "true"),
    };
    Body::from_stream(reading.stream()).into_response()
}

/// Where the last lines begin.
fn tail(blocks: &[Bytes], lines: usize) -> (usize, usize) {
    let mut left = lines + 1;
    for (n, block) in blocks.iter().enumerate().rev() {
        for at in memchr::memrchr_iter(b'\n', block) {
            left -= 1;
            if left == 0 {
                return (n, at + 1);
            }
        }
    }
    (0, 0)
}

/// One answer.
struct Reading {
    log: watch::Receiver<Log>,
    block: usize,
    from: usize,
    left: usize,
    follow: bool,
}

impl Reading {
    fn stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold(self, |mut this| async move {
            while this.left > 0 {
                let (block, exited) = {
                    let log = this.log.borrow_and_update();
                    (log.blocks.get(this.block).cloned(), log.exited)
                };
                if let Some(mut block) = block {
                    let mut data = block.split_off(std::mem::take(&mut this.from));
                    data.truncate(this.left);
                    this.left -= data.len();
                    this.block += 1;
                    return Some((Ok(data), this));
                }
                if exited || !this.follow || this.log.changed().await.is_err() {
                    break;
                }
            }
            None
        })
    }
}
