//! What a failing attempt shows: logs, exit codes, pods, nodes. One or more texts for each published
//! reason (`texts/*.yaml`), written from the frameworks' own messages and not from trainyard's rules,
//! with the noise around them that real logs have. The policies see these; never the reason.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use trainyard::api::FailureClass;

use crate::{dice::Dice, noise};

/// Renderings of each text for each rank: other numbers, other noise.
pub const VARIANTS: usize = 4;

/// Most nodes of a gang in the replay: 64 GPUs.
pub const RANKS: usize = 8;

/// A kind of failure and how it may show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reasons: Vec<String>,
    right: Vec<FailureClass>,
    /// Happens only between nodes.
    #[serde(default)]
    gang: bool,
    texts: Vec<Written>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    #[serde(default = "one")]
    exit: i32,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    launcher: Launcher,
    #[serde(default)]
    peers: PeerKind,
    /// Every rank fails of it.
    #[serde(default)]
    everywhere: bool,
    /// Nothing ends, and nothing is said any more.
    #[serde(default)]
    silent: bool,
    /// The kubelet does not answer: the pod is being deleted and stays as it was.
    #[serde(default)]
    alive: bool,
    #[serde(default)]
    disruption: Option<Disruption>,
    #[serde(default = "yes")]
    node_ready: bool,
    #[serde(default)]
    node_unschedulable: bool,
    #[serde(default)]
    node_taints: Vec<String>,
    #[serde(default)]
    node_problems: Vec<String>,
    log: String,
}

/// What started the program.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// torchrun, in every second rendering: it hides the exit code behind its own 1.
    #[default]
    Torch,
    /// mpirun.
    Mpi,
    /// Nothing.
    None,
}

/// How the other ranks fail of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum PeerKind {
    #[default]
    Nccl,
    Tf,
    Mpi,
    None,
}

/// Why Kubernetes ended the pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Disruption {
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    kind: PeerKind,
    texts: Vec<PeerText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PeerText {
    exit: Option<i32>,
    #[serde(default)]
    log: String,
}

/// One rank's log and exit code, rendered.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// None: it still runs.
    pub exit: Option<i32>,
    /// The log's lines.
    pub lines: Arc<Vec<String>>,
}

/// A way in which a failure shows.
#[derive(Debug)]
pub struct Text {
    /// Its name in the report.
    pub id: String,
    /// The container's terminated reason.
    pub reason: String,
    /// Every rank fails of it.
    pub everywhere: bool,
    /// A hang.
    pub silent: bool,
    /// The pod stays as it was.
    pub alive: bool,
    /// Why Kubernetes ended the pod.
    pub disruption: Option<Disruption>,
    /// The node is ready.
    pub node_ready: bool,
    /// The node is cordoned.
    pub node_unschedulable: bool,
    /// The node's taints.
    pub node_taints: Vec<String>,
    /// What a node problem detector says.
    pub node_problems: Vec<String>,
    /// What a person would call it, the best word first. No policy sees it.
    pub right: Vec<FailureClass>,
    /// By variant and rank.
    own: Vec<Vec<Rendering>>,
    peers: PeerKind,
}

/// All texts.
#[derive(Debug)]
pub struct Library {
    /// All of them.
    pub texts: Vec<Text>,
    by_reason: BTreeMap<String, (Vec<usize>, bool)>,
    peers: BTreeMap<PeerKind, Vec<Vec<Rendering>>>,
}

const FILES: [&str; 4] = [
    include_str!("texts/gpu.yaml"),
    include_str!("texts/network.yaml"),
    include_str!("texts/host.yaml"),
    include_str!("texts/user.yaml"),
];

