//! Every pod that ever was in a namespace, in the order in which the API server says it happened:
//! the judge of "never two pods of one (job, attempt, rank)" and "no pod of an earlier attempt alive
//! when a later one starts".

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};

/// A running record of the pods of one namespace.
pub struct PodHistory {
    lives: Arc<Mutex<Lives>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Lives {
    /// Pods by uid.
    pods: BTreeMap<String, Life>,
    /// What must never be.
    violations: Vec<String>,
}

#[derive(Clone)]
struct Life {
    name: String,
    job: String,
    attempt: i32,
    alive: bool,
}

impl PodHistory {
    pub async fn watch(client: Client, namespace: &str) -> Self {
        let api: Api<Pod> = Api::namespaced(client, namespace);
        let begin = api.list(&ListParams::default()).await.unwrap();
        let version = begin.metadata.resource_version.unwrap_or_default();
        let lives = Arc::new(Mutex::new(Lives::default()));
        let record = lives.clone();
        let task = tokio::spawn(follow(api, version, record));
        Self { lives, task }
    }

    /// How many pods there ever were.
    pub fn pods(&self) -> usize {
        self.lives.lock().unwrap().pods.len()
    }

    /// Panics where an invariant was broken at any moment so far.
    pub fn assert_clean(&self) {
        let lives = self.lives.lock().unwrap();
        assert!(
            lives.violations.is_empty(),
            "broken promises:\n{}",
            lives.violations.join("\n")
        );
    }
}

impl Drop for PodHistory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watch ends now and then (the API server's time limit); it goes on where it was.
async fn follow(api: Api<Pod>, mut version: String, record: Arc<Mutex<Lives>>) {
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), &version).await else {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        let mut stream = stream.boxed();
        while let Ok(Some(event)) = stream.try_next().await {
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    version = pod.resource_version().unwrap_or_default();
                    record.lock().unwrap().saw(&pod, true);
                }
                WatchEvent::Deleted(pod) => {
                    version = pod.resource_version().unwrap_or_default();
                    record.lock().unwrap().saw(&pod, false);
                }
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                WatchEvent::Error(_) => break,
            }
        }
    }
}

impl Lives {
    fn saw(&mut self, pod: &Pod, exists: bool) {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let life = Life {
            name: pod.name_any(),
            job: pod
                .labels()
                .get("trainyard.dev/job-uid")
                .cloned()
                .unwrap_or_default(),
            attempt: pod
                .labels()
                .get("trainyard.dev/attempt")
                .and_then(|a| a.parse().ok())
                .unwrap_or_default(),
            alive: exists && !matches!(phase, Some("Succeeded" | "Failed")),
        };
        let uid = pod.uid().unwrap_or_default();
        if !self.pods.contains_key(&uid) {
            self.appeared(&uid, &life);
        }
        self.pods.insert(uid, life);
    }

    fn appeared(&mut self, uid: &str, life: &Life) {
        for (other_uid, other) in &self.pods {
            if other.job != life.job {
                continue;
            }
            if other.name == life.name {
                self.violations.push(format!(
                    "pod {} was made twice: as {other_uid} and as {uid}",
                    life.name
                ));
            }
            if other.attempt != life.attempt && other.alive {
                self.violations.push(format!(
                    "pod {} appeared while {} of another attempt was alive",
                    life.name, other.name
                ));
            }
        }
    }
}
