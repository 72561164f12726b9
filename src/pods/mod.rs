//! PURE: an attempt of a job → its Pods and its Service. One file a launcher.
//!
//! Pods are made so that they pass Pod Security "restricted", are never restarted in place
//! (`restartPolicy: Never`: a gang is retried as a whole), and can find rank 0 by a DNS name.

mod avoid;
mod plain;
#[cfg(test)]
mod tests;
mod torchrun;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvVar, LocalObjectReference, Pod,
        PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext,
        Service, ServiceSpec, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::api::{self, Launcher, RuntimeSpec, TrainingJob, TrainingJobSpec, names};

/// A group for the volumes' files, so that a non-root program can write to a claim. It need not
/// match the image's user: the group is added to it.
const FS_GROUP: i64 = 65532;
/// What Kubernetes takes where a pod does not say.
const KUBERNETES_GRACE: i64 = 30;

/// Why a job and its runtime do not make a pod.
#[derive(Debug, Error)]
pub enum Error {
    /// A field whose inside the CRD's schema does not check.
    #[error("spec.{field} is not what a Pod takes: {source}; correct it and apply the job anew")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The status has no runtime snapshot, which a started job always has.
    #[error("the job's status holds no runtime snapshot; delete the job and apply it anew")]
    NoRuntime,
}

/// One rank of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Rank<'a> {
    job: &'a TrainingJob,
    runtime: &'a RuntimeSpec,
    attempt: i32,
    rank: i32,
}

impl Rank<'_> {
    /// DNS name of rank 0, within the namespace. A gang of one needs no Service.
    fn rank0_host(&self) -> String {
        let job = self.job.name_any();
        if self.job.spec.num_nodes == 1 {
            return "localhost".into();
        }
        format!("{}.{job}", names::pod_name(&job, self.attempt, 0))
    }

    fn procs_per_node(&self) -> i32 {
        self.job
            .spec
            .num_proc_per_node
            .unwrap_or(self.job.spec.gpus_per_node.max(1))
    }
}

/// The pod of `rank` in attempt number `attempt` of `job`.
///
/// # Errors
/// Where the job's free-form fields do not parse, or it has not been started.
pub fn pod(job: &TrainingJob, attempt: i32, rank: i32) -> Result<Pod, Error> {
    let snapshot = job.status.as_ref().and_then(|s| s.runtime.as_ref());
    let runtime = &snapshot.ok_or(Error::NoRuntime)?.spec;
    let rank = Rank {
        job,
        runtime,
        attempt,
        rank,
    };
    Ok(Pod {
        metadata: metadata(rank),
        spec: Some(spec(rank)?),
        status: None,
    })
}

/// How long a pod of the job may take to stop (seconds).
#[must_use]
pub fn grace(job: &TrainingJob) -> i64 {
    let snapshot = job.status.as_ref().and_then(|s| s.runtime.as_ref());
    let seconds = snapshot.and_then(|r| grace_seconds(&job.spec, &r.spec));
    seconds.unwrap_or(KUBERNETES_GRACE)
}

fn grace_seconds(job: &TrainingJobSpec, runtime: &RuntimeSpec) -> Option<i64> {
    job.termination_grace_period_seconds
        .or(runtime.termination_grace_period_seconds)
}

/// The pod, so that whoever deletes it does not take its logs away before they are stored.
#[must_use]
pub fn held(mut pod: Pod) -> Pod {
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    finalizers.push(names::FINALIZER_LOGS.into());
    pod
}

/// The headless Service that gives the gang's pods their DNS names, also before they are ready.
#[must_use]
pub fn service(job: &TrainingJob) -> Service {
    Service {
        metadata: ObjectMeta {
            name: job.metadata.name.clone(),
            namespace: job.metadata.namespace.clone(),
            labels: Some(job_labels(job)),
            owner_references: job.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(BTreeMap::from([(
                names::LABEL_JOB_UID.into(),
                job.uid().unwrap_or_default(),
            )])),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn job_labels(job: &TrainingJob) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_JOB.into(), job.name_any()),
        (names::LABEL_JOB_UID.into(), job.uid().unwrap_or_default()),
        (
            names::LABEL_MANAGED_BY.into(),
            names::LABEL_MANAGED_BY_VALUE.into(),
        ),
    ])
}

