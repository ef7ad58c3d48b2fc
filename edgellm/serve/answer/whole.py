"""An answer folded from its events: the choices of a request, each as blocks of thoughts, text and tool calls.

whole = Whole()
async for event in events:
    for change in whole.add(event): ...
whole.choices[0].text

Protocols that stream blocks (OpenAI's Responses, Anthropic's Messages) write the changes; the others write the events
themselves. Every answer that is not streamed is read from the fold at its end.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from edgellm.run.events import (
    Begin,
    Call,
    Cut,
    End,
    Event,
    LogprobEntry,
    Prefill,
    Returned,
    Searched,
    Text,
    Thought,
    TokenCounts,
)


class BlockKind(Enum):
    """What a block holds; a RUN is a call of a tool that this server runs, and what it returned."""

    THOUGHT = 0
    TEXT = 1
    CALL = 2
    RUN = 3


@dataclass(slots=True)
class Block:
    """Consecutive pieces of one kind; `name` and `call_id` are those of a call, whose pieces are its arguments.

    `returned` is what a RUN gave, None while it runs.
    """

    index: int
    kind: BlockKind
    name: str = ""
    call_id: str = ""
    position: int = 0
    pieces: list[str] = field(default_factory=list)
    entries: list[tuple[LogprobEntry, ...]] = field(default_factory=list)
    returned: Returned | None = None

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)

    @property
    def logprobs(self) -> list[LogprobEntry]:
        """The entries of all its tokens, empty if none were asked for."""
        return [entry for entries in self.entries for entry in entries]


class Step(Enum):
    """What happens to a block."""

    OPEN = 0
    MORE = 1
    CLOSE = 2


class Change(NamedTuple):
    """A step of a block; `piece` and `entries` come with MORE."""

    step: Step
    block: Block
    piece: str = ""
    entries: tuple[LogprobEntry, ...] = ()


@dataclass(slots=True)
class AnswerChoice:
    """One of the parallel answers."""

    blocks: list[Block] = field(default_factory=list)
    end: End | None = None
    open: Block | None = None

    @property
    def finish_reason(self) -> str:
        """`stop`, `length` or `tool_calls`; an answer that never ended was cut off."""
        return self.end.reason if self.end else "length"

    @property
    def text(self) -> str:
        """The text of the answer, without thoughts."""
        return self._joined(BlockKind.TEXT)

    @property
    def thoughts(self) -> str:
        """What the model thought before it answered."""
        return self._joined(BlockKind.THOUGHT)

    @property
    def calls(self) -> list[Block]:
        """The tool calls in the order of their positions."""
        return sorted((block for block in self.blocks if block.kind is BlockKind.CALL), key=lambda each: each.position)

    @property
    def runs(self) -> list[Block]:
        """The calls that this server ran, in their order."""
        return [block for block in self.blocks if block.kind is BlockKind.RUN]

    @property
    def logprobs(self) -> list[LogprobEntry]:
        """The entries of all tokens of thoughts and text."""
        return [entry for block in self.blocks for entry in block.logprobs]

    def _joined(self, kind: BlockKind) -> str:
        return "".join(block.text for block in self.blocks if block.kind is kind)

    def trim(self, kept: int) -> None:
        """Keep only the first pieces of thoughts and text."""
        for block in self.blocks:
            if block.kind in (BlockKind.THOUGHT, BlockKind.TEXT):
                n_pieces = len(block.pieces)
                del block.pieces[kept:], block.entries[kept:]
                kept = max(0, kept - n_pieces)
        self.blocks = [block for block in self.blocks if block.pieces or block.call_id]


class Whole:
    """The answer to a request so far; with `n` choices for each prompt."""

    def __init__(self, n: int = 1) -> None:
        self.about: Mapping[str, Any] = {}
        self.choices: dict[int, AnswerChoice] = {}
        self.prefill = Prefill(0, 0, 0)
        self.timings: Mapping[str, Any] = {}
        self.cut: Cut | None = None
        self.warnings: tuple[str, ...] = ()
        self.searched: Searched | None = None
        self.documents: Mapping[str, Any] = {}
        self.cache: Mapping[str, Any] = {}
        self._n = n
        self._prompts: dict[int, tuple[int, int]] = {}
        self._n_completion = 0

    @property
    def choice(self) -> AnswerChoice:
        """The first choice, for protocols that have just one."""
        return self.choices.setdefault(0, AnswerChoice())

    @property
    def tokens(self) -> TokenCounts:
        """The tokens of all choices; the choices of one prompt share its tokens. Before the end only the prompt's."""
        if not self._prompts:
            return TokenCounts(self.prefill.total, 0, self.prefill.reused)
        prompts, cached = zip(*self._prompts.values(), strict=True)
        return TokenCounts(sum(prompts), self._n_completion, sum(cached))

    def add(self, event: Event) -> list[Change]:
        """Take the next event in; returns what it changes in the blocks of its choice."""
        return list(self.changes(event))

    def changes(self, event: Event) -> Iterator[Change]:
        """As `add`, change by change: a block that opens is still empty when its change is yielded."""
        match event:
            case Text():
                if event.text:
                    yield from self._grow(BlockKind.TEXT, event)
            case Thought():
                yield from self._grow(BlockKind.THOUGHT, event)
            case Call():
                yield from self._call(event)
            case Returned():
                yield from self._returned(event)
            case End():
                yield from self._finish(event)
            case Begin():
                self.about = event.about
            case Prefill():
                self.prefill = event
            case Searched():
                self.searched = event

    def trim(self) -> None:
        """Leave out a loop; for answers that are not streamed."""
        if self.cut is not None and self.cut.kept is not None:
            self.choice.trim(self.cut.kept)

    def _grow(self, kind: BlockKind, event: Text | Thought) -> Iterator[Change]:
        choice = self.choices.setdefault(event.index, AnswerChoice())
        block = choice.open
        if block is None or block.kind is not kind:
            block = Block(len(choice.blocks), kind)
            yield from self._open(choice, block)
        block.pieces.append(event.text)
        block.entries.append(event.logprobs)
        yield Change(Step.MORE, block, event.text, event.logprobs)

    def _call(self, event: Call) -> Iterator[Change]:
        choice = self.choices.setdefault(event.index, AnswerChoice())
        block, kind = choice.open, BlockKind.RUN if event.source else BlockKind.CALL
        if block is None or block.kind is not kind or block.position != event.position:
            call_id = event.id or f"call_{secrets.token_urlsafe(18)}"
            block = Block(len(choice.blocks), kind, event.name, call_id, event.position)
            yield from self._open(choice, block)
        if event.arguments:
            block.pieces.append(event.arguments)
            yield Change(Step.MORE, block, event.arguments)

    def _returned(self, event: Returned) -> Iterator[Change]:
        choice = self.choice
        if choice.open is not None and choice.open.kind is BlockKind.RUN:
            choice.open.returned = event
            yield from self._close(choice)

    def _open(self, choice: AnswerChoice, block: Block) -> Iterator[Change]:
        yield from self._close(choice)
        choice.blocks.append(block)
        choice.open = block
        yield Change(Step.OPEN, block)

    def _finish(self, end: End) -> Iterator[Change]:
        choice = self.choices.setdefault(end.index, AnswerChoice())
        choice.end = end
        self.cut = end.cut or self.cut
        self.warnings = end.warnings or self.warnings
        self.documents = end.documents or self.documents
        self.cache = end.cache or self.cache
        self.timings = end.timings or self.timings
        if end.tokens is not None:
            self._prompts[end.index // self._n] = (end.tokens.prompt, end.tokens.cached)
            self._n_completion += end.tokens.completion
        yield from self._close(choice)

    def _close(self, choice: AnswerChoice) -> Iterator[Change]:
        if choice.open is not None:
            yield Change(Step.CLOSE, choice.open)
            choice.open = None
