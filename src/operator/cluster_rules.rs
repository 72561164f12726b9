//! The failure rules of the platform team: a `ConfigMap` that is watched, so that a new rule counts
//! from the next failure on, without a restart. What can't be used of it is left out and reported by
//! a log line, a metric and an Event about the `ConfigMap`; it never stops the operator.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Metrics, events};
use crate::{
    api::{FailureRules, names},
    diagnose::{Origin, RuleBook},
    plan,
};

/// How long the operator waits for the first look at the `ConfigMap` before it goes on without.
const PATIENCE: Duration = Duration::from_secs(10);

/// The rules as they are now.
#[derive(Clone, Default)]
pub struct ClusterRules(Arc<RwLock<Arc<FailureRules>>>);

impl ClusterRules {
    /// The rules as they are now.
    pub fn now(&self) -> Arc<FailureRules> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, rules: FailureRules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

/// Watches `ConfigMap` `name` in `namespace`. Resolves when it has been looked at once, or can't be.
pub async fn watch(
    client: Client,
    namespace: &str,
    name: &str,
    identity: String,
    metrics: Metrics,
) -> ClusterRules {
    let rules = ClusterRules::default();
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut stream = watcher(api, config).default_backoff().boxed();
    let (looked, ready) = oneshot::channel();
    let mut looked = Some(looked);
    let current = rules.clone();
    tokio::spawn(async move {
        let mut listed = false;
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(map) | Event::Apply(map)) => {
                    listed = true;
                    take(&client, &map, &current, &identity, &metrics).await;
                }
                Ok(Event::Delete(_)) => forget(&current, &metrics),
                Ok(Event::InitDone) => {
                    // It was deleted while nobody watched.
                    if !listed {
                        forget(&current, &metrics);
                    }
                    looked.take().map(|l| l.send(()));
                }
                Err(error) => {
                    looked.take().map(|l| l.send(()));
                    tracing::warn!("the cluster's failure rules can't be watched: {error}");
                }
            }
        }
    });
    if tokio::time::timeout(PATIENCE, ready).await.is_err() {
        tracing::warn!("going on without the cluster's failure rules until they can be read");
    }
    rules
}

fn forget(current: &ClusterRules, metrics: &Metrics) {
    current.set(FailureRules::default());
    metrics.bad_failure_rules.set(0);
}

async fn take(
    client: &Client,
    map: &ConfigMap,
    current: &ClusterRules,
    identity: &str,
    metrics: &Metrics,
) {
    let text = map
        .data
        .as_ref()
        .and_then(|d| d.get(names::FAILURE_RULES_KEY));
    let (rules, bad) = parse(text.map_or("", String::as_str));
    metrics
        .bad_failure_rules
        .set(i64::try_from(bad.len()).unwrap_or(i64::MAX));
    current.set(rules);
    if bad.is_empty() {
        return;
    }
    let note = bad.join("; ");
    tracing::warn!("cluster-wide failure rules: {note}");
    let event = plan::Event {
        warning: true,
        reason: "BadFailureRule",
        note,
    };
    if let Err(error) = events::publish(client, identity, map.object_ref(&()), event).await {
        tracing::warn!("{error}");
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    rules: Vec<serde_json::Value>,
    classes: Vec<serde_json::Value>,
}

/// The rules of a file, and what is wrong with those that are left out. One bad rule takes no other
/// with it.
fn parse(text: &str) -> (FailureRules, Vec<String>) {
    let mut bad = Vec::new();
    if text.trim().is_empty() {
        return (FailureRules::default(), bad);
    }
    let file: File = serde_saphyr::from_str(text).unwrap_or_else(|error| {
        bad.push(format!("{} is left out: {error}", names::FAILURE_RULES_KEY));
        File::default()
    });
    let mut rules = FailureRules {
        rules: each(file.rules, "rules", &mut bad),
        classes: each(file.classes, "classes", &mut bad),
    };
    let (_, unusable) = RuleBook::new(&[(Origin::Cluster, &rules)]);
    rules
        .rules
        .retain(|rule| unusable.iter().all(|b| b.rule != rule.name));
    bad.extend(unusable.iter().map(ToString::to_string));
    (rules, bad)
}

fn each<T: serde::de::DeserializeOwned>(
    items: Vec<serde_json::Value>,
    list: &str,
    bad: &mut Vec<String>,
) -> Vec<T> {
    let items = items.into_iter().enumerate();
    items
        .filter_map(|(n, item)| {
            let name = item
                .get("name")
                .or(item.get("class"))
                .and_then(|n| n.as_str())
                .map_or_else(|| format!("number {}", n + 1), ToOwned::to_owned);
            serde_json::from_value(item)
                .map_err(|error| bad.push(format!("{name} of {list} is left out: {error}")))
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn one_bad_rule_of_the_platform_team_takes_no_other_with_it() {
        let (rules, bad) = parse(
            "rules:
- {name: flaky-mount, class: Storage, onLogPatterns: ['weka: I/O error']}
- {name: typo, class: Storrage, onLogPatterns: [x]}
- {name: strange, class: Storage, onLogPattern: [x]}
- {class: Storage}
classes:
- {class: Storage, maxRetries: 7}
",
        );
        assert_eq!(rules.rules.len(), 1, "{bad:?}");
        assert_eq!(rules.classes[0].max_retries, Some(7));
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(bad[0].starts_with("typo of rules is left out"), "{bad:?}");
        for nothing in ["", "  \n", "rules: []"] {
            assert!(parse(nothing).1.is_empty());
        }
        for broken in ["rules: 7", "- a list", "ruels: []", "\u{0}"] {
            assert_eq!(parse(broken).1.len(), 1, "{broken}");
        }
    }
}
