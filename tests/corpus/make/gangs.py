"""Gangs of which one rank (or the network) fails, under torchrun or alone: real torch.distributed over gloo."""

import pathlib
import subprocess

from corpus import Gang, expect, job_name, keep, kubectl, run_all

PROGRAMS = pathlib.Path(__file__).parent / "programs"
FILES = {p.name: p.read_text() for p in PROGRAMS.glob("*.py")}
CASES = {}
X = expect


def gang(case, ranks, fault, what, want, style="plain", step=12, args=(), nproc=1, torchrun=True, stamped=True,
         missing=(), skew=None, order=None, ended=None, until=None, act=None, script="train.py", settle=0, hint="", **more):
    """ended: the ranks that end by themselves (all where None); until/act: what to do before the capture."""
    def run():
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
     X("UserError", False, "TypeError: new(): invalid data type 'str'", 1), args=("--workers", "1"), style="bar",
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
     X("UserError", False, "ZeroDivisionError: float division by zero", 0), torchrun=False)
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
gang("gang-memory-error-rank-0-of-2", 2, "0:memory-error", "Rank 0 asks for 256 TiB in one tensor: the allocator refuses, a wrong size rather than a full machine.",
     X("UserError", False, "RuntimeError: [enforce fail at alloc_cpu.cpp", 0, fine=True))
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
     X("UserError", False, "DDP expects same model across all ranks" , fine=True))
gang("gang-never-joins-rank-1-of-2", 2, "1:late", "Rank 1's program never comes to the rendezvous; rank 0 gives up.",
     X("Communication", True, None, fine=True), ended=[0])
gang("gang-agent-never-joins-rank-2-of-3", 3, "", "Rank 2's pod hangs before torchrun starts: the agents' store has too few clients.",
     X("Communication", True, "Timed out after"), ended=[0, 1], env={"PET_RDZV_CONF": "timeout=20"},
     per_rank={2: {"command": ["sh", "-c", "echo 'staging data from s3://datasets/clicks ...'; exec sleep 3600"]}})
gang("gang-mismatched-reduce-rank-1-of-2", 2, "1:shape-reduce", "Rank 1 reduces a tensor of another size than rank 0: gloo's preamble does not fit.",
     X("UserError", False, "op.preamble.length <= op.nbytes", fine=True), torchrun=False)

if __name__ == "__main__":
    run_all(CASES, 2)
