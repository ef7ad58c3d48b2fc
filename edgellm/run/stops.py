"""Ends an answer before a text at which it is to stop; such a text is never given out, not even its beginning.

events = until_stop(generate(...), ("\n\n", "User:"))
"""

from __future__ import annotations

from collections.abc import Iterator

from edgellm.run.events import NO_TOKEN, End, Event, Looped, Text


def until_stop(events: Iterator[Event], stops: tuple[str, ...]) -> Iterator[Event]:
    """Pass events on until the text holds one of `stops`. What may be the beginning of one is held back."""
    held = ""
    pieces: list[str] = []  # the text of each token, and what was passed on with it
    passed: list[str] = []
    for event in events:
        match event:
            case Text(text, token, repeated):
                pieces.append(text)
                held += text
                cut = first_stop(held, stops, len(held))
                shown = held[: len(held) - _begun(held, stops)] if cut is None else held[:cut]
                held = held[len(shown) :]
                passed.append(shown)
                yield Text(shown, token, repeated)
                if cut is not None:
                    yield End("stop")
                    return
            case Looped(kept_tokens=kept):
                yield event
                held = "".join(pieces[:kept])[len("".join(passed[:kept])) :]
                del pieces[kept:], passed[kept:]
            case End() if held:
                yield Text(held, NO_TOKEN)
                yield event
            case _:
                yield event


def first_stop(text: str, stops: tuple[str, ...], n_new: int) -> int | None:
    """Where the earliest stop text begins that ends within the last `n_new` characters; None if there is none."""
    places = [text.find(stop, max(0, len(text) - n_new - len(stop) + 1)) for stop in stops]
    return min((place for place in places if place >= 0), default=None)


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    longest = min(len(text), max(map(len, stops)) - 1)
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
