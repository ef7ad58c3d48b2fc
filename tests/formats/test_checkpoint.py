import json
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import CorruptFile, ModelNotFound, UnsupportedModel
from edgellm.formats.checkpoint import Checkpoint
from tests.formats.safetensors_bytes import safetensors

A = np.arange(10, dtype=np.float32).reshape(5, 2)
B = np.arange(3, dtype=np.int32)


def sharded(directory: Path, weight_map: object, **files: bytes) -> Path:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, data in files.items():
        (directory / f"{name}.safetensors").write_bytes(data)
    return directory


class TestOpening:
    def test_a_single_file(self, tmp_path: Path):
        (tmp_path / "model.safetensors").write_bytes(safetensors({"a": A, "b": B}))
        checkpoint = Checkpoint.open(tmp_path)
        assert checkpoint.names == ("a", "b")
        assert "a" in checkpoint
        assert checkpoint.tensor("a").shape == (5, 2)
        assert (checkpoint.read("a", 1, 3) == A[1:3]).all()

    def test_shards(self, tmp_path: Path):
        weight_map = {"b": "two.safetensors", "a": "one.safetensors"}
        checkpoint = Checkpoint.open(
            sharded(tmp_path, weight_map, one=safetensors({"a": A}), two=safetensors({"b": B}))
        )
        assert (checkpoint.read("a") == A).all()
        assert (checkpoint.read("b") == B).all()

    def test_shards_may_be_links_as_in_the_cache_of_the_hub(self, tmp_path: Path):
        blob = tmp_path / "blob"
        blob.write_bytes(safetensors({"a": A}))
        snapshot = tmp_path / "snapshot"
        snapshot.mkdir()
        (snapshot / "one.safetensors").symlink_to(blob)
        assert Checkpoint.open(sharded(snapshot, {"a": "one.safetensors"})).names == ("a",)

    def test_the_only_file_by_another_name(self, tmp_path: Path):
        (tmp_path / "gptq_model-4bit-128g.safetensors").write_bytes(safetensors({"a": A}))
        assert Checkpoint.open(tmp_path).names == ("a",)

    def test_slabs(self, tmp_path: Path):
        (tmp_path / "model.safetensors").write_bytes(safetensors({"a": A}))
        slabs = list(Checkpoint.open(tmp_path).slabs("a", rows=2))
        assert [len(slab) for slab in slabs] == [2, 2, 1]
        assert (np.concatenate(slabs) == A).all()


class TestRefusals:
    def test_a_tensor_that_is_not_there(self, tmp_path: Path):
        (tmp_path / "model.safetensors").write_bytes(safetensors({"a": A}))
        with pytest.raises(CorruptFile, match="is incomplete") as caught:
            Checkpoint.open(tmp_path).read("model.norm.weight")
        assert caught.value.why == "it has no tensor 'model.norm.weight'"

    def test_absent_shards_are_named(self, tmp_path: Path):
        weight_map = {f"t{i}": f"model-0000{i}-of-00005.safetensors" for i in range(1, 6)} | {"a": "one.safetensors"}
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(sharded(tmp_path, weight_map, one=safetensors({"a": A})))
        assert caught.value.why.startswith("5 of 6 shards are missing: model-00001-of-00005.safetensors, ")

    def test_a_tensor_that_is_not_in_its_shard(self, tmp_path: Path):
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(
                sharded(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"}, one=safetensors({"a": A}))
            )
        assert "places tensor 'b' in one.safetensors, where it is not" in caught.value.why

    @pytest.mark.parametrize(
        "shard",
        [
            "../secret.safetensors",
            "/etc/x.safetensors",
            "a/b.safetensors",
            "..",
            "",
            "c:\\x.safetensors",
            "x.bin",
            "\0",
        ],
    )
    def test_an_index_never_leaves_the_directory(self, tmp_path: Path, shard: str):
        (tmp_path / "secret.safetensors").write_bytes(safetensors({"a": A}))
        inner = tmp_path / "inner"
        inner.mkdir()
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(sharded(inner, {"a": shard}))
        assert "is not the name of a shard" in caught.value.why

    @pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": {}}, "x"])
    def test_an_index_of_the_wrong_kind(self, tmp_path: Path, weight_map: object):
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(sharded(tmp_path, weight_map))
        assert "weight_map is not a table of file names" in caught.value.why

    def test_a_json_bomb_for_an_index(self, tmp_path: Path):
        (tmp_path / "model.safetensors.index.json").write_bytes(b'{"weight_map":' * 50_000)
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(tmp_path)
        assert "nested too deeply" in caught.value.why

    def test_an_index_beyond_the_limit(self, tmp_path: Path):
        with (tmp_path / "model.safetensors.index.json").open("wb") as file:
            file.truncate(17 << 20)
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(tmp_path)
        assert "larger than 16 MiB" in caught.value.why

    def test_pickles(self, tmp_path: Path):
        (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
        with pytest.raises(UnsupportedModel) as caught:
            Checkpoint.open(tmp_path)
        assert "pickles" in caught.value.why

    def test_files_without_their_index(self, tmp_path: Path):
        for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
            (tmp_path / name).write_bytes(safetensors({"a": A}))
        with pytest.raises(CorruptFile) as caught:
            Checkpoint.open(tmp_path)
        assert "2 .safetensors files and no model.safetensors.index.json" in caught.value.why

    def test_nothing(self, tmp_path: Path):
        with pytest.raises(ModelNotFound):
            Checkpoint.open(tmp_path)
        with pytest.raises(ModelNotFound):
            Checkpoint.open(tmp_path / "absent")
