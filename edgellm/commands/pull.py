"""`edgellm pull MODEL`: fetch a model, check it, convert it where its recipe says so, and make it known by its name."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.adapters import plan_adapter, pull_adapter
from edgellm.models.fit.verdict import Fit
from edgellm.models.local.description import describe, first_use
from edgellm.models.local.store import InstalledModel
from edgellm.models.pull import PullPlan, make_plan, present
from edgellm.models.pull_adapter import AdapterPlan
from edgellm.models.recipe import ConvertOptions
from edgellm.ui import options
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.ui.model_names import model_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import size
from edgellm.workspace import Workspace, workspace


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file to fetch; `size` is bytes."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class PlannedPull:
    """What a pull would fetch; `size` and `missing` are bytes, `missing` is what is not here yet.

    `convert` says how the checkpoint becomes a GGUF file, null where nothing is converted; `fit` is null when the
    memory is not known before the model is here; `corrections` say what an unchecked recipe had wrong.
    """

    name: str
    source: str
    quant: str | None
    licence: str | None
    size: int
    missing: int
    files: list[PlannedFile]
    convert: ConvertOptions | None
    fit: Fit | None
    corrections: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: PullPlan, fit: Fit | None) -> PlannedPull:
        """The part of a plan that is shown."""
        files = [PlannedFile(file.name, file.size, file.sha256) for file in plan.files]
        known = plan.choice.file if plan.convert is None else None
        if not files and known is not None and known.size is not None:
            files = [PlannedFile(known.name, known.size, known.sha256)]
        return cls(
            plan.name, plan.source, plan.quant, plan.licence, plan.size, plan.missing, files, plan.convert, fit,
            plan.corrections,
        )  # fmt: skip

    @classmethod
    def of_adapter(cls, plan: AdapterPlan) -> PlannedPull:
        """The part of an adapter's plan that is shown."""
        files = [PlannedFile(file.name, file.size, file.sha256) for file in plan.files]
        return cls(plan.name, plan.source, None, plan.licence, plan.size, plan.missing, files, None, None)


