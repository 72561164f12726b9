//! Tables of what pods come out of a job and its runtime; whole pods are compared with the files in
//! `tests/golden` (`UPDATE_GOLDEN=1 cargo test` writes them anew; review the difference).

use std::path::Path;

use serde_json::{Value, json};

use super::{Error, pod, service, torchrun};
use crate::api::TrainingJob;

/// A started job `ddp`, further fields of its spec, and those of its runtime.
fn job(spec: &Value, runtime: &Value) -> TrainingJob {
    let mut own = json!({"runtimeRef": {"name": "pytorch"}, "command": ["python", "train.py"]});
    let mut theirs = json!({"image": "pytorch:2.6"});
    for (to, from) in [(&mut own, spec), (&mut theirs, runtime)] {
        for (key, value) in from.as_object().unwrap() {
            to[key] = value.clone();
        }
    }
    serde_json::from_value(json!({
        "apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "ddp", "namespace": "ml", "uid": "job-uid"},
        "spec": own,
        "status": {
            "retries": 0, "retriesIgnored": 0, "nodes": {},
            "runtime": {"kind": "ClusterTrainingRuntime", "name": "pytorch", "generation": 1, "spec": theirs},
        },
    }))
    .unwrap()
}

fn json_of(job: &TrainingJob, rank: i32) -> Value {
    serde_json::to_value(pod(job, 2, rank).unwrap()).unwrap()
}

fn container(spec: &Value, runtime: &Value) -> Value {
    json_of(&job(spec, runtime), 0)["spec"]["containers"][0].clone()
}

fn everything() -> (Value, Value) {
    let spec = json!({
        "numNodes": 2, "gpusPerNode": 8, "numProcPerNode": 4, "image": "mine:1",
        "command": ["python", "-m", "pkg.train"], "args": ["--lr", "0.1"],
        "env": [
            {"name": "NCCL_DEBUG", "value": "WARN"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CFG_"}, {"secretRef": {"name": "wandb"}}],
        "workingDir": "/workspace",
        "resourcesPerNode": {"limits": {"memory": "64Gi"}, "requests": {"cpu": "16"}},
        "volumes": [
            {"name": "ckpt", "persistentVolumeClaim": {"claimName": "ckpt"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}},
            {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 256}},
        ],
        "volumeMounts": [
            {"name": "ckpt", "mountPath": "/ckpt", "subPath": "ddp"},
            {"name": "keys", "mountPath": "/keys", "readOnly": true},
        ],
        "nodeSelector": {"zone": "b"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}},
        "serviceAccountName": "trainer", "priorityClassName": "high", "queueName": "team-a",
        "podLabels": {"team": "vision", "app.kubernetes.io/managed-by": "me"},
        "podAnnotations": {"note": "mine"},
        "terminationGracePeriodSeconds": 120,
    });
    let runtime = json!({
        "launcher": "torchrun", "imagePullPolicy": "IfNotPresent", "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "NCCL_IB_HCA", "value": "mlx5"}],
        "resourcesPerNode": {"limits": {"cpu": "32", "memory": "512Gi"}, "requests": {"memory": "256Gi"}},
        "shmSize": "16Gi",
        "nodeSelector": {"gpu": "h100", "zone": "a"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "imagenet", "readOnly": true}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
        "terminationGracePeriodSeconds": 60,
    });
    (spec, runtime)
}

/// Compares with, or under `UPDATE_GOLDEN` writes, `tests/golden/{name}`.
fn golden(name: &str, object: &impl serde::Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let is = serde_saphyr::to_string(object).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &is).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(is, expected, "{name}: UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn whole_pods_are_as_reviewed() {
    let (spec, runtime) = everything();
    let full = job(&spec, &runtime);
    golden("pod-torchrun-full.yaml", &pod(&full, 2, 1).unwrap());
    golden("service.yaml", &service(&full));
    let mut plain = runtime;
    plain["launcher"] = json!("plain");
    golden(
        "pod-plain-full.yaml",
        &pod(&job(&spec, &plain), 2, 0).unwrap(),
    );
    golden(
        "pod-plain-least.yaml",
        &pod(&job(&json!({}), &json!({})), 1, 0).unwrap(),
    );
}

