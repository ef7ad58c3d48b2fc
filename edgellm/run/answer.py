"""An answer while it is generated and once it is whole: pieces of text from the events, and the numbers at the end.

stream = AnswerStream(session.answer(turn, sampling, limits), Meter(n_ctx=4096), sampling=sampling)
for piece in stream: print(piece, end="")
stream.answer.finish_reason
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgellm.engine.sampling import Sampling
from edgellm.run.events import Event, Looped, Returned, Text
from edgellm.run.telemetry import Meter, Stats

if TYPE_CHECKING:
    from edgellm.run.structure import Structure


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    `finish_reason` is `stop` (the model ended it), `length` (max_tokens), `time` (max_seconds), `context` (it is full),
    `repetition` (it went round in circles; the text ends before that) or `interrupted`. `calls` are what the tools
    returned that were called for it.
    """

    text: str
    finish_reason: str
    stats: Stats
    calls: tuple[Returned, ...] = ()

    def __str__(self) -> str:
        return self.text


class AnswerStream:
    """An answer under way: iterate over it for pieces of text, or read `answer` for the whole.

    Nothing is computed before the first piece is asked for. Leaving the loop early, or `close`, ends the answer with
    what there is. A repetition that was already given out is not part of `answer.text`. `sampling` says how the answer
    is drawn, the seed included.
    """

    def __init__(
        self,
        events: Generator[Event, None, None],
        meter: Meter,
        *,
        sampling: Sampling,
        structure: Structure | None = None,
        on_end: Callable[[Stats], None] = lambda _: None,
    ) -> None:
        self.meter = meter
        self.sampling = sampling
        self._structure = structure
        self._on_end = on_end
        self._pieces: list[str] = []
        self._calls: list[Returned] = []
        self._stats: Stats | None = None
        self._events = self._read(events)

    def _read(self, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
        try:
            for event in self.meter.watch(events):
                match event:
                    case Text(text):
                        self._pieces.append(text)
                    case Looped(kept_tokens=kept):
                        del self._pieces[kept:]
                    case Returned():
                        self._calls.append(event)
                yield event
        finally:
            events.close()
            self._stats = self.meter.stats()
        self._on_end(self._stats)

    def events(self) -> Iterator[Event]:
        """The engine's own events, for a display that shows more than text."""
        return self._events

    def __iter__(self) -> Iterator[str]:
        """Pieces of text, none of them empty.

        Raises:
            AnswerMismatch: the answer is whole and does not have the form that was asked for.
            PromptTooLong, DoesNotFit, EngineError: it cannot be generated.
        """
        try:
            for event in self._events:
                if isinstance(event, Text) and event.text:
                    yield event.text
        finally:
            self.close()
        self.check()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer; what is still to be generated is waited for. The form is not checked."""
        for _ in self._events:
            pass
        stats = self._stats or self.meter.stats()
        if not stats.finish_reason:
            stats = replace(stats, finish_reason="interrupted")
        return Answer(self.text, stats.finish_reason, stats, tuple(self._calls))

    def check(self) -> None:
        """Raise `AnswerMismatch` unless the whole answer has the form that was asked for; one cut short may not."""
        if self._structure and self.answer.finish_reason != "interrupted":
            self._structure.check(self.text)

    def close(self) -> None:
        """End the answer here; closing twice does nothing."""
        self._events.close()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
