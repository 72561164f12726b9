"""Gangs of which one rank (or the network) fails, under torchrun or alone: real torch.distributed over gloo."""

import pathlib
import subprocess

from corpus import Gang, expect, job_name, keep, kubectl, relabel, run_all

PROGRAMS = pathlib.Path(__file__).parent / "programs"
FILES = {p.name: p.read_text() for p in PROGRAMS.glob("*.py")}
CASES = {}
X = expect


def gang(case, ranks, fault, what, want, style="plain", step=12, args=(), nproc=1, torchrun=True, stamped=True,
         missing=(), skew=None, order=None, ended=None, until=None, act=None, script="train.py", settle=0, hint="", **more):
    """ended: the ranks that end by themselves (all where None); until/act: what to do before the capture."""
    def run():
        if relabel(case, want):
            return
        launched = ["python", f"src/{script}", "--fault", fault, "--step", str(step), "--style", style, *args]
        if script != "train.py":
            launched = ["python", f"src/{script}", *args]
        g = Gang(job_name(case), ranks, launched, "pytorch", torchrun, nproc, files=FILES, **more)
        try:
            g.start()
            if act:
                act(g)
            g.wait_ended(150, ended)
            if settle:
                import time
                time.sleep(settle)
            how = f"{'torchrun' if torchrun else 'python, env:// rendezvous'}, {ranks} pods" + \
                (f" of {nproc} processes" if nproc > 1 else "") + \
                f" on dev/cluster, make/programs/{script} {' '.join(launched[2:])}" + (f"; {hint}" if hint else "")
            keep(g, case, what, how, want, stamped, missing, skew, order)
        finally:
            g.clean()
    CASES[case] = run


# --- one rank throws -----------------------------------------------------------------------------------------------
gang("gang-key-error-rank-1-of-2", 2, "1:no-label", "A record of rank 1's shard has no label; rank 0 dies of the broken connection.",
     X("UserError", False, "KeyError: 'label'", 1))
gang("gang-index-error-rank-2-of-4", 4, "2:short", "Rank 2's shard is shorter than its dataset says.",
     X("UserError", False, "IndexError: list index out of range", 2), style="hf")
gang("gang-target-out-of-bounds-rank-3-of-4", 4, "3:label-12", "Rank 3 meets label 12 of 10 classes.",
     X("UserError", False, "IndexError: Target 12 is out of bounds.", 3), style="logging")
gang("gang-stack-size-rank-0-of-3", 3, "0:17-features", "One record of rank 0 has 17 features: they can't be stacked.",
     X("UserError", False, "RuntimeError: stack expects each tensor to be equal size", 0), style="json")
gang("gang-worker-raises-rank-1-of-2", 2, "1:text", "A data loader worker of rank 1 meets text in the place of a number.",
     X("UserError", False, "ValueError: too many dimensions 'str'", 1), args=("--workers", "1"), style="bar",
     volumes=[({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}, "/dev/shm")])
gang("gang-null-features-rank-1-of-3", 3, "1:null", "A record of rank 1 has null in the place of its features.",
     X("UserError", False, "RuntimeError: Could not infer dtype of NoneType", 1), skew={1: -2})
gang("gang-assert-finite-rank-1-of-2", 2, "1:finite", "Rank 1's loss becomes NaN, and the script asserts that it is finite.",
     X("UserError", False, "AssertionError: loss is not finite at step 12", 1), style="hf", skew={0: 2, 1: -1})
gang("gang-no-cuda-rank-2-of-4", 4, "2:cuda", "Rank 2 moves its model to CUDA, which this PyTorch was built without.",
     X("ConfigError", False, "AssertionError: Torch not compiled with CUDA enabled", 2))
gang("gang-matmul-shape-rank-5-of-8", 8, "5:matmul", "Rank 5 of 8 multiplies matrices that do not fit.",
     X("UserError", False, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x16 and 32x1)", 5), torchrun=False,
     skew={5: 2, 2: -2}, args=("--timeout", "40"))
