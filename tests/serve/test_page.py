"""The page at /, as a browser shows it, and what it shows: /status.json and the saved chats."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgellm.chats.record import ChatRecord
from edgellm.chats.store import ChatStore
from edgellm.chats.transcript import document, markdown, messages_of
from tests.serve.browser import Browser, Page
from tests.serve.page import CHAT, Opens, answered, ask, button, refused, stream, text_of, value_of
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> <b>bold</b> <script>document.title='taken'</script>"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def store(serve_home: dict[str, str]) -> Iterator[ChatStore]:
    """The chats of the shared server, as a terminal has them open."""
    with ChatStore.open(Path(serve_home["EDGELLM_HOME"]) / "data" / "chats.sqlite3") as store:
        store.remove([chat.id for chat in store.chats()])
        yield store


# -- what it is


def test_browsers_get_the_page_and_everybody_else_a_line(server: Server) -> None:
    line = server.get("/")
    assert line.status == 200 and line.body == b"Ollama is running"
    assert server.request("HEAD", "/").status == 200
    page = server.get("/", headers=HTML)
    assert page.headers["content-type"].startswith("text/html") and page.headers["vary"] == "Accept"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.findall(rb"""<[^>]* (?:src|href)=["'](?!data:)""", page.body)
    assert b"innerHTML" not in page.body and b"insertAdjacentHTML" not in page.body


def test_the_status_tells_what_models_do(server: Server) -> None:
    server.post("/v1/completions", {"model": "smollm2", "prompt": "Once", "max_tokens": 4})
    told = server.get("/status.json").json()
    models = {model["name"]: model for model in told["models"]}
    assert models["bert"]["kind"] == "embedding" and models["smollm2"]["state"] == "loaded"
    assert models["smollm2"]["n_slots"] == 2 and models["smollm2"]["n_ctx"] == 2048
    assert models["smollm2"]["resident_bytes"] > 90_000_000 and models["smollm2"]["completion_tokens"] >= 4
    assert models["smollm2"]["decode_rate"] > 0 and models["smollm2"]["idle_seconds"] >= 0
    assert told["in_flight"] == 0 and told["available_bytes"] > 0 and told["requests"] >= 1


def test_the_models_own_settings(server: Server) -> None:
    found = server.get("/page.json").json()
    assert found["chats"] is True and set(found["models"]) == {"smollm2", "bert"}
    own = found["models"]["smollm2"]
    assert own["system"] == "" and own["sampling"]["temperature"] == 0.2 and own["sampling"]["min_p"] == 0.05


# -- a real model


