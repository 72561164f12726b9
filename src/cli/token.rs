//! The caller's token, which shows the collector who asks.
//!
//! A kubeconfig with a token, a token file or a plugin has one: it is what the API server gets too. One
//! with a client certificate has none, and neither has a plugin that brings one: then a token is asked
//! for of the chart's ServiceAccount for reading logs, which only administrators of trainyard's
//! namespace may do. That one is good for ten minutes, and for the collector alone.

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    client::{Body, ConfigExt},
};
use thiserror::Error;
use tokio::time::timeout;
use tower::{BoxError, Layer, ServiceExt};

use crate::{logs::http::access::AUDIENCE, process::REQUEST_TIMEOUT};

/// The shortest life that the API server gives a token.
const LIFE_SECONDS: i64 = 600;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum Error {
    /// The kubeconfig's way to one failed.
    #[error("your kubeconfig's way to a token failed: {0}; try kubectl auth whoami")]
    Own(String),
    /// There is none, and none was given.
    #[error(
        "your kubeconfig logs in without a token, and the collector needs one to know who you are; \
         asking for one of ServiceAccount {account} in namespace {namespace}, which administrators of trainyard may do, failed: {why}; \
         use a kubeconfig with a token, such as one from kubectl create token"
    )]
    NotMade {
        /// The account.
        account: String,
        /// Its namespace.
        namespace: String,
        /// Why not.
        why: String,
    },
}

/// The caller's own token; None where the kubeconfig has none. Each call makes a fresh one where a plugin
/// makes them.
///
/// # Errors
/// Where it should have one.
pub async fn own(config: &Config) -> Result<Option<HeaderValue>, Error> {
    let failed = |why: &dyn std::error::Error| Error::Own(super::cluster::chain(why));
    let Some(layer) = config.auth_layer().map_err(|e| failed(&e))? else {
        return Ok(None);
    };
    // The layer writes the header that the API server gets; what is in it is all that is wanted.
    let echo = layer.layer(tower::service_fn(|request: Request<Body>| async move {
        let mut answer = Response::new(());
        *answer.headers_mut() = request.headers().clone();
        Ok::<_, BoxError>(answer)
    }));
    let echoed = echo.oneshot(Request::new(Body::empty())).await;
    let echoed = echoed.map_err(|e| failed(&*e))?;
    let bearer = echoed.headers().get(AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok());
    Ok(bearer
        .and_then(|value| value.strip_prefix("Bearer "))
        .and_then(header))
}

/// A token of the ServiceAccount `account` in `namespace`.
///
/// # Errors
/// Where the API server gives none.
pub async fn made(client: &Client, namespace: &str, account: &str) -> Result<HeaderValue, Error> {
    let failed = |why: String| Error::NotMade {
        account: account.to_owned(),
        namespace: namespace.to_owned(),
        why,
    };
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            expiration_seconds: Some(LIFE_SECONDS),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let params = PostParams::default();
    let asked = accounts.create_token_request(account, &params, &request);
    match timeout(REQUEST_TIMEOUT, asked).await {
        Ok(Ok(made)) => made
            .status
            .and_then(|status| header(&status.token))
            .ok_or_else(|| failed("the answer has no token".into())),
        Ok(Err(kube::Error::Api(status))) => Err(failed(status.message.clone())),
        Ok(Err(error)) => Err(failed(super::cluster::chain(&error))),
        Err(_) => Err(failed("no answer from the API server".into())),
    }
}

/// As a header that is shown nowhere.
fn header(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(token.trim()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use kube::config::AuthInfo;

    use super::*;

    async fn sent(auth_info: AuthInfo) -> Option<String> {
        let mut config = Config::new("https://example.test".parse().unwrap());
        config.auth_info = auth_info;
        let token = own(&config).await.unwrap()?;
        assert!(token.is_sensitive());
        Some(token.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn the_collector_gets_the_token_that_the_api_server_gets() {
        let auth = |text: &str| serde_saphyr::from_str::<AuthInfo>(text).unwrap();
        assert_eq!(sent(auth("token: abc")).await.as_deref(), Some("abc"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file").unwrap();
        let text = format!("tokenFile: {}", file.path().display());
        assert_eq!(sent(auth(&text)).await.as_deref(), Some("from-file"));
        let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, \
            command: echo, args: ['{\"apiVersion\": \"client.authentication.k8s.io/v1\", \
            \"kind\": \"ExecCredential\", \"status\": {\"token\": \"from-plugin\", \
            \"expirationTimestamp\": \"2100-01-01T00:00:00Z\"}}']}";
        assert_eq!(sent(auth(plugin)).await.as_deref(), Some("from-plugin"));
        assert_eq!(sent(auth("{username: u, password: p}")).await, None);
        assert_eq!(sent(AuthInfo::default()).await, None);
    }
}
