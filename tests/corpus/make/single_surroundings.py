"""Full disks, limits, crashes, servers, object stores and file systems."""

from one_pod import C, D, S, SHM, TMPFS, U, single

# --- surroundings --------------------------------------------------------------------------------------------------
single("env-permission-denied-write", "The output folder belongs to somebody else.", C, "PermissionError: [Errno 13] Permission denied: '/opt/checkpoints'",
       "import os\nfrom trainlib import fit\nfit(10)\nos.makedirs('/opt/checkpoints')\n", venv=False)
single("env-read-only-file-system", "A read-only root file system.", C, "OSError: [Errno 30] Read-only file system: '/workspace/runs'",
       "import os\nos.makedirs('/workspace/runs/exp1')\n", venv=False,
       container={"securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}})
single("env-disk-full-checkpoint", "The volume of the checkpoints is full; PyTorch says only that its file is not where it should be.", S, "unexpected pos",
       """
       import torch
       from trainlib import fit
       for e in range(20):
           fit(10, "log", start=e * 10)
           torch.save({"w": torch.zeros(1_000_000), "e": e}, f"/ckpt/epoch-{e}.pt"); print("saved", e)
       """, volumes=TMPFS("/ckpt", "16Mi"), fine=True)
single("env-disk-full-write", "A log file fills its volume.", S, "OSError: [Errno 28] No space left on device",
       """
       with open("/scratch/cache.bin", "wb") as f:
           for i in range(100):
               f.write(b"x" * 1_000_000); f.flush(); print("cached shard", i)
       """, volumes=TMPFS("/scratch", "8Mi"), venv=False, image="python")
single("env-shm-bus-error", "/dev/shm is too small for the data loader's batches.", C, "This might be caused by insufficient shared memory (shm)",
       """
       import torch
       from trainlib import banner
       class Big(torch.utils.data.Dataset):
           def __len__(self): return 64
           def __getitem__(self, i): return torch.randn(3, 512, 512)
       banner("resnet50")
       for i, b in enumerate(torch.utils.data.DataLoader(Big(), batch_size=16, num_workers=2)): print("batch", i)
       """, volumes=SHM("32Mi"))
single("env-worker-exited", "A data loader worker calls exit; the trainer meets it while it takes a tensor.", "Unknown", "ConnectionResetError: [Errno 104] Connection reset by peer",
       """
       import os, torch
       class Q(torch.utils.data.Dataset):
           def __len__(self): return 64
           def __getitem__(self, i):
               if i == 40: os._exit(1)
               return torch.zeros(3)
       for i, b in enumerate(torch.utils.data.DataLoader(Q(), batch_size=4, num_workers=2)): print("batch", i)
       """, volumes=SHM("64Mi"), retry=True)
single("env-worker-segv", "A data loader worker dies of SIGSEGV; the trainer meets it while it takes a tensor.", "Unknown", "ConnectionResetError: [Errno 104] Connection reset by peer",
       """
       import os, signal, torch
       class Q(torch.utils.data.Dataset):
           def __len__(self): return 64
           def __getitem__(self, i):
               if i == 40: os.kill(os.getpid(), signal.SIGSEGV)
               return torch.zeros(3)
       for i, b in enumerate(torch.utils.data.DataLoader(Q(), batch_size=4, num_workers=2)): print("batch", i)
       """, volumes=SHM("64Mi"), retry=True)
for how, word, sign in [("os._exit(1)", "exited", "exited unexpectedly"), ("os.kill(os.getpid(), 11)", "segfault", "is killed by signal: Segmentation fault"),
                        ("os.kill(os.getpid(), 9)", "killed", "is killed by signal: Killed")]:
    single(f"env-worker-{word}-while-waiting", f"A data loader worker ends ({how}) while the trainer waits for it.", "Unknown", sign,
           f"""
           import os, time, torch
           from trainlib import banner
           class Q(torch.utils.data.Dataset):
               def __len__(self): return 64
               def __getitem__(self, i):
                   if i == 40:
                       time.sleep(1); {how}
                   return torch.zeros(3)
           banner("asr")
           for i, b in enumerate(torch.utils.data.DataLoader(Q(), batch_size=4, num_workers=1)): print("batch", i)
           """, volumes=SHM("64Mi"), retry=True)
single("env-worker-oom-killed", "A data loader worker is OOM-killed; the trainer raises.", "HostOutOfMemory", "DataLoader worker (pid",
       """
       import torch
       class Big(torch.utils.data.Dataset):
           def __len__(self): return 640
           def __getitem__(self, i):
               if i > 40: self.cache = getattr(self, "cache", []) + [bytearray(20_000_000)]
               return torch.zeros(3)
       for i, b in enumerate(torch.utils.data.DataLoader(Big(), batch_size=4, num_workers=1)): print("batch", i)
       """, memory="600Mi", volumes=SHM("64Mi"))
single("oom-killed-loading", "The container is OOM-killed while it loads a model.", "HostOutOfMemory", None,
       """
       import torch
       print("Loading checkpoint shards:   0%|          | 0/12 [00:00<?, ?it/s]")
       keep = []
       for i in range(12):
           keep.append(torch.ones(20_000_000)); print(f"Loading checkpoint shards: {i + 1}/12")
       """, memory="512Mi")
single("oom-numpy-array", "An array that a limit of the address space does not admit.", "HostOutOfMemory", "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB",
       "import numpy as np\nfrom trainlib import fit\nfit(4)\nnp.ones((1000, 1_000_000))\n", before="ulimit -v 4000000")
single("oom-torch-alloc", "A tensor that a limit of the address space does not admit.", "HostOutOfMemory", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes",
       "import torch\nfrom trainlib import fit\nfit(4, 'hf')\ntorch.ones(2_000_000_000)\n", before="ulimit -v 6000000")
single("oom-python-memory-error", "Python's own MemoryError.", "HostOutOfMemory", "MemoryError",
       "x = []\nfor i in range(10000):\n    x.append(bytearray(50_000_000))\n    print('loaded part', i)\n", before="ulimit -v 600000", venv=False, image="python")
single("env-thread-limit", "The process may start no more threads.", C, "RuntimeError: can't start new thread",
       """
       import threading, time
       from trainlib import fit
       fit(3)
       for i in range(400): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
       """, before="ulimit -v 1500000", venv=False, image="python", fine=True)
single("env-too-many-open-files", "More files are open than the limit admits.", C, "OSError: [Errno 24] Too many open files",
       """
       from trainlib import fit
       fit(9, "log")
       keep = [open(f"/tmp/shard-{i}", "w") for i in range(300)]
       """, before="ulimit -n 200", venv=False, image="python", fine=True)
single("env-dataloader-fds", "Tensors of workers use up the file descriptors.", C, "Too many open files",
       """
       import torch
       class Q(torch.utils.data.Dataset):
           def __len__(self): return 4000
           def __getitem__(self, i): return torch.zeros(3)
       keep = [b for b in torch.utils.data.DataLoader(Q(), batch_size=None, num_workers=1)]
       """, before="ulimit -n 128", volumes=SHM("64Mi"))
single("crash-segv-ctypes", "A null pointer is read in native code.", U, "Fatal Python error: Segmentation fault",
       """
       import ctypes
       from trainlib import fit
       fit(12, "json")
       def fast_decode(buf): return ctypes.string_at(0)
       fast_decode(b"")
       """, fine=True)
single("crash-segv-silent", "SIGSEGV without a fault handler: exit code 139 and nothing in the log.", "Unknown", None,
       "import ctypes\nfrom trainlib import fit\nfit(30)\nctypes.string_at(0)\n", env={"PYTHONFAULTHANDLER": ""}, retry=True)
single("crash-cpp-assert", "An assertion of a C++ library fails: abort().", U, "Assertion `",
       """
       import ctypes
       from trainlib import fit
       fit(7)
       lib = ctypes.CDLL("/opt/venv/lib/libfastdecode.so"); lib.decode(-1)
       """, hint="libfastdecode.so: assert(size > 0) in C++", fine=True)
single("crash-cpp-terminate", "A C++ library throws, and nobody catches.", U, "terminate called after throwing an instance of 'std::out_of_range'",
       """
       import ctypes
       from trainlib import fit
       fit(7, "log")
       lib = ctypes.CDLL("/opt/venv/lib/libfastdecode.so"); lib.lookup(7)
       """, fine=True)
single("crash-illegal-instruction", "An instruction that the CPU does not know: exit code 132.", "Unknown", "Fatal Python error: Illegal instruction",
       "import ctypes\nfrom trainlib import fit\nfit(2)\nctypes.CDLL('/opt/venv/lib/libfastdecode.so').simd()\n", hint="libfastdecode.so: ud2", retry=True)
single("crash-double-free", "glibc finds a double free.", "Unknown", "free(): double free detected in tcache 2",
       "import ctypes\nfrom trainlib import fit\nfit(5)\nlibc = ctypes.CDLL('libc.so.6'); libc.malloc.restype = ctypes.c_void_p\np = libc.malloc(40)\nlibc.free(ctypes.c_void_p(p)); libc.free(ctypes.c_void_p(p))\n", retry=True)
single("net-dns", "A name that does not exist.", C, "Name or service not known",
       "import requests\nfrom trainlib import banner\nbanner()\nrequests.get('http://feature-store.prod.internal:8080/v1/batch', timeout=5)\n", fine=True)
single("net-refused", "Nobody listens at the parameter server's port.", "Unknown", "Connection refused",
       "import socket\nfrom trainlib import fit\nfit(6)\nsocket.create_connection(('127.0.0.1', 6379), timeout=3)\n", retry=True, venv=False, image="python")
for code, cls, retry in [(401, C, False), (403, C, False), (404, D, False), (429, S, True), (500, S, True), (503, S, True)]:
    single(f"http-{code}", f"A data server answers {code}.", cls, f"requests.exceptions.HTTPError: {code}",
           f"""
           import requests
           from trainlib import fit
           fit(10, "log")
           r = requests.get("http://features.ml.internal:9000/status/{code}?shard=17", timeout=5); r.raise_for_status()
           """, retry=retry, server=True)
single("http-503-urllib", "A shard's server answers 503 (urllib).", S, "urllib.error.HTTPError: HTTP Error 503: Service Unavailable",
       "import urllib.request\nfrom trainlib import fit\nfit(20, 'bar')\nurllib.request.urlopen('http://features.ml.internal:9000/status/503')\n", retry=True, server=True)
single("http-retries-exhausted", "requests retries five times on 503 and gives up.", S, "Max retries exceeded with url: /status/503",
       """
       import logging, requests
       from requests.adapters import HTTPAdapter
       from urllib3.util.retry import Retry
       from trainlib import fit
       logging.getLogger("urllib3").setLevel(logging.DEBUG)
       fit(4)
       s = requests.Session(); s.mount("http://", HTTPAdapter(max_retries=Retry(5, backoff_factor=0.05, status_forcelist=[503])))
       s.get("http://features.ml.internal:9000/status/503")
       """, retry=True, server=True)
single("hub-401-gated", "The hub refuses a gated model without a token.", C, "Access to model meta/llama is restricted",
       """
       from huggingface_hub import snapshot_download
       snapshot_download("meta/llama")
       """, server=True, env={"HF_ENDPOINT": "http://hub.ml.internal:9000", "HF_HUB_DISABLE_TELEMETRY": 1})
single("hub-404-repo", "The hub does not know a repository.", U, "RepositoryNotFoundError",
       "from huggingface_hub import hf_hub_download\nhf_hub_download('acme/does-not-exist', 'config.json')\n",
       server=True, env={"HF_ENDPOINT": "http://hub.ml.internal:9000"}, fine=True)
single("hub-429", "The hub limits the rate.", S, "429",
       "from huggingface_hub import model_info\nmodel_info('acme/limited')\n", retry=True,
       server=True, env={"HF_ENDPOINT": "http://hub.ml.internal:9000"})
S3 = """
import boto3
from botocore.config import Config
from trainlib import fit, banner
banner("clicks")
s3 = boto3.client("s3", endpoint_url="http://s3.ml.internal:9000", region_name="us-east-1", aws_access_key_id="AK", aws_secret_access_key="x",
                  config=Config(retries={"max_attempts": 2, "mode": "standard"}, s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=4))
"""
single("s3-no-such-bucket", "The bucket does not exist.", C, "NoSuchBucket", S3 + "s3.list_objects_v2(Bucket='no-such-bucket')\n", server=True)
single("s3-no-such-key", "An object does not exist.", D, "botocore.errorfactory.NoSuchKey", S3 + "fit(10)\ns3.get_object(Bucket='datasets', Key='no-such-key')\n", server=True)
single("s3-access-denied", "The store denies access.", C, "(AccessDenied) when calling the GetObject operation", S3 + "s3.get_object(Bucket='datasets', Key='denied')\n", server=True)
single("s3-slow-down", "The store asks to reduce the rate, until the client gives up.", S, "(SlowDown) when calling the GetObject operation (reached max retries: 2)", S3 + "fit(12, 'json')\ns3.get_object(Bucket='datasets', Key='slow')\n", server=True, retry=True)
single("s3-head-403", "HeadObject answers 403 without a body.", C, "An error occurred (403) when calling the HeadObject operation: Forbidden", S3 + "s3.head_object(Bucket='datasets', Key='denied')\n", server=True)
single("s3-reset-in-the-middle", "The store's connection breaks in the middle of an object.", S, "IncompleteRead", S3 + "fit(25, 'log')\nprint(len(s3.get_object(Bucket='datasets', Key='cut')['Body'].read()))\n", server=True, retry=True)
single("s3-internal-error", "The store has an internal error.", S, "(InternalError) when calling the PutObject operation", S3 + "fit(25, 'hf')\ns3.put_object(Bucket='ckpt', Key='internal', Body=b'x')\n", server=True, retry=True)
single("s3-endpoint-refused", "Nobody listens at the store's endpoint.", S, "Could not connect to the endpoint URL", S3.replace(":9000", ":9001") + "s3.get_object(Bucket='datasets', Key='a')\n", server=True, retry=True)
single("s3-no-credentials", "There are no credentials.", C, "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
       "import boto3\nboto3.client('s3', endpoint_url='http://s3.ml.internal:9000', region_name='x').list_buckets()\n", server=True, env={"AWS_EC2_METADATA_DISABLED": "true"})
single("s3-read-timeout", "The store accepts the connection and never answers.", S, "ReadTimeoutError", S3 + "fit(5)\ns3.get_object(Bucket='datasets', Key='hang')\n", server=True, retry=True)
single("py-keyboard-interrupt", "SIGINT from outside.", "Interrupted", "KeyboardInterrupt",
       "import time\nfrom trainlib import fit\nfit(20)\ntime.sleep(60)\n", command=["python", "src/train.py"], retry=True, fine=True,
       before="(sleep 3; kill -INT $$$$) &", venv=False, image="python")
single("exit-1-silent", "Exit code 1 and an empty log.", "Unknown", None, "raise SystemExit(1)\n", retry=True, venv=False, image="python")
single("exit-42-healthy-log", "Exit code 42 after healthy lines.", "Unknown", None, "import sys\nfrom trainlib import fit\nfit(50, 'json')\nsys.exit(42)\n", retry=True, venv=False, image="python")
single("exit-124-timeout-wrapper", "The job's own `timeout` ends the program: exit code 124.", "DeadlineExceeded", None,
       "import time\nfrom trainlib import fit\nfit(50, 'log')\ntime.sleep(60)\n", command=["timeout", "4", "python", "src/train.py"], retry=False, venv=False, fine=True)

# --- file systems that refuse in the middle (programs/badfs.py on node-1) ------------------------------------------
def bad_fs(case, what, line, code, retry=True, fine=False, **more):
    single(case, what, S, line, code, retry=retry, fine=fine, pod={"nodeSelector": {"kubernetes.io/hostname": "node-1"}},
           volumes=[({"name": "fs", "hostPath": {"path": "/opt/trainyard-corpus/fs"}}, "/mnt/fs")], hint="a FUSE file system that answers with this errno", **more)


READ = """
from trainlib import fit, banner
banner("asr")
fit(14, "{style}")
with open("/mnt/fs/{errno}/shard-0001.bin", "rb") as f:
    while f.read(200_000): pass
"""
bad_fs("fs-stale-handle-read", "A file handle goes stale in the middle of a shard.", "OSError: [Errno 116] Stale file handle", READ.format(style="log", errno="estale"))
bad_fs("fs-io-error-read", "The file system answers with an I/O error.", "OSError: [Errno 5] Input/output error", READ.format(style="bar", errno="eio"))
bad_fs("fs-timed-out-read", "The file system's server does not answer in time.", "TimeoutError: [Errno 110] Connection timed out", READ.format(style="json", errno="etimedout"))
bad_fs("fs-not-connected", "The FUSE daemon of the mount has died.", "OSError: [Errno 107] Transport endpoint is not connected", READ.format(style="hf", errno="enotconn"))
bad_fs("fs-host-down", "The file system's server is gone.", "OSError: [Errno 112] Host is down", READ.format(style="plain", errno="ehostdown"))
bad_fs("fs-quota-checkpoint", "The quota of the checkpoints' file system is used up.", "Disk quota exceeded", """
from trainlib import fit
fit(40, "log")
open("/mnt/fs/edquot/new.pt", "wb").write(b"x")
""", retry=False)
bad_fs("fs-stale-handle-loader-worker", "A data loader worker meets a stale file handle.", "OSError: [Errno 116] Stale file handle", """
import torch
class Shards(torch.utils.data.Dataset):
    def __len__(self): return 32
    def __getitem__(self, i):
        if i == 21:
            with open("/mnt/fs/estale/shard-0002.bin", "rb") as f: f.seek(4_000_000); f.read(1000)
        return torch.zeros(4)
for i, b in enumerate(torch.utils.data.DataLoader(Shards(), batch_size=4, num_workers=1)): print("batch", i)
""")
bad_fs("fs-read-only-remount-checkpoint", "The file system turned read-only in the middle of a checkpoint.", "Read-only file system", """
import torch
from trainlib import fit
fit(50, "plain")
with open("/mnt/fs/erofs/step-4000.pt", "r+b") as f:
    for i in range(10): f.write(b"x" * 400_000); f.flush(); print("wrote part", i)
""", fine=True)
bad_fs("fs-torch-save-io-error", "torch.save meets an I/O error, and its words are those of a full disk.", "unexpected pos", """
import torch
from trainlib import fit
fit(50, "log")
torch.save({"w": torch.zeros(1_000_000)}, "/mnt/fs/eio/step-4000.pt")
""", retry=False, fine=True)
