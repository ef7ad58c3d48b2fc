"""`edgellm tune MODEL`: measure what runs a model fastest on this machine, and remember it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from edgellm.engine.builds.installed import find
from edgellm.errors import UsageError
from edgellm.files import locked
from edgellm.measure.tune.tune import SECONDS
from edgellm.measure.tune.tune import tune as measure
from edgellm.models.local import tune_records
from edgellm.models.local.tune_records import TunePlace
from edgellm.progress import Observer
from edgellm.ui import options
from edgellm.ui.console import note
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.model_names import model_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.ui.tune_tables import TunedModel, show_record, show_records
from edgellm.workspace import Workspace, workspace


def tune(
    model: Annotated[
        str | None, typer.Argument(help="A model's name, or the path of a GGUF file.", autocompletion=model_names)
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Only show what was found: of MODEL, or of all.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was found: of MODEL, or of all.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600, help="About how long to measure.")] = SECONDS,
    force: options.Force = False,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> TunedModel | tuple[TunedModel, ...]:
    """Measure what runs a model fastest on this machine, and remember it.

    Tries threads, for single tokens and for prompts, tokens per computation, and flash attention. run, chat, batch,
    serve, eval and bench then use what was fastest, unless an option says otherwise. Also measures what passes over
    several tokens cost, by which drafts are made. Takes about a minute.

    \b
    Examples: edgellm tune smollm2
              edgellm tune --show
              edgellm tune smollm2 --forget
    """
    if show and forget:
        raise UsageError("--show and --forget exclude each other", hint="leave one out")
    if show or forget:
        return _remembered(model, output, forget=forget)
    if model is None:
        raise UsageError("there is nothing to measure", hint="edgellm tune smollm2, or --show")
    here = building_workspace(offline=offline, quiet=output.silent)
    local = find_model(here, model, quiet=output.silent)
    place = here.tune_place()
    waiting = cache(lambda: note("waiting: another benchmark is running"))
    with ExitStack() as stack:
        stack.enter_context(locked(here.settings.cache / "bench.lock", waiting))
        interrupt, report = stack.enter_context(Interrupt()), stack.enter_context(progress(quiet=output.silent))
        watch = Observer(report, interrupt.requested)
        record = measure(local.path, local.label, place, seconds=seconds, force=force, watch=watch)
    tune_records.save(here.settings.tunings, record)
    here.remember_draft_costs(local.path, record)
    result = render(output, TunedModel(local.label, "", record), show_record)
    if not output.silent:
        note("remembered: run, chat, batch, serve, eval and bench use it; --no-tuned does not")
    return result


def _remembered(model: str | None, output: QuietOutput, *, forget: bool) -> tuple[TunedModel, ...]:
    """Show or forget what is remembered of a model, or of all; no engine is needed."""
    here = workspace()
    found = tuple(_known(here, model, quiet=output.silent))
    if forget:
        for path in _paths(here, model):
            path.unlink(missing_ok=True)
        return render(output, found, _show_forgotten)
    return render(output, found, lambda found: show_record(found[0]) if model and found else show_records(found))


def _known(here: Workspace, model: str | None, *, quiet: bool) -> Iterator[TunedModel]:
    names = {installed.path.absolute(): installed.name for installed in here.store.list()}
    engine = find(here.settings, here.stack)
    place = TunePlace.here(engine.record.stamp if engine else "")
    for path in _paths(here, model):
        try:
            record = tune_records.read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            if not quiet:
                note(f"{path} is damaged, and ignored; edgellm prune deletes it")
            continue
        name = model or names.get(record.model, str(record.model))
        yield TunedModel(name, record.obstacle(place), record)


def _paths(here: Workspace, model: str | None) -> list[Path]:
    """The files of records: a model's, or all."""
    directory = here.settings.tunings
    if model is None:
        return sorted(directory.glob("*.json"))
    local = here.local(model)
    return [tune_records.record_path(directory, local.path)] if local else []


def _show_forgotten(found: tuple[TunedModel, ...]) -> None:
    names = ", ".join(each.model for each in found)
    note(f"forgotten: {names}" if found else "there is nothing to forget")