def pull(
    model: Annotated[
        str,
        typer.Argument(
            help="A recipe's name, NAME:VARIANT, user/repo[:QUANT] on the Hub, or hf://...", autocompletion=model_names
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be fetched.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit. [default: the recipe's, or main]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Fetch again even if it is here already or memory seems too small.",
            envvar="EDGELLM_PULL_FORCE",
        ),
    ] = False,
    lora: Annotated[
        str | None,
        typer.Option(
            "--lora", metavar="USER/REPO", envvar="EDGELLM_PULL_LORA", help="Fetch this adapter for the model, too."
        ),
    ] = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> InstalledModel | PlannedPull:
    """Fetch a model and check its sha256.

    An interrupted pull resumes where it stopped. Checkpoints are converted and quantized as the recipe says.
    With --lora an adapter of the model is fetched and printed; the model itself, only if it is not here.

    \b
    Examples: edgellm pull smollm2
              edgellm pull qwen2.5-7b:Q8_0 --dry-run
              edgellm pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M
              edgellm pull hf://user/repo@v1.0/model.gguf
              edgellm pull smollm2 --lora user/dates-lora
    """
    here = workspace(offline=offline)
    if lora is not None:
        return _pull_adapter(here, model, lora, revision, dry_run=dry_run, force=force, output=output)
    choice = here.choice(model)
    installed = None if force or dry_run or revision else present(choice, here.store)
    fetched = installed is None
    if dry_run:
        with progress(quiet=output.silent) as report:
            plan, asked = here.plan(choice, revision=revision, report=report)
            fit = here.judge(plan, report=report)
        if not asked and not output.silent:
            note(f"{here.hub.host} cannot be reached: this is what the recipe knows, with the size as an estimate")
        _note_corrections(plan, quiet=output.silent)
        return render(output, PlannedPull.of(plan, fit), lambda planned: _print_plan(planned, plan))
    if installed is None:
        with progress(quiet=output.silent) as report:
            plan = make_plan(choice, here.hub, revision=revision, report=report)
            fit = here.judge(plan, report=report)
        _note_corrections(plan, quiet=output.silent)
        if not output.silent:
            note(f"{_headline(plan)}  {_verdict(fit)}".rstrip())
        with progress(quiet=output.silent) as report:
            installed = here.fetch(plan, fit, force=force, report=report)
    render(output, installed, lambda model: _print(model, fetched=fetched))
    if fetched and not output.silent:
        kind = describe(installed.name, installed, here.settings.usage, choice.recipe).kind
        note(f"next: {first_use(kind, installed.name)}")
    return installed


def _pull_adapter(
    here: Workspace, model: str, lora: str, revision: str | None, *, dry_run: bool, force: bool, output: QuietOutput
) -> InstalledModel | PlannedPull:
    """Fetch an adapter, or show what would be fetched; --revision is the adapter's."""
    with progress(quiet=output.silent) as report:
        plan = plan_adapter(here, lora, revision=revision, report=report)
    if dry_run:
        planned = PlannedPull.of_adapter(plan)
        return render(output, planned, lambda planned: _print_files(planned.files, _adapter_fields(plan)))
    if not output.silent:
        note("  ".join([plan.name, size(plan.size), plan.licence or "licence unknown"]))
    with progress(quiet=output.silent) as report:
        adapter = pull_adapter(here, model, plan, force=force, report=report)
    render(output, adapter, lambda adapter: _print(adapter, fetched=True, what="adapter"))
    if not output.silent:
        note(f"next: edgellm chat {shlex.quote(adapter.base or model)} --lora {shlex.quote(adapter.name)}")
    return adapter


def _adapter_fields(plan: AdapterPlan) -> list[tuple[str, str]]:
    return [
        ("adapter", plan.name),
        ("source", plan.source),
        ("licence", plan.licence or "unknown"),
        ("type", "PEFT, converted here" if plan.is_peft else "GGUF"),
        ("download", f"{size(plan.missing)} of {size(plan.size)}"),
    ]


def _note_corrections(plan: PullPlan, *, quiet: bool) -> None:
    for sentence in () if quiet else plan.corrections:
        note(sentence)


def _headline(plan: PullPlan) -> str:
    parts = [plan.name, str(plan.choice.source), plan.quant or "", size(plan.size), plan.licence or "licence unknown"]
    if plan.missing < plan.size:
        parts.append(f"{size(plan.size - plan.missing)} of it is here already")
    return "  ".join(part for part in dict.fromkeys(parts) if part)


def _verdict(fit: Fit | None) -> str:
    if fit is None:
        return ""
    verdict = "fits" if fit.fits else "does not fit"
    return f"needs {size(fit.need.total)}, {size(fit.available)} available: {verdict}"


def _print_plan(planned: PlannedPull, plan: PullPlan) -> None:
    _print_files(
        planned.files,
        [
            ("model", plan.name),
            ("source", plan.source),
            ("licence", plan.licence or "unknown"),
            ("type", f"{plan.quant or 'what fits best'}{', converted here' if plan.convert else ''}"),
            ("download", f"{size(plan.missing)} of {size(plan.size)}"),
            ("memory", _verdict(planned.fit) or "not known before it is here"),
        ],
    )


def _print_files(files: list[PlannedFile], fields: list[tuple[str, str]]) -> None:
    if files:
        rows = [(file.name, size(file.size), file.sha256 or "") for file in files]
        print_table(("FILE", "SIZE", "SHA256"), rows, right=(1,), spare=("SHA256",))
        print_line("")
    print_fields(fields)
    note("nothing is downloaded; next: the same without --dry-run")


def _print(installed: InstalledModel, *, fetched: bool, what: str = "model") -> None:
    print_fields(
        [
            (what, installed.name),
            ("file", str(installed.path)),
            ("sha256", installed.sha256 + ("  ok" if fetched else "  when it was pulled")),
        ]
    )