def test_a_chat_in_the_page(server: Server, opens: Opens, store: ChatStore) -> None:
    page = opens()
    page.until("document.querySelectorAll('.model').length === 2")
    assert page.evaluate("[...document.querySelector('#model').options].map((each) => each.value)") == ["smollm2"]
    page.evaluate(
        "document.querySelector('#temperature').value = 0, document.querySelector('#max_tokens').value = 24, 0"
    )
    ask(page, "What is the capital of France?")
    page.until("document.querySelector('.answer .meta')?.innerText")
    assert "Paris" in text_of(page, ".answer .text")
    numbers = r"\d+ tokens, [\d.]+ tok/s, first token [\d.]+ s, context \d+/2,048, smollm2"
    assert re.search(numbers, text_of(page, ".answer .meta"))
    live = r"[\d.]+ tok/s.+first token [\d.]+ s.+context \d+/2,048.+memory \d+ MB, [\d.]+ GB avail"
    page.until(f"new RegExp({json.dumps(live)}).test(document.querySelector('#live').innerText)")
    # The second question comes with the first and its answer.
    ask(page, "And of Italy?")
    page.until("!answering && chat.messages.length === 4 && !chat.n_saving")
    (chat,) = store.chats()
    assert chat.title == "What is the capital of France?" and chat.model == "smollm2" and chat.n_messages == 4
    addresses = {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")}
    assert addresses == {urlsplit(server.url).netloc}
    assert page.problems == [] and page.evaluate("sessionStorage.length") == 0


def test_stop_ends_the_computation_and_the_reader_stays_where_he_reads(
    server: Server, opens: Opens, store: ChatStore
) -> None:
    page = opens(height=420)
    ask(page, "Write a very long story about a lighthouse keeper.")
    page.until("log.scrollHeight > log.clientHeight + 150")
    page.evaluate("log.scrollTop = 0")
    n_pieces = page.evaluate("answering.pieces.length")
    page.until(f"answering.pieces.length > {n_pieces} + 5")
    assert page.evaluate("log.scrollTop") == 0
    assert page.evaluate("document.querySelector('#latest').checkVisibility()")
    page.press_escape()
    page.until("document.querySelector('.answer .notice')?.innerText === 'Stopped.' && !chat.n_saving")
    assert page.evaluate("log.scrollTop") == 0
    page.click("#latest")
    page.until("document.querySelector('#latest').hidden")
    end = time.monotonic() + 3
    while server.get("/status.json").json()["in_flight"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert store.messages(store.latest().id)[1].finish_reason == "interrupted"


def test_what_there_is_of_an_answer_is_kept_when_the_page_is_left(opens: Opens, store: ChatStore) -> None:
    page = opens()
    ask(page, "Write a very long story about a lighthouse keeper.")
    page.until("answering && answering.pieces.length > 3 && chat.id && !chat.n_saving")
    page.reload()
    page.until("isOpenYet && document.querySelector('.answer')")
    question, answer = store.messages(store.latest().id)
    assert question.content.startswith("Write") and answer.content and answer.finish_reason == "interrupted"
    assert text_of(page, ".answer .notice") == "Stopped."


def test_a_chat_that_is_too_long_goes_on_without_its_oldest_turns(opens: Opens, store: ChatStore) -> None:
    chat = store.create("smollm2", "")
    for n in range(4):
        store.add(chat, "user", f"Question {n}: " + "word " * (50 if n else 2000))
        store.add(chat, "assistant", f"Answer {n}.", "stop")
    page = opens(f"#{chat}")
    page.evaluate("document.querySelector('#max_tokens').value = 4, 0")
    ask(page, "What did I ask?")
    page.until("!document.querySelector('#trouble').hidden")
    assert "The chat is too long" in text_of(page, "#trouble") and "2,048" in text_of(page, "#trouble")
    assert value_of(page, "#question") == "What did I ask?" and "What did I ask?" not in text_of(page, "#log")
    button(page, "Leave out the oldest messages")
    page.until("document.querySelector('.divider') && !answering && !chat.n_saving && chat.messages.length === 10")
    hidden = [message.hidden for message in store.messages(chat)]
    assert hidden[0] == 1 and hidden[-3:] == [0, 0, 0] and sorted(hidden, reverse=True) == hidden
    assert next(message.role for message in store.messages(chat) if not message.hidden) == "user"
    # The terminal goes on with what the model sees.
    assert len(ChatRecord.resume(store, store.get(chat)).entries) == hidden.count(0)
    assert value_of(page, "#question") == "" and not page.evaluate("document.querySelector('.error').checkVisibility()")


# -- when something is wrong


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "top_k: must be smaller"), (404, "there is no model 'x' here"), (503, "it does not fit"), (429, "too many")],
)
def test_a_refused_question_says_why_and_can_be_changed(
    opens: Opens, store: ChatStore, status: int, message: str
) -> None:
    page = opens()
    refused(page, status, message)
    ask(page, "Hello?")
    page.until("!document.querySelector('#trouble').hidden")
    assert text_of(page, ".error") == message and value_of(page, "#question") == "Hello?"
    assert page.evaluate("document.querySelectorAll('.message').length") == 0 and store.chats() == []
    answered(page, " Now?", stream("Yes."))
    assert page.evaluate("document.querySelector('#trouble').hidden") and text_of(page, ".user .text") == "Hello? Now?"


def test_a_message_that_is_too_long_alone(opens: Opens) -> None:
    page = opens()
    ask(page, "word " * 3000)
    page.until("!document.querySelector('#trouble').hidden")
    assert re.search(r"too long: 3,\d\d\d tokens.* 2,048\. Shorten it", text_of(page, ".error"))
    assert value_of(page, "#question").startswith("word word") and page.evaluate("chat.messages.length") == 0


