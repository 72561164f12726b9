"""One pod, one process: errors of programs, data and surroundings, by real frameworks."""

import pathlib
import textwrap
import zlib

from corpus import Gang, expect, job_name, keep, relabel, run_all

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


# --- programs and their arguments ----------------------------------------------------------------------------------
single("py-argparse-unknown-flag", "An unknown argument.", U, "error: unrecognized arguments: --learning-rate 0.1",
       """
       import argparse
       p = argparse.ArgumentParser(); p.add_argument("--lr", type=float); p.add_argument("--epochs", type=int, default=1)
       p.parse_args()
       """, command=["python", "src/train.py", "--epochs", "3", "--learning-rate", "0.1"])
single("py-argparse-invalid-choice", "A value that is none of the choices.", U, "error: argument --precision: invalid choice: 'fp8'",
       """
       import argparse
       p = argparse.ArgumentParser(prog="pretrain"); p.add_argument("--precision", choices=["fp32", "bf16"])
       p.parse_args()
       """, command=["python", "src/train.py", "--precision", "fp8"])
single("py-click-missing-option", "A required option of click is missing.", U, "Error: Missing option '--data-dir'",
       """
       import click
       @click.command()
       @click.option("--data-dir", required=True)
       def main(data_dir): ...
       main()
       """)
single("py-hydra-bad-override", "A hydra override names a key that the config lacks.", U, "Could not override 'optimizer.learning_rate'",
       """
       import hydra
       from omegaconf import OmegaConf
       @hydra.main(version_base=None, config_path="conf", config_name="config")
       def main(cfg): print(OmegaConf.to_yaml(cfg))
       main()
       """, command=["sh", "-c", "mkdir -p /tmp/a/conf && cp src/config.yaml /tmp/a/conf/ && cp src/train.py /tmp/a/ && cd /tmp/a && exec python train.py optimizer.learning_rate=0.1"],
       files={"config.yaml": "optimizer:\n  lr: 0.1\nepochs: 3\n"})
single("py-syntax-error", "A syntax error.", U, "SyntaxError: '(' was never closed", "print('start'\nfor i in range(3):\n    print(i)\n")
single("py-indentation-error", "An indentation error in an imported module.", U, "IndentationError: unindent does not match any outer indentation level",
       "import model\n", files={"model.py": "class Net:\n    def forward(self, x):\n        y = x\n      return y\n"})
single("py-name-error-after-epoch", "A name that does not exist, met after the first epoch.", U, "NameError: name 'evaluate' is not defined",
       """
       from trainlib import banner, fit
       banner("ranker v3"); fit(40)
       evaluate(None)
       """)
single("py-import-own-module", "The program's own module is not there.", C, "ModuleNotFoundError: No module named 'losses'",
       "from trainlib import fit\nfrom losses import FocalLoss\n")
single("py-import-name-changed", "A function that the installed version of a library no longer has.", U, "ImportError: cannot import name 'AdamW' from 'transformers'",
       "from transformers import AdamW\n")
single("py-missing-shared-object", "A shared library is missing.", C, "OSError: libnvidia-ml.so.1: cannot open shared object file",
       "import ctypes\nprint('probing devices')\nctypes.CDLL('libnvidia-ml.so.1')\n")
single("py-version-mismatch-extension", "A C extension of another Python version.", C, "ImportError",
       """
       import sys
       sys.path.insert(0, "/tmp/site")
       import fastbpe
       """, before="mkdir -p /tmp/site; cp /opt/venv/lib/python3.13/site-packages/braceexpand.so /tmp/site/fastbpe.cpython-313-x86_64-linux-gnu.so 2>/dev/null || printf 'not elf' > /tmp/site/fastbpe.cpython-313-x86_64-linux-gnu.so")
single("numpy-broadcast", "Arrays that do not broadcast.", U, "ValueError: operands could not be broadcast together with shapes (64,10) (64,)",
       """
       import numpy as np
       from trainlib import fit
       fit(15, "log")
       logits, labels = np.zeros((64, 10)), np.arange(64)
       print((logits - labels).mean())
       """)
single("pandas-missing-column", "A column that the table lacks.", U, "KeyError: 'click_ts'",
       """
       import pandas as pd
       df = pd.DataFrame({"user": [1, 2], "ts": [3, 4]})
       print(df.describe())
       df["hour"] = df["click_ts"] // 3600
       """)
single("pandas-csv-tokenize", "A CSV file with a row of another width.", D, "ParserError: Error tokenizing data. C error: Expected 3 fields in line 4, saw 4",
       """
       import pandas as pd
       open("/tmp/train.csv", "w").write("a,b,c\\n1,2,3\\n4,5,6\\n7,8,9,10\\n")
       pd.read_csv("/tmp/train.csv")
       """)
