"""What a model says, as events: the one algebra that every engine emits and every front end writes.

for event in session.ask(...):
    match event:
        case Text(text): print(text, end="")
        case End(reason): ...

The in-process engine emits them (`run/generation.py`), and so does the reader of llama-server's chunks
(`serve/answer/reader.py`). The terminal, batches, the Python API and the protocols of `serve` are writers of them.
`index` numbers parallel answers to one request. `raw` is the line of llama-server's stream that an event came in, empty
if there is none or if an earlier event came in the same line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from edgellm.run.loops import Loop

FinishReason = Literal["stop", "length", "time", "context", "repetition", "interrupted", "tool_calls"]
NO_TOKEN = -1

# A token with its log-probability and alternatives, as llama-server writes it.
LogprobEntry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Begin:
    """An answer begins; `about` has its id, when it was created (seconds since 1970), and the model's name."""

    about: Mapping[str, Any]
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompt is being read: `done` of `total` tokens are in the cache, `reused` of them were there before.

    `restored` of those came from disk for this answer.
    """

    done: int
    total: int
    reused: int
    raw: bytes = b""
    restored: int = 0


@dataclass(frozen=True, slots=True)
class Searched:
    """Documents were searched for `queries`; `results` are the passages in OpenAI's form."""

    queries: tuple[str, ...]
    results: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer: nearly always one token, empty while a character is incomplete.

    An incomplete character at the end comes with `NO_TOKEN`. `repeated` is how often the end of the answer so far has
    been repeated, 1 for ordinary text.
    """

    text: str
    token: int = 0
    repeated: int = 1
    index: int = 0
    logprobs: tuple[LogprobEntry, ...] = ()
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Drafted:
    """Of an answer, so many tokens were drafted so far, and `accepted` of them were right: they needed no pass."""

    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks before it answers."""

    text: str
    index: int = 0
    logprobs: tuple[LogprobEntry, ...] = ()
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """A piece of a tool call: `position` numbers the calls of an answer; only the first piece has `id` and `name`.

    `source` says where a tool comes from that a server runs itself, as `Tool.source` does; such a call comes whole, and
    is followed by what it `Returned`. It is empty for a call that the client has to run.
    """

    position: int
    id: str
    name: str
    arguments: str
    index: int = 0
    raw: bytes = b""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ToolSource:
    """Where a part of a tool's result comes from; `place` is a URL or a path."""

    title: str
    place: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A tool that edgellm runs itself has returned. `position`, `id` and `name` are those of its `Call`.

    `arguments` is the JSON text of an object. `text` is the result as the model sees it, or with `error` one sentence
    about what went wrong. `notes` say what was cut or left out of it.
    """

    position: int
    id: str
    name: str
    arguments: str
    text: str
    error: bool = False
    sources: tuple[ToolSource, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Looped:
    """The answer repeats itself endlessly: only its first `kept_tokens` tokens count.

    `retrying`: it continues from there, with penalties on repetition; otherwise it has ended.
    """

    loop: Loop
    kept_tokens: int
    retrying: bool


class TokenCounts(NamedTuple):
    """Tokens of one answer; `cached` of the prompt's were not computed again."""

    prompt: int
    completion: int
    cached: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Why edgellm ended an answer: `repetition` or `time`. A loop was `repeated` so many `repetitions`.

    `kept` counts the pieces of text and thoughts up to where the loop began.
    """

    reason: Literal["repetition", "time"]
    repeated: str = ""
    repetitions: int = 0
    kept: int | None = None

    def as_field(self) -> dict[str, Any]:
        """The field `edgellm` of an answer, for clients that know it."""
        if self.kept is None:
            return {"finish_reason": self.reason}
        loop = {"repeated": self.repeated, "repetitions": self.repetitions, "kept_pieces": self.kept}
        return {"finish_reason": self.reason, **loop}


@dataclass(frozen=True, slots=True)
class End:
    """An answer is over: the model stopped or repeated itself, a limit or the context's end was reached, or the user
    interrupted.

    `warnings` say what of the request was not honoured. `documents` is the check of an answer from documents, `cache`
    says where a stored answer comes from.
    `timings` are llama-server's (milliseconds and tokens per second). `stop_text` is the stop sequence that ended it.
    """

    reason: str
    index: int = 0
    tokens: TokenCounts | None = None
    timings: Mapping[str, Any] = field(default_factory=dict)
    stop_text: str = ""
    cut: Cut | None = None
    warnings: tuple[str, ...] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    cache: Mapping[str, Any] = field(default_factory=dict)


Event = Begin | Prefill | Searched | Text | Drafted | Thought | Call | Returned | Looped | End