@pytest.mark.parametrize("thoughts", ["", "Hm."])
def test_an_answer_without_text_says_so(opens: Opens, store: ChatStore, thoughts: str) -> None:
    page = opens()
    answered(page, "Hello?", stream(thoughts=thoughts))
    assert "The model gave no text." in text_of(page, ".answer")
    assert "reading" not in text_of(page, "#live") and "loading" not in text_of(page, "#live")
    assert [message.role for message in store.messages(store.latest().id)] == ["user"]
    # The next question takes the place of the one without an answer, as in the terminal.
    answered(page, "Are you there?", stream("Yes."))
    assert [m.content for m in store.messages(store.latest().id)] == ["Are you there?", "Yes."]
    assert [m["content"] for m in page.posted[-1]["messages"] if m["role"] == "user"] == ["Are you there?"]


def test_a_server_that_goes_away_says_so_and_comes_back(opens: Opens, store: ChatStore) -> None:
    page = opens()
    answered(page, "Hello?", stream("Hi."))
    page.answer_itself()
    page.set_offline(True)
    page.until("document.querySelector('#state').className === 'bad'")
    assert "not reachable" in text_of(page, "#state")
    ask(page, "Still there?")
    page.until("!document.querySelector('#trouble').hidden")
    assert "cannot be reached" in text_of(page, ".error") and value_of(page, "#question") == "Still there?"
    assert page.evaluate("chat.messages.length") == 2
    page.set_offline(False)
    page.until("document.querySelector('#state').className === ''")
    assert "running for" in text_of(page, "#state")


def test_what_cannot_be_saved_now_is_saved_later(opens: Opens, store: ChatStore) -> None:
    page = opens()
    page.answer_instead(
        "/chats", b'{"error": {"message": "the disk is full"}}', status=500, media_type="application/json"
    )
    answered(page, "Hello?", stream("Hi."))
    page.until("document.querySelector('#unsaved').innerText === 'Not saved yet: the disk is full'")
    assert store.chats() == []
    page.answer_itself()
    page.until("document.querySelector('#unsaved').hidden")
    assert [message.content for message in store.messages(store.latest().id)] == ["Hello?", "Hi."]


def test_an_answer_that_breaks_off_keeps_what_came(opens: Opens, store: ChatStore) -> None:
    page = opens()
    whole = stream("The first ", "half")
    answered(page, "Hello?", whole[: whole.index(b'data: {"choices": [{"delta": {}')])
    assert "The answer is not whole" in text_of(page, ".answer .notice")
    assert [m.content for m in store.messages(store.latest().id)] == ["Hello?", "The first half"]
    answered(page, "", b"")  # an empty box asks nothing
    page.answer_instead(CHAT, stream(" and the second."))
    button(page, "Continue")
    page.until("!answering && !chat.n_saving && chat.messages[1].content.endsWith('second.')")
    assert page.posted[-1]["messages"][-1] == {"role": "assistant", "content": "The first half"}


def test_the_page_asks_for_the_key_and_keeps_chats_in_the_browser(
    start: Callable[..., Server], browser: Browser, store: ChatStore
) -> None:
    with start("smollm2", "--api-key", "sesame-1", "--slots", "1", "--ctx-size", "512") as server:
        assert server.get("/status.json").status == 401 and server.get("/chats").status == 401
        page = browser.open(server.url)
        page.until("!document.querySelector('#key-form').hidden")
        assert not page.evaluate("document.querySelector('#ask').checkVisibility()")
        for wrong in ("wrong", "wrong again"):
            page.type("#key", wrong)
            page.press_enter()
            page.until("document.querySelector('#key').value === '' && document.querySelector('#key-error').innerText")
        page.type("#key", "sesame-1")
        page.press_enter()
        page.until(
            "document.querySelector('#ask').checkVisibility() && document.querySelectorAll('.model').length === 1"
        )
        assert page.evaluate("JSON.stringify(Object.values({...sessionStorage}))") == '["sesame-1"]'
        assert page.evaluate("document.cookie") == "" and "sesame-1" not in page.evaluate("location.href")
        answered(page, "Remember me", stream("I do."))
        page.reload()
        page.until("isOpenYet && document.querySelector('.answer')")
        assert text_of(page, ".answer .text") == "I do." and "this browser only" in text_of(page, "#where")
        answered(page, "Again", stream("Yes."))
        page.until("document.querySelectorAll('#list a').length === 1")
        # Others may have the key: documents must be asked for.
        page.click("#show-documents")
        assert "edgellm serve --docs all" in text_of(page, "#documents")
        assert not page.evaluate("document.querySelector('#pick-files').checkVisibility()")
        # A key that is no longer right is asked for again; the question is not lost.
        refused(page, 401, "a key is needed")
        ask(page, "Lost?")
        page.until("!document.querySelector('#key-form').hidden")
        assert "not right" in text_of(page, "#key-error") and value_of(page, "#question") == "Lost?"
        assert server.get("/chats", headers={"Authorization": "Bearer sesame-1"}).status == 403 and store.chats() == []
        page.close()