single("sklearn-inconsistent-samples", "Features and labels of different lengths.", U, "Found input variables with inconsistent numbers of samples: [100, 99]",
       """
       import numpy as np
       from sklearn.linear_model import LogisticRegression
       LogisticRegression().fit(np.random.rand(100, 4), np.zeros(99))
       """)
single("torch-matmul-shapes", "Layers that do not fit.", U, "mat1 and mat2 shapes cannot be multiplied (32x768 and 512x10)",
       """
       import torch
       from trainlib import banner
       banner()
       model = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.GELU(), torch.nn.Linear(512, 10))
       model(torch.randn(32, 768))
       """)
single("torch-backward-twice", "The graph is walked a second time.", U, "Trying to backward through the graph a second time",
       """
       import torch
       from trainlib import fit
       fit(10, "json")
       w = torch.randn(4, requires_grad=True); loss = (w * w).sum()
       loss.backward(); loss.backward()
       """)
single("torch-inplace-modified", "A value that the backward pass needs was changed in place.", U, "one of the variables needed for gradient computation has been modified by an inplace operation",
       """
       import torch
       torch.autograd.set_detect_anomaly(True)
       x = torch.randn(4, requires_grad=True); y = x.exp(); y += 1
       y.sum().backward()
       """)
single("torch-empty-optimizer", "All parameters are frozen.", U, "ValueError: optimizer got an empty parameter list",
       "import torch\ntorch.optim.AdamW([])\n")
single("torch-dtype-mismatch", "Half and float do not mix.", U, "mat1 and mat2 must have the same dtype, but got BFloat16 and Float",
       """
       import torch
       from trainlib import fit
       fit(6, "ansi")
       torch.nn.Linear(4, 4)(torch.randn(2, 4, dtype=torch.bfloat16))
       """)
single("torch-load-missing-keys", "A checkpoint of another model.", U, "Missing key(s) in state_dict: \"1.weight\", \"1.bias\"",
       """
       import torch
       from torch import nn
       torch.save(nn.Sequential(nn.Linear(4, 4)).state_dict(), "/tmp/last.pt")
       model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
       print("resuming from /tmp/last.pt")
       model.load_state_dict(torch.load("/tmp/last.pt"))
       """)
single("torch-load-weights-only", "A pickled object that torch.load no longer takes.", U, "Weights only load failed",
       """
       import argparse, torch
       torch.save({"args": argparse.Namespace(lr=1)}, "/tmp/last.pt")
       torch.load("/tmp/last.pt")
       """)
single("torch-no-cuda-device", "A checkpoint of a GPU is loaded where there is none.", C, "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False",
       """
       import torch
       import zipfile
       torch.save(torch.zeros(3), "/tmp/a.pt")
       z = zipfile.ZipFile("/tmp/a.pt"); out = zipfile.ZipFile("/tmp/b.pt", "w", zipfile.ZIP_STORED)
       for n in z.namelist():
           d = z.read(n)
           if n.endswith("data.pkl"): d = d.replace(b"X\\x03\\x00\\x00\\x00cpu", b"X\\x06\\x00\\x00\\x00cuda:0")
           out.writestr(n, d)
       out.close()
       torch.load("/tmp/b.pt")
       """)
single("torch-index-out-of-range-embedding", "A token beyond the vocabulary.", U, "IndexError: index out of range in self",
       """
       import torch
       from trainlib import fit
       fit(25, "hf")
       torch.nn.Embedding(100, 8)(torch.tensor([5, 100]))
       """)
single("torch-nan-abort", "The script gives up since the loss is NaN.", U, "RuntimeError: loss became NaN at step 41; aborting",
       """
       import math
       from trainlib import fit
       fit(40, "log")
       loss = float("inf") - float("inf")
       if math.isnan(loss):
           raise RuntimeError("loss became NaN at step 41; aborting (last finite loss 1.7734, lr 5e-5)")
       """)
single("lightning-misconfigured", "Lightning refuses a trainer without an accelerator.", C, "No supported gpu backend found",
       """
       import lightning as L
       L.Trainer(accelerator="gpu", devices=8, max_epochs=1)
       """)
single("lightning-batch-key-error", "A LightningModule asks a batch for a key that it lacks.", U, "KeyError: 'labels'",
       """
       import lightning as L, torch
       class Net(L.LightningModule):
           def __init__(self): super().__init__(); self.l = torch.nn.Linear(4, 2)
           def training_step(self, batch, i): return torch.nn.functional.cross_entropy(self.l(batch["x"]), batch["labels"])
           def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)
       data = [{"x": torch.randn(4), "label": 1} for _ in range(64)]
       L.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False).fit(Net(), torch.utils.data.DataLoader(data, batch_size=8))
       """)
single("transformers-bad-argument", "TrainingArguments do not know an argument.", U, "got an unexpected keyword argument 'evaluation_strategy'",
       """
       from transformers import TrainingArguments
       TrainingArguments(output_dir="/tmp/out", evaluation_strategy="epoch")
       """)
