"""A FUSE file system that refuses in the middle, as a network file system does: reading FOLDER/estale/x answers ESTALE
after 1 MB, and so on for each errno; writing likewise. Run it in a node's mounts (fusepy, libfuse2, root):

    dev/cluster/cluster node enter node-1 env PYTHONPATH=… python3 badfs.py /opt/trainyard-corpus/fs
"""

import errno
import os
import stat
import sys
import time

from fuse import FUSE, FuseOSError, Operations

MB = 1_000_000


class BadFs(Operations):
    def getattr(self, path, fh=None):
        parts = path.strip("/").split("/")
        if parts[-1].startswith("gone"):
            raise FuseOSError(getattr(errno, parts[0].upper()))
        if "." in parts[-1] and not parts[-1].startswith("new"):
            return {"st_mode": stat.S_IFREG | 0o666, "st_size": 8 * MB, "st_nlink": 1, "st_mtime": time.time(), "st_uid": 65532}
        if "." in parts[-1]:
            raise FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFDIR | 0o777, "st_nlink": 2, "st_uid": 65532}

    def readdir(self, path, fh):
        return [".", "..", "shard-0001.bin", "shard-0002.bin"]

    def read(self, path, size, offset, fh):
        if offset >= MB:
            raise FuseOSError(getattr(errno, path.strip("/").split("/")[0].upper(), errno.EIO))
        return b"x" * size

    def create(self, path, mode, fi=None):
        raise FuseOSError(getattr(errno, path.strip("/").split("/")[0].upper(), errno.EIO))

    def write(self, path, data, offset, fh):
        if offset >= MB:
            raise FuseOSError(getattr(errno, path.strip("/").split("/")[0].upper(), errno.EIO))
        return len(data)

    def open(self, path, flags):
        return 0

    def truncate(self, path, length, fh=None):
        return 0


os.makedirs(sys.argv[1], exist_ok=True)
FUSE(BadFs(), sys.argv[1], foreground=True, allow_other=True, nothreads=False)
