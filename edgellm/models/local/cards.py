"""Caches the few header values that `list` shows of each model, so that it need not open the models.

    read_cards(store.list(), settings.cards)["smollm2"].quant

A card is renewed when the file, edgellm's version or the CPU changes. Reading a header with 400,000 words takes a
tenth of a second, so ten models would make `list` slow.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgellm.errors import EdgellmError
from edgellm.files import write_atomically
from edgellm.models.local.store import InstalledModel
from edgellm.version import __version__


@dataclass(frozen=True, slots=True)
class Card:
    """`needed` is the memory in bytes at the default context of `n_ctx` tokens; 0 if the file cannot be read."""

    architecture: str
    quant: str
    n_params: int
    n_ctx_train: int
    n_ctx: int
    needed: int
    problem: str = ""


def read_cards(models: Sequence[InstalledModel], path: Path) -> dict[str, Card]:
    """Return the card of each model by name; missing cards are made and saved."""
    known = _load(path)
    cards: dict[str, Card] = {}
    kept: dict[str, dict[str, object]] = {}
    for model in models:
        key = _key(model)
        entry = known.get(str(model.path), {})
        card = _parse(entry.get("card")) if entry.get("key") == key else None
        cards[model.name] = card = card or _make(model)
        kept[str(model.path)] = {"key": key, "card": asdict(card)}
    if kept != known:
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(kept, indent=2).encode())
    return cards


def _make(model: InstalledModel) -> Card:
    from edgellm.models.fit.memory import RunPlan, choose_context, estimate
    from edgellm.models.fit.verdict import read_outline

    try:
        outline = read_outline(model.path, model.name)
    except EdgellmError as error:
        return Card("", "", 0, 0, 0, 0, problem=f"{error.what}: {error.why}".rstrip(": "))
    n_ctx = choose_context(outline.n_ctx_train, None)
    needed = estimate(outline, RunPlan(n_ctx)).total
    return Card(outline.architecture, outline.quant, outline.n_params, outline.n_ctx_train, n_ctx, needed)


def _key(model: InstalledModel) -> str:
    from edgellm.machine.cpu import detect

    status = model.path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}-{__version__}-{detect().key}"


def _load(path: Path) -> dict[str, dict[str, object]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(model): dict(entry) for model, entry in data.items()}
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return {}


def _parse(data: object) -> Card | None:
    try:
        card = Card(**data) if isinstance(data, dict) else None
    except TypeError:
        return None
    numbers = (card.n_params, card.n_ctx_train, card.n_ctx, card.needed) if card else ()
    return card if card and all(isinstance(number, int) for number in numbers) else None