gang("gang-zero-division-rank-0-of-2", 2, "0:zero", "A schedule of rank 0 divides by its number of warmup steps, 0.",
     X("UserError", False, "ZeroDivisionError: division by zero", 0), torchrun=False)
gang("gang-attribute-error-all-of-2", 2, "0:attribute,1:attribute", "Both ranks ask the model for a layer that it lacks.",
     X("UserError", False, "AttributeError: 'Sequential' object has no attribute 'embed'"), style="json")
gang("gang-type-error-rank-1-of-2-procs", 2, "3:type", "The second process of node rank 1 (torch rank 3) adds None to a tensor.",
     X("UserError", False, "TypeError:", 1), nproc=2)
gang("gang-runtime-error-rank-3-of-4-log-missing", 4, "3:runtime", "Rank 3 raises, and of its log nothing is left but the termination message.",
     X("UserError", False, None, 3, fine=True), missing=[3])
gang("gang-value-error-rank-1-log-of-0-missing", 3, "1:runtime", "Rank 1 raises.",
     X("UserError", False, "RuntimeError: validation set overlaps the training set", 1), missing=[0], order=[2, 1, 0])
gang("gang-exit-text-rank-1-of-2", 2, "1:exit-text", "Rank 1 ends with sys.exit(message): exit code 1 and no traceback.",
     X("UserError", False, "config says 10 classes, the label map has 12", 1, fine=True))
gang("gang-exit-3-rank-0-of-2", 2, "0:exit-3", "Rank 0 ends with exit code 3 and no word.",
     X("Unknown", True, None, 0), torchrun=False)
gang("gang-missing-shard-rank-2-of-3", 3, "2:no-shard", "Rank 2's shard does not exist.",
     X("DataError", False, "FileNotFoundError: [Errno 2] No such file or directory: '/data/clicks/part-00389.jsonl'", 2), style="logging")
gang("gang-bad-json-rank-0-of-2", 2, "0:bad-json", "A line of rank 0's shard is cut off in the middle.",
     X("DataError", False, "json.decoder.JSONDecodeError: Expecting ',' delimiter", 0), style="bar")
