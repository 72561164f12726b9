//! A scripted fake of the API server's log endpoint with the kubelet behind it, spoken over real HTTP:
//! its status codes, its words, and every way in which an answer breaks.
//!
//! What it says is compared with what the real ones say in `tests/e2e/log_endpoint.rs`.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::files::{Asked, Files};

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Nothing.
    None,
    /// An answer instead of the log.
    Refused(Refusal),
    /// Instead of the log, or behind it, the kubelet says why it can't read it, as if it were the log.
    Words(&'static str),
    WordsBehind(&'static str),
    /// No answer: the connection is reset.
    Reset,
    /// So many bytes of the body, and then the answer breaks.
    Cut(usize, Break),
}

/// How an answer breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// It ends as if it were whole: that is what the API server makes of a connection to the kubelet
    /// that broke, and of the kubelet's limit of four hours.
    Ends,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Silence,
}

/// A status code and the Status object with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(pub u16, pub Value);

impl Refusal {
    fn new(code: u16, reason: &str, message: &str, details: &Value) -> Self {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "code": code,
        });
        for (key, value) in [("reason", json!(reason)), ("details", details.clone())] {
            if value.as_str() != Some("") && !value.is_null() {
                status[key] = value;
            }
        }
        Self(code, status)
    }

    /// The API server knows no such pod.
    pub fn no_pod(pod: &str) -> Self {
        let details = json!({"name": pod, "kind": "pods"});
        Self::new(
            404,
            "NotFound",
            &format!("pods \"{pod}\" not found"),
            &details,
        )
    }

    /// The kubelet does not know the pod (it was started a moment ago), or its container.
    pub fn unknown_to_kubelet(pod: &str) -> Self {
        let message = format!("the server could not find the requested resource ( pods/log {pod})");
        Self::new(
            404,
            "NotFound",
            &message,
            &json!({"name": pod, "kind": "pods/log"}),
        )
    }

    /// The container has not started.
    pub fn waiting(pod: &str, container: &str, reason: &str) -> Self {
        let message =
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}");
        Self::new(400, "BadRequest", &message, &Value::Null)
    }

    /// The API server can't reach the node.
    pub fn no_node() -> Self {
        let message = "Get \"https://10.88.0.1:10250/containerLogs/ml/p/c?follow=true\": dial tcp 10.88.0.1:10250: connect: connection refused";
        Self::new(500, "", message, &Value::Null)
    }

    /// The API server has enough to do.
    pub fn too_many() -> Self {
        let message = "too many requests, please try again later";
        let details = json!({"retryAfterSeconds": 1});
        Self::new(429, "TooManyRequests", message, &details)
    }
}

/// One container and its log.
#[derive(Debug, Default)]
pub struct Pod {
    files: watch::Sender<Files>,
    /// How often all connections were reset.
    resets: watch::Sender<u32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    troubles: VecDeque<Trouble>,
    /// What comes when those are through, until it is changed.
    always: Option<Trouble>,
    /// What was asked for, and what is being answered.
    asked: Vec<Asked>,
    open: usize,
}

impl Pod {
    /// Does something to its files.
    pub fn change(&self, change: impl FnOnce(&mut Files)) {
        self.files.send_modify(change);
    }

    /// Resets the connections of all answers that are on their way.
    pub fn reset(&self) {
        self.resets.send_modify(|n| *n += 1);
    }

    /// What goes wrong with the next requests, one after the other.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.state.lock().unwrap().troubles.extend(troubles);
    }

    /// What goes wrong with every request from now on, or no more.
    pub fn always(&self, trouble: Option<Trouble>) {
        self.state.lock().unwrap().always = trouble;
    }

    /// What was asked for.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How many answers are on their way.
    pub fn open(&self) -> usize {
        self.state.lock().unwrap().open
    }

    fn begin(&self, asked: Asked) -> Trouble {
        let mut state = self.state.lock().unwrap();
        state.asked.push(asked);
        state.open += 1;
        let always = state.always.clone();
        (state.troubles.pop_front())
            .or(always)
            .unwrap_or(Trouble::None)
    }
}

/// The endpoint.
#[derive(Clone)]
pub struct Kubelet {
    pub address: SocketAddr,
    pods: Arc<Mutex<HashMap<String, Arc<Pod>>>>,
}

