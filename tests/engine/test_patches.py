"""The rules of the patch stack, checked for every patch in the series."""

import re
import shutil
from pathlib import Path

import pytest

from edgellm.engine.builds.patches import NATIVE, REASONS, Patch, PatchStack
from edgellm.engine.builds.source import SourceTree
from edgellm.errors import PatchFailed


def touched_by(patch: Patch) -> set[str]:
    return set(re.findall(r"^\+\+\+ b/(.+)$", patch.path.read_text(), re.MULTILINE))


def test_series_and_directory_agree(stack: PatchStack) -> None:
    assert {path.name for path in stack.directory.glob("*.patch")} == {patch.name for patch in stack.patches}


def test_every_header_is_honest(stack: PatchStack) -> None:
    for patch in stack.patches:
        assert patch.reason in REASONS, patch.name
        assert set(patch.touches) == touched_by(patch), patch.name
        assert not patch.name[0].isdigit(), patch.name


def test_the_readme_lists_every_patch_and_every_native_source(stack: PatchStack) -> None:
    readme = (stack.directory / "README.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE))
    sources = {path.relative_to(stack.directory).as_posix() for path in stack.native_sources}
    assert named == {patch.name for patch in stack.patches} | sources


def test_stamp_changes_with_patch_series_pin_and_source(stack: PatchStack, tmp_path: Path) -> None:
    copy = tmp_path / "patches"
    shutil.copytree(stack.directory, copy)
    stamps = {PatchStack.load(copy).stamp}
    assert stamps == {stack.stamp}
    for name in ("UPSTREAM", "series", stack.patches[0].name, "native/stamp.cpp"):
        with (copy / name).open("a") as file:
            file.write("\n")
        stamps.add(PatchStack.load(copy).stamp)
    assert len(stamps) == 5


def test_a_header_without_a_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.patch"
    path.write_text("Subject: x\nReason: temporary\nForwarded: no\nTouches: a\n---\n")
    with pytest.raises(PatchFailed, match=r"bad\.patch has no header field Drop-When"):
        Patch.load(path)


def test_a_series_that_names_an_absent_patch(stack: PatchStack, tmp_path: Path) -> None:
    copy = tmp_path / "patches"
    shutil.copytree(stack.directory, copy)
    (copy / "series").write_text("absent.patch\n")
    with pytest.raises(PatchFailed, match=r"absent\.patch cannot be read"):
        PatchStack.load(copy)


@pytest.mark.engine
def test_the_built_tree_holds_patches_native_sources_and_stamp(stack: PatchStack, source_tree: SourceTree) -> None:
    tree = source_tree.llama_cpp
    assert stack.stamp in (tree / NATIVE / "stamp.h").read_text()
    for patch in stack.patches:
        added = [line[1:] for line in patch.path.read_text().splitlines() if re.match(r"\+(?!\+\+ )", line)]
        patched = "".join((tree / name).read_text() for name in patch.touches)
        assert all(line in patched for line in added), patch.name
