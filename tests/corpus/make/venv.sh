#!/usr/bin/env bash
# Makes what single.py, mpi.py and the JAX gangs need and the images lack: /opt/trainyard-corpus/venv (2.6 GB), a
# virtual environment for the pytorch image's Python with the frameworks, which pods see as /opt/venv; and the image's
# root file system at /var/tmp/corpus/root, with Open MPI. Root; `rm -rf` both afterwards.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=/var/tmp/corpus
venv=/opt/trainyard-corpus/venv
buildah=(buildah --root "$work/storage" --runroot /run/corpus-buildah --storage-driver overlay)

mkdir -p "$work" "$(dirname $venv)"
container=$("${buildah[@]}" from "oci-archive:$("$here/../../../images/build" pytorch)")
root=$("${buildah[@]}" mount "$container")
ln -sfn "$root" "$work/root"
cp /etc/resolv.conf "$root/etc/"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive bash -euc '
    apt-get update
    apt-get install -y --no-install-recommends python3-pip python3-venv python3-mpi4py openmpi-bin
    python3 -m venv --system-site-packages /opt/venv
    pip="/opt/venv/bin/pip install -q"
    $pip setuptools
    # What apt installed beside pip is not in the image, so it is taken anew.
    $pip --ignore-installed requests urllib3 certifi charset-normalizer packaging python-dateutil pytz
    $pip pandas pyarrow pillow click hydra-core huggingface_hub boto3 tqdm rich tokenizers safetensors transformers datasets
    $pip --no-deps lightning pytorch-lightning lightning-utilities torchmetrics accelerate peft  # Debian has torch
    $pip jax h5py scikit-learn zstandard psutil wandb pydantic tensorflow-cpu
'
cp -a "$root/opt/venv" "$venv"
g++ -O1 -shared -fPIC -static-libgcc -static-libstdc++ -o "$venv/lib/libfastdecode.so" -x c++ "$here/programs/fastdecode.cc"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=s3.ml.internal -addext subjectAltName=DNS:s3.ml.internal \
    -keyout "$venv/lib/corpus.pem" -out /dev/stdout >>"$venv/lib/corpus.pem"
chmod -R a+rX "$venv"