/// A connection that can be reset.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Connection for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Kubelet {
    /// Listens, with TLS where there is an acceptor.
    pub async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubelet = Self {
            address: listener.local_addr().unwrap(),
            pods: Arc::default(),
        };
        let this = kubelet.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (this, tls) = (this.clone(), tls.clone());
                tokio::spawn(async move {
                    // A client that goes away is nothing to speak of.
                    let _ = match tls {
                        None => this.serve(tcp).await,
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => this.serve(stream).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        kubelet
    }

    /// A pod of that name, with one container.
    pub fn pod(&self, name: &str) -> Arc<Pod> {
        let mut pods = self.pods.lock().unwrap();
        pods.entry(name.to_owned()).or_default().clone()
    }

    async fn serve(&self, mut connection: impl Connection) -> io::Result<()> {
        let _ = connection.tcp().set_nodelay(true);
        let mut head = Vec::new();
        loop {
            head.clear();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await?);
            }
            let line = String::from_utf8_lossy(&head);
            let target = line.split(' ').nth(1).unwrap_or_default();
            let Some((pod, asked)) = parse(target) else {
                let refusal = Refusal::new(400, "BadRequest", target, &Value::Null);
                refuse(&mut connection, &refusal).await?;
                continue;
            };
            let pod = self.pod(&pod);
            let trouble = pod.begin(asked);
            let answered = answer(&mut connection, &pod, asked, trouble).await;
            pod.state.lock().unwrap().open -= 1;
            if !answered? {
                connection.tcp().set_zero_linger()?;
                return Ok(());
            }
        }
    }
}

/// The pod of a request, and what is asked for. None for anything that the collector has no need of:
/// `sinceTime` above all, by which lines are lost.
fn parse(target: &str) -> Option<(String, Asked)> {
    let (path, query) = target.split_once('?')?;
    let pod = path.strip_suffix("/log")?.rsplit('/').next()?.to_owned();
    let mut asked = Asked::default();
    let mut timestamps = false;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "" | "container" => {}
            "follow" => asked.follow = value == "true",
            "timestamps" => timestamps = value == "true",
            "tailLines" => asked.tail = Some(value.parse().ok()?),
            "limitBytes" => asked.limit = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    timestamps.then_some((pod, asked))
}

async fn refuse(to: &mut impl Connection, Refusal(code, body): &Refusal) -> io::Result<()> {
    let body = body.to_string();
    let later = if *code == 429 {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {code} No\r\nContent-Type: application/json\r\n{later}Content-Length: {}\r\n\r\n",
        body.len()
    );
    to.write_all(head.as_bytes()).await?;
    to.write_all(body.as_bytes()).await?;
    to.flush().await
}

/// Answers one request; false where the connection must be reset.
async fn answer(
    to: &mut impl Connection,
    pod: &Pod,
    asked: Asked,
    trouble: Trouble,
) -> io::Result<bool> {
    let (mut left, breaks) = match trouble {
        Trouble::Refused(refusal) => return refuse(to, &refusal).await.map(|()| true),
        Trouble::Reset => return Ok(false),
        Trouble::Cut(bytes, breaks) => (bytes, Some(breaks)),
        _ => (usize::MAX, None),
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    to.write_all(head.as_bytes()).await?;
    to.flush().await?;
    if let Trouble::Words(words) = trouble {
        chunk(to, words.as_bytes()).await?;
        return end(to).await;
    }
    let (mut changes, mut resets) = (pod.files.subscribe(), pod.resets.subscribe());
    let mut reading = changes.borrow_and_update().open(asked);
    loop {
        let block = reading.next(&changes.borrow_and_update());
        let Some(mut block) = block else { break };
        block.truncate(left);
        left -= block.len();
        chunk(to, &block).await?;
        if left == 0 {
            break;
        }
        if block.is_empty() {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                _ = resets.changed() => return Ok(false),
                // The client has gone: it sends nothing while it is answered.
                _ = to.read_u8() => return Ok(false),
            }
        }
    }
    if let Trouble::WordsBehind(words) = trouble {
        chunk(to, words.as_bytes()).await?;
    }
    match breaks.filter(|_| left == 0) {
        None | Some(Break::Ends) => end(to).await,
        Some(Break::Reset) => Ok(false),
        Some(Break::Silence) => {
            let _ = to.read_u8().await;
            Ok(false)
        }
    }
}

async fn chunk(to: &mut impl Connection, data: &[u8]) -> io::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    to.write_all(format!("{:x}\r\n", data.len()).as_bytes())
        .await?;
    to.write_all(data).await?;
    to.write_all(b"\r\n").await?;
    to.flush().await
}

async fn end(to: &mut impl Connection) -> io::Result<bool> {
    to.write_all(b"0\r\n\r\n").await?;
    to.flush().await?;
    Ok(true)
}
