"""One llama-server: a loaded model behind a socket that only this user can open.

worker = await Worker.start(program, model, plan, log=path)
await worker.upstream.post("/v1/chat/completions", body)
await worker.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from asyncio.subprocess import STDOUT
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from edgellm.engine import end_tokens
from edgellm.engine.adapters import Adapter
from edgellm.errors import (
    CorruptFile,
    DoesNotFit,
    EdgellmError,
    EngineError,
    ModelNotFound,
    UnsupportedModel,
    UsageError,
    WorkerLost,
)
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_split import part_paths
from edgellm.machine.async_child import AsyncChild
from edgellm.machine.child import ChildFailed, how_it_ended, tethered
from edgellm.models.fit.memory import RunPlan
from edgellm.models.local.packed import PackedFile
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.draft_costs import DraftCosts
from edgellm.serve.logs import BoundedLog
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.crew import Links
from edgellm.serve.workers.upstream import Upstream, UpstreamRefused

POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
# The engine prints a whole template after what is wrong with it.
LAST_WORDS, SHOWN_WORDS, MOST_ERRORS = 200, 6, 20
SOCKET = "worker.sock"
TEMPLATE_FAILED = ("failed to apply template", "template parsing error", "Unable to generate parser")
CONTROL = "/v1/chat/completions/control"
# A request takes the slot whose prompt has this part of its own; otherwise the slot that was used least recently. With
# llama-server's 0.1 the system message that all conversations share let each new one overwrite the same slot.
LEAST_SHARE = "0.5"
# About thirty times a second looks smooth; slower models are not delayed at all.
BEAT_MS = 30
# What passes over several tokens cost at first (patches/native/server/drafts.h); empty: it drafts nothing.
DRAFT_COSTS = "EDGELLM_DRAFT_COSTS"
# Lines of llama-server's log: the time and level before each, and those that say why a model cannot be loaded.
_STAMP = re.compile(r"^[\d.]+ [A-Z] +")
_TEMPLATE_ERROR = re.compile(r"(?:Parser Error|^Error): (?:Jinja Exception: )?(.+)")
_LOAD_ERROR = re.compile(r"error loading model: (.+)")


class Worker:
    """A running llama-server."""

    def __init__(self, model: ServedModel, plan: RunPlan, child: AsyncChild, directory: Path) -> None:
        self.model = model
        self.plan = plan
        self.started = time.time()
        self.load_seconds = 0.0
        self._child = child
        self._directory = directory
        self.upstream = Upstream(directory / SOCKET)
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._errors: deque[str] = deque(maxlen=MOST_ERRORS)
        self._drained: asyncio.Task[None] | None = None
        self._links: Links | None = None

    @classmethod
    async def start(
        cls,
        program: Path,
        model: ServedModel,
        plan: RunPlan,
        *,
        log: Path,
        packed: PackedFile | None = None,
        slots: Path | None = None,
        costs: DraftCosts | None = None,
        links: Links | None = None,
    ) -> Worker:
        """Load a model, from its packed file if it has one; returns when it can answer.

        `slots` is the directory where it writes and reads its slots. It drafts tokens if it knows what passes cost at
        first. `links` lead to other machines with a part of the layers; they are closed with it.

        Raises:
            CorruptFile, ModelNotFound, DoesNotFit: the model cannot be loaded; the error has the reason.
            UnsupportedModel: its chat template is broken, does not end, or is more than llama-server knows.
            ChildFailed: llama-server cannot be started, or was ended before it could answer.
            WorkerLost: another machine with a part of its layers is gone.
        """
        begin = time.perf_counter()
        if model.kind is ModelKind.CHAT and model.template:
            try:
                await asyncio.to_thread(_try_template, model.template)
            except UnsupportedModel as error:
                raise UnsupportedModel(f"{model.name} could not be loaded", why=f"{error.what}: {error.why}") from error
        directory = Path(tempfile.mkdtemp(prefix="edgellm-"))  # for this user alone (0700)
        arguments = _arguments(model, plan, directory, slots) + (links.arguments if links else [])
        command = tethered([str(program), *arguments], _environment(packed, costs))
        try:
            child = await AsyncChild.start(command, name=program.name, errors=STDOUT)
        except EngineError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        worker = cls(model, plan, child, directory)
        if links is not None:
            worker._tie(links)
        worker._drained = asyncio.create_task(worker._drain(log))
        try:
            await worker._until_it_answers(log)
        except BaseException:
            await worker.stop(grace=0)
            raise
        worker.load_seconds = time.perf_counter() - begin
        return worker

    @property
    def pid(self) -> int:
        """The number of the process that holds the model."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._child.is_alive

    async def wait(self) -> int:
        """Wait until it ends; its exit status."""
        return await self._child.wait()

    async def end_answer(self, name: str) -> None:
        """End an answer in good order with its next token; nothing happens if it has ended already.

        Returns when the worker's current step is done, whatever the name.
        """
        with contextlib.suppress(UpstreamRefused):
            await self.upstream.post(CONTROL, {"id": name, "action": "stop"})

    def _tie(self, links: Links) -> None:
        """End with the links: llama-server would wait for ever for the answer of a machine that is gone."""
        loop, self._links = asyncio.get_running_loop(), links
        self.upstream.explain = lambda: links.lost

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self.kill)

        links.on_loss = end
        if links.lost is not None:
            end()

    @property
    def lost(self) -> WorkerLost | None:
        """The machine with a part of its layers that is gone, as an error."""
        return self._links.lost if self._links else None

    def kill(self) -> None:
        """Kill it; `wait` returns then."""
        self._child.kill()

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End it, by force after `grace` seconds."""
        await self.upstream.close()
        await self._child.stop(grace)
        if self._links is not None:
            await asyncio.to_thread(self._links.close)
        if self._drained is not None:
            await self._drained
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _until_it_answers(self, log: Path) -> None:
        while not await self.upstream.is_ready():
            if not self.is_alive:
                if self.lost is not None:
                    raise self.lost
                if self._drained is not None:
                    await self._drained
                status, words = await self._child.wait(), " / ".join([*self._last_words][-SHOWN_WORDS:])
                self._explain_template()
                why = _reason(self._errors) or ": ".join(filter(None, [how_it_ended(status), words]))
                raise _not_loaded(self.model, status, why[:500], log)
            await asyncio.sleep(POLL_SECONDS)

    def _explain_template(self) -> None:
        """Raise UnsupportedModel if its last words are about the chat template."""
        said = " ".join(self._last_words)
        if not any(sign in said for sign in TEMPLATE_FAILED):
            return
        reason = next((line for line in self._last_words if line.startswith("Error: ")), self._last_words[-1])
        why = f"llama-server says: {reason.removeprefix('Error: ').rpartition('failed: ')[2]}"
        what = f"the server cannot use the chat template of {self.model.name}"
        raise UnsupportedModel(what, why=why, hint=f"edgellm chat {self.model.name}, whose templates know more")

    async def _drain(self, path: Path) -> None:
        """Copy its output into a log of bounded size."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = BoundedLog(path)
        try:
            async for line in self._child.lines():
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._last_words.append(_STAMP.sub("", text))
                    if "error" in text.lower():
                        self._errors.append(_STAMP.sub("", text))
                    handler.emit(logging.LogRecord("worker", logging.INFO, "", 0, text, None, None))
        finally:
            handler.close()


