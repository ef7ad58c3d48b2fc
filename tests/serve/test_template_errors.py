"""What a server says of a chat template that it cannot use: the reason, not only that the model could not be loaded."""

from pathlib import Path

import pytest

from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from tests.serve.server import Server
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

pytestmark = pytest.mark.engine
QUESTION = {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ messages | nosuch }}", "No filter named 'nosuch'"),
        ("{{ raise_exception('turns must alternate') }}", "turns must alternate"),
        ("{{ messages | unique | list | length }}", "unique"),  # known to Jinja, not to llama-server
    ],
)
def test_the_reason_reaches_the_client(tmp_path: Path, with_engine: Settings, template: str, why: str) -> None:
    made = make.llama(tmp_path, Shape())
    (tmp_path / "chat_template.jinja").write_text(template)
    path = convert(made.directory, tmp_path / "out.gguf", outtype="F32").path
    with Server.start(str(path)) as server:
        reply = server.post("/v1/chat/completions", QUESTION)
    assert reply.status >= 400 and why in reply.json()["error"]["message"]
    assert str(tmp_path).encode() not in reply.body
