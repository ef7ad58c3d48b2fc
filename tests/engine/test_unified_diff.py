"""Patches are applied without git, with the same result, and as strictly."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.source import SourceTree
from edgellm.engine.builds.unified_diff import DoesNotApply, apply

OLD = b"one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
DIFF = b"""\
Subject: a change
---
diff --git a/f b/f
--- a/f
+++ b/f
@@ -1,3 +1,4 @@
 one
+one and a half
 two
 three
@@ -7,3 +8,2 @@ five
 seven
-eight
 nine
"""
NEW = b"one\none and a half\ntwo\nthree\nfour\nfive\nsix\nseven\nnine\n"


def applied(old: bytes, diff: bytes, tree: Path) -> bytes:
    (tree / "f").write_bytes(old)
    apply(diff, tree)
    return (tree / "f").read_bytes()


def test_hunks_are_applied(tmp_path: Path) -> None:
    assert applied(OLD, DIFF, tmp_path) == NEW


@pytest.mark.parametrize("before", [b"", b"// a line\n" * 40])
def test_a_hunk_is_found_where_the_text_has_moved(before: bytes, tmp_path: Path) -> None:
    assert applied(before + OLD, DIFF, tmp_path) == before + NEW


def test_of_several_places_the_nearest_is_meant(tmp_path: Path) -> None:
    block = b"begin\nx\nend\n"
    diff = b"+++ b/f\n@@ -5,3 +5,3 @@\n begin\n-x\n+y\n end\n"
    assert applied(block * 4, diff, tmp_path) == block + b"begin\ny\nend\n" + block * 2


def test_other_line_ends_and_a_last_line_without_one_stay(tmp_path: Path) -> None:
    diff = b"+++ b/f\n@@ -1,2 +1,2 @@\n-a\r\n+b\r\n c\n\\ No newline at end of file\n"
    assert applied(b"a\r\nc", diff, tmp_path) == b"b\r\nc"
    diff = b"+++ b/f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"
    assert applied(b"a", diff, tmp_path) == b"a\n"


def test_lines_are_put_in_without_any_context(tmp_path: Path) -> None:
    assert applied(b"a\nb\n", b"+++ b/f\n@@ -1,0 +2 @@\n+between\n", tmp_path) == b"a\nbetween\nb\n"


@pytest.mark.parametrize(
    ("old", "diff", "why"),
    [
        (OLD.replace(b"eight", b"EIGHT"), DIFF, "f: the text around line 7 is not what the patch expects"),
        (OLD, DIFF[:-20], "is not part of a hunk"),
        (OLD, DIFF.replace(b"b/f", b"b/g"), "g: No such file"),
        (b"a\r\nb\r\n", b"+++ b/f\n@@ -1,2 +1 @@\n a\n-b\n", "is not what the patch expects"),
    ],
    ids=["other text", "cut off", "no file", "line ends"],
)
def test_what_does_not_fit_is_refused(old: bytes, diff: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(DoesNotApply, match=why):
        applied(old, diff, tmp_path)
    assert (tmp_path / "f").read_bytes() == old


@pytest.mark.engine
@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git to compare with")
def test_git_takes_the_series_off_the_tree_and_it_comes_back_the_same(
    stack: PatchStack, source_tree: SourceTree, tmp_path: Path
) -> None:
    touched = sorted({name for patch in stack.patches for name in patch.touches})
    for name in touched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source_tree.llama_cpp / name, tmp_path / name)
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    for patch in reversed(stack.patches):
        command = ["git", "apply", "-R", "-p1", "--whitespace=nowarn", str(patch.path)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    changed = [name for name in touched if differs(tmp_path / name, source_tree.llama_cpp / name)]
    assert changed == touched
    for patch in stack.patches:
        apply(patch.path.read_bytes(), tmp_path)
    assert not [name for name in touched if differs(tmp_path / name, source_tree.llama_cpp / name)]


def differs(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()
