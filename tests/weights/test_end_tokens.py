"""All tokens that end an answer reach the file, and end the answer in every front end."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine import end_tokens
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.settings import Settings
from edgellm.weights.convert import converter
from edgellm.weights.convert.converter import convert
from tests.commands.cli import data, edgellm
from tests.serve.server import Server
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

EOT, EOM = end_tokens.END_KEYS
TEXTS = ["a", "<|im_end|>", "b", "c", "d", "e", "f"]


def converted(directory: Path, **generation: Any) -> Path:
    made = make.llama(directory, Shape())
    (directory / "generation_config.json").write_text(json.dumps(generation))
    return convert(made.directory, directory / "out.gguf", outtype="F32").path


def test_only_tokens_that_the_engine_would_miss_get_a_key() -> None:
    assert end_tokens.end_keys([0, 1, 2, 0], eos=0, texts=TEXTS) == {EOT: 2}
    assert end_tokens.end_keys([2, 3, 4, 5, 6], eos=0, texts=TEXTS).keys() == {EOT, EOM, *end_tokens.INFILL_KEYS}
    assert end_tokens.end_keys([2, 3], eos=0, texts=[*TEXTS, "<|fim_pad|>"]) == {EOT: 2, EOM: 3}
    with pytest.raises(UnsupportedModel, match="too many end tokens"):
        end_tokens.end_keys([2, 3, 4], eos=0, texts=[*TEXTS, "<|fim_pad|>"])


@pytest.mark.engine
@pytest.mark.parametrize("as_list", [False, True])
def test_the_engine_ends_at_each_of_them(
    tmp_path: Path, engine: InstalledEngine, monkeypatch: pytest.MonkeyPatch, as_list: bool
) -> None:
    """`as_list`: as Ollama writes them, in an array that the engine does not read."""
    ends = [65, 66, 67, 68]
    if as_list:
        plain = converter.tokenizer_metadata
        more = {end_tokens.EOS_LIST: [*ends, 10**6]}
        monkeypatch.setattr(converter, "tokenizer_metadata", lambda *a: plain(*a) | more)
    path = converted(tmp_path, **({} if as_list else {"eos_token_id": [*ends, -1, 10**6]}))
    with GGUFFile.open(path) as file:
        eos = file.get_int(end_tokens.EOS)
    model = LlamaEngine(engine).load(path)
    try:
        assert [token for token in range(model.info.n_vocab) if model.is_end(token)] == sorted([eos, *ends])
    finally:
        model.close()


@pytest.mark.engine
def test_run_batch_and_serve_stop_there(tmp_path: Path, with_engine: Settings) -> None:
    def answer(path: Path) -> dict[str, Any]:
        asked = edgellm("run", str(path), "the cat", "--raw", "-n", "3", "--temp", "0", "--json")
        found: dict[str, Any] = data(asked)
        return found

    endless = converted(tmp_path / "endless")
    first = answer(endless)
    assert first["stats"]["finish_reason"] == "length" and first["text"]
    model = LlamaEngine(_engine(with_engine)).load(endless)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1)
    try:
        context.decode(model.tokenize("the cat"))
        said_first = int(context.logits().argmax())
    finally:
        context.close()
        model.close()
    path = converted(tmp_path / "ends", eos_token_id=[said_first, 70])
    ended = answer(path)
    assert (ended["text"], ended["stats"]["finish_reason"]) == ("", "stop")
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text(json.dumps({"prompt": "the cat", "max_tokens": 3}))
    assert edgellm("batch", str(rows), "-o", str(out), "-m", str(path), "--raw", "--temp", "0").returncode == 0
    choice = json.loads(out.read_text())["response"]["body"]["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    with Server.start(str(path)) as server:
        reply = server.post("/v1/completions", {"prompt": "the cat", "max_tokens": 3, "temperature": 0}).json()
    assert (reply["choices"][0]["text"], reply["choices"][0]["finish_reason"]) == ("", "stop")


def _engine(settings: Settings) -> InstalledEngine:
    from edgellm.workspace import Workspace

    return Workspace(settings).installed_engine
