//! Wrong TrainingJobs: names, numbers, the command, deadlines. What concerns the pods' details is in
//! [`crate::wrong_pods`].

use crate::manifest::{check, job, wrong};

/// What the API server puts before an unknown or a duplicate field.
macro_rules! strict {
    ($what:literal) => {
        concat!(
            "TrainingJob in version \"v1alpha1\" cannot be handled as a TrainingJob: strict decoding error: ",
            $what
        )
    };
}

const NAME_RULE: &str = "<nil>: Invalid value: metadata.name must be lower-case letters, digits and '-', starting with a letter, because it is also a DNS name: rename it";

#[tokio::test]
async fn a_number_out_of_range_is_refused_before_it_costs_gpu_hours() {
    check("wrong-numbers", job, &[
        wrong("a gang of no node would wait for ever", "numNodes: 0", &[
            "spec.numNodes: Invalid value: 0: numNodes must be 1 to 1024"]),
        wrong("a negative gang makes no sense to anybody", "numNodes: -1", &[
            "spec.numNodes: Invalid value: -1: numNodes must be 1 to 1024"]),
        wrong("a slip of the finger would ask for 20000 pods", "numNodes: 20000", &[
            "spec.numNodes: Invalid value: 20000: numNodes must be 1 to 1024"]),
        wrong("half a node can't be had", "numNodes: 1.5", &[
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.numNodes", "spec.numNodes: Invalid value: \"float64\": spec.numNodes in body must be of type int32: \"float64\""]),
        wrong("a quoted number is no number", "numNodes: \"2\"", &[
            "spec.numNodes: Invalid value: \"string\": spec.numNodes in body must be of type integer: \"string\""]),
        wrong("negative GPUs can't be had", "gpusPerNode: -1", &[
            "spec.gpusPerNode: Invalid value: -1: gpusPerNode must be 0 to 64; 0 means none"]),
        wrong("no node has 100 GPUs: the pods would wait for ever", "gpusPerNode: 100", &[
            "spec.gpusPerNode: Invalid value: 100: gpusPerNode must be 0 to 64; 0 means none"]),
        wrong("torchrun would start nothing", "numProcPerNode: 0", &[
            "spec.numProcPerNode: Invalid value: 0: numProcPerNode must be 1 to 256"]),
        wrong("a retry loop of 101", "backoffLimit: 101", &[
            "spec.backoffLimit: Invalid value: 101: backoffLimit must be 0 to 100; 0 means no retry"]),
        wrong("a negative budget", "backoffLimit: -1", &[
            "spec.backoffLimit: Invalid value: -1: backoffLimit must be 0 to 100; 0 means no retry"]),
        wrong("a word is no truth value", "suspend: \"yes\"", &[
            "spec.suspend: Invalid value: \"string\": spec.suspend in body must be of type boolean: \"string\""]),
    ]).await;
}

