//! A real S3 server on loopback: versitygw from dev/cluster's pinned tools, whose buckets are folders.
#![allow(dead_code)] // each test binary uses its own part

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use trainyard::logs::{lake::Lake, place};

const ACCESS: &str = "trainyard";
const SECRET: &str = "not-a-secret";
/// The bucket's name.
const BUCKET: &str = "logs";

pub struct Server {
    root: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Server {
    /// A server with an empty bucket; `root` is an empty folder.
    pub fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join("data").join(BUCKET)).unwrap();
        std::fs::create_dir_all(root.join("meta")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let mut server = Self {
            root: root.to_owned(),
            port,
            process: None,
        };
        server.restart();
        server
    }

    /// Starts it again, in the same place.
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.root.join("versitygw.log")).unwrap();
        let process = Command::new(versitygw())
            .args(["--port", &format!("127.0.0.1:{}", self.port), "--quiet"])
            .args(["--access", ACCESS, "--secret", SECRET])
            .args(["posix", "--sidecar"])
            .arg(self.root.join("meta"))
            .arg(self.root.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "versitygw does not listen: {}",
                std::fs::read_to_string(self.root.join("versitygw.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bucket, as any program with access to the server's disk sees it.
    pub fn folder(&self) -> PathBuf {
        self.root.join("data").join(BUCKET)
    }

    /// The bucket as a store.
    pub fn lake(&self) -> Lake {
        lake(self.port, SECRET)
    }

    /// The bucket for somebody with the wrong secret.
    pub fn forbidden(&self) -> Lake {
        lake(self.port, "wrong")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A bucket behind a port of loopback.
pub fn lake(port: u16, secret: &str) -> Lake {
    let variables = [
        ("AWS_ACCESS_KEY_ID", ACCESS),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let place = format!("s3://{BUCKET}");
    let objects = place::open(&place, variables).unwrap();
    Lake::new(Arc::clone(&objects), &place)
}

/// The same behind another port, for who has the right secret.
pub fn lake_at(port: u16) -> Lake {
    lake(port, SECRET)
}

fn versitygw() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cluster = std::env::var_os("TRAINYARD_CLUSTER_BIN")
        .map_or_else(|| root.join("dev/cluster/cluster"), PathBuf::from);
    let output = Command::new(cluster)
        .args(["tool", "versitygw"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "its words are above");
    String::from_utf8_lossy(&output.stdout).trim().into()
}
