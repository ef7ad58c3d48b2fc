"""Kept prompts: what is found, what is refused, what goes first, and what a kill leaves behind."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local import prompt_files
from edgellm.models.local.prompt_files import (
    LEAST_TOKENS,
    KeptPrompt,
    PromptFiles,
    cache_key,
    model_key,
    read_front,
    why_useless,
)
from edgellm.models.local.registration import register
from edgellm.models.local.removal import kept_prompts, leftovers, remove
from edgellm.models.local.store import Store
from edgellm.settings import Settings
from edgellm.workspace import Workspace
from tests.commands.cli import data, edgellm_here
from tests.weights.gguf_maker import write_llama

KEY = "prompt of /m.gguf\nengine e\n1 2 3\nkernels k, 1 sequences\n"
TEXT = [*range(1000, 1100)]


def state(n_bytes: int = 5000, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(n_bytes)


@pytest.fixture
def files(tmp_path: Path) -> PromptFiles:
    return PromptFiles(tmp_path / "prompts", 1_000_000)


def kept(files: PromptFiles, tokens: list[int], **more: object) -> KeptPrompt | None:
    found = files.longest(KEY, tokens, **more)  # type: ignore[arg-type]
    return found[0] if found else None


def test_what_was_written_is_found_and_read(files: PromptFiles) -> None:
    path = files.write(KEY, TEXT, np.frombuffer(state(), np.uint8), 0.5)
    found = files.longest(KEY, [*TEXT[:80], 7, 7])
    assert path and found and found[1] == 80 and found[0].path == path and found[0].seconds_per_token == 0.5
    assert bytes(files.read(found[0])) == state()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [*files.all()] == [(path, found[0])] and not files.unfinished()


def test_the_longest_beginning_wins_and_then_the_smallest_file(files: PromptFiles) -> None:
    for n_common, n_bytes in ((50, 10), (70, 20), (70, 10), (60, 10)):
        files.write(KEY, [*TEXT[:n_common], n_common, n_bytes], state(n_bytes), 1)
    found = files.longest(KEY, TEXT)
    assert found and found[1] == 70 and found[0].n_state == 10


def test_a_prompt_needs_a_beginning_worth_the_name(files: PromptFiles) -> None:
    assert files.write(KEY, TEXT[: LEAST_TOKENS - 1], state(), 1) is None
    files.write(KEY, TEXT, state(), 1)
    assert kept(files, TEXT[: LEAST_TOKENS - 1]) is None and kept(files, [1, *TEXT]) is None
    assert kept(files, TEXT[:LEAST_TOKENS]) is not None


def test_only_files_that_fit_and_if_asked_whole_ones(files: PromptFiles) -> None:
    files.write(KEY, TEXT, state(), 1)
    assert kept(files, TEXT, most=99) is None and kept(files, TEXT, most=100) is not None
    assert kept(files, TEXT[:99], whole=True) is None and kept(files, [*TEXT, 5], whole=True) is not None


def test_another_key_finds_nothing_and_a_file_moved_to_its_place_neither(files: PromptFiles) -> None:
    path = files.write(KEY, TEXT, state(), 1)
    other = KEY.replace("engine e", "engine f")
    assert files.longest(other, TEXT) is None
    theirs = files.write(other, TEXT, state(), 1)
    assert path and theirs and path != theirs
    theirs.write_bytes(path.read_bytes())
    assert files.longest(other, TEXT) is None


def damaged(files: PromptFiles, path: Path, content: bytes) -> bool:
    """Whether a file with this content is refused."""
    path.write_bytes(content)
    found = kept(files, TEXT)
    return found is None or files.read(found) is None


def test_a_cut_or_longer_file_is_refused_whatever_its_length(files: PromptFiles) -> None:
    path = files.write(KEY, TEXT, state(300), 1)
    assert path
    whole = path.read_bytes()
    assert not damaged(files, path, whole)
    assert all(damaged(files, path, whole[:length]) for length in range(len(whole)))
    assert damaged(files, path, whole + b"x") and damaged(files, path, random.Random(1).randbytes(len(whole)))


def test_every_flipped_bit_is_noticed(files: PromptFiles) -> None:
    path = files.write(KEY, TEXT, state(300), 1)
    assert path
    whole = path.read_bytes()
    chance = random.Random(2)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << chance.randrange(8)
        assert damaged(files, path, bytes(content)), place


def fuzz(files: PromptFiles, rounds: int, seed: int) -> None:
    path = files.write(KEY, TEXT, state(3000), 1)
    assert path
    whole, chance = path.read_bytes(), random.Random(seed)
    for _ in range(rounds):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 64)):
            start, length = chance.randrange(len(content)), chance.choice((1, 1, 1, 4, 8, 500))
            match chance.randrange(4):
                case 0:
                    content[start : start + length] = chance.randbytes(length)
                case 1:
                    content[start : start + length] = bytes(length)
                case 2:
                    del content[start : start + length]
                case _:
                    content[start:start] = content[chance.randrange(len(content)) :][:length]
            if not content:
                break
        assert bytes(content) == whole or damaged(files, path, bytes(content))


def test_no_damaged_file_is_ever_used(files: PromptFiles) -> None:
    fuzz(files, rounds=300, seed=int(time.time()))


@pytest.mark.soak
def test_no_damaged_file_is_ever_used_in_many_rounds(files: PromptFiles) -> None:
    fuzz(files, rounds=50_000, seed=int(time.time()))


def test_an_older_version_and_other_files_are_no_prompts(files: PromptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_files, "_VERSION", 0)
    path = files.write(KEY, TEXT, state(), 1)
    assert path and kept(files, TEXT) is not None
    monkeypatch.undo()
    assert kept(files, TEXT) is None and [*files.all()] == [(path, None)]
    path.unlink()
    path.mkdir()
    assert kept(files, TEXT) is None and read_front(path) is None


def test_a_file_that_changes_after_it_was_found_is_not_read(files: PromptFiles) -> None:
    path = files.write(KEY, TEXT, state(), 1)
    found = kept(files, TEXT)
    assert path and found
    files.write(KEY, TEXT, state(seed=1), 1)
    assert files.read(found) is None
    found = kept(files, TEXT)
    path.unlink()
    assert found and files.read(found) is None


def test_the_space_holds_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    files = PromptFiles(tmp_path, 30_000)
    texts = [[n, *TEXT] for n in range(4)]
    for n, text in enumerate(texts[:3]):
        path = files.write(KEY, text, state(9000), 1)
        assert path
        os.utime(path, ns=(n, n))
    first = kept(files, texts[0])
    assert first and files.read(first) is not None  # used again
    files.write(KEY, texts[3], state(9000), 1)
    assert [kept(files, text) is not None for text in texts] == [True, False, True, True]
    assert files.nbytes <= 30_000
    assert files.write(KEY, [9, *TEXT], state(30_000), 1) is None and files.nbytes > 20_000
    assert PromptFiles(tmp_path, 0).write(KEY, [9, *TEXT], state(), 1) is None


def test_the_default_size_is_a_share_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_files, "_free", lambda _: 20_000_000_000)
    assert PromptFiles.of_size(tmp_path / "none" / "yet", None).limit == 2_000_000_000
    monkeypatch.setattr(prompt_files, "_free", lambda _: 900_000_000_000)
    assert PromptFiles.of_size(tmp_path, None).limit == 4_000_000_000
    assert PromptFiles.of_size(tmp_path, 5).limit == 5


def test_a_full_or_closed_disk_keeps_nothing_and_ends_nothing(
    files: PromptFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_files, "_free", lambda _: 1000)
    assert files.write(KEY, TEXT, state(), 1) is None and not [*files.all()]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert PromptFiles(tmp_path / "file" / "prompts", 1_000_000).write(KEY, TEXT, state(), 1) is None


def test_a_longer_prompt_takes_the_place_of_a_shorter_one_unless_that_is_far_quicker_to_read(
    files: PromptFiles,
) -> None:
    files.write(KEY, TEXT[:40], state(), 1)
    files.write(KEY, TEXT[:60], state(), 1)
    assert [len(found.tokens) for _, found in files.all() if found] == [60]
    files.write(KEY, [*TEXT, *TEXT], state(), 1)
    assert sorted(len(found.tokens) for _, found in files.all() if found) == [60, 200]


def test_the_latest_ones_come_first(files: PromptFiles) -> None:
    for n in range(4):
        path = files.write(KEY, [n, *TEXT], state(), 1)
        assert path
        os.utime(path, ns=(n, n))
    assert [found.tokens[0] for found in files.latest(KEY, 2, most=200)] == [3, 2]
    assert not files.latest(KEY, 2, most=100) and not files.latest(KEY + "x", 2, most=200)


WRITER = """
import sys
from pathlib import Path
from edgellm.models.local.prompt_files import PromptFiles
files = PromptFiles(Path(sys.argv[1]), 3_000_000)
print("ready", flush=True)
for n in range(int(sys.argv[2]), 1 << 30):
    files.write(sys.argv[3], [n % 7, *range(100)], bytes([n % 251]) * 1_000_000, 1)
