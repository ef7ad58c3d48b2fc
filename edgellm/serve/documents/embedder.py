"""A worker's model for threads that search and index: the loop of the server computes, the thread waits.

model = WorkerModel(bridge, pool, served, "minilm")
ChunkEmbedder(model, multilingual=False).embed_question("how long is the warranty?")
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar

from edgellm.machine.child import ChildFailed
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.embedding import embed
from edgellm.serve.workers.pool import Pool
from edgellm.serve.workers.worker import Worker

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Result = TypeVar("Result")
# Texts of one request: a question that comes meanwhile waits for no more.
TOGETHER = 8


class Bridge:
    """Lets threads wait for what the loop computes, until it is closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[Future[Any]] = set()

    def open(self) -> None:
        """Begin, in the loop."""
        self._loop = asyncio.get_running_loop()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine; not to be called in the loop's own thread.

        Raises:
            ChildFailed: the server stops.
        """
        if self._loop is None:
            work.close()
            raise ChildFailed("the server is shutting down")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(future)
        try:
            return future.result()
        except CancelledError:
            raise ChildFailed("the server is shutting down") from None
        finally:
            self._waiting.discard(future)

    def close(self) -> None:
        """End what threads wait for."""
        self._loop = None
        for each in list(self._waiting):
            each.cancel()


class WorkerModel:
    """An embedding model of the pool; each call leases its worker, so it is unloaded when it has nothing to do."""

    def __init__(self, bridge: Bridge, pool: Pool, model: ServedModel, name: str) -> None:
        self.name = name
        self._bridge, self._pool, self._model = bridge, pool, model

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors [len(texts), n_embd], each of length 1; of a text that is too long, of its beginning.

        Raises:
            Problem, EngineError: the model has no room now, or its worker is gone.
        """
        import numpy as np

        vectors = [
            base64.b64decode(each["embedding"])
            for begin in range(0, len(texts), TOGETHER)
            for each in self._bridge.run(self._embed(list(texts[begin : begin + TOGETHER])))
        ]
        return np.frombuffer(b"".join(vectors), "<f4").reshape(len(texts), -1)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text."""
        return self._bridge.run(self._tokenize(text))

    async def _embed(self, texts: list[str]) -> list[dict[str, Any]]:
        async with self._pool.lease(self._model.name, ModelKind.EMBEDDING) as worker:
            reply = await embed(worker, texts, truncate=True, encoding_format="base64")
        return sorted(reply["data"], key=lambda each: int(each["index"]))

    async def _tokenize(self, text: str) -> list[int]:
        async with self._pool.lease(self._model.name, ModelKind.EMBEDDING) as worker:
            return await tokens(worker, text)


async def tokens(worker: Worker, text: str) -> list[int]:
    """The tokens of a text."""
    reply = await worker.upstream.post("/tokenize", {"content": text, "add_special": True})
    return list(reply["tokens"])
