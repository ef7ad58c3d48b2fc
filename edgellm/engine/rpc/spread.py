"""The workers of a loaded model: connected, placed, checked after each computation, and let go.

spread = Spread(split, stamp, libraries)
kept = spread.place(params)      # of llama_model_params; keep what it returns until the model is loaded
spread.check()                   # raises WorkerLost
spread.close()
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from edgellm.engine.builds.installed import library_path
from edgellm.engine.rpc.relay import Relay
from edgellm.engine.rpc.split import KEPT_HERE, Split
from edgellm.errors import EngineError, WorkerLost


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override: the buffer type of tensors whose names match a pattern."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


class Spread:
    """One relay for each worker of a split."""

    def __init__(self, split: Split, stamp: str, libraries: Path) -> None:
        """Connect.

        Raises:
            WorkerLost, WorkerRefused: a worker cannot be used.
        """
        self.split = split
        self._libraries = libraries
        self._relays: list[Relay] = []
        try:
            for share in split.workers:
                self._relays.append(Relay(share.address, stamp))
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> WorkerLost | None:
        """The first worker that was lost, as an error."""
        return next((relay.lost for relay in self._relays if relay.lost is not None), None)

    def check(self) -> None:
        """Raise WorkerLost if a worker is gone."""
        for relay in self._relays:
            relay.check()

    @property
    def traffic(self) -> tuple[int, int]:
        """The bytes that were sent to all workers, and received from them."""
        return sum(relay.n_sent for relay in self._relays), sum(relay.n_received for relay in self._relays)

    def place(self, params: Any) -> tuple[Any, ...]:
        """Have the engine put its layers where the split says; returns what must live until the model is loaded.

        Raises:
            WorkerLost: a worker is gone already. EngineError: it has nothing to compute with.
        """
        base = ctypes.CDLL(str(library_path(self._libraries, "ggml-base")))
        base.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
        devices = (ctypes.c_void_p * (len(self._relays) + 1))(*map(self._device, self._relays))
        portions = (ctypes.c_float * len(self._relays))(*self.split.portions)
        overrides = (_Override * 2)(_Override(KEPT_HERE.encode(), base.ggml_backend_cpu_buffer_type()))
        params.devices = ctypes.cast(devices, ctypes.c_void_p)
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        params.tensor_split = portions
        params.n_gpu_layers = self.split.n_away + 1
        return devices, portions, overrides

    def _device(self, relay: Relay) -> int:
        """The engine's device for a worker."""
        rpc = ctypes.CDLL(str(library_path(self._libraries, "ggml-rpc")))
        base = ctypes.CDLL(str(library_path(self._libraries, "ggml-base")))
        rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
        registry = rpc.ggml_backend_rpc_add_server(relay.endpoint.encode())
        relay.check()
        get = base.ggml_backend_reg_dev_get
        get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
        device = get(registry, 0) if registry else None
        if not device:
            raise EngineError(f"the worker at {relay.address} has nothing to compute with")
        return int(device)

    def close(self) -> None:
        """End the connections; the workers give their memory back."""
        for relay in self._relays:
            relay.close()
