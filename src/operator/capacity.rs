//! How much of an extended resource, such as GPUs, the cluster's nodes have free: to tell a user what
//! is missing in words that the scheduler's "3 Insufficient nvidia.com/gpu" lacks.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long a count serves all jobs that wait: on a large cluster it reads every pod.
const HOLDS: Duration = Duration::from_secs(60);

/// Longest time for a count.
const PATIENCE: Duration = Duration::from_secs(20);

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// The latest counts, by resource.
#[derive(Default)]
pub struct Capacity(Mutex<HashMap<String, Count>>);

/// When it was counted, and what there is; None where it could not be.
type Count = (Instant, Option<Vec<Free>>);

/// One schedulable node that has some of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Free {
    node: String,
    all: i64,
    free: i64,
}

impl Capacity {
    /// What a pod that asks for `wanted` of `resource` lacks. None where enough is free, and something
    /// else must keep the pod; or where it can't be counted.
    pub async fn missing(&self, client: &Client, resource: &str, wanted: i32) -> Option<String> {
        if wanted == 0 {
            return None;
        }
        // Held while it counts: others that wait for the same want the same answer.
        let mut counts = self.0.lock().await;
        let fresh = counts
            .get(resource)
            .filter(|(at, _)| at.elapsed() < HOLDS)
            .map(|(_, free)| free.clone());
        let free = match fresh {
            Some(free) => free,
            None => {
                let counted = timeout(PATIENCE, count(client, resource)).await;
                let free = match counted {
                    Ok(Ok(free)) => Some(free),
                    Ok(Err(error)) => {
                        tracing::debug!("free {resource} can't be counted: {error}");
                        None
                    }
                    Err(_) => None,
                };
                counts.retain(|_, (at, _)| at.elapsed() < HOLDS);
                counts.insert(resource.to_owned(), (Instant::now(), free.clone()));
                free
            }
        }?;
        words(&free, resource, i64::from(wanted))
    }
}

async fn count(client: &Client, resource: &str) -> Result<Vec<Free>, kube::Error> {
    let nodes = all::<Node>(Api::all(client.clone()), ListParams::default()).await?;
    let running = "status.phase!=Succeeded,status.phase!=Failed,spec.nodeName!=";
    let pods = all::<Pod>(
        Api::all(client.clone()),
        ListParams::default().fields(running),
    )
    .await?;
    let mut used: HashMap<&str, i64> = HashMap::new();
    for pod in &pods {
        let Some(spec) = &pod.spec else { continue };
        let requests = spec.containers.iter().filter_map(|c| c.resources.as_ref());
        let amount: i64 = requests
            .filter_map(|r| r.requests.as_ref()?.get(resource))
            .filter_map(whole)
            .sum();
        *used
            .entry(spec.node_name.as_deref().unwrap_or_default())
            .or_default() += amount;
    }
    Ok(nodes
        .iter()
        .filter(|n| schedulable(n))
        .filter_map(|n| {
            let all = whole(n.status.as_ref()?.allocatable.as_ref()?.get(resource)?)?;
            let node = n.name_any();
            let free = (all - used.get(node.as_str()).copied().unwrap_or(0)).max(0);
            (all > 0).then_some(Free { node, all, free })
        })
        .collect())
}

async fn all<K>(api: Api<K>, params: ListParams) -> Result<Vec<K>, kube::Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut items = Vec::new();
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(items),
        }
    }
}

fn schedulable(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable);
    let mut conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    cordoned != Some(true) && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Extended resources are whole numbers.
fn whole(quantity: &Quantity) -> Option<i64> {
    quantity.0.parse().ok()
}

fn words(nodes: &[Free], resource: &str, wanted: i64) -> Option<String> {
    let needs = format!("needs {wanted} {resource} on one node");
    let Some(largest) = nodes.iter().max_by_key(|n| n.all) else {
        return Some(format!("{needs}; no node that takes pods has any"));
    };
    if largest.all < wanted {
        return Some(format!(
            "{needs}; the largest ({}) has {} in all: ask for fewer a node and for more nodes",
            largest.node, largest.all
        ));
    }
    let freest = nodes.iter().max_by_key(|n| n.free)?;
    if freest.free >= wanted {
        return None;
    }
    let (free, all): (i64, i64) = nodes
        .iter()
        .fold((0, 0), |(f, a), n| (f + n.free, a + n.all));
    Some(format!(
        "{needs}; the largest has {} free ({}), all {} nodes together {free} of {all}",
        freest.free,
        freest.node,
        nodes.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, all: i64, free: i64) -> Free {
        let node = name.to_owned();
        Free { node, all, free }
    }

    #[test]
    fn a_user_reads_what_is_missing() {
        let gpu = "nvidia.com/gpu";
        let nodes = [node("a", 8, 4), node("b", 8, 1)];
        for (nodes, wanted, expected) in [
            (
                &nodes[..],
                8,
                Some(
                    "needs 8 nvidia.com/gpu on one node; the largest has 4 free (a), all 2 nodes together 5 of 16",
                ),
            ),
            (
                &nodes[..],
                16,
                Some(
                    "needs 16 nvidia.com/gpu on one node; the largest (b) has 8 in all: ask for fewer a node and for more nodes",
                ),
            ),
            (&nodes[..], 4, None),
            (
                &[][..],
                1,
                Some("needs 1 nvidia.com/gpu on one node; no node that takes pods has any"),
            ),
        ] {
            assert_eq!(words(nodes, gpu, wanted).as_deref(), expected);
        }
    }
}
