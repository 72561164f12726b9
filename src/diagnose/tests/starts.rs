//! Before the start: images, configuration, places.

use super::{pod, waits};
use crate::{
    api::{FailureAction, FailureClass as C},
    diagnose::{RuleBook, never_starts, not_started, refused},
    plan::PodFacts,
};

#[test]
fn a_name_that_no_registry_has_fails_at_once_and_a_registry_in_trouble_does_not() {
    let pull = |why: &str| {
        format!(
            "Back-off pulling image \"r.example/x:1\": ErrImagePull: rpc error: code = Unknown desc = failed to pull and unpack image \"r.example/x:1\": failed to resolve reference \"r.example/x:1\": {why}"
        )
    };
    for (reason, message, at_once) in [
        ("InvalidImageName", "Failed to apply default image tag \"X Y\": couldn't parse image name: invalid reference format".to_owned(), true),
        ("ErrImageNeverPull", "Container image \"x\" is not present with pull policy of Never".into(), true),
        ("ImagePullBackOff", pull("r.example/x:1: not found"), true),
        ("ErrImagePull", pull("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"), true),
        ("ErrImagePull", pull("failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token: 401 Unauthorized"), true),
        ("ErrImagePull", pull("unexpected status from HEAD request to https://r.example/v2/x/manifests/1: 403 Forbidden"), true),
        ("ErrImagePull", "no match for platform in manifest: not found".into(), true),
        ("ErrImagePull", pull("failed to do request: Head \"https://r.example/v2/x\": dial tcp 10.0.0.1:443: i/o timeout"), false),
        ("ErrImagePull", pull("failed to do request: Head \"https://r.example/v2/x\": dial tcp: lookup r.example on 10.96.0.10:53: no such host"), false),
        ("ErrImagePull", pull("unexpected status from HEAD request to https://r.example/v2/x: 503 Service Unavailable"), false),
        ("ErrImagePull", pull("429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit."), false),
        ("ErrImagePull", pull("failed to do request: dial tcp 10.0.0.1:443: connect: connection refused"), false),
        ("ErrImagePull", pull("httpReadSeeker: failed open: unexpected EOF"), false),
        ("ErrImagePull", "pull QPS exceeded".into(), false),
    ] {
        let pod = waits(reason, &message);
        let found = never_starts(&[&pod], &RuleBook::default());
        assert_eq!(found.is_some(), at_once, "{reason}: {message}");
        let late = not_started(&pod, &RuleBook::default()).unwrap();
        assert_eq!(late.class, C::ImagePull);
        assert_eq!(late.policy.action == FailureAction::Fail, at_once, "{message}");
    }
}

#[test]
fn a_registry_that_the_nodes_do_not_trust_is_waited_for_once_and_not_tried_again() {
    for why in [
        "failed to do request: tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "failed to do request: http: server gave HTTP response to HTTPS client",
    ] {
        let pod = waits(
            "ErrImagePull",
            &format!("failed to pull image \"r.example/x:1\": {why}"),
        );
        assert!(never_starts(&[&pod], &RuleBook::default()).is_none());
        let late = not_started(&pod, &RuleBook::default()).unwrap();
        assert_eq!(late.class, C::ImagePull);
        assert_eq!(late.policy.action, FailureAction::Fail, "{why}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let unplaced = |message: &str| PodFacts {
        unschedulable: Some(message.into()),
        ..pod(0)
    };
    for (pod, class, named) in [
        (
            waits(
                "CreateContainerConfigError",
                "configmap \"train-config\" not found",
            ),
            C::ConfigError,
            "ConfigMap train-config",
        ),
        (
            waits(
                "CreateContainerConfigError",
                "secret \"hf-token\" not found",
            ),
            C::ConfigError,
            "Secret hf-token",
        ),
        (
            waits(
                "CreateContainerConfigError",
                "couldn't find key LR in ConfigMap ml/train-config",
            ),
            C::ConfigError,
            "has no key LR",
        ),
        (
            unplaced(
                "0/4 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.",
            ),
            C::ConfigError,
            "PersistentVolumeClaim data",
        ),
        (
            unplaced(
                "0/4 nodes are available: 1 node(s) had untolerated taint {gpu: true}, 3 Insufficient nvidia.com/gpu. preemption: 0/4 nodes are available.",
            ),
            C::Unschedulable,
            "enough nvidia.com/gpu free",
        ),
        (
            unplaced(
                "0/4 nodes are available: 4 node(s) didn't match Pod's node affinity/selector.",
            ),
            C::Unschedulable,
            "nodeSelector",
        ),
    ] {
        let found = not_started(&pod, &RuleBook::default()).unwrap();
        assert_eq!(found.class, class);
        let hint = found.hint.unwrap();
        assert!(hint.contains(named), "{hint}");
        assert_eq!(found.policy.action, FailureAction::Fail);
        assert_eq!(never_starts(&[&pod], &RuleBook::default()), None);
    }
}

#[test]
fn a_node_that_can_not_set_the_container_up_is_left_for_another() {
    let gpu = waits(
        "CreateContainerError",
        "failed to create containerd task: nvidia-container-cli: initialization error: nvml error: driver not loaded",
    );
    let found = not_started(&gpu, &RuleBook::default()).unwrap();
    assert_eq!(found.class, C::GpuHardware);
    assert!(found.policy.avoid_node);
    let command = waits(
        "RunContainerError",
        "exec: \"trian\": executable file not found in $PATH",
    );
    let found = not_started(&command, &RuleBook::default()).unwrap();
    assert_eq!(
        (found.class, found.policy.action),
        (C::UserError, FailureAction::Fail)
    );
}

#[test]
fn a_refusal_is_a_matter_of_configuration() {
    let book = RuleBook::default();
    let found = refused(
        "pods \"x\" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=8, used: 8, limited: 8",
        false,
        &book,
    );
    assert_eq!(found.class, C::ConfigError);
    assert!(found.hint.unwrap().contains("Quota gpus"));
    let found = refused("pods \"x\" is forbidden: violates PodSecurity", true, &book);
    assert_eq!(found.policy.action, FailureAction::Fail);
}