single("transformers-offline-model", "A model shall be downloaded, and the node has no way to the internet.", S, "We couldn't connect to 'https://huggingface.co'",
       """
       from transformers import AutoModelForSequenceClassification
       AutoModelForSequenceClassification.from_pretrained("bert-base-uncased")
       """, retry=True, fine=True, env={"HF_HUB_DISABLE_TELEMETRY": 1, "HF_HUB_ETAG_TIMEOUT": 2})
single("transformers-local-path-missing", "A model's folder does not exist.", C, "/mnt/models/llama-3-8b",
       """
       from transformers import AutoTokenizer
       AutoTokenizer.from_pretrained("/mnt/models/llama-3-8b")
       """, fine=True)
single("transformers-head-size-mismatch", "A checkpoint with another number of labels.", U, "size mismatch",
       """
       from transformers import BertConfig, BertForSequenceClassification
       c = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50)
       BertForSequenceClassification(BertConfig(num_labels=3, **c)).save_pretrained("/tmp/m")
       BertForSequenceClassification.from_pretrained("/tmp/m", num_labels=5)
       """)
single("datasets-file-missing", "No file matches the pattern of a data set.", D, "FileNotFoundError: Unable to find '/mnt/datasets/squad/train-00000.parquet'",
       """
       from datasets import load_dataset
       load_dataset("parquet", data_files="/mnt/datasets/squad/train-00000.parquet")
       """, env={"HF_HUB_OFFLINE": 1})
single("peft-target-modules", "PEFT finds none of the modules it shall adapt.", U, "Target modules",
       """
       from transformers import BertConfig, BertModel
       from peft import LoraConfig, get_peft_model
       m = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50))
       get_peft_model(m, LoraConfig(target_modules=["q_proj", "v_proj"]))
       """)
single("wandb-no-api-key", "wandb has no key, and nobody to ask.", C, "wandb.errors.errors.UsageError: No API key configured",
       "import wandb\nwandb.init(project='clicks')\n", fine=True)
single("tf-keras-shape", "Keras: the input does not fit the first layer.", U, "is incompatible with the layer",
       """
       import os; os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
       import numpy as np, keras
       m = keras.Sequential([keras.layers.Input((28, 28, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(10)])
       m.compile("sgd", "mse")
       m.fit(np.zeros((8, 32, 32, 1)), np.zeros((8, 10)))
       """)
single("tf-matmul-invalid-argument", "TensorFlow: matrices that do not fit.", U, "Matrix size-incompatible: In[0]: [2,3], In[1]: [4,5]",
       """
       import tensorflow as tf
       from trainlib import fit
       fit(12, "json")
       tf.linalg.matmul(tf.zeros((2, 3)), tf.zeros((4, 5)))
       """)
single("tf-record-corrupt", "A TFRecord file is corrupt.", D, "DataLossError",
       """
       import tensorflow as tf
       with tf.io.TFRecordWriter("/tmp/train-00003.tfrecord") as w:
           for i in range(50): w.write(b"x" * 100)
       b = bytearray(open("/tmp/train-00003.tfrecord", "rb").read()); b[2000:2040] = bytes(40)
       open("/tmp/train-00003.tfrecord", "wb").write(b)
       for i, r in enumerate(tf.data.TFRecordDataset("/tmp/train-00003.tfrecord")):
           if i % 10 == 0: print("read", i)
       """)
single("tf-checkpoint-not-found", "A checkpoint that does not exist.", D, "NotFoundError",
       """
       import tensorflow as tf
       tf.train.load_checkpoint("/ckpt/model.ckpt-1200").get_variable_to_shape_map()
       """, fine=True)
single("jax-no-gpu-backend", "JAX shall run on a GPU and has no plugin for it.", C, "Unknown backend",
       "import jax\nprint(jax.__version__)\njax.devices('gpu')\n", fine=True)
single("jax-shape-error", "JAX: shapes that do not fit.", U, "dot_general requires contracting dimensions to have the same shape",
       """
       import jax, jax.numpy as jnp
       from trainlib import fit
       fit(8, "log")
       @jax.jit
       def loss(w, x): return (x @ w).sum()
       jax.grad(loss)(jnp.zeros((8, 3)), jnp.zeros((4, 7)))
       """)
single("jax-tracer-bool", "A Python branch on a traced value.", U, "jax.errors.TracerBoolConversionError: Attempted boolean conversion of traced array",
       """
       import jax, jax.numpy as jnp
       @jax.jit
       def step(x):
           if x.sum() > 0: return x
           return -x
       step(jnp.ones(3))
       """)
