//! Wrong details of a job's pods: environment, resources, volumes, labels, scheduling. Without these
//! rules the job would be accepted, and fail when its pods are created, when nobody looks any more.

use crate::manifest::{check, job, wrong};

#[tokio::test]
async fn a_wrong_environment_is_refused_when_the_user_still_looks() {
    check("wrong-env", job, &[
        wrong("which of the two?", "env: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", &[
            "spec.env[0]: Invalid value: an env entry takes either value or valueFrom: remove one of them"]),
        wrong("which of the two?", "env: [{name: A, value: b}, {name: A, value: c}]", &[
            "spec.env: Invalid value: two env entries have the same name: give each its own, or remove one"]),
        wrong("no pod takes it", "env: [{name: A=b}]", &[
            "spec.env[0].name: Invalid value: \"A=b\": an env name must be printable ASCII without '=': write name and value as two fields"]),
        wrong("no pod takes it", "env: [{name: \"\", value: b}]", &[
            "spec.env[0].name: Invalid value: \"\": an env name must be printable ASCII without '=': write name and value as two fields"]),
        wrong("a number is no text", "env: [{name: A, value: 1}]", &[
            "spec.env[0].value: Invalid value: \"integer\": spec.env[0].value in body must be of type string: \"integer\""]),
        wrong("a value from nowhere", "env: [{name: A, valueFrom: {}}]", &[
            "spec.env[0].valueFrom: Invalid value: valueFrom takes exactly one of secretKeyRef, configMapKeyRef and fieldRef"]),
        wrong("a value from two places", "env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}, fieldRef: {fieldPath: metadata.uid}}}]", &[
            "spec.env[0].valueFrom: Invalid value: valueFrom takes exactly one of secretKeyRef, configMapKeyRef and fieldRef"]),
        wrong("no key", "env: [{name: A, valueFrom: {secretKeyRef: {name: a}}}]", &[
            "spec.env[0].valueFrom.secretKeyRef.key: Required value"]),
        wrong("no such key can be", "env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: a/b}}}]", &[
            "spec.env[0].valueFrom.secretKeyRef.key: Invalid value: \"a/b\": key must be a key of the Secret or ConfigMap: letters, digits, '-', '_' and '.'"]),
        wrong("no such Secret can be", "env: [{name: A, valueFrom: {secretKeyRef: {name: My_Secret, key: b}}}]", &[
            "spec.env[0].valueFrom.secretKeyRef.name: Invalid value: \"My_Secret\": name must name a Secret or ConfigMap: lower-case letters, digits, '-' and '.'"]),
        wrong("no such field", "env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]", &[
            "spec.env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"status.phase\": fieldPath must be metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs"]),
        wrong("from nowhere", "envFrom: [{prefix: A_}]", &[
            "spec.envFrom[0]: Invalid value: an envFrom entry takes exactly one of secretRef and configMapRef"]),
        wrong("from two places", "envFrom: [{secretRef: {name: a}, configMapRef: {name: b}}]", &[
            "spec.envFrom[0]: Invalid value: an envFrom entry takes exactly one of secretRef and configMapRef"]),
        wrong("no pod takes it", "envFrom: [{prefix: A=, secretRef: {name: a}}]", &[
            "spec.envFrom[0].prefix: Invalid value: \"A=\": prefix must be printable ASCII without '='"]),
        wrong("no container starts there", "workingDir: src", &[
            "spec.workingDir: Invalid value: \"src\": workingDir must be an absolute path, such as /workspace; leave it out for the image's own"]),
        wrong("no image is called so", "image: \"\"", &[
            "spec.image: Invalid value: \"\": image must name a container image, without spaces; leave it out to use the runtime's"]),
        wrong("copied with a space", "image: \"pytorch:2.6 \"", &[
            "spec.image: Invalid value: \"pytorch:2.6 \": image must name a container image, without spaces; leave it out to use the runtime's"]),
        wrong("a version is no image", "image: 2.6", &[
            "spec.image: Invalid value: \"number\": spec.image in body must be of type string: \"number\""]),
    ]).await;
}