def _try_template(source: str) -> None:
    """Raise UnsupportedModel for a template that has an error or does not end: llama-server has no bounds."""
    with contextlib.suppress(UsageError):  # it may refuse these messages, and take others
        ChatTemplate(source).render([{"role": "user", "content": "hi"}])


def _not_loaded(model: ServedModel, status: int, why: str, log: Path) -> EdgellmError:
    """The error for a llama-server that ended before it could answer; `why` is what it said."""
    what, hint = f"{model.name} could not be loaded", f"see {log}"
    if status in (-signal.SIGTERM, -signal.SIGINT):  # somebody ended it
        return ChildFailed(what, why=how_it_ended(status), hint=hint)
    if status == -signal.SIGKILL:
        return DoesNotFit(what, why=how_it_ended(status), hint=hint)
    try:  # our reader says more clearly what is wrong with a damaged file
        for path in part_paths(model.path):
            GGUFFile.open(path).close()
    except EdgellmError as error:
        kind = type(error) if isinstance(error, (CorruptFile, ModelNotFound)) else UnsupportedModel
        return kind(what, why=": ".join(filter(None, [error.what, error.why])), hint=hint)
    return UnsupportedModel(what, why=why, hint=hint)


def _reason(errors: Collection[str]) -> str:
    """Why a model cannot be loaded, from the lines that speak of errors; empty if none of them says it."""
    if found := next(filter(None, map(_LOAD_ERROR.search, errors)), None):
        return found[1]
    if any("chat template" in line for line in errors):
        found = next(filter(None, map(_TEMPLATE_ERROR.search, errors)), None)
        return "its chat template is broken" + (f": {found[1]}" if found else "")
    return ""


