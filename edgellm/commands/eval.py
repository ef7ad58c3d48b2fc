"""`edgellm eval MODEL`: how good a model is here, and what changed against another one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from edgellm.benchmarks import run_benchmark
from edgellm.errors import DoesNotFit, UsageError
from edgellm.evaluation.compare import Comparison, compare
from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.harness.result import TaskOptions, TaskResult
from edgellm.evaluation.log import LogHeader, write_log
from edgellm.evaluation.rescore import Rescored, rescore
from edgellm.evaluation.score import BelowFloor, SuiteScore, below_floor
from edgellm.evaluation.suite import (
    DEFAULT_LIMIT,
    DEFAULT_SUITES,
    ListedSuite,
    choose_suites,
    known_suites,
    list_suites,
)
from edgellm.evaluations import EvaluationOptions, names_log, open_log, prepare, require_place
from edgellm.exit_codes import ExitCode
from edgellm.measure.bench.current import current_setting
from edgellm.measure.quality import Quality, QualityOptions, measure
from edgellm.measure.sample import read_sample
from edgellm.progress import Observer
from edgellm.report.evaluation import evaluation_page
from edgellm.report.report_file import ReportFile
from edgellm.report.task_scores import task_page
from edgellm.ui import options
from edgellm.ui.benchmark_table import print_benchmark
from edgellm.ui.console import note
from edgellm.ui.evaluation_line import run_evaluation
from edgellm.ui.evaluation_tables import percent, show_comparison, show_rescored, show_scores, show_suites
from edgellm.ui.flags import answer_options, load_options
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.model_names import model_names
from edgellm.ui.options import FormFlags, LengthFlags, LoadFlags, QuietOutput, SamplingFlags
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.ui.report import write_report
from edgellm.workspace import Workspace

# Perplexity and divergence are measured on so much of the text: enough for an error of a few per cent.
QUALITY_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What `eval` found: of which model, the scores, where the log is, and what was compared or asked for."""

    header: LogHeader
    suites: tuple[SuiteScore, ...]
    log: Path | None
    comparison: Comparison | None = None
    rescored: Rescored | None = None
    below: tuple[BelowFloor, ...] = ()


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's name, the path of a GGUF file, or a log.", autocompletion=model_names),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="A suite, NAME/CATEGORY, or a file; can be repeated. "
            f"[default: {DEFAULT_LIMIT} items each of {', '.join(DEFAULT_SUITES)}]",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Ask so many items of each suite.")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", "-a", metavar="MODEL", help="Compare item by item with this model or log."),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality/--no-quality", help="With --against, also perplexity and KL divergence.")
    ] = True,
    rescore_log: Annotated[
        Path | None,
        typer.Option("--rescore", metavar="LOG", help="Judge the answers of a log again."),
    ] = None,
    least: Annotated[
        float | None, typer.Option("--min", min=0.0, max=1.0, help="Exit code 1 if a suite's score is below.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the suites.")] = False,
    log: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="LOG", help="Where the log goes. [default: a dated name]")
    ] = None,
    report: options.ReportPath = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="Answers computed at once.")] = 4,
    raw: Annotated[bool, typer.Option("--raw", help="Ask without the chat template, for base models.")] = False,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="NAME,...",
            help="In place of suites: benchmarks by lm-eval's names, or `published` for those of the recipe.",
        ),
    ] = None,
    fewshot: Annotated[
        int | None,
        typer.Option("--fewshot", min=0, help="Examples before each question of --tasks. [default: as published]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="A directory with the data sets of --tasks. [default: the Hub]"),
    ] = None,
    chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Put the questions of --tasks into the chat template.")
    ] = False,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    length: LengthFlags,
    sampling: SamplingFlags,
    shown: QuietOutput,
) -> EvaluationResult | TaskResult | tuple[ListedSuite, ...]:
    """Ask suites of a model, judge its answers by programs, and keep a log. The same command goes on after a kill.

    Answers are drawn at temperature 0 with one seed, unless asked otherwise. --max-tokens lowers the limits
    of the suites.

    \b
    Examples: edgellm eval smollm2
              edgellm eval smollm2 --suite json --limit 20 --min 0.5
              edgellm eval small.gguf --against original.gguf
              edgellm eval smollm2 --suite json --report json.html
              edgellm eval --rescore answers.jsonl
              edgellm eval bonsai-0.5b --tasks published
              edgellm eval --list
    """
    report_file = ReportFile.at(report) if report else None
    here = building_workspace(offline=offline, quiet=shown.silent)
    if tasks is not None:
        own = here.settings.config / "tasks"
        how_run = TaskOptions(fewshot, limit, data, own if own.is_dir() else None, chat_template, offline)
        other = suite or against or rescore_log or log or least is not None
        return _benchmark(here, model, tasks, how_run, load, other, report_file, shown=shown)
    if model is None and (suite or limit or against or log or report_file or least is not None) and not rescore_log:
        raise UsageError("no model is named", hint="edgellm eval smollm2, or edgellm eval --list")
    if list_ or (model is None and rescore_log is None):
        return _listed(here, shown)
    if rescore_log is not None:
        if model is not None or against is not None:
            raise UsageError("--rescore takes a log and no model", hint=f"edgellm eval --rescore {rescore_log}")
        found, changes = _rescored(here, rescore_log, suite, log, shown=shown)
        result = EvaluationResult(found.header, found.suites, log, rescored=changes)
        return _end(shown, result, found, least, report_file)
    how = EvaluationOptions(load_options(load, None, slots), answer_options(sampling, length, FormFlags(), here), raw)
    sides = prepare(here, str(model), against, suite or (), limit, how, log)
    first, *base = [
        side if isinstance(side, Evaluation) else run_evaluation(side, quiet=shown.silent) for side in sides
    ]
    comparison = None
    if against is not None:
        comparison = compare(first, base[0])
        if comparison is None:
            raise UsageError(f"{model} and {against} have no item in common", why="there is nothing to compare")
        if quality:
            comparison = replace(comparison, quality=_quality(here, str(model), against, load, shown=shown))
    return _end(shown, EvaluationResult(first.header, first.suites, first.path, comparison), first, least, report_file)


