"""Tools on the page: which of them answers use, and each call as a line, folded, saved, exported, and harmless."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.browser import Page
from tests.serve.page import Opens, answered, ask, stream, text_of
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
LINE = "calculator(expression=17 * 23)"
HOSTILE = "<img src=x onerror=document.title=1>"
RESULT = ".call .result"


@pytest.fixture(scope="module")
def tool_page(start: Callable[..., Server]) -> Iterator[Server]:
    """A server whose answers may use a calculator and a clock."""
    with start("smollm2", "--slots", "1", "--ctx-size", "2048", "--tools", "calculator,clock") as server:
        yield server


def ran(**more: Any) -> dict[str, Any]:
    """A call as the server reports it."""
    usual = {"id": "c1", "name": "calculator", "arguments": '{"expression": "17 * 23"}', "output": "17 * 23 = 391",
             "error": False, "seconds": 0.01, "sources": [], "notes": []}  # fmt: skip
    return {**usual, **more}


def with_calls(*calls: dict[str, Any], text: str = "It is 391.") -> bytes:
    """A streamed answer after some calls."""
    chunks = [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "edgellm": {"tools": [each]}} for each in calls
    ]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in chunks).encode() + stream(text)


def calls_of(page: Page) -> list[Any]:
    found: list[Any] = json.loads(str(page.evaluate("JSON.stringify(chat.messages.at(-1).calls ?? [])")))
    return found


def test_a_call_is_a_line_that_opens_and_stays(tool_page: Server, opens: Opens) -> None:
    page = opens(url=tool_page.url)
    ask(page, "What is 17 * 23?")
    page.until("!answering && chat.messages.length && !chat.n_saving && chat.id", 120)
    line = text_of(page, ".call summary")
    assert LINE in line and line.endswith(" s") and "391" in text_of(page, ".answer .text")
    assert page.evaluate("document.querySelector('.call').open") is False
    page.click(".call summary")
    assert text_of(page, RESULT) == "17 * 23 = 391"
    (call,) = calls_of(page)
    assert call["arguments"] == {"expression": "17 * 23"} and not call["error"]
    chat = str(page.evaluate("chat.id"))
    saved = json.loads(str(page.evaluate(f"(async () => JSON.stringify(await chats.get('{chat}')))()")))
    assert saved["messages"][-1]["calls"] == [call]
    again = opens(f"#{chat}", url=tool_page.url)
    again.until("document.querySelector('.call summary')")
    assert LINE in text_of(again, ".call summary")
    assert f"> `{LINE}`: 17 * 23 = 391" in str(again.evaluate("asMarkdown(chat)"))
    assert json.loads(str(again.evaluate("asJson(chat)")))["messages"][-1]["calls"] == [call]


def test_what_is_switched_off_is_not_asked_for(tool_page: Server, opens: Opens) -> None:
    page = opens(url=tool_page.url)
    assert page.evaluate("JSON.stringify(toolsFor({kind: 'chat'}, ''))") == '["calculator","clock"]'
    assert page.evaluate("toolsFor({kind: 'chat'}, 'manuals').length") == 0
    assert page.evaluate("toolsFor({kind: 'completion'}, '').length") == 0
    page.click("#show-settings")
    assert "reads nothing" in text_of(page, "#tools-list")
    page.click("#tools-list input[value=clock]")
    assert page.evaluate("JSON.stringify(toolsFor({kind: 'chat'}, ''))") == '["calculator"]'
    again = opens(url=tool_page.url)
    assert again.evaluate("JSON.stringify(toolsFor({kind: 'chat'}, ''))") == '["calculator"]'


def test_results_are_text_and_only_addresses_are_links(tool_page: Server, opens: Opens) -> None:
    page = opens(url=tool_page.url)
    page.click("#save")
    sources = [
        {"title": "Bridges", "url": "https://example.com/bridges"},
        {"title": "bad", "url": "javascript:alert(1)"},
    ]
    bad = ran(name="fetch", arguments="no JSON", output=HOSTILE, sources=sources, notes=["cut to what is relevant"])
    failed = ran(output="The arguments are wrong.", error=True, arguments=json.dumps({"expression": HOSTILE * 20}))
    answered(page, "Why?", with_calls(bad, failed))
    assert page.evaluate("document.querySelectorAll('.call').length") == 2
    assert (
        page.evaluate("document.querySelectorAll('.call img').length") == 0 and page.evaluate("document.title") != "1"
    )
    assert (
        page.evaluate("[...document.querySelectorAll('.call a')].map((each) => each.href).join()") == sources[0]["url"]
    )
    assert "failed" in text_of(page, ".error-call summary") and "…" in text_of(page, ".error-call summary")
    page.click(".call summary")
    assert text_of(page, RESULT) == HOSTILE and "cut to what is relevant" in text_of(page, ".call .hint")


def test_a_server_without_tools_shows_none(server: Server, opens: Opens) -> None:
    page = opens(url=server.url)
    assert page.evaluate("document.querySelector('#tools').hidden") is True
    assert page.evaluate("toolsFor({kind: 'chat'}, '').length") == 0


def test_the_chats_refuse_calls_that_are_none(server: Server) -> None:
    message = {"role": "assistant", "content": "It is 391."}
    wrong: list[Any] = [[{"name": "x"}], [{**ran(), "arguments": {}}], "x", [{}] * 100]
    for calls in wrong:
        body = {"model": "smollm2", "messages": [{**message, "calls": calls}]}
        assert server.post("/chats", body).status in (400, 422), calls
