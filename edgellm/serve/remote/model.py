"""A model that a server holds, as the verbs use one of their own: prompts in, events and numbers out.

    model = RemoteModel("smollm2", address, status)
    model.answer_stream("What is a ternary weight?", options).answer.text

The server is asked for each sampling option by name, so nothing depends on its own defaults. Numbers of tokens and
times are the server's. Memory and CPU time are those of its worker.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgellm.engine.sampling import OPTIONS, Sampling
from edgellm.errors import ContextFixed, EdgellmError, NetworkError
from edgellm.machine.energy import EnergyMeter
from edgellm.models.fit.memory import RunPlan
from edgellm.models.recipe import Recipe
from edgellm.run.answer import AnswerStream
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.events import End, Event, Looped, Prefill, Text, Thought, TokenCounts
from edgellm.run.generation import Limits, penalised
from edgellm.run.loader import LoadOptions, choose_system
from edgellm.run.loops import Loop
from edgellm.run.message import Message
from edgellm.run.telemetry import Meter, Stats
from edgellm.serve.answer.reader import Reader
from edgellm.serve.records import status_of_server
from edgellm.serve.remote.connection import ServerAddress, ask, no_answer, stream
from edgellm.units import count, threads

if TYPE_CHECKING:
    from edgellm.serve.remote.session import RemoteSession

CHAT, COMPLETIONS, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"
# Of llama-server's: milliseconds, and tokens: those of the prompt that came from disk, and drafted ones.
TIMINGS = ("prompt_ms", "predicted_ms", "disk_n", "draft_n", "draft_n_accepted")
# The messages of a chat, or what is continued as it is: a text, or tokens.
Prompt = list[Message] | str | tuple[int, ...]


class RemoteModel:
    """A model of a server; `status` is its entry in /status.json.

    `name` is ours, `served_as` what the server calls it. `options` say how it would be loaded here. `is_here`: the
    server runs on this machine.
    """

    def __init__(
        self,
        name: str,
        address: ServerAddress,
        status: Mapping[str, Any],
        *,
        served_as: str = "",
        recipe: Recipe | None = None,
        options: LoadOptions | None = None,
        is_here: bool = True,
    ) -> None:
        self.name = name
        self.served_as = served_as or name
        self.address = address
        self.recipe = recipe
        self.options = options or LoadOptions()
        self.is_here = is_here
        self.status = status
        self.plan = RunPlan(
            n_ctx=int(status["n_ctx"]), n_slots=int(status["n_slots"]), kv_type=str(status["kv_type"]),
            n_threads=int(status["n_threads"]),
        )  # fmt: skip

    @property
    def threads(self) -> str:
        """With how many threads the server computes, in words."""
        return threads(self.plan.n_threads)

    @property
    def about(self) -> str:
        """Its size and type, as far as the server says them."""
        n_params, quant = self.status.get("n_params"), self.status.get("quant")
        return " ".join(filter(None, (count(n_params) if isinstance(n_params, int) else "", str(quant or ""))))

    @property
    def server(self) -> str:
        """The server's address."""
        return self.address.url

    @property
    def where(self) -> str:
        """Where the server is, in few words."""
        port = urlsplit(self.server).port
        return f"on port {port}" if self.is_here and port else f"at {self.server}"

    @property
    def place(self) -> str:
        """The server's address, and the model's name there if it is another."""
        return f"at {self.server}" + (f" as {self.served_as}" if self.served_as != self.name else "")

    @property
    def system(self) -> str | None:
        """The system message of new conversations: what was asked for, else the recipe's."""
        return choose_system(self.options, self.recipe)

    def open_session(self, *, private: bool = False) -> RemoteSession:
        """The session of a chat; nothing of a private one is kept on the server's disk."""
        from edgellm.serve.remote.session import RemoteSession

        return RemoteSession(self, private=private)

    def largest_context(self) -> int:
        """The server's context: it stays as it is."""
        return self.plan.n_ctx

    def resize(self, n_ctx: int) -> None:
        """Refuse any other context than the server's.

        Raises:
            ContextFixed: it is another one; `n_ctx` of the error is what was asked for.
        """
        if n_ctx != self.plan.n_ctx:
            hint = f"edgellm chat --continue --server never -c {n_ctx}"
            what = f"the server at {self.server} has a context of {self.plan.n_ctx:,} tokens"
            raise ContextFixed(what, hint=hint, n_ctx=n_ctx)

    def answered(self, stats: Stats) -> None:
        """Nothing to note: the server counts for itself."""

    def close(self) -> None:
        """Nothing to give back: the model is the server's."""

    def answer_stream(self, prompt: str, options: AnswerOptions) -> AnswerStream:
        """Ask one prompt. The request is sent at once, and its first event waited for: a refusal comes before a word.

        Raises:
            NetworkError, PromptTooLong, ModelNotFound, EdgellmError: those of `connection.stream`.
        """
        sampling = options.sampling(self.recipe)
        head = [] if self.system is None else [Message(role="system", content=self.system)]
        meter = RemoteMeter(self)
        meter.start()
        events = _begun(self.events([*head, Message(role="user", content=prompt)], sampling, options.limits))
        return AnswerStream(events, meter, sampling=sampling, structure=options.structure)

    def events(
        self, prompt: Prompt, sampling: Sampling, limits: Limits, begun: str = "", *, private: bool = False
    ) -> Generator[Event, None, None]:
        """The events of an answer, of which `begun` is there already; nothing of a private one is kept on disk.

        With `limits.retry` the server is asked a second time after a loop, to go on from before it.
        """
        until = None if limits.max_seconds is None else time.monotonic() + limits.max_seconds
        answer = partial(self._answer, prompt, private=private)
        is_plain = not sampling.grammar and not isinstance(prompt, tuple)
        events = answer(sampling, replace(limits, retry=False), begun)
        first = yield from _attempt(events, begun, retrying=limits.retry, can_go_on=is_plain)
        if first is None:
            return
        looped, over, text = first
        left = limits.max_tokens if limits.max_tokens < 0 else max(0, limits.max_tokens - looped.kept_tokens)
        seconds = None if until is None else max(0.001, until - time.monotonic())
        rest = replace(limits, retry=False, max_tokens=left, max_seconds=seconds)
        for event in answer(penalised(sampling), rest, text):
            match event:
                case Prefill():
                    pass
                case Looped():
                    yield replace(event, kept_tokens=looped.kept_tokens + event.kept_tokens)
                case End():
                    yield _together(over, event)
                case _:
                    yield event

    def _answer(
        self, prompt: Prompt, sampling: Sampling, limits: Limits, begun: str, *, private: bool
    ) -> Generator[Event, None, None]:
        if isinstance(prompt, (str, tuple)):
            body: dict[str, Any] = {"prompt": prompt + begun if isinstance(prompt, str) else prompt}
            path, most = COMPLETIONS, {"max_tokens": limits.max_tokens}
        else:
            answer = [Message(role="assistant", content=begun)] if begun else []
            body, path, most = {"messages": [*prompt, *answer]}, CHAT, {}
        hidden = {"private": True} if private else {}
        yield from self._events(path, {**self._asked(sampling, limits), **hidden, **most, **body}, limits)

    def _asked(self, sampling: Sampling, limits: Limits) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.served_as, "seed": sampling.seed, "loop_guard": limits.loop_guard,
            "return_progress": True, "truncate": False, **{name: getattr(sampling, name) for name in OPTIONS},
        }  # fmt: skip
        if sampling.grammar:
            body["grammar"] = sampling.grammar
        if limits.max_tokens >= 0:
            body["max_tokens"] = limits.max_tokens
        if limits.max_seconds is not None:
            body["max_time"] = limits.max_seconds
        if limits.stop:
            body["stop"] = list(limits.stop)
        return body

    def _events(self, path: str, body: Mapping[str, Any], limits: Limits) -> Generator[Event, None, None]:
        reader = Reader()
        chunks = stream(self.address, path, body, interrupted=limits.interrupted)
        try:
            for data in chunks:
                for event in _read(reader, data):
                    match event:
                        case End():
                            yield from _ended(event, _cut(data), limits)
                            return
                        case Text(text="") | Thought(text=""):
                            pass  # the server does not count them where it says how many it kept
                        case Text(text) | Thought(text):
                            yield Text(text)
                        case _:
                            yield event
        finally:
            chunks.close()
        if not limits.interrupted():
            what = f"the server at {self.address.url} stopped in the middle of the answer"
            raise NetworkError(what, hint="the same again, or --server never")
        yield End("interrupted")

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make.

        Raises:
            NetworkError, ModelNotFound, EdgellmError: those of `connection.ask`.
        """
        return self._count({"messages": list(messages)}) if messages else 0

    def count(self, text: str) -> int:
        """Tokens of a text; raises as `count_tokens` does."""
        return self._count({"prompt": text})

    def _count(self, what: Mapping[str, Any]) -> int:
        reply = ask(self.address, TOKENIZE, {"model": self.served_as, "add_special_tokens": True, **what})
        n_tokens = reply.get("count")
        if not isinstance(n_tokens, int):
            raise no_answer(reply)
        return n_tokens

    def look(self) -> None:
        """Read the worker's memory and CPU time."""
        models = status_of_server(self.address.url, self.address.key)["models"]
        of_that_name = (each for each in models if isinstance(each, dict) and each.get("name") == self.served_as)
        self.status = next(of_that_name, self.status)


