"""A case of one pod and one process, from a description and a program. The cases are in single_*.py."""

import pathlib
import textwrap
import zlib

from corpus import Gang, expect, job_name, keep, relabel

PROGRAMS = pathlib.Path(__file__).parent / "programs"
LIB = (PROGRAMS / "trainlib.py").read_text()
SERVER = (PROGRAMS / "server.py").read_text()
CASES = {}
U = "UserError"
D = "DataError"
C = "ConfigError"
S = "Storage"
SHM = lambda size: [({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}, "/dev/shm")]  # noqa: E731
TMPFS = lambda path, size: [({"name": "disk", "emptyDir": {"medium": "Memory", "sizeLimit": size}}, path)]  # noqa: E731
ALIAS = {"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["s3.ml.internal", "hub.ml.internal", "features.ml.internal"]}]}


def single(case, what, cls, line, code, retry=False, fine=False, files=None, command=None, venv=True, image="pytorch",
           server=False, rank=0, hint="", stamped=None, before="", **more):
    def run():
        if relabel(case, expect(cls, retry, line, rank, fine)):
            return
        src = {"trainlib.py": LIB, "train.py": textwrap.dedent(code).lstrip()} | {
            n: textwrap.dedent(t).lstrip() for n, t in (files or {}).items()}
        cmd = command or ["python", "src/train.py"]
        if server:
            src["server.py"] = SERVER
            more.setdefault("pod", {}).update(ALIAS)
        if server or before:
            shell = (f"{before}\n" if before else "") + ("python src/server.py >/dev/null 2>&1 & sleep 1\n" if server else "")
            cmd = ["sh", "-c", shell + "exec " + " ".join(cmd)]
        g = Gang(job_name(case), 1, cmd, image, files=src, venv=venv, **more)
        try:
            g.start()
            g.wait_ended(180)
            how = "one pod on dev/cluster, make/single.py" + (f"; {hint}" if hint else "")
            keep(g, case, what, how, expect(cls, retry, line, rank, fine),
                 stamped=zlib.crc32(case.encode()) % 3 != 0 if stamped is None else stamped)
        finally:
            g.clean()
    CASES[case] = run
