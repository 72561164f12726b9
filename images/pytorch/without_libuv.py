"""Makes torch.distributed work in a build of PyTorch that has no libuv, such as Debian's.

PyTorch asks for a TCPStore on libuv by default. A build without it refuses: "use_libuv was requested but PyTorch was
build without libuv support". The variable USE_LIBUV=0 helps some callers; torchrun's rendezvous and programs that make
their own store ignore it. So TCPStore itself is told, once, where torch.distributed imports it.

Does nothing where libuv is there. Run while an image is built, as root.
"""

import compileall
import importlib.util
import pathlib
import subprocess
import sys

CHECK = """
import torch.distributed as dist
dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False{argument})
"""

ANCHOR = """\
        TCPStore,
        Work as _Work,
    )
"""

PATCH = '''
    # trainyard: this build has no libuv, and asks for it all the same.
    def _without_libuv(init):
        def __init__(self, *args, **kwargs):
            kwargs["use_libuv"] = False  # the ninth parameter
            init(self, *args[:8], **kwargs)

        return __init__

    TCPStore.__init__ = _without_libuv(TCPStore.__init__)
'''


def try_store(argument: str = "") -> str:
    """Makes a TCPStore in a new process; gives what went wrong, or nothing."""
    result = subprocess.run(
        [sys.executable, "-c", CHECK.format(argument=argument)], capture_output=True, text=True, check=False
    )
    return result.stderr if result.returncode else ""


def main() -> None:
    error = try_store()
    if not error:
        print("torch.distributed makes its stores: nothing to do")
        return
    if "libuv" not in error:
        sys.exit(f"torch.distributed fails, and not for want of libuv:\n{error}")

    file = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "distributed" / "__init__.py"
    source = file.read_text()
    if source.count(ANCHOR) != 1:
        sys.exit(f"{file} is not as expected: this PyTorch needs another patch")
    file.write_text(source.replace(ANCHOR, ANCHOR + PATCH))
    compileall.compile_file(file, force=True, quiet=1)

    error = try_store() or try_store(", use_libuv=True")
    if error:
        sys.exit(f"the patch did not help:\n{error}")
    print(f"patched {file}: stores without libuv")


if __name__ == "__main__":
    main()
