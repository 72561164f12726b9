//! The way to the cluster: the caller's own kubeconfig, and through the API server's service proxy
//! to the collector, so that nobody needs a port-forward and everyone has only their own rights.

use std::fmt::Write as _;

use clap::Args as ClapArgs;
use futures::{AsyncBufRead, TryStreamExt};
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;
use tokio::time::timeout;

use super::token;
use crate::{logs::http::access::TOKEN_HEADER, process::REQUEST_TIMEOUT};

/// Where trainyard is looked for first, and the only place where the caller may list no Services.
const DEFAULT_NAMESPACE: &str = "trainyard";
/// Name of the chart's Service where it can't be looked up.
const DEFAULT_SERVICE: &str = "trainyard-collector";
const SELECTOR: &str = "app.kubernetes.io/name=trainyard,app.kubernetes.io/component=collector";
/// Name of the Service's port for stored lines.
const PORT: &str = "logs";
/// The longest error text that is printed.
const MAX_ERROR: usize = 4096;

/// Flags of every command.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Namespace of the job; by default that of the kubeconfig's context.
    #[arg(short, long, global = true, value_parser = name)]
    namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace in which trainyard is installed; by default it is looked for.
    #[arg(
        long,
        global = true,
        env = "TRAINYARD_RELEASE_NAMESPACE",
        value_name = "NAMESPACE",
        value_parser = name
    )]
    trainyard_namespace: Option<String>,
}

/// A name as Kubernetes has them, which is also safe in a URL.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if text.bytes().all(fine) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("a name is made of lower-case letters, digits and '-'".into())
    }
}

/// Why the cluster or the collector could not be reached.
#[derive(Debug, Error)]
pub enum Error {
    /// No kubeconfig.
    #[error("no way to a cluster: {0}; set KUBECONFIG, or choose another --context")]
    Config(String),
    /// The API server.
    #[error("the cluster does not answer: {0}; try kubectl version")]
    Api(String),
    /// Nothing found.
    #[error(
        "no trainyard collector was found{0}, so nobody can say what was logged; give its namespace as --trainyard-namespace, or ask your platform team whether it is installed"
    )]
    NoCollector(String),
    /// The collector's Service has no working pod.
    #[error(
        "the collector ({service} in namespace {namespace}) can't be reached: {why}; see kubectl get pods -n {namespace} -l app.kubernetes.io/component=collector"
    )]
    Unreachable {
        /// The Service.
        service: String,
        /// Its namespace.
        namespace: String,
        /// Why not.
        why: String,
    },
    /// The caller's rights.
    #[error(
        "you may not come to the collector: {why}; ask for the right to get services/proxy of {service}:logs in namespace {namespace} (the chart's collector.readers)"
    )]
    Forbidden {
        /// The Service.
        service: String,
        /// Its namespace.
        namespace: String,
        /// What the API server said.
        why: String,
    },
    /// The caller's token.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// What the collector answered, and will answer again.
    #[error("{0}")]
    Refused(String),
    /// What the collector answered, for the moment.
    #[error("{0}")]
    Busy(String),
}

impl Error {
    /// Whether the same request may succeed in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Api(_) | Self::Busy(_)
        )
    }
}

/// The caller's cluster.
pub struct Cluster {
    /// Its client; it does not try again by itself, so that an error is told at once.
    pub client: Client,
    /// Namespace of the job.
    pub namespace: String,
    config: Config,
    trainyard: Option<String>,
}

impl Args {
    /// The namespace that was given, for commands that need no cluster.
    #[must_use]
    pub fn given_namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Where there is no usable kubeconfig.
    pub async fn cluster(&self) -> Result<Cluster, Error> {
        let failed = |e: &dyn std::error::Error| Error::Config(chain(e));
        let mut config = if self.context.is_some() {
            let options = KubeConfigOptions {
                context: self.context.clone(),
                ..KubeConfigOptions::default()
            };
            let kubeconfig = Kubeconfig::read().map_err(|e| failed(&e))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|e| failed(&e))?
        } else {
            Config::infer().await.map_err(|e| failed(&e))?
        };
        config.default_retry = false;
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        Ok(Cluster {
            client: Client::try_from(config.clone()).map_err(|e| failed(&e))?,
            namespace,
            config,
            trainyard: self.trainyard_namespace.clone(),
        })
    }
}

