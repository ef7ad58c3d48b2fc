"""Pages of other origins: which are allowed, and the headers by which a browser shows them answers."""

from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import UsageError
from edgellm.serve.http.origins import Origins
from edgellm.serve.options import ServeOptions
from tests.serve.test_service import CHAT, MESSAGES, PROTOCOLS, Answer, directory, house, within

__all__ = ["directory"]
PAGE = "https://chat.example"
ASKS = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,x-stainless-os"}


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://chat.example", "https://chat.example"),
        ("HTTPS://Chat.Example:443/", "https://chat.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:*", "http://localhost:5173"),
        ("https://*.chat.example", "https://a.chat.example"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("app://*", "app://obsidian.md"),
        ("vscode-webview://*", "vscode-webview://0f3k2j5h1l8d"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://*", "chrome-extension://abcdefgh"),
        ("file://", "file://"),
        ("file:///", "file://"),
        ("null", "null"),
        ("*", "https://whoever.example:8443"),
        ("*", "null"),
        ("https://a.example, https://chat.example", "https://chat.example"),
    ],
)
def test_an_origin_is_allowed_as_people_write_it(given: str, origin: str) -> None:
    assert Origins.of([given]).allow(origin)


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://chat.example", "http://chat.example"),
        ("https://chat.example", "https://chat.example:8443"),
        ("https://chat.example", "https://chat.example.evil.test"),
        ("https://chat.example", "https://evil-chat.example"),
        ("https://chat.example", "https://chatxexample"),
        ("https://*.chat.example", "https://chat.example"),
        ("https://*.chat.example", "https://evil.test/.chat.example"),
        ("file://", "null"),
        ("app://*", "file://"),
        ("http://localhost:*", "http://localhost"),
    ],
)
def test_no_other_origin_is_allowed(given: str, origin: str) -> None:
    assert not Origins.of([given]).allow(origin)


@pytest.mark.parametrize(
    "text", ["chat.example", "localhost:3000", "https://chat.example/app", "https://", "a b://c", "/"]
)
def test_what_is_no_origin_is_refused_at_once(text: str) -> None:
    with pytest.raises(UsageError, match="is no origin"):
        Origins.of([text])


def asked(directory: Path, method: str, path: str, body: Any = None, *, origin: str = PAGE, **more: Any) -> Answer:
    """The answer of a server with a key that lets `PAGE` use it."""
    script = {name: more.pop(name) for name in ("until_stopped", "refuses") if name in more}
    allowed = Origins.of(more.pop("allowed", [PAGE])).patterns
    options = ServeOptions(n_ctx=512, api_keys=frozenset({"k"}), allowed_origins=allowed, max_body=2000)
    answers: list[Answer] = []

    async def work() -> None:
        async with house(directory, options=options, **script) as made:
            answers.append(await made.ask(method, path, body, origin=origin, **more))

    within(work())
    return answers[0]


def of(answer: Answer, name: str) -> str | None:
    return (answer.headers or {}).get(name)


@pytest.mark.parametrize("path", [*PROTOCOLS, "/v1/models", "/api/tags", "/nothing"])
def test_a_preflight_is_answered_without_a_key(directory: Path, path: str) -> None:
    answer = asked(directory, "OPTIONS", path, **ASKS)
    assert answer.status == 204 and answer.is_whole and answer.body == b""
    assert of(answer, "access-control-allow-origin") == PAGE and of(answer, "vary") == "Origin"
    assert of(answer, "access-control-allow-headers") == "authorization,x-stainless-os"
    assert {"POST", "GET", "DELETE"} <= set((of(answer, "access-control-allow-methods") or "").split(", "))
    assert int(of(answer, "access-control-max-age") or 0) > 0
    assert of(answer, "access-control-allow-private-network") is None


def test_a_page_of_the_web_may_ask_for_a_machine_at_home(directory: Path) -> None:
    answer = asked(directory, "OPTIONS", CHAT, **ASKS, access_control_request_private_network="true")
    assert of(answer, "access-control-allow-private-network") == "true"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[", "x"])
def test_a_preflight_of_another_page_is_refused(directory: Path, origin: str) -> None:
    answer = asked(directory, "OPTIONS", CHAT, origin=origin, **ASKS)
    assert answer.status == 403 and "--allowed-origin" in answer.json()["error"]["message"]
    assert of(answer, "access-control-allow-origin") is None and of(answer, "vary") == "Origin"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "more"),
    [
        ("GET", "/v1/models", None, 200, {}),
        ("POST", CHAT, MESSAGES, 200, {}),
        ("POST", CHAT, {**MESSAGES, "stream": True}, 200, {}),
        ("POST", "/api/chat", MESSAGES, 200, {}),
        ("POST", "/v1/messages", {**PROTOCOLS["/v1/messages"], "stream": True}, 200, {}),
        ("POST", CHAT, {"messages": 5}, 400, {}),
        ("POST", CHAT, MESSAGES, 401, {"authorization": "Bearer wrong"}),
        ("POST", CHAT, {**MESSAGES, "model": "nosuch"}, 404, {}),
        ("GET", "/nothing", None, 404, {}),
        ("GET", CHAT, None, 405, {}),
        ("POST", CHAT, {"messages": [{"role": "user", "content": "x" * 3000}]}, 413, {}),
        ("POST", CHAT, MESSAGES, 500, {"refuses": (500, {"error": {"message": "Compute error."}})}),
    ],
)
def test_every_answer_can_be_read_by_the_page(
    directory: Path, method: str, path: str, body: Any, status: int, more: dict[str, Any]
) -> None:
    answer = asked(directory, method, path, body, **{"authorization": "Bearer k", **more})
    assert answer.status == status
    assert of(answer, "access-control-allow-origin") == PAGE and of(answer, "vary") == "Origin"
    assert of(answer, "access-control-expose-headers") == "Retry-After"


def test_all_pages_or_one_of_several(directory: Path) -> None:
    answer = asked(directory, "GET", "/v1/models", authorization="Bearer k", allowed=["*"])
    assert answer.status == 200 and of(answer, "access-control-allow-origin") == "*"
    two = [PAGE, "app://obsidian.md"]
    answer = asked(directory, "GET", "/v1/models", authorization="Bearer k", allowed=two, origin=two[1])
    assert answer.status == 200 and of(answer, "access-control-allow-origin") == two[1]


def test_without_the_option_there_are_no_such_headers(directory: Path) -> None:
    answer = asked(directory, "GET", "/v1/models", authorization="Bearer k", allowed=[], origin="http://localhost")
    assert answer.status == 200 and of(answer, "vary") is None and of(answer, "access-control-allow-origin") is None


def test_a_plain_options_request_is_no_preflight(directory: Path) -> None:
    assert asked(directory, "OPTIONS", CHAT, authorization="Bearer k").status == 405