def _attempt(
    events: Iterator[Event], begun: str, *, retrying: bool, can_go_on: bool
) -> Generator[Event, None, tuple[Looped, End, str] | None]:
    """One answer; returns the loop that ended it, its end, and the text before it, if it is to be continued.

    `can_go_on` is not so where the place in a grammar is not known half-way, or a text cannot follow tokens.
    """
    pieces: list[str] = []
    looped: Looped | None = None
    for event in events:
        match event:
            case Text(text):
                pieces.append(text)
            case Looped() if retrying:
                event = looped = replace(event, kept_tokens=event.kept_tokens if can_go_on else 0, retrying=True)
                begun = begun if can_go_on else ""
            case End() if looped is not None:
                return looped, event, begun + "".join(pieces[: looped.kept_tokens])
        yield event
    return None


def _together(first: End, second: End) -> End:
    """The end of an answer that was continued: the tokens and times of both of its parts."""
    if first.tokens is None or second.tokens is None:
        return second
    tokens = first.tokens._replace(completion=first.tokens.completion + second.tokens.completion)
    timings = {name: first.timings.get(name, 0.0) + second.timings.get(name, 0.0) for name in TIMINGS}
    return replace(second, tokens=tokens, timings=timings)


def _read(reader: Reader, data: dict[str, Any]) -> list[Event]:
    """The events of a chunk, whose numbers are numbers; NetworkError for anything else."""
    try:
        return [_checked(event) for event in reader.read(data, b"")]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        raise no_answer(data) from None


