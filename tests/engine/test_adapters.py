"""Adapters are found by what is typed, and refused if they are not for the model."""

from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.adapters import Adapter, check_adapter, parse_adapter
from edgellm.errors import UnsupportedModel, UsageError
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights.adapter_files import SHAPE, write_adapter


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = convert(make.llama(tmp_path / "model", SHAPE).directory, tmp_path / "base.gguf").path
    a, b = np.zeros((4, 256), np.float32), np.zeros((256, 4), np.float32)
    good = {"blk.0.attn_q.weight.lora_a": a, "blk.0.attn_q.weight.lora_b": b}
    check_adapter(write_adapter(tmp_path / "good.gguf", good), base)
    cases = {
        "architecture": write_adapter(tmp_path / "1.gguf", good, general_architecture="qwen2"),
        "no tensor": write_adapter(tmp_path / "2.gguf", {n.replace("blk.0", "blk.9"): v for n, v in good.items()}),
        "rows of": write_adapter(tmp_path / "3.gguf", good | {"blk.0.attn_q.weight.lora_a": a[:, :128].copy()}),
        "is no adapter": base,
    }
    for words, path in cases.items():
        with pytest.raises(UsageError) as caught:
            check_adapter(path, base)
        assert words in f"{caught.value.what} {caught.value.why}"
    norm = write_adapter(tmp_path / "5.gguf", good | {"blk.0.attn_norm.weight": np.zeros(256, np.float32)})
    with pytest.raises(UnsupportedModel, match="cannot be used"):  # the engine would leave it out in silence
        check_adapter(norm, base)


def test_what_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.touch()
    odd = tmp_path / "b:2"
    odd.touch()
    assert parse_adapter(str(path)) == Adapter(path)
    assert parse_adapter(f"{path}:0.5") == Adapter(path, 0.5)
    assert parse_adapter(f"{path}:-2e0") == Adapter(path, -2.0)
    assert parse_adapter(str(odd)) == Adapter(odd)
    names = {"user/dates": path, "user/dates:F16": odd}
    assert parse_adapter("user/dates", names.get) == Adapter(path)
    assert parse_adapter("user/dates:F16", names.get) == Adapter(odd)
    assert parse_adapter("user/dates:0.5", names.get) == Adapter(path, 0.5)
    assert parse_adapter("user/dates:F16:2", names.get) == Adapter(odd, 2)
    for text in (
        "",
        ":1",
        "\0",
        "x" * 5000,
        "~nobody-here/a.gguf",
        f"{path}:nan",
        f"{path}:inf",
        f"{path}:x",
        f"{path}:1e9",
        str(tmp_path / "none"),
        "none:1",
    ):
        with pytest.raises(UsageError):
            parse_adapter(text)