#[test]
fn every_pod_passes_pod_security_restricted() {
    let (spec, runtime) = everything();
    for job in [job(&spec, &runtime), job(&json!({}), &json!({}))] {
        let pod = json_of(&job, 0);
        let security = &pod["spec"]["securityContext"];
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod["spec"].get(field), None);
        }
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let own = &container["securityContext"];
            assert_eq!(own["allowPrivilegeEscalation"], false);
            assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(own.get("privileged"), None);
        }
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            assert_eq!(volume.get("hostPath"), None);
        }
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
    }
}

#[test]
fn a_token_is_mounted_only_where_a_service_account_is_named() {
    let token = |spec: Value| {
        json_of(&job(&spec, &json!({})), 0)["spec"]["automountServiceAccountToken"].clone()
    };
    assert_eq!(token(json!({})), false);
    assert_eq!(token(json!({"serviceAccountName": "trainer"})), true);
}

#[test]
fn the_users_command_runs_under_torchrun_once_and_unchanged() {
    for (command, wrapped) in [
        (
            vec!["python", "train.py"],
            vec!["torchrun", "--no-python", "python", "train.py"],
        ),
        (
            vec!["python", "-m", "pkg"],
            vec!["torchrun", "--no-python", "python", "-m", "pkg"],
        ),
        (
            vec!["./run.sh"],
            vec!["torchrun", "--no-python", "./run.sh"],
        ),
        (vec!["torchrun", "train.py"], vec!["torchrun", "train.py"]),
        (
            vec!["/usr/bin/torchrun", "-m", "pkg"],
            vec!["/usr/bin/torchrun", "-m", "pkg"],
        ),
        (
            vec!["python", "-m", "torch.distributed.run", "train.py"],
            vec!["python", "-m", "torch.distributed.run", "train.py"],
        ),
        (
            vec!["python", "train.py", "torchrun"],
            vec!["torchrun", "--no-python", "python", "train.py", "torchrun"],
        ),
    ] {
        let command: Vec<String> = command.into_iter().map(Into::into).collect();
        assert_eq!(torchrun::command(&command), wrapped);
    }
}

fn env(spec: &Value, runtime: &Value) -> Vec<(String, String)> {
    let container = container(spec, runtime);
    let list = container["env"].as_array().unwrap().iter();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    list.map(|e| (text(&e["name"]), text(&e["value"])))
        .collect()
}

fn value(env: &[(String, String)], name: &str) -> String {
    let found: Vec<_> = env.iter().filter(|(n, _)| n == name).collect();
    assert_eq!(found.len(), 1, "{name} once: {env:?}");
    found[0].1.clone()
}

#[test]
fn a_users_variable_wins_over_the_runtimes_and_the_launchers() {
    let runtime = json!({"launcher": "torchrun", "env": [{"name": "A", "value": "runtime"}, {"name": "PET_MAX_RESTARTS", "value": "1"}]});
    let spec = json!({"env": [{"name": "A", "value": "job"}, {"name": "PET_NPROC_PER_NODE", "value": "3"}]});
    let env = env(&spec, &runtime);
    for (name, expected) in [
        ("A", "job"),
        ("PET_MAX_RESTARTS", "1"),
        ("PET_NPROC_PER_NODE", "3"),
    ] {
        assert_eq!(value(&env, name), expected);
    }
}

#[test]
fn variables_that_refer_to_others_come_after_them() {
    // Kubernetes expands $(X) only where X stands before.
    let runtime = json!({"env": [{"name": "ROOT", "value": "/a"}, {"name": "DATA", "value": "$(ROOT)/data"}]});
    let places = |spec: Value| {
        let env = env(&spec, &runtime);
        move |name: &str| env.iter().position(|(n, _)| n == name).unwrap()
    };
    let overridden = places(json!({"env": [{"name": "ROOT", "value": "/b"}]}));
    assert!(overridden("ROOT") < overridden("DATA"));
    let referring = places(
        json!({"env": [{"name": "DISK", "value": "/c"}, {"name": "DATA", "value": "$(DISK)/x"}]}),
    );
    assert!(referring("DISK") < referring("DATA"));
}