# -- what a model writes

MARKDOWN = [
    ("a **b** *c* ~~d~~ `e*f`", '<p dir="auto">a <strong>b</strong> <em>c</em> <del>d</del> <code>e*f</code></p>'),
    ("***both*** **a *b***", '<p dir="auto"><em><strong>both</strong></em> <strong>a <em>b</em></strong></p>'),
    ("snake_case_name 2 * 3 * 4 ~tilde~", '<p dir="auto">snake_case_name 2 * 3 * 4 ~tilde~</p>'),
    ("**注意：**文本 _x_", '<p dir="auto"><strong>注意：</strong>文本 <em>x</em></p>'),
    (r"\*no\* **open", '<p dir="auto">*no* **open</p>'),
    ("``a`b`` `open", '<p dir="auto"><code>a`b</code> `open</p>'),
    ("one\ntwo<br>three", '<p dir="auto">one<br>two<br>three</p>'),
    ("# Title #\ntext", '<h3 dir="auto">Title</h3><p dir="auto">text</p>'),
    ("---\n***", "<hr><hr>"),
    ("> a\n> b\n>> c", '<blockquote><p dir="auto">a<br>b</p><blockquote><p dir="auto">c</p></blockquote></blockquote>'),
    ("- a\n  - b\n- c", '<ul><li dir="auto">a<ul><li dir="auto">b</li></ul></li><li dir="auto">c</li></ul>'),
    ("1. a\n   - b\n2. c", '<ol><li dir="auto">a<ul><li dir="auto">b</li></ul></li><li dir="auto">c</li></ol>'),
    ("3) x\n\n   y", '<ol start="3"><li dir="auto"><p dir="auto">x</p><p dir="auto">y</p></li></ol>'),
    ("1. a\n\t- b", '<ol><li dir="auto">a<ul><li dir="auto">b</li></ul></li></ol>'),
    ("Text:\n* a\nmore", '<p dir="auto">Text:</p><ul><li dir="auto">a<br>more</li></ul>'),
    ("<b>x</b> &amp; <!-- -->", '<p dir="auto">&lt;b&gt;x&lt;/b&gt; &amp;amp; &lt;!-- --&gt;</p>'),
    ("[a](javascript:alert(1)) [b](/c)", '<p dir="auto"><span>a (javascript:alert(1))</span> <span>b (/c)</span></p>'),
    ("[a](data:text/html,x) [ ](", '<p dir="auto"><span>a (data:text/html,x)</span> [ ](</p>'),
]  # fmt: skip


@pytest.fixture(scope="module")
def blank(server: Server, browser: Browser) -> Page:
    page = browser.open(server.url)
    page.until("isOpenYet")
    return page


def shown(page: Page, text: str) -> str:
    view = "const made = document.createElement('div'); new MarkdownView(made).show(text, false); return made.innerHTML"
    return str(page.evaluate(f"((text) => {{ {view} }})({json.dumps(text)})"))


@pytest.mark.parametrize(("text", "html"), MARKDOWN, ids=[text for text, _ in MARKDOWN])
def test_markdown(blank: Page, text: str, html: str) -> None:
    assert shown(blank, text) == html


