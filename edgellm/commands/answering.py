"""What `run` and `chat` share: sampling from options and recipe, loading with a bar, one answer on the screen."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgellm.engine.base import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from edgellm.commands.workspace import Workspace
    from edgellm.models.recipe import Recipe
    from edgellm.run.generation import Event
    from edgellm.run.loading import LoadedModel, LoadOptions
    from edgellm.run.structure import Structure
    from edgellm.run.telemetry import Stats


def choose_sampling(recipe: Recipe | None, seed: int | None, **asked: float | None) -> Sampling:
    """What the user asks for, else what the recipe recommends, else edgellm's defaults; the seed is always known."""
    recommended = recipe.sampling.model_dump(exclude_none=True) if recipe else {}
    chosen = {**recommended, **{name: value for name, value in asked.items() if value is not None}}
    return Sampling(**chosen, seed=secrets.randbits(31) if seed is None else seed)


def require_chat(here: Workspace, name: str) -> None:
    """Refuse a model whose recipe says that it does not chat, before it is downloaded or loaded."""
    from edgellm.errors import UsageError
    from edgellm.models.resolve import recipe_of

    choice = recipe_of(name, here.recipe_directories)
    recipe = choice.recipe if choice else None
    if recipe is None or recipe.chat:
        return
    if recipe.embedding:
        raise UsageError(f"{name} is not a chat model", why="it turns texts into vectors", hint=f"edgellm show {name}")
    why = "it was trained to continue text, not to answer"
    raise UsageError(f"{name} is not a chat model", why=why, hint=f"edgellm run --raw {name} 'Once upon a time'")


def choose_structure(here: Workspace, form: str | None, grammar: Path | None) -> Structure | None:
    """The form that the answer must have, from `--format` and `--grammar`."""
    from edgellm.run.structure import from_options

    return from_options(form, grammar, here.bindings) if form is not None or grammar is not None else None


def load_model(here: Workspace, path: Path, load_options: LoadOptions, *, quiet: bool) -> LoadedModel:
    """Load with a bar that only shows when it takes long enough to matter."""
    from edgellm.run.loading import load
    from edgellm.ui.progress import progress

    engine = here.engine()
    with progress(quiet=quiet) as report:
        return load(engine, path, load_options, report=report)


def stream_answer(events: Iterable[Event], loaded: LoadedModel, *, show: bool, live: bool) -> tuple[str, Stats]:
    """Print an answer as it comes (unless `show` is false); returns its text and numbers."""
    from edgellm.run.generation import Text
    from edgellm.run.telemetry import Meter
    from edgellm.ui.live import AnswerView

    meter = Meter(n_ctx=loaded.session.context.n_ctx, load_seconds=loaded.load_seconds)
    pieces: list[str] = []
    if not show:
        pieces = [event.text for event in meter.watch(events) if isinstance(event, Text)]
        return "".join(pieces), meter.stats()
    with AnswerView(meter, live=live) as view:
        for event in meter.watch(events):
            view.show(event)
            if isinstance(event, Text):
                pieces.append(event.text)
    return "".join(pieces), meter.stats()