def _listed(here: Workspace, shown: QuietOutput) -> tuple[ListedSuite, ...]:
    """All suites; a file that is none does not hide the others."""
    found = list_suites(here.suite_directories)
    return render(shown, found.suites, lambda _: show_suites(found))


def _benchmark(
    here: Workspace, model: str | None, tasks: str, how: TaskOptions, load: LoadFlags, other: object,
    report_file: ReportFile | None, *, shown: QuietOutput,
) -> TaskResult:  # fmt: skip
    """Run lm-eval's tasks; `other` is what only suites have, if it was asked for."""
    if model is None or other:
        why = "--suite, --against, --rescore, --min and --output are for suites" if other else "no model is named"
        raise UsageError("--tasks takes one model and no suite", why=why, hint=f"edgellm eval MODEL --tasks {tasks}")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UsageError("--tasks names no task", hint="--tasks published, or --tasks arc_easy,hellaswag")
    with progress(quiet=shown.silent) as report:
        found = run_benchmark(here, model, names, how, load_options(load, None), report=report)
    render(shown, found, print_benchmark)
    if report_file:
        page = task_page(found, current_setting(here.installed_engine))
        write_report(report_file, page, quiet=shown.silent)
    return found


def _quality(here: Workspace, model: str, base: str, load: LoadFlags, *, shown: QuietOutput) -> Quality | None:
    """Perplexity and divergence of two models; None where they cannot be measured, and for logs."""
    if names_log(model) or names_log(base):
        return None
    path, base_path = (find_model(here, name, quiet=shown.silent).path for name in (model, base))
    how = QualityOptions(n_tokens=QUALITY_TOKENS, n_threads=load.threads, force=load.force)
    try:
        with Interrupt() as interrupt, progress(quiet=shown.silent) as report:
            watch = Observer(report, interrupt.requested)
            return measure(here.engine(), path, read_sample(), how, against=base_path, watch=watch)
    except (UsageError, DoesNotFit) as error:
        if not shown.silent:
            note(f"perplexity and KL divergence are left out: {error.what}{f'; {error.why}' if error.why else ''}")
        return None


def _rescored(
    here: Workspace, path: Path, names: list[str] | None, log: Path | None, *, shown: QuietOutput
) -> tuple[Evaluation, Rescored]:
    """Judge a log again, and write it anew if that was asked for."""
    if log is not None:
        require_place(log)
    found, directories = open_log(path), here.suite_directories
    if names:
        suites = choose_suites(names, None, directories)
    else:
        suites = known_suites([suite.name for suite in found.suites], directories)
    with progress(quiet=shown.silent) as report:
        found, changes = rescore(found, suites, report=report)
    if log is not None:
        write_log(log, found.header, found.items)
    return found, changes


def _end(
    shown: QuietOutput,
    result: EvaluationResult,
    evaluation: Evaluation,
    least: float | None,
    report_file: ReportFile | None,
) -> EvaluationResult:
    """Show the result, and write the report; exit code 1 if a suite is below the floor."""
    below = () if least is None else below_floor(result.suites, least)
    result = replace(result, below=below)
    render(shown, result, lambda result: _show(result, evaluation, quiet=shown.quiet))
    if report_file:
        write_report(report_file, evaluation_page(evaluation, result.comparison), quiet=shown.silent)
    if below:
        if not shown.as_json:
            for each in below:
                note(f"below the floor: {each.suite} scores {percent(each.score)}, --min wants {percent(each.least)}")
        raise typer.Exit(ExitCode.FAILED)
    return result


def _show(result: EvaluationResult, evaluation: Evaluation, *, quiet: bool) -> None:
    show_scores(evaluation)
    if result.rescored is not None:
        show_rescored(result.rescored)
    if result.comparison is not None:
        show_comparison(result.comparison)
    if result.log is not None and not quiet:
        note(f"log: {result.log}")
        if result.comparison is None and result.rescored is None:
            note(f"next: edgellm eval {shlex.quote(str(result.log))} --against OTHER_MODEL, or --rescore the log")
