//! The scripted kubelet of `tests/logs` against the real one: the same requests, the same answers, but
//! for the times.

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, PostParams},
    client::Body,
};
use serde_json::{Value, json};

use crate::{
    kubelet::{Kubelet, Refusal},
    site::{BUSYBOX, Site, delete_now, eventually},
};

/// Short and empty lines, one that the runtime splits, and a last one without a newline.
const SCRIPT: &str = "echo a; echo; echo b; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end";
/// What is asked for of a log.
const QUERIES: [&str; 12] = [
    "",
    "&tailLines=0",
    "&tailLines=1",
    "&tailLines=2",
    "&tailLines=4",
    "&tailLines=5",
    "&tailLines=100",
    "&limitBytes=64",
    "&limitBytes=5",
    "&tailLines=3&limitBytes=70",
    "&follow=true",
    "&follow=true&tailLines=2",
];

async fn ask(client: &Client, namespace: &str, pod: &str, query: &str) -> (u16, String) {
    let target = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container=trainer&timestamps=true{query}"
    );
    let request = http::Request::get(target).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.into()).unwrap())
}

/// With every digit 0: stamps differ, and stamps that are cut off.
fn without_digits(text: &str) -> String {
    let masked = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.chars().map(masked).collect()
}

async fn pod(site: &Site, name: &str, image: &str, script: &str, node: Option<&str>) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "trainer", "image": image, "imagePullPolicy": "Never",
                "command": ["sh", "-c", script],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    let pod = serde_json::from_value(pod).unwrap();
    let pods = site.pods();
    pods.create(&PostParams::default(), &pod).await.unwrap()
}

/// Waits until a pod's container waits for this reason, or the pod is in that phase.
async fn is(site: &Site, name: &str, what: &str) {
    eventually(&format!("{name} to be {what}"), || async {
        let pod = site.pods().get(name).await.unwrap();
        let status = serde_json::to_string(&pod.status).unwrap();
        if status.contains(&format!("\"{what}\"")) {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}

#[tokio::test]
async fn the_scripted_kubelet_answers_as_the_real_one_does() {
    let site = Site::new("log-endpoint").await;
    let fake = Kubelet::start(None).await;
    let url = format!("http://{}", fake.address).parse().unwrap();
    let client = Client::try_from(Config::new(url)).unwrap();

    pod(&site, "done", BUSYBOX, SCRIPT, None).await;
    pod(
        &site,
        "runs",
        BUSYBOX,
        &format!("{SCRIPT}; echo; sleep 600"),
        None,
    )
    .await;
    pod(&site, "nothing", BUSYBOX, "true", None).await;
    is(&site, "done", "Succeeded").await;
    is(&site, "nothing", "Succeeded").await;
    is(&site, "runs", "Running").await;
    for name in ["done", "runs"] {
        fake.pod(name).change(|files| {
            for (time, line) in (0..).step_by(10).zip(["a", "", "b", &"x".repeat(40_000)]) {
                files.write(time, line.as_bytes(), true);
            }
            // The runtime writes half a line when its container has exited.
            files.exited = name == "done";
            files.write(100, b"end", !files.exited);
        });
    }
    fake.pod("nothing").change(|files| files.exited = true);
    for name in ["done", "nothing", "runs"] {
        // A running one's log has no end.
        for query in QUERIES
            .iter()
            .filter(|q| name != "runs" || !q.contains("follow"))
        {
            let real = ask(&site.client, &site.namespace, name, query).await;
            let said = ask(&client, &site.namespace, name, query).await;
            let [said, real] = [said, real].map(|(code, body)| (code, without_digits(&body)));
            assert!(
                said == real,
                "{name} {query}:\n{:.200}\n{:.200}",
                said.1,
                real.1
            );
        }
    }
}

#[tokio::test]
async fn the_scripted_kubelet_refuses_as_the_real_one_does() {
    let site = Site::new("log-refusals").await;
    let agrees = async |name: &str, refusal: Refusal| {
        let (code, body) = ask(&site.client, &site.namespace, name, "&follow=true").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(refusal, Refusal(code, body));
    };
    agrees("nobody", Refusal::no_pod("nobody")).await;
    pod(&site, "waits", "localhost/trainyard/none:dev", "", None).await;
    is(&site, "waits", "ErrImageNeverPull").await;
    agrees(
        "waits",
        Refusal::waiting("waits", "trainer", "ErrImageNeverPull"),
    )
    .await;

    // A pod that the API server has told its kubelet of a moment ago, or not yet.
    let nodes = Api::<Node>::all(site.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.unwrap().items;
    let node = nodes[0].name_any();
    for n in 0..200 {
        let name = format!("new-{n}");
        pod(&site, &name, BUSYBOX, "true", Some(&node)).await;
        let (code, body) = ask(&site.client, &site.namespace, &name, "").await;
        if code != 404 {
            delete_now(&site.pods(), &name).await;
            continue;
        }
        let body = serde_json::from_str(&body).unwrap();
        assert_eq!(Refusal::unknown_to_kubelet(&name), Refusal(code, body));
        return;
    }
    panic!("the kubelet always knew the pod before it was asked");
}
