"""Runs gangs of pods on a real cluster and keeps what they leave behind as cases of the corpus.

Not here: what goes wrong (see gangs.py, kube.py, single.py) and what a case means (see ../README.md).
"""

import concurrent.futures
import datetime
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import traceback
import zlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CASES = HERE.parent
NS = os.environ.get("CORPUS_NAMESPACE", "corpus")
VENV = os.environ.get("CORPUS_VENV", "/opt/trainyard-corpus/venv")  # made by venv.sh, shown to pods as /opt/venv
KEEP = "corpus.trainyard.dev/keep"  # a finalizer: a pod's last status outlives its deletion
IMAGE = "localhost/trainyard/{}:dev"
LIMIT = 300_000


def kubectl(*args, stdin=None, check=True, timeout=120, raw=False):
    p = subprocess.run(
        ["kubectl", "-n", NS, *args], input=stdin, capture_output=True, timeout=timeout, text=not raw, check=False
    )
    if check and p.returncode:
        raise RuntimeError(f"kubectl {' '.join(args)}: {p.stderr}")
    return p.stdout


def get(*args):
    return json.loads(kubectl("get", *args, "-o", "json"))


def merge(into, patch):
    for k, v in patch.items():
        if isinstance(v, dict) and isinstance(into.get(k), dict):
            merge(into[k], v)
        else:
            into[k] = v
    return into


