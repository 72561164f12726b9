"""What Kubernetes does to pods, and what it can't start."""

import json
import os
import subprocess
import time

from corpus import Gang, expect, job_name, keep, kubectl, node_facts, relabel, run_all
from gangs import FILES, pid_of

CASES = {}
X = expect
STEADY = """
import os, signal, sys, time
from trainlib import banner, fit
if os.environ.get("ON_TERM") == "ignore": signal.signal(signal.SIGTERM, signal.SIG_IGN)
def save(*_):
    print("received SIGTERM, saving a checkpoint to /tmp/last.pt ..."); time.sleep(0.5); print("checkpoint saved, exiting")
    sys.exit(0)
if os.environ.get("ON_TERM") == "save": signal.signal(signal.SIGTERM, save)
banner("gpt2-small")
fit(int(os.environ.get("STEPS", 30)), os.environ.get("STYLE", "log"), pause=0.02)
if os.environ.get("THEN") == "oom":
    print("evaluating on 1200 samples ...")
    keep = [bytearray(30_000_000) for _ in range(1000)]
if os.environ.get("THEN") == "hang":
    import threading; l = threading.Lock(); l.acquire(); l.acquire()
print("evaluating on 1200 samples ..."); time.sleep(3600)
"""
STEADY_FILES = {"train.py": STEADY, "trainlib.py": FILES["trainlib.py"]}
LAST = "evaluating on 1200 samples"


def case(name, what, want, made="one pod on dev/cluster, make/kube.py"):
    def register(f):
        def run():
            if relabel(name, want):
                return
            gangs = []
            try:
                f(lambda *a, **k: gangs.append(Gang(job_name(name), *a, **k)) or gangs[-1],
                  lambda g, **k: keep(g, name, what, made, want, **k))
            finally:
                for g in gangs:
                    g.clean()
        CASES[name] = run
        return f
    return register


def steady(make, ranks=1, **more):
    env = {"ON_TERM": "ignore"} | more.pop("env", {})
    return make(ranks, ["python", "src/train.py"], "python", files=STEADY_FILES, env=env, **more)


def ddp(make, ranks, *args, **more):
    """A gang that trains for ever."""
    return make(ranks, ["python", "src/train.py", "--epochs", "1000", "--timeout", "40", *args], "pytorch", torchrun=more.pop("torchrun", True), files=FILES, **more)


