//! An API server in memory: a tower service for `kube::Client`, over a [`Store`].
//!
//! One [`Connection`] for each operator process. It numbers the process's requests and does to them
//! what the test asks for: an error, no answer, a crash of the process; each before or after the
//! request is carried out. Watches can lag and can be cut.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::jiff::{Timestamp, ToSpan};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    auditor::Auditor,
    requests::{Asked, Fault, Weather, When, form},
    store::{Key, Refused, Store},
};

#[derive(Default)]
pub struct State {
    pub store: Store,
    pub auditor: Auditor,
    /// One line a request, and what else happened.
    pub log: Vec<String>,
    /// Requests that change something of the operator's own accord and were carried out.
    pub writes: usize,
}

/// The server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    cut: Arc<watch::Sender<u64>>,
    begin: Instant,
}

impl ApiServer {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            cut: Arc::new(watch::Sender::new(0)),
            begin: Instant::now(),
        }
    }

    /// The time of this world.
    pub fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.begin.elapsed().as_millis()).unwrap_or(0);
        // Not on a whole second, which Kubernetes' times are.
        Timestamp::UNIX_EPOCH + (1_767_225_600_300 + passed).milliseconds()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the store, which the watches then see.
    pub fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut state = self.state();
        let result = act(&mut state.store);
        let version = state.store.version();
        drop(state);
        self.changed.send_replace(version);
        result
    }

    /// Looks at the store, of which nobody is told.
    pub fn with_quietly<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.state().store)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Ends all watches; with `compact`, they can't go on where they were and have to list anew.
    pub fn cut_watches(&self, compact: bool) {
        self.note(format!(
            "all watches are cut{}",
            if compact {
                " and the history is gone"
            } else {
                ""
            }
        ));
        if compact {
            self.with(|store| store.compacted = store.version());
        }
        self.cut.send_modify(|n| *n += 1);
    }

    /// `kubectl delete pods --all`
    pub fn delete_pods(&self) {
        let now = self.now();
        self.with(|store| {
            let pods: Vec<Key> = store.list("pods", "").map(|(key, _)| key.clone()).collect();
            for pod in pods {
                let _ = store.delete(&pod, None, now);
            }
        });
    }

    pub fn note(&self, text: impl std::fmt::Display) {
        let at = self.begin.elapsed().as_secs_f64();
        self.state().log.push(format!("{at:8.2} s  {text}"));
    }

    /// A client for process number `process`, and the process's end.
    pub fn connect(&self, process: usize, weather: Weather) -> (Client, Arc<Process>) {
        let process = Arc::new(Process {
            number: process,
            weather,
            requests: Mutex::new(0),
            dead: watch::Sender::new(false),
        });
        let connection = Connection {
            server: self.clone(),
            process: process.clone(),
        };
        (Client::new(connection, "default"), process)
    }

    fn carry_out(&self, asked: &Asked, body: &Value, late: bool) -> Result<Value, Refused> {
        let now = self.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let (store, key) = (&mut state.store, &asked.key);
        let answer = match asked.verb {
            "get" => store.get(key).cloned().ok_or_else(|| not_found(key)),
            "list" => Ok(list(store, key, body["labelSelector"].as_str())),
            "create" => {
                let free = store.get(key).is_none();
                if key.resource == "pods" && free {
                    state.auditor.pod_created(store, body, late);
                }
                store.create(key, body.clone(), now)
            }
            "update" => {
                let old = store
                    .get(key)
                    .map(|o| o["metadata"]["resourceVersion"].clone());
                if old.is_some_and(|v| v == body["metadata"]["resourceVersion"]) {
                    state.auditor.status_written(store, key, &body["status"]);
                }
                store.replace_status(key, body)
            }
            "patch" => {
                if body["spec"].is_null() {
                    let uid = &body["metadata"]["uid"];
                    state.auditor.pod_released(store, key, uid, now);
                }
                store.patch_pod(key, body)
            }
            "delete" => store.delete(key, body["preconditions"]["uid"].as_str(), now),
            _ => Err(not_found(key)),
        };
        // A pod is let go because someone has deleted it.
        state.writes += usize::from(asked.writes() && asked.verb != "patch");
        let version = store.version();
        drop(guard);
        self.changed.send_replace(version);
        answer
    }

    fn watch(
        &self,
        key: &Key,
        selector: Option<String>,
        from: u64,
        lag: Duration,
        limit: Duration,
    ) -> BodyStream {
        let begin = self
            .state()
            .store
            .history
            .partition_point(|c| c.version <= from);
        if from < self.state().store.compacted {
            let gone = status(410, "Expired", "too old resource version");
            return once(json!({"type": "ERROR", "object": gone}), "\n");
        }
        let end = Instant::now() + limit;
        let (server, key) = (self.clone(), key.clone());
        let (changed, cut) = (self.changed.subscribe(), self.cut.subscribe());
        stream::unfold(
            (begin, changed, cut),
            move |(mut next, mut changed, mut cut)| {
                let (server, key, selector) = (server.clone(), key.clone(), selector.clone());
                async move {
                    loop {
                        changed.mark_unchanged();
                        let found = server.with_quietly(|store| {
                            let mut ours = store.history.iter().skip(next).filter(|c| {
                                c.key.resource == key.resource
                                    && (key.namespace.is_empty()
                                        || c.key.namespace == key.namespace)
                                    && selected(&c.object, selector.as_deref())
                            });
                            let change = ours.next().cloned();
                            let seen = change.as_ref().map_or(store.version(), |c| c.version);
                            next = store.history.partition_point(|c| c.version <= seen);
                            change
                        });
                        let wait = async {
                            match &found {
                                Some(change) => sleep_until(change.at + lag).await,
                                None => drop(changed.changed().await),
                            }
                        };
                        tokio::select! {
                            biased;
                            _ = cut.changed() => return None,
                            () = sleep_until(end) => return None,
                            () = wait => {}
                        }
                        if let Some(change) = found {
                            let event = json!({"type": change.kind, "object": &*change.object});
                            let line = Frame::data(Bytes::from(format!("{event}\n")));
                            return Some((Ok(line), (next, changed, cut)));
                        }
                    }
                }
            },
        )
        .boxed()
    }
}

