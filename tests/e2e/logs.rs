//! The collector on a real node: every line is stored, the pod says so, and the verifier agrees.

use kube::ResourceExt;
use serde_json::json;

use crate::site::{Site, eventually, run};

#[tokio::test]
async fn a_pod_says_when_all_its_lines_are_stored_and_the_verifier_agrees() {
    let site = Site::new("lines").await;
    let _operator = site.operator();
    let (mut collector, store) = site.collector();
    let script = "seq 1 3000; sleep 4; seq 3001 6000; printf '\\377\\n\\n'; printf 'no newline'";
    let spec = json!({"command": ["sh", "-c", script]});
    site.submit("lines", spec).await;
    site.running("lines").await;
    // Killed in the middle of it.
    collector.kill();
    let (_collector, _) = site.collector();
    let message = eventually("the pod to say that its logs are stored", || async {
        for pod in site.pod_list().await {
            let conditions = pod
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten());
            let mut found = conditions.filter(|c| c.type_ == "trainyard.dev/LogsComplete");
            if let Some(c) = found.next() {
                let message = c.message.clone().unwrap_or_default();
                return Ok(format!("{} {message}", c.status));
            }
            if pod.metadata.deletion_timestamp.is_some() {
                return Err(format!("{} is being deleted", pod.name_any()));
            }
        }
        Err("no condition".into())
    })
    .await;
    let bytes = (1..=6000).map(|n: u32| n.to_string().len()).sum::<usize>() + 1 + 10;
    assert_eq!(message, format!("True 6003 lines, {bytes} bytes"));
    let report = run(std::process::Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["logs", "verify", "--store"])
        .arg(&store));
    assert!(report.contains("6003 lines"), "{report}");
    assert!(report.contains("continuity proven, complete"), "{report}");
}