def evict(pod):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "corpus"}}
    kubectl("create", "--raw", f"/api/v1/namespaces/corpus/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(body))


def busy(node):
    """Pods of others on a node."""
    pods = json.loads(subprocess.run(["kubectl", "get", "pods", "-A", "-o", "json"], capture_output=True, check=True).stdout)["items"]
    return [p["metadata"]["name"] for p in pods if p["spec"].get("nodeName") == node
            and p["metadata"]["namespace"] not in ("corpus", "kube-system")]


def quiet_node(wait=240):
    end = time.time() + wait
    while time.time() < end:
        for node in ("node-2", "node-1"):
            if not busy(node):
                return node
        time.sleep(1)
    raise TimeoutError("no node without others' pods")


def on(node):
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def ended_by_kubernetes(g, ranks=None):
    g.wait_ended(60, ranks)


PRIORITIES = [{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": n}, "value": v,
               "description": "tests/corpus/make"} for n, v in (("corpus-low", -100), ("corpus-high", -10))]


def preempt(g, node):
    """A pod of higher priority that needs all GPUs of the node."""
    urgent = Gang(g.job + "-urgent", 1, ["sleep", "60"], "busybox", gpus=8, pod=on(node) | {"priorityClassName": "corpus-high"})
    urgent.start()
    return urgent


# --- 137 five ways behind the same tail ----------------------------------------------------------------------------
@case("137-oom", "Exit code 137 after a healthy log: the memory limit.", X("HostOutOfMemory", False, None, 0))
def _(make, done):
    g = steady(make, env={"THEN": "oom"}, memory="256Mi").start()
    g.wait_ended()
    done(g)


@case("137-preempted", "Exit code 137 after a healthy log: a pod of higher priority took the GPUs; SIGTERM was ignored.", X("Preempted", True, None, 0))
def _(make, done):
    g = steady(make, gpus=8, pod={"priorityClassName": "corpus-low"}).start()
    g.wait_line(0, LAST)
    u = preempt(g, g.pods()[0]["spec"]["nodeName"])
    try:
        g.wait_ended()
        done(g)
    finally:
        u.clean()


@case("137-evicted-by-api", "Exit code 137 after a healthy log: evicted through the Eviction API, as a drain does; SIGTERM was ignored.", X("Evicted", True, None, 0))
def _(make, done):
    g = steady(make).start()
    g.wait_line(0, LAST)
    evict(g.pod(0))
    g.wait_ended()
    done(g)


@case("137-deadline", "Exit code 137 after a healthy log: activeDeadlineSeconds.", X("DeadlineExceeded", False, None, 0))
def _(make, done):
    g = steady(make, pod={"activeDeadlineSeconds": 8}).start()
    g.wait_ended()
    time.sleep(7)  # the phase is Failed before the container has ended
    done(g)


@case("137-deleted-by-hand", "Exit code 137 after a healthy log: kubectl delete pod; SIGTERM was ignored.", X("Interrupted", True, None, 0))
def _(make, done):
    g = steady(make).start()
    g.wait_line(0, LAST)
    kubectl("delete", "pod", g.pod(0), "--wait=false")
    g.wait_ended()
    done(g)


@case("137-killed-by-hand", "Exit code 137 after a healthy log: kill -9 in the pod by somebody; nothing tells who.", X("Unknown", True, None, 0))
def _(make, done):
    g = steady(make).start()
    g.wait_line(0, LAST)
    g.exec(0, "python", "-c", "import os,signal\nfor p in os.listdir('/proc'):\n  if p.isdigit() and int(p)!=os.getpid() and b'src/train.py' in open(f'/proc/{p}/cmdline','rb').read(): os.kill(int(p),9)")
    g.wait_ended()
    done(g)


@case("137-taint", "Exit code 137 after a healthy log: a NoExecute taint on the node.", X("Evicted", True, None, 0))
def _(make, done):
    node = quiet_node()
    g = steady(make, pod=on(node)).start()
    g.wait_line(0, LAST)
    if busy(node):
        raise RuntimeError("the node has got pods of others")
    kubectl("taint", "node", node, "corpus.dev/maintenance=true:NoExecute")
    try:
        g.wait(lambda p: p[0]["metadata"].get("deletionTimestamp"), 10, "the taint manager")
    finally:
        kubectl("taint", "node", node, "corpus.dev/maintenance-")
    g.wait_ended()
    done(g)


# --- other ends from outside ---------------------------------------------------------------------------------------
@case("143-deleted-by-hand", "kubectl delete pod; Python's default for SIGTERM ends it with 143.", X("Interrupted", True, None, 0))
def _(make, done):
    g = steady(make, env={"ON_TERM": "", "STYLE": "json"}).start()
    g.wait_line(0, LAST)
    kubectl("delete", "pod", g.pod(0), "--wait=false")
    g.wait_ended()
    done(g)


@case("exit-0-evicted-saves-checkpoint", "Evicted; the program handles SIGTERM, saves, and ends with code 0: Succeeded, and yet not finished.", X("Evicted", True, None, 0))
def _(make, done):
    g = steady(make, env={"ON_TERM": "save"}).start()
    g.wait_line(0, LAST)
    evict(g.pod(0))
    g.wait_ended()
    done(g)


@case("exit-0-preempted-saves-checkpoint", "Preempted; the program handles SIGTERM, saves, and ends with code 0.", X("Preempted", True, None, 0))
def _(make, done):
    g = steady(make, gpus=8, env={"ON_TERM": "save", "STYLE": "plain"}, pod={"priorityClassName": "corpus-low"}).start()
    g.wait_line(0, LAST)
    u = preempt(g, g.pods()[0]["spec"]["nodeName"])
    try:
        g.wait_ended()
        done(g)
    finally:
        u.clean()


@case("exit-0-deleted-saves-checkpoint", "Deleted by hand; the program handles SIGTERM and ends with code 0.", X("Interrupted", True, None, 0))
def _(make, done):
    g = steady(make, env={"ON_TERM": "save", "STYLE": "hf"}).start()
    g.wait_line(0, LAST)
    kubectl("delete", "pod", g.pod(0), "--wait=false")
    g.wait_ended()
    done(g)


@case("drained-node-cordoned", "A drain: the node is cordoned and the pod evicted.", X("Evicted", True, None, 0))
def _(make, done):
    node = quiet_node()
    g = steady(make, env={"ON_TERM": "", "STYLE": "plain"}, pod=on(node)).start()
    g.wait_line(0, LAST)
    kubectl("cordon", node)
    try:
        evict(g.pod(0))
        g.wait_ended()
        done(g)
    finally:
        kubectl("uncordon", node)


@case("preempted-before-running", "Preempted while it was still pending to start: no container has run.", X("Preempted", True, None, 0))
def _(make, done):
    g = make(1, ["sleep", "600"], "busybox", gpus=8, pod={"priorityClassName": "corpus-low"},
             volumes=[({"name": "late", "configMap": {"name": "not-there-yet"}}, "/late")]).start()
    g.wait(lambda p: p[0]["spec"].get("nodeName"), 20, "a node")
    time.sleep(1)
    u = preempt(g, g.pods()[0]["spec"]["nodeName"])
    try:
        g.wait(lambda p: any(c["type"] == "DisruptionTarget" for c in p[0]["status"].get("conditions", [])), 30, "preemption")
        time.sleep(6)
        done(g)
    finally:
        u.clean()


@case("deadline-hung-data-loader", "A deadlock; the log simply stops, and activeDeadlineSeconds ends it.", X("DeadlineExceeded", False, None, 0))
def _(make, done):
    g = steady(make, env={"THEN": "hang", "STYLE": "bar", "ON_TERM": ""}, pod={"activeDeadlineSeconds": 10}).start()
    g.wait_ended()
    time.sleep(4)
    done(g)


@case("hang-deleted-by-hand", "A deadlock; the log simply stops, and its owner deletes the pod after a while.", X("Interrupted", True, None, 0))
def _(make, done):
    g = steady(make, env={"THEN": "hang", "STYLE": "hf", "ON_TERM": "", "STEPS": "57"}).start()
    g.wait_running()
    time.sleep(20)
    kubectl("delete", "pod", g.pod(0), "--wait=false")
    g.wait_ended()
    done(g)


# --- gangs of which Kubernetes takes a rank ------------------------------------------------------------------------
def gang_loses(name, what, cls, ranks, victim, act, torchrun=True, retry=True, fine=False, missing=(), skew=None, **more):
    how = f"{'torchrun' if torchrun else 'python, env:// rendezvous'}, {ranks} pods on dev/cluster, make/programs/train.py; make/kube.py"

    @case(name, what, X(cls, retry, None, victim, fine), how)
    def _(make, done):
        g = ddp(make, ranks, "--style", "json" if ranks % 2 else "plain", torchrun=torchrun, **more)
        g.start()
        for r in range(ranks):
            g.wait_line(r, "step", 120)
        after = act(g)
        try:
            g.wait_ended(150)
            done(g, missing=missing, skew=skew)
        finally:
            if callable(after):
                after()


gang_loses("gang-evicted-rank-1-of-3", "Rank 1 is evicted; the others lose the connection.", "Evicted", 3, 1, lambda g: evict(g.pod(1)))
gang_loses("gang-evicted-rank-0-of-4", "Rank 0, which hosts the store, is evicted; the others lose store and connections.", "Evicted", 4, 0, lambda g: evict(g.pod(0)), skew={0: 2})
gang_loses("gang-deleted-rank-2-of-4", "Somebody deletes rank 2's pod; the others lose the connection.", "Interrupted", 4, 2, lambda g: kubectl("delete", "pod", g.pod(2), "--wait=false"), torchrun=False)
gang_loses("gang-deleted-rank-0-of-2-log-missing", "Somebody deletes rank 0's pod, and its log is gone.", "Interrupted", 2, 0, lambda g: kubectl("delete", "pod", g.pod(0), "--wait=false", "--grace-period=1"), missing=[0])
gang_loses("gang-deadline-rank-1-of-2", "Only rank 1 has an activeDeadlineSeconds.", "DeadlineExceeded", 2, 1, lambda g: time.sleep(1), retry=False, per_rank={1: {"activeDeadlineSeconds": 70}})


def gang_preempted(g):
    node = g.pods()[1]["spec"]["nodeName"]
    return preempt(g, node).clean


gang_loses("gang-preempted-rank-1-of-2", "Rank 1 is preempted; rank 0 loses the connection.", "Preempted", 2, 1, gang_preempted,
           per_rank={1: {"priorityClassName": "corpus-low", "container": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}}})