class Gang:
    """The pods {job}-{attempt}-{rank} of one attempt, made as trainyard makes them."""

    def __init__(self, job, ranks=1, command=(), image="python", torchrun=False, nproc=1, env=None, files=None,
                 pod=None, container=None, memory=None, gpus=0, volumes=(), per_rank=None, attempt=1, venv=False,
                 services=True, nodes=None):
        self.job, self.ranks, self.attempt = job, ranks, attempt
        self.follow = {}
        self.objects = []
        volumes = list(volumes)
        if files:
            self.objects.append({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{job}-src"}, "data": files})
            volumes.append(({"name": "src", "configMap": {"name": f"{job}-src", "defaultMode": 0o755}},
                            "/workspace/src"))
        if venv:
            volumes.append(({"name": "venv", "hostPath": {"path": os.path.realpath(VENV)}}, "/opt/venv"))
        if ranks > 1 and services:
            self.objects.append({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": job},
                "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job": job}}})
        for rank in range(ranks):
            e = {"TRAINYARD_RANK": rank, "TRAINYARD_NUM_NODES": ranks, "OMP_NUM_THREADS": 1}
            host = f"{job}-{attempt}-0.{job}" if ranks > 1 else "localhost"
            cmd = list(command)
            if torchrun:
                e |= {"PET_NNODES": ranks, "PET_NPROC_PER_NODE": nproc, "PET_NODE_RANK": rank,
                      "PET_MASTER_ADDR": host, "PET_MASTER_PORT": 29500, "PET_MAX_RESTARTS": 0}
                cmd = ["torchrun", "--no-python", *cmd]
            else:
                e |= {"MASTER_ADDR": host, "MASTER_PORT": 29500, "RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": 0}
            e |= env or {}
            special = dict((per_rank or {}).get(rank, {}))
            e |= special.pop("env", {})
            cmd = special.pop("command", cmd)
            if venv:
                e.setdefault("PATH", "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin")
            c = {
                "name": "trainer", "image": IMAGE.format(image) if "/" not in image else image,
                "imagePullPolicy": "IfNotPresent", "command": cmd,
                "env": [{"name": k, "value": str(v)} for k, v in e.items()],
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "resources": {"limits": {}, "requests": {}},
                "volumeMounts": [{"name": v["name"], "mountPath": m} for v, m in volumes],
            }
            if memory:
                c["resources"]["limits"]["memory"] = memory
            if gpus:
                c["resources"]["limits"]["nvidia.com/gpu"] = str(gpus)
            merge(c, container or {})
            merge(c, special.pop("container", {}))
            spec = {
                "restartPolicy": "Never", "shareProcessNamespace": True, "containers": [c],
                "volumes": [v for v, _ in volumes], "automountServiceAccountToken": False, "enableServiceLinks": False,
                "hostname": f"{job}-{attempt}-{rank}", "terminationGracePeriodSeconds": 5,
                "securityContext": {"runAsNonRoot": True, "fsGroup": 65532,
                                    "seccompProfile": {"type": "RuntimeDefault"}},
            }
            if ranks > 1:
                spec["subdomain"] = job
            if nodes:
                spec["nodeSelector"] = {"kubernetes.io/hostname": nodes[rank % len(nodes)]}
            merge(spec, pod or {})
            merge(spec, special)
            if nodes is None and "nodeSelector" not in spec and ranks > 1:
                spec["nodeSelector"] = {"kubernetes.io/hostname": f"node-{rank % 2 + 1}"}
            self.objects.append({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.pod(rank), "labels": {"job": job, "rank": str(rank)}, "finalizers": [KEEP]},
                "spec": spec})

    def pod(self, rank):
        return f"{self.job}-{self.attempt}-{rank}"

    def start(self):
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": self.objects}))
        for r in range(self.ranks):
            threading.Thread(target=self._follow, args=(r,), daemon=True).start()
        return self

    def _follow(self, rank):
        # Deletion takes the container's log away, so it is followed from the start.
        out = pathlib.Path(f"/tmp/corpus-{self.pod(rank)}.log")
        self.follow[rank] = out
        out.unlink(missing_ok=True)
        end = time.time() + 300
        while time.time() < end:
            with out.open("wb") as f:
                p = subprocess.run(["kubectl", "-n", NS, "logs", "-f", "--timestamps", self.pod(rank)],
                                   stdout=f, stderr=subprocess.DEVNULL, check=False)
            if p.returncode == 0 or out.stat().st_size:
                return
            time.sleep(0.3)

    def pods(self):
        items = get("pods", "-l", f"job={self.job}")["items"]
        return {int(p["metadata"]["labels"]["rank"]): p for p in items}

    def wait(self, ready, seconds=90, what="?"):
        end = time.time() + seconds
        while time.time() < end:
            pods = self.pods()
            if ready(pods):
                return pods
            time.sleep(0.7)
        raise TimeoutError(f"{self.job}: {what}")

    def wait_ended(self, seconds=120, ranks=None):
        def ended(pods):
            return all(pods[r]["status"].get("phase") in ("Succeeded", "Failed")
                       for r in (ranks if ranks is not None else range(self.ranks)))
        return self.wait(ended, seconds, "the end of all pods")

    def wait_running(self, seconds=60):
        return self.wait(lambda pods: all(p["status"].get("phase") == "Running" for p in pods.values()), seconds,
                         "all pods to run")

    def wait_line(self, rank, text, seconds=90):
        end = time.time() + seconds
        while time.time() < end:
            f = self.follow.get(rank)
            if f and f.exists() and text.encode() in f.read_bytes():
                return
            time.sleep(0.3)
        raise TimeoutError(f"{self.job}: no line with {text!r} from rank {rank}")

    def exec(self, rank, *cmd, check=False):
        return kubectl("exec", self.pod(rank), "--", *cmd, check=check)

    def log(self, rank, stamped):
        args = ["logs", self.pod(rank)] + (["--timestamps"] if stamped else [])
        out = subprocess.run(["kubectl", "-n", NS, *args], capture_output=True, check=False)
        text = out.stdout if out.returncode == 0 else b""
        f = self.follow.get(rank)
        followed = f.read_bytes() if f and f.exists() else b""
        if not stamped:
            followed = b"".join(line.split(b" ", 1)[-1] for line in followed.splitlines(keepends=True))
        return max(text, followed, key=len)

    def clean(self):
        pods = [o["metadata"]["name"] for o in self.objects if o["kind"] == "Pod"]
        for p in pods:
            kubectl("patch", "pod", p, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)
        kubectl("delete", "--wait=false", "--grace-period=0", "--force", "pod", *pods, check=False)
        for o in self.objects:
            if o["kind"] != "Pod":
                kubectl("delete", "--wait=false", o["kind"], o["metadata"]["name"], check=False)


