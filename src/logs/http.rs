//! The HTTP API of the stored logs: a job's lines, how complete they are, the job itself as it was, and the
//! document and page that describe all this ([`openapi`]).
//!
//! What is asked for is in the URL ([`parameters`]). Every question about a job is first checked against
//! the caller's own rights ([`access`]): there is no other way in. Errors are sentences for people.

pub mod access;
pub mod blocks;
mod openapi;
pub mod parameters;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::{access::Access, parameters::Parameters};
use super::{
    archive, job, layout,
    read::{self, Answer, Attempts, Block, Error, Selection, Shape, completeness},
    store::Store,
};
use crate::{api::TrainingJob, process};

/// Where a job's lines are.
pub const LOGS: &str = "/v1/namespaces/{namespace}/jobs/{job}/logs";
/// Where it is said how complete they are.
pub const COMPLETENESS: &str = "/v1/namespaces/{namespace}/jobs/{job}/completeness";
/// Where a job is as it was when it was stored last.
pub const JOB: &str = "/v1/namespaces/{namespace}/jobs/{job}";
/// In the answer to a question with a limit: what goes on after it.
pub const CURSOR_HEADER: &str = "trainyard-cursor";

/// Readers at a time; each may hold a few MiB.
const MAX_READERS: usize = 64;
/// Bytes after which an answer with a limit ends, whatever the limit.
const MAX_LIMITED: usize = 8 * 1024 * 1024;

/// The parameters of [`COMPLETENESS`].
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompletenessParameters {
    /// Which attempt: its number, `all` (default), or `newest`.
    pub attempt: Option<String>,
}

/// The path that asks for a job itself.
#[must_use]
pub fn job_path(namespace: &str, job: &str) -> String {
    JOB.replace("{namespace}", namespace).replace("{job}", job)
}

/// The path and query that ask for the logs of a job.
#[must_use]
pub fn path(namespace: &str, job: &str, parameters: &Parameters) -> String {
    let path = LOGS.replace("{namespace}", namespace).replace("{job}", job);
    format!("{path}?{}", parameters.query())
}

#[derive(Clone)]
struct Shared {
    store: Store,
    client: Client,
    access: Access,
    readers: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Serves the lines in `store` at `address` until `shutdown`.
///
/// # Errors
/// Where the address can't be listened on.
pub async fn serve(
    address: SocketAddr,
    store: Store,
    client: Client,
    shutdown: CancellationToken,
) -> Result<SocketAddr, process::Error> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| process::Error::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    let app = app(store, client, shutdown.clone());
    tokio::spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!("the server of logs on {address} ended: {error}");
        }
    });
    Ok(address)
}

fn app(store: Store, client: Client, shutdown: CancellationToken) -> Router {
    Router::new()
        .route(LOGS, get(logs))
        .route(COMPLETENESS, get(complete))
        .route(JOB, get(recalled))
        .route(
            openapi::DOCUMENT,
            get(|| async { Json(openapi::document()) }),
        )
        .route(openapi::PAGE, get(|| async { Html(openapi::page()) }))
        .with_state(Shared {
            store,
            access: Access::new(client.clone()),
            client,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            shutdown,
        })
}

/// Why there is no answer: a status, and a sentence.
type Refusal = (StatusCode, String);

fn refuse(status: StatusCode, why: impl std::fmt::Display) -> Refusal {
    (status, format!("{why}\n"))
}

