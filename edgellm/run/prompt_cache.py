"""Takes beginnings of prompts from disk instead of computing them, and keeps what took long to compute.

    prompts = PromptCache(files, key, bytes_per_token=22_000)
    for event in prompts.answer(context, prompt, generate(model, context, prompt, ...)): ...
    prompts.settle()     # before the context is closed

An answer is never delayed: a state is copied when the answer is over and written by a thread. It holds the prompt and
the answer, so the next turn of a chat begins where this one ended. What is taken from disk is to the bit what was
computed, and the last token of a prompt is always computed. `models/local/prompt_files.py` has the files.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edgellm.engine.base import Sequences, common_length
from edgellm.errors import EngineError
from edgellm.machine import memory
from edgellm.models.local.prompt_files import LEAST_TOKENS, KeptPrompt, PromptFiles
from edgellm.run.events import Event, Prefill

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# What is computed again in less time is not kept. And what would save less than the other is computed: a prompt that is
# computed as a whole may round differently from one whose beginning was there.
LEAST_SECONDS, LEAST_GAIN = 0.3, 0.1
# A chat is kept again when it is so many times as long, and at its end if it is a little longer: all writing is then a
# few times its length, and the same document with another question is not written again.
GROWTH, GROWTH_AT_END = 1.5, 1.1
# A state is read if that takes at most half the time of computing it, from a disk of so many bytes a second.
READ_RATE = 500e6


class Cache(Protocol):
    """One sequence: a context, or one of several sequences."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens that fit."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the KV cache."""

    def state(self) -> npt.NDArray[np.uint8]:
        """A copy of the KV cache."""

    def restore(self, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace the KV cache, as in `engine.base.Context`."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several sequences."""

    sequences: Sequences
    seq: int

    @property
    def n_ctx(self) -> int:
        """The number of tokens that fit."""
        return self.sequences.n_ctx

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in its KV cache."""
        return self.sequences.tokens[self.seq]

    def state(self) -> npt.NDArray[np.uint8]:
        """A copy of its KV cache."""
        return self.sequences.state(self.seq)

    def restore(self, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace its KV cache."""
        return self.sequences.restore(self.seq, tokens, state)