single("jax-nan-debug", "jax_debug_nans finds a NaN.", U, "FloatingPointError: invalid value (nan) encountered in",
       """
       import jax, jax.numpy as jnp
       jax.config.update("jax_debug_nans", True)
       jnp.log(jnp.array([-1.0]))
       """)
single("py-recursion", "Endless recursion in a tree.", U, "RecursionError: maximum recursion depth exceeded",
       """
       from trainlib import fit
       fit(5)
       class Node:
           def __init__(s): s.parent = s
           def depth(s): return 1 + s.parent.depth()
       Node().depth()
       """)
single("py-chained-exception", "A KeyError is turned into a ValueError: the last is what the user reads.", U, "ValueError: unknown optimizer 'adamw8bit', choose one of",
       """
       TABLE = {"sgd": 1, "adam": 2}
       def build(name):
           try: return TABLE[name]
           except KeyError as e: raise ValueError(f"unknown optimizer {name!r}, choose one of {sorted(TABLE)}") from e
       build("adamw8bit")
       """)
single("py-assert-config", "An assertion on the batch size.", U, "AssertionError: global batch 1000 is not a multiple of 8 x 16",
       "assert 1000 % (8 * 16) == 0, 'global batch 1000 is not a multiple of 8 x 16'\n", venv=False)
single("py-exception-group", "An asyncio task group fails.", U, "TypeError: unsupported operand type(s) for +: 'int' and 'NoneType'",
       """
       import asyncio
       async def worker(i):
           await asyncio.sleep(0.01 * i)
           return 1 + (None if i == 3 else 1)
       async def main():
           async with asyncio.TaskGroup() as g:
               for i in range(5): g.create_task(worker(i))
       asyncio.run(main())
       """, venv=False, image="python")
single("py-thread-exception-then-exit", "A thread dies of an exception; the main thread notices.", U, "TypeError: 'NoneType' object is not subscriptable",
       """
       import sys, threading
       from trainlib import fit
       def prefetch(): return None["batch"]
       t = threading.Thread(target=prefetch, name="prefetch-0"); t.start(); t.join()
       fit(3)
       sys.exit("prefetch thread is dead")
       """, fine=True)
single("sh-unbound-variable", "A shell script uses a variable that is not set.", U, "DATA_DIR: parameter not set",
       "", command=["sh", "-euc", "echo staging; ls $DATA_DIR; python src/train.py"], venv=False)
single("sh-command-not-found", "A shell script calls a program that the image lacks.", C, "nvidia-smi: not found",
       "", command=["sh", "-ec", "echo 'node check'; nvidia-smi; python src/train.py"], venv=False)
single("py-cannot-open-script", "The script's path is wrong.", U, "can't open file '/workspace/src/trian.py': [Errno 2] No such file or directory",
       "", command=["python", "src/trian.py"], venv=False)
single("py-no-module-main", "python -m with a module that does not exist.", C, "Error while finding module specification for 'llm.train'",
       "", command=["python", "-m", "llm.train"], venv=False)

# --- more of what frameworks say -----------------------------------------------------------------------------------
single("datasets-generation-error", "datasets meets a line of another type and wraps the error of Arrow.", D, "datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset",
       """
       from datasets import load_dataset
       open("/tmp/train.jsonl", "w").write('{"text": "a", "n": 1}\\n' * 50 + '{"text": "b", "n": [1, {"x"\\n')
       load_dataset("json", data_files="/tmp/train.jsonl")
       """, env={"HF_HUB_OFFLINE": 1})
single("transformers-no-pad-token", "A tokenizer shall pad and has no token for it.", U, "Asking to pad but the tokenizer does not have a padding token",
       """
       from tokenizers import Tokenizer
       from tokenizers.models import WordLevel
       from transformers import PreTrainedTokenizerFast
       from trainlib import fit
       fit(12, "hf")
       t = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")))
       t(["a", "a a"], padding=True)
       """)
single("transformers-trainer-no-labels", "A Trainer whose data has no labels.", U, "did not return a loss",
       """
       import torch
       from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
       m = BertForSequenceClassification(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50))
       data = [{"input_ids": torch.ones(8, dtype=torch.long)} for _ in range(64)]
       Trainer(m, TrainingArguments(output_dir="/tmp/out", report_to=[], use_cpu=True, max_steps=20), train_dataset=data).train()
       """)
single("sklearn-input-nan", "NaN in the features.", D, "ValueError: Input X contains NaN.",
       """
       import numpy as np
       from sklearn.linear_model import LinearRegression
       x = np.random.rand(100, 3); x[17, 1] = np.nan
       LinearRegression().fit(x, np.zeros(100))
       """)
single("torch-dataloader-timeout", "A data loader's worker does not answer in time.", "Hang", "DataLoader timed out after 3 seconds",
       """
       import time, torch
       class Slow(torch.utils.data.Dataset):
           def __len__(self): return 40
           def __getitem__(self, i):
               if i == 25: time.sleep(100)
               return torch.zeros(2)
       for i, b in enumerate(torch.utils.data.DataLoader(Slow(), batch_size=4, num_workers=1, timeout=3)): print("batch", i)
       """, retry=True, fine=True)
