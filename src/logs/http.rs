//! Reading back over HTTP, for people whose machine does not have the store:
//! `GET /v1/namespaces/{namespace}/jobs/{job}/logs?attempt=&rank=&follow=` answers with the lines in
//! the uniform format, and with a sentence for a person where there are none.
//!
//! Every request is checked against the caller's own rights ([`access`]).

pub mod access;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use kube::Client;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::access::Access;
use super::{
    job,
    read::{self, Attempts, Error, Selection},
    store::Store,
};
use crate::process;

/// Readers at a time; each may hold a few MiB.
const MAX_READERS: usize = 64;

/// The parameters of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// A number, `all`, or `newest` (default).
    pub attempt: Option<String>,
    /// One rank; all by default.
    pub rank: Option<u32>,
    /// Whether to go on until the job has ended.
    pub follow: bool,
}

impl Parameters {
    fn selection(&self) -> Result<Selection, String> {
        Ok(Selection {
            attempts: match self.attempt.as_deref() {
                None | Some("") => Attempts::Newest,
                Some(text) => text.parse()?,
            },
            rank: self.rank,
            follow: self.follow,
        })
    }
}

/// The path and query that ask for `selection` of a job's lines.
#[must_use]
pub fn path(namespace: &str, job: &str, selection: &Selection) -> String {
    let rank = selection
        .rank
        .map(|rank| format!("&rank={rank}"))
        .unwrap_or_default();
    format!(
        "/v1/namespaces/{namespace}/jobs/{job}/logs?attempt={}&follow={}{rank}",
        selection.attempts, selection.follow
    )
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
    let app = Router::new()
        .route("/v1/namespaces/{namespace}/jobs/{job}/logs", get(logs))
        .with_state(Shared {
            store,
            access: Access::new(client.clone()),
            client,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            shutdown: shutdown.clone(),
        });
    tokio::spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!("the server of logs on {address} ended: {error}");
        }
    });
    Ok(address)
}

async fn logs(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    if let Err(denied) = shared.access.check(&headers, &namespace).await {
        return (denied.status(), format!("{denied}\n")).into_response();
    }
    let selection = match parameters.selection() {
        Ok(selection) => selection,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    let Ok(permit) = shared.readers.clone().try_acquire_owned() else {
        let why = format!("{MAX_READERS} readers are reading already; try again in a moment\n");
        return (StatusCode::TOO_MANY_REQUESTS, why).into_response();
    };
    let opened = job::open(
        shared.store.clone(),
        Some(&shared.client),
        &namespace,
        &name,
        selection,
    );
    let (reader, job) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let status = match error {
                Error::Store { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::NOT_FOUND,
            };
            return (status, format!("{error}\n")).into_response();
        }
    };
    // One block on its way, so that a slow reader holds up nothing but itself.
    let (out, blocks) = mpsc::channel(1);
    let ended = selection.follow.then(|| job::ended(shared.client, job));
    let stop = shared.shutdown;
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            result = read::send(reader, ended, out.clone()) => if let Err(error) = result {
                tracing::warn!("{error}");
                // An error in the body breaks the connection: half an answer must not look whole.
                let _ = out.send(Err(error)).await;
            },
            () = stop.cancelled() => {
                let _ = out.send(Err(Error::Stopping)).await;
            }
        }
    });
    let body = futures::stream::unfold(blocks, |mut blocks| async {
        blocks.recv().await.map(|block| (block, blocks))
    });
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from_stream(body.boxed()),
    )
        .into_response()
}