def node_facts(name):
    n = json.loads(subprocess.run(["kubectl", "get", "node", name, "-o", "json"], capture_output=True, check=True).stdout)
    conditions = {c["type"]: c for c in n["status"]["conditions"]}
    facts = {"ready": conditions["Ready"]["status"] == "True", "unschedulable": n["spec"].get("unschedulable", False)}
    taints = [f"{t['key']}={t.get('value', '')}:{t['effect']}" if t.get("value") else f"{t['key']}:{t['effect']}"
              for t in n["spec"].get("taints", [])]
    problems = [f"{c['type']}: {c['reason']}: {c['message']}" for t, c in conditions.items()
                if t != "Ready" and c["status"] == "True"]
    if taints:
        facts["taints"] = taints
    if problems:
        facts["problems"] = problems
    return facts


def facts(rank, pod, facts_of=node_facts):
    """The pod's status in the corpus' words."""
    st = pod.get("status", {})
    out = {"rank": rank, "phase": st.get("phase", "Pending")}
    if pod["spec"].get("nodeName"):
        out["node"] = pod["spec"]["nodeName"]
    for c in st.get("initContainerStatuses", []) + st.get("containerStatuses", []):
        state = c["state"]
        if t := state.get("terminated"):
            out["terminated"] = {"exitCode": t["exitCode"], "reason": t.get("reason", "")}
            if t.get("message"):
                out["terminated"]["message"] = t["message"]
            if t.get("finishedAt"):
                out["terminated"]["finished"] = t["finishedAt"]
        elif w := state.get("waiting"):
            out["waiting"] = {"reason": w.get("reason", ""), **({"message": w["message"]} if w.get("message") else {})}
    if "terminated" in out:
        out.pop("waiting", None)
    if st.get("reason"):
        out["podReason"] = st["reason"]
    if st.get("message"):
        out["podMessage"] = st["message"]
    true = [{k: c[k] for k in ("type", "reason", "message") if c.get(k)}
            for c in st.get("conditions", []) if c["status"] == "True"]
    interesting = [c for c in true if c["type"] not in
                   ("PodScheduled", "Initialized", "PodReadyToStartContainers", "Ready", "ContainersReady")]
    if interesting:
        out["conditions"] = interesting
    for c in st.get("conditions", []):
        if c["type"] == "PodScheduled" and c["status"] == "False":
            out["unschedulable"] = c.get("message", "")
    if pod["metadata"].get("deletionTimestamp"):
        out["deleted"] = True
    limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory")
    if limit:
        out["memoryLimit"] = limit
    if "node" in out:
        out["nodeFacts"] = facts_of(out["node"])
    return out


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper, s):
    return dumper.represent_scalar("tag:yaml.org,2002:str", s, style="|" if "\n" in s else None)


_Dumper.add_representer(str, _text)


def cut(data):
    """Keeps the end, from the begin of a line."""
    if len(data) <= LIMIT:
        return data, False
    tail = data[-LIMIT:]
    at = tail.find(b"\n")
    return (tail[at + 1:] if 0 <= at < len(tail) - 20_000 else tail), True


def shift(data, seconds):
    """Moves each line's stamp, as the clock of a node that goes wrong would have."""
    out = []
    for line in data.splitlines(keepends=True):
        stamp, _, rest = line.partition(b" ")
        try:
            head, frac = stamp.decode().rstrip("Z").split(".")
            t = datetime.datetime.fromisoformat(head) + datetime.timedelta(seconds=seconds)
            line = f"{t.isoformat()}.{frac}Z ".encode() + rest
        except ValueError:
            pass
        out.append(line)
    return b"".join(out)


