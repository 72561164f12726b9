//! The parts of a pod that a user or a runtime may set.
//!
//! A subset of Kubernetes' `PodSpec` with the same names and shapes, typed by hand so that the CRDs
//! stay small (embedding the whole template costs 0.4–1.4 MB) and so that everything here is allowed
//! under Pod Security "restricted". Each type converts into its k8s-openapi counterpart through JSON
//! (see [`crate::pods`]), which is why the field names must match exactly.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{rules, schema};

/// One environment variable of the training container.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("an env entry takes either value or valueFrom: remove one of them")
)]
pub struct EnvVar {
    /// Name of the variable.
    #[x_kube(validation = rules::env_name())]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its value as plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,
    /// Where the value comes from, if it is not written here. Set exactly one field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of an environment variable comes from. Set exactly one field.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["secretKeyRef", "configMapKeyRef", "fieldRef"], "valueFrom")
)]
pub struct EnvVarSource {
    /// A key of a Secret in the job's namespace. The operator never reads it: the kubelet does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a ConfigMap in the job's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
    /// A field of the pod, such as status.hostIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldSelector>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct KeySelector {
    /// Name of the Secret or ConfigMap.
    #[x_kube(validation = rules::object_name("name", "a Secret or ConfigMap"))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// The key within it.
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$')").message("key must be a key of the Secret or ConfigMap: letters, digits, '-', '_' and '.'"))]
    #[schemars(length(max = 253))]
    pub key: String,
    /// If true, the pod also starts where the object or key is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A field of the pod.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldSelector {
    /// Path of the field: metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'],
    /// metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP,
    /// status.hostIPs, status.podIP or status.podIPs.
    #[x_kube(validation = rules::pod_field())]
    #[schemars(length(max = 512))]
    pub field_path: String,
}

/// All keys of a Secret or ConfigMap as environment variables. Set exactly one of the references.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["secretRef", "configMapRef"], "an envFrom entry")
)]
pub struct EnvFrom {
    /// Put before each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[ -<>-~]*$')").message("prefix must be printable ASCII without '='"))]
    #[schemars(length(max = 253))]
    pub prefix: Option<String>,
    /// The Secret whose keys become variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// The ConfigMap whose keys become variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<LocalObjectReference>,
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct LocalObjectReference {
    /// Name of the object.
    #[x_kube(validation = rules::object_name("name", "a Secret or ConfigMap"))]
    #[schemars(length(max = 253))]
    pub name: String,
}

/// What one node (one pod of the gang) needs, as in a container's `resources`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = rules::requests_within_limits()
)]
pub struct ResourceRequirements {
    /// The most that the container may use, for example memory: 64Gi; who exceeds that is ended as
    /// OOMKilled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    #[x_kube(validation = rules::resource_names())]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler sets aside; defaults to the limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    #[x_kube(validation = rules::resource_names())]
    pub requests: BTreeMap<String, Quantity>,
}

/// Lets the pods onto nodes with a matching taint.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''").message("a toleration with operator Exists takes no value: remove the value, or use operator Equal"),
    validation = Rule::new("(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')").message("a toleration must have a key; only operator Exists goes without one, and then tolerates every taint"),
    validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')").message("tolerationSeconds only goes with effect NoExecute: set that effect, or remove tolerationSeconds")
)]
pub struct Toleration {
    /// The taint's key; left out with operator Exists it tolerates every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::optional_label_key())]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// Equal (default) or Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Equal', 'Exists']").message("operator must be Equal or Exists"))]
    #[schemars(length(max = 32))]
    pub operator: Option<String>,
    /// The taint's value, for operator Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::label_value("value"))]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule or NoExecute; left out it matches all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['NoSchedule', 'PreferNoSchedule', 'NoExecute']").message("effect must be NoSchedule, PreferNoSchedule or NoExecute; leave it out for all of them"))]
    #[schemars(length(max = 32))]
    pub effect: Option<String>,
    /// For effect NoExecute: how many seconds a running pod may stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// A volume that containers can mount. Set exactly one source; these are the kinds that Pod Security
/// "restricted" allows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["persistentVolumeClaim", "configMap", "secret", "emptyDir", "csi"], "a volume")
)]
pub struct Volume {
    /// Name by which volumeMounts refer to it.
    #[x_kube(validation = rules::volume_name(), validation = Rule::new("!self.startsWith('trainyard-')").message("a volume name must not start with trainyard-: trainyard names its own volumes so"))]
    #[schemars(length(max = 63))]
    pub name: String,
    /// A claim in the job's namespace: datasets, checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PvcVolume>,
    /// The keys of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
    /// The keys of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    /// An empty folder that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolume>,
    /// An inline volume of a CSI driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi: Option<CsiVolume>,
}

/// A persistent volume claim.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcVolume {
    /// Name of the claim.
    #[x_kube(validation = rules::object_name("claimName", "a PersistentVolumeClaim"))]
    #[schemars(length(max = 253))]
    pub claim_name: String,
    /// Mount it read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A ConfigMap as files.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapVolume {
    /// Name of the ConfigMap.
    #[x_kube(validation = rules::object_name("name", "a ConfigMap"))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Mode of the files in decimal (420 is 0644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 511").message("defaultMode must be 0 to 511 (0777)"))]
    pub default_mode: Option<i32>,
    /// If true, the pod also starts where the ConfigMap is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A Secret as files.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolume {
    /// Name of the Secret.
    #[x_kube(validation = rules::object_name("secretName", "a Secret"))]
    #[schemars(length(max = 253))]
    pub secret_name: String,
    /// Mode of the files in decimal (256 is 0400).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 511").message("defaultMode must be 0 to 511 (0777)"))]
    pub default_mode: Option<i32>,
    /// If true, the pod also starts where the Secret is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// An empty folder.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirVolume {
    /// Memory for a tmpfs, left out for the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 'Memory'").message("medium must be Memory; leave it out for the node's disk"))]
    #[schemars(length(max = 32))]
    pub medium: Option<String>,
    /// The most that it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bounded_quantity")]
    pub size_limit: Option<Quantity>,
}

/// An inline CSI volume.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsiVolume {
    /// Name of the CSI driver.
    #[x_kube(validation = rules::object_name("driver", "a CSI driver"))]
    #[schemars(length(max = 253))]
    pub driver: String,
    /// Mount it read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// What the driver needs to know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::attribute_map")]
    pub volume_attributes: BTreeMap<String, String>,
}

/// Where a volume appears in the container.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of the volume.
    #[x_kube(validation = rules::volume_name())]
    #[schemars(length(max = 63))]
    pub name: String,
    /// Path in the container.
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains(':')").message("mountPath must be an absolute path without ':', such as /data"))]
    #[schemars(length(max = 1024))]
    pub mount_path: String,
    /// Path within the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::sub_path())]
    #[schemars(length(max = 1024))]
    pub sub_path: Option<String>,
    /// Mount it read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}