fn unreadable(error: &Error) -> Refusal {
    let status = match error {
        Error::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Error::LongTail { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::NOT_FOUND,
    };
    refuse(status, error)
}

impl Shared {
    /// Lets in who may read in the namespace, one of not too many at a time.
    async fn admit(
        &self,
        path: Result<Path<(String, String)>, PathRejection>,
        headers: &HeaderMap,
    ) -> Result<(String, String, OwnedSemaphorePermit), Refusal> {
        let Path((namespace, name)) = path.map_err(|e| refuse(e.status(), e.body_text()))?;
        if !layout::is_name(&namespace) || !layout::is_name(&name) {
            let why = "this is no name of a namespace and a job";
            return Err(refuse(StatusCode::BAD_REQUEST, why));
        }
        let checked = self.access.check(headers, &namespace).await;
        checked.map_err(|denied| refuse(denied.status(), denied))?;
        let permit = self.readers.clone().try_acquire_owned().map_err(|_| {
            let why = format!("{MAX_READERS} readers are reading already; try again in a moment");
            refuse(StatusCode::TOO_MANY_REQUESTS, why)
        })?;
        Ok((namespace, name, permit))
    }
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    let query = query.map_err(|e| refuse(e.status(), e.body_text()))?;
    Ok(query.0)
}

async fn complete(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<CompletenessParameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<completeness::Completeness>, Refusal> {
    let (namespace, name, _permit) = shared.admit(path, &headers).await?;
    let attempts = match asked(query)?.attempt.as_deref() {
        None | Some("") => Attempts::All,
        Some(text) => (text.parse()).map_err(|e: String| refuse(StatusCode::BAD_REQUEST, e))?,
    };
    let found = async {
        let client = Some(&shared.client);
        let (job, _) = job::find(&shared.store, client, &namespace, &name).await?;
        completeness::completeness(&shared.store, &job, attempts).await
    };
    found.await.map(Json).map_err(|e| unreadable(&e))
}

async fn recalled(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<TrainingJob>, Refusal> {
    let (namespace, name, _permit) = shared.admit(path, &headers).await?;
    match archive::recall(&shared.store.lake, &namespace, &name).await {
        Ok(Some(job)) => Ok(Json(job)),
        Ok(None) => Err(refuse(
            StatusCode::NOT_FOUND,
            archive::nothing(&namespace, &name),
        )),
        Err(error) => Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

async fn logs(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (namespace, name, permit) = shared.admit(path, &headers).await?;
    let parameters = asked(query)?;
    let (selection, shape) = parameters
        .meaning(Timestamp::now())
        .map_err(|why| refuse(StatusCode::BAD_REQUEST, why))?;
    let follow = selection.follow;
    let opened = open(&shared, &namespace, &name, selection, shape).await;
    let (answer, job) = opened.map_err(|e| unreadable(&e))?;
    let in_blocks = parameters.blocks.unwrap_or(false);
    if shape.limit.is_some() && !in_blocks {
        return limited(answer, shape).await.map_err(|e| unreadable(&e));
    }
    let ended = follow.then(|| job::ended(shared.client, job));
    let (out, sent) = mpsc::channel(1);
    let stop = shared.shutdown;
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            result = answer.send(ended, out.clone()) => if let Err(error) = result {
                tracing::warn!("{error}");
                // An error in the body breaks the connection: half an answer must not look whole.
                let _ = out.send(Err(error)).await;
            },
            () = stop.cancelled() => {
                let _ = out.send(Err(Error::Stopping)).await;
            }
        }
    });
    Ok(stream(sent, shape, in_blocks))
}

async fn open(
    shared: &Shared,
    namespace: &str,
    name: &str,
    selection: Selection,
    shape: Shape,
) -> Result<(Answer, read::Job), Error> {
    let (store, client) = (shared.store.clone(), Some(&shared.client));
    let (reader, job) = job::open(store, client, namespace, name, selection).await?;
    Ok((Answer::new(reader, shape), job))
}

/// The whole answer, with the cursor in its header.
async fn limited(mut answer: Answer, shape: Shape) -> Result<Response, Error> {
    let mut data = Vec::new();
    let mut cursor = answer.last_block().cursor;
    while data.len() < MAX_LIMITED
        && let Some(block) = answer.next_block().await?
    {
        data.extend(block.data);
        cursor = block.cursor;
    }
    let headers = [
        (
            header::CONTENT_TYPE.as_str(),
            shape.format.content_type().to_owned(),
        ),
        (CURSOR_HEADER, cursor.to_string()),
    ];
    Ok((headers, data).into_response())
}

/// An answer as it comes.
fn stream(sent: mpsc::Receiver<Result<Block, Error>>, shape: Shape, in_blocks: bool) -> Response {
    let body = futures::stream::unfold(sent, |mut sent| async {
        sent.recv().await.map(|block| (block, sent))
    });
    let body = body.map(move |block| {
        block.map(|block| {
            if in_blocks {
                blocks::encode(block)
            } else {
                block.data
            }
        })
    });
    let content_type = if in_blocks {
        "application/x-trainyard-blocks"
    } else {
        shape.format.content_type()
    };
    (
        [(header::CONTENT_TYPE, content_type)],
        Body::from_stream(body),
    )
        .into_response()
}
