"""Documents on the page: files are dropped, read, asked, and what an answer cites is shown marked in its passage."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.documents import files
from tests.serve.browser import Page
from tests.serve.page import CHAT, Opens, answered, ask, button, stream, text_of
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
STORES = "/v1/vector_stores"
WARRANTY = "The warranty of the QF-240 furnace is 24 months from the date of delivery."
MANUAL = files.pdf(["Installation\nTighten all screws.", f"Warranty\n{WARRANTY}", "Cleaning\nUse a soft cloth."])
HOSTILE = "<img src=x onerror=document.title=1>"
DROP = """(() => {
    const transfer = new DataTransfer();
    for (const [name, data] of %s) {
        transfer.items.add(new File([Uint8Array.from(atob(data), (each) => each.charCodeAt(0))], name));
    }
    for (const kind of ["dragover", "drop"]) {
        const event = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer});
        document.querySelector("#log").dispatchEvent(event);
    }
})()"""
IS_MARK_SEEN = """(() => {
    const mark = document.querySelector("mark").getBoundingClientRect();
    return mark.height > 0 && mark.top >= 0 && mark.bottom <= innerHeight && mark.right <= innerWidth;
})()"""


@pytest.fixture(autouse=True)
def no_documents(server: Server) -> Iterator[None]:
    """The shared server has no collections and files before and after, whatever other tests leave there."""
    empty(server)
    yield
    empty(server)


def empty(server: Server) -> None:
    for path in (STORES, "/v1/files"):
        while listed := server.get(path).json()["data"]:
            for each in listed:
                assert server.request("DELETE", f"{path}/{each['id']}?files=delete").status == 200


def drop(page: Page, given: dict[str, bytes]) -> None:
    coded = [(name, base64.b64encode(data).decode()) for name, data in given.items()]
    page.evaluate(DROP % json.dumps(coded))


def read(page: Page, n_files: int) -> None:
    """Wait until so many files have been read, or cannot be."""
    over = f"files.length === {n_files} && files.every((each) => each.status !== 'in_progress')"
    page.until(f"{over} && !uploads.length && document.querySelector('#documents-progress').hidden", 120)


def said(page: Page, body: bytes) -> None:
    """An answer from documents that the server did not give."""
    page.click("#save")
    answered(page, "Why?", body)


def checked(**more: Any) -> dict[str, Any]:
    """What the server says of an answer from documents."""
    empty = {"citations": [], "sentences": [], "unknown_numbers": [], "nearest": []}
    return {"edgellm": {"documents": {"vector_store_id": "vs_1", "refused": False, "reason": "", **empty, **more}}}


def test_a_dropped_pdf_is_read_asked_and_cited(server: Server, opens: Opens) -> None:
    page = opens()
    page.click("#save")
    drop(page, {"manual.pdf": MANUAL})
    read(page, 1)
    assert "3 pages" in text_of(page, "#files-list") and "by meaning (minilm)" in text_of(page, "#documents-about")
    assert "manual.pdf: 3 pages" in text_of(page, "#announcer")
    # Who knows nothing of documents sees no more models than before.
    assert [each["id"] for each in server.get("/v1/models").json()["data"]] == ["smollm2", "bert"]

    ask(page, "How long is the warranty of the QF-240?")
    page.until("!answering && chat.messages[1]?.documents && document.querySelector('.source')", 120)
    assert "smollm2@manual" in text_of(page, ".answer .meta") and "Sources:" not in text_of(page, ".answer .text")
    assert text_of(page, ".source").startswith("manual.pdf, page 2")
    page.evaluate("document.querySelector('.answer .cite').focus()")
    page.press_enter()
    page.until("document.querySelector('mark')")
    assert text_of(page, "mark") in WARRANTY and text_of(page, "mark") == text_of(page, ".sources .quote")
    assert page.evaluate(IS_MARK_SEEN) and text_of(page, "#passage-place").startswith("page 2")
    assert page.evaluate("document.activeElement.id") == "close-passage"
    page.press_escape()
    assert page.evaluate("!isPassageOpen() && document.activeElement.className") == "cite"

    assert page.problems == []
    page.click("#show-documents")
    assert button(page, "Delete this collection") == "Really delete it and its files?"
    button(page, "Really delete")
    page.until("!stores.length && document.querySelector('#collection').value === ''")
    assert server.get(STORES).json()["data"] == [] and server.get("/v1/files").json()["data"] == []


def test_files_that_cannot_be_read_say_why_and_can_be_removed(server: Server, opens: Opens) -> None:
    page = opens(width=360, height=700)
    page.click("#show-documents")
    page.type("#collection-name", f"{HOSTILE} prices")
    page.press_enter()
    page.until("chosenStore() && document.querySelector('#collection-name').value === ''")
    drop(page, {f"{HOSTILE}.md": f"# {HOSTILE}\n\nSilver costs 12 EUR.".encode(), "broken.pdf": b"%PDF-1.7 no"})
    read(page, 2)
    (failed,) = page.evaluate("files.filter((each) => each.status === 'failed')")
    reason = failed["last_error"]["message"]
    assert reason and f"could not be read: {reason}" in text_of(page, "#files-list .failed")
    assert HOSTILE in text_of(page, "#files-list") and HOSTILE in text_of(page, "#documents-title")
    assert page.evaluate("document.title") == "edgellm" and page.evaluate("document.images.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for label in ("Remove", "Really remove?"):
        button(page, label, ".failed")
    page.until("files.length === 1 && !document.querySelector('.failed')")
    assert [each["filename"] for each in server.get("/v1/files").json()["data"]] == [f"{HOSTILE}.md"]
    drop(page, {"empty.txt": b""})
    page.until("document.querySelector('.failed')")
    assert "empty.txt" in text_of(page, ".failed") and "the file is empty" in text_of(page, ".failed")
    button(page, "Forget", ".failed")
    assert not page.evaluate("document.querySelector('.failed')")


def test_what_is_not_confirmed_is_said(opens: Opens) -> None:
    page = opens()
    sentences = [{"text": HOSTILE, "citation": None}]
    said(
        page,
        stream(HOSTILE, "\n\nSources:\nNot in the documents", **checked(sentences=sentences, unknown_numbers=["17"])),
    )
    answer = text_of(page, ".answer")
    assert f"Not in the documents: {HOSTILE}" in answer and "stand nowhere in the passages: 17" in answer
    assert "Sources" not in answer and not page.evaluate("document.querySelector('.go-on').checkVisibility()")


def test_a_refusal_names_the_nearest_passages(opens: Opens) -> None:
    page = opens()
    place = {"page": 3, "heading": HOSTILE}
    nearest = [{"file_id": "file-1", "filename": HOSTILE, "score": 0.1, "attributes": place, "text": "A cloth."}]
    refusal = checked(refused=True, reason="nothing bears it", nearest=nearest)
    said(page, stream("It is 17 months.", "\n\n[not confirmed: nothing bears it]", **refusal))
    assert text_of(page, ".answer .text") == "It is 17 months."
    assert "Not confirmed: nothing bears it." in text_of(page, ".checked")
    assert text_of(page, ".source") == f"{HOSTILE}, page 3, {HOSTILE}" and text_of(page, ".quote") == "A cloth."
    nowhere = checked(refused=True, reason="QF-9: nowhere", nearest=nearest)
    answered(
        page, "And QF-9?", stream("Not found in these documents. (QF-9: nowhere)\n\nNearest passages:\n- A", **nowhere)
    )
    found = "#log > :last-child"
    assert text_of(page, f"{found} .text") == "Not found in these documents. (QF-9: nowhere)"
    assert "confirmed" not in text_of(page, found) and page.evaluate("document.querySelectorAll('.source').length") == 2
    page.click(".source")  # the collection has gone
    page.until("document.querySelector('#passage-text .error')")
    assert "there is no vector store" in text_of(page, "#passage-text")
    assert page.evaluate("document.images.length") == 0


def test_numbers_of_citations_stand_where_sentences_end(opens: Opens) -> None:
    page = opens()
    text = "**Bold** \U0001f600 is. [3]\ue0001\ue001 Cold `a` is."
    cited = {"file_id": "file-1", "filename": "a.md", "page": None, "heading": "", "quote": "Q"}
    citations = [
        {**cited, "number": 1, "lines": [4, 4], "index": text.index("is.") + 3},
        {**cited, "number": 2, "lines": [5, 9], "index": len(text)},
    ]
    said(page, stream(f"{text}\n\nSources:\n[1] a.md", **checked(citations=citations)))
    spoken = "[...document.querySelector('.answer .text').querySelectorAll('.cite')]"
    assert page.evaluate(f"{spoken}.map((each) => each.previousSibling.textContent)") == [" \U0001f600 is.", " is."]
    assert page.evaluate(f"{spoken}.map((each) => each.ariaLabel)") == [
        "Source 1: a.md, line 4", "Source 2: a.md, lines 5\u20139",
    ]  # fmt: skip
    assert "[3]" not in text_of(page, ".answer .text")


def test_every_control_has_a_name_and_the_links_come_back_with_the_chat(opens: Opens) -> None:
    page = opens()
    cited = {"file_id": "file-1", "filename": "a.md", "page": 1, "lines": None, "heading": "", "quote": "Q", "index": 3}
    answered(page, "Why?", stream("So.", "\n\nSources:\n[1] a.md", **checked(citations=[{**cited, "number": 1}])))
    page.answer_itself()
    page.reload()
    page.until("isOpenYet && document.querySelector('.source')")
    assert text_of(page, ".answer .text") == "So.1"
    page.click("#show-documents")
    page.until("isDocumentsShown()")
    page.click(".cite")
    page.until("isPassageOpen()")
    controls = ("button", "textbox", "combobox", "link", "progressbar", "complementary")
    assert [(role, name) for role, name in page.accessible_names() if role in controls and not name.strip()] == []


def test_without_docs_only_this_machine_and_the_page_use_documents(server: Server) -> None:
    for headers in (
        {"Origin": "http://127.0.0.1:1"},
        {"X-Forwarded-For": "192.0.2.1"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        refused = server.get(STORES, headers=headers)
        assert refused.status == 403 and refused.json()["error"]["code"] == "documents-closed"
        asked = {"model": "smollm2@manual", "messages": [{"role": "user", "content": "Hi"}]}
        assert server.post(CHAT, asked, headers=headers).json()["error"]["code"] == "model_not_found"
        assert server.get("/page.json", headers=headers).json()["max_upload"] is None
    assert server.get(STORES, headers={"Origin": server.url}).status == 200
    assert server.get("/page.json").json()["max_upload"] == 512 << 20