@pytest.mark.parametrize(
    ("text", "address", "words"),
    [
        ("see [the page](https://a.example/x_y_(z))", "https://a.example/x_y_(z)", "the page"),
        ("**https://a.example/b**.", "https://a.example/b", "https://a.example/b"),
        ("(see https://a.example/b_(c)).", "https://a.example/b_(c)", "https://a.example/b_(c)"),
        ("<mailto:me@a.example>", "mailto:me@a.example", "mailto:me@a.example"),
        ("[https://a.example](https://b.example 'title')", "https://b.example/", "https://a.example"),
        ("![picture](https://a.example/p.png)", "https://a.example/p.png", "picture"),
    ],
)
def test_links_lead_out_and_tell_nothing(blank: Page, text: str, address: str, words: str) -> None:
    html = shown(blank, text)
    (found,) = re.findall(r"<a ([^>]*)>(.*?)</a>", html)
    assert f'href="{address}"' in found[0] and 'rel="noopener noreferrer nofollow"' in found[0] and found[1] == words
    assert "<img" not in html


def test_tables_and_code(blank: Page) -> None:
    html = shown(blank, "| a | b\\|c |\n|:-:|--:|\n| **1** | 2 |\n| 3 |\n\n```py title\n  x = '<b>'\n```\n~~~\nopen")
    assert re.findall(r"<t[hd] dir=\"auto\" class=\"(\w+)\">(.*?)</t[hd]>", html) == [
        ("center", "a"), ("right", "b|c"), ("center", "<strong>1</strong>"), ("right", "2"),
        ("center", "3"), ("right", ""),
    ]  # fmt: skip
    assert re.findall(r"<span>(\w+)</span>", html) == ["py", "text"]
    assert re.findall(r"<code>(.*?)</code>", html) == ["  x = '&lt;b&gt;'", "open"]


@pytest.mark.parametrize(
    "text",
    ["*a " * 50_000, "[" * 100_000, "`a``b" * 30_000, "> " * 20_000, "**a _b ~~c [d](" * 10_000, "](" + " " * 100_000,
     "- " * 30_000, "https://a" + ")" * 100_000, "#" * 100_000, "|" * 50_000 + "\n" + "-|" * 25_000, "`" * 100_000,
     "\n".join(" " * n + "- x" for n in range(300)), "<https://" * 20_000, "- a\n\n  ```\n" * 5_000, "_*" * 50_000],
    ids=range(15),
)  # fmt: skip
def test_markdown_made_to_hang_does_not(blank: Page, text: str) -> None:
    assert shown(blank, text)


def test_streamed_text_keeps_its_elements(blank: Page) -> None:
    """What was shown already is not made anew with each token: it does not flicker, and a selection in it stays."""
    steps = [
        "# A",
        "# A\n\n- one **bo",
        "# A\n\n- one **bold** t\n```py\nx",
        "# A\n\n- one **bold** t\n```py\nx = 1\n```\n\nend",
    ]
    same = """(steps) => {
        const made = document.createElement('div'), view = new MarkdownView(made), seen = [];
        for (const step of steps) {
            view.show(step, true);
            seen.push([made.querySelector('h3'), made.querySelector('li'), made.querySelector('code')]);
        }
        const kept = seen[3].map((node, index) => seen.every((each) => each[index] === null || each[index] === node));
        view.show(steps[1], true);
        return [...kept, made.querySelector('strong').textContent];
    }"""
    assert blank.evaluate(f"({same})({json.dumps(steps)})") == [True, True, True, "bo"]


def test_what_a_model_writes_stays_text(opens: Opens, store: ChatStore) -> None:
    page = opens(width=360, height=740, scheme="dark")
    loop = {"finish_reason": "repetition", "repeated": HOSTILE, "repetitions": 4, "kept_pieces": 2}
    answered(page, HOSTILE, stream(HOSTILE, " again again", finish="length", thoughts=HOSTILE, edgellm=loop))
    for selector in (".user .text", ".answer .thought", ".answer .text"):
        assert page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent") == HOSTILE
    assert f"Stopped by the loop guard: \u201c{HOSTILE}\u201d came back 4 times." in text_of(page, ".answer .notice")
    assert page.evaluate("document.title").endswith("edgellm") and page.evaluate("document.images.length") == 0
    assert page.evaluate("document.scripts.length") == 1
    page.until("document.querySelector('#list .name')")
    assert page.evaluate("document.querySelector('#list b, #title b, #list img') === null")


