//! A case: its folder → the evidence that the operator would have gathered.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};
use trainyard::{
    api::FailureClass,
    diagnose::{self, Diagnosis, NodeFacts, RankEvidence, RuleBook, TAIL_BYTES, Tail},
    operator::pod_facts,
    plan::PodFacts,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[allow(dead_code)]
    description: String,
    #[allow(dead_code)]
    origin: String,
    #[serde(default)]
    #[allow(dead_code)]
    made: Option<String>,
    #[serde(default)]
    #[allow(dead_code)]
    source: Option<String>,
    expect: Expect,
    ranks: Vec<Rank>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    pub class: FailureClass,
    pub retry: bool,
    #[serde(default)]
    pub rank: Option<i32>,
    #[serde(default)]
    pub line: Option<String>,
    #[serde(default)]
    pub unknown_is_fine: bool,
    /// A class whose failures leave the very same evidence.
    #[serde(default)]
    pub looks_like: Option<FailureClass>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rank {
    rank: i32,
    #[serde(default)]
    log: Option<String>,
    #[serde(default)]
    stamped: bool,
    phase: String,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    terminated: Option<Terminated>,
    #[serde(default)]
    waiting: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pod_reason: Option<String>,
    #[serde(default)]
    pod_message: Option<String>,
    #[serde(default)]
    conditions: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    unschedulable: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    memory_limit: Option<String>,
    #[serde(default)]
    node_facts: Option<Node>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Terminated {
    exit_code: i32,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    finished: Option<String>,
    #[serde(default)]
    container: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    #[serde(default = "yes")]
    ready: bool,
    #[serde(default)]
    unschedulable: bool,
    #[serde(default)]
    taints: Vec<String>,
    #[serde(default)]
    problems: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A case, read.
pub struct Case {
    pub name: String,
    pub expect: Expect,
    ranks: Vec<Gathered>,
}

/// What the operator would have gathered of a rank.
struct Gathered {
    pod: PodFacts,
    tail: Option<Tail>,
    node: Option<NodeFacts>,
    memory_limit: Option<String>,
}

impl Case {
    /// # Panics
    /// Where the case is not written as the README says.
    pub fn read(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(folder.join("case.yaml")).unwrap();
        let written: Written =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ranks = written
            .ranks
            .iter()
            .map(|r| {
                let tail = r.log.as_ref().map(|log| {
                    let bytes =
                        fs::read(folder.join(log)).unwrap_or_else(|e| panic!("{name}/{log}: {e}"));
                    let start = bytes.len().saturating_sub(TAIL_BYTES);
                    Tail {
                        bytes: bytes[start..].to_vec(),
                        stamped: r.stamped,
                    }
                });
                let node = r.node_facts.as_ref().map(|n| NodeFacts {
                    name: r.node.clone().unwrap_or_default(),
                    ready: n.ready,
                    unschedulable: n.unschedulable,
                    taints: n.taints.clone(),
                    problems: n.problems.clone(),
                    ready_since: None,
                });
                Gathered {
                    pod: facts(r, &name),
                    tail,
                    node,
                    memory_limit: r.memory_limit.clone(),
                }
            })
            .collect();
        Self {
            name,
            expect: written.expect,
            ranks,
        }
    }

    pub fn diagnose(&self) -> Option<Diagnosis> {
        let ranks: Vec<RankEvidence> = self
            .ranks
            .iter()
            .map(|r| RankEvidence {
                pod: &r.pod,
                tail: r.tail.as_ref(),
                node: r.node.as_ref(),
                memory_limit: r.memory_limit.as_deref(),
            })
            .collect();
        let book = RuleBook::default();
        let pods: Vec<&PodFacts> = ranks.iter().map(|r| r.pod).collect();
        diagnose::failure(&ranks, &book)
            .or_else(|| diagnose::never_starts(&pods, &book))
            .or_else(|| pods.iter().find_map(|p| diagnose::not_started(p, &book)))
    }
}

/// The pod as the API server would show it, and what the operator keeps of it.
fn facts(rank: &Rank, case: &str) -> PodFacts {
    let state = match (&rank.terminated, &rank.waiting) {
        (Some(t), _) => json!({"terminated": {
            "exitCode": t.exit_code, "reason": t.reason, "message": t.message,
            "finishedAt": t.finished,
        }}),
        (None, Some(w)) => json!({"waiting": w}),
        (None, None) => json!({"running": {}}),
    };
    let container = rank.terminated.as_ref().and_then(|t| t.container.clone());
    let name = container.unwrap_or_else(|| "trainer".into());
    let mut conditions: Vec<Value> = rank
        .conditions
        .iter()
        .map(|c| {
            let mut condition = json!(c);
            condition["status"] = "True".into();
            condition
        })
        .collect();
    if let Some(message) = &rank.unschedulable {
        conditions.push(json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}));
    }
    let statuses = json!([{
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
    }]);
    let (main, init) = if name == "trainer" {
        (statuses, json!([]))
    } else {
        (json!([]), statuses)
    };
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("job-1-{}", rank.rank), "namespace": "ml", "uid": "u",
            "ownerReferences": [{
                "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob", "name": "job",
                "uid": "j", "controller": true,
            }],
        },
        "spec": {"nodeName": rank.node, "containers": []},
        "status": {
            "phase": rank.phase, "reason": rank.pod_reason, "message": rank.pod_message,
            "conditions": conditions, "containerStatuses": main, "initContainerStatuses": init,
        },
    });
    if rank.deleted {
        pod["metadata"]["deletionTimestamp"] = "2000-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    }
    let pod = serde_json::from_value(pod).unwrap_or_else(|e| panic!("{case}: {e}"));
    pod_facts(&pod).unwrap_or_else(|| panic!("{case}: not a pod of ours"))
}

/// Whether the line that was found is the expected one, prefixes aside.
pub fn same_line(expected: &str, said: &str) -> bool {
    let plain = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ")
    };
    let (expected, said) = (plain(expected), plain(said));
    said.contains(&expected) || (said.len() >= 12 && expected.contains(&said))
}
