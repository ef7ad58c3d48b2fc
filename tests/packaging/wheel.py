"""Makes a wheel with the engine inside.

    python -m tests.packaging.wheel [--machine aarch64] [--directory dist]

The pure wheel, which hatchling builds, gets the portable engine as `edgellm/_engine`; `auditwheel` finds the oldest
glibc that the result runs with, and the wheel's name says so. The tiny model in it, and its logits from plain C
kernels, are what `edgellm/engine/builds/trial.py` tries each variant with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from edgellm.engine.builds import prebuilt
from edgellm.engine.builds.builder import TOOLS
from edgellm.engine.builds.installed import InstalledEngine, require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.toolchain import compiler
from edgellm.engine.builds.variants import variants
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import named_type
from edgellm.machine.child import Child, module
from edgellm.models.fit.shape import Shape
from edgellm.settings import Settings, resource_directory
from edgellm.ui.progress import progress
from edgellm.weights.random_model import write_random_model
from tests.packaging.portable import CROSS_PREFIX, Trees, compile_portable, shared_libraries

ROOT = Path(__file__).parent.parent.parent
# Small, and of all kinds: ternary matrices, a head in Q6_K, groups of heads.
TRIAL_SHAPE = Shape("bitnet", 2, 256, 512, 4, 2, 64, 512, 256, True, "I2_S", activation="relu2")


def main() -> None:
    """Compile what is missing, and write the wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default=os.uname().machine, choices=("x86_64", "aarch64"))
    parser.add_argument("--directory", type=Path, default=ROOT / "dist")
    asked = parser.parse_args()
    settings, stack = Settings.from_environment(), PatchStack.load(resource_directory("patches"))
    with progress() as report, tempfile.TemporaryDirectory() as scratch:
        trees = compile_portable(settings, stack, asked.machine, report)
        staged = Path(scratch, "_engine")
        assemble(staged, trees, asked.machine)
        add_bindings(staged, trees.source.bindings, settings, stack)
        native = require(settings, stack)
        write_model(staged / prebuilt.TRIAL_MODEL, native)
        write_truth(staged, native)
        record = engine_record(stack, asked.machine)
        (staged / prebuilt.RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
        wheel = write_wheel(Path(scratch), staged, asked.machine, asked.directory)
    sys.stdout.write(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB\n")


def assemble(staged: Path, trees: Trees, machine: str) -> None:
    """Copy libraries, variants, programs and licences out of the build trees, without symbols for debuggers."""
    baseline, *better = variants(machine)
    lib, programs = staged / "lib", staged / "bin"
    for directory in (lib, programs):
        directory.mkdir(parents=True)
    for library in (*shared_libraries(trees.whole), openmp(machine)):
        shutil.copy(library, lib / library.name)
    files = {baseline.name: prebuilt.CPU_LIBRARY} | {each.name: prebuilt.variant_file(each.name) for each in better}
    for name, file in files.items():
        shutil.copy(trees.variants[name] / "bin" / prebuilt.CPU_LIBRARY, lib / file)
    for name in TOOLS:
        shutil.copy(trees.whole / "bin" / name, programs / name)
    _run([f"{cross_prefix(machine)}strip", "--strip-unneeded", *map(str, (*lib.iterdir(), *programs.iterdir()))])
    llama_cpp = trees.source.llama_cpp
    shutil.copy(llama_cpp / "LICENSE", staged / "LICENSE.llama.cpp")
    shutil.copytree(llama_cpp / "licenses", staged / "licenses")


def cross_prefix(machine: str) -> str:
    """What the names of the compiler's programs begin with."""
    return "" if machine == os.uname().machine else CROSS_PREFIX[machine]


def openmp(machine: str) -> Path:
    """Return GCC's OpenMP library, which systems without a compiler lack."""
    command = [f"{cross_prefix(machine)}gcc", "-print-file-name=libgomp.so.1"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def add_bindings(staged: Path, bindings: Path, settings: Settings, stack: PatchStack) -> None:
    """Copy the Python bindings, with their licence out of the archive."""
    ignored = shutil.ignore_patterns("server", "__pycache__")
    shutil.copytree(bindings, staged / "python" / "llama_cpp", ignore=ignored)
    with tarfile.open(settings.downloads / stack.upstream.archive.filename) as archive:
        top = archive.next()
        assert top is not None
        licence = archive.extractfile(f"{top.name.split('/')[0]}/LICENSE.md")
        assert licence is not None
        (staged / "LICENSE.llama-cpp-python").write_bytes(licence.read())


def write_model(path: Path, engine: InstalledEngine) -> None:
    """Write the tiny model."""
    codec = Quantizer(engine.libraries, 1)
    write_random_model(path, TRIAL_SHAPE, weights=named_type("I2_S"), head=named_type("Q6_K"), codec=codec)


def write_truth(directory: Path, engine: InstalledEngine) -> None:
    """Write what the plain C kernels of an engine make of the tiny model in a directory."""
    environment = os.environ | {"EDGELLM_KERNELS": "scalar"}
    files = [str(directory / name) for name in (prebuilt.TRIAL_MODEL, prebuilt.TRIAL_LOGITS)]
    program = module("edgellm.engine.builds.trial", "--write", str(engine.directory), *files, env=environment)
    with Child(program, name="the truth") as child:
        child.everything()


def engine_record(stack: PatchStack, machine: str) -> dict[str, object]:
    """Return what becomes the wheel's engine.json."""
    return {
        "machine": machine,
        "variants": [variant.name for variant in variants(machine)],
        "version": stack.upstream.archive.version,
        "stamp": stack.stamp,
        "commit": stack.upstream.commit,
        "compiler": compiler(),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "build_seconds": 0.0,
        "patches": {patch.name: patch.subject for patch in stack.patches},
    }


def write_wheel(scratch: Path, staged: Path, machine: str, directory: Path) -> Path:
    """Build the pure wheel, add the engine, and name it for the oldest glibc."""
    run = [sys.executable, "-m"]
    _run([*run, "hatchling", "build", "--target", "wheel", "--directory", str(scratch / "pure")], cwd=ROOT)
    (pure,) = (scratch / "pure").glob("*.whl")
    _run([*run, "wheel", "unpack", "--dest", str(scratch / "tree"), str(pure)])
    (tree,) = (scratch / "tree").iterdir()
    staged.rename(tree / "edgellm" / "_engine")
    (metadata,) = tree.glob("*.dist-info/WHEEL")
    text = metadata.read_text(encoding="utf-8").replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    metadata.write_text(text.replace("py3-none-any", f"py3-none-linux_{machine}"), encoding="utf-8")
    _run([*run, "wheel", "pack", "--dest-dir", str(scratch), str(tree)])
    (plain,) = scratch.glob("*.whl")
    shown = _run([*run, "auditwheel", "show", str(plain)])
    tag = re.search(rf'"(manylinux_\d+_\d+_{machine})"', shown)
    if tag is None:
        sys.exit(f"auditwheel finds no tag for this wheel:\n{shown}")
    named = _run([*run, "wheel", "tags", "--remove", "--platform-tag", tag[1], str(plain)]).split()[-1]
    directory.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(scratch / named, directory / named))


def _run(command: list[str], cwd: Path | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    main()