single("torch-dataloader-pickle-lambda", "A lambda can't be sent to a worker process.", U, "Can't",
       """
       import torch
       def main():
           d = torch.utils.data.TensorDataset(torch.zeros(8))
           for b in torch.utils.data.DataLoader(d, collate_fn=lambda x: x, num_workers=1, multiprocessing_context="spawn"): print(b)
       if __name__ == "__main__": main()
       """)
single("torch-spawn-without-main-guard", "Worker processes are started outside of `if __name__ == '__main__'`.", U, "An attempt has been made to start a new process before the",
       """
       import torch
       d = torch.utils.data.TensorDataset(torch.zeros(8))
       for b in torch.utils.data.DataLoader(d, num_workers=1, multiprocessing_context="spawn"): print(b)
       """)
single("torch-spawn-child-raises", "torch.multiprocessing.spawn: a child raises.", U, "ValueError: bucket 3 is empty",
       """
       import torch.multiprocessing as mp
       def work(i):
           if i == 1: raise ValueError("bucket 3 is empty")
       if __name__ == "__main__": mp.spawn(work, nprocs=2)
       """)
single("tls-self-signed", "A server's certificate is signed by nobody known.", C, "certificate verify failed",
       """
       import base64, http.server, os, ssl, threading, subprocess
       from trainlib import fit
       fit(5, "log")
       httpd = http.server.HTTPServer(("127.0.0.1", 8443), http.server.BaseHTTPRequestHandler)
       ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); ctx.load_cert_chain("/opt/venv/lib/corpus.pem")
       httpd.socket = ctx.wrap_socket(httpd.socket, server_side=True)
       threading.Thread(target=httpd.serve_forever, daemon=True).start()
       import requests
       requests.get("https://s3.ml.internal:8443/datasets")
       """, pod=ALIAS)
single("yaml-config-broken", "The configuration is no YAML.", U, "yaml.scanner.ScannerError: mapping values are not allowed here",
       """
       import yaml
       yaml.safe_load("model: bert\\n  layers: 12\\nlr: 5e-5\\n")
       """)
single("tf-oom-allocator", "TensorFlow can't allocate a tensor.", "HostOutOfMemory", "OOM when allocating tensor with shape",
       """
       import tensorflow as tf
       from trainlib import fit
       fit(9, "plain")
       tf.fill([40, 1_000_000_000_000], 1.0)
       """)
single("jax-resource-exhausted", "JAX can't allocate an array.", "HostOutOfMemory", "RESOURCE_EXHAUSTED: Out of memory",
       """
       import jax.numpy as jnp
       from trainlib import fit
       fit(9, "hf")
       jnp.ones((4000, 1_000_000_000))
       """)
single("tf-nan-check-numerics", "TensorFlow's check finds a NaN.", U, "Tensor had NaN values",
       """
       import tensorflow as tf
       from trainlib import fit
       fit(30, "bar")
       tf.debugging.check_numerics(tf.math.log(tf.constant([-1.0])), "logits")
       """)
single("torch-anomaly-nan", "Anomaly detection finds a NaN in the backward pass.", U, "returned nan values in its 0th output",
       """
       import torch
       from trainlib import fit
       fit(18, "json")
       with torch.autograd.detect_anomaly():
           x = torch.zeros(1, requires_grad=True); (torch.sqrt(x) * 0).backward()
       """)
single("red-broken-pipe-of-a-pager", "The output goes to `head`, which ends; sh reports the first program's error through pipefail.", U, "BrokenPipeError: [Errno 32] Broken pipe",
       """
       import sys, time
       for i in range(100000): print("token", i)
       """, command=["python", "-c", "import subprocess,sys; p=subprocess.Popen([sys.executable,'src/train.py'],stdout=subprocess.PIPE); [sys.stdout.write(p.stdout.readline().decode()) for _ in range(20)]; p.stdout.close(); sys.exit(p.wait())"], fine=True, venv=False, image="python")
single("red-nccl-and-cuda-noise-then-key-error", "NCCL and CUDA warnings of a start that went well, and then a KeyError.", U, "KeyError: 'decoder.lm_head.weight'",
       """
       from trainlib import fit
       print("NCCL version 2.21.5+cuda12.4")
       print("gpu-7:114:205 [0] misc/ibvwrap.cc:278 NCCL WARN Call to ibv_reg_mr_iova2 failed with error Bad address, using fallback")
       print("gpu-7:114:205 [0] NCCL INFO NET/Plugin: Failed to find ncclNetPlugin_v8 symbol (>= v8). ncclNetPlugin symbols v7 and lower are not supported.")
       print("E0000 00:00:1740000000.1 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered")
       fit(44, "plain")
       state = {"encoder.weight": 1}
       state["decoder.lm_head.weight"]
       """)