class PromptCache:
    """The prompts of one model and one kind of cache, which the `key` names.

    `whole`: the model's cache cannot be truncated, so only a prompt that goes on where a file ends can use it. `room`
    says how much memory there is for a copy of a state.
    """

    def __init__(
        self,
        files: PromptFiles,
        key: str,
        *,
        bytes_per_token: int,
        whole: bool = False,
        room: Callable[[], int] = memory.available,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._files, self._key, self._bytes_per_token = files, key, bytes_per_token
        self._whole, self._room, self._clock = whole, room, clock
        self._seconds_per_token: float | None = None
        # The cache of the answer under way, and what of the last answer was not kept again yet.
        self._active: Cache | None = None
        self._late: tuple[Cache, list[int]] | None = None
        self._writer: threading.Thread | None = None

    def answer(
        self,
        cache: Cache,
        prompt: Sequence[int],
        events: Generator[Event, None, None],
        *,
        in_chat: bool = False,
    ) -> Generator[Event, None, None]:
        """Pass on the events of an answer, which begins to compute at the first one.

        Outside a chat nobody reads the answer again: then only the time for the prompt counts.
        """
        restored = self.take(cache, prompt)
        began = self._clock()
        self._active = cache
        has_ended = False
        try:
            for event in events:
                if isinstance(event, Prefill):
                    self.measured(event.done - event.reused, self._clock() - began)
                    event = replace(event, restored=min(restored, event.reused))
                yield event
            has_ended = True
        except GeneratorExit:
            has_ended = True
            raise
        finally:
            events.close()
            # A model that was closed meanwhile has no cache any more.
            is_open, self._active = self._active is cache, None
            if has_ended and is_open:
                self.keep(cache, n_counted=None if in_chat else len(prompt))

    def take(self, cache: Cache, prompt: Sequence[int], held: int | None = None) -> int:
        """Put the longest beginning of a prompt that is on disk into the cache; returns how many of its tokens.

        0 if it is not worth it: the cache itself (or another one, as `held` says) has nearly as much. Otherwise the
        cache may hold other tokens after it, and must be truncated.
        """
        held = common_length(list(cache.tokens), prompt) if held is None else held
        # The last token is always computed: its logits are needed.
        most = len(prompt) - 1
        if most - held < LEAST_TOKENS or len(prompt) > cache.n_ctx:
            return 0
        asked = prompt[:most] if self._whole else prompt
        found = self._files.longest(self._key, asked, most=cache.n_ctx, whole=self._whole)
        if found is None:
            return 0
        kept, common = found[0], min(found[1], most)
        if not self._is_worth(kept, common - held) or self._room() < 2 * kept.n_state:
            return 0
        state = self._files.read(kept)
        if state is None or not cache.restore(list(kept.tokens), state):
            return 0
        if self._seconds_per_token is None:
            self._seconds_per_token = kept.seconds_per_token
        return common

    @staticmethod
    def _is_worth(kept: KeptPrompt, gained: int) -> bool:
        seconds = gained * kept.seconds_per_token
        return gained >= LEAST_TOKENS and seconds > max(LEAST_GAIN, 2 * kept.n_state / READ_RATE)

    def measured(self, n_tokens: int, seconds: float) -> None:
        """Note how long it took to compute some tokens of a prompt."""
        if n_tokens >= LEAST_TOKENS:
            self._seconds_per_token = seconds / n_tokens

    def keep(self, cache: Cache, *, n_counted: int | None = None, at_end: bool = False) -> None:
        """Keep what a cache holds, if its first `n_counted` tokens took long to compute; None: all of them.

        At the end of a chat also what came to it lately.
        """
        tokens, seconds_per_token = list(cache.tokens), self._seconds_per_token
        self._late = None
        if len(tokens) < LEAST_TOKENS or seconds_per_token is None:
            return
        found = self._files.longest(self._key, tokens, whole=self._whole)
        n_kept = found[1] if found else 0
        n_new = (len(tokens) if n_counted is None else n_counted) - n_kept
        if n_new * seconds_per_token < LEAST_SECONDS or len(tokens) < GROWTH_AT_END * n_kept:
            return
        if not at_end and (len(tokens) < GROWTH * n_kept or self._is_writing):
            self._late = cache, tokens
        elif self._room() > 2 * len(tokens) * self._bytes_per_token:
            with contextlib.suppress(MemoryError, EngineError):  # the answer is whole without it
                self._write(tokens, cache.state(), seconds_per_token)

    @property
    def _is_writing(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def _write(self, tokens: list[int], state: npt.NDArray[np.uint8], seconds_per_token: float) -> None:
        arguments = (self._key, tokens, state, seconds_per_token)
        # Nobody waits for it who ends the program by force: a half-written file has another name.
        self._writer = threading.Thread(target=self._files.write, args=arguments, name="prompt cache", daemon=True)
        self._writer.start()

    def settle(self) -> None:
        """Keep what is still to be kept, and wait until it is on disk; call it before the cache is closed."""
        self._active = None
        self.wait()
        if self._late is not None and list(self._late[0].tokens) == self._late[1]:
            self.keep(self._late[0], at_end=True)
        self._late = None
        self.wait()

    def wait(self) -> None:
        """Wait until what was kept is on disk."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None


class SharedPrompt:
    """The beginning that the prompts of a batch have in common: taken from disk, and kept at the end."""

    def __init__(self, prompts: PromptCache, sequences: Sequences) -> None:
        self._prompts, self._sequences = prompts, sequences
        self._shared: list[int] | None = None
        self._n_jobs = 0
        # Tokens that came from disk.
        self.restored = 0

    def take(self, seq: int, prompt: list[int], held: int) -> int:
        """Put the beginning of a prompt into a sequence if it is on disk; `held` of it are in some sequence."""
        self._n_jobs += 1
        self._shared = prompt if self._shared is None else self._shared[: common_length(self._shared, prompt)]
        restored = self._prompts.take(OneOf(self._sequences, seq), prompt, held)
        self.restored += restored
        return restored

    def measured(self, n_tokens: int, seconds: float) -> None:
        """Note how long it took to compute some tokens."""
        self._prompts.measured(n_tokens, seconds)

    def keep(self) -> None:
        """Keep the common beginning of all prompts, if there were several; the sequences are of no use afterwards."""
        shared, tokens = self._shared or [], self._sequences.tokens
        held = [seq for seq in range(self._sequences.n_seq) if common_length(tokens[seq], shared) == len(shared)]
        if self._n_jobs > 1 and len(shared) >= LEAST_TOKENS and held:
            if self._sequences.keep(held[0], len(shared)) == len(shared):
                self._prompts.keep(OneOf(self._sequences, held[0]), at_end=True)
            self._prompts.settle()
