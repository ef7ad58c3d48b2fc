"""Where edgellm works: settings, patch stack, recipes, store, Hub and engine, each opened when it is first needed.

here = workspace(offline=True)
here.model("smollm2").path
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.errors import AccessDenied, CorruptFile, EngineMissing, NetworkError, UsageError
from edgellm.progress import Report, silent
from edgellm.settings import Settings, resource_directory

if TYPE_CHECKING:
    from edgellm.engine.builds.installed import InstalledEngine
    from edgellm.engine.builds.patches import PatchStack
    from edgellm.engine.llama import LlamaEngine
    from edgellm.machine.memory import Room
    from edgellm.models.fit.memory import RunPlan
    from edgellm.models.fit.outline import Outline
    from edgellm.models.fit.tuned_plan import Tuning
    from edgellm.models.fit.verdict import Fit
    from edgellm.models.hub.client import Hub
    from edgellm.models.local.inventory import ListedModel
    from edgellm.models.local.packed import PackedFiles
    from edgellm.models.local.prompt_files import PromptFiles
    from edgellm.models.local.store import InstalledModel, Store
    from edgellm.models.local.tune_records import TunePlace, TuneRecord
    from edgellm.models.pull import PullPlan
    from edgellm.models.recipe import Choice, Recipe
    from edgellm.run.draft_costs import DraftCosts
    from edgellm.run.draft_records import DraftRecords
    from edgellm.run.self_test import SelfTests
    from edgellm.run.telemetry import Stats


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file that is here: its name, or the path that it was asked for by, and its recipe if it has one."""

    name: str
    path: Path
    recipe: Recipe | None = None

    @property
    def label(self) -> str:
        """What answers call the model: its name, or that of its file without the ending."""
        return self.path.stem if self.name.endswith(".gguf") else self.name


Provide = Callable[["Workspace", bool], "InstalledEngine"]

# The engines of this process, by their directories: one library cannot be loaded twice.
_engines: dict[Path, LlamaEngine] = {}