impl Cluster {
    /// Namespace and name of the collector's Service.
    async fn collector(&self) -> Result<(String, String), Error> {
        let first = self.trainyard.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        match self
            .services(Api::namespaced(self.client.clone(), first))
            .await?
        {
            Some(Some(found)) => return Ok(found),
            Some(None) => {}
            // Whoever may use the proxy need not be allowed to list.
            None => return Ok((first.to_owned(), DEFAULT_SERVICE.to_owned())),
        }
        if self.trainyard.is_none() {
            match self.services(Api::all(self.client.clone())).await? {
                Some(Some(found)) => return Ok(found),
                Some(None) => return Err(Error::NoCollector(" in any namespace".into())),
                None => {}
            }
        }
        Err(Error::NoCollector(format!(" in namespace {first}")))
    }

    /// None where listing is forbidden.
    #[allow(clippy::option_option)]
    async fn services(
        &self,
        services: Api<Service>,
    ) -> Result<Option<Option<(String, String)>>, Error> {
        let params = ListParams::default().labels(SELECTOR).limit(10);
        match timeout(REQUEST_TIMEOUT, services.list(&params)).await {
            Ok(Ok(list)) => {
                Ok(Some(list.items.first().map(|s| {
                    (s.namespace().unwrap_or_default(), s.name_any())
                })))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Ok(None),
            Ok(Err(error)) => Err(Error::Api(chain(&error))),
            Err(_) => Err(Error::Api(no_answer())),
        }
    }

    /// Asks the collector. `path` and what follows come after the Service's own address.
    ///
    /// # Errors
    /// Where it can't be found or reached, or refuses.
    pub async fn ask(&self, path: &str) -> Result<impl AsyncBufRead + Unpin + use<>, Error> {
        let (namespace, service) = self.collector().await?;
        let uri = format!("/api/v1/namespaces/{namespace}/services/{service}:{PORT}/proxy{path}");
        let token = match token::own(&self.config).await? {
            Some(token) => token,
            None => token::made(&self.client, &namespace, &reader(&service)).await?,
        };
        let request = Request::get(uri)
            .header(TOKEN_HEADER, token)
            .body(Body::empty())
            .map_err(|e| Error::Api(chain(&e)))?;
        let unreachable = |why| Error::Unreachable {
            service: service.clone(),
            namespace: namespace.clone(),
            why,
        };
        // Only the answer is waited for with a limit; the lines behind it may come for days.
        let response = timeout(REQUEST_TIMEOUT, self.client.send(request))
            .await
            .map_err(|_| unreachable(no_answer()))?
            .map_err(|e| Error::Api(chain(&e)))?;
        let status = response.status();
        let body = axum::body::Body::new(response.into_body())
            .into_data_stream()
            .map_err(std::io::Error::other)
            .into_async_read();
        if status.is_success() {
            return Ok(body);
        }
        let (why, by_api_server) = read_error(body).await;
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED if by_api_server => Error::Forbidden {
                service,
                namespace,
                why,
            },
            StatusCode::NOT_FOUND if by_api_server => {
                Error::NoCollector(format!(" ({why}, namespace {namespace})"))
            }
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => unreachable(why),
            _ if by_api_server || why.contains("trying to reach service") => unreachable(why),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Error::Busy(why),
            _ => Error::Refused(why),
        })
    }
}

/// Name of the chart's ServiceAccount for reading logs, by that of the collector's Service.
fn reader(service: &str) -> String {
    let release = service.strip_suffix("-collector").unwrap_or(service);
    format!("{release}-log-reader")
}

/// The text of an error, and whether the API server said it rather than the collector.
async fn read_error(body: impl AsyncBufRead + Unpin) -> (String, bool) {
    use futures::AsyncReadExt;
    let mut bytes = Vec::new();
    let mut body = body.take(MAX_ERROR as u64);
    let _ = timeout(REQUEST_TIMEOUT, body.read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes);
    let message = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .filter(|status| status["kind"] == "Status")
        .and_then(|status| status["message"].as_str().map(str::to_owned));
    let by_api_server = message.is_some();
    (
        message.unwrap_or_else(|| text.trim().to_owned()),
        by_api_server,
    )
}

fn no_answer() -> String {
    format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())
}

/// An error with its causes, in one sentence.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors print their cause themselves.
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}
