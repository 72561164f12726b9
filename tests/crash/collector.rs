//! The collector, as far as the operator can see it: a condition on each pod that has ended.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{api_server::ApiServer, auditor::terminal, store::Key};

/// What is stored of each pod.
pub const LINES: i64 = 3;

/// How long it takes to prove the end of a log.
const PROOF: Duration = Duration::from_millis(300);

/// Whether someone collects the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// Yes.
    Stored,
    /// The operator believes so, but the collector is down.
    Silent,
}

/// Tells of every log that has ended. Runs for ever.
pub async fn run(server: ApiServer) {
    let mut changes = server.changes();
    loop {
        changes.mark_unchanged();
        let ended: Vec<Key> = server.with_quietly(|store| {
            let pods = store.list("pods", "");
            pods.filter(|(_, pod)| terminal(pod) && !told(pod))
                .map(|(key, _)| key.clone())
                .collect()
        });
        if ended.is_empty() {
            let _ = changes.changed().await;
            continue;
        }
        sleep(PROOF).await;
        for key in ended {
            server.note(format!("collector: {} is stored", key.name));
            let _ = server.with(|store| store.edit(&key, tell));
        }
    }
}

fn tell(pod: &mut Value) {
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.push(json!({
            "type": "trainyard.dev/LogsComplete", "status": "True", "reason": "EndProven",
            "message": format!("{LINES} lines, 30 bytes"),
        }));
    }
}

/// Whether its condition is there.
pub fn told(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut types = conditions.into_iter().flatten().map(|c| &c["type"]);
    types.any(|kind| kind == "trainyard.dev/LogsComplete")
}
