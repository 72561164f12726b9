//! What can't change once a job has started: everything but what is meant to change.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use trainyard::api::TrainingJob;

use crate::{
    accepted::EVERYTHING,
    manifest::{answers, create, job},
    support,
};

/// The fields of the spec that may change while a job runs. All others may not.
const MUTABLE: [&str; 4] = [
    "suspend",
    "priorityClassName",
    "ttlSecondsAfterFinished",
    "affinity",
];

/// A job of the API server's.
struct Job {
    api: Api<TrainingJob>,
    name: String,
    spec: Value,
}

impl Job {
    async fn create(client: &Client, namespace: &str, manifest: &str) -> Self {
        let stored = create(client, namespace, manifest).await.expect("accepted");
        Self {
            api: Api::namespaced(client.clone(), namespace),
            name: stored["metadata"]["name"].as_str().expect("a name").into(),
            spec: stored["spec"].clone(),
        }
    }

    async fn start_time(&self, time: Value) {
        let patch = json!({"status": {"startTime": time}});
        self.api
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the status can be written");
    }

    /// What is said to a change, empty where it is accepted.
    async fn change(&self, patch: &Value) -> Vec<String> {
        match self
            .api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => vec![],
            Err(kube::Error::Api(status)) => answers(&status),
            Err(other) => panic!("no answer to {patch}: {other}"),
        }
    }
}

/// A job with few fields and one with all; every field differs between them.
async fn two_jobs(prefix: &str) -> (Job, Job) {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, prefix).await;
    let few = Job::create(&client, &namespace, &job("")).await;
    let all = Job::create(&client, &namespace, EVERYTHING).await;
    let fields = all.spec.as_object().expect("an object");
    let same: Vec<_> = fields
        .keys()
        .filter(|f| few.spec[f] == all.spec[f])
        .collect();
    assert_eq!(same, Vec::<&String>::new(), "these fields do not differ");
    (few, all)
}

/// The patch that gives `field` the value that it has in `spec`: null, which removes it, for none.
fn to(field: &str, spec: &Value) -> Value {
    json!({"spec": {field: spec[field]}})
}

#[tokio::test]
async fn a_running_jobs_attempts_all_run_the_same_thing() {
    let (few, all) = two_jobs("immutable").await;
    few.start_time(json!("2026-01-01T00:00:00Z")).await;
    all.start_time(json!("2026-01-01T00:00:00Z")).await;
    let mut failures = Vec::new();
    for field in all.spec.as_object().expect("an object").keys() {
        if MUTABLE.contains(&field.as_str()) {
            continue;
        }
        let sentence = format!(
            "spec.{field}: Invalid value: spec.{field} can't change once the job has started: suspend it first, or delete it and apply it anew"
        );
        for (job, other, what) in [(&few, &all, "set"), (&all, &few, "changed back")] {
            let said = job.change(&to(field, &other.spec)).await;
            if said != [sentence.clone()] {
                failures.push(format!("spec.{field} {what}: {said:#?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn a_running_job_can_be_suspended_reprioritized_and_cleaned_up() {
    let (few, all) = two_jobs("mutable").await;
    few.start_time(json!("2026-01-01T00:00:00Z")).await;
    all.start_time(json!("2026-01-01T00:00:00Z")).await;
    for field in MUTABLE {
        for (job, other) in [(&few, &all), (&all, &few)] {
            let said = job.change(&to(field, &other.spec)).await;
            assert_eq!(said, Vec::<String>::new(), "spec.{field} of {}", job.name);
        }
    }
    let labels = json!({"metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}, "finalizers": ["example.com/keep"]}});
    for job in [&few, &all] {
        assert_eq!(
            job.change(&labels).await,
            Vec::<String>::new(),
            "labels of {}",
            job.name
        );
    }
}

#[tokio::test]
async fn a_job_that_has_not_started_can_still_be_corrected() {
    let (few, all) = two_jobs("unstarted").await;
    for field in all.spec.as_object().expect("an object").keys() {
        let said = few.change(&to(field, &all.spec)).await;
        assert_eq!(said, Vec::<String>::new(), "spec.{field}");
    }
}

#[tokio::test]
async fn a_suspended_job_can_be_changed_and_resumed() {
    let (few, all) = two_jobs("suspended").await;
    few.start_time(json!("2026-01-01T00:00:00Z")).await;
    assert_eq!(
        few.change(&to("suspend", &all.spec)).await,
        Vec::<String>::new()
    );
    few.start_time(Value::Null).await; // as the operator does when it has stopped the job
    assert_eq!(
        few.change(&to("image", &all.spec)).await,
        Vec::<String>::new()
    );
    assert_eq!(
        few.change(&to("numNodes", &all.spec)).await,
        Vec::<String>::new()
    );
    few.start_time(json!("2026-01-02T00:00:00Z")).await;
    assert_ne!(
        few.change(&to("args", &all.spec)).await,
        Vec::<String>::new()
    );
}