single("red-eval-metrics-named-error-then-killed", "A log full of 'error' metrics; SIGKILL from nowhere.", "Unknown", None,
       """
       import os, signal
       from trainlib import fit
       fit(80, "json")
       print("val/word_error_rate=0.134 val/character_error_rate=0.041 failed=0 fatal_errors=0")
       os.kill(os.getpid(), signal.SIGKILL)
       """, retry=True)
single("red-three-exceptions-last-counts", "An exception while another is handled, while a third is.", U, "RuntimeError: could not restore from any of 2 checkpoints",
       """
       import torch
       from trainlib import banner
       banner("resume")
       for f in ("last.pt", "best.pt"): open(f"/tmp/{f}", "wb").write(b"junk")
       try:
           torch.load("/tmp/last.pt", weights_only=False)
       except Exception:
           try:
               torch.load("/tmp/best.pt", weights_only=False)
           except Exception:
               raise RuntimeError("could not restore from any of 2 checkpoints")
       """, fine=True)

# --- data ----------------------------------------------------------------------------------------------------------
single("data-image-truncated", "An image is cut off.", D, "OSError: image file is truncated",
       """
       import io, numpy as np
       from PIL import Image
       from trainlib import fit
       fit(30, "bar")
       b = io.BytesIO(); Image.fromarray((np.random.rand(256, 256, 3) * 255).astype("uint8")).save(b, "JPEG")
       open("/tmp/n01440764_10026.JPEG", "wb").write(b.getvalue()[:9000])
       Image.open("/tmp/n01440764_10026.JPEG").convert("RGB")
       """)
single("data-image-not-an-image-worker", "A data loader worker meets a file that is no image.", D, "PIL.UnidentifiedImageError: cannot identify image file",
       """
       import torch
       from PIL import Image
       class Images(torch.utils.data.Dataset):
           def __len__(self): return 100
           def __getitem__(self, i):
               if i == 37:
                   open("/tmp/img_37.png", "w").write("<html><body>403 Forbidden</body></html>")
                   return Image.open("/tmp/img_37.png")
               return torch.zeros(3, 8, 8)
       for i, b in enumerate(torch.utils.data.DataLoader(Images(), batch_size=10, num_workers=2)): print("batch", i, tuple(b.shape))
       """, volumes=SHM("64Mi"))
single("data-parquet-magic", "A Parquet file is no Parquet file.", D, "Parquet magic bytes not found in footer",
       """
       import pandas as pd
       open("/tmp/part-0007.parquet", "wb").write(b"PAR1" + b"\\0" * 500)
       pd.read_parquet("/tmp/part-0007.parquet")
       """)
single("data-json-lines", "A line of a JSON Lines file is cut off.", D, "json.decoder.JSONDecodeError: Unterminated string starting at",
       """
       import json
       lines = ['{"text": "hello"}', '{"text": "cut o']
       for i, l in enumerate(lines): print(i, json.loads(l))
       """, venv=False, image="python")
single("data-zip-bad", "A zip file is none.", D, "zipfile.BadZipFile: File is not a zip file",
       """
       import zipfile
       open("/tmp/coco.zip", "wb").write(b"\\0" * 4096)
       zipfile.ZipFile("/tmp/coco.zip").extractall("/tmp/coco")
       """, venv=False, image="python")
single("data-tar-truncated", "A tar file ends too early.", D, "tarfile.ReadError: unexpected end of data",
       """
       import io, tarfile
       from trainlib import fit
       b = io.BytesIO(); t = tarfile.open(fileobj=b, mode="w")
       for i in range(20):
           info = tarfile.TarInfo(f"{i:06d}.jpg"); info.size = 20000; t.addfile(info, io.BytesIO(b"x" * 20000))
       t.close(); fit(5)
       for m in (t := tarfile.open(fileobj=io.BytesIO(b.getvalue()[:150000]))):
           t.extractfile(m).read()
       """)
single("data-gzip-crc", "A gzip file's checksum is wrong.", D, "gzip.BadGzipFile: CRC check failed",
       """
       import gzip
       b = bytearray(gzip.compress(b"abc" * 10000)); b[-6] ^= 255
       print(len(gzip.decompress(bytes(b))))
       """, venv=False, image="python")
single("data-checkpoint-truncated", "A checkpoint was cut off when it was written.", D, "PytorchStreamReader failed reading zip archive: failed finding central directory",
       """
       import torch
       from trainlib import banner
       banner("resume")
       torch.save({"w": torch.zeros(100000)}, "/tmp/step-1000.pt")
       b = open("/tmp/step-1000.pt", "rb").read(); open("/tmp/step-1000.pt", "wb").write(b[: len(b) // 2])
       torch.load("/tmp/step-1000.pt")
       """)
