//! Who may read: whoever may `get` `pods/log` in the job's namespace, by the caller's own Kubernetes
//! token. The API server is asked who that is (`TokenReview`) and whether they may
//! (`SubjectAccessReview`); nothing is decided here, and without an answer nobody reads.
//!
//! The API server's service proxy keeps the `Authorization` header to itself, so callers that come
//! through it send the token in [`TOKEN_HEADER`]. A token is never logged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Where a token may be besides `Authorization: Bearer …`.
pub const TOKEN_HEADER: &str = "x-trainyard-token";
/// What a token may be made for that is good for nothing but reading logs.
pub const AUDIENCE: &str = "trainyard-logs";

/// How long the API server's "yes" is taken for the next answer too.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How many of them are remembered.
const MAX_REMEMBERED: usize = 1024;
/// Longer ones are no tokens.
const MAX_TOKEN: usize = 16 * 1024;
/// Callers about whom the API server is asked at a time.
const MAX_ASKED: usize = 32;
/// Longest wait for the API server's answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why somebody may not read.
#[derive(Debug, Error)]
pub enum Denied {
    /// Nobody said who they are.
    #[error(
        "who are you? Reading logs takes a Kubernetes token, in the header Authorization: Bearer …, or {TOKEN_HEADER}: … through the API server's proxy; kubectl trainyard logs sends yours"
    )]
    NoToken,
    /// The token is nobody's.
    #[error(
        "the API server does not accept your token ({0}): it may have expired; log in to the cluster again"
    )]
    BadToken(String),
    /// They may not.
    #[error(
        "you are {user}, and you may not read logs in namespace {namespace}: it takes the right to get pods/log there{why}; whoever administers the namespace gives it, for example as the role view"
    )]
    Forbidden {
        /// Who it is.
        user: String,
        /// Where they want to read.
        namespace: String,
        /// What the authorizer said, where it did.
        why: String,
    },
    /// The API server did not say.
    #[error(
        "the API server can't be asked whether you may read logs, so nobody may ({0}); try again in a moment"
    )]
    Unknown(String),
}

impl Denied {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Asks the API server, and remembers for a moment whom it let read where. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    client: Client,
    /// Token and namespace, and until when.
    allowed: Arc<Mutex<HashMap<(String, String), Instant>>>,
    asked: Arc<Semaphore>,
}

impl Access {
    /// By the API server of `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            allowed: Arc::default(),
            asked: Arc::new(Semaphore::new(MAX_ASKED)),
        }
    }

    /// Ok where the sender of these headers may read logs in `namespace`.
    ///
    /// # Errors
    /// Where they may not, or nobody can say.
    pub async fn check(&self, headers: &HeaderMap, namespace: &str) -> Result<(), Denied> {
        let token = token(headers).ok_or(Denied::NoToken)?;
        let key = (token.to_owned(), namespace.to_owned());
        let now = Instant::now();
        if self.lock().get(&key).is_some_and(|until| now < *until) {
            return Ok(());
        }
        let asked = timeout(PATIENCE, self.ask(token, namespace)).await;
        asked.unwrap_or_else(|_| Err(Denied::Unknown("it gives no answer".into())))?;
        let mut allowed = self.lock();
        allowed.retain(|_, until| now < *until);
        if allowed.len() >= MAX_REMEMBERED {
            allowed.clear();
        }
        allowed.insert(key, now + REMEMBERED);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Instant>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, token: &str, namespace: &str) -> Result<(), Denied> {
        let _asking = self.asked.acquire().await;
        // One that people have for the API server, or one that was made for this alone.
        let user = match self.review(token, None).await? {
            Ok(user) => user,
            Err(why) => {
                let made = self.review(token, Some(AUDIENCE)).await?;
                made.map_err(|_| Denied::BadToken(why))?
            }
        };
        self.may_read(user, namespace).await
    }

    /// Whose the token is, or why nobody's.
    async fn review(
        &self,
        token: &str,
        audience: Option<&str>,
    ) -> Result<Result<UserInfo, String>, Denied> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: audience.map(|a| vec![a.to_owned()]),
            },
            ..TokenReview::default()
        };
        let status = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| unknown(&e))?
            .status
            .unwrap_or_default();
        // An API server that knows no audiences says none, and must not be believed.
        let meant = audience.is_none_or(|a| status.audiences.iter().flatten().any(|b| a == b));
        match status.user {
            Some(user) if status.authenticated == Some(true) && meant => Ok(Ok(user)),
            _ => Ok(Err(status.error.unwrap_or_else(|| "unknown".into()))),
        }
    }

    async fn may_read(&self, user: UserInfo, namespace: &str) -> Result<(), Denied> {
        let name = user.username.clone().unwrap_or_default();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra.map(BTreeMap::from_iter),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("get".into()),
                    resource: Some("pods".into()),
                    subresource: Some("log".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let status = Api::<SubjectAccessReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| unknown(&e))?
            .status
            .unwrap_or_default();
        if status.allowed && status.denied != Some(true) {
            return Ok(());
        }
        let why = status.reason.filter(|why| !why.is_empty());
        Err(Denied::Forbidden {
            user: name,
            namespace: namespace.to_owned(),
            why: why.map(|why| format!(" ({why})")).unwrap_or_default(),
        })
    }
}