def _environment(packed: PackedFile | None, costs: DraftCosts | None) -> dict[str, str]:
    """Ours without LLAMA_ARG_*, which llama-server takes for options, and without what is empty."""
    ours = {name: value for name, value in os.environ.items() if value and not name.startswith("LLAMA_ARG_")}
    drafts = {DRAFT_COSTS: str(costs or "")}
    return {"EDGELLM_STREAM_BEAT_MS": str(BEAT_MS), **ours, **drafts, **(packed.environment if packed else {})}


def _arguments(model: ServedModel, plan: RunPlan, directory: Path, slots: Path | None) -> list[str]:
    cache = plan.kv_type.lower()
    # A text to embed or to rank must be computed as a whole.
    is_whole = model.kind in (ModelKind.EMBEDDING, ModelKind.RERANK)
    n_batch = plan.n_ctx if is_whole else plan.n_batch
    arguments = [
        "--host", str(directory / SOCKET), "--model", str(model.path), "--alias", model.name,
        "--ctx-size", str(plan.n_ctx * plan.n_slots), "--parallel", str(plan.n_slots), "--no-kv-unified",
        "--threads", str(plan.n_threads), "--threads-batch", str(plan.n_threads_batch or plan.n_threads),
        "--batch-size", str(n_batch), "--ubatch-size", str(n_batch),
        "--cache-type-k", cache, "--cache-type-v", cache, "--cache-ram", "0", "--ctx-checkpoints", "0",
        "--fit", "off", "--jinja", "--no-context-shift", "--no-ui", "--no-slots", "--offline", "--log-verbosity", "2",
        "--threads-http", str(plan.n_slots + 8), "--slot-prompt-similarity", LEAST_SHARE,
    ]  # fmt: skip
    if plan.flash_attention is not None:
        arguments += ["--flash-attn", "on" if plan.flash_attention else "off"]
    if model.kind is ModelKind.EMBEDDING:
        arguments += ["--embeddings"]
    if model.kind is ModelKind.RERANK:
        arguments += ["--reranking"]
    if model.adapters:
        arguments += ["--lora-scaled", ",".join(_linked(model.adapters, directory))]
    if slots is not None:
        arguments += ["--slot-save-path", str(slots)]
    if model.chat_template is not None:
        arguments += ["--chat-template", model.chat_template]
    if added := end_tokens.overrides(model.path):
        arguments += ["--override-kv", ",".join(f"{key}=int:{value}" for key, value in added.items())]
    return arguments


def _linked(adapters: Sequence[Adapter], directory: Path) -> Iterator[str]:
    """Adapters as llama-server's option has them; links stand for paths that may hold its commas and colons."""
    for number, adapter in enumerate(adapters):
        link = directory / f"adapter-{number}.gguf"
        link.symlink_to(adapter.path)
        yield f"{link}:{adapter.scale}"