#[tokio::test]
async fn a_deadline_that_ends_the_job_at_once_is_refused() {
    check("wrong-times", job, &[
        wrong("the job would fail at once", "activeDeadlineSeconds: 0", &[
            "spec.activeDeadlineSeconds: Invalid value: 0: activeDeadlineSeconds must be 1 to 315360000 (ten years); leave it out for no deadline"]),
        wrong("the job would fail at once, every time", "startDeadlineSeconds: -5", &[
            "spec.startDeadlineSeconds: Invalid value: -5: startDeadlineSeconds must be 1 to 315360000 (ten years); leave it out to wait for ever"]),
        wrong("a time that no clock reaches overflows", "activeDeadlineSeconds: 9223372036854775807", &[
            "spec.activeDeadlineSeconds: Invalid value: 9223372036854775807: activeDeadlineSeconds must be 1 to 315360000 (ten years); leave it out for no deadline"]),
        wrong("the start would be late after the job's end", "activeDeadlineSeconds: 60\n  startDeadlineSeconds: 61", &[
            "spec: Invalid value: startDeadlineSeconds must not exceed activeDeadlineSeconds: the whole job would end before its start is late"]),
        wrong("the job would be deleted before it ended", "ttlSecondsAfterFinished: -1", &[
            "spec.ttlSecondsAfterFinished: Invalid value: -1: ttlSecondsAfterFinished must be 0 to 315360000 (ten years); leave it out to keep the job"]),
        wrong("a duration is in seconds, not a word", "activeDeadlineSeconds: 2h", &[
            "spec.activeDeadlineSeconds: Invalid value: \"string\": spec.activeDeadlineSeconds in body must be of type integer: \"string\""]),
        wrong("the backoff would exceed its own maximum", "failurePolicy: {backoffBaseSeconds: 700}", &[
            "spec.failurePolicy: Invalid value: backoffBaseSeconds must not exceed backoffMaxSeconds (600 where it is left out): raise the maximum too"]),
        wrong("a retry before the failure", "failurePolicy: {backoffBaseSeconds: -1}", &[
            "spec.failurePolicy.backoffBaseSeconds: Invalid value: -1: backoffBaseSeconds must be 0 to 86400 (a day); 0 retries at once"]),
        wrong("a job that seems dead for weeks", "failurePolicy: {backoffMaxSeconds: 1000000}", &[
            "spec.failurePolicy.backoffMaxSeconds: Invalid value: 1000000: backoffMaxSeconds must be 0 to 86400 (a day)"]),
        wrong("a node that can't be freed for a day", "terminationGracePeriodSeconds: 86400", &[
            "spec.terminationGracePeriodSeconds: Invalid value: 86400: terminationGracePeriodSeconds must be 0 to 3600 (an hour)"]),
    ]).await;
}