#[tokio::test]
async fn resources_that_no_node_can_give_are_refused() {
    check("wrong-resources", job, &[
        wrong("no number", "resourcesPerNode: {limits: {memory: lots}}", &[
            "spec.resourcesPerNode.limits[memory]: Invalid value: \"lots\": a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi"]),
        wrong("no such unit", "resourcesPerNode: {limits: {memory: 64GB}}", &[
            "spec.resourcesPerNode.limits[memory]: Invalid value: \"64GB\": a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi"]),
        wrong("less than nothing", "resourcesPerNode: {limits: {memory: -1Gi}}", &[
            "spec.resourcesPerNode.limits[memory]: Invalid value: \"-1Gi\": a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi"]),
        wrong("less than nothing", "resourcesPerNode: {requests: {cpu: -1}}", &[
            "spec.resourcesPerNode.requests[cpu]: Invalid value: -1: a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi"]),
        wrong("half a CPU is written 500m", "resourcesPerNode: {requests: {cpu: 0.5}}", &[
            "spec.resourcesPerNode.requests.cpu: Invalid value: \"number\": spec.resourcesPerNode.requests.cpu in body must be of type integer,string: \"number\""]),
        wrong("no such resource: the pods would wait for ever", "resourcesPerNode: {limits: {gpu: 1}}", &[
            "spec.resourcesPerNode.limits: Invalid value: a resource must be cpu, memory, ephemeral-storage, hugepages-SIZE, or a full name such as nvidia.com/gpu; for GPUs set gpusPerNode"]),
        wrong("no pod takes it", "resourcesPerNode: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}", &[
            "spec.resourcesPerNode: Invalid value: a request exceeds its limit: lower the request or raise the limit"]),
        wrong("ephemeral storage counts too", "resourcesPerNode: {requests: {ephemeral-storage: 2}, limits: {ephemeral-storage: 1}}", &[
            "spec.resourcesPerNode: Invalid value: a request exceeds its limit: lower the request or raise the limit"]),
    ]).await;
}

#[tokio::test]
async fn a_volume_that_no_pod_can_have_is_refused() {
    check("wrong-volumes", job, &[
        wrong("nothing to mount", "volumes: [{name: data}]", &[
            "spec.volumes[0]: Invalid value: a volume takes exactly one of persistentVolumeClaim, configMap, secret, emptyDir and csi"]),
        wrong("which of the two?", "volumes: [{name: data, emptyDir: {}, configMap: {name: a}}]", &[
            "spec.volumes[0]: Invalid value: a volume takes exactly one of persistentVolumeClaim, configMap, secret, emptyDir and csi"]),
        wrong("Pod Security forbids the host's files", "volumes: [{name: data, hostPath: {path: /}}]", &[
            "TrainingJob in version \"v1alpha1\" cannot be handled as a TrainingJob: strict decoding error: unknown field \"spec.volumes[0].hostPath\""]),
        wrong("which of the two?", "volumes: [{name: data, emptyDir: {}}, {name: data, emptyDir: {}}]", &[
            "spec.volumes: Invalid value: two volumes have the same name: give each its own, or remove one"]),
        wrong("no pod takes it", "volumes: [{name: My_Data, emptyDir: {}}]", &[
            "spec.volumes[0].name: Invalid value: \"My_Data\": a volume name must be lower-case letters, digits and '-', starting and ending with a letter or digit"]),
        wrong("it would hide the shared memory", "volumes: [{name: trainyard-shm, emptyDir: {}}]", &[
            "spec.volumes[0].name: Invalid value: \"trainyard-shm\": a volume name must not start with trainyard-: trainyard names its own volumes so"]),
        wrong("no such claim can be", "volumes: [{name: data, persistentVolumeClaim: {claimName: \"\"}}]", &[
            "spec.volumes[0].persistentVolumeClaim.claimName: Invalid value: \"\": claimName must name a PersistentVolumeClaim: lower-case letters, digits, '-' and '.'"]),
        wrong("a mode of more than 0777", "volumes: [{name: data, secret: {secretName: a, defaultMode: 600}}]", &[
            "spec.volumes[0].secret.defaultMode: Invalid value: 600: defaultMode must be 0 to 511 (0777)"]),
        wrong("no such medium", "volumes: [{name: data, emptyDir: {medium: RAM}}]", &[
            "spec.volumes[0].emptyDir.medium: Invalid value: \"RAM\": medium must be Memory; leave it out for the node's disk"]),
        wrong("no number", "volumes: [{name: data, emptyDir: {sizeLimit: big}}]", &[
            "spec.volumes[0].emptyDir.sizeLimit: Invalid value: \"big\": a quantity must be a number of 0 or more with an optional unit, such as 4, 500m or 16Gi"]),
        wrong("one would hide the other", "volumeMounts: [{name: a, mountPath: /data}, {name: b, mountPath: /data}]", &[
            "spec.volumeMounts: Invalid value: two volumeMounts have the same mountPath: give each its own, or remove one"]),
        wrong("relative to what?", "volumeMounts: [{name: a, mountPath: data}]", &[
            "spec.volumeMounts[0].mountPath: Invalid value: \"data\": mountPath must be an absolute path without ':', such as /data"]),
        wrong("out of the volume", "volumeMounts: [{name: a, mountPath: /data, subPath: ../b}]", &[
            "spec.volumeMounts[0].subPath: Invalid value: \"../b\": subPath must be a relative path within the volume, without '..'"]),
        wrong("no volume is called so", "volumeMounts: [{name: \"\", mountPath: /data}]", &[
            "spec.volumeMounts[0].name: Invalid value: \"\": a volume name must be lower-case letters, digits and '-', starting and ending with a letter or digit"]),
    ]).await;
}

