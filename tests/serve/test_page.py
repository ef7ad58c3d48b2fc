"""The page at /, as a browser shows it, and what it shows: /status.json."""

import json
import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.serve import browser as chromium
from tests.serve.browser import Browser, Page
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> **bold** <script>document.title='taken'</script>"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium.program() is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium): the page is not looked at")
    with Browser.start() as browser:
        yield browser


def ask(page: Page, question: str) -> None:
    page.until("!document.querySelector('#send').disabled && !document.querySelector('#send').hidden")
    page.type("#question", question)
    page.press_enter()


def test_browsers_get_the_page_and_everybody_else_a_line(server: Server) -> None:
    line = server.get("/")
    assert line.status == 200 and line.body == b"Ollama is running"
    assert server.request("HEAD", "/").status == 200
    page = server.get("/", headers=HTML)
    assert page.headers["content-type"].startswith("text/html") and page.headers["vary"] == "Accept"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.findall(rb"""(?:src|href)=["'](?!data:)""", page.body)


def test_the_status_tells_what_models_do(server: Server) -> None:
    server.post("/v1/completions", {"model": "smollm2", "prompt": "Once", "max_tokens": 4})
    told = server.get("/status.json").json()
    models = {model["name"]: model for model in told["models"]}
    assert models["bert"]["kind"] == "embedding" and models["smollm2"]["state"] == "loaded"
    assert models["smollm2"]["n_slots"] == 2 and models["smollm2"]["n_ctx"] == 2048
    assert models["smollm2"]["resident_bytes"] > 90_000_000 and models["smollm2"]["completion_tokens"] >= 4
    assert models["smollm2"]["decode_rate"] > 0 and models["smollm2"]["idle_seconds"] >= 0
    assert told["in_flight"] == 0 and told["available_bytes"] > 0 and told["requests"] >= 1


def test_a_chat_in_the_page(server: Server, browser: Browser) -> None:
    page = browser.open(server.url)
    page.until("document.querySelectorAll('.model').length === 2")
    assert page.evaluate("[...document.querySelector('#model').options].map((each) => each.value)") == ["smollm2"]
    page.evaluate("document.querySelector('#temperature').value = 0, document.querySelector('#most').value = 24, 0")
    ask(page, "What is the capital of France?")
    page.until("document.querySelector('.answer .meta')")
    assert "Paris" in page.evaluate("document.querySelector('.answer .text:not(.thought)').innerText")
    assert re.search(r"\d+ tokens, [\d.]+ tok/s, first token [\d.]+ s, smollm2", page.text)
    live = page.evaluate("document.querySelector('#live').innerText")
    assert re.search(r"[\d.]+ tok/s.+first token [\d.]+ s.+context \d+/2,048.+memory \d+ MB, [\d.]+ GB avail", live)
    assert re.search(r"\d+ MB of memory used here, [\d.]+ GB of [\d.]+ GB available", page.text)
    # The second question comes with the first and its answer.
    ask(page, "And of Italy?")
    page.until("document.querySelectorAll('.answer .meta').length === 2")
    assert page.evaluate("messages.length") == 4
    assert {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")} == {
        urlsplit(server.url).netloc
    }
    assert page.problems == [] and page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_what_a_model_writes_stays_text(server: Server, browser: Browser) -> None:
    page = browser.open(server.url, width=390, height=844, scheme="dark")
    chunks = [
        {"choices": [{"delta": {"reasoning_content": HOSTILE}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": HOSTILE}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": " again again"}, "finish_reason": None}]},
        {
            "choices": [{"delta": {}, "finish_reason": "length"}],
            "edgellm": {"finish_reason": "repetition", "repeated": HOSTILE, "repetitions": 4, "kept_pieces": 2},
        },
    ]
    stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    page.answer_instead("*/v1/chat/completions", stream.encode())
    ask(page, HOSTILE)
    page.until("document.querySelector('.answer .notice') && !answering")
    for selector in (".user", ".answer .thought", ".answer .text:not(.thought)"):
        assert page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent") == HOSTILE
    assert f"Stopped by the loop guard: \u201c{HOSTILE}\u201d came back 4 times." in page.text
    assert page.evaluate("document.title") == "edgellm" and page.evaluate("document.images.length") == 0
    assert page.evaluate("document.scripts.length") == 1
    # On a narrow screen nothing is wider than it.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_stop_ends_the_computation(server: Server, browser: Browser) -> None:
    page = browser.open(server.url)
    ask(page, "Write a very long story about a lighthouse keeper.")
    page.until("answering && answering.pieces.length > 3")
    page.click("#stop")
    page.until("document.querySelector('.answer .notice')?.innerText === 'Stopped.'")
    end = time.monotonic() + 3
    while server.get("/status.json").json()["in_flight"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_errors_are_shown_and_the_question_comes_back(server: Server, browser: Browser) -> None:
    page = browser.open(server.url)
    ask(page, "word " * 3000)
    page.until("document.querySelector('.error')")
    assert "the context 2,048" in page.evaluate("document.querySelector('.error').innerText")
    assert page.evaluate("document.querySelector('#question').value").startswith("word word")
    assert page.evaluate("messages.length") == 0


def test_the_page_asks_for_the_key_and_keeps_it_in_the_tab(start: Callable[..., Server], browser: Browser) -> None:
    with start("smollm2", "--api-key", "sesame-1", "--slots", "1", "--ctx-size", "512") as server:
        assert server.get("/status.json").status == 401 and server.get("/metrics").status == 401
        page = browser.open(server.url)
        page.until("!document.querySelector('#key-form').hidden")
        assert page.evaluate("document.querySelector('#ask').hidden")
        page.type("#key", "wrong")
        page.press_enter()
        page.until("document.querySelector('#key-error').innerText === 'That key is not right.'")
        page.type("#key", "sesame-1")
        page.press_enter()
        page.until("!document.querySelector('#ask').hidden && document.querySelectorAll('.model').length === 1")
        assert (
            page.evaluate("JSON.stringify([Object.values({...sessionStorage}), localStorage.length])")
            == '[["sesame-1"],0]'
        )
        assert page.evaluate("document.cookie") == "" and "sesame-1" not in page.evaluate("location.href")
