//! The API over a real socket, with an API server that knows one caller: `ann`, who may read in `ml`.

use std::convert::Infallible;

use axum::body::to_bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::logs::{
    lake::Lake,
    line::{Flags, Line, Origin, Output, StreamId, from_nanos},
    record::{End, Record},
    sink::{Shipment, Sink},
    wal::frame::Declared,
};

fn api_server() -> Client {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (code, answer) = if path.ends_with("/tokenreviews") {
            let known = review["spec"]["token"] == "ann";
            let status = json!({"authenticated": known, "user": {"username": "ann"}});
            (201, json!({"spec": review["spec"], "status": status}))
        } else if path.ends_with("/subjectaccessreviews") {
            let allowed = review["spec"]["resourceAttributes"]["namespace"] == "ml";
            let status = json!({"allowed": allowed});
            (201, json!({"spec": review["spec"], "status": status}))
        } else {
            (
                404,
                json!({"kind": "Status", "code": 404, "reason": "NotFound"}),
            )
        };
        let answer = kube::client::Body::from(answer.to_string().into_bytes());
        let response = Response::builder().status(code).body(answer);
        Ok::<_, Infallible>(response.unwrap())
    });
    Client::new(service, "default")
}

async fn stored(dir: &TempDir, namespace: &str) -> Lake {
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let line = |seq: u64| {
        Record::Line(Line {
            seq,
            time: from_nanos(seq.cast_signed() * 1_000_000_000),
            observed: from_nanos(0),
            output: Output::Unknown,
            flags: Flags::default(),
            message: format!("step {seq}").into_bytes(),
        })
    };
    let mut records: Vec<Record> = (1..=5).map(line).collect();
    records.push(Record::End(End {
        container_id: None,
        complete: true,
        lines: 5,
        bytes: 30,
    }));
    let id = StreamId {
        namespace: namespace.into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt: 1,
        rank: 0,
        container: "trainer".into(),
    };
    let shipment = Shipment {
        declared: Declared {
            id,
            origin: Origin::default(),
        },
        epoch: 1,
        segment: 1,
        records,
    };
    lake.store(&shipment).await.unwrap();
    lake
}

struct Api {
    _dir: TempDir,
    app: Router,
}

impl Api {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        stored(&dir, "secret").await;
        let lake = stored(&dir, "ml").await;
        let app = app(
            Store::new(lake, None),
            api_server(),
            CancellationToken::new(),
        );
        Self { _dir: dir, app }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (u16, HeaderMap, String) {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        (head.status.as_u16(), head.headers, text)
    }
}

#[tokio::test]
async fn nobody_reads_where_they_have_no_right_to_whatever_they_ask() {
    let api = Api::new().await;
    for route in [LOGS, COMPLETENESS] {
        let path = |namespace: &str| {
            let path = route.replace("{namespace}", namespace);
            path.replace("{job}", "bert")
        };
        for (namespace, token, status, words) in [
            ("ml", None, 401, "who are you"),
            ("ml", Some("stale"), 401, "does not accept your token"),
            (
                "secret",
                Some("ann"),
                403,
                "you are ann, and you may not read logs in namespace secret",
            ),
            // Whether there is such a job is not told to those who may not know.
            ("nothing", Some("ann"), 403, "you may not"),
        ] {
            let (code, _, text) = api.get(&path(namespace), token).await;
            assert_eq!(code, status, "{route} {namespace} {token:?}: {text}");
            assert!(text.contains(words), "{text}");
            assert!(!text.contains("step"), "{text}");
        }
        let (code, _, text) = api.get(&path("ml"), Some("ann")).await;
        assert_eq!(code, 200, "{text}");
        let (code, _, text) = api.get(&path("ml%2F..%2Fsecret"), Some("ann")).await;
        assert_eq!(code, 400, "{text}");
    }
}

#[tokio::test]
async fn an_answer_is_what_was_asked_for() {
    let api = Api::new().await;
    let logs = |query: &str| {
        let path = path_of(query);
        let api = &api;
        async move { api.get(&path, Some("ann")).await }
    };
    let (_, headers, text) = logs("grep=[24]$&format=raw").await;
    assert_eq!(text, "step 2\nstep 4\n");
    assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
    let (_, _, text) = logs("tail=1").await;
    assert_eq!(text, "1970-01-01T00:00:05.000000000Z bert/1/0 - step 5\n");
    let (_, _, text) = logs("format=json&limit=1").await;
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["line"], "step 1");
    let (code, _, text) = logs("rank=7").await;
    assert_eq!(
        (code, text.contains("ranks 0") || text.contains("rank 0")),
        (404, true),
        "{text}"
    );
    for wrong in ["grep=(", "tial=1", "tail=1&limit=1"] {
        let (code, _, text) = logs(wrong).await;
        assert_eq!(code, 400, "{wrong}: {text}");
    }
    let path = COMPLETENESS
        .replace("{namespace}", "ml")
        .replace("{job}", "bert");
    let (_, _, text) = api.get(&path, Some("ann")).await;
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["complete"], true, "{found}");
    assert_eq!(found["streams"][0]["lines"], 5);
}

fn path_of(query: &str) -> String {
    let path = LOGS.replace("{namespace}", "ml").replace("{job}", "bert");
    format!("{path}?{query}")
}

#[tokio::test]
async fn an_answer_with_a_limit_says_where_to_go_on() {
    let api = Api::new().await;
    let mut cursor = String::new();
    let mut all = Vec::new();
    loop {
        let path = path_of(&format!("format=raw&limit=2{cursor}"));
        let (code, headers, text) = api.get(&path, Some("ann")).await;
        assert_eq!(code, 200, "{text}");
        if text.is_empty() {
            break;
        }
        all.extend(text.lines().map(str::to_owned));
        let next = headers[CURSOR_HEADER].to_str().unwrap();
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all, ["step 1", "step 2", "step 3", "step 4", "step 5"]);
}

#[tokio::test]
async fn the_page_and_the_document_are_there_for_everybody() {
    let api = Api::new().await;
    let (code, _, text) = api.get("/openapi.json", None).await;
    assert_eq!(code, 200);
    let document: Value = serde_json::from_str(&text).unwrap();
    // Each path of the document is one that is served.
    for path in document["paths"].as_object().unwrap().keys() {
        let (code, _, text) = api.get(path, None).await;
        assert!(matches!(code, 400 | 401), "{path}: {code} {text}");
    }
    let (code, headers, _) = api.get("/", None).await;
    assert_eq!(code, 200);
    assert!(
        headers[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
}