def kill_in(rank, signal=9):
    return lambda g: g.exec(rank, "python", "-c", f"import os\nfor p in os.listdir('/proc'):\n  if p.isdigit() and int(p)!=os.getpid() and open(f'/proc/{{p}}/cmdline','rb').read().startswith(b'python\\0src/train.py'): os.kill(int(p),{signal})")


gang_loses("gang-killed-by-hand-rank-2-of-3", "kill -9 in rank 2's pod by somebody: 137 and no reason.", "Unknown", 3, 2, kill_in(2), torchrun=False)
gang_loses("gang-sigterm-by-hand-rank-0-of-2", "kill -TERM in rank 0's pod by somebody.", "Unknown", 2, 0, kill_in(0, 15), torchrun=False, fine=True)


# --- what can't start ----------------------------------------------------------------------------------------------
def stuck(name, what, want, ready=None, seconds=60, ranks=1, command=("sleep", "60"), image="busybox", settle=0.0, **more):
    def is_waiting(pods):
        cs = [c for p in pods.values() for c in p["status"].get("initContainerStatuses", []) + p["status"].get("containerStatuses", [])]
        return any(c["state"].get("waiting", {}).get("reason") not in (None, "ContainerCreating", "PodInitializing")
                   or "terminated" in c["state"] for c in cs)

    @case(name, what, want)
    def _(make, done):
        g = make(ranks, list(command), image, **more).start()
        g.wait(ready or is_waiting, seconds, "trouble")
        time.sleep(settle)
        done(g)


