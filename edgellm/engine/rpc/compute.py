"""The process in which a worker computes for one client: ggml-rpc's server on the CPU, on a port of the loopback.

    python -m edgellm.engine.rpc.compute LIBRARIES PORT N_THREADS

Each client has a process of its own. What the client left in memory goes with it, and a message that makes ggml abort
ends nobody else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

from edgellm.engine.builds.installed import library_path
from edgellm.engine.rpc.address import LOOPBACK

CPU_DEVICE = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def main(libraries: Path, port: int, n_threads: int) -> None:
    """Serve until the process is ended."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    ggml = ctypes.CDLL(str(library_path(libraries, "ggml")))
    rpc = ctypes.CDLL(str(library_path(libraries, "ggml-rpc")))
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    devices = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(CPU_DEVICE))
    start = rpc.ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(f"{LOOPBACK}:{port}".encode(), None, n_threads, 1, devices)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