#[tokio::test]
async fn a_typo_in_a_field_name_is_refused_not_ignored() {
    check(
        "wrong-fields",
        job,
        &[
            wrong(
                "a default would be used in its place",
                "numNode: 2",
                &[strict!("unknown field \"spec.numNode\"")],
            ),
            wrong(
                "the deepest level counts too",
                "failurePolicy: {backofBaseSeconds: 2}",
                &[strict!(
                    "unknown field \"spec.failurePolicy.backofBaseSeconds\""
                )],
            ),
            wrong(
                "one of two values would be dropped",
                "numNodes: 2\n  numNodes: 4",
                &[strict!(
                    "yaml: unmarshal errors:\n  line 8: key \"numNodes\" already set in map"
                )],
            ),
            wrong(
                "a pod's field is not a job's",
                "containers: [{name: a}]",
                &[strict!("unknown field \"spec.containers\"")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_job_without_a_program_or_a_runtime_is_refused() {
    let spec = |spec: &str| {
        format!(
            "apiVersion: trainyard.dev/v1alpha1\nkind: TrainingJob\nmetadata: {{name: bert}}\n{spec}\n"
        )
    };
    check("wrong-specs", spec, &[
        wrong("no spec, no job", "", &["spec: Required value"]),
        wrong("a field beside the spec is ignored", "spec: {runtimeRef: {name: a}, command: [a]}\nnumNodes: 2", &[
            strict!("unknown field \"numNodes\"")]),
        wrong("nothing to run", "spec: {runtimeRef: {name: pytorch}}", &[
            "spec.command: Required value"]),
        wrong("the typo hides that the command is missing", "spec: {runtimeRef: {name: pytorch}, comand: [a]}", &[
            strict!("unknown field \"spec.comand\"")]),
        wrong("nothing to run", "spec: {runtimeRef: {name: pytorch}, command: []}", &[
            "spec.command: Invalid value: command must name the program to run, for example [\"python\", \"train.py\"]"]),
        wrong("the shell variable was empty", "spec: {runtimeRef: {name: pytorch}, command: [\"\", train.py]}", &[
            "spec.command: Invalid value: command must name the program to run, for example [\"python\", \"train.py\"]"]),
        wrong("a shell line is not a list", "spec: {runtimeRef: {name: pytorch}, command: python train.py}", &[
            "spec.command: Invalid value: \"string\": spec.command in body must be of type array: \"string\""]),
        wrong("a number among the arguments", "spec: {runtimeRef: {name: pytorch}, command: [train, --epochs, 3]}", &[
            "spec.command[2]: Invalid value: \"integer\": spec.command[2] in body must be of type string: \"integer\""]),
        wrong("no image to run on", "spec: {command: [a]}", &["spec.runtimeRef: Required value"]),
        wrong("no image to run on", "spec: {command: [a], runtimeRef: {}}", &[
            "spec.runtimeRef.name: Required value"]),
        wrong("no runtime has no name", "spec: {command: [a], runtimeRef: {name: \"\"}}", &[
            "spec.runtimeRef.name: Invalid value: \"\": runtimeRef.name must name a runtime: kubectl get clustertrainingruntimes,trainingruntimes lists them"]),
        wrong("a name where an object is needed", "spec: {command: [a], runtimeRef: pytorch}", &[
            "spec.runtimeRef: Invalid value: \"string\": spec.runtimeRef in body must be of type object: \"string\""]),
        wrong("only two kinds are runtimes", "spec: {command: [a], runtimeRef: {name: a, kind: Runtime}}", &[
            "spec.runtimeRef.kind: Unsupported value: \"Runtime\": supported values: \"ClusterTrainingRuntime\", \"TrainingRuntime\""]),
    ]).await;
}

#[tokio::test]
async fn a_name_that_no_pod_can_have_is_refused_with_the_job() {
    let named = |metadata: &str| {
        format!(
            "apiVersion: trainyard.dev/v1alpha1\nkind: TrainingJob\nmetadata: {{{metadata}}}\nspec: {{runtimeRef: {{name: pytorch}}, command: [a]}}\n"
        )
    };
    check(
        "wrong-names",
        named,
        &[
            wrong(
                "pods could not be named",
                "name: a23456789-123456789-123456789-123456789-123456789-1234",
                &["<nil>: Invalid value: metadata.name must be at most 53 characters, because its pods are named {name}-{attempt}-{rank}: shorten it"],
            ),
            wrong(
                "the Service could not be named",
                "name: bert.v2",
                &[NAME_RULE],
            ),
            wrong(
                "the Service could not be named",
                "name: 2nd-try",
                &[NAME_RULE],
            ),
        wrong("Kubernetes refuses capitals", "name: Bert", &[
                "<nil>: Invalid value: metadata.name must be lower-case letters, digits and '-', starting with a letter, because it is also a DNS name: rename it", "metadata.name: Invalid value: \"Bert\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"]),
            wrong(
                "a generated name is one too",
                "generateName: 7-",
                &[NAME_RULE],
            ),
            wrong(
                "labels would be lost",
                "name: bert, lables: {a: b}",
                &[strict!("unknown field \"metadata.lables\"")],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_job_too_large_to_store_ten_thousand_of_is_refused() {
    let long = |field: &str| {
        let text = "x".repeat(70_000);
        job(&match field {
            "podAnnotations" => format!(
                "podAnnotations: {{{}}}",
                (0..5)
                    .map(|i| format!("a{i}: {}", &text[..60_000]))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "env" => format!(
                "env: [{}]",
                (0..10)
                    .map(|i| format!("{{name: A{i}, value: {}}}", &text[..30_000]))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            "many args" => format!("args: [{}]", vec!["x"; 513].join(", ")),
            list => format!("{list}: [{text}, {text}]"),
        }
        .replace("  command: [python, train.py]\n  command", "  command"))
    };
    check("wrong-sizes", long, &[
        wrong("a program in the arguments", "args", &[
            "spec.args: Invalid value: args holds more than 128 KiB: put what is long into the image, a ConfigMap or a volume"]),
        wrong("a data set in the environment", "env", &[
            "spec.env: Invalid value: env holds more than 256 KiB: put what is long into the image, a ConfigMap or a volume"]),
        wrong("Kubernetes takes no more on a pod", "podAnnotations", &[
            "spec.podAnnotations: Invalid value: podAnnotations holds more than 256 KiB: put what is long into the image, a ConfigMap or a volume"]),
        wrong("a file list in the arguments", "many args", &[
            "spec.args: Too many: 513: must have at most 512 items"]),
    ]).await;
}