def unscheduled(pods):
    return any(c["type"] == "PodScheduled" and c["status"] == "False" for p in pods.values() for c in p["status"].get("conditions", []))


def backoff(pods):
    return any(c["state"].get("waiting", {}).get("reason") == "ImagePullBackOff" for p in pods.values() for c in p["status"].get("containerStatuses", []))


P = "ImagePull"
stuck("image-invalid-name", "An image name with capitals.", X(P, False, None, 0), image="Registry.example.com/ML/Train:V1")
stuck("image-registry-no-such-host", "The registry's name does not exist.", X(P, False, None, 0), image="registry.exampel.com/ml/train:v1")
stuck("image-registry-no-such-host-backoff", "The registry's name does not exist; the kubelet waits before the next try.", X(P, False, None, 0), ready=backoff, image="regsitry.internal/ml/train:v1")
stuck("image-never-pull", "imagePullPolicy Never, and the node does not have the image.", X(P, False, None, 0), image="localhost/trainyard/pytorch:2.9-cuda13", container={"imagePullPolicy": "Never"})
stuck("image-localhost-refused", "An image of the node's own that is not loaded: nobody listens at localhost.", X(P, True, None, 0), image="localhost/trainyard/pytorch:nightly")
# Made while programs/registry.py answered TLS with neither TLS nor HTTP.
stuck("image-registry-tls-mismatch", "The registry speaks no TLS where the kubelet expects it.", X(P, False, None, 0), image="localhost:5000/ml/train:s503", pod=on("node-1"))
for code, word, retry in [("404", "a tag that the registry does not have", False), ("401", "the registry wants credentials", False), ("403", "the registry forbids it", False),
                          ("429", "the registry limits the rate", True), ("500", "the registry has an internal error", True), ("503", "the registry is overloaded", True)]:
    stuck(f"image-registry-{code}", f"An image pull fails with {code}: {word}.", X(P, retry, None, 0), image=f"localhost:5000/ml/train:s{code}", pod=on("node-1"))
stuck("image-registry-404-gang", "One of three ranks can't pull its image: the tag does not exist.", X(P, False, None, 1), ranks=3,
      per_rank={1: {"container": {"image": "localhost:5000/ml/train:s404"}}, 0: on("node-1"), 2: on("node-1")}, pod=on("node-1"), settle=2)
C = "ConfigError"
stuck("config-env-configmap-missing", "The environment comes from a ConfigMap that does not exist.", X(C, False, None, 0), container={"envFrom": [{"configMapRef": {"name": "train-settings"}}]})
stuck("config-env-secret-missing", "A variable comes from a Secret that does not exist.", X(C, False, None, 0),
      container={"env": [{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "api-key"}}}]})
