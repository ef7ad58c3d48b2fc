"""Models that the engine refuses to load: clients get the reason, and no status that makes them ask again."""

import os
import re
from collections.abc import Callable, Iterator

import openai
import pytest

from tests.engine.bitnet_file import TINY, metadata, small_bpe, tensors, write
from tests.serve.server import Server

pytestmark = pytest.mark.engine
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
# Each model by its name: what is wrong with its metadata, and what is said of it.
BROKEN = {
    "syntax": ({"tokenizer.chat_template": "{{ tools }}{% for m in messages %}{{ m.content }"}, r"unexpected '\}'"),
    "prelude": ({"tokenizer.chat_template": "{% for m in messages %}{{ m.content }"}, r"unexpected '\}'"),
    "filter": ({"tokenizer.chat_template": "{{ tools }}{{ messages | nosuch }}"}, "No filter named 'nosuch'"),
    "vocabulary": ({"tokenizer.ggml.pre": "nosuch"}, "unknown pre-tokenizer type: 'nosuch'"),
    "architecture": ({}, "unknown model architecture: 'nosuch'"),
    "cut": ({}, "cut.gguf is corrupt: truncated"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Server]) -> Iterator[Server]:
    """A server of tiny models that are broken in different ways, one of them since it started; `variant` is not."""
    directory = tmp_path_factory.mktemp("broken")
    variant = {"tokenizer.chat_template.tool_use": "{{ tools | tojson }}" + PLAIN}
    for name, changes in {"variant": variant, **{name: changes for name, (changes, _) in BROKEN.items()}}.items():
        about = metadata(TINY, "nosuch") if name == "architecture" else metadata(TINY)
        keys = {**about, **small_bpe(TINY.vocab), "tokenizer.chat_template": PLAIN, **changes}
        write(directory / f"{name}.gguf", keys, tensors(TINY))
    paths = [str(path) for path in sorted(directory.iterdir())]
    with start(*paths, "--slots", "1", "--ctx-size", "256") as server:
        cut = directory / "cut.gguf"
        os.truncate(cut, cut.stat().st_size // 2)
        yield server


@pytest.mark.parametrize("name", BROKEN)
def test_the_reason_is_said_and_nobody_tries_again(broken: Server, name: str) -> None:
    words = f"{name} could not be loaded: .*{BROKEN[name][1]}"
    client = openai.OpenAI(base_url=f"{broken.url}/v1", api_key="x", max_retries=2)
    with client, pytest.raises(openai.UnprocessableEntityError, match=words) as bad:
        client.chat.completions.create(model=name, messages=HELLO)  # type: ignore[arg-type]
    models = {model["name"]: model for model in broken.get("/status.json").json()["models"]}
    assert models[name]["requests"] == 1
    assert "retry-after" not in bad.value.response.headers
    assert not re.search(r"/(tmp|var|home|root)/", str(bad.value)), "where files lie is nobody's business"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/api/chat"])
def test_every_protocol_says_it(broken: Server, path: str) -> None:
    body = {"model": "cut", "messages": HELLO, "max_tokens": 5, "stream": True}
    if path == "/v1/responses":
        body = {"model": "cut", "input": "Hello", "stream": True}
    if path == "/api/chat":
        del body["max_tokens"]
    reply = broken.post(path, body)
    assert reply.status == 422 and b"cut.gguf is corrupt: truncated" in reply.body


def test_a_damaged_model_hides_no_other_from_the_lists(broken: Server) -> None:
    names = {*BROKEN, "variant"}
    assert {model["id"] for model in broken.get("/v1/models").json()["data"]} == names
    assert {model["id"] for model in broken.get("/api/v0/models").json()["data"]} == names
    assert {model["key"] for model in broken.get("/api/v1/models").json()["models"]} == names
    assert {model["name"] for model in broken.get("/api/tags").json()["models"]} == names


def test_a_template_of_its_own_for_tools_is_used_and_claimed(broken: Server) -> None:
    shown = broken.post("/api/show", {"model": "variant"}).json()
    assert shown["capabilities"] == ["completion", "tools"] and shown["template"] == PLAIN
    body = {"model": "variant", "input": "Hello"}
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    without, with_tools = (
        broken.post("/v1/responses/input_tokens", {**body, **more}).json()["input_tokens"]
        for more in ({}, {"tools": [tool]})
    )
    assert with_tools > without + 20