/// One process of the operator.
pub struct Process {
    pub number: usize,
    weather: Weather,
    requests: Mutex<usize>,
    dead: watch::Sender<bool>,
}

impl Process {
    /// Nothing that the process sends from now on reaches the server.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Waits for the crash that a fault asks for.
    pub async fn crashed(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    pub fn requests(&self) -> usize {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> usize {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests += 1;
        *requests
    }
}

#[derive(Clone)]
struct Connection {
    server: ApiServer,
    process: Arc<Process>,
}

type BodyStream = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;
type Reply = Response<StreamBody<BodyStream>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Request<Body>> for Connection {
    type Response = Reply;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().answer(request).boxed()
    }
}

impl Connection {
    async fn answer(self, request: Request<Body>) -> Result<Reply, BoxError> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        if *self.process.dead.borrow() {
            return pending().await;
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let query: BTreeMap<String, String> = form(parts.uri.query().unwrap_or_default());
        let asked = Asked::of(
            &parts.method,
            parts.uri.path(),
            &query,
            &body,
            self.process.next(),
        );
        let fault = (self.process.weather.faults)(&asked);
        if let Some((When::Before, fault)) = fault {
            self.log(&asked, format!("{fault:?} before"));
            if let Some(end) = self.fail(fault, &asked, &body).await {
                return end;
            }
        }
        let response = if asked.verb == "watch" {
            let from = query
                .get("resourceVersion")
                .and_then(|v| v.parse().ok())
                .unwrap_or(0);
            let limit = query
                .get("timeoutSeconds")
                .and_then(|v| v.parse().ok())
                .unwrap_or(290);
            let lag = self
                .process
                .weather
                .lag
                .get(asked.key.resource.as_str())
                .copied()
                .unwrap_or_default();
            let selector = query.get("labelSelector").cloned();
            self.log(&asked, "200");
            (
                200,
                self.server
                    .watch(&asked.key, selector, from, lag, Duration::from_secs(limit)),
            )
        } else {
            let body = if asked.verb == "list" {
                json!(query)
            } else {
                body.clone()
            };
            let answer = self.server.carry_out(&asked, &body, false);
            let (code, value) = match answer {
                Ok(value) if asked.verb == "create" => (201, value),
                Ok(value) => (200, value),
                Err(no) => (no.code, status(no.code, no.reason, &no.message)),
            };
            self.log(&asked, code);
            (code, once(value, ""))
        };
        if let Some((When::After, fault)) = fault {
            self.log(&asked, format!("{fault:?} after"));
            if let Some(end) = self.fail(fault, &asked, &body).await {
                return end;
            }
        }
        reply(response.0, response.1)
    }