stuck("config-env-key-missing", "The ConfigMap is there, but not its key.", X(C, False, None, 0),
      container={"env": [{"name": "CA", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "data-dir"}}}]})
stuck("config-gang-secret-missing", "Rank 2 of three takes a Secret that does not exist; the others wait for it.", X(C, False, None, 2), ranks=3, settle=2,
      per_rank={2: {"container": {"env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token"}}}]}}})
stuck("config-volume-secret-missing", "A volume's Secret does not exist: only an event says so, the status does not.", X(C, False, None, 0, fine=True),
      ready=lambda p: p[0]["status"].get("containerStatuses"), settle=6, volumes=[({"name": "cert", "secret": {"secretName": "ca-bundle"}}, "/cert")])
stuck("config-claim-missing", "A claim that does not exist.", X(C, False, None, 0), ready=unscheduled, volumes=[({"name": "data", "persistentVolumeClaim": {"claimName": "imagenet"}}, "/data")])
stuck("config-run-as-non-root", "runAsNonRoot, and the pod runs as root.", X(C, False, None, 0), container={"securityContext": {"runAsUser": 0, "runAsNonRoot": True, "allowPrivilegeEscalation": False}})
stuck("start-command-not-found", "The command is not in the image.", X(C, False, None, 0), command=["torchrn", "train.py"], image="pytorch")
stuck("start-permission-denied", "The command may not be executed.", X(C, False, None, 0), command=["/etc/hostname"])
stuck("start-no-such-path", "The command's path does not exist.", X(C, False, None, 0), command=["/workspace/run.sh"], image="python")
stuck("start-exec-format-error", "The command is a text file without #!.", X(C, False, "exec format error", 0), command=["/workspace/src/run"], image="python", files={"run": "echo hi\n"})
stuck("start-directory", "The command is a folder.", X(C, False, None, 0), command=["/workspace"], image="python")
stuck("start-bad-interpreter", "The script's interpreter does not exist.", X(C, False, None, 0), command=["/workspace/src/run.sh"], image="busybox", files={"run.sh": "#!/bin/bash\necho hi\n"})
stuck("start-bad-device-mount", "A volume shall be mounted over a file.", X(C, False, None, 0), image="python", volumes=[({"name": "d", "emptyDir": {}}, "/etc/hostname")])
N = "Unschedulable"
stuck("unschedulable-9-gpus", "A pod wants nine GPUs, a node has eight.", X(N, False, None, 0), ready=unscheduled, gpus=9)
stuck("unschedulable-selector", "No node has the label.", X(N, False, None, 0), ready=unscheduled, gpus=1, pod={"nodeSelector": {"gpu.type": "h200"}})
stuck("unschedulable-memory", "No node has 2 Ti of memory.", X(N, False, None, 0), ready=unscheduled, memory="2Ti")
stuck("unschedulable-other-resource", "No node offers the resource at all.", X(N, False, None, 0), ready=unscheduled, container={"resources": {"limits": {"amd.com/gpu": "1"}}})
stuck("unschedulable-affinity", "An affinity that no node meets.", X(N, False, None, 0), ready=unscheduled, pod={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eu-1a"]}]}]}}}})


@case("unschedulable-gpus-in-use", "A gang of three wants eight GPUs each, and two nodes have them: the third rank waits.", X(N, True, None, 2))
def _(make, done):
    g = make(3, ["sleep", "60"], "busybox", gpus=8, pod={"priorityClassName": "corpus-low"}, nodes=None,
             per_rank={2: {"nodeSelector": {"kubernetes.io/os": "linux"}}})
    g.start()
    g.wait(unscheduled, 30, "a rank without a node")
    time.sleep(2)
    done(g)


@case("init-container-fails", "An init container can't stage the data: a wrong path.", X("DataError", False, "can't open '/mnt/archive/imagenet.tar'", 0, fine=True))
def _(make, done):
    g = make(1, ["sleep", "60"], "busybox", pod={"initContainers": [{"name": "stage", "image": "localhost/trainyard/busybox:dev", "command": ["sh", "-ec", "echo staging; tar xf /mnt/archive/imagenet.tar -C /tmp"], "terminationMessagePolicy": "FallbackToLogsOnError"}]}).start()
    g.wait_ended()
    g.log = lambda rank, stamped: kubectl("logs", g.pod(rank), "-c", "stage", *(["--timestamps"] if stamped else []), raw=True)
    done(g)



# --- a node is lost: one outage, several cases ---------------------------------------------------------------------
OUTAGE = "the kubelet of node-2 was killed for 45 s (dev/cluster/cluster node stop node-2); make/kube.py"
LOST = {
    "node-lost-not-ready": ("The kubelet is silent and the node not ready; the pod counts as running still.", 0),
    "node-lost-deleted": ("The node was lost; the taint manager has deleted the pod, which nobody can confirm.", 0),
    "node-lost-log-missing": ("The node was lost with the pod's log; the taint manager has deleted the pod.", 0),
    "node-back-pod-ended": ("The node was lost, the pod deleted by the taint manager, and then the node came back and ended it; what is left knows only of the taint manager.", 0),
    "gang-node-lost-rank-1-of-2": ("Rank 1's node was lost with its network; rank 0 timed out in gloo.", 1),
    "gang-node-lost-rank-3-of-4": ("Rank 3's node was lost with its network; the others timed out or lost each other.", 3),
}


def node(*what):
    cluster = os.environ.get("CORPUS_CLUSTER", "/work/main/dev/cluster/cluster")
    subprocess.run([cluster, "node", *what], check=True, capture_output=True)


def outage():
    wants = {n: X("NodeLost", True, None, rank) for n, (_, rank) in LOST.items()}
    wants["node-back-pod-ended"] = X("Evicted", True, None, 0)  # the facts know of the taint manager alone
    if any([relabel(n, w) for n, w in wants.items()]):
        return
    single = [steady(lambda *a, **k: Gang(job_name(n), *a, **k), pod=on("node-2"), env={"STYLE": st, "ON_TERM": ""})
              for n, st in (("node-lost-not-ready", "log"), ("node-lost-log-missing", "bar"))]
    gangs = [ddp(lambda *a, **k: Gang(job_name(f"gang-lost-{r}"), *a, **k), r, "--style", "plain", "--timeout", "25", torchrun=r == 2,
                 nodes=["node-1"] * (r - 1) + ["node-2"]) for r in (2, 4)]
    down = False
    try:
        for g in single + gangs:
            g.start()
        for g in gangs:
            for r in range(g.ranks):
                g.wait_line(r, "step 10/", 150)
        for g in single:
            g.wait_line(0, LAST)
        if busy("node-2"):
            raise RuntimeError("node-2 has got pods of others: try again later")
        pids = [pid_of(g, g.ranks - 1) for g in gangs]
        kubectl("create", "configmap", "node-down", "--from-literal=node=node-2")
        node("stop", "node-2")
        down = True
        for pid in pids:
            subprocess.run(["nsenter", "-t", pid, "-n", "ip", "link", "set", "eth0", "down"], check=True)
        end = time.time() + 40
        while node_facts("node-2")["ready"] and time.time() < end:
            time.sleep(0.5)
        done = lambda g, n, **k: keep(g, n, LOST[n][0], OUTAGE, wants[n], **k)  # noqa: E731
        done(single[0], "node-lost-not-ready")
        single[0].wait(lambda p: p[0]["metadata"].get("deletionTimestamp"), 40, "the taint manager")
        done(single[0], "node-lost-deleted")
        done(single[1], "node-lost-log-missing", missing=[0])
        for g in gangs:
            g.wait_ended(30, list(range(g.ranks - 1)))
        done(gangs[0], "gang-node-lost-rank-1-of-2")
        done(gangs[1], "gang-node-lost-rank-3-of-4", skew={1: 2})
        node("start", "node-2")
        down = False
        single[0].wait_ended(60)
        done(single[0], "node-back-pod-ended")
    finally:
        if down:
            node("start", "node-2")
        kubectl("delete", "configmap", "node-down", check=False)
        for g in single + gangs:
            g.clean()


CASES["node-lost-not-ready"] = outage


if __name__ == "__main__":
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": PRIORITIES}))
    alone = ("preempt", "unschedulable-gpus", "node-lost")  # these need whole nodes
    run_all({n: f for n, f in CASES.items() if not any(a in n for a in alone)}, 3)
    run_all({n: f for n, f in CASES.items() if any(a in n for a in alone)}, 1)
    kubectl("delete", "priorityclass", "corpus-low", "corpus-high", check=False)
