//! Creates manifests as `kubectl create -f` does: the YAML text goes to the API server, which is told
//! to refuse unknown and duplicate fields. Also the comparison of its answers with a table.

use kube::{Client, core::Status};
use serde_json::Value;

use crate::support;

/// One wrong manifest.
pub struct Wrong {
    /// What a user would lose if it were accepted.
    pub why: &'static str,
    /// The lines that make it wrong.
    pub yaml: &'static str,
    /// All that the API server is to answer, as `field: message`.
    pub says: &'static [&'static str],
}

/// A row of a table.
pub const fn wrong(why: &'static str, yaml: &'static str, says: &'static [&'static str]) -> Wrong {
    Wrong { why, yaml, says }
}

/// The right job to which a row's lines are added: what a beginner writes.
pub fn job(spec: &str) -> String {
    format!(
        "apiVersion: trainyard.dev/v1alpha1
kind: TrainingJob
metadata: {{name: bert}}
spec:
  runtimeRef: {{name: pytorch}}
  command: [python, train.py]
  {spec}"
    )
}

/// Sends every manifest of the table, made whole by `template`, and compares the whole answers.
///
/// # Panics
/// With all rows that were not answered as the table says.
pub async fn check(prefix: &str, template: impl Fn(&str) -> String, table: &[Wrong]) {
    let client = support::control_plane().await;
    let namespace = support::namespace(&client, prefix).await;
    let mut failures = Vec::new();
    for row in table {
        let said = match create(&client, &namespace, &template(row.yaml)).await {
            Ok(_) => vec!["(accepted)".to_owned()],
            Err(status) => answers(&status),
        };
        let mut expected: Vec<_> = row.says.iter().map(ToString::to_string).collect();
        expected.sort();
        if said != expected {
            failures.push(format!(
                "{}\n  manifest: {}\n  expected: {expected:#?}\n  was told: {said:#?}",
                row.why, row.yaml
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} rows:\n\n{}",
        failures.len(),
        table.len(),
        failures.join("\n\n")
    );
}

/// Creates the object in `manifest` and returns it as it is stored, or why it was refused.
pub async fn create(client: &Client, namespace: &str, manifest: &str) -> Result<Value, Status> {
    let path = if manifest.contains("kind: ClusterTrainingRuntime\n") {
        "/apis/trainyard.dev/v1alpha1/clustertrainingruntimes".to_owned()
    } else if manifest.contains("kind: TrainingRuntime\n") {
        format!("/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingruntimes")
    } else {
        format!("/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs")
    };
    let request = http::Request::post(path + "?fieldValidation=Strict&fieldManager=kubectl-create")
        .header("content-type", "application/yaml")
        .body(manifest.as_bytes().to_vec())
        .expect("a request");
    client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => *status,
        other => panic!("no answer to\n{manifest}\n{other}"),
    })
}

/// Every sentence of a refusal, sorted, without the one that only says that there may be more.
pub fn answers(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let mut answers: Vec<_> = causes
        .filter(|c| !c.message.contains("some validation rules were not checked"))
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    if answers.is_empty() {
        answers.push(status.message.clone());
    }
    answers.sort();
    answers
}
