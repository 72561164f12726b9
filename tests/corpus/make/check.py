"""Says what is wrong with the cases' form: fields, files, sizes, and lines that are not in any log."""

import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIELDS = {"rank", "log", "stamped", "phase", "node", "terminated", "waiting", "podReason", "podMessage", "conditions",
          "unschedulable", "deleted", "memoryLimit", "nodeFacts"}
CLASSES = """UserError DataError ConfigError ImagePull Unschedulable HostOutOfMemory GpuOutOfMemory GpuHardware Communication
Storage NodeLost Preempted Evicted Interrupted Hang DeadlineExceeded Unknown""".split()
counts, bad, total = {}, 0, 0


def complain(case, text):
    global bad
    bad += 1
    print(f"{case}: {text}")


for path in sorted(ROOT.glob("*/case.yaml")):
    name = path.parent.name
    case = yaml.safe_load(path.read_text())
    want = case["expect"]
    counts[want["class"]] = counts.get(want["class"], 0) + 1
    if want["class"] not in CLASSES:
        complain(name, f"class {want['class']}")
    logs = {}
    for r in case["ranks"]:
        if extra := set(r) - FIELDS:
            complain(name, f"fields {extra}")
        if "log" in r:
            logs[r["rank"]] = (path.parent / r["log"]).read_bytes()
            total += len(logs[r["rank"]])
            if len(logs[r["rank"]]) > 300_000:
                complain(name, f"{r['log']} is too long")
    if line := want.get("line"):
        of = [logs.get(want["rank"], b"")] if "rank" in want and len(logs) > 1 else list(logs.values())
        texts = b"\n".join(of).decode(errors="replace")
        if not any(line in t for t in texts.replace("\r", "\n").split("\n")):
            complain(name, f"no line has {line!r}; ends: {[t[-110:] for t in texts.strip().split(chr(10))[-4:]]}")
    if "rank" in want and want["rank"] not in [r["rank"] for r in case["ranks"]]:
        complain(name, "the blamed rank has no entry")
print(sum(counts.values()), "cases,", total, "bytes of logs,", counts)
sys.exit(bad > 0)