def test_a_narrow_screen_needs_no_sideways_scroll(opens: Opens, store: ChatStore) -> None:
    page = opens(width=360, height=740)
    wide = f"```\n{'x' * 500}\n```\n\n| {' | '.join('column' * 3 for _ in range(9))} |\n|{'-|' * 9}\n\n{'y' * 500}"
    answered(page, "z" * 500, stream(wide, finish="length", thoughts="t" * 500))
    for panel in ("", "chats", "settings", "server"):
        if panel:
            page.click(f"#show-{panel}")
            assert page.evaluate(f"document.querySelector('#{panel}').checkVisibility()")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("log.scrollWidth <= log.clientWidth")
        controls = (
            "[...document.querySelectorAll('button, select, #title, #ask')].filter((each) => each.checkVisibility())"
        )
        assert page.evaluate(f"Math.max(...{controls}.map((each) => each.getBoundingClientRect().right))") <= 360


# -- what one can do with it


def test_thoughts_are_folded_and_copies_are_whole(opens: Opens, store: ChatStore) -> None:
    page = opens()
    answered(page, "Code?", stream("Here:\n```py\nx = 1\n```", thoughts="Let me think."))
    assert not page.evaluate("document.querySelector('.thoughts').open")
    assert text_of(page, ".thoughts") == "Thoughts"
    page.evaluate("window.copied = []; copyText = async (text) => { copied.push(text); }; 0")
    button(page, "Copy", ".code")
    button(page, "Copy", ".answer .tools")
    page.until("copied.length === 2")
    assert page.evaluate("copied") == ["x = 1", "Here:\n```py\nx = 1\n```"]
    page.until("document.querySelector('.answer .tools button').textContent === 'Copied'")


def test_regenerate_edit_and_continue(opens: Opens, store: ChatStore) -> None:
    page = opens()
    answered(page, "First?", stream("One."))
    answered(page, "Second?", stream("Two,", finish="length"))
    chat = store.latest().id
    assert "limit" in text_of(page, ".answer:last-child .notice")
    page.answer_instead(CHAT, stream(" and more."))
    button(page, "Continue")
    page.until("!answering && !chat.n_saving")
    assert [m.content for m in store.messages(chat)][3] == "Two, and more."
    assert page.posted[-1]["messages"][-1] == {"role": "assistant", "content": "Two,"}
    page.evaluate("document.querySelector('#seed').value = 5, 0")
    refused(page, 400, "no")
    button(page, "Regenerate")
    page.until("!document.querySelector('#trouble').hidden")
    assert (
        "Two, and more." in text_of(page, "#log") and [m.content for m in store.messages(chat)][3] == "Two, and more."
    )
    page.answer_instead(CHAT, stream("Another two."))
    button(page, "Regenerate")
    page.until("!answering && !chat.n_saving")
    assert [m.content for m in store.messages(chat)] == ["First?", "One.", "Second?", "Another two."]
    assert [asked["seed"] for asked in page.posted[-2:]] == [6, 7]
    button(page, "Edit", ".user:first-child")
    page.evaluate("document.querySelector('.edit textarea').value = 'Changed?', 0")
    refused(page, 400, "no")
    button(page, "Ask again")
    page.until("document.querySelector('.edit textarea')?.value === 'Changed?' && !answering")
    assert len(store.messages(chat)) == 4
    page.answer_instead(CHAT, stream("Fine."))
    button(page, "Ask again")
    page.until("!answering && !chat.n_saving && chat.messages.length === 2")
    assert [m.content for m in store.messages(chat)] == ["Changed?", "Fine."]


