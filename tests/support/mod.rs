//! What tests against a real API server share: the server itself with our CRDs on it, a namespace for
//! each test, and a way to wait for something. Nothing here knows what is tested.
//!
//! The server is this checkout's own control-plane cluster (`dev/cluster/cluster`, name from
//! `dev/api-cluster-name`). It comes up on first use in 3 seconds, is shared by all tests of a run and
//! left running; `make down` ends it. Set `TRAINYARD_TEST_KUBECONFIG` to test against another cluster:
//! an ordinary `KUBECONFIG` is not taken, because the tests replace the CRDs of where they run.
#![allow(dead_code)] // each test binary uses its own part

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{sync::OnceCell, time::Instant};

static KUBECONFIG: OnceCell<PathBuf> = OnceCell::const_new();

/// The administrator's kubeconfig of [`control_plane`], once that is up.
///
/// # Panics
/// Before.
pub fn kubeconfig_path() -> &'static Path {
    KUBECONFIG.get().expect("control_plane comes first")
}

/// A client of an API server that knows the CRDs of this build.
///
/// # Panics
/// Where there is none to be had: the message says why.
pub async fn control_plane() -> Client {
    let path = KUBECONFIG
        .get_or_init(|| async {
            let path = kubeconfig();
            install_crds(client(&path).await).await;
            path
        })
        .await;
    // A client lives in the tokio runtime that it was made in, and each test has its own.
    client(path).await
}

/// Creates a namespace of its own for a test; its name begins with `prefix`.
///
/// # Panics
/// Where the API server refuses it.
pub async fn namespace(client: &Client, prefix: &str) -> String {
    let namespace = Namespace {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap_or_else(|e| panic!("creating a namespace {prefix}-…: {e}"))
        .name_any()
}

/// Looks again and again until `look` returns Ok, and returns that.
///
/// # Panics
/// When `deadline` has passed: the message says `what` was waited for, and the last Err, which is what
/// was seen instead.
pub async fn eventually<T, F, Seen>(deadline: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> Seen,
    Seen: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => {
                panic!("waited {deadline:?} until {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let shown = kubeconfig.display();
    let file = Kubeconfig::read_from(kubeconfig)
        .unwrap_or_else(|e| panic!("reading the kubeconfig {shown}: {e}"));
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap_or_else(|e| panic!("the kubeconfig {shown}: {e}"));
    Client::try_from(config).unwrap_or_else(|e| panic!("the kubeconfig {shown}: {e}"))
}

fn kubeconfig() -> PathBuf {
    if let Some(path) = std::env::var_os("TRAINYARD_TEST_KUBECONFIG") {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cluster = std::env::var_os("TRAINYARD_CLUSTER_BIN")
        .map_or_else(|| root.join("dev/cluster/cluster"), PathBuf::from);
    let name = run(&mut Command::new(root.join("dev/api-cluster-name")));
    // Both are idempotent and take the cluster's own lock, so that several test binaries may call them.
    run(Command::new(&cluster).args(["--name", &name, "up", "--control-plane"]));
    run(Command::new(&cluster).args(["--name", &name, "kubeconfig"])).into()
}

fn run(command: &mut Command) -> String {
    // Its words on stderr are shown as they come: a first build of the tools takes minutes.
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}); its words are above",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn install_crds(client: Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in trainyard::api::crds() {
        let name = crd.name_any();
        let manager = PatchParams::apply("trainyard-tests").force();
        api.patch(&name, &manager, &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|e| panic!("applying the CRD {name}: {e}"));
        eventually(
            Duration::from_secs(30),
            &format!("the API server serves {name}"),
            || served(&api, &client, &name),
        )
        .await;
    }
}

async fn served(
    api: &Api<CustomResourceDefinition>,
    client: &Client,
    name: &str,
) -> Result<(), String> {
    let crd = api.get(name).await.map_err(|e| e.to_string())?;
    let conditions = crd.status.and_then(|s| s.conditions).unwrap_or_default();
    if !conditions
        .iter()
        .any(|c| c.type_ == "Established" && c.status == "True")
    {
        return Err(format!("conditions {conditions:?}"));
    }
    // Established is set a moment before the paths are there.
    let path = format!(
        "/apis/{}/{}/{}?limit=1",
        crd.spec.group, crd.spec.versions[0].name, crd.spec.names.plural
    );
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|e| e.to_string())?;
    client
        .request_text(request)
        .await
        .map_err(|e| e.to_string())?;
    Ok(())
}
