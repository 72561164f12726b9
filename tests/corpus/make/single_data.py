"""Data that is missing, broken or not what the program expects."""

from one_pod import D, SHM, single

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