"""


def writer(directory: Path, start: int = 0) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(start), KEY], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"ready\n"
    return child


def kill_writers(directory: Path, times: int) -> None:
    """Kill two writers at a time; whatever is there under its name is whole, and the next ones go on."""
    files, chance = PromptFiles(directory, 3_000_000), random.Random(times)
    n_read = 0
    for _ in range(times):
        children = [writer(directory, start) for start in (0, 3)]
        time.sleep(chance.uniform(0.01, 0.2))
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        for _, found in files.all():
            assert found is not None
            whole = files.read(found)
            assert whole is not None and len({*whole.tolist()[::1000]}) == 1
            n_read += 1
        assert files.nbytes <= files.limit
    assert n_read > times / 2
    assert files.write(KEY, [9, *TEXT], state(), 1) is not None
    assert not files.unfinished(), "a writer takes away what killed ones left"


def test_kills_leave_only_whole_files(tmp_path: Path) -> None:
    kill_writers(tmp_path / "prompts", 5)


@pytest.mark.soak
def test_fifty_kills_leave_only_whole_files(tmp_path: Path) -> None:
    kill_writers(tmp_path / "prompts", 50)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "m.gguf")


def test_the_key_says_what_a_state_depends_on(model: Path) -> None:
    outline = read_outline(model)
    keys = {
        cache_key(outline, RunPlan(), 1, "avx2"),
        cache_key(outline, RunPlan(), 1, "stock"),
        cache_key(outline, RunPlan(), 4, "avx2"),
        cache_key(outline, RunPlan(kv_type="Q8_0"), 1, "avx2"),
        cache_key(outline, RunPlan(flash_attention=True), 1, "avx2"),
        cache_key(outline, RunPlan(flash_attention=False), 1, "avx2"),
        model_key(model, "engine 1"),
        model_key(model, "engine 2"),
    }
    assert len(keys) == 8
    assert cache_key(outline, RunPlan(n_ctx=512), 1, "") == cache_key(outline, RunPlan(n_ctx=8192, n_threads=8), 1, "")
    before = model_key(model, "e")
    os.utime(model, ns=(0, 12345))
    assert model_key(model, "e") != before


def test_prune_fit_and_rm_know_the_prompts(settings: Settings, tmp_path: Path, model: Path) -> None:
    here = Workspace(settings)
    store = Store(settings.models)
    register(model, store, name="m")
    ours = store.get("m").path
    files = PromptFiles(settings.prompts, 1_000_000)
    good, old = (model_key(ours, engine) + "cache\n" for engine in (here.engine_name, "an older engine"))
    kept_path, old_path = files.write(good, TEXT, state(), 1), files.write(old, TEXT, state(), 1)
    assert kept_path and old_path
    broken = kept_path.with_name(f"x{kept_path.name}")
    broken.write_bytes(b"EDGEPRMT")
    unfinished = kept_path.with_suffix(".prompt.part")
    unfinished.write_bytes(b"")
    found = {each.path: each.why for each in leftovers(store, settings, tmp_path / "hub", engine=here.engine_name)}
    assert set(found) == {old_path, broken, unfinished} and "another engine" in found[old_path]
    assert [each.path for each in kept_prompts(files, here.engine_name)] == [kept_path]
    size = kept_path.stat().st_size
    assert data(edgellm_here("fit", "m", "--json"))["prompts"] == size + old_path.stat().st_size
    assert data(edgellm_here("prune", "--json"))["prompts"] == size
    assert kept_path.exists() and not old_path.exists() and not broken.exists()
    assert data(edgellm_here("prune", "--prompts", "--json"))["prompts"] == 0 and not kept_path.exists()


def test_a_removed_model_takes_its_prompts_along(settings: Settings, model: Path) -> None:
    store, files = Store(settings.models), PromptFiles(settings.prompts, 1_000_000)
    imported = register(model, store, name="m")
    mine = store.file_path("mine", "m.gguf")
    mine.parent.mkdir(parents=True)
    model.rename(mine)
    n_bytes = mine.stat().st_size
    store.add(type(imported)("mine", mine, n_bytes, "0" * 64, "test", ""))
    path = files.write(model_key(mine, "e"), TEXT, state(), 1)
    front = path and read_front(path)
    assert path and front and why_useless(front, "e") == "" and "another engine" in why_useless(front, "f")
    freed = n_bytes + path.stat().st_size
    assert remove(store, store.get("mine"), settings.cache, prompts=files).freed == freed and not path.exists()
    assert "is gone" in why_useless(front, "e")