def _checked(event: Event) -> Event:
    match event:
        case End(tokens=tokens):
            timings = {name: float(event.timings.get(name) or 0) for name in TIMINGS}
            return replace(event, tokens=tokens and TokenCounts(*map(int, tokens)), timings=timings)
        case Prefill(done, total, reused):
            return Prefill(int(done), int(total), int(reused))
        case Text(text) | Thought(text) if not isinstance(text, str):
            raise TypeError("a text is needed")
    return event


def _cut(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Why the server ended an answer before the model did; empty if it did not."""
    found = data.get("edgellm")
    return found if isinstance(found, dict) else {}


def _ended(end: End, cut: Mapping[str, Any], limits: Limits) -> Iterator[Event]:
    """The end of an answer as a model of this process would give it, after the loop if there was one.

    `cut` is the field `edgellm`. llama-server says "length" for a full context too, and counts the token that ends an
    answer.
    """
    tokens, reason = end.tokens, str(cut.get("finish_reason") or end.reason)
    if reason == "repetition":
        kept, times = (each if isinstance(each := cut.get(name), int) else 0 for name in ("kept_pieces", "repetitions"))
        yield Looped(Loop(str(cut.get("repeated", "")), times, kept), kept, retrying=False)
    elif reason == "length" and tokens and not 0 <= limits.max_tokens <= tokens.completion:
        reason = "context"
    elif reason == "stop" and tokens and not limits.stop:
        tokens = tokens._replace(completion=max(0, tokens.completion - 1))
    yield replace(end, reason=reason, tokens=tokens)


def _begun(events: Generator[Event, None, None]) -> Generator[Event, None, None]:
    """The same events, of which the first has arrived already."""
    first = next(events)

    def rest() -> Generator[Event, None, None]:
        try:
            yield first
            yield from events
        finally:
            events.close()

    return rest()


class RemoteMeter(Meter):
    """Measures an answer of a server by its own figures, and its worker by /status.json."""

    def __init__(self, model: RemoteModel) -> None:
        # Another machine's processors cannot be read here.
        super().__init__(n_ctx=model.plan.n_ctx, open_energy=EnergyMeter if model.is_here else no_energy)
        self._model = model
        self._cpu_before = model.status.get("cpu_seconds") or 0.0
        self._over: End | None = None

    def _see(self, event: Event) -> None:
        super()._see(event)
        if isinstance(event, End):
            self._over = event
            with contextlib.suppress(EdgellmError):
                self._model.look()

    def stats(self) -> Stats:
        """The numbers so far, the server's own once the answer is over."""
        status = self._model.status
        found = replace(
            super().stats(),
            resident_bytes=status.get("resident_bytes") or 0,
            peak_resident_bytes=status.get("peak_resident_bytes") or 0,
            cpu_seconds=max(0.0, (status.get("cpu_seconds") or 0.0) - self._cpu_before),
        )
        if self._over is None or self._over.tokens is None:
            return found
        tokens, timings = self._over.tokens, self._over.timings
        kept = found.completion_tokens - found.dropped_tokens
        return replace(
            found,
            prompt_tokens=tokens.prompt,
            reused_tokens=tokens.cached,
            restored_tokens=int(timings["disk_n"]),
            completion_tokens=tokens.completion,
            dropped_tokens=max(0, tokens.completion - kept) if found.dropped_tokens else 0,
            prefill_seconds=timings["prompt_ms"] / 1000,
            decode_seconds=timings["predicted_ms"] / 1000,
            drafted_tokens=int(timings["draft_n"]),
            accepted_tokens=int(timings["draft_n_accepted"]),
        )


def no_energy() -> EnergyMeter:
    """A meter that reads nothing."""
    return EnergyMeter(Path(os.devnull))
