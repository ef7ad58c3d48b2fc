"""The server's side of the process that scores prompts: requests take turns, can be given up, and fail when it dies.

    worker = ScoringWorker(Path("model.gguf"), ScoringOptions(n_ctx=4096), log=Path("scoring.log"))
    await worker.start()
    async for answer in worker.score(ScoreRequest("The sky is blue", n_top=1)):
        ...     # ScoredPart, ScoredPart, ..., Done
    await worker.stop()

One request is computed at a time, the others wait in order. A cancelled task or a closed generator cancels its
computation too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError
from edgellm.machine.async_child import AsyncChild
from edgellm.machine.child import ChildFailed, as_raised, how_it_ended, module, parse
from edgellm.serve.scoring.scorer import ScoringOptions

# Seconds that the engine and a vocabulary may take to load from a slow disk.
START_SECONDS = 120
STOP_SECONDS = 2.0
# A larger log is truncated at the next start; the process prints little.
LOG_BYTES = 1 << 20
# Far more than the longest line, the tokens of a whole text.
MOST_OUTPUT = 1 << 30
NAME = "the scoring process"


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A prompt, as text or as tokens; beside each of its tokens come the `n_top` likeliest ones.

    `sampling` then draws up to `max_tokens` more, until one of the `stop` texts appears.
    """

    prompt: str | Sequence[int]
    n_top: int = 0
    max_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    loop_guard: bool = True


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """Some tokens in order: names, log-probabilities, the likeliest tokens with theirs, and offsets in the text.

    The first token of a prompt has no log-probability, unless the model puts BOS before it.
    """

    names: list[str]
    logprobs: list[float | None]
    tops: list[dict[str, float] | None]
    offsets: list[int]


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer: prompt and what came after it as one text; `reason` is stop, length or repetition.

    `prompt_tokens` count a BOS that the model puts before a text; `reused_tokens` of them were in the cache.
    """

    text: str
    reason: str
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VocabularyInfo:
    """The model's special tokens and template; `adds_bos`: it begins texts with `bos`."""

    n_ctx: int
    n_vocab: int
    adds_bos: bool
    bos: str | None
    eos: str | None
    pad: str | None
    chat_template: str | None