    /// What the process gets instead of an answer; None where it gets its answer all the same.
    async fn fail(
        &self,
        fault: Fault,
        asked: &Asked,
        body: &Value,
    ) -> Option<Result<Reply, BoxError>> {
        match fault {
            Fault::Error => Some(reply(
                500,
                once(status(500, "InternalError", "injected"), ""),
            )),
            Fault::Reset => Some(Err("connection reset by peer".into())),
            Fault::Hang => pending().await,
            Fault::CutWatches(compact) => {
                self.server.cut_watches(compact);
                None
            }
            Fault::DeletePods => {
                self.server.delete_pods();
                None
            }
            Fault::ResetAndDeletePods => {
                self.server.delete_pods();
                Some(Err("connection reset by peer".into()))
            }
            Fault::Crash | Fault::CrashAndDeletePods => {
                if fault == Fault::CrashAndDeletePods {
                    self.server.delete_pods();
                }
                self.process.kill();
                pending().await
            }
            Fault::CrashThenArrive(after) => {
                self.process.kill();
                let (this, asked, body) = (self.clone(), asked.clone(), body.clone());
                tokio::spawn(async move {
                    sleep(after).await;
                    let result = this.server.carry_out(&asked, &body, true);
                    let code = result.map_or_else(|no| no.code, |_| 200);
                    this.log(&asked, format!("{code}, late"));
                });
                pending().await
            }
        }
    }

    fn log(&self, asked: &Asked, what: impl std::fmt::Display) {
        let Key {
            resource,
            namespace,
            name,
        } = &asked.key;
        let sub = if asked.status { "/status" } else { "" };
        let (process, number) = (self.process.number, asked.number);
        self.server.note(format!(
            "operator {process} #{number} {} {resource}{sub} {namespace}/{name} → {what}",
            asked.verb
        ));
    }
}

fn list(store: &Store, key: &Key, selector: Option<&str>) -> Value {
    let items: Vec<&Value> = store
        .list(&key.resource, &key.namespace)
        .map(|(_, object)| object)
        .filter(|object| selected(object, selector))
        .collect();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": store.version().to_string()}, "items": items})
}

/// Selectors of the form `key`, which is all that the operator uses.
fn selected(object: &Value, selector: Option<&str>) -> bool {
    selector.is_none_or(|key| object["metadata"]["labels"][key].is_string())
}

fn not_found(key: &Key) -> Refused {
    Refused {
        code: 404,
        reason: "NotFound",
        message: format!("{} \"{}\" not found", key.resource, key.name),
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn once(value: Value, end: &str) -> BodyStream {
    let frame = Frame::data(Bytes::from(format!("{value}{end}")));
    stream::once(async { Ok(frame) }).boxed()
}

fn reply(code: u16, body: BodyStream) -> Result<Reply, BoxError> {
    let builder = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    Ok(builder.body(StreamBody::new(body))?)
}