def write(case, description, made, expect, ranks, logs, origin="real"):
    """ranks: the facts by rank; logs: {rank: (bytes, stamped)}."""
    folder = CASES / case
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.log"):
        old.unlink()
    notes = ""
    for r in ranks:
        data, stamped = logs.get(r["rank"], (b"", False))
        if data:
            data, was_cut = cut(data)
            if was_cut:
                notes += f" The log of rank {r['rank']} is cut to its last {len(data)} bytes."
            name = f"rank-{r['rank']}.log"
            (folder / name).write_bytes(data)
            entry = {"rank": r.pop("rank"), "log": name, "stamped": stamped}
            rest = dict(r)
            r.clear()
            r.update(entry | rest)
        r.setdefault("deleted", False)
        if not r["deleted"]:
            r.pop("deleted")
        if r.get("nodeFacts") == {"ready": True, "unschedulable": False}:
            r["nodeFacts"] = {"ready": True}
    doc = {"description": description + notes, "origin": origin, "made": made, "expect": expect, "ranks": ranks}
    (folder / "case.yaml").write_text(
        yaml.dump(doc, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
    print(f"== {case}: {[(r['rank'] if 'rank' in r else '?', r.get('phase'), r.get('terminated', {}).get('exitCode')) for r in ranks]}", flush=True)


def keep(gang, case, description, made, expect, stamped=True, missing=(), skew=None, order=None):
    """Writes what a gang left behind: missing ranks' logs could not be read, skew is {rank: seconds}."""
    pods = gang.pods()
    ranks, logs = [], {}
    for rank in order or sorted(pods):
        f = facts(rank, pods[rank])
        ranks.append(f)
        if rank not in missing:
            data = gang.log(rank, stamped)
            seconds = (skew or {}).get(rank)
            if seconds:
                data = shift(data, seconds)
                if t := f.get("terminated", {}).get("finished"):
                    at = datetime.datetime.fromisoformat(t) + datetime.timedelta(seconds=seconds)
                    f["terminated"]["finished"] = at.isoformat().replace("+00:00", "Z")
            logs[rank] = (data, stamped)
    if skew:
        description += " The clock of " + ", ".join(f"rank {r}'s node was {s:+} s off" for r, s in skew.items()) + \
            " (its stamps were shifted afterwards)."
    if missing:
        description += " The log of rank " + ", ".join(map(str, missing)) + " could not be read."
    write(case, description, made, expect, ranks, logs)


def job_name(case):
    """A name that gives nothing away, since it gets into the logs."""
    words = ["clicks", "ranker", "llm-sft", "vit-b16", "gpt2-small", "resnet", "asr", "bert-mlm", "unet", "tab"]
    n = zlib.crc32(case.encode())
    return f"{words[n % len(words)]}-{n // 16 % 1000}"


def relabel(case, want):
    """With CORPUS_RELABEL=1 nothing runs: the expected verdict of a case that is there is written anew."""
    if not os.environ.get("CORPUS_RELABEL"):
        return False
    path = CASES / case / "case.yaml"
    doc = yaml.safe_load(path.read_text())
    if doc["expect"] != want:
        doc["expect"] = want
        path.write_text(yaml.dump(doc, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
        print("relabelled", case, want)
    return True


def expect(cls, retry, line=None, rank=None, fine=False):
    e = {"class": cls, "retry": retry}
    if rank is not None:
        e["rank"] = rank
    if line:
        e["line"] = line
    if fine:
        e["unknownIsFine"] = True
    return e


def run_all(cases, workers):
    """cases: {name: function}. Arguments of the program choose some by a part of their name."""
    wanted = sys.argv[1:]
    todo = {n: f for n, f in cases.items()
            if (any(w in n for w in wanted) if wanted
                else (CASES / n / "case.yaml").exists() == bool(os.environ.get("CORPUS_RELABEL")))}
    failed = []

    def one(item):
        try:
            item[1]()
        except Exception:  # noqa: BLE001 — the others go on
            failed.append(item[0])
            print(f"!! {item[0]}\n{traceback.format_exc()}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, todo.items()))
    print("failed:", failed)
