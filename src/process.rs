//! What every component's process has in common: logging, the API client, shutdown, and the small
//! HTTP server with `/healthz`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use clap::{Args as ClapArgs, ValueEnum};
use kube::{Client, Config};
use prometheus_client::{encoding::text::encode, registry::Registry};
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Longest wait for the API server to answer one request that is not a watch or a log stream.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Flags of every component.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// How the component logs: text for people, json for machines.
    #[arg(
        long,
        global = true,
        env = "TRAINYARD_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// What is logged, for example info,trainyard=debug.
    #[arg(long, global = true, env = "TRAINYARD_LOG", default_value = "info")]
    pub log: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(
        long,
        global = true,
        env = "TRAINYARD_HTTP",
        default_value = "0.0.0.0:8080"
    )]
    pub http: SocketAddr,
}

/// Formats of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Why a component could not start.
#[derive(Debug, Error)]
pub enum Error {
    /// No usable way to the API server.
    #[error("no way to a Kubernetes API server: {0}; set KUBECONFIG or run in a pod")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The HTTP address is taken or not ours.
    #[error("can't listen on {address} for /healthz and /metrics: {source}; choose another --http")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Starts logging to standard error.
pub fn init_logging(args: &Args) {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A client from KUBECONFIG or the pod's service account.
///
/// # Errors
/// Where neither is there or usable.
pub async fn client() -> Result<Client, Error> {
    let config = Config::infer()
        .await
        .map_err(|e| Error::Config(Box::new(e)))?;
    Client::try_from(config).map_err(|e| Error::Config(Box::new(e)))
}

/// Longest wait for the beginning of any answer, a list's and a watch's too: a little more than the
/// API server itself gives a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(65);

/// The same client, but a request whose answer does not begin in time is an error. kube itself waits
/// as long as the connection seems to live, and a watch would never be tried again.
#[must_use]
pub fn impatient(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let client = client.clone();
        async move {
            let answer = timeout(ANSWER_TIMEOUT, client.send(request)).await;
            answer.unwrap_or_else(|late| Err(kube::Error::Service(Box::new(late))))
        }
    });
    Client::new(service, namespace)
}

/// A token that is cancelled by SIGTERM or SIGINT.
#[must_use]
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut term =
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(term) => term,
                Err(error) => {
                    tracing::error!("can't listen for SIGTERM: {error}");
                    return;
                }
            };
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("asked to stop: finishing what is under way");
        cancel.cancel();
    });
    token
}

/// Answers `/healthz` (the process lives), `/readyz` (`ready` says so) and `/metrics`.
///
/// # Errors
/// Where the address can't be listened on.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    ready: impl Fn() -> bool + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let state = Arc::new((
        registry,
        Box::new(ready) as Box<dyn Fn() -> bool + Send + Sync>,
    ));
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    tokio::spawn(async move {
        let done = shutdown.cancelled_owned();
        if let Err(error) = axum::serve(listener, app)
            .with_graceful_shutdown(done)
            .await
        {
            tracing::error!("the HTTP server on {address} ended: {error}");
        }
    });
    Ok(())
}

type Shared = Arc<(Registry, Box<dyn Fn() -> bool + Send + Sync>)>;

async fn readyz(State(state): State<Shared>) -> (StatusCode, &'static str) {
    if (state.1)() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(state): State<Shared>) -> Result<String, StatusCode> {
    let mut text = String::new();
    encode(&mut text, &state.0).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(text)
}
