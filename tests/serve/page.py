"""What tests do with the page: ask, click, read, and streamed answers to put in the place of real ones.

ask(page, "How long is the warranty?")
page.until("!answering")
text_of(page, ".answer .text")
"""

import json
from collections.abc import Callable
from typing import Any

from tests.serve.browser import Page

CHAT = "/v1/chat/completions"
Opens = Callable[..., Page]


def stream(*texts: str, finish: str = "stop", thoughts: str = "", **more: Any) -> bytes:
    """A streamed answer."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"reasoning_content": thoughts}] if thoughts else []
    deltas += [{"content": text} for text in texts]
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    counts = {"usage": {"completion_tokens": len(texts), "total_tokens": 20 + len(texts)}}
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}], **counts, **more})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def refused(page: Page, status: int, message: str, **facts: Any) -> None:
    """From now on the server refuses to answer."""
    body = json.dumps({"error": {"message": message, **facts}}).encode()
    page.answer_instead(CHAT, body, status=status, media_type="application/json")


def ask(page: Page, question: str) -> None:
    page.type("#question", question)
    page.press_enter()


def answered(page: Page, question: str, body: bytes) -> None:
    """Ask, and get this answer; returns when it is saved."""
    page.answer_instead(CHAT, body)
    ask(page, question)
    page.until("!answering && chat.messages.length && !chat.n_saving")


def text_of(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))


def value_of(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).value"))


def button(page: Page, label: str, within: str = "body") -> str:
    """Click a button by what stands on it."""
    found = f"[...document.querySelectorAll({json.dumps(f'{within} button')})].filter((each) => each.checkVisibility())"
    page.until(f"{found}.some((each) => each.textContent.startsWith({json.dumps(label)}))")
    click = f"{found}.findLast((each) => each.textContent.startsWith({json.dumps(label)}))"
    return str(page.evaluate(f"(() => {{ const found = {click}; found.click(); return found.textContent; }})()"))