impl Library {
    /// Parses and renders all of them; always the same.
    pub fn new() -> Self {
        let mut library = Self {
            texts: Vec::new(),
            by_reason: BTreeMap::new(),
            peers: BTreeMap::new(),
        };
        for file in FILES {
            let groups: Vec<Group> =
                serde_saphyr::from_str(file).expect("the texts are well-formed");
            for group in groups {
                let first = library.texts.len();
                library
                    .texts
                    .extend(group.texts.iter().map(|w| text(w, &group.right)));
                let indices: Vec<usize> = (first..library.texts.len()).collect();
                for reason in group.reasons {
                    let twice = library
                        .by_reason
                        .insert(reason, (indices.clone(), group.gang));
                    assert!(twice.is_none(), "a reason has texts in two places");
                }
            }
        }
        let peers: Vec<Peers> = serde_saphyr::from_str(include_str!("texts/peers.yaml"))
            .expect("the peers' texts are well-formed");
        for Peers { kind, texts } in peers {
            let rendered = texts
                .iter()
                .enumerate()
                .map(|(i, t)| peer(i as u64, t))
                .collect();
            library.peers.insert(kind, rendered);
        }
        library
    }

    /// The texts of a published reason, and whether it takes more than one node.
    pub fn of(&self, source: &str, reason: &str) -> Option<(&[usize], bool)> {
        self.by_reason
            .get(&format!("{source}/{reason}"))
            .map(|(texts, gang)| (texts.as_slice(), *gang))
    }

    /// What the rank shows that fails of `text`.
    pub fn own(&self, text: usize, variant: usize, rank: usize) -> &Rendering {
        &self.texts[text].own[variant][rank]
    }

    /// What another rank shows.
    pub fn peer(&self, text: usize, dice: &mut Dice, rank: usize) -> &Rendering {
        let kinds = &self.peers[&self.texts[text].peers];
        &kinds[dice.below(kinds.len())][rank]
    }
}

fn text(written: &Written, right: &[FailureClass]) -> Text {
    let of_rank = |variant: usize, rank: usize| {
        let mut dice = Dice::of(&[hash(&written.id), variant as u64, rank as u64]);
        let mut lines = noise::before(written.launcher, rank, &mut dice);
        lines.extend(fill(&written.log, rank, &mut dice));
        let mut exit = written.exit;
        let ended = !written.silent && written.disruption.is_none();
        if written.launcher == Launcher::Torch && ended && variant % 2 == 1 {
            lines.extend(noise::torchrun(exit, rank, &mut dice));
            exit = 1;
        } else if written.launcher == Launcher::Mpi && ended {
            lines.extend(noise::mpirun(exit, &mut dice));
        }
        Rendering {
            exit: Some(exit),
            lines: Arc::new(lines),
        }
    };
    Text {
        id: written.id.clone(),
        reason: written.reason.clone().unwrap_or_else(|| "Error".into()),
        everywhere: written.everywhere,
        silent: written.silent,
        alive: written.alive,
        disruption: written.disruption.clone(),
        node_ready: written.node_ready,
        node_unschedulable: written.node_unschedulable,
        node_taints: written.node_taints.clone(),
        node_problems: written
            .node_problems
            .iter()
            .flat_map(|p| fill(p, 0, &mut Dice::of(&[1])))
            .collect(),
        right: right.to_vec(),
        own: (0..VARIANTS)
            .map(|v| (0..RANKS).map(|r| of_rank(v, r)).collect())
            .collect(),
        peers: written.peers,
    }
}

fn peer(number: u64, text: &PeerText) -> Vec<Rendering> {
    (0..RANKS)
        .map(|rank| {
            let mut dice = Dice::of(&[77, number, rank as u64]);
            let mut lines = noise::before(Launcher::Torch, rank, &mut dice);
            lines.extend(fill(&text.log, rank, &mut dice));
            Rendering {
                exit: text.exit,
                lines: Arc::new(lines),
            }
        })
        .collect()
}

/// The lines of a text with its %WORDS% replaced.
fn fill(text: &str, rank: usize, dice: &mut Dice) -> Vec<String> {
    let gpu = dice.below(8);
    let words = [
        ("%RANK%", (rank * 8 + gpu).to_string()),
        ("%GPU%", gpu.to_string()),
        ("%STEP%", (1000 + dice.below(90_000)).to_string()),
        ("%PID%", (100 + dice.below(900)).to_string()),
        ("%HOST%", format!("train-1-{rank}")),
        ("%NODE%", format!("gpu-{rank}")),
    ];
    let mut text = text.to_owned();
    for (word, value) in words {
        if text.contains(word) {
            text = text.replace(word, &value);
        }
    }
    text.lines().map(str::to_owned).collect()
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn one() -> i32 {
    1
}

fn yes() -> bool {
    true
}
