//! The node: the scripted kubelet in a process of its own, so that its memory is not the collector's.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use trainyard::logs::line::nanos;

use crate::{files::Files, kubelet::Kubelet};

/// A file is rotated at this size.
const FILE: usize = 256 * 1024;

/// The process.
pub struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    pub address: String,
}

impl Node {
    /// With so many containers, each of which has written a line, and which go on with so many bytes
    /// a second together.
    pub fn start(containers: usize, rate: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["node", &containers.to_string(), &rate.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut address).unwrap();
        Self {
            stdin: child.stdin.take(),
            child,
            address: address.trim().to_owned(),
        }
    }

    /// All containers exit.
    pub fn exit(&self) {
        if let Some(mut stdin) = self.stdin.as_ref() {
            let _ = stdin.write_all(b"exit\n");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of a container's pod.
pub fn name(n: usize) -> String {
    format!("pod-{n}")
}

/// Runs it, until its parent ends.
pub async fn run(args: &[String]) {
    let [containers, rate] = [0, 1].map(|at: usize| args[at].parse::<usize>().unwrap());
    let certificate =
        CertificateDer::from_pem_slice(include_bytes!("../../tests/logs/tls/certificate.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../tests/logs/tls/key.pem"));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    let kubelet = Kubelet::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let write = move |files: &mut Files, line: &str| {
        files.write(nanos(Timestamp::now()), line.as_bytes(), true)
    };
    for n in 0..containers {
        kubelet
            .pod(&name(n))
            .change(|files| write(files, "it begins"));
    }
    println!("https://localhost:{}", kubelet.address.port());
    let writers = kubelet.clone();
    tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {
            for n in 0..containers {
                kubelet.pod(&name(n)).change(|files| files.exited = true);
            }
        }
        std::process::exit(0);
    });
    let mut written = vec![0; containers];
    let mut step = 0_u64;
    let each = rate / containers / 10 / 200;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        for (n, bytes) in written.iter_mut().enumerate().filter(|_| each > 0) {
            writers.pod(&name(n)).change(|files| {
                if files.exited {
                    return;
                }
                if *bytes > FILE {
                    files.rotate();
                    *bytes = 0;
                }
                for _ in 0..each {
                    step += 1;
                    write(files, &format!("step {step:0>195}"));
                    *bytes += 200;
                }
            });
        }
    }
}
