//! How each candidate is started on the node, with its own defaults wherever these do not forbid the load.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    node::Node,
    process::{Program, address},
    view::View,
};

/// One way to collect the lines.
pub struct Candidate {
    pub name: &'static str,
    /// How it gets them, and what it does with them.
    pub way: &'static str,
    pub start: fn(&Node, &Path) -> Result<Running, String>,
}

/// A candidate at work.
pub struct Running {
    pub programs: Vec<Program>,
    pub view: View,
    /// What it stores is here.
    pub store: PathBuf,
}

pub const ALL: [Candidate; 4] = [
    Candidate {
        name: "trainyard",
        way: "API over TLS → write-ahead log → Parquet",
        start: trainyard,
    },
    Candidate {
        name: "stern",
        way: "API over TLS → standard output, into a file",
        start: stern,
    },
    Candidate {
        name: "vlagent + VictoriaLogs",
        way: "log files → HTTP → VictoriaLogs",
        start: victoria,
    },
    Candidate {
        name: "rsyslog",
        way: "log files → one text file",
        start: rsyslog,
    },
];

/// The program that dev/bench-logs has built or fetched, or why there is none.
fn program(variable: &str) -> Result<String, String> {
    let missing = || {
        env::var(format!("{variable}_MISSING")).unwrap_or_else(|_| format!("{variable} is not set"))
    };
    env::var(variable).map_err(|_| missing())
}

/// What a program says goes into a file beside what it stores.
fn quiet(command: &mut Command, dir: &Path, name: &str) -> Result<(), String> {
    let said = File::create(dir.join(name)).map_err(|e| e.to_string())?;
    command.stderr(said);
    Ok(())
}

fn trainyard(node: &Node, dir: &Path) -> Result<Running, String> {
    let (metrics, logs) = (address()?, address()?);
    let store = dir.join("store");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args([
            "--log",
            "warn",
            "--http",
            &metrics,
            "collector",
            "--logs-http",
            &logs,
            "--store",
        ])
        .arg(&store)
        .env("KUBECONFIG", &node.kubeconfig);
    quiet(&mut command, dir, "collector.log")?;
    Ok(Running {
        programs: vec![Program::start(&mut command)?],
        view: View::Trainyard { metrics, logs },
        store,
    })
}

fn stern(node: &Node, dir: &Path) -> Result<Running, String> {
    let store = dir.join("stern.txt");
    let mut command = Command::new(program("STERN")?);
    // By default it refuses more than 50 containers.
    command
        .args([
            ".",
            "--namespace",
            "ml",
            "--max-log-requests",
            "1000",
            "--color",
            "never",
            "--timestamps",
        ])
        .arg("--kubeconfig")
        .arg(&node.kubeconfig)
        .stdout(File::create(&store).map_err(|e| e.to_string())?);
    quiet(&mut command, dir, "stern.log")?;
    Ok(Running {
        programs: vec![Program::start(&mut command)?],
        view: View::file(store.clone()),
        store,
    })
}

fn victoria(node: &Node, dir: &Path) -> Result<Running, String> {
    let (agent, store) = (program("VLAGENT")?, dir.join("victoria"));
    let (here, there) = (address()?, address()?);
    let mut command = Command::new(program("VICTORIA_LOGS")?);
    command
        .arg(format!("-storageDataPath={}", store.display()))
        .arg(format!("-httpListenAddr={there}"));
    quiet(&mut command, dir, "victoria-logs.log")?;
    let database = Program::start(&mut command)?;
    let begin = Instant::now();
    while std::net::TcpStream::connect(&there).is_err() {
        if begin.elapsed() > Duration::from_secs(20) {
            return Err(format!("victoria-logs does not listen on {there}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut command = Command::new(agent);
    command
        .arg("-kubernetesCollector")
        .arg(format!(
            "-kubernetesCollector.logsPath={}",
            node.folder.join("containers").display()
        ))
        .arg(format!("-remoteWrite.url=http://{there}/internal/insert"))
        .arg(format!("-tmpDataPath={}", dir.join("vlagent").display()))
        .arg(format!("-httpListenAddr={here}"))
        .env("KUBECONFIG", &node.kubeconfig);
    quiet(&mut command, dir, "vlagent.log")?;
    Ok(Running {
        programs: vec![Program::start(&mut command)?, database],
        view: View::Victoria(there),
        store,
    })
}

fn rsyslog(node: &Node, dir: &Path) -> Result<Running, String> {
    let root = PathBuf::from(program("RSYSLOG")?);
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let (store, config) = (dir.join("rsyslog.txt"), dir.join("rsyslog.conf"));
    let text = format!(
        r#"global(workDirectory="{dir}")
module(load="imfile")
template(name="line" type="string" string="%$!metadata!filename% %rawmsg%\n")
ruleset(name="store") {{ action(type="omfile" file="{store}" template="line") }}
input(type="imfile" File="{node}/pods/*/*/*.log" Tag="k8s" ruleset="store" addMetadata="on")
"#,
        dir = dir.display(),
        store = store.display(),
        node = node.folder.display()
    );
    fs::write(&config, text).map_err(|e| e.to_string())?;
    let mut command = Command::new(root.join("usr/sbin/rsyslogd"));
    command
        .arg("-n")
        .arg("-f")
        .arg(&config)
        .arg("-i")
        .arg(dir.join("rsyslogd.pid"))
        .env("LD_LIBRARY_PATH", &libraries)
        .arg("-M")
        .arg(libraries.join("rsyslog"))
        .stdout(Stdio::null());
    quiet(&mut command, dir, "rsyslog.log")?;
    Ok(Running {
        programs: vec![Program::start(&mut command)?],
        view: View::file(store.clone()),
        store,
    })
}