fn metadata(rank: Rank) -> ObjectMeta {
    let job = rank.job;
    let mut labels = job.spec.pod_labels.clone();
    labels.extend(job_labels(job));
    labels.insert(names::LABEL_ATTEMPT.into(), rank.attempt.to_string());
    labels.insert(names::LABEL_RANK.into(), rank.rank.to_string());
    let mut annotations = job.spec.pod_annotations.clone();
    if let Some(queue) = &job.spec.queue_name {
        labels.insert(names::KUEUE_QUEUE.into(), queue.clone());
        labels.insert(
            names::KUEUE_GROUP.into(),
            format!("{}-{}", job.name_any(), rank.attempt),
        );
        annotations.insert(
            names::KUEUE_GROUP_SIZE.into(),
            job.spec.num_nodes.to_string(),
        );
    }
    ObjectMeta {
        name: Some(names::pod_name(&job.name_any(), rank.attempt, rank.rank)),
        namespace: job.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: job.controller_owner_ref(&()).map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}

fn spec(rank: Rank) -> Result<PodSpec, Error> {
    let (job, runtime) = (&rank.job.spec, rank.runtime);
    let mut node_selector = runtime.node_selector.clone();
    node_selector.extend(job.node_selector.clone());
    let mut tolerations = runtime.tolerations.clone();
    tolerations.extend(job.tolerations.clone());
    let affinity: Option<Affinity> = job
        .affinity
        .clone()
        .map(serde_json::from_value)
        .transpose()
        .map_err(|source| Error::Field {
            field: "affinity",
            source,
        })?;
    Ok(PodSpec {
        restart_policy: Some("Never".into()),
        // The first process of a PID namespace ignores signals that it does not handle, SIGTERM too: a
        // plain python would run on for its whole grace period. Here the sandbox's pause is that process.
        share_process_namespace: Some(true),
        containers: vec![container(rank)?],
        volumes: Some(volumes(rank)?).filter(|v| !v.is_empty()),
        node_selector: Some(node_selector).filter(|s| !s.is_empty()),
        tolerations: Some(same("tolerations", &tolerations)?).filter(|t: &Vec<_>| !t.is_empty()),
        affinity: avoid::nodes(affinity, rank.job),
        service_account_name: job.service_account_name.clone(),
        automount_service_account_token: Some(job.service_account_name.is_some()),
        enable_service_links: Some(false),
        priority_class_name: job.priority_class_name.clone(),
        termination_grace_period_seconds: grace_seconds(job, runtime),
        image_pull_secrets: Some(
            runtime
                .image_pull_secrets
                .iter()
                .map(|s| LocalObjectReference {
                    name: s.name.clone(),
                })
                .collect::<Vec<_>>(),
        )
        .filter(|s| !s.is_empty()),
        hostname: Some(names::pod_name(
            &rank.job.name_any(),
            rank.attempt,
            rank.rank,
        )),
        subdomain: (job.num_nodes > 1).then(|| rank.job.name_any()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            fs_group: Some(FS_GROUP),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    })
}

fn container(rank: Rank) -> Result<Container, Error> {
    let (job, runtime) = (&rank.job.spec, rank.runtime);
    let command = match runtime.launcher {
        Launcher::Plain => job.command.clone(),
        Launcher::Torchrun => torchrun::command(&job.command),
    };
    Ok(Container {
        name: names::CONTAINER.into(),
        image: Some(job.image.clone().unwrap_or_else(|| runtime.image.clone())),
        image_pull_policy: runtime.image_pull_policy.clone(),
        command: Some(command),
        args: Some(job.args.clone()).filter(|a| !a.is_empty()),
        env: Some(env(rank)?),
        env_from: Some(same("envFrom", &job.env_from)?).filter(|e: &Vec<_>| !e.is_empty()),
        working_dir: job.working_dir.clone(),
        resources: Some(resources(rank)),
        volume_mounts: Some(volume_mounts(rank)?).filter(|m| !m.is_empty()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    })
}

/// The launcher's variables first, then the runtime's, then the job's: a later entry of the same
/// name wins, so a user can override anything on purpose.
fn env(rank: Rank) -> Result<Vec<EnvVar>, Error> {
    let mut env = plain::env(rank);
    if rank.runtime.launcher == Launcher::Torchrun {
        env.extend(torchrun::env(rank));
    }
    let theirs: Vec<EnvVar> = same("env", &[&rank.runtime.env[..], &rank.job.spec.env].concat())?;
    for var in theirs {
        let refers = var.value.as_ref().is_some_and(|v| v.contains("$("));
        match env.iter_mut().find(|e| e.name == var.name) {
            // In its place, so that later entries that refer to it see the new value …
            Some(old) if !refers => *old = var,
            // … unless it refers to others itself, which must come before it.
            _ => {
                env.retain(|e| e.name != var.name);
                env.push(var);
            }
        }
    }
    Ok(env)
}

fn var(name: &str, value: impl ToString) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.to_string()),
        value_from: None,
    }
}

