"""`edgellm pull MODEL`: fetch a model, check it, convert it where its recipe says so, and make it known by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.models.fit import Fit
    from edgellm.models.pull import PullPlan
    from edgellm.models.recipe import Choice
    from edgellm.models.store import InstalledModel


def pull(
    model: Annotated[
        str,
        typer.Argument(
            help="A recipe's name, NAME:VARIANT, user/repo[:QUANT] on the Hub, or hf://...", autocompletion=model_names
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be fetched.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit. [default: the recipe's, or main]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Fetch again although it is here, and although memory seems too small.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Fetch a model and check its sha256.

    A pull that was interrupted goes on where it was. Checkpoints are converted and quantized as the recipe says.

    \b
    Examples: edgellm pull smollm2
              edgellm pull qwen2.5-7b:Q8_0 --dry-run
              edgellm pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M
              edgellm pull hf://user/repo@v1.0/model.gguf
    """
    from edgellm.models.pull import make_plan, present
    from edgellm.ui.console import note, print_json
    from edgellm.ui.progress import progress

    here = workspace(offline=offline)
    choice = here.choice(model)
    installed = None if force or dry_run or revision else present(choice, here.store)
    fetched = installed is None
    if installed is None:
        with progress(quiet=quiet or as_json) as report:
            plan = make_plan(choice, here.hub, revision=revision, report=report)
            fit = here.fit(plan, report=report)
        if dry_run:
            print_json(_described(plan, fit)) if as_json else _show_plan(plan, fit)
            return
        if not quiet and not as_json:
            note(f"{_headline(plan)}  {_verdict(fit)}".rstrip())
        with progress(quiet=quiet or as_json) as report:
            installed = here.pull(plan, fit, force=force, report=report)
    if as_json:
        print_json(installed)
    else:
        _show(installed, choice, fetched=fetched, quiet=quiet)


def _headline(plan: PullPlan) -> str:
    from edgellm.ui.units import size

    parts = [plan.name, str(plan.choice.source), plan.quant or "", size(plan.size), plan.licence or "licence unknown"]
    if plan.missing < plan.size:
        parts.append(f"{size(plan.size - plan.missing)} of it is here already")
    return "  ".join(part for part in dict.fromkeys(parts) if part)


def _verdict(fit: Fit | None) -> str:
    from edgellm.ui.units import size

    if fit is None:
        return ""
    verdict = "fits" if fit.fits else "does not fit"
    return f"needs {size(fit.need.total)}, {size(fit.available)} available: {verdict}"


def _described(plan: PullPlan, fit: Fit | None) -> dict[str, object]:
    """The JSON form of a plan."""
    return {
        "name": plan.name,
        "source": plan.source,
        "quant": plan.quant,
        "licence": plan.licence,
        "size": plan.size,
        "missing": plan.missing,
        "files": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in plan.files],
        "convert": plan.convert.model_dump(exclude_none=True) if plan.convert else None,
        "fit": fit,
    }


def _show_plan(plan: PullPlan, fit: Fit | None) -> None:
    from edgellm.ui.console import note, print_fields, print_table
    from edgellm.ui.units import size

    if plan.files:
        rows = [(file.name, size(file.size), file.sha256 or "") for file in plan.files]
        print_table(("FILE", "SIZE", "SHA256"), rows, right=(1,))
        typer.echo()
    print_fields(
        [
            ("model", plan.name),
            ("source", plan.source),
            ("licence", plan.licence or "unknown"),
            ("type", f"{plan.quant or 'what fits best'}{', converted here' if plan.convert else ''}"),
            ("download", f"{size(plan.missing)} of {size(plan.size)}"),
            ("memory", _verdict(fit) or "not known before it is here"),
        ]
    )
    note("nothing is downloaded; next: the same without --dry-run")


def _show(installed: InstalledModel, choice: Choice, *, fetched: bool, quiet: bool) -> None:
    from edgellm.ui.console import note, print_fields

    print_fields(
        [
            ("model", installed.name),
            ("file", str(installed.path)),
            ("sha256", installed.sha256 + ("  ok" if fetched else "  when it was pulled")),
        ]
    )
    if fetched and not quiet:
        note(f"next: {_next(installed.name, choice)}")


def _next(name: str, choice: Choice) -> str:
    if choice.recipe is not None and choice.recipe.embedding:
        return f"edgellm show {name}"
    return f"edgellm run --raw {name} PROMPT" if choice.chat is False else f"edgellm chat {name}"
