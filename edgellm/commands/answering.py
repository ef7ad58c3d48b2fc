"""What `run` and `chat` share: sampling from options and recipe, loading with a bar, one answer on the screen."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from edgellm.engine.base import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from edgellm.commands.workspace import Workspace
    from edgellm.models.recipe import Recipe
    from edgellm.run.generation import Event, Limits
    from edgellm.run.loading import LoadedModel, LoadOptions
    from edgellm.run.loops import Loop
    from edgellm.run.structure import Structure
    from edgellm.run.telemetry import Stats
    from edgellm.ui.options import LoopAction


def choose_sampling(recipe: Recipe | None, seed: int | None, **asked: float | None) -> Sampling:
    """What the user asks for, else what the recipe recommends, else edgellm's defaults; the seed is always known."""
    recommended = recipe.sampling.model_dump(exclude_none=True) if recipe else {}
    chosen = {**recommended, **{name: value for name, value in asked.items() if value is not None}}
    return Sampling(**chosen, seed=secrets.randbits(31) if seed is None else seed)


def choose_loading(
    recipe: Recipe | None,
    *,
    ctx_size: int | None,
    threads: int | None,
    system: str | None,
    force: bool,
    kv: str | None,
    max_memory: str | None,
) -> LoadOptions:
    """How to open a model: what the user asks for, and for system message and chat template what the recipe has."""
    from edgellm.run.loading import LoadOptions
    from edgellm.ui.units import parse_size

    if system is None and recipe is not None:
        system = recipe.system
    cap = parse_size(max_memory, "--max-memory") if max_memory else None
    return LoadOptions(ctx_size, threads, system, force, kv, cap, recipe.chat_template if recipe else None)


def choose_limits(max_tokens: int, max_time: float | None, loop_guard: bool, on_loop: LoopAction) -> Limits:
    """When an answer ends, from the options."""
    from edgellm.run.generation import Limits
    from edgellm.ui.options import LoopAction

    return Limits(max_tokens, max_seconds=max_time, loop_guard=loop_guard, retry=on_loop is LoopAction.RETRY)


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


def stream_answer(
    events: Iterable[Event], loaded: LoadedModel, *, show: bool, live: bool, limits: Limits
) -> tuple[str, Stats]:
    """Print an answer as it comes (unless `show` is false); returns its text and numbers.

    The text that is returned ends where a loop began. On a terminal the loop stays on the screen; elsewhere an answer
    that may be tried again is printed at its end.
    """
    from edgellm.run.generation import Looped, Text
    from edgellm.run.telemetry import Meter
    from edgellm.ui.console import is_terminal, note
    from edgellm.ui.live import AnswerView

    meter = Meter(n_ctx=loaded.session.context.n_ctx, load_seconds=loaded.load_seconds)
    pieces: list[str] = []
    delayed = show and limits.retry and not is_terminal(sys.stdout)
    with AnswerView(meter, live=live) if show and not delayed else nullcontext() as view:
        for event in meter.watch(events):
            if view:
                view.show(event)
            match event:
                case Text(text):
                    pieces.append(text)
                case Looped(loop, kept, retrying):
                    del pieces[kept:]
                    if show:
                        if view:
                            view.pause()
                        note(f"[{'going on from before the loop' if retrying else 'stopped'}: {_described(loop)}]")
    text = "".join(pieces)
    if delayed:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return text, meter.stats()


def _described(loop: Loop) -> str:
    from edgellm.ui.console import printable

    shown = printable(loop.shown).strip()
    what = f'"{shown}"' if shown else "a blank"
    return f"{what} came {loop.repetitions} times"