#[tokio::test]
async fn labels_and_scheduling_that_no_pod_can_have_are_refused() {
    check("wrong-labels", job, &[
        wrong("trainyard would lose its pods", "podLabels: {trainyard.dev/rank: \"0\"}", &[
            "spec.podLabels: Invalid value: podLabels must not start with trainyard.dev/: trainyard finds its pods by those"]),
        wrong("no pod takes it", "podLabels: {a b: c}", &[
            "spec.podLabels: Invalid value: a key in podLabels must be letters, digits, '-', '_' and '.', with an optional domain and '/' before it, such as example.com/team"]),
        wrong("no pod takes it", "podLabels: {team: a/b}", &[
            "spec.podLabels: Invalid value: a value in podLabels must be up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"]),
        wrong("no pod takes it", "podAnnotations: {a b: c}", &[
            "spec.podAnnotations: Invalid value: a key in podAnnotations must be letters, digits, '-', '_' and '.', with an optional domain and '/' before it, such as example.com/team"]),
        wrong("no node has it", "nodeSelector: {zone: a b}", &[
            "spec.nodeSelector: Invalid value: a value in nodeSelector must be up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"]),
        wrong("no such operator", "tolerations: [{key: a, operator: In}]", &[
            "spec.tolerations[0].operator: Invalid value: \"In\": operator must be Equal or Exists"]),
        wrong("no such effect", "tolerations: [{key: a, operator: Exists, effect: NoRun}]", &[
            "spec.tolerations[0].effect: Invalid value: \"NoRun\": effect must be NoSchedule, PreferNoSchedule or NoExecute; leave it out for all of them"]),
        wrong("the value would be ignored", "tolerations: [{key: a, operator: Exists, value: b}]", &[
            "spec.tolerations[0]: Invalid value: a toleration with operator Exists takes no value: remove the value, or use operator Equal"]),
        wrong("tolerates nothing", "tolerations: [{effect: NoSchedule}]", &[
            "spec.tolerations[0]: Invalid value: a toleration must have a key; only operator Exists goes without one, and then tolerates every taint"]),
        wrong("the seconds would be ignored", "tolerations: [{key: a, operator: Exists, tolerationSeconds: 5}]", &[
            "spec.tolerations[0]: Invalid value: tolerationSeconds only goes with effect NoExecute: set that effect, or remove tolerationSeconds"]),
        wrong("no such ServiceAccount can be", "serviceAccountName: Me", &[
            "spec.serviceAccountName: Invalid value: \"Me\": serviceAccountName must name a ServiceAccount: lower-case letters, digits, '-' and '.'"]),
        wrong("no queue is called so", "queueName: \"\"", &[
            "spec.queueName: Invalid value: \"\": queueName must name a Kueue LocalQueue: lower-case letters, digits, '-' and '.'"]),
        wrong("no class is called so", "priorityClassName: High Priority", &[
            "spec.priorityClassName: Invalid value: \"High Priority\": priorityClassName must name a PriorityClass: lower-case letters, digits, '-' and '.'"]),
        wrong("nobody would run the job", "managedBy: kueue", &[
            "spec.managedBy: Invalid value: \"kueue\": managedBy must be a domain and a path, such as example.com/controller; leave it out for trainyard"]),
    ]).await;
}
