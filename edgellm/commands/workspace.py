"""What the verbs work with: settings, patch stack, recipes, store and engine, each made when first asked for.

here = workspace(offline=offline)
here.store.get("smollm2")
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.errors import CorruptFile
from edgellm.settings import Settings, resource_directory

if TYPE_CHECKING:
    from edgellm.engine.llama import LlamaEngine
    from edgellm.engine.patches import PatchStack
    from edgellm.models.fit import Fit
    from edgellm.models.hub import Hub
    from edgellm.models.pull import PullPlan
    from edgellm.models.recipe import Choice, Recipe
    from edgellm.models.store import InstalledModel, Store
    from edgellm.progress import Report
    from edgellm.run.telemetry import Stats


class Workspace:
    """This user's edgellm."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def stack(self) -> PatchStack:
        """The patches that this edgellm carries."""
        from edgellm.engine.patches import PatchStack

        return PatchStack.load(resource_directory("patches"))

    @cached_property
    def recipe_directories(self) -> list[Path]:
        """Ours, then the user's."""
        return [resource_directory("recipes"), self.settings.config / "recipes"]

    @cached_property
    def store(self) -> Store:
        """The installed models."""
        from edgellm.models.store import Store

        return Store(self.settings.models)

    @property
    def hub_cache(self) -> Path:
        """The Hugging Face cache, which other tools share (HF_HUB_CACHE, HF_HOME); found without their library."""
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
        place = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
        return Path(os.path.expandvars(os.path.expanduser(place))).absolute()  # noqa: PTH111, as huggingface_hub does

    def engine(self) -> LlamaEngine:
        """The engine, loaded into this process; `EngineMissing` when there is none."""
        from edgellm.engine.installed import require
        from edgellm.engine.llama import LlamaEngine

        return LlamaEngine(require(self.settings, self.stack))

    @cached_property
    def hub(self) -> Hub:
        """The Hugging Face Hub, or the mirror that the environment names."""
        from edgellm.models.hub import Hub

        return Hub.from_environment(offline=self.settings.offline)

    def choice(self, name: str) -> Choice:
        """What there is to pull under a name; `ModelNotFound` suggests the nearest recipe."""
        from edgellm.models.recipe import recipe_names
        from edgellm.models.resolve import find_choice, not_found

        found = find_choice(name, self.recipe_directories)
        if found is None:
            raise not_found(name, recipe_names(self.recipe_directories))
        return found

    def fit(self, plan: PullPlan, *, report: Report) -> Fit | None:
        """Whether what a plan names will fit at the default context; None when nobody tells before it is here."""
        from edgellm.machine import memory
        from edgellm.models.elsewhere import offers, outline_of_plan
        from edgellm.models.fit import judge
        from edgellm.models.memory import RunPlan, choose_context
        from edgellm.models.recipe import load_recipes

        outline = outline_of_plan(plan, self.hub, report=report)
        if outline is None:
            return None
        recipes = load_recipes(self.recipe_directories).values()
        others = offers(recipes, instead_of=plan.name)
        return judge(outline, RunPlan(choose_context(outline.n_ctx_train, None)), memory.room(), others)

    def pull(self, plan: PullPlan, fit: Fit | None, *, force: bool, report: Report) -> InstalledModel:
        """Fetch what a plan names, and convert it if it says so.

        Raises:
            DoesNotFit: it would not fit into memory (unless `force`); nothing was downloaded but its header.
        """
        from edgellm.models.fit import refuse_unless_fitting
        from edgellm.weights.pulling import Pulling

        if fit is not None and not force:
            refuse_unless_fitting(fit)
        return Pulling(self.hub, self.store, self.settings, self.engine).pull(plan, force=force, report=report)

    @property
    def bindings(self) -> Path:
        """Where the engine's Python package lies; `EngineMissing` when there is no engine."""
        from edgellm.engine.installed import require

        return require(self.settings, self.stack).bindings

    def model_file(self, name: str, *, quiet: bool) -> tuple[Path, Recipe | None]:
        """The file that a model name stands for, pulled first if need be, and its recipe if there is one."""
        from edgellm.models.resolve import recipe_of, resolve
        from edgellm.models.store import InstalledModel

        found = resolve(name, self.store, self.recipe_directories)
        if isinstance(found, Path):
            return found, None
        if not isinstance(found, InstalledModel):
            return self._pulled(found, quiet=quiet).path, found.recipe
        if not found.is_whole:
            hint = f"edgellm pull --force {found.name}"
            raise CorruptFile(f"{found.path} is not whole", why=f"it should have {found.size} bytes", hint=hint)
        choice = recipe_of(found.name, self.recipe_directories)
        return found.path, choice.recipe if choice else None

    def _pulled(self, choice: Choice, *, quiet: bool) -> InstalledModel:
        from edgellm.engine.installed import require
        from edgellm.models.pull import make_plan
        from edgellm.ui.progress import progress

        require(self.settings, self.stack)  # before a download that would be of no use without an engine
        with progress(quiet=quiet) as report:
            plan = make_plan(choice, self.hub, report=report)
            return self.pull(plan, self.fit(plan, report=report), force=False, report=report)

    def used(self, path: Path, stats: Stats) -> None:
        """Remember when an installed model was used, and how fast it was, for `list`."""
        from edgellm.models.usage import record

        if any(model.path == path for model in self.store.all()):
            record(self.settings.usage, path, decode_rate=stats.decode_rate)


def workspace(*, offline: bool = False) -> Workspace:
    """The workspace that the environment and `--offline` describe."""
    settings = Settings.from_environment()
    return Workspace(replace(settings, offline=True) if offline else settings)


def piped_input() -> str:
    """What was piped into standard input; empty when it is a terminal or closed."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", errors="replace")
