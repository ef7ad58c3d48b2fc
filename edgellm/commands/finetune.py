"""`edgellm finetune MODEL DATA -o OUT`: train a model on the user's examples, and write what was trained."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.engine.adapters import Adapter
from edgellm.engine.quantize import Quantizer
from edgellm.errors import EdgellmError, UsageError
from edgellm.evaluation.compare import Comparison, compare
from edgellm.evaluation.suite import Suite, choose_suites
from edgellm.evaluations import EvaluationOptions, ModelEvaluation
from edgellm.exit_codes import ExitCode
from edgellm.machine.cpu import usable_cores
from edgellm.models.local.description import kind_of_file
from edgellm.models.local.registration import default_name, register
from edgellm.progress import Progress, Report
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.loader import LoadOptions
from edgellm.training.begin import begin, require_torch
from edgellm.training.options import FineTuneOptions, FineTuneRequest, Method
from edgellm.training.plan import FineTunePlan
from edgellm.training.result import FineTuned
from edgellm.ui import options
from edgellm.ui.console import is_terminal, note, print_fields
from edgellm.ui.evaluation_line import run_evaluation
from edgellm.ui.evaluation_tables import show_comparison
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_checkpoint import find_checkpoint
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.ui.training_line import sparkline, training_figures
from edgellm.units import count, duration, size
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.training.job import FineTuneJob

# Steps after which the time a step takes is worth saying.
_MEASURED_STEPS = 3
# Answers that an evaluation computes at once.
_SLOTS = 4


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """What a run takes, and what came out of it; `result` is null with --dry-run. `name` is the new model's.

    `comparison` sets it against its base, on the suites of --eval; null without.
    """

    plan: FineTunePlan
    result: FineTuned | None
    name: str | None
    comparison: Comparison | None = None


def finetune(
    model: Annotated[
        str,
        typer.Argument(help="A model's name, a GGUF file, a checkpoint directory, or user/repo of one on the Hub."),
    ],
    data: Annotated[Path, typer.Argument(help="Examples: .jsonl with chats, pairs or texts; or a plain text.")],
    file: Annotated[Path, typer.Option("--output", "-o", help="The GGUF file to write: a model, or an adapter.")],
    method: Annotated[
        Method | None,
        typer.Option("--method", help="What to train. [default: ternary, lora, or full for small float models]"),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=10_000, help="How often to see each example.")] = 3,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps, in place of --epochs. [default: by --epochs]")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option("--length", min=8, help="Tokens of a row. [default: the longest example, at most 512]"),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=4096, envvar="EDGELLM_FINETUNE_BATCH", help="Rows of a step.")
    ] = 8,
    learning_rate: Annotated[
        float | None, typer.Option("--rate", help="Learning rate. [default: 1e-4 to 1e-3, by method]")
    ] = None,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, max=1, help="AdamW's weight decay.")] = 0.0,
    rank: Annotated[int, typer.Option("--rank", min=1, max=1024, help="Rank of an adapter.")] = 16,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Strength of an adapter. [default: twice the rank]")
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0, max=0.9, help="Share of the examples to measure with, not train.")
    ] = 0.05,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31, envvar="EDGELLM_FINETUNE_SEED", help="Order and first values.")
    ] = 0,
    save_every: Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.")] = 50,
    eval_every: Annotated[
        int, typer.Option("--eval-every", min=1, help="Steps between measurements of the held-out loss.")
    ] = 50,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="A model of the same vocabulary to learn from, too.")
    ] = None,
    teacher_weight: Annotated[
        float, typer.Option("--teacher-weight", min=0, max=1, help="The teacher's part of the loss.")
    ] = 0.5,
    outtype: Annotated[
        str | None,
        typer.Option(
            "--outtype",
            envvar="EDGELLM_FINETUNE_OUTTYPE",
            help="For checkpoints: type of the matrices, as in convert. [default: the one that fits best]",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            envvar="EDGELLM_FINETUNE_HEAD",
            help="For checkpoints: type of embedding and head, as in convert. [default: f16]",
        ),
    ] = None,
    suites: Annotated[
        list[str] | None,
        typer.Option("--eval", metavar="SUITE", help="Compare with the base on this suite; can be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the examples, and show what it will take.")] = False,
    force: options.Force = False,
    threads: options.Threads = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> FineTuneResult:
    """Train a model on your own examples. Ternary models stay ternary; the file holds exactly what was trained.

    \b
    Examples: edgellm finetune smollm2 chats.jsonl -o dates.gguf
              edgellm finetune deepgrove/Bonsai book.txt -o mine.gguf --method ternary
              edgellm finetune bitnet-2b chats.jsonl -o mine.gguf --method scales
              edgellm finetune smollm2 chats.jsonl -o dates.gguf --eval json --resume
    """
    require_torch()
    target = file if file.suffix == ".gguf" else file.with_name(f"{file.name}.gguf")
    here = building_workspace(offline=offline, quiet=output.silent)
    name = _free_name(here, target)
    source, recipe = _source(here, model, quiet=output.silent)
    asked = choose_suites(suites, None, here.suite_directories) if suites else []
    if asked and source.is_dir():
        why = "it is no file that the engine can answer with"
        raise UsageError(
            "--eval does not compare with a checkpoint", why=why, hint="edgellm convert it, and name the file"
        )
    chosen = FineTuneOptions(
        method=method, epochs=epochs, steps=steps, length=length, batch=batch, rate=learning_rate,
        weight_decay=weight_decay, rank=rank, alpha=alpha, held_out=held_out, seed=seed, save_every=save_every,
        evaluate_every=eval_every, n_threads=threads,
        teacher=find_model(here, teacher, quiet=output.silent).path if teacher else None,
        teacher_weight=teacher_weight, outtype=outtype, head=head, resume=resume, force=force,
    )  # fmt: skip
    request = FineTuneRequest(source, data, target, chosen)
    codec = Quantizer(here.installed_engine.libraries, usable_cores())
    with progress(quiet=output.silent) as report:
        job = begin(request, here.engine(), codec, report=report)
    with job:
        if not output.as_json:
            _print_plan(job.plan)
        if dry_run:
            return render(output, FineTuneResult(job.plan, None, None), lambda _: None)
        result = _train(job, quiet=output.silent)
    registered = None
    if result.path is not None and not result.is_adapter:
        registered = register(result.path, here.store, name=name, base=recipe).name
    comparison, failed = None, None
    try:
        comparison = _compare(here, source, result, asked, threads, quiet=output.silent) if asked else None
    except (EdgellmError, KeyboardInterrupt) as error:  # the model is made: that is shown first
        failed = error
    found = render(
        output, FineTuneResult(job.plan, result, registered, comparison), lambda found: _print(found, model, output)
    )
    if failed is not None:
        raise failed
    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    return found


def _free_name(here: Workspace, target: Path) -> str:
    """The name that the new model will have; `UsageError` if another file has it."""
    name = default_name(target)
    taken = here.store.find(name)
    if taken is not None and taken.path != target.absolute():
        raise UsageError(
            f"there is a model {name} already", why=f"it is {taken.path}", hint="another -o, or edgellm rm"
        )
    return name


def _source(here: Workspace, model: str, *, quiet: bool) -> tuple[Path, str | None]:
    """The GGUF file or checkpoint directory that a name stands for, and the recipe whose settings it has."""
    if Path(model).is_dir():
        return Path(model), None
    if "/" not in model or model.endswith(".gguf") or here.store.find(model):
        local = find_model(here, model, quiet=quiet)
        return local.path, local.recipe.name if local.recipe else None
    with progress(quiet=quiet) as report:
        return find_checkpoint(here, model, report), None


def _compare(
    here: Workspace, base: Path, result: FineTuned, suites: list[Suite], n_threads: int | None, *, quiet: bool
) -> Comparison | None:
    """Ask both the suites; None for a run that was interrupted."""
    if result.path is None:
        return None
    load, raw = LoadOptions(n_threads=n_threads, n_slots=_SLOTS), kind_of_file(base) == "completion"
    adapted = replace(load, adapters=(Adapter(result.path),)) if result.is_adapter else load
    sides = (base if result.is_adapter else result.path, adapted), (base, load)
    after, before = (
        run_evaluation(
            ModelEvaluation(here, str(path), suites, EvaluationOptions(how, AnswerOptions(), raw)), quiet=quiet
        )
        for path, how in sides
    )
    return compare(after, before)


def _train(job: FineTuneJob, *, quiet: bool) -> FineTuned:
    """Run it with a live line; Ctrl-C ends it after a step, with a checkpoint."""
    with Interrupt() as interrupt, progress(quiet=quiet) as report:
        _watch(job, interrupt, report, quiet=quiet)
        return job.finish(report=report)


def _watch(job: FineTuneJob, interrupt: Interrupt, report: Report, *, quiet: bool) -> None:
    losses: list[float] = []
    held_out, seconds, tokens, chart = None, 0.0, 0, is_terminal(sys.stderr)
    for step in job.run(interrupt.requested, report=report):
        losses.append(step.loss)
        seconds, tokens = seconds + step.seconds, tokens + step.tokens
        held_out = held_out if step.held_out is None else step.held_out
        mean = seconds / len(losses)
        left = mean * (job.plan.n_steps - step.step)
        if len(losses) == _MEASURED_STEPS and left and not quiet:
            note(f"a step takes {duration(mean)}; {duration(left)} to go")
        figures = training_figures(losses, held_out, tokens / seconds, left, chart=chart)
        report(Progress("training", step.step, job.plan.n_steps, detail=figures))


def _print_plan(plan: FineTunePlan) -> None:
    need = plan.memory
    again = ", blocks computed twice to save memory" if plan.checkpointing else ""
    print_fields(
        [
            ("method", f"{plan.method.value}: {count(plan.n_trained)} of {count(plan.n_params)} weights are trained"),
            ("examples", f"{plan.n_examples:,} in {plan.n_rows:,} rows of {plan.length} tokens; {plan.n_learnt:,} of "
                         f"{plan.n_tokens:,} tokens are learnt; {plan.n_held_out:,} examples are held out"),
            ("steps", f"{plan.n_steps:,} of {plan.batch} rows, {plan.micro} at once{again}"),
            ("memory", f"{size(need.total)} of {size(plan.available)} available: weights {size(need.weights)}, "
                       f"gradients and optimizer {size(need.optimizer)}, activations {size(need.activations)}"),
        ]
    )  # fmt: skip


def _print(found: FineTuneResult, base: str, output: QuietOutput) -> None:
    result = found.result
    if result is None:
        return
    if result.interrupted:
        note(f"stopped after step {result.steps:,} of {result.n_steps:,}; the same command with --resume goes on")
        return
    before, after = result.held_out_before, result.held_out_after
    rows = [
        ("file", f"{result.path}  {size(result.path.stat().st_size if result.path else 0)}"),
        ("loss", f"{result.losses[0]:.3f} -> {result.losses[-1]:.3f}  {sparkline(result.losses)}"),
    ]
    if before is not None and after is not None:
        rows.append(("held out", f"{before:.3f} -> {after:.3f} nats a token, measured with what the file holds"))
    rows.append(("time", f"{duration(result.seconds)}, {size(result.peak_bytes)} of memory at most"))
    rows.append(("metrics", str(result.metrics)))
    print_fields(rows)
    if found.comparison is not None:
        show_comparison(found.comparison)
    if not output.quiet:
        for text in result.notes:
            note(f"note: {text}")
        note(f"next: {_next(found, base)}")


def _next(found: FineTuneResult, base: str) -> str:
    if found.name is not None:
        return f"edgellm chat {shlex.quote(found.name)}"
    path = shlex.quote(str(found.result.path)) if found.result else ""
    if Path(base).is_dir():
        return f"edgellm convert {shlex.quote(base)}, then edgellm chat NAME.gguf --lora {path}"
    return f"edgellm chat {shlex.quote(base)} --lora {path}"