def test_settings_go_along_and_last(opens: Opens, store: ChatStore) -> None:
    page = opens()
    assert page.evaluate("document.querySelector('#temperature').placeholder") == "0.2"
    page.click("#show-settings")
    fields = {"temperature": "0.7", "top_p": "0.5", "top_k": "7", "min_p": "0.1", "max_tokens": "9", "seed": "3"}
    for name, value in fields.items():
        page.type(f"#{name}", value)
    page.type("#stop-texts", "END\n\\n\\n")
    page.type("#system", "Be a pirate.")
    answered(page, "Hello?", stream("Arr."))
    sent = page.posted[-1]
    assert {name: sent[name] for name in fields} == {name: float(value) for name, value in fields.items()}
    assert sent["stop"] == ["END", "\n\n"] and sent["messages"][0] == {"role": "system", "content": "Be a pirate."}
    assert store.latest().system == "Be a pirate."
    page.reload()
    page.until("isOpenYet && document.querySelector('.answer')")
    assert value_of(page, "#top_k") == "7" and value_of(page, "#system") == "Be a pirate."
    page.evaluate("document.querySelector('#temperature').value = 99, 0")
    ask(page, "Again?")
    page.until("!document.querySelector('#trouble').hidden")
    assert text_of(page, ".error").startswith("Temperature: ") and value_of(page, "#question") == "Again?"
    button(page, "Leave all to the model")
    assert page.evaluate("[temperature, top_k, system].every((field) => field.value === '')")


def test_chats_are_shared_with_the_terminal(opens: Opens, store: ChatStore) -> None:
    mine = store.create("smollm2", None)
    store.add(mine, "user", "From the terminal?")
    store.add(mine, "assistant", "Yes, from **there**.", "stop")
    page = opens()
    page.until("document.querySelectorAll('#list a').length === 1")
    page.click("#list a")
    page.until("document.querySelector('.answer strong')?.innerText === 'there'")
    answered(page, "And from here?", stream("Yes."))
    assert [m["content"] for m in page.posted[-1]["messages"]] == [
        "From the terminal?", "Yes, from **there**.", "And from here?",
    ]  # fmt: skip
    terminal = ChatRecord.resume(store, store.get(mine))
    assert [entry.content for entry in terminal.entries][2:] == ["And from here?", "Yes."]
    # The terminal goes on; the page shows it when one comes back to it.
    terminal.add("user", "Back again")
    terminal.add("assistant", "Welcome.", "stop")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.until("document.querySelectorAll('.answer').length === 3")
    page.evaluate("log.style.maxHeight = '90px'; log.scrollTop = 0")
    terminal.add("user", "And again")
    terminal.add("assistant", "Welcome again.", "stop")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.until("document.querySelectorAll('.answer').length === 4")
    assert page.evaluate("log.scrollTop") == 0
    # Both go on at once: nothing is lost.
    terminal.add("user", "Quick one")
    answered(page, "Quicker", stream("Tie."))
    page.until("document.querySelector('#trouble').innerText.includes('changed elsewhere')")
    assert [m.content for m in store.messages(mine)][-1] == "Quick one" and len(store.messages(mine)) == 9
    other = store.latest().id
    assert other != mine and [m.content for m in store.messages(other)][-2:] == ["Quicker", "Tie."]
    page.reload()
    page.until("isOpenYet && document.querySelectorAll('.answer').length === 5")


def test_chats_are_renamed_found_exported_and_deleted(opens: Opens, store: ChatStore, tmp_path: Path) -> None:
    page = opens()
    answered(page, "Why is the *sky* blue?", stream("Because of **Rayleigh**."))
    page.click("#new")
    answered(page, "Another", stream("Answer"))
    page.evaluate("document.querySelector('#menu').open = true, 0")
    button(page, "Rename")
    page.evaluate("document.querySelector('#top input').value = '', 0")
    page.type("#top input", "שלום About things")
    page.press_enter()
    page.until("document.querySelector('#title').innerText.includes('About things')")
    page.until("document.querySelector('#list').innerText.includes('About things')")
    page.type("#search", "rayleigh")
    page.until("document.querySelectorAll('#list a').length === 1")
    page.click("#list a")
    page.until("document.querySelector('.answer strong')")
    chat = next(each for each in store.chats() if "sky" in each.title)
    assert page.evaluate("asMarkdown(chat)") == markdown("smollm2", messages_of(store, chat))
    assert page.evaluate("asJson(chat)") == document("smollm2", messages_of(store, chat))
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.evaluate("document.querySelector('#menu').open = true, 0")
    button(page, "Export as JSON")
    end = time.monotonic() + 30
    while not (tmp_path / "why-is-the-sky-blue.json").exists():
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.05)
    page.evaluate("document.querySelector('#menu').open = true, 0")
    button(page, "Delete")
    assert len(store.chats()) == 2
    button(page, "Really delete?")
    page.until("chat.id === null && document.querySelectorAll('.message').length === 0")
    page.until("document.querySelector('#list').innerText === 'Nothing found.'")
    assert [each.title for each in store.chats()] == ["שלום About things"]


