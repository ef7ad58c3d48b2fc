"""Packed files: filled by one process and mapped by the next; whatever is wrong with one, the products are right."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.models.local.packed import PackedFiles
from tests.engine.bitnet_file import TINY, metadata, small_bpe, tensors, write
from tests.engine.ggml_graph import Floats, Ggml
from tests.engine.group_weights import TYPES, GroupWeights, activations

pytestmark = pytest.mark.engine

COLUMNS, ROWS = 768, 48
KEY = b"a model\n"
FRONT_BYTES = 2 << 20
BOOT = 32  # where the boot stands in the header, and the key behind it
WEIGHTS = GroupWeights(TYPES["Q2_0"], ROWS, COLUMNS)
OTHERS = GroupWeights(TYPES["Q2_0"], ROWS, COLUMNS, seed=7)
NOTHING = bytes(len(WEIGHTS.data()))


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return tmp_path / "model.packed"


def product(ggml: Ggml, path: Path, data: bytes, *, key: bytes = KEY, ne: tuple[int, int] = (COLUMNS, ROWS)) -> Floats:
    """A product of weights that are packed into a file, or come from it."""
    ggml.edgellm_keep_packed(os.fsencode(path), key)
    return ggml.repacked_product(WEIGHTS.type.id, data, ne, activations(3, ne[0]))


def expected(ggml: Ggml, data: bytes, ne: tuple[int, int] = (COLUMNS, ROWS)) -> Floats:
    """The same from memory."""
    return ggml.repacked_product(WEIGHTS.type.id, data, ne, activations(3, ne[0]))


def settled(path: Path) -> Path:
    """Wait until the file is on the disk: it names no boot then, and can be used after the next one."""
    deadline = time.monotonic() + 60
    while path.read_bytes()[BOOT : BOOT + 40] != bytes(40):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path


def test_the_second_one_needs_no_weights(ggml: Ggml, packed: Path) -> None:
    right = expected(ggml, WEIGHTS.data())
    np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data()), right)
    assert settled(packed).stat().st_mode & 0o777 == 0o600 and [*packed.parent.iterdir()] == [packed]
    np.testing.assert_array_equal(product(ggml, packed, NOTHING), right)
    np.testing.assert_array_equal(expected(ggml, NOTHING), np.zeros_like(right))  # the request was for one buffer


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 4096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(offset: int, data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return change


DAMAGE = {
    "cut": cut,
    "longer": lengthen,
    "empty": empty,
    "magic": overwrite(0, b"X"),
    "most of a key": overwrite(8, b"\xff\xff\xff\xff"),
    "most entries": overwrite(12, b"\xff\xff\xff\xff"),
    "bytes of the matrices": overwrite(16, b"\x00" * 8),
    "the table": overwrite(BOOT + 40 + 60, b"\x7f\x7f"),
    "another boot": overwrite(BOOT, b"00000000-0000-0000-0000-000000000000\x00"),
    "a boot without an end": overwrite(BOOT, b"x" * 40),
    "zeros, as after a crash": overwrite(0, bytes(FRONT_BYTES)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_replaced(ggml: Ggml, packed: Path, damage: Callable[[Path], None]) -> None:
    product(ggml, packed, OTHERS.data())
    damage(settled(packed))
    right = expected(ggml, WEIGHTS.data())
    np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data()), right)
    np.testing.assert_array_equal(product(ggml, packed, NOTHING), right)


def test_a_file_for_another_model_is_replaced(ggml: Ggml, packed: Path) -> None:
    product(ggml, packed, OTHERS.data(), key=b"another\n")
    right = expected(ggml, WEIGHTS.data())
    np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data()), right)
    np.testing.assert_array_equal(product(ggml, packed, NOTHING), right)


def test_tensors_are_compared_whatever_the_key_says(ggml: Ggml, packed: Path) -> None:
    """A matrix of another shape, of as many bytes."""
    product(ggml, packed, WEIGHTS.data())
    ne = (COLUMNS // 2, ROWS * 2)
    np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data(), ne=ne), expected(ggml, WEIGHTS.data(), ne))
    assert not packed.exists()


@pytest.mark.parametrize("place", ["no/such/directory", "file/x"])
def test_where_no_file_can_be_the_weights_are_packed_into_memory(ggml: Ggml, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    y = product(ggml, tmp_path / place, WEIGHTS.data())
    np.testing.assert_array_equal(y, expected(ggml, WEIGHTS.data()))


def test_a_file_that_another_process_fills_is_left_alone(ggml: Ggml, packed: Path) -> None:
    unfinished = packed.with_name("model.packed.part")
    with unfinished.open("wb") as file:
        file.write(b"theirs")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        right = expected(ggml, WEIGHTS.data())
        np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data()), right)
        assert unfinished.read_bytes() == b"theirs" and not packed.exists()
    # What a killed process left is filled again.
    np.testing.assert_array_equal(product(ggml, packed, WEIGHTS.data()), right)
    assert packed.exists() and not unfinished.exists()


def test_links_are_not_followed(ggml: Ggml, packed: Path) -> None:
    victim = packed.with_name("victim")
    victim.write_bytes(b"mine")
    packed.with_name("model.packed.part").symlink_to(victim)
    product(ggml, packed, WEIGHTS.data())
    assert victim.read_bytes() == b"mine" and not packed.exists()


def test_a_load_that_stops_leaves_nothing(ggml: Ggml, packed: Path) -> None:
    ggml.edgellm_keep_packed(os.fsencode(packed), KEY)
    headers = ggml.context(no_alloc=True)
    for _ in range(2):
        tensor = ggml.ggml_new_tensor_2d(headers, WEIGHTS.type.id, COLUMNS, ROWS)
    buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(headers, ggml.buffer_type(b"CPU_TERNARY"))
    ggml.ggml_backend_tensor_set(tensor, WEIGHTS.data(), 0, len(NOTHING))
    assert [path.suffix for path in packed.parent.iterdir()] == [".part"]
    ggml.ggml_backend_buffer_free(buffer)
    ggml.ggml_free(headers)
    assert not [*packed.parent.iterdir()]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-i2_s.gguf"
    return write(path, {**metadata(TINY), **small_bpe(TINY.vocab)}, tensors(TINY))


def first_logits(engine: LlamaEngine, path: Path) -> tuple[bytes, int, int]:
    """The logits after some tokens, the bytes in a packed file, and how many mappings of it there are."""
    model = engine.load(path)
    context = model.open_context(n_ctx=64, n_batch=16, n_threads=2)
    context.decode([7, 300, 11, 42])
    logits = np.asarray(context.logits()).tobytes()
    mapped = Path("/proc/self/maps").read_text().count(".packed")
    context.close()
    model.close()
    return logits, model.info.n_shared, mapped


def test_a_model_answers_the_same_from_its_packed_file(engine: InstalledEngine, tiny: Path, tmp_path: Path) -> None:
    plain = first_logits(LlamaEngine(engine), tiny)
    files = PackedFiles(tmp_path / "packed", engine.record.stamp, least=0)
    loads = [first_logits(LlamaEngine(engine, files), tiny) for _ in range(2)]
    assert plain[1:] == (0, 0) and {logits for logits, *_ in loads} == {plain[0]}
    n_bytes = files.nbytes_of(tiny)
    assert [load[1:] for load in loads] == [(n_bytes, 1)] * 2 and n_bytes > 100_000


CHILD = """
import sys
from pathlib import Path
from edgellm.engine.builds.installed import load
from edgellm.engine.llama import LlamaEngine
from edgellm.models.local.packed import PackedFiles

engine = load(Path(sys.argv[1]))
model = LlamaEngine(engine, PackedFiles(Path(sys.argv[3]), engine.record.stamp, least=0)).load(Path(sys.argv[2]))
maps = Path("/proc/self/maps").read_text().splitlines()
print(*{line.split()[4] for line in maps if line.endswith(".packed")}, flush=True)
sys.stdin.read()
"""


def test_processes_share_one_file(engine: InstalledEngine, tiny: Path, tmp_path: Path) -> None:
    """Two that load at the same time do not disturb each other, and later ones map what one of them packed."""

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", CHILD, str(engine.directory), str(tiny), str(tmp_path / "packed")]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    children = [start(), start()]
    try:
        first = [child.stdout.readline() for child in children if child.stdout]
        (kept,) = (tmp_path / "packed").iterdir()
        assert str(kept.stat().st_ino) in {line.strip() for line in first}
        children.append(start())
        assert children[2].stdout and children[2].stdout.readline().strip() == str(kept.stat().st_ino)
    finally:
        for child in children:
            child.communicate()
    assert [child.returncode for child in children] == [0, 0, 0]