fn resources(rank: Rank) -> ResourceRequirements {
    let mut merged = rank.runtime.resources_per_node.clone().unwrap_or_default();
    if let Some(own) = &rank.job.spec.resources_per_node {
        merged.limits.extend(own.limits.clone());
        merged.requests.extend(own.requests.clone());
        // A job's limit below the runtime's request would make an invalid pod: where a job names a
        // limit and no request, the request follows the limit, as in any pod.
        merged
            .requests
            .retain(|k, _| own.requests.contains_key(k) || !own.limits.contains_key(k));
    }
    if rank.job.spec.gpus_per_node > 0 {
        let gpus = Quantity(rank.job.spec.gpus_per_node.to_string());
        // A device's request must equal its limit, so none of another number may stay.
        merged.requests.remove(&rank.runtime.gpu_resource_name);
        merged
            .limits
            .insert(rank.runtime.gpu_resource_name.clone(), gpus);
    }
    ResourceRequirements {
        limits: Some(merged.limits).filter(|m| !m.is_empty()),
        requests: Some(merged.requests).filter(|m| !m.is_empty()),
        claims: None,
    }
}

const SHM: &str = "trainyard-shm";

fn volumes(rank: Rank) -> Result<Vec<Volume>, Error> {
    let all: Vec<api::Volume> = [&rank.runtime.volumes[..], &rank.job.spec.volumes].concat();
    let mut volumes: Vec<Volume> = same("volumes", &all)?;
    if let Some(size) = rank.runtime.shm_size.as_ref().filter(|_| !mounts_shm(rank)) {
        volumes.push(Volume {
            name: SHM.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(size.clone()),
            }),
            ..Volume::default()
        });
    }
    Ok(volumes)
}

fn volume_mounts(rank: Rank) -> Result<Vec<VolumeMount>, Error> {
    let all = [
        &rank.runtime.volume_mounts[..],
        &rank.job.spec.volume_mounts,
    ]
    .concat();
    let mut mounts: Vec<VolumeMount> = same("volumeMounts", &all)?;
    if rank.runtime.shm_size.is_some() && !mounts_shm(rank) {
        mounts.push(VolumeMount {
            name: SHM.into(),
            mount_path: "/dev/shm".into(),
            ..VolumeMount::default()
        });
    }
    Ok(mounts)
}

/// Whether someone brings a /dev/shm of their own: a second one would make an invalid pod.
fn mounts_shm(rank: Rank) -> bool {
    let mut mounts = (rank.runtime.volume_mounts.iter()).chain(&rank.job.spec.volume_mounts);
    mounts.any(|m| m.mount_path.trim_end_matches('/') == "/dev/shm")
}

/// Our subset of a Kubernetes type as that type: they have the same names and shapes.
fn same<T: DeserializeOwned>(field: &'static str, ours: &impl Serialize) -> Result<T, Error> {
    serde_json::to_value(ours)
        .and_then(serde_json::from_value)
        .map_err(|source| Error::Field { field, source })
}

/// The memory limit of a rank's container, as its manifest gives it.
#[must_use]
pub fn memory_limit(job: &TrainingJob) -> Option<String> {
    let runtime = &job.status.as_ref()?.runtime.as_ref()?.spec;
    let rank = Rank {
        job,
        runtime,
        attempt: 0,
        rank: 0,
    };
    let limit = resources(rank).limits?.remove("memory")?;
    Some(limit.0)
}