class ScoringWorker:
    """One process over one model. After its death every call raises `EngineError`; start another one then."""

    def __init__(self, path: Path, options: ScoringOptions, *, log: Path | None = None) -> None:
        self.path, self.options, self._log = path, options, log
        self.info: VocabularyInfo
        self._child: AsyncChild | None = None
        self._garbled: ChildFailed | None = None
        self._reader: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._answers: dict[int, asyncio.Queue[dict[str, Any] | None]] = {}
        self._last_id = 0

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._reader is not None and not self._reader.done()

    @property
    def pid(self) -> int | None:
        """The number of the process, once it is started."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the process and wait until it answers; the weights are loaded for the first prompt.

        Raises:
            EdgellmError: the file is no model, the engine is missing, or the process does not come up.
        """
        with contextlib.ExitStack() as stack:
            log: IO[bytes] | int = asyncio.subprocess.DEVNULL
            if self._log:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                large = self._log.exists() and self._log.stat().st_size > LOG_BYTES
                log = stack.enter_context(self._log.open("wb" if large else "ab"))
            program = module("edgellm.serve.scoring.worker", *arguments(self.path, self.options))
            self._child = await AsyncChild.start(program, name=NAME, errors=log, interactive=True, most=MOST_OUTPUT)
        ready = self._answers[0] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read(self._child))
        try:
            answer = await asyncio.wait_for(ready.get(), START_SECONDS)
            if answer is None:
                raise await self._death()
            if "error" in answer:
                raise as_raised(answer["error"])
        except asyncio.TimeoutError:
            await self.stop()
            raise ChildFailed(f"{NAME} does not start", why=f"it was given {START_SECONDS} s") from None
        except BaseException:
            await self.stop()
            raise
        finally:
            del self._answers[0]
        self.info = VocabularyInfo(**answer["ready"])

    async def score(self, request: ScoreRequest) -> AsyncGenerator[ScoredPart | Done, None]:
        """Parts of the answer as they are computed, and its end.

        Raises:
            BadRequest, PromptTooLong, DoesNotFit: the process refuses the request.
            EngineError: the process is dead, or dies meanwhile.
        """
        asked = {**asdict(request), "sampling": asdict(request.sampling)}
        async with aclosing(self._ask({"score": asked})) as answers:
            async for answer in answers:
                yield ScoredPart(**answer["part"]) if "part" in answer else Done(**answer["done"])

    async def tokenize(self, text: str, *, bos: bool) -> list[int]:
        """The tokens of a text; `bos`: begun as the vocabulary wants. Control tokens are known by their names."""
        return await self._tokens({"text": text, "bos": bos})

    async def tokenize_messages(
        self, messages: Sequence[dict[str, Any]], *, bos: bool, template: str | None = None
    ) -> list[int]:
        """The tokens of a conversation in the model's chat template or another, up to where the answer begins.

        Raises:
            UnsupportedModel, UsageError: there is no template, or it refuses the conversation.
        """
        return await self._tokens({"messages": messages, "bos": bos, "template": template})

    async def _tokens(self, asked: dict[str, Any]) -> list[int]:
        answer = await self._ask_once({"tokenize": asked})
        tokens: list[int] = answer["tokens"]
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, control tokens by their names; BadRequest for numbers that are none."""
        answer = await self._ask_once({"detokenize": {"tokens": tokens}})
        return str(answer["text"])

    async def stop(self) -> None:
        """End the process, which has nothing to lose."""
        if self._child:
            await self._child.stop(STOP_SECONDS)
        if self._reader:
            await asyncio.wait([self._reader])

    async def _ask_once(self, request: dict[str, Any]) -> dict[str, Any]:
        async with aclosing(self._ask(request)) as answers:
            async for answer in answers:
                done: dict[str, Any] = answer["done"]
                return done
        raise AssertionError("an answer has an end")

    async def _ask(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The answers to a request, `done` last, when its turn has come."""
        async with self._turn:
            self._last_id += 1
            request_id, answer = self._last_id, None
            answers = self._answers[request_id] = asyncio.Queue()
            try:
                if not self.alive or self._child is None:
                    raise await self._death()
                self._child.send({"id": request_id, **request})
                while answer is None or "done" not in answer:
                    answer = await answers.get()
                    if answer is None:
                        raise await self._death()
                    if "error" in answer:
                        raise as_raised(answer["error"])
                    yield answer
            finally:
                del self._answers[request_id]
                if answer is None or answer.keys().isdisjoint({"done", "error"}):
                    self._cancel(request_id)

    def _cancel(self, request_id: int) -> None:
        if self.alive and self._child:
            self._child.send({"cancel": request_id})

    async def _read(self, child: AsyncChild) -> None:
        """Pass answers on to their requests, until the process ends or prints something else."""
        try:
            async for line in child.lines():
                if not line.endswith(b"\n"):
                    break
                answer = parse(line, NAME)
                if answers := self._answers.get(answer.get("id", 0)):
                    answers.put_nowait(answer)
        except ChildFailed as error:
            self._garbled = error
        for answers in self._answers.values():
            answers.put_nowait(None)

    async def _death(self) -> EngineError:
        """Why there is no answer."""
        if self._child is None:
            return ChildFailed(f"{NAME} is not running")
        self._child.kill()
        code = await self._child.wait()
        where = f"; its last words are in {self._log}" if self._log else ""
        return self._garbled or ChildFailed(f"{NAME} has ended", why=how_it_ended(code) + where, status=code)


def arguments(path: Path, options: ScoringOptions) -> list[str]:
    """The command line that `scoring.worker` parses."""
    words = [str(path.absolute())]
    values = {
        "--ctx-size": options.n_ctx, "--threads": options.n_threads, "--kv": options.kv_type,
        "--max-memory": options.max_memory,
    }  # fmt: skip
    for name, value in values.items():
        words += [name, str(value)] if value is not None else []
    return [*words, "--force"] if options.force else words