gang("gang-bad-bytes-rank-1-of-4", 4, "1:bad-bytes", "A record of rank 1 is Latin-1, not UTF-8.",
     X("DataError", False, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xf6", 1), torchrun=False, stamped=False, args=("--timeout", "30"))
gang("gang-import-error-rank-1-of-2", 2, "1:early-import", "Rank 1 imports a module that its image lacks; rank 0 waits for it in the rendezvous.",
     X("ConfigError", False, "ModuleNotFoundError: No module named 'flash_attn'", 1), torchrun=False, ended=[0, 1], args=("--timeout", "15"))
gang("gang-memory-error-rank-0-of-2", 2, "0:memory-error", "Rank 0 asks for 256 TiB in one tensor: the allocator refuses, no machine has that much.",
     X("HostOutOfMemory", False, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 281474976710656 bytes", 0))
gang("gang-recursion-rank-1-of-2", 2, "1:recursion", "Rank 1 calls itself for ever.",
     X("UserError", False, "RecursionError: maximum recursion depth exceeded", 1))
gang("gang-name-resolution-rank-1-of-2", 2, "1:resolve", "Rank 1 asks a service whose name does not exist.",
     X("ConfigError", False, "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>", 1, fine=True))
# --- one rank dies -------------------------------------------------------------------------------------------------
gang("gang-sigkill-rank-1-of-4", 4, "1:sigkill", "The worker of rank 1 is killed with SIGKILL (by itself); no OOM kill, nobody says why.",
     X("Unknown", True, "Signal 9 (SIGKILL) received by PID", 1))
gang("gang-sigkill-plain-rank-2-of-4", 4, "2:sigkill", "Rank 2 is killed with SIGKILL (by itself) without torchrun: exit code 137, no OOM.",
     X("Unknown", True, None, 2), torchrun=False, args=("--timeout", "30"))
gang("gang-segv-rank-1-of-2", 2, "1:segv", "Rank 1 reads through a null pointer in ctypes.",
     X("UserError", False, "Fatal Python error: Segmentation fault", 1, fine=True))
gang("gang-segv-plain-rank-0-of-3-no-log", 3, "0:segv", "Rank 0 dies of SIGSEGV: exit code 139.",
     X("Unknown", True, None, 0), torchrun=False, missing=[0], args=("--timeout", "30"), env={"PYTHONFAULTHANDLER": ""}, container={"terminationMessagePolicy": "File"})
gang("gang-abort-rank-2-of-3", 3, "2:abort", "Rank 2 calls abort().",
     X("Unknown", True, "Signal 6 (SIGABRT) received by PID", 2), skew={2: 2})
gang("gang-sigterm-inside-rank-1-of-2", 2, "1:sigterm", "The worker of rank 1 gets a SIGTERM from itself, not from Kubernetes.",
     X("Unknown", True, "Signal 15 (SIGTERM) received by PID", 1))
gang("gang-interrupt-rank-0-of-2", 2, "0:interrupt", "Somebody sends rank 0 a SIGINT: KeyboardInterrupt.",
     X("Interrupted", True, "KeyboardInterrupt", 0, fine=True), torchrun=False)
gang("gang-oom-rank-1-of-2", 2, "1:oom", "The worker of rank 1 grows over the memory limit; torchrun lives on to report a SIGKILL.",
     X("HostOutOfMemory", False, "Signal 9 (SIGKILL) received by PID", 1), memory="700Mi")
gang("gang-oom-plain-rank-2-of-3", 3, "2:oom", "Rank 2 grows over the memory limit: OOMKilled.",
     X("HostOutOfMemory", False, None, 2), torchrun=False, memory="512Mi", style="hf")
gang("gang-oom-rank-5-of-8", 8, "5:oom", "Rank 5 of 8 grows over the memory limit; the others lose the connection.",
     X("HostOutOfMemory", False, None, 5), torchrun=False, memory="512Mi", missing=[3], skew={5: 2}, args=("--timeout", "40"))
gang("gang-worker-killed-rank-0-of-2", 2, "0:worker-dies", "A data loader worker of rank 0 is killed with SIGKILL; no OOM.",
     X("Unknown", True, "DataLoader worker (pid", 0), args=("--workers", "2"),
     volumes=[({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}, "/dev/shm")])
TMPFS = lambda size: [({"name": "ckpt", "emptyDir": {"medium": "Memory", "sizeLimit": size}}, "/ckpt")]  # noqa: E731
gang("gang-disk-full-rank-0-of-3", 3, "", "Rank 0 fills the checkpoints' volume; PyTorch says only that its file is not where it should be.",
     X("Storage", False, "unexpected pos", 0, fine=True), args=("--checkpoint", "/ckpt", "--rows", "1280", "--timeout", "40"), volumes=TMPFS("20Mi"), style="logging")
gang("gang-checkpoint-permission-rank-0-of-2", 2, "0:save", "Rank 0 may not write its checkpoint.", X("ConfigError", False, "/opt/step.pt", 0, fine=True),
     args=("--checkpoint", "/opt/step.pt", "--timeout", "40", "--step", "4"))
gang("gang-key-error-rank-2-of-4-two-procs", 4, "5:no-label", "The second process on node rank 2 (torch rank 5) meets a record without a label; torchrun ends its sibling.",
     X("UserError", False, "KeyError: 'label'", 2), nproc=2, args=("--timeout", "60"), skew={2: 2, 1: -2})
gang("gang-oom-two-procs-rank-1-of-2", 2, "2:oom", "The first process on node rank 1 (torch rank 2) grows over the limit of the pod.",
     X("HostOutOfMemory", False, None, 1), nproc=2, memory="1Gi", args=("--timeout", "60"))
gang("gang-label-checked-rank-1-of-3", 3, "1:label-checked", "Rank 1's own check refuses a label.", X("UserError", False, "ValueError", 1), style="bar", args=("--timeout", "40"))
# --- one rank is stuck or missing ----------------------------------------------------------------------------------
gang("gang-stopped-rank-1-of-2", 2, "1:stop", "Rank 1 is stopped (SIGSTOP) until gloo gives up on it; it has not ended.",
     X("Communication", True, "Timed out waiting 15000ms for recv operation to complete"), ended=[0])
gang("gang-stopped-rank-3-of-4", 4, "3:stop", "Rank 3 is stopped (SIGSTOP); the others time out or lose each other.",
     X("Communication", True, "Timed out waiting 15000ms"), ended=[0, 1, 2], torchrun=False, style="json", skew={0: -2, 1: 2})
gang("gang-stuck-loader-rank-1-of-3", 3, "1:slow", "Rank 1's data loader sleeps; the others time out in gloo.",
     X("Communication", True, "Timed out waiting 15000ms"), ended=[0, 2], missing=[1])
gang("gang-exit-0-early-rank-1-of-2", 2, "1:exit-0", "Rank 1 ends with code 0 in the middle of the epoch; rank 0 loses it.",
     X("UserError", False, None, 1, fine=True))
gang("gang-fewer-rows-rank-0-of-2", 2, "0:fewer-rows", "Rank 0 has a third of the batches, and goes to the barrier while rank 1 averages gradients.",
     X("UserError", False, None, fine=True), args=("--epochs", "1"))
gang("gang-fewer-rows-rank-2-of-4", 4, "2:fewer-rows", "Rank 2 has a third of the batches of the others: collectives do not match.",
     X("UserError", False, None, fine=True), args=("--epochs", "1"), torchrun=False)
gang("gang-other-model-rank-1-of-2", 2, "1:other-model", "Rank 1 builds a layer of another size: DDP notices.",
     X("UserError", False, "appears not to match sizes of the same param in process 0", 1))
gang("gang-never-joins-rank-1-of-2", 2, "1:late", "Rank 1's program never comes to the rendezvous; rank 0 gives up.",
     X("Communication", True, None, fine=True), ended=[0])
gang("gang-agent-never-joins-rank-2-of-3", 3, "", "Rank 2's pod hangs before torchrun starts: the agents' store has too few clients.",
     X("Communication", True, "Timed out after"), ended=[0, 1], env={"PET_RDZV_CONF": "timeout=20"},
     per_rank={2: {"command": ["sh", "-c", "echo 'staging data from s3://datasets/clicks ...'; exec sleep 3600"]}})
gang("gang-mismatched-reduce-rank-1-of-2", 2, "1:shape-reduce", "Rank 1 reduces a tensor of another size than rank 0: gloo's preamble does not fit.",
     X("UserError", False, "op.preamble.length <= op.nbytes", 1, fine=True), torchrun=False)


gang("gang-index-error-rank-4-of-6", 6, "4:short", "Rank 4's shard is shorter than its dataset says.", X("UserError", False, "IndexError: list index out of range", 4),
     args=("--timeout", "90"), missing=[2], skew={0: -2, 4: 2, 5: -1}, order=[5, 3, 1, 0, 2, 4], style="hf")
gang("gang-oom-rank-0-of-4-skewed", 4, "0:oom", "Rank 0 grows over the memory limit under torchrun.", X("HostOutOfMemory", False, None, 0),
     args=("--timeout", "90"), memory="700Mi", skew={0: 2, 1: -2, 2: -1}, order=[3, 2, 1, 0])


def deleted_by_hand(g):
    for r in range(g.ranks):
        g.wait_line(r, "step 10/", 120)
    import time
    time.sleep(15)
    kubectl("delete", "pod", "--wait=false", *[g.pod(r) for r in range(g.ranks)])


gang("gang-hung-deleted-by-hand", 3, "1:loop", "Rank 1 loops and the others wait for it; their owner deletes all pods.", X("Interrupted", True, None),
     args=("--timeout", "600"), act=deleted_by_hand, torchrun=False, step=14)
gang("gang-hung-deadline-all", 2, "1:slow", "Rank 1's data loader sleeps; both pods reach their activeDeadlineSeconds.", X("DeadlineExceeded", False, None),
     args=("--timeout", "600"), torchrun=False, pod={"activeDeadlineSeconds": 75}, settle=6)
# --- collective operations that do not fit -------------------------------------------------------------------------
def collective(case, ranks, how, what, want, **more):
    more.setdefault("torchrun", False)
    gang(case, ranks, "", what, want, script="collectives.py", args=(how,), **more)


collective("coll-mismatched-shapes", 2, "mismatched-shapes", "The ranks reduce tensors of different sizes.", X("UserError", False, None, fine=True))
collective("coll-gather-shapes-rank-1-of-3", 3, "gather-shapes", "Rank 1 gathers a tensor of another size.", X("UserError", False, None, fine=True))
collective("coll-mismatched-ops-debug-detail", 2, "mismatched-ops", "The ranks call different collectives; TORCH_DISTRIBUTED_DEBUG=DETAIL says so.",
           X("UserError", False, "Detected mismatch between collectives on ranks"), env={"TORCH_DISTRIBUTED_DEBUG": "DETAIL", "TIMEOUT": 30})
collective("coll-mismatched-ops", 2, "mismatched-ops", "The ranks call different collectives.", X("UserError", False, None, fine=True), env={"TIMEOUT": 25})
collective("coll-dtype-debug-detail", 2, "dtype", "The ranks reduce different types; TORCH_DISTRIBUTED_DEBUG=DETAIL says so.",
           X("UserError", False, "Detected mismatch between collectives on ranks"), env={"TORCH_DISTRIBUTED_DEBUG": "DETAIL"}, torchrun=True)
collective("coll-monitored-barrier-rank-2-of-3", 3, "monitored-barrier", "Rank 2 does not come to a monitored barrier, which names it.",
           X("Communication", True, "failed to pass monitoredBarrier"), ended=[0, 1])
collective("coll-unused-parameters", 2, "unused-parameters", "DDP meets parameters that the loss does not use.",
           X("UserError", False, "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one"), torchrun=True)
collective("coll-skip-one-rank-1-of-3", 3, "skip-one", "Rank 1 ends early with code 0 since its shard is empty.", X("UserError", False, None, fine=True))
collective("coll-bad-source-rank", 2, "bad-rank", "A broadcast from a rank that does not exist.", X("UserError", False, None, fine=True))
collective("coll-nccl-not-built", 2, "nccl", "The backend NCCL in a PyTorch without it.", X("ConfigError", False, "Distributed package doesn't have NCCL built in"), torchrun=True)
collective("coll-backend-typo", 2, "backend-typo", "The backend's name is misspelt.", X("UserError", False, "gloop"))
collective("coll-straggler-rank-3-of-4", 4, "straggler", "Rank 3 tokenizes for hours; the others time out.", X("Communication", True, "Timed out waiting", fine=True), ended=[0, 1, 2])
collective("coll-thread-deadlock-rank-1-of-2", 2, "thread-deadlock", "A deadlock in rank 1; rank 0 times out.", X("Communication", True, "Timed out waiting"), ended=[0], torchrun=True)
collective("coll-two-failures-rank-2-first", 4, "two-failures", "Rank 2 raises a KeyError; rank 1 raises an error of its own 1.5 s later.",
           X("UserError", False, "KeyError: 'user_embedding'", 2))
collective("coll-two-failures-rank-2-first-torchrun", 4, "two-failures", "As coll-two-failures-rank-2-first, under torchrun and in another order.",
           X("UserError", False, "KeyError: 'user_embedding'", 2), torchrun=True, order=[3, 1, 0, 2])
# --- the network ---------------------------------------------------------------------------------------------------
collective("net-wrong-interface-name", 2, "forever", "GLOO_SOCKET_IFNAME names an interface that does not exist.", X("ConfigError", False, "eth7"), env={"GLOO_SOCKET_IFNAME": "eth7"})
collective("net-wrong-interface-name-rank-1-of-3", 3, "forever", "GLOO_SOCKET_IFNAME of rank 1 names an interface that does not exist; the others wait for it.", X("ConfigError", False, "ib0", 1),
           per_rank={1: {"env": {"GLOO_SOCKET_IFNAME": "ib0"}}}, torchrun=True)
collective("net-loopback-interface", 2, "forever", "GLOO_SOCKET_IFNAME=lo on two nodes: each finds only itself.", X("ConfigError", False, None, fine=True), env={"GLOO_SOCKET_IFNAME": "lo"})
collective("net-master-name-wrong", 2, "forever", "MASTER_ADDR does not exist.", X("ConfigError", False, "cannot be retrieved (gai error: -2 - Name or service not known)", fine=True), env={"MASTER_ADDR": "trainer-0.gang.corpus", "TIMEOUT": 15})
collective("net-port-in-use-rank-0", 2, "forever", "Something else in rank 0's pod has the port already.", X("ConfigError", False, "Address already in use", 0), ended=[0],
           per_rank={0: {"command": ["sh", "-c", "python -m http.server 29500 >/dev/null 2>&1 & sleep 1; exec python src/collectives.py forever"]}})
collective("net-port-in-use-torchrun", 1, "forever", "Port 29500 is taken by the pod's own dashboard before torchrun wants it.", X("ConfigError", False, "Address already in use", 0),
           per_rank={0: {"command": ["sh", "-c", "python -m http.server 29500 >/dev/null 2>&1 & sleep 1; exec torchrun --no-python python src/collectives.py forever"]}}, torchrun=True)
collective("net-ports-differ", 2, "forever", "Rank 1 looks for rank 0 at another port; nothing but a refused connection tells.", X("Communication", True, None, fine=True), env={"PET_RDZV_CONF": "timeout=15", "TIMEOUT": 10},
           per_rank={1: {"env": {"PET_MASTER_PORT": 29600}}}, torchrun=True)
collective("net-world-too-large", 2, "forever", "PET_NNODES says three nodes, and there are two.", X("ConfigError", False, None, fine=True), env={"PET_NNODES": 3, "PET_RDZV_CONF": "timeout=15"}, torchrun=True)
collective("net-nnodes-text", 1, "forever", "PET_NNODES is no number.", X("UserError", False, "ValueError", 0), env={"PET_NNODES": "two"}, torchrun=True)
gang("torchrun-unknown-flag", 1, "", "torchrun does not know an argument.", X("UserError", False, "torchrun: error: unrecognized arguments: --nproc_per_nodes=8", 0),
     per_rank={0: {"command": ["torchrun", "--nproc_per_nodes=8", "src/train.py"]}})


def pid_of(g, rank):
    """A process of the pod, as this machine numbers it."""
    uid = g.pods()[rank]["metadata"]["uid"]
    for p in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if uid in p.read_text():
                return p.parent.name
        except OSError:
            pass
    raise RuntimeError(f"no process of {g.pod(rank)}")


def in_network(rank, *commands):
    """Commands in the network of a pod, once the gang has made some steps."""
    def act(g):
        for r in range(g.ranks):
            g.wait_line(r, "step 10 ", 90)
        pid = pid_of(g, rank)
        for c in commands:
            subprocess.run(["nsenter", "-t", pid, "-n", *c.split()], check=True, capture_output=True)
    return act


DROP = ("iptables -I OUTPUT -p tcp ! -d 10.96.0.1 -j DROP", "iptables -I INPUT -p tcp -j DROP")
RESET = ("iptables -I OUTPUT -p tcp -j REJECT --reject-with tcp-reset", "iptables -I INPUT -p tcp -j REJECT --reject-with tcp-reset")
collective("net-cut-rank-1-of-2", 2, "forever", "The network of rank 1's pod drops all packets (iptables).", X("Communication", True, "Timed out waiting"), act=in_network(1, *DROP), hint="iptables in the pod's network")
collective("net-cut-rank-2-of-4-torchrun", 4, "forever", "The network of rank 2's pod drops all packets (iptables).", X("Communication", True, "Timed out waiting"), act=in_network(2, *DROP), torchrun=True, skew={0: -2, 3: 1}, hint="iptables in the pod's network")
collective("net-rejected-rank-1-of-3", 3, "forever", "The network of rank 1's pod rejects all packets (iptables).", X("Communication", True, "Timed out waiting"), act=in_network(1, *RESET), hint="iptables in the pod's network")
collective("net-rejected-rank-0-of-2-torchrun", 2, "forever", "The network of rank 0's pod rejects all packets (iptables).", X("Communication", True, "Timed out waiting"), act=in_network(0, *RESET), torchrun=True, hint="iptables in the pod's network")
KILL = ("ss -K sport != :22",)
collective("net-sockets-killed-rank-1-of-3", 3, "forever", "All connections of rank 1's pod are reset (ss -K), as by a middlebox that restarts.", X("Communication", True, None), act=in_network(1, *KILL), hint="ss -K in the pod's network")
collective("net-sockets-killed-rank-0-of-2-torchrun", 2, "forever", "All connections of rank 0's pod are reset (ss -K), as by a middlebox that restarts.", X("Communication", True, None), act=in_network(0, *KILL), torchrun=True, hint="ss -K in the pod's network")
collective("net-link-down-rank-1-of-3", 3, "forever", "The network device of rank 1's pod is taken down.", X("Communication", True, None), act=in_network(1, "ip link set eth0 down"), hint="ip link set eth0 down in the pod's network")
collective("net-address-gone-rank-1-of-2", 2, "forever", "The address of rank 1's pod is removed.", X("Communication", True, None), act=in_network(1, "ip addr flush dev eth0"), hint="ip addr flush in the pod's network")


def cut_at_birth(rank):
    def act(g):
        g.wait(lambda p: any(c["state"].get("running") for c in p[rank]["status"].get("containerStatuses", [])), 60, "to start")
        subprocess.run(["nsenter", "-t", pid_of(g, rank), "-n", "iptables", "-I", "OUTPUT", "-p", "tcp", "-j", "DROP"], check=True)
    return act


collective("net-master-unreachable-rank-1-of-2", 2, "forever", "Rank 1 can't reach rank 0 from the start: connects time out.", X("Communication", True, None), act=cut_at_birth(1),
           env={"PET_RDZV_CONF": "timeout=15,read_timeout=15", "TIMEOUT": 15}, torchrun=True, hint="iptables in the pod's network")
collective("net-master-unreachable-plain-rank-2-of-3", 3, "forever", "Rank 2 can't reach rank 0 from the start, without torchrun.", X("Communication", True, None), act=cut_at_birth(2), env={"TIMEOUT": 15}, hint="iptables in the pod's network")


# --- JAX -----------------------------------------------------------------------------------------------------------
def jax(case, ranks, how, what, want, **more):
    gang(case, ranks, "", what, want, script="jaxrun.py", args=(how,), torchrun=False, venv=True, **more)


jax("jax-gang-raise-rank-1-of-2", 2, "raise", "Rank 1 raises, and its exit waits for rank 0, which waits for it: both pods are running still.", X("UserError", False, "TypeError: dot_general requires contracting dimensions to have the same shape", 1), ended=[], settle=60)
jax("jax-gang-kill-rank-1-of-3", 3, "kill", "Rank 1 is killed with SIGKILL; the coordination service misses its heartbeats.", X("Unknown", True, None, 1))
jax("jax-gang-stop-rank-1-of-2", 2, "stop", "Rank 1 is stopped; the coordination service misses its heartbeats.", X("Communication", True, None, fine=True), ended=[0])
jax("jax-gang-late-rank-1-of-2", 2, "late", "Rank 1 never connects; rank 0 gives up.", X("Communication", True, "DEADLINE_EXCEEDED", fine=True), ended=[0])

if __name__ == "__main__":
    run_all(CASES, 3)