class Workspace:
    """This user's edgellm.

    `provide` finds or builds the engine, with its tools if the second argument says so; by default one that is missing
    is an error.
    """

    def __init__(self, settings: Settings, provide: Provide | None = None) -> None:
        self.settings = settings
        self._provide = provide or _find_engine

    @cached_property
    def stack(self) -> PatchStack:
        """The patches that this edgellm carries."""
        from edgellm.engine.builds.patches import PatchStack

        return PatchStack.load(resource_directory("patches"))

    @cached_property
    def recipe_directories(self) -> list[Path]:
        """Ours, then the user's."""
        return [resource_directory("recipes"), self.settings.config / "recipes"]

    @property
    def suite_directories(self) -> list[Path]:
        """The evaluation suites: ours, then the user's."""
        from edgellm.evaluation.suite import OURS

        return [OURS, self.settings.config / "suites"]

    @cached_property
    def store(self) -> Store:
        """The installed models."""
        from edgellm.models.local.store import Store

        return Store(self.settings.models)

    @property
    def hub_cache(self) -> Path:
        """The Hugging Face cache, which other tools share (HF_HUB_CACHE, HF_HOME); found without their library."""
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
        place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
        return Path(os.path.expandvars(os.path.expanduser(place))).absolute()  # noqa: PTH111, as huggingface_hub does

    @property
    def installed_engine(self) -> InstalledEngine:
        """The engine on disk; `EngineMissing` when there is none."""
        return self._provide(self, False)

    @property
    def engine_with_tools(self) -> InstalledEngine:
        """The engine with llama-server and the other programs; `EngineMissing` when they are not built."""
        return self._provide(self, True)

    def engine(self) -> LlamaEngine:
        """The engine, loaded once into this process; `EngineMissing` when there is none."""
        from edgellm.engine.llama import LlamaEngine

        installed = self.installed_engine
        if installed.directory not in _engines:
            _engines[installed.directory] = LlamaEngine(installed, self.packed)
        return _engines[installed.directory]

    @cached_property
    def packed(self) -> PackedFiles:
        """The packed weights of large models."""
        from edgellm.models.local.packed import PackedFiles

        return PackedFiles.of_user(self.settings, self.stack.stamp)

    def judge_on_workers(
        self, outline: Outline, room: Room, workers: str, *, n_ctx: int | None, kv_type: str | None, n_threads: int,
        n_slots: int, n_here: int | None,
    ) -> Fit:  # fmt: skip
        """Which layers of a model would be on which of these workers, given as `--workers` has them.

        Raises:
            UsageError: an address is none.
            WorkerLost, WorkerRefused: a worker cannot be used.
            DoesNotFit: there is too little memory on all machines together.
        """
        from edgellm.engine.rpc.address import parse_addresses
        from edgellm.engine.rpc.hello import require_all
        from edgellm.models.fit.split_plan import judge_split, split_plan

        facts = require_all(parse_addresses(workers), self.stack.stamp)
        plan, split = split_plan(
            outline, room, facts, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, n_slots=n_slots, n_here=n_here
        )
        return judge_split(outline, plan, split)

    def prompt_files(self, limit: int | None) -> PromptFiles | None:
        """The prompts that are kept on disk, in `limit` bytes at most; None for none, or where they cannot be kept."""
        from edgellm.models.local.prompt_files import PromptFiles

        try:
            files = PromptFiles.of_size(self.settings.prompts, limit)
        except OSError:
            return None
        return files if files.limit else None

    @property
    def all_prompts(self) -> PromptFiles:
        """All prompts that are kept, for those who count or delete them."""
        from edgellm.models.local.prompt_files import PromptFiles

        return PromptFiles(self.settings.prompts, 0)

    @property
    def engine_name(self) -> str:
        """The name of the engine for this machine, whether it is built or not: version, patches and CPU."""
        from edgellm.engine.builds.installed import directory_name
        from edgellm.machine.cpu import detect

        return directory_name(self.stack, detect())

    def prompt_key(self, model: Path) -> Callable[[RunPlan, int], str]:
        """What the kept prompts of a model depend on, by the plan and the number of sequences."""
        from edgellm.models.fit.verdict import read_outline
        from edgellm.models.local.prompt_files import cache_key, model_key

        def key(plan: RunPlan, n_seq: int) -> str:
            cache = cache_key(read_outline(model), plan, n_seq, self.engine().kernels)
            return model_key(model, self.engine_name) + cache

        return key

    @cached_property
    def hub(self) -> Hub:
        """The Hugging Face Hub, or the mirror that the environment names."""
        from edgellm.models.hub.client import Hub

        return Hub.from_environment(offline=self.settings.offline)

    def choice(self, name: str) -> Choice:
        """What there is to pull under a name; `ModelNotFound` suggests the nearest recipe."""
        from edgellm.models.recipe import recipe_names
        from edgellm.models.resolve import find_choice, not_found

        found = find_choice(name, self.recipe_directories)
        if found is None:
            raise not_found(name, recipe_names(self.recipe_directories))
        return found

    def plan(self, choice: Choice, *, revision: str | None = None, report: Report = silent) -> tuple[PullPlan, bool]:
        """What a pull would fetch, and whether the Hub says so: where it cannot be reached, a recipe must do.

        Raises:
            NetworkError: it cannot be reached, and the recipe does not know the model's size.
            ModelNotFound, AccessDenied, ChecksumMismatch: as in `make_plan`.
        """
        from edgellm.models.hub.retry import Patience
        from edgellm.models.pull import make_plan
        from edgellm.models.recipe import HubSource

        known = self._plan_of_recipe(choice) if revision is None else None
        reachable = not isinstance(choice.source, HubSource) or self.hub.offline or self.hub.is_reachable()
        if known is not None and not reachable:
            return known, False
        hub = self.hub if reachable else replace(self.hub, patience=Patience(pauses=()))
        try:
            return make_plan(choice, hub, revision=revision, report=report), True
        except AccessDenied:
            raise
        except NetworkError:
            if known is None:
                raise
            return known, False

    def _plan_of_recipe(self, choice: Choice) -> PullPlan | None:
        """What a recipe alone says of a pull from the Hub; None when it does not know the model's size."""
        from edgellm.models.fit.remote_outline import outline_of_recipe
        from edgellm.models.pull import PullPlan

        outline, recipe = outline_of_recipe(choice), choice.recipe
        if outline is None or recipe is None:
            return None
        size = outline.n_bytes
        return PullPlan(choice, choice.quant, size, size, convert=choice.convert, licence=recipe.licence)

    def judge(self, plan: PullPlan, *, report: Report = silent) -> Fit | None:
        """Whether what a plan names will fit at the default context; None while only the download can tell."""
        from edgellm.machine import memory
        from edgellm.models.fit.memory import RunPlan, choose_context
        from edgellm.models.fit.remote_outline import offers, outline_of_plan
        from edgellm.models.fit.verdict import judge
        from edgellm.models.recipe import load_recipes

        outline = outline_of_plan(plan, self.hub, report=report)
        if outline is None:
            return None
        recipes = load_recipes(self.recipe_directories).values()
        others = offers(recipes, instead_of=plan.name)
        return judge(outline, RunPlan(choose_context(outline.n_ctx_train, None)), memory.room(), others)

    def fetch(self, plan: PullPlan, fit: Fit | None, *, force: bool = False, report: Report = silent) -> InstalledModel:
        """Download what a plan names, and convert it if it says so.

        Raises:
            DoesNotFit: it would not fit into memory (unless `force`); nothing was downloaded but its header.
        """
        from edgellm.models.fit.verdict import refuse_unless_fitting
        from edgellm.models.pull import install

        if fit is not None and not force:
            refuse_unless_fitting(fit)
        return install(plan, self.hub, self.store, self.settings, self._convert, force=force, report=report)

    def _convert(self, checkpoint: Path, plan: PullPlan, work: Path, report: Report) -> Path:
        from edgellm.weights.convert_and_quantize import convert_and_quantize

        return convert_and_quantize(checkpoint, plan, work, engine=self.engine, report=report)

    def pull(self, name: str, *, force: bool = False, report: Report = silent) -> InstalledModel:
        """The model of that name, from the Hub unless it is here and whole; `force` fetches it again.

        Raises:
            ModelNotFound: there is no such recipe or repository.
            DoesNotFit: it would not fit into memory (unless `force`).
            NetworkError, ChecksumMismatch, DiskFull, CorruptFile, UnsupportedModel.
        """
        from edgellm.models.pull import present

        choice = self.choice(name)
        installed = None if force else present(choice, self.store)
        return installed or self._pulled(choice, force=force, report=report)

    def _pulled(self, choice: Choice, *, force: bool = False, report: Report) -> InstalledModel:
        from edgellm.models.pull import make_plan

        plan = make_plan(choice, self.hub, report=report)
        return self.fetch(plan, self.judge(plan, report=report), force=force, report=report)

    def model(self, name: str, *, report: Report = silent) -> LocalModel:
        """The file that a model name or a path stands for, pulled first if need be.

        Raises:
            ModelNotFound: there is no such model.
            CorruptFile: its file does not have the size it was installed with.
            EngineMissing: it is not here, and there is no engine that could run it.
        """
        from edgellm.models.local.store import InstalledModel
        from edgellm.models.resolve import recipe_of, resolve

        found = resolve(name, self.store, self.recipe_directories)
        if isinstance(found, Path):
            return LocalModel(name, found)
        if not isinstance(found, InstalledModel):
            _ = self.installed_engine  # before a download that would be of no use without an engine
            try:
                return LocalModel(found.name, self._pulled(found, report=report).path, found.recipe)
            except NetworkError as error:
                what = f"{found.name} is not on this machine, and {error.what}"
                raise type(error)(what, why=error.why, hint=error.hint, **error.facts) from error
        if not found.is_whole:
            hint = f"edgellm pull --force {found.name}"
            raise CorruptFile(f"{found.path} is not whole", why=f"it should have {found.size} bytes", hint=hint)
        return LocalModel(found.name, found.path, recipe_of(found, self.recipe_directories))

    def local(self, name: str) -> LocalModel | None:
        """The file that a model name or a path stands for; None if it would have to be pulled first.

        Raises:
            ModelNotFound: there is no such model.
        """
        from edgellm.models.local.store import InstalledModel
        from edgellm.models.resolve import resolve

        found = resolve(name, self.store, self.recipe_directories)
        if isinstance(found, Path):
            return LocalModel(name, found)
        return LocalModel(found.name, found.path) if isinstance(found, InstalledModel) else None

    def require_chat(self, name: str, *, raw: bool = False) -> None:
        """Refuse a model whose recipe or file says that it does not chat, before it is downloaded or loaded.

        With `raw`, one that continues texts will do.
        """
        from edgellm.models.local.description import first_use

        if (kind := self._kind(name)) not in ("chat", None) and not (raw and kind == "completion"):
            raise UsageError(f"{name} is not a chat model", why=_PURPOSES[kind], hint=first_use(kind, name))

    def reranker(self, name: str, *, report: Report = silent) -> LocalModel:
        """The file of a reranker, pulled first if need be.

        Raises:
            UsageError: the model is something else.
            NetworkError and the other errors of `model`.
        """
        from edgellm.models.local.description import kind_of_file

        kind = self._kind(name) or kind_of_file(self.model(name, report=report).path)
        if kind != "rerank":
            hint = "a reranker such as bge-reranker-v2-m3, or --rerank none"
            raise UsageError(f"{name} is not a reranker", why=_PURPOSES[kind], hint=hint)
        return self.model(name, report=report)

    def _kind(self, name: str) -> str | None:
        """What a model is for, by its recipe or its file; None if only a file says it that is not here."""
        from edgellm.models.local.description import kind_of_file
        from edgellm.models.local.store import InstalledModel
        from edgellm.models.resolve import recipe_of, resolve

        found = resolve(name, self.store, self.recipe_directories)
        if isinstance(found, Path):
            return kind_of_file(found)
        if isinstance(found, InstalledModel):
            recipe = recipe_of(found, self.recipe_directories)
            return recipe.kind if recipe else kind_of_file(found.path)
        return found.recipe.kind if found.recipe else None

    def models(self) -> list[ListedModel]:
        """All installed models by name, with what is known of them."""
        from edgellm.models.local.inventory import inventory

        return inventory(self.store, self.settings)

    @property
    def self_tests(self) -> SelfTests:
        """What the self-test of the installed engine found in each model file."""
        from edgellm.run.self_test import SelfTests

        return SelfTests(self.settings.self_tests, self.installed_engine.record.stamp)

    def tune_place(self) -> TunePlace:
        """The installed engine on this machine: where what `tune` found holds."""
        from edgellm.models.local.tune_records import TunePlace

        return TunePlace.here(self.installed_engine.record.stamp)

    def tuning(self, path: Path) -> Tuning | None:
        """What runs a model file fastest here, if `tune` has measured it; a record that does not hold is ignored."""
        from edgellm.models.local.tune_records import known_tuning

        return known_tuning(self.settings.tunings, path, self.installed_engine.record.stamp)

    def draft_costs(self, path: Path, n_threads: int) -> DraftCosts:
        """What passes over several tokens of a model file cost here, as far as it is known."""
        return self._draft_records.costs(path, n_threads)

    def keep_draft_costs(self, path: Path, n_threads: int, costs: DraftCosts) -> None:
        """Remember what was learnt of them."""
        self._draft_records.keep_learnt(path, n_threads, costs)

    def remember_draft_costs(self, path: Path, record: TuneRecord) -> None:
        """Remember what `tune` measured of them, in place of what was learnt."""
        from edgellm.run.draft_costs import DraftCosts

        with contextlib.suppress(ValueError):
            empty, full = record.draft_costs
            self._draft_records.keep(path, record.tuning.n_threads, DraftCosts((empty, full)))

    @property
    def _draft_records(self) -> DraftRecords:
        from edgellm.run.draft_records import DraftRecords

        return DraftRecords(self.settings.draft_costs, self.tune_place())

    def used(self, path: Path, stats: Stats) -> None:
        """Remember when an installed model was used, and how fast it was, for `list`."""
        from edgellm.models.local.usage import record

        if any(model.path == path for model in self.store.all()):
            record(self.settings.usage, path, decode_rate=stats.decode_rate)


_PURPOSES = {
    "chat": "it writes answers",
    "completion": "it was trained to continue text, not to answer",
    "embedding": "it turns texts into vectors",
    "rerank": "it says how well texts answer a query",
}


def _find_engine(here: Workspace, tools: bool) -> InstalledEngine:
    from edgellm.engine.builds.installed import require

    return require_tools(here) if tools else require(here.settings, here.stack)


def require_tools(here: Workspace) -> InstalledEngine:
    """The engine if it has its tools; `EngineMissing` if not."""
    from edgellm.engine.builds.builder import has_tools
    from edgellm.engine.builds.installed import require

    engine = require(here.settings, here.stack)
    if has_tools(engine):
        return engine
    why = "it is compiled on demand, in three to six minutes"
    raise EngineMissing("llama-server is not built", why=why, hint="edgellm engine build --tools")


def workspace(*, offline: bool = False, provide: Provide | None = None) -> Workspace:
    """The workspace that the environment and `--offline` describe; `provide` is that of `Workspace`."""
    settings = Settings.from_environment()
    return Workspace(replace(settings, offline=True) if offline else settings, provide)