single("data-pickle-truncated", "A pickle is cut off.", D, "_pickle.UnpicklingError: pickle data was truncated",
       "import pickle\nb = pickle.dumps(list(range(100000)))\npickle.loads(b[:100] + b[100:5000])\n", venv=False, image="python")
single("data-checkpoint-empty", "A checkpoint of 0 bytes.", D, "EOFError: Ran out of input",
       "import torch\nopen('/tmp/last.ckpt', 'w').close()\nprint('Restoring states from the checkpoint path at /tmp/last.ckpt')\ntorch.load('/tmp/last.ckpt', weights_only=False)\n")
single("data-safetensors-header", "A safetensors file is a Git LFS pointer.", D, "safetensors_rust.SafetensorError",
       """
       from safetensors.torch import load_file
       open("/tmp/model.safetensors", "w").write("version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\\nsize 548105171\\n")
       load_file("/tmp/model.safetensors")
       """)
single("data-h5-truncated", "An HDF5 file is cut off.", D, "truncated file",
       """
       import h5py, numpy as np
       with h5py.File("/tmp/feats.h5", "w") as f: f["x"] = np.zeros(100000)
       b = open("/tmp/feats.h5", "rb").read(); open("/tmp/feats.h5", "wb").write(b[:5000])
       h5py.File("/tmp/feats.h5")
       """)
single("data-npy-short", "An array file holds less than its header says.", D, "ValueError: cannot reshape array of size",
       """
       import numpy as np
       np.save("/tmp/tokens.npy", np.zeros((1000, 64)))
       b = open("/tmp/tokens.npy", "rb").read(); open("/tmp/tokens.npy", "wb").write(b[:100000 // 8 * 8])
       np.load("/tmp/tokens.npy")
       """, fine=True)
single("data-not-utf8", "A text file in Latin-1; its bytes are in the log as well.", D, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xfc in position 1",
       """
       import sys
       raw = "Müller;Zürich".encode("latin-1")
       sys.stdout.buffer.write(b"row 17: " + raw + b"\\n\\xff\\xfe\\x80 bad bytes follow\\n"); sys.stdout.flush()
       raw.decode("utf-8")
       """, venv=False, image="python")
single("data-missing-file", "The data set's file does not exist.", D, "FileNotFoundError: [Errno 2] No such file or directory: '/mnt/data/imagenet/train/labels.csv'",
       "from trainlib import banner\nbanner()\nopen('/mnt/data/imagenet/train/labels.csv')\n", venv=False)
single("data-empty-dataset", "A folder without samples.", D, "ValueError: num_samples should be a positive integer value, but got num_samples=0",
       """
       import os, torch
       os.makedirs("/tmp/train")
       files = os.listdir("/tmp/train"); print(f"found {len(files)} samples in /tmp/train")
       torch.utils.data.DataLoader(files, shuffle=True)
       """, fine=True)
single("data-sqlite-malformed", "A SQLite database is damaged.", D, "sqlite3.DatabaseError: file is not a database",
       """
       import sqlite3
       open("/tmp/index.db", "wb").write(b"garbage!" * 1000)
       sqlite3.connect("/tmp/index.db").execute("select * from samples")
       """, venv=False, image="python")

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

# --- red-looking logs ----------------------------------------------------------------------------------------------
single("red-retried-s3-then-key-error", "Timeouts of the store that were retried, and then a KeyError.", U, "KeyError: 'attention_mask'",
       """
       from trainlib import fit, log
       for i in range(4):
           fit(6, "log", start=6 * i)
           log.error("GetObject failed (attempt %d/5): ReadTimeoutError: AWSHTTPConnectionPool(host='s3.ml.internal', port=9000): Read timed out.; retrying", i + 1)
           log.warning("An error occurred (SlowDown) when calling the GetObject operation: Please reduce your request rate.")
       log.info("recovered after 4 retries")
       fit(10, "log", start=24)
       {"input_ids": 1}["attention_mask"]
       """)
single("red-handled-traceback-then-disk", "A handled traceback of a validation, much later a full disk.", S, "unexpected pos",
       """
       import torch
       from trainlib import fit, log
       fit(10, "log")
       try:
           torch.zeros(3) @ torch.zeros(4)
       except RuntimeError:
           log.exception("validation of extra head failed, skipped")
       for i in range(30):
           fit(3, "log", start=10 + 3 * i)
           torch.save(torch.zeros(500_000), f"/ckpt/{i}.pt")
       """, volumes=TMPFS("/ckpt", "16Mi"), fine=True)
