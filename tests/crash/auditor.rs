//! The promises of the operator, checked at every write that the API server takes.
//!
//! It sees the store before the write, so it judges by what is true, not by what the operator
//! believes. Not here: whether a job reaches its end ([`super::world`]).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    collector::told,
    store::{Key, Store},
};

/// How long the operator waits for a log, in these tests.
pub const LOG_DRAIN: SignedDuration = SignedDuration::from_secs(60);

#[derive(Default)]
pub struct Auditor {
    /// Pods created over all time, by the job's uid, attempt and rank.
    created: BTreeMap<(String, i64, i64), u32>,
    /// Pods that a request of a deposed process has brought: nobody could know of them.
    late: BTreeSet<String>,
    /// Pods that ran, by the job's uid, without the late ones.
    started: BTreeMap<String, i64>,
    /// The promises that were broken, in words.
    pub broken: BTreeSet<String>,
}

impl Auditor {
    fn broken(&mut self, promise: String) {
        self.broken.insert(promise);
    }

    /// `pod` is about to be created. `late`: by a request of a process that no longer leads, which
    /// nobody can hold back.
    pub fn pod_created(&mut self, store: &Store, pod: &Value, late: bool) {
        let name = text(&pod["metadata"]["name"]);
        let owner = &pod["metadata"]["ownerReferences"][0];
        let uid = text(&owner["uid"]);
        let (attempt, rank) = numbers(pod);
        let count = self
            .created
            .entry((uid.clone(), attempt, rank))
            .or_default();
        *count += 1;
        let second = *count > 1;
        if late {
            self.late.insert(name.clone());
        }
        if second {
            self.broken(format!(
                "a second pod for attempt {attempt} rank {rank}: {name}"
            ));
        }
        let key = Key::new(
            "trainingjobs",
            &text(&pod["metadata"]["namespace"]),
            &text(&owner["name"]),
        );
        let job = store
            .get(&key)
            .filter(|j| j["metadata"]["uid"] == uid.as_str());
        let Some(job) = job.filter(|_| !late) else {
            return; // The garbage collector takes it.
        };
        if open_attempt(&job["status"]) != Some(attempt) {
            self.broken(format!(
                "{name} was created although the stored status has attempt {:?} open",
                open_attempt(&job["status"])
            ));
        }
        for (key, earlier) in store.list("pods", &key.namespace) {
            let theirs = earlier["metadata"]["ownerReferences"][0]["uid"] == uid.as_str();
            let known = theirs && !self.late.contains(&key.name);
            if known && numbers(earlier).0 < attempt && may_run(earlier) {
                self.broken(format!(
                    "{name} was created while {} of an earlier attempt was alive",
                    key.name
                ));
            }
        }
        let service = store.get(&key_of_service(&key));
        let has_service =
            service.is_some_and(|s| s["metadata"]["ownerReferences"][0]["uid"] == uid.as_str());
        if job["spec"]["numNodes"].as_i64() > Some(1) && !has_service {
            self.broken(format!(
                "{name} was created before the gang had its Service"
            ));
        }
    }

    /// The pod under `key` is about to lose its finalizer. Its lines must be stored and counted, or it
    /// has had its time.
    pub fn pod_released(&mut self, store: &Store, key: &Key, uid: &Value, now: Timestamp) {
        let Some(pod) = store.get(key).filter(|p| p["metadata"]["uid"] == *uid) else {
            return;
        };
        let owner = &pod["metadata"]["ownerReferences"][0];
        let job = store.get(&Key::new(
            "trainingjobs",
            &key.namespace,
            &text(&owner["name"]),
        ));
        let status = job
            .filter(|job| job["metadata"]["uid"] == owner["uid"])
            .map(|job| &job["status"]);
        let (attempt, _) = numbers(pod);
        let uncounted = status.is_some_and(|status| {
            let attempts = status["attempts"].as_array().into_iter().flatten();
            let mut its = attempts.filter(|a| a["number"] == attempt);
            its.any(|a| a["logs"].is_null())
        });
        let on_node = pod["spec"]["nodeName"].is_string();
        let early = deletion(pod).is_none_or(|at| now < at + LOG_DRAIN);
        if early && (uncounted || (on_node && !told(pod))) {
            self.broken(format!(
                "{} was let go before its lines were {}",
                key.name,
                if uncounted { "counted" } else { "stored" }
            ));
        }
    }