#[test]
fn every_rank_knows_who_it_is_and_where_rank_0_is() {
    let gang = job(
        &json!({"numNodes": 3, "gpusPerNode": 8}),
        &json!({"launcher": "torchrun"}),
    );
    let found = json_of(&gang, 2);
    let list = found["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .clone();
    let env: Vec<(String, String)> = list
        .iter()
        .map(|e| {
            (
                e["name"].as_str().unwrap().into(),
                e["value"].as_str().unwrap().into(),
            )
        })
        .collect();
    for (name, expected) in [
        ("TRAINYARD_JOB", "ddp"),
        ("TRAINYARD_ATTEMPT", "2"),
        ("TRAINYARD_RANK", "2"),
        ("TRAINYARD_NUM_NODES", "3"),
        ("TRAINYARD_RANK0_HOST", "ddp-2-0.ddp"),
        ("PET_NNODES", "3"),
        ("PET_NODE_RANK", "2"),
        ("PET_NPROC_PER_NODE", "8"),
        ("PET_MASTER_ADDR", "ddp-2-0.ddp"),
        ("PET_MASTER_PORT", "29500"),
        ("PET_MAX_RESTARTS", "0"),
    ] {
        assert_eq!(value(&env, name), expected, "{name}");
    }
}

#[test]
fn processes_per_node_default_to_the_gpus_or_one() {
    let torchrun = json!({"launcher": "torchrun"});
    for (spec, expected) in [
        (json!({}), "1"),
        (json!({"gpusPerNode": 4}), "4"),
        (json!({"gpusPerNode": 4, "numProcPerNode": 2}), "2"),
    ] {
        assert_eq!(
            value(&env(&spec, &torchrun), "PET_NPROC_PER_NODE"),
            expected
        );
    }
}

#[test]
fn a_job_of_one_node_needs_no_service() {
    let single = job(&json!({}), &json!({"launcher": "torchrun"}));
    assert_eq!(json_of(&single, 0)["spec"].get("subdomain"), None);
    assert_eq!(
        value(&env(&json!({}), &json!({})), "TRAINYARD_RANK0_HOST"),
        "localhost"
    );
    let gang = job(&json!({"numNodes": 2}), &json!({}));
    assert_eq!(json_of(&gang, 0)["spec"]["subdomain"], "ddp");
}

#[test]
fn resources_of_job_and_runtime_make_a_pod_that_is_valid() {
    let runtime = json!({"resourcesPerNode": {
        "limits": {"memory": "64Gi", "cpu": "8"}, "requests": {"memory": "32Gi", "cpu": "4"},
    }});
    for (name, spec, expected) in [
        (
            "the runtime's alone",
            json!({}),
            json!({"limits": {"memory": "64Gi", "cpu": "8"}, "requests": {"memory": "32Gi", "cpu": "4"}}),
        ),
        (
            "a limit below the runtime's request takes that away",
            json!({"resourcesPerNode": {"limits": {"memory": "16Gi"}}}),
            json!({"limits": {"memory": "16Gi", "cpu": "8"}, "requests": {"cpu": "4"}}),
        ),
        (
            "a request of one's own stays beside a limit of one's own",
            json!({"resourcesPerNode": {"limits": {"memory": "16Gi"}, "requests": {"memory": "8Gi"}}}),
            json!({"limits": {"memory": "16Gi", "cpu": "8"}, "requests": {"memory": "8Gi", "cpu": "4"}}),
        ),
        (
            "GPUs are a limit, whatever is requested elsewhere",
            json!({"gpusPerNode": 8, "resourcesPerNode": {"requests": {"nvidia.com/gpu": "1"}}}),
            json!({"limits": {"memory": "64Gi", "cpu": "8", "nvidia.com/gpu": "8"}, "requests": {"memory": "32Gi", "cpu": "4"}}),
        ),
    ] {
        assert_eq!(container(&spec, &runtime)["resources"], expected, "{name}");
    }
    let amd = container(
        &json!({"gpusPerNode": 2}),
        &json!({"gpuResourceName": "amd.com/gpu"}),
    );
    assert_eq!(amd["resources"], json!({"limits": {"amd.com/gpu": "2"}}));
    assert_eq!(container(&json!({}), &json!({}))["resources"], json!({}));
}

#[test]
fn shared_memory_is_there_once() {
    let shm = json!({"shmSize": "16Gi"});
    let mounts = |spec: &Value| {
        let pod = json_of(&job(spec, &shm), 0);
        let volumes = pod["spec"]["volumes"].as_array().map_or(0, Vec::len);
        (
            volumes,
            pod["spec"]["containers"][0]["volumeMounts"].clone(),
        )
    };
    let ours = json!([{"name": "trainyard-shm", "mountPath": "/dev/shm"}]);
    assert_eq!(mounts(&json!({})), (1, ours));
    let own = json!({
        "volumes": [{"name": "mine", "emptyDir": {"medium": "Memory"}}],
        "volumeMounts": [{"name": "mine", "mountPath": "/dev/shm"}],
    });
    assert_eq!(mounts(&own), (1, own["volumeMounts"].clone()));
}

#[test]
fn pods_are_found_by_labels_that_a_user_cant_take_over() {
    let spec = json!({"numNodes": 2, "podLabels": {"team": "vision", "trainyard.dev/rank": "9"}});
    let found = json_of(&job(&spec, &json!({})), 1);
    assert_eq!(found["metadata"]["name"], "ddp-2-1");
    let labels = &found["metadata"]["labels"];
    for (label, expected) in [
        ("team", "vision"),
        ("trainyard.dev/job-name", "ddp"),
        ("trainyard.dev/job-uid", "job-uid"),
        ("trainyard.dev/attempt", "2"),
        ("trainyard.dev/rank", "1"),
    ] {
        assert_eq!(labels[label], expected);
    }
    let owner = &found["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["uid"], &owner["controller"]),
        (&json!("job-uid"), &json!(true))
    );
}

#[test]
fn the_service_selects_this_jobs_pods_and_no_namesakes() {
    let gang = job(&json!({"numNodes": 2}), &json!({}));
    let service = serde_json::to_value(service(&gang)).unwrap();
    let selector = service["spec"]["selector"].as_object().unwrap().clone();
    let labels = json_of(&gang, 0)["metadata"]["labels"].clone();
    assert!(selector.iter().all(|(key, value)| labels[key] == *value));
    assert_eq!(selector["trainyard.dev/job-uid"], "job-uid");
    assert_eq!(
        service["spec"]["publishNotReadyAddresses"], true,
        "ranks meet before they are ready"
    );
}

#[test]
fn a_field_that_is_no_pods_is_named() {
    let wrong = job(&json!({"affinity": {"nodeAffinity": 7}}), &json!({}));
    let error = pod(&wrong, 1, 0).unwrap_err().to_string();
    assert!(
        error.starts_with("spec.affinity is not what a Pod takes: "),
        "{error}"
    );
    let mut unstarted = job(&json!({}), &json!({}));
    unstarted.status = None;
    assert!(matches!(pod(&unstarted, 1, 0), Err(Error::NoRuntime)));
}

#[test]
fn a_node_that_failed_the_job_is_not_preferred_and_not_forbidden_either() {
    let zone = json!({"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}});
    let own = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [zone]}});
    for (affinity, before) in [(json!(null), vec![]), (own, vec![zone])] {
        let mut job = job(&json!({"affinity": affinity}), &json!({}));
        let affinity = |job: &TrainingJob| json_of(job, 0)["spec"]["affinity"].clone();
        let status = job.status.as_mut().unwrap();
        status.avoided_nodes = serde_json::from_value(json!([
            {"name": "gpu-7", "class": "GpuHardware", "until": "2026-03-02T10:00:00Z"},
            {"name": "gpu-9", "class": "NodeLost", "until": "2026-03-02T10:00:00Z"},
        ]))
        .unwrap();
        let avoid = |node: &str| {
            json!({"weight": 100, "preference": {"matchFields": [
                {"key": "metadata.name", "operator": "NotIn", "values": [node]},
            ]}})
        };
        let mut all = before.clone();
        all.extend([avoid("gpu-7"), avoid("gpu-9")]);
        let expected =
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": all}});
        assert_eq!(affinity(&job), expected);
        job.status.as_mut().unwrap().avoided_nodes.clear();
        let without =
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": before}});
        let without = if before.is_empty() {
            json!(null)
        } else {
            without
        };
        assert_eq!(affinity(&job), without);
    }
}
