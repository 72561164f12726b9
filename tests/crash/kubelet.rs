//! The rest of the cluster: scheduler, kubelets and garbage collector, in one deterministic task.
//!
//! A pod gets a node after 700 ms, runs after 1 s, and ends when and how the scenario says. A deleted
//! pod ends with 143 a second later and is then gone; one whose deadline is over ends likewise and stays. Pods and Services whose job is gone are
//! deleted. Only the store is touched: what the operator makes of it is not known here.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    api_server::ApiServer,
    auditor::terminal,
    store::{Key, Store, seconds},
};

/// How a container ends that nobody stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub after: Duration,
    pub exit_code: i64,
}

/// The outcome of a rank when its job has been charged with so many retries. Not of an attempt's
/// number: an attempt that a crash cuts short is repeated, and its program does the same again.
pub type Program = fn(retries: i64, rank: i64) -> Outcome;

const SCHEDULED: Duration = Duration::from_millis(700);
const STARTED: Duration = Duration::from_secs(1);
const STOPPED: Duration = Duration::from_secs(1);
const COLLECTED: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Seen {
    created: Instant,
    deleted: Option<Instant>,
    /// Its deadline, which was over.
    stopped: Option<Instant>,
    outcome: Outcome,
}

/// Runs for ever.
pub async fn run(server: ApiServer, program: Program) {
    let mut changes = server.changes();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let now = Instant::now();
        let mut due: Vec<(Instant, Key, Act)> = Vec::new();
        server.with_quietly(|store| {
            for (key, pod) in store.list("pods", "") {
                let uid = pod["metadata"]["uid"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let state = seen.entry(uid).or_insert_with(|| Seen {
                    created: now,
                    deleted: None,
                    stopped: None,
                    outcome: outcome(store, key, pod, program),
                });
                if pod["metadata"]["deletionTimestamp"].is_string() {
                    state.deleted.get_or_insert(now);
                }
                if pod["spec"]["activeDeadlineSeconds"].is_number() {
                    state.stopped.get_or_insert(now);
                }
                due.extend(next(pod, state).map(|(at, act)| (at, key.clone(), act)));
            }
        });
        for (_, key, act) in due.iter().filter(|(at, _, _)| *at <= now) {
            server.note(format!("kubelet: {} {act:?}", key.name));
            carry_out(&server, key, *act);
        }
        let due = due
            .iter()
            .map(|(at, _, _)| *at)
            .filter(|at| *at > now)
            .min();
        tokio::select! {
            _ = changes.changed() => {}
            () = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Schedule,
    Start,
    End(i64),
    Remove,
}

fn next(pod: &Value, seen: &Seen) -> Option<(Instant, Act)> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if let Some(deleted) = seen.deleted {
        let over = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
        return match (terminal(pod), over) {
            // Its finalizers keep it, not its kubelet.
            (_, true) => None,
            (true, false) => Some((deleted, Act::Remove)),
            (false, false) => Some((deleted + STOPPED, Act::End(143))),
        };
    }
    match phase {
        "Pending" if !pod["spec"]["nodeName"].is_string() => {
            Some((seen.created + SCHEDULED, Act::Schedule))
        }
        "Pending" => Some((seen.created + STARTED, Act::Start)),
        "Running" if seen.stopped.is_some() => Some((seen.stopped? + STOPPED, Act::End(143))),
        "Running" => Some((
            seen.created + STARTED + seen.outcome.after,
            Act::End(seen.outcome.exit_code),
        )),
        _ => None,
    }
}

fn carry_out(server: &ApiServer, key: &Key, act: Act) {
    let time = server.now();
    let now = seconds(time);
    if matches!(act, Act::Start) {
        let mut state = server.state();
        if let Some(pod) = state.store.get(key).cloned() {
            state.auditor.pod_started(&pod);
        }
    }
    server.with(|store| {
        let _ = match act {
            Act::Schedule => store.edit(key, |pod| pod["spec"]["nodeName"] = "node-1".into()),
            Act::Start => store.edit(key, |pod| {
                pod["status"]["phase"] = "Running".into();
                pod["status"]["startTime"] = now.clone();
                pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
            }),
            Act::End(code) => store.edit(key, |pod| {
                pod["status"] = json!({
                    "startTime": pod["status"]["startTime"],
                    "phase": if code == 0 { "Succeeded" } else { "Failed" },
                    "conditions": [{"type": "Ready", "status": "False"}],
                    "containerStatuses": [{
                        "name": "trainer", "ready": false, "restartCount": 0, "image": "i", "imageID": "i",
                        "state": {"terminated": {
                            "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                            "message": "the program's last line", "finishedAt": now,
                        }},
                    }],
                });
            }),
            Act::Remove => {
                store.remove(key, time);
                Ok(Value::Null)
            }
        };
    });
}

fn outcome(store: &Store, key: &Key, pod: &Value, program: Program) -> Outcome {
    let owner = pod["metadata"]["ownerReferences"][0]["name"]
        .as_str()
        .unwrap_or_default();
    let job = store.get(&Key::new("trainingjobs", &key.namespace, owner));
    let retries = job
        .and_then(|j| j["status"]["retries"].as_i64())
        .unwrap_or(0);
    program(retries, super::auditor::numbers(pod).1)
}

/// Deletes what has lost its owner, some time after. Runs for ever.
pub async fn collect_garbage(server: ApiServer) {
    let mut changes = server.changes();
    loop {
        let orphan = server.with_quietly(|store| {
            let owned = store.list("pods", "").chain(store.list("services", ""));
            owned
                .filter(|(_, object)| object["metadata"]["deletionTimestamp"].is_null())
                .find(|(key, object)| {
                    let owner = &object["metadata"]["ownerReferences"][0];
                    let name = owner["name"].as_str().unwrap_or_default();
                    let job = store.get(&Key::new("trainingjobs", &key.namespace, name));
                    owner.is_object()
                        && job.is_none_or(|job| job["metadata"]["uid"] != owner["uid"])
                })
                .map(|(key, object)| (key.clone(), object["metadata"]["uid"].clone()))
        });
        let Some((key, uid)) = orphan else {
            let _ = changes.changed().await;
            continue;
        };
        sleep(COLLECTED).await;
        server.note(format!("garbage collector: {} {}", key.resource, key.name));
        let now = server.now();
        let _ = server.with(|store| store.delete(&key, uid.as_str(), now));
    }
}
