//! Real training: PyTorch DistributedDataParallel over two nodes, and its lines in the store.

use serde_json::json;

use crate::site::{Site, reason, run};

#[tokio::test]
async fn a_two_node_training_learns_and_both_ranks_losses_outlive_the_pods() {
    let site = Site::new("ddp").await;
    site.runtime("pytorch", "localhost/trainyard/pytorch:dev", "torchrun")
        .await;
    let _operator = site.operator();
    let (_collector, store) = site.collector();
    let spec = json!({
        "runtimeRef": {"kind": "TrainingRuntime", "name": "pytorch"},
        "command": ["python", "/opt/trainyard/examples/train_ddp.py", "--epochs", "3"],
        "numNodes": 2,
    });
    site.submit("ddp", spec).await;
    let status = site.ended("ddp").await;
    assert_eq!(reason(&status), "Completed", "{status:#?}");
    assert_eq!(status.retries, 0);

    let log = |rank: &str| {
        run(
            std::process::Command::new(env!("CARGO_BIN_EXE_kubectl-trainyard"))
                .args([
                    "logs",
                    "ddp",
                    "--namespace",
                    &site.namespace,
                    "--rank",
                    rank,
                ])
                .arg("--store")
                .arg(&store),
        )
    };
    site.jobs()
        .delete("ddp", &Default::default())
        .await
        .unwrap();
    crate::site::eventually("the pods to be gone", || async {
        let left = crate::site::names(&site.pod_list().await);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    for rank in ["0", "1"] {
        let lines = log(rank);
        let has = |text: &str| {
            assert!(
                lines.contains(text),
                "no {text:?} in rank {rank}'s log:\n{lines}"
            )
        };
        has("WORLD_SIZE=2");
        has(&format!("RANK={rank}"));
        has("MASTER_ADDR=ddp-1-0.ddp");
        has("found rank 0's host");
        let losses = losses(&lines, rank);
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(losses.len() >= 5, "{losses:?}");
        assert!(
            last < first / 2.0,
            "rank {rank}'s loss did not fall: {losses:?}"
        );
    }
}

/// The values after `loss=` in the lines of one rank.
fn losses(lines: &str, rank: &str) -> Vec<f64> {
    lines
        .lines()
        .filter(|line| line.contains(&format!("rank={rank} ")))
        .filter_map(|line| {
            line.split("loss=")
                .nth(1)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .collect()
}
