"""Errors of programs and their arguments, by real frameworks."""

from one_pod import ALIAS, C, D, S, U, single

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
single("datasets-generation-error", "datasets meets a line of a JSON Lines file that is cut off.", D, "ValueError: No ':' found when decoding object value",
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
