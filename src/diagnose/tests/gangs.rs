//! 500 gangs of 2 to 64 ranks in which one fails for a reason of its own and the others of it, with
//! clocks that differ by ±2 s, endings in any order and logs that are missing: the right rank is blamed.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{at, ended, pod};
use crate::{
    diagnose::{RankEvidence, RuleBook, Tail, failure},
    plan::{Phase, PodFacts, Reason},
};

const GANGS: u64 = 500;

/// How a gang talks to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fabric {
    Nccl,
    Gloo,
    Jax,
    Mpi,
}

/// How the rank to blame ends.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// With this exception.
    Exception(&'static str),
    /// With this text, in native code, and this exit code.
    Native(&'static str, i32),
    /// Killed, with Kubernetes' reason for it.
    Killed(&'static str),
    /// Removed by Kubernetes.
    Disrupted(&'static str),
}

const ROOTS: [Root; 18] = [
    Root::Exception("ValueError: expected 10 classes, got 12"),
    Root::Exception("KeyError: 'attention_mask'"),
    Root::Exception(
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/shard-0007.tar'",
    ),
    Root::Exception(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 3 has a total capacity of 79.10 GiB of which 1.04 GiB is free.",
    ),
    Root::Exception("RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    Root::Exception("RuntimeError: CUDA error: an illegal memory access was encountered"),
    Root::Exception("OSError: [Errno 28] No space left on device: '/ckpt/step-100.pt'"),
    Root::Exception("OSError: [Errno 116] Stale file handle: '/mnt/data/x'"),
    Root::Exception("RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. "),
    Root::Exception("AssertionError: loss is nan at step 12"),
    Root::Exception(
        "botocore.exceptions.ClientError: An error occurred (SlowDown) when calling the GetObject operation (reached max retries: 4): Please reduce your request rate.",
    ),
    Root::Exception("tenants.errors.QuotaGone: the licence server has no seat left"),
    Root::Native(
        "Fatal Python error: Segmentation fault\n\nThread 0x00007f (most recent call first):\n  File \"a.py\", line 3 in f",
        139,
    ),
    Root::Native(
        "*** Error in `python': double free or corruption (!prev): 0x0000 ***\nAborted (core dumped)",
        134,
    ),
    Root::Killed("OOMKilled"),
    Root::Killed("Error"),
    Root::Disrupted("PreemptionByScheduler"),
    Root::Disrupted("DeletionByPodGC"),
];

struct Rank {
    pod: PodFacts,
    tail: Option<Tail>,
}

fn traceback(end: &str) -> String {
    format!(
        "Traceback (most recent call last):\n  File \"/work/train.py\", line 88, in <module>\n    main()\n  File \"/usr/lib/python3/dist-packages/torch/_tensor.py\", line 522, in backward\n    torch.autograd.backward(\n{end}\n"
    )
}

fn tagged(rank: u32, text: &str) -> String {
    text.lines()
        .map(|l| format!("[rank{rank}]: {l}\n"))
        .collect()
}

fn steps(rng: &mut StdRng) -> String {
    let first = rng.random_range(1..900);
    let bar = rng.random_bool(0.5);
    (first..first + rng.random_range(3..12))
        .map(|n| {
            if bar {
                format!(
                    "\r {}%|####      | {n}/1000 [00:0{}<10:00, 3.2it/s, loss=0.{n}, error=0.1]",
                    n / 10,
                    n % 10
                )
            } else {
                format!(
                    "2026-03-01 10:00:0{} INFO step {n}: loss 0.{n} error_rate 0.{n}\n",
                    n % 10
                )
            }
        })
        .collect::<String>()
        + "\n"
}

fn report(host: &str, rank: u32, local: u32, code: &str, rest: &str) -> String {
    format!(
        "W0301 10:00:09.123000 11 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 78 closing signal SIGTERM\nE0301 10:00:09.927000 11 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: {code}) local_rank: {local} (pid: 77) of binary: /usr/bin/python3\n{}============================================================\ntrain.py FAILED\n------------------------------------------------------------\nFailures:\n  <NO_OTHER_FAILURES>\n------------------------------------------------------------\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-03-01_10:00:09\n  host      : {host}\n  rank      : {rank} (local_rank: {local})\n  exitcode  : {code} (pid: 77)\n  error_file: <N/A>\n  traceback : {rest}\n============================================================\n",
        traceback("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ")
    )
}

const PAGE: &str = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html";

/// What a rank says when another one went away, and its exit code.
fn collateral(
    fabric: Fabric,
    rng: &mut StdRng,
    me: u32,
    root: &PodFacts,
    root_rank: u32,
) -> (String, i32) {
    let ip = root.ip.clone().unwrap_or_default();
    match fabric {
        Fabric::Nccl => match rng.random_range(0..4) {
            0 => (
                format!("[rank{me}]:[E301 10:00:08.123456789 ProcessGroupNCCL.cpp:616] [Rank {me}] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812, OpType=ALLREDUCE, NumelIn=25600, NumelOut=25600, Timeout(ms)=600000) ran for 600062 milliseconds before timing out.\n[rank{me}]:[E301 10:00:08.223456789 ProcessGroupNCCL.cpp:630] [Rank {me}] Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels, subsequent GPU operations might run on corrupted/incomplete data.\n[rank{me}]:[E301 10:00:08.323456789 ProcessGroupNCCL.cpp:636] [Rank {me}] To avoid data inconsistency, we are taking the entire process down.\nterminate called after throwing an instance of 'c10::DistBackendError'\n"),
                134,
            ),
            1 => (
                tagged(me, &traceback("torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3384, remote process exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.\nLast error:\nNET/IB : Got completion from peer 10.0.0.9<41234> with status=12 opcode=32600 len=0 vendor err 129 (Recv)")),
                1,
            ),
            2 => (
                tagged(me, &traceback("torch.distributed.DistBackendError: [0] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: Connection reset by peer")),
                1,
            ),
            _ => (
                format!("job:77:101 [0] transport/net_socket.cc:519 NCCL WARN NET/Socket : peer 10.0.0.9<39000> message truncated\njob:77:102 [0] misc/socket.cc:58 NCCL WARN socketProgress: Connection closed by remote peer job-1-{}.job<55012>\n", root.rank),
                1,
            ),
        },
        Fabric::Gloo => match rng.random_range(0..3) {
            0 => (
                tagged(me, &traceback(&format!("RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [{ip}]:3423"))),
                1,
            ),
            1 => (
                tagged(me, &traceback(&format!("RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:589] Read error [{ip}]:25266: Connection reset by peer"))),
                1,
            ),
            _ => (
                tagged(me, &traceback(&format!("RuntimeError: Rank {root_rank} failed to pass monitoredBarrier in 30000 ms\n Original exception: \n[../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer [{ip}]:8594"))),
                1,
            ),
        },
        Fabric::Jax => (
            format!("E0926 17:26:32.075402  157988 coordination_service_agent.cc:332] Polled an error from coordination service (this can be an error from this or another task).\nF0926 17:26:32.075587  157988 client.h:77] Terminating process because the JAX distributed service detected fatal errors. This most likely indicates that another task died; see the other task logs for more details. absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n/job:jax_worker/replica:0/task:{}\nThe tasks have crashed. Check the task logs for an earlier error, or scheduler events (e.g. preemption, eviction) to debug further.\nFatal Python error: Aborted\n", root.rank),
            134,
        ),
        Fabric::Mpi => match rng.random_range(0..2) {
            0 => ("[job-1-0:00017] *** Process received signal ***\n[job-1-0:00017] Signal: Terminated (15)\n".into(), 143),
            _ => (format!("[job-1-{me}][[41021,1],{me}][btl_tcp_frag.c:241:mca_btl_tcp_frag_recv] mca_btl_tcp_frag_recv: readv failed: Connection reset by peer (104)\n"), 1),
        },
    }
}

fn gang(seed: u64) -> (Vec<Rank>, usize, String) {
    let mut rng = StdRng::seed_from_u64(seed);
    let fabric = *[Fabric::Nccl, Fabric::Gloo, Fabric::Jax, Fabric::Mpi]
        .choose(&mut rng)
        .unwrap();
    let n: usize = *[2, 3, 4, 8, 16, 32, 64].choose(&mut rng).unwrap();
    let processes: u32 = *[1, 1, 2, 4, 8].choose(&mut rng).unwrap();
    let elastic = matches!(fabric, Fabric::Nccl | Fabric::Gloo) && rng.random_bool(0.7);
    let blamed = rng.random_range(0..n);
    let kind = *ROOTS.choose(&mut rng).unwrap();
    let missing: Vec<usize> = (0..rng.random_range(0..3))
        .map(|_| rng.random_range(0..n))
        .collect();
    let mut ranks = Vec::new();
    let name = |r: usize| PodFacts {
        name: format!("job-1-{r}"),
        ip: Some(format!("10.0.0.{}", r + 1)),
        ..pod(i32::try_from(r).unwrap())
    };
    let root_pod = name(blamed);
    let local = rng.random_range(0..processes);
    let root_rank = u32::try_from(blamed).unwrap() * processes + local;
    for r in 0..n {
        let skew: f64 = rng.random_range(-2.0..2.0);
        let mut text = steps(&mut rng);
        let me = u32::try_from(r).unwrap() * processes + rng.random_range(0..processes);
        let host = format!("job-1-{r}");
        let (code, reason, disruption, delay) = if r == blamed {
            match kind {
                Root::Exception(end) => {
                    text += &if elastic {
                        tagged(root_rank, &traceback(end))
                    } else {
                        traceback(end)
                    };
                    if elastic {
                        text += &report(&host, root_rank, local, "1", PAGE);
                    }
                    (1, "Error", None, 0.0)
                }
                Root::Native(end, code) => {
                    text += end;
                    text += "\n";
                    if elastic {
                        let signal = code - 128;
                        text += &report(
                            &host,
                            root_rank,
                            local,
                            &format!("-{signal}"),
                            &format!("Signal {signal} received by PID 77"),
                        );
                    }
                    (if elastic { 1 } else { code }, "Error", None, 0.0)
                }
                Root::Killed(reason) => (137, reason, None, 0.0),
                Root::Disrupted(reason) => (137, "Error", Some(reason), 0.0),
            }
        } else if rng.random_bool(0.15) {
            // Stopped by its launcher, or by us.
            text += "[W301 10:00:09.123456789 socket.cpp:204] SIGTERM received, exiting\n";
            (143, "Error", None, rng.random_range(0.3..20.0))
        } else {
            let (said, code) = collateral(fabric, &mut rng, me, &root_pod, root_rank);
            text += &said;
            let reported = elastic && rng.random_bool(0.8);
            if reported {
                text += &report(
                    &host,
                    me,
                    me % processes,
                    if code == 134 { "-6" } else { "1" },
                    PAGE,
                );
            }
            (
                if reported { 1 } else { code },
                "Error",
                None,
                rng.random_range(0.3..20.0),
            )
        };
        #[allow(clippy::cast_possible_truncation)]
        let when = (100.0 + delay + skew) as i64;
        // The kubelet keeps the last 2 KiB where the program failed.
        let start = text.len().saturating_sub(2048);
        let kept = &text[(start..=text.len())
            .find(|n| text.is_char_boundary(*n))
            .unwrap()..];
        let gone = missing.contains(&r);
        let message = if gone && rng.random_bool(0.5) {
            ""
        } else {
            kept
        };
        let mut facts = PodFacts {
            name: name(r).name,
            ip: name(r).ip,
            ..ended(i32::try_from(r).unwrap(), code, reason, message, Some(when))
        };
        if let Some(reason) = disruption {
            facts.disruption = Some(Reason {
                reason: reason.into(),
                message: String::new(),
            });
            facts.deletion = Some(at(130));
            facts.deletion_requested = Some(at(100));
            if rng.random_bool(0.5) {
                facts.phase = Phase::Running;
                facts.terminated = None;
            }
        }
        let tail = (!gone).then(|| Tail {
            bytes: text.into_bytes(),
            stamped: false,
        });
        ranks.push(Rank { pod: facts, tail });
    }
    (
        ranks,
        blamed,
        format!(
            "{kind:?}, {fabric:?}, {n} ranks of {processes}, elastic {elastic}, missing {missing:?}"
        ),
    )
}

#[test]
fn the_right_rank_is_blamed_in_at_least_99_of_100_gangs() {
    let book = RuleBook::default();
    let mut wrong = Vec::new();
    for seed in 0..GANGS {
        let (ranks, blamed, what) = gang(seed);
        let evidence: Vec<RankEvidence> = ranks
            .iter()
            .map(|r| RankEvidence {
                tail: r.tail.as_ref(),
                ..RankEvidence::of(&r.pod)
            })
            .collect();
        let found = failure(&evidence, &book).unwrap();
        let said = found.root_cause.rank;
        if said != Some(i32::try_from(blamed).unwrap()) {
            wrong.push(format!(
                "{seed}: {what}: {blamed}, not {said:?} {} ({:?})",
                found.summary, found.rule
            ));
        }
    }
    let right = GANGS - wrong.len() as u64;
    println!("right rank in {right} of {GANGS} gangs");
    assert!(
        right * 100 >= GANGS * 99,
        "{right} of {GANGS}; wrong:\n{}",
        wrong.join("\n")
    );
}
