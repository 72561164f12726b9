//! Leadership: of several replicas one works, the others wait for its Lease to run out.
//!
//! The Lease (coordination.k8s.io/v1) is written under its resourceVersion, so two replicas can't
//! both take it. Times are as client-go's defaults: valid for 15 s, renewed every 5 s, given up when
//! it could not be renewed for 10 s. A waiting replica measures by its own clock how long the Lease
//! has not changed, so clocks need not agree. A replica that loses the Lease must exit: what it has
//! under way may no longer be its to do.

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// How long a Lease is valid without being renewed.
const VALID: Duration = Duration::from_secs(15);
/// How often the holder renews it.
const RENEW: Duration = Duration::from_secs(5);
/// The holder gives up when it could not renew for so long; less than [`VALID`], so that it has
/// stopped before another may start.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often a waiting replica looks, and a holder tries again after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for the API server to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Why leadership ended.
#[derive(Debug, Error)]
pub enum Error {
    /// Another replica holds the Lease, or the API server could not be reached in time.
    #[error("leadership lost: {0}; exiting so that another replica can go on")]
    Lost(String),
}

/// The Lease of this deployment, and who we are.
pub struct Leadership {
    leases: Api<Lease>,
    name: String,
    identity: String,
}

impl Leadership {
    /// The Lease `name` in `namespace`, to be held as `identity`, which no other replica may share.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
        }
    }

    /// Waits until this replica leads, and returns since when. Errors of the API server are logged and
    /// waited out.
    pub async fn acquire(&self) -> Instant {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let begin = Instant::now();
            match self.try_take(&mut seen).await {
                Ok(true) => return begin,
                Ok(false) => {}
                Err(error) => tracing::warn!("can't take the Lease {}: {error}", self.name),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease, which is held since `renewed`, until that fails for good.
    ///
    /// Counted from before each request: for the others it is renewed when the API server has written
    /// it, which may be long before we get the answer.
    pub async fn hold(&self, mut renewed: Instant) -> Error {
        let mut next = renewed + RENEW;
        let mut problem = "no answer from the API server".to_owned();
        loop {
            let round = async {
                sleep_until(next).await;
                (Instant::now(), self.renew().await)
            };
            let Ok((begin, result)) = timeout_at(renewed + GIVE_UP, round).await else {
                return Error::Lost(format!("the Lease could not be renewed: {problem}"));
            };
            match result {
                Ok(true) => {
                    renewed = begin;
                    next = begin + RENEW;
                }
                Ok(false) => return Error::Lost("another replica holds the Lease".into()),
                Err(error) => {
                    tracing::warn!("can't renew the Lease {}: {error}", self.name);
                    problem = error;
                    next = Instant::now() + RETRY;
                }
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait for it to run out.
    pub async fn release(&self) {
        let Ok(Ok(lease)) = timeout(ANSWER, self.leases.get(&self.name)).await else {
            return;
        };
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        if let Err(error) = self.write(lease, "").await {
            tracing::warn!("can't give back the Lease {}: {error}", self.name);
        }
    }

    /// One try. `seen` is the Lease's version and when we first saw it.
    async fn try_take(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<bool, String> {
        let found = timeout(ANSWER, self.leases.get_opt(&self.name))
            .await
            .map_err(|_| "no answer from the API server".to_owned())?
            .map_err(|e| e.to_string())?;
        let Some(lease) = found else {
            return self.create().await;
        };
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let free = holder(&lease).is_none_or(|h| h.is_empty() || *h == self.identity);
        if !free && since.elapsed() < VALID {
            return Ok(false);
        }
        self.write(lease, &self.identity).await
    }

    async fn renew(&self) -> Result<bool, String> {
        let lease = timeout(ANSWER, self.leases.get(&self.name))
            .await
            .map_err(|_| "no answer from the API server".to_owned())?
            .map_err(|e| e.to_string())?;
        if holder(&lease) != Some(&self.identity) {
            return Ok(false);
        }
        self.write(lease, &self.identity).await
    }

    async fn create(&self) -> Result<bool, String> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec(&self.identity, None)),
        };
        let params = PostParams::default();
        answer(timeout(ANSWER, self.leases.create(&params, &lease)).await)
    }

    /// False where another replica has written in between.
    async fn write(&self, mut lease: Lease, identity: &str) -> Result<bool, String> {
        lease.spec = Some(spec(identity, lease.spec.as_ref()));
        let params = PostParams::default();
        answer(timeout(ANSWER, self.leases.replace(&self.name, &params, &lease)).await)
    }
}

fn answer(
    result: Result<Result<Lease, kube::Error>, tokio::time::error::Elapsed>,
) -> Result<bool, String> {
    match result {
        Err(_) => Err("no answer from the API server".into()),
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(false),
        Ok(Err(error)) => Err(error.to_string()),
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}

fn spec(identity: &str, old: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let same = old.is_some_and(|o| o.holder_identity.as_deref() == Some(identity));
    let transitions = old.and_then(|o| o.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.into()),
        lease_duration_seconds: i32::try_from(VALID.as_secs()).ok(),
        acquire_time: if same {
            old.and_then(|o| o.acquire_time.clone())
        } else {
            Some(now.clone())
        },
        renew_time: Some(now),
        lease_transitions: Some(if same { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}