def test_a_chat_that_is_not_to_be_saved(opens: Opens, store: ChatStore) -> None:
    page = opens()
    page.click("#show-settings")
    page.click("#save")
    answered(page, "A secret", stream("Kept."))
    assert store.chats() == [] and page.evaluate("location.hash") == ""
    assert "A secret" not in page.evaluate("JSON.stringify({...localStorage})")


def test_keys(opens: Opens, store: ChatStore) -> None:
    page = opens()
    page.type("#question", "one")
    page.press_enter(shift=True)
    page.type("#question", "two")
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true})"
    assert page.evaluate(f"document.querySelector('#question').dispatchEvent({composing})")
    assert value_of(page, "#question") == "one\ntwo" and not page.evaluate("answering")
    answered(page, "", stream("Both."))
    assert text_of(page, ".user .text") == "one\ntwo"
    page.click("#show-settings")
    page.press_escape()
    assert not page.evaluate("document.querySelector('#settings').checkVisibility()")


def test_everything_has_a_name_and_answers_are_announced_once(opens: Opens, store: ChatStore) -> None:
    page = opens()
    page.click("#show-settings")
    answered(page, "Hello?", stream("Good ", "day."))
    controls = ("button", "textbox", "combobox", "spinbutton", "checkbox", "searchbox", "link", "DisclosureTriangle")
    unnamed = [(role, name) for role, name in page.accessible_names() if role in controls and not name.strip()]
    assert unnamed == []
    assert page.evaluate("document.querySelector('#announcer').ariaLive") == "polite"
    assert text_of(page, "#announcer") == "Good day."
    assert page.evaluate("document.querySelectorAll('[aria-live]').length") == 1


CONTRAST = """(() => {
    const style = getComputedStyle(document.documentElement);
    const light = (name) => {
        const bytes = style.getPropertyValue(name).trim().slice(1).match(/../g);
        const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = bytes.map((two) => linear(parseInt(two, 16) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const on = (backs, texts) => backs.flatMap((back) => texts.map((text) => [text, back]));
    const pairs = [
        ...on(['--accent'], ['--on-accent']), ...on(['--back', '--card', '--mine', '--code'], ['--text', '--soft']),
        ...on(['--back', '--card'], ['--accent', '--warn', '--bad'])];
    const ratios = pairs.map((pair) => pair.map(light)).map((both) => Math.max(...both) / Math.min(...both));
    return Math.min(...ratios);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opens: Opens, scheme: str) -> None:
    assert opens(scheme=scheme).evaluate(CONTRAST) >= 4.5


def test_a_chat_of_a_thousand_messages(opens: Opens, store: ChatStore) -> None:
    with store.transaction():
        chat = store.create("smollm2", None)
        for n in range(500):
            store.add(chat, "user", f"Question {n}?")
            store.add(chat, "assistant", f"**Answer** {n}.\n\n```py\nx = {n}\n```", "stop")
    page = opens(f"#{chat}")
    page.until("chat.messages.length === 1000")
    assert page.evaluate("document.querySelectorAll('.message').length") < 100
    page.until("atBottom()")
    assert "Answer 499." in text_of(page, ".message:last-child")
    first = page.evaluate("document.querySelector('.message').innerText")
    button(page, "Show earlier messages")
    assert page.evaluate("document.querySelectorAll('.message').length") > 200
    assert first in text_of(page, "#log")
    answered(page, "One more?", stream("Yes."))
    assert len(store.messages(chat)) == 1002
