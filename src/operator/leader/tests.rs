//! Leadership against an API server that answers late or not at all, on a clock that a test moves.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;

/// A server with one Lease. It carries a request out when it arrives, and answers a write after
/// `late`; the renewals after the first `good` ones never arrive.
#[derive(Clone)]
struct Slow {
    late: Duration,
    good: usize,
    lease: Arc<Mutex<(Value, Vec<Instant>)>>,
}

impl Slow {
    fn new(late: Duration, good: usize) -> Self {
        let lease = json!({"metadata": {"name": "l", "namespace": "n", "resourceVersion": "1"}});
        Self {
            late,
            good,
            lease: Arc::new(Mutex::new((lease, Vec::new()))),
        }
    }

    fn leadership(&self) -> Leadership {
        let slow = self.clone();
        let service = tower::service_fn(move |request| slow.clone().answer(request));
        Leadership::new(Client::new(service, "n"), "n", "l", "we")
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let writes = request.method() == Method::PUT;
        if writes && self.renewals().len() >= self.good {
            return std::future::pending().await;
        }
        if writes {
            let bytes = request
                .into_body()
                .collect_bytes()
                .await
                .unwrap_or_default();
            let mut lease = self.lease.lock().unwrap();
            lease.0 = serde_json::from_slice(&bytes).unwrap();
            lease.1.push(Instant::now());
        }
        if writes {
            sleep(self.late).await;
        }
        let body = self.lease.lock().unwrap().0.to_string();
        Ok(Response::new(Body::from(body.into_bytes())))
    }

    fn renewals(&self) -> Vec<Instant> {
        self.lease.lock().unwrap().1.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_stops_before_another_may_start_however_late_the_answers_are() {
    for late in [0, 1000, 3000, 4900] {
        for good in [1, 2, 3] {
            let slow = Slow::new(Duration::from_millis(late), good);
            let leadership = slow.leadership();
            let since = leadership.acquire().await;
            leadership.hold(since).await;
            let last = *slow.renewals().last().expect("it has led");
            let held = last.elapsed();
            assert!(
                held < VALID - RETRY,
                "answers after {late} ms: worked for {held:?} after its last renewal"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_goes_on_as_long_as_it_can_renew() {
    let slow = Slow::new(Duration::from_millis(500), usize::MAX);
    let leadership = slow.leadership();
    let since = leadership.acquire().await;
    let held = timeout(Duration::from_secs(3600), leadership.hold(since)).await;
    assert!(held.is_err(), "{held:?}");
    assert!(slow.renewals().len() > 500);
}