/// The token that was sent. Its own header goes first: a proxy in between may use the other one.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    let token = text(TOKEN_HEADER).or_else(bearer)?.trim();
    (!token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

/// What went wrong at the API server. Its words about a token are not repeated to anybody.
fn unknown(error: &kube::Error) -> Denied {
    match error {
        kube::Error::Api(status) => {
            tracing::warn!(
                "can't ask the API server who may read logs: {}",
                status.message
            );
            Denied::Unknown(format!("it answers {} {}", status.code, status.reason))
        }
        error => {
            tracing::warn!("can't ask the API server who may read logs: {error}");
            Denied::Unknown("it can't be reached".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows the tokens `ann` and `made` and lets ann read in `ml`.
    fn api_server(asked: &Arc<AtomicUsize>) -> Client {
        let asked = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let spec = review["spec"].clone();
                let (code, status) = if path.ends_with("/tokenreviews") {
                    let audiences = &spec["audiences"];
                    match spec["token"].as_str().unwrap() {
                        "ann" if audiences.is_null() => (
                            201,
                            json!({"authenticated": true, "user": {"username": "ann"}}),
                        ),
                        "made" if *audiences == json!([AUDIENCE]) => (
                            201,
                            json!({"authenticated": true, "audiences": [AUDIENCE],
                                "user": {"username": "ann"}}),
                        ),
                        // It does not say that it has looked at the audience.
                        "other" if !audiences.is_null() => (
                            201,
                            json!({"authenticated": true, "user": {"username": "ann"}}),
                        ),
                        "broken" => (500, json!({})),
                        _ => (201, json!({"authenticated": false, "error": "expired"})),
                    }
                } else {
                    assert_eq!(spec["resourceAttributes"]["verb"], "get");
                    assert_eq!(spec["resourceAttributes"]["resource"], "pods");
                    assert_eq!(spec["resourceAttributes"]["subresource"], "log");
                    let allowed =
                        spec["user"] == "ann" && spec["resourceAttributes"]["namespace"] == "ml";
                    (201, json!({"allowed": allowed}))
                };
                review["status"] = status;
                let answer = Response::builder().status(code);
                let answer = answer.body(Body::from(review.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn headers(name: &str, value: &str) -> HeaderMap {
        let name = axum::http::HeaderName::try_from(name).unwrap();
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[tokio::test]
    async fn only_those_whom_the_api_server_lets_read_pod_logs_there_are_let_in() {
        let access = Access::new(api_server(&Arc::default()));
        let check = |name, value, namespace| {
            let (access, headers) = (access.clone(), headers(name, value));
            async move { access.check(&headers, namespace).await }
        };
        check("authorization", "Bearer ann", "ml").await.unwrap();
        check(TOKEN_HEADER, "ann", "ml").await.unwrap();
        check(TOKEN_HEADER, "made", "ml").await.unwrap();
        for (name, value, namespace, status, words) in [
            (TOKEN_HEADER, "ann", "other", 403, "you are ann"),
            (TOKEN_HEADER, "stale", "ml", 401, "expired"),
            (TOKEN_HEADER, "other", "ml", 401, "does not accept"),
            (TOKEN_HEADER, "", "ml", 401, "who are you"),
            ("authorization", "Basic ann", "ml", 401, "who are you"),
            (TOKEN_HEADER, "broken", "ml", 503, "nobody may"),
        ] {
            let denied = check(name, value, namespace).await.unwrap_err();
            assert_eq!(denied.status(), status, "{value} in {namespace}");
            assert!(denied.to_string().contains(words), "{denied}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_was_taken_away_is_gone_after_ten_seconds() {
        let asked = Arc::default();
        let access = Access::new(api_server(&asked));
        let headers = headers(TOKEN_HEADER, "ann");
        access.check(&headers, "ml").await.unwrap();
        access.check(&headers, "ml").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "a review of each kind");
        // What was allowed in one namespace is not allowed in another.
        access.check(&headers, "other").await.unwrap_err();
        tokio::time::advance(REMEMBERED).await;
        access.check(&headers, "ml").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 6);
    }
}
