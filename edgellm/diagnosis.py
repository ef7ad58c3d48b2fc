"""What this machine has and lacks: the checks of `edgellm doctor`, each with the command that mends it.

for check in diagnose(settings, stack, store): print(check.name, check.ok)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from edgellm.engine.build import BUILD_SPACE
from edgellm.engine.installed import BUILD_COMMAND, find
from edgellm.engine.patches import PatchStack
from edgellm.engine.toolchain import compiler, require
from edgellm.errors import ToolMissing
from edgellm.machine import cgroup, memory
from edgellm.machine.cpu import detect, usable_cores
from edgellm.models.recipe import Recipe
from edgellm.models.store import Store
from edgellm.settings import Settings

REBUILD_COMMAND = f"{BUILD_COMMAND} --clean"
SMOKE_TOKENS = 16
SMOKE_SECONDS = 300
# The embedded model at its default context, with room to breathe.
MEMORY_WANTED = 600_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `fix` is a command, empty when there is nothing to do."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def diagnose(settings: Settings, stack: PatchStack, store: Store, recipe: Recipe) -> Iterator[Check]:
    """All checks in the order in which they build on each other; `recipe` is the model that is really run."""
    yield _cpu()
    yield _cores()
    yield _memory()
    yield _disk(settings)
    yield from _toolchain()
    yield _engine(settings, stack)
    for patch in stack.patches:
        yield Check("patch", True, f"{patch.name}: {patch.subject} ({patch.reason})")
    yield _answers(settings, stack, store, recipe)


def _cpu() -> Check:
    cpu = detect()
    slow = cpu.machine in ("x86_64", "AMD64") and "avx2" not in cpu.features
    detail = f"{cpu.model} ({cpu.machine}): {' '.join(cpu.features) or 'no vector extensions that matter'}"
    return Check("cpu", True, detail + ("; without AVX2 it will be slow" if slow else ""))


def _cores() -> Check:
    usable, logical = usable_cores(), os.cpu_count() or 1
    quota = cgroup.cpu_quota()
    limits = f", cgroup quota {quota:.1f}" if quota is not None else ""
    load = os.getloadavg()[0]
    busy = f"; load {load:.1f}: other work takes part of them" if load > usable / 2 else ""
    return Check("cores", True, f"{usable} to use of {logical} logical{limits}{busy}")


def _memory() -> Check:
    available, limit = memory.available(), cgroup.memory_limit()
    limits = f", cgroup limit {limit / 1e9:.2f} GB" if limit is not None else ""
    detail = f"{available / 1e9:.2f} GB available of {memory.total() / 1e9:.2f} GB{limits}"
    return Check(
        "memory", available >= MEMORY_WANTED, detail, "" if available >= MEMORY_WANTED else "close other programs"
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


def _toolchain() -> Iterator[Check]:
    try:
        yield Check("compiler", True, compiler())
    except ToolMissing as error:
        yield Check("compiler", False, f"{error.what} {error.why}".strip(), error.hint)
    for program, purpose in (("git", "it applies the patches"), ("make", "it drives the build")):
        try:
            yield Check(program, True, require(program, purpose, program))
        except ToolMissing as error:
            yield Check(program, False, error.what, error.hint)


def _engine(settings: Settings, stack: PatchStack) -> Check:
    engine = find(settings, stack)
    if engine is None:
        return Check("engine", False, "not built for this CPU and these patches", BUILD_COMMAND)
    upstream = stack.upstream
    return Check("engine", True, f"llama.cpp {upstream.commit} with patches {stack.stamp}, built {engine.record.built}")


def _answers(settings: Settings, stack: PatchStack, store: Store, recipe: Recipe) -> Check:
    """Generate a few tokens in a process of its own, where a crash of the engine is a finding."""
    if find(settings, stack) is None:
        return Check("answer", False, "cannot be tried without an engine", BUILD_COMMAND)
    if store.find(recipe.name) is None or recipe.smoke is None:
        return Check("answer", False, f"cannot be tried without {recipe.name}", f"edgellm pull {recipe.name}")
    command = [sys.executable, "-m", "edgellm", "run", recipe.name, recipe.smoke.prompt]
    command += ["--temp", "0", "--max-tokens", str(SMOKE_TOKENS), "--json"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SMOKE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("answer", False, f"no {SMOKE_TOKENS} tokens within {SMOKE_SECONDS} s", REBUILD_COMMAND)
    if result.returncode != 0:
        return Check("answer", False, *_failure(result))
    answer = json.loads(result.stdout)
    text, stats = answer["text"].strip(), answer["stats"]
    ok = recipe.smoke.expect in text
    detail = f"{recipe.name} says {text!r} at {stats['decode_rate']:.0f} tok/s"
    return Check("answer", ok, detail, "" if ok else REBUILD_COMMAND)


def _failure(result: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """What failed, and what mends it: the error's own advice, else a new engine."""
    if result.returncode < 0:
        return f"the engine crashed with {signal.Signals(-result.returncode).name}", REBUILD_COMMAND
    try:
        error = json.loads(result.stderr)["error"]
        return str(error["what"]), str(error["try"] or REBUILD_COMMAND)
    except (ValueError, KeyError, TypeError):
        return (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1], REBUILD_COMMAND
