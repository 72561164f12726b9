"""Open MPI on one machine: what mpirun says when a rank ends. Runs in the root file system that venv.sh made, not in a
pod: the facts of the pod are those of any container that ends with mpirun's code."""

import datetime
import subprocess

from corpus import VENV, expect, relabel, run_all, write

ROOT = VENV.removesuffix("/opt/venv") if VENV.endswith("/root/opt/venv") else "/var/tmp/corpus/root"
CASES = {}


def mpi(case, what, want, code, ranks=4, args=(), oversubscribe=True):
    def run():
        if relabel(case, want):
            return
        p = subprocess.run(
            ["chroot", ROOT, "setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "env", "-i", "HOME=/tmp",
             "PATH=/usr/bin:/bin", "PYTHONUNBUFFERED=1", "OMP_NUM_THREADS=1", "sh", "-c",
             f"cd /tmp; mpirun {'--oversubscribe' if oversubscribe else ''} -n {ranks} {' '.join(args)} python3 -m mpi4py -c \"$0\"", code],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = {"rank": 0, "phase": "Failed", "node": "node-1", "nodeFacts": {"ready": True},
                 "terminated": {"exitCode": p.returncode, "reason": "Error", "finished": now}}
        write(case, what, f"mpirun -n {ranks} (Open MPI 5, mpi4py) in the pytorch image's root file system on the host, make/mpi.py; the pod's facts were added",
              want, [facts], {0: (p.stdout, False)})
    CASES[case] = run


HEAD = """
import os, sys, time
from mpi4py import MPI
comm = MPI.COMM_WORLD
rank = comm.Get_rank()
for i in range(5):
    s = comm.allreduce(rank); print(f"[{rank}] iter {i} sum {s} residual {0.5 ** i:.4f} errors 0", flush=True)
"""
mpi("mpi-abort-rank-2", "Rank 2 calls MPI_Abort after it found wrong input.", expect("UserError", False, "rank 2: grid 127x64 can't be split by 4", 0, True),
    HEAD + "if rank == 2: print('rank 2: grid 127x64 can\\'t be split by 4', flush=True); comm.Abort(13)\ncomm.Barrier()\n")
mpi("mpi-exception-rank-1", "Rank 1 raises; mpirun ends the others.", expect("UserError", False, "ValueError: halo width 3 exceeds block size 2", 0),
    HEAD + "if rank == 1: raise ValueError('halo width 3 exceeds block size 2')\ncomm.Barrier()\n", args=())
mpi("mpi-segv-rank-3", "Rank 3 dies of SIGSEGV.", expect("Unknown", True, "signal 11 (Segmentation fault)", 0),
    HEAD + "if rank == 3: os.kill(os.getpid(), 11)\ncomm.Barrier()\n")
mpi("mpi-killed-rank-0", "Rank 0 is killed with SIGKILL.", expect("Unknown", True, "signal 9 (Killed)", 0),
    HEAD + "if rank == 0: os.kill(os.getpid(), 9)\ncomm.Barrier()\n")
mpi("mpi-truncated-message", "A message is longer than the receiver's buffer.", expect("UserError", False, "MPI_ERR_TRUNCATE: message truncated", 0),
    HEAD + "import numpy as np\nif rank == 0: comm.Send(np.zeros(100), dest=1)\nif rank == 1: comm.Recv(np.zeros(10), source=0)\ncomm.Barrier()\n", ranks=2)
mpi("mpi-program-not-found", "mpirun does not find the program.", expect("ConfigError", False, None, 0), "", args=("/workspace/solver",))
mpi("mpi-not-enough-slots", "More ranks than slots.", expect("ConfigError", False, "There are not enough slots available in the system", 0), "pass", ranks=64, oversubscribe=False)

if __name__ == "__main__":
    run_all(CASES, 1)