single("red-oom-skipped-then-assert", "Batches that were skipped for a lack of GPU memory, and then an assertion.", U, "AssertionError: vocabulary has 50257 entries, embedding 50304",
       """
       from trainlib import fit, log
       for i in range(3):
           fit(8, "plain", start=8 * i)
           print("WARNING: CUDA out of memory. Tried to allocate 2.00 GiB; skipping batch", i, "and emptying the cache")
       fit(30, "plain", start=24)
       assert 50257 == 50304, "vocabulary has 50257 entries, embedding 50304"
       """)
single("red-connection-errors-then-oom-kill", "A log full of connection errors (telemetry), and an OOM kill.", "HostOutOfMemory", None,
       """
       import logging
       from trainlib import fit, log
       keep = []
       for i in range(100):
           fit(3, "log", start=3 * i)
           log.error("telemetry: ConnectionResetError: [Errno 104] Connection reset by peer")
           keep.append(b"x" * 15_000_000)
       """, memory="400Mi")
single("red-restarts-in-one-log", "A wrapper starts the program three times: twice the store is at fault, the last time a wrong shape.", U, "mat1 and mat2 shapes cannot be multiplied",
       """
       import os, torch
       from trainlib import fit
       n = int(open("/tmp/n").read()) if os.path.exists("/tmp/n") else 0
       open("/tmp/n", "w").write(str(n + 1))
       fit(10, "plain", start=10 * n)
       if n < 2: raise ConnectionResetError(104, "Connection reset by peer")
       torch.nn.Linear(8, 8)(torch.zeros(4, 9))
       """, command=["sh", "-c", "for i in 1 2 3; do echo \"=== launch $i ===\"; python src/train.py && exit 0; echo \"attempt $i failed with code $?, restarting\"; done; exit 1"])
single("red-torchrun-restarts", "torchrun restarts its worker twice after a lost connection, then a missing file ends it.", D, "FileNotFoundError: [Errno 2] No such file or directory: '/mnt/data/val.idx'",
       """
       import os
       from torch.distributed.elastic.multiprocessing.errors import record
       from trainlib import fit
       @record
       def main():
           n = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
           fit(8, "log", start=8 * n)
           if n < 2: raise ConnectionError("feature server closed the connection")
           open("/mnt/data/val.idx")
       main()
       """, command=["torchrun", "--standalone", "--max-restarts", "2", "--nproc-per-node", "1", "src/train.py"], env={"USE_LIBUV": 0})
single("red-progress-bar-long", "A progress bar of some hundred KB in one line, then an IndexError.", U, "IndexError: list index out of range",
       """
       from trainlib import fit
       fit(2200, "bar", pause=0.001)
       [1, 2, 3][7]
       """, stamped=False)
single("red-progress-bar-traceback-same-line", "A traceback begins in the middle of a progress bar's line.", U, "ZeroDivisionError: division by zero",
       """
       import sys
       from tqdm import tqdm
       from trainlib import fit
       for i in tqdm(range(300), desc="train"):
           if i == 250: 1 / (i - 250)
       """)
single("red-ansi-rich-traceback", "rich prints the traceback in colours and frames.", U, "ValueError",
       """
       from rich.traceback import install
       install(show_locals=True)
       from rich.console import Console
       from trainlib import fit
       Console(force_terminal=True).print("[bold green]training[/]")
       fit(20, "ansi")
       def pick(name): raise ValueError(f"unknown schedule {name}")
       pick("cosinee")
       """, env={"FORCE_COLOR": 1, "COLUMNS": 100})
single("red-deprecations-then-type-error", "Deprecation notices and 'error' metrics, then a TypeError.", U, "TypeError: forward() missing 1 required positional argument: 'mask'",
       """
       import warnings
       from trainlib import fit
       for w in ("np.bool8 is a deprecated alias", "failed to import apex, falling back to native amp", "No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'"):
           warnings.warn(w, DeprecationWarning if "alias" in w else UserWarning)
       fit(60, "json")
       def forward(x, mask): return x
       forward(1)
       """)
single("red-atexit-noise-after", "After the exception, clean-up hooks print errors of their own.", U, "ValueError: expected sequence length 2048, got 2047",
       """
       import atexit, sys
       from trainlib import fit
       class Client:
           def __del__(self): raise OSError("[Errno 9] Bad file descriptor")
       c = Client()
       atexit.register(lambda: print("wandb: ERROR Control-C detected -- Run data was not synced", file=sys.stderr))
       atexit.register(lambda: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
       fit(15)
       raise ValueError("expected sequence length 2048, got 2047")
       """)
single("red-exception-swallowed-exit-1", "The program logs its exception in one line and exits with 1.", U, "training failed: 'RobertaConfig' object has no attribute 'n_layer'",
       """
       import sys
       from trainlib import fit, log
       fit(9, "log")
       log.error("training failed: 'RobertaConfig' object has no attribute 'n_layer'")
       sys.exit(1)
       """, fine=True)

if __name__ == "__main__":
    run_all(CASES, 3)