    /// A pod's program runs, and writes lines.
    pub fn pod_started(&mut self, pod: &Value) {
        if !self.late.contains(&text(&pod["metadata"]["name"])) {
            let owner = text(&pod["metadata"]["ownerReferences"][0]["uid"]);
            *self.started.entry(owner).or_default() += 1;
        }
    }

    /// How many pods of a job have run that the operator could know of.
    pub fn started(&self, uid: &str) -> i64 {
        self.started.get(uid).copied().unwrap_or(0)
    }

    /// The status of the job under `key` is about to become `new`.
    pub fn status_written(&mut self, store: &Store, key: &Key, new: &Value) {
        let Some(job) = store.get(key) else { return };
        let (old, name) = (&job["status"], &key.name);
        let count = |status: &Value, field: &str| status[field].as_i64().unwrap_or(0);
        if old == new {
            self.broken(format!("{name}: a write that changes nothing"));
        }
        if without_times(old) == without_times(new) {
            self.broken(format!(
                "{name}: a write that changes nothing but a transition time"
            ));
        }
        for field in ["retries", "retriesIgnored"] {
            if count(new, field) < count(old, field) {
                self.broken(format!(
                    "{name}: {field} went down from {} to {}",
                    old[field], new[field]
                ));
            }
            if count(new, field) > count(old, field) + 1 {
                self.broken(format!(
                    "{name}: {field} went from {} to {}",
                    old[field], new[field]
                ));
            }
        }
        let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(3);
        if count(new, "retries") > limit {
            self.broken(format!("{name}: {} retries of {limit}", new["retries"]));
        }
        if new["attempts"].as_array().is_some_and(|a| a.len() > 10) {
            self.broken(format!("{name}: the ledger holds more than ten attempts"));
        }
        let was = summary(old);
        if was.0 != "Unknown" && !was.0.is_empty() && summary(new) != was {
            self.broken(format!(
                "{name}: ended as {was:?} and became {:?}",
                summary(new)
            ));
        }
        let opened = open_attempt(new).filter(|n| open_attempt(old) != Some(*n));
        let uid = text(&job["metadata"]["uid"]);
        if let Some(number) = opened
            && self
                .created
                .keys()
                .any(|(u, n, _)| *u == uid && *n >= number)
        {
            self.broken(format!(
                "{name}: attempt {number} was opened, whose pods have been before"
            ));
        }
    }
}

fn key_of_service(job: &Key) -> Key {
    Key::new("services", &job.namespace, &job.name)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn without_times(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    status
}

/// Attempt and rank of a pod, from its name.
pub fn numbers(pod: &Value) -> (i64, i64) {
    let name = text(&pod["metadata"]["name"]);
    let mut parts = name.rsplit('-').filter_map(|n| n.parse().ok());
    let rank = parts.next().unwrap_or(-1);
    (parts.next().unwrap_or(-1), rank)
}

fn deletion(pod: &Value) -> Option<Timestamp> {
    pod["metadata"]["deletionTimestamp"].as_str()?.parse().ok()
}

/// The API server binds no pod to a node that is being deleted.
pub fn may_run(pod: &Value) -> bool {
    let going = pod["metadata"]["deletionTimestamp"].is_string();
    let never_ran = going && pod["spec"]["nodeName"].is_null();
    !terminal(pod) && !never_ran
}

pub fn terminal(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Status and reason of condition Succeeded.
pub fn summary(status: &Value) -> (String, String) {
    condition(status, "Succeeded")
}

/// Status and reason of a condition.
pub fn condition(status: &Value, kind: &str) -> (String, String) {
    let conditions = status["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.map_or_else(Default::default, |c| {
        (text(&c["status"]), text(&c["reason"]))
    })
}

fn open_attempt(status: &Value) -> Option<i64> {
    let last = status["attempts"].as_array()?.last()?;
    last["endTime"].is_null().then(|| last["number"].as_i64())?
}
