"""Runs the checks of `edgellm doctor` on this machine, each with the command that fixes its problem.

for check in diagnose(settings, stack, store, recipe, hub): print(check.name, check.ok)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgellm.config_file import ConfigFile
from edgellm.engine.builds.builder import BUILD_SPACE
from edgellm.engine.builds.fetched_compiler import choose
from edgellm.engine.builds.installed import BUILD_COMMAND, find, obtain
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.toolchain import require
from edgellm.errors import EdgellmError, NetworkError, ToolMissing
from edgellm.machine import cgroup, memory
from edgellm.machine.cpu import core_counts, detect
from edgellm.models.hub.client import Hub
from edgellm.models.local.prompt_files import PromptFiles
from edgellm.models.local.store import Store
from edgellm.models.local.tune_records import TunePlace, all_records
from edgellm.models.recipe import Recipe
from edgellm.settings import OFFLINE, VARIABLES, Settings, is_true
from edgellm.units import size

PATCH = "patch"
REBUILD_COMMAND = f"{BUILD_COMMAND} --clean"
SMOKE_TOKENS = 16
SMOKE_SECONDS = 300
# Enough for the embedded model at its default context, with some reserve.
MEMORY_NEEDED = 600_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `fix` is a command, or empty when nothing needs fixing.

    Without what is not `needed`, edgellm still does what it can do with what is here.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


def diagnose(
    settings: Settings, stack: PatchStack, store: Store, recipe: Recipe, hub: Callable[[], Hub]
) -> Iterator[Check]:
    """Run all checks, each after those it depends on; `recipe` is the model for the test answer.

    `hub` returns the Hub to reach, or raises a `NetworkError`.
    """
    yield _cpu()
    yield _cores()
    yield _memory()
    yield _disk(settings)
    yield _network(settings, hub)
    engine = _engine(settings, stack)
    yield from _toolchain(settings, needed=not engine.ok)
    yield engine
    for patch in stack.patches:
        yield Check(PATCH, True, f"{patch.name}: {patch.subject} ({patch.reason})")
    yield _config(settings)
    yield _tunings(settings, stack)
    yield _prompts(settings)
    yield _answers(settings, stack, store, recipe)


def _config(settings: Settings) -> Check:
    path = settings.config_file
    try:
        config = ConfigFile.read(path)
    except EdgellmError as error:
        return Check("config", False, f"{error.what}: {error.why}", error.hint)
    return Check("config", True, f"{path}: {len([*config.places()])} values" if path.exists() else f"no {path}")


def _tunings(settings: Settings, stack: PatchStack) -> Check:
    """How many models run as `tune` found fastest, and whether what it kept can be read."""
    engine = find(settings, stack)
    found = [record for _, record in all_records(settings.tunings)]
    known = [record for record in found if record is not None]
    place = TunePlace.here(engine.record.stamp if engine else "")
    n_used = sum(not record.obstacle(place) for record in known)
    detail = f"{n_used} model{'' if n_used == 1 else 's'} run as edgellm tune found fastest"
    if n_used < len(known):
        detail += f", {len(known) - n_used} more were measured with another engine, machine or file"
    if len(known) < len(found):
        return Check("tune", False, f"{detail}; {len(found) - len(known)} damaged files", "edgellm prune", needed=False)
    return Check("tune", True, detail)


def _prompts(settings: Settings) -> Check:
    """How much the kept prompts take, and whether they can be read."""
    files = PromptFiles.of_size(settings.prompts, None)
    found = [kept for _, kept in files.all()]
    n_damaged = sum(kept is None for kept in found)
    count = len(found) - n_damaged
    detail = f"{count} kept{f', {size(files.nbytes)}' if found else ''}; up to {size(files.limit)} by default"
    if n_damaged:
        return Check("prompts", False, f"{detail}; {n_damaged} damaged files", "edgellm prune", needed=False)
    return Check("prompts", True, detail)


def _cpu() -> Check:
    cpu = detect()
    slow = cpu.machine in ("x86_64", "AMD64") and "avx2" not in cpu.features
    detail = f"{cpu.model} ({cpu.machine}): {' '.join(cpu.features) or 'no useful vector extensions'}"
    return Check("cpu", True, detail + ("; without AVX2 it will be slow" if slow else ""))


def _cores() -> Check:
    cores, logical = core_counts(), os.cpu_count() or 1
    usable = cores.fast
    quota = cgroup.cpu_quota()
    limits = f", cgroup quota {quota:.1f}" if quota is not None else ""
    load = os.getloadavg()[0]
    busy = f"; load {load:.1f}: other processes use part of them" if load > usable / 2 else ""
    slow = f" ({cores.physical - usable} slower cores beside them)" if cores.physical > usable else ""
    return Check("cores", True, f"{usable} usable of {logical} logical{slow}{limits}{busy}")


def _memory() -> Check:
    available, limit = memory.available(), cgroup.memory_limit()
    limits = f", cgroup limit {limit / 1e9:.2f} GB" if limit is not None else ""
    detail = f"{available / 1e9:.2f} GB available of {memory.total() / 1e9:.2f} GB{limits}"
    return Check(
        "memory", available >= MEMORY_NEEDED, detail, "" if available >= MEMORY_NEEDED else "close other programs"
    )


def _disk(settings: Settings) -> Check:
    place = settings.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    detail = f"{free / 1e9:.1f} GB free at {place}" + ("" if writable else ", not writable")
    ok = writable and free >= BUILD_SPACE
    return Check("disk", ok, detail, "" if ok else "export EDGELLM_HOME=/a/larger/disk")


def _network(settings: Settings, hub: Callable[[], Hub]) -> Check:
    """Whether models can be fetched; those that are here need no network."""
    if settings.offline:
        why = next((name for name in OFFLINE if is_true(os.environ.get(name))), "--offline")
        return Check("network", True, f"not used: {why} is set")
    try:
        return Check("network", True, hub().reach())
    except NetworkError as error:
        detail = f"{error.what}: {error.why}".rstrip(": ")
        return Check("network", False, detail, error.hint or "check HTTPS_PROXY", needed=False)


def _toolchain(settings: Settings, *, needed: bool) -> Iterator[Check]:
    """What compiles an engine; not `needed` where there is one."""
    try:
        toolchain = choose(settings)
    except ToolMissing as error:
        yield Check("compiler", False, f"{error.what} {error.why}".strip(), error.hint, needed=needed)
        return
    yield Check("compiler", True, toolchain.version)
    if toolchain.programs is None:  # a fetched one has ninja with it
        try:
            yield Check("make", True, require("make", "it drives the build", "make"))
        except ToolMissing as error:
            yield Check("make", False, error.what, error.hint, needed=needed)


def _engine(settings: Settings, stack: PatchStack) -> Check:
    """Whether there is an engine; the one in the wheel is tried on this CPU if that has not been done."""
    try:
        engine = obtain(settings, stack)
    except EdgellmError as error:
        return Check("engine", False, f"{error.what}: {error.why}", error.hint)
    if engine is None:
        return Check("engine", False, "not built for this CPU and these patches", BUILD_COMMAND)
    record = engine.record
    kind = f"; the wheel's {record.variant} variant: {record.choice}" if record.variant else "; compiled for this CPU"
    detail = f"llama.cpp {stack.upstream.commit} with patches {stack.stamp}, built {record.built}{kind}"
    return Check("engine", True, detail)


def _answers(settings: Settings, stack: PatchStack, store: Store, recipe: Recipe) -> Check:
    """Generate a few tokens in a child process, so that a crash of the engine becomes a result."""
    if find(settings, stack) is None:
        return Check("answer", False, "cannot be tried without an engine", BUILD_COMMAND)
    if store.find(recipe.name) is None or recipe.smoke is None:
        return Check("answer", False, f"cannot be tried without {recipe.name}", f"edgellm pull {recipe.name}")
    command = [sys.executable, "-m", "edgellm", "run", recipe.name, recipe.smoke.prompt]
    command += ["--temp", "0", "--max-tokens", str(SMOKE_TOKENS), "--json"]
    # What the user set for answers is no fault of the engine.
    plain = {name: value for name, value in os.environ.items() if name in VARIABLES or not name.startswith("EDGELLM_")}
    plain["EDGELLM_CONFIG"] = os.devnull
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            timeout=SMOKE_SECONDS, check=False, env=plain,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check("answer", False, f"no {SMOKE_TOKENS} tokens within {SMOKE_SECONDS} s", REBUILD_COMMAND)
    if result.returncode != 0:
        return Check("answer", False, *_failure(result))
    answer = json.loads(result.stdout)["data"]
    text, stats = answer["text"].strip(), answer["stats"]
    ok = recipe.smoke.expect in text
    detail = f"{recipe.name} says {text!r} at {stats['decode_rate']:.0f} tok/s"
    return Check("answer", ok, detail, "" if ok else REBUILD_COMMAND)


def _failure(result: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return what failed and how to fix it: the error's own hint, or rebuilding the engine."""
    if result.returncode < 0:
        return f"the engine crashed with {signal.Signals(-result.returncode).name}", REBUILD_COMMAND
    try:
        error = json.loads(result.stderr)["error"]
        return str(error["what"]), str(error["try"] or REBUILD_COMMAND)
    except (ValueError, KeyError, TypeError):
        return (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1], REBUILD_COMMAND
