"""The saved chats over HTTP, for the page: the same ones that `edgellm chat` writes and `edgellm chats` lists.

GET    /chats?search=WORDS&limit=N     the chats, the latest first
POST   /chats                          begin one
GET    /chats/ID                       one with its messages; DELETE removes it, PATCH renames it or changes its model
POST   /chats/ID/messages              put messages in the place of its last ones

The guards check Host, Origin and key first. These routes are stricter: chats are for the server's own page, so every
other origin is refused, other ports of this machine and `--allowed-origin` included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.chats.store import ChatStore, NewMessage, SavedChat
from edgellm.errors import ChatNotFound, CorruptFile, DiskFull, FileAccessError
from edgellm.run.events import FinishReason, ToolSource
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.origins import is_forwarded, is_own_page
from edgellm.serve.http.problems import Problem
from edgellm.serve.service import service_of
from edgellm.tools.record import MOST_KEPT, CallRecord
from edgellm.wire.body import Body, parse
from edgellm.wire.fields import Count, Name, Text

MOST_LISTED, USUALLY_LISTED = 10_000, 200

log = logging.getLogger("edgellm.serve")
Result = TypeVar("Result")


class SourceRow(Body):
    """Where a part of a tool's result comes from."""

    title: Text
    place: Text


class CallRow(Body):
    """A tool that was called for an answer, with what it returned; as `CallRecord`."""

    name: Name
    arguments: dict[str, Any]
    text: Text
    error: bool = False
    sources: list[SourceRow] = Field(default_factory=list, max_length=100)
    notes: list[Text] = Field(default_factory=list, max_length=100)
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def record(self) -> CallRecord:
        """It as the store takes it."""
        sources = tuple(ToolSource(each.title, each.place) for each in self.sources)
        return CallRecord(
            self.name, self.arguments, self.text[:MOST_KEPT], self.error, sources, tuple(self.notes), self.seconds
        )


class ChatRow(Body):
    """A message to save; `hidden` ones are kept for people, and the model does not see them."""

    role: Literal["user", "assistant"]
    content: Text
    finish_reason: FinishReason | Literal[""] = ""
    hidden: bool = False
    calls: list[CallRow] = Field(default_factory=list, max_length=64)

    @property
    def message(self) -> NewMessage:
        """It as the store takes it."""
        calls = tuple(each.record for each in self.calls)
        return NewMessage(self.role, self.content, self.finish_reason, int(self.hidden), calls)


Rows = Annotated[list[ChatRow], Field(min_length=1, max_length=10_000)]


class NewChat(Body):
    """POST /chats."""

    model: Name
    system: Text | None = None
    title: Annotated[str, Field(max_length=200)] | None = None
    messages: Rows


class NewMessages(Body):
    """POST /chats/ID/messages: replace what comes after `after`, if the chat still ends with `last`; null: nothing."""

    last: Count | None = None
    after: Count | None = None
    messages: Rows


class ChatChange(Body):
    """PATCH /chats/ID. `model` comes with its `system` message; messages up to `hidden_through` are hidden."""

    title: Annotated[str, Field(max_length=200)] | None = None
    model: Name | None = None
    system: Text | None = None
    hidden_through: Count | None = None


def are_open(request: Request) -> bool:
    """Whether the server shares the saved chats with whoever sent this request."""
    service = service_of(request)
    return service.chats is not None and not (service.options.chats is None and is_forwarded(request.headers))


async def list_chats(request: Request) -> Response:
    """GET /chats: the saved chats, the latest first, or those that contain all words of `search`."""
    words, limit = request.query_params.get("search", ""), _limit(request)

    def work(store: ChatStore) -> list[dict[str, Any]]:
        if words.strip():
            return _found(store, words, limit)
        return [asdict(chat) for chat in store.chats(limit)]

    return _json({"chats": await _with_store(request, work)})


@takes(NewChat)
async def begin_chat(request: Request) -> Response:
    """POST /chats: begin a chat; `ids` are those of its messages."""
    asked = parse(NewChat, await request.body())

    def work(store: ChatStore) -> dict[str, Any]:
        with store.transaction():
            chat = store.create(asked.model, asked.system)
            ids = store.splice(chat, None, None, [row.message for row in asked.messages])
            store.rename(chat, asked.title or "")
        return {**asdict(store.get(chat)), "ids": ids}

    return _json(await _with_store(request, work))


async def show_chat(request: Request) -> Response:
    """GET /chats/ID: a chat with its messages."""

    def work(store: ChatStore) -> dict[str, Any]:
        chat = _chat(store, request)
        return {**asdict(chat), "messages": [asdict(message) for message in store.messages(chat.id)]}

    return _json(await _with_store(request, work))


@takes(ChatChange)
async def change_chat(request: Request) -> Response:
    """PATCH /chats/ID: rename it, note another model, or hide its oldest messages from the model."""
    asked = parse(ChatChange, await request.body())

    def work(store: ChatStore) -> dict[str, Any]:
        chat = _chat(store, request).id
        if asked.hidden_through is not None:
            store.hide(chat, asked.hidden_through)
        if asked.model is not None:
            store.set_model(chat, asked.model, asked.system)
        if asked.title is not None:
            store.rename(chat, asked.title)
        return asdict(store.get(chat))

    return _json(await _with_store(request, work))


async def remove_chat(request: Request) -> Response:
    """DELETE /chats/ID: remove a chat for good."""

    def work(store: ChatStore) -> dict[str, Any]:
        chat = _chat(store, request)
        store.remove([chat.id])
        return {"id": chat.id}

    return _json(await _with_store(request, work))


@takes(NewMessages)
async def add_messages(request: Request) -> Response:
    """POST /chats/ID/messages: add messages, or replace the last ones; 409 if another writer came first."""
    asked = parse(NewMessages, await request.body())

    def work(store: ChatStore) -> dict[str, Any]:
        chat = _chat(store, request).id
        ids = store.splice(chat, asked.last, asked.after, [row.message for row in asked.messages])
        return {**asdict(store.get(chat)), "ids": ids}

    return _json(await _with_store(request, work))


ROUTES = [
    Route("/chats", list_chats, methods=["GET"]),
    Route("/chats", begin_chat, methods=["POST"]),
    Route("/chats/{id}", show_chat, methods=["GET"]),
    Route("/chats/{id}", change_chat, methods=["PATCH"]),
    Route("/chats/{id}", remove_chat, methods=["DELETE"]),
    Route("/chats/{id}/messages", add_messages, methods=["POST"]),
]


async def _with_store(request: Request, work: Callable[[ChatStore], Result]) -> Result:
    """Do the work in a thread, with the store open; SQLite's connections belong to one thread.

    Raises:
        Problem: this request may not see chats, or their file cannot be used.
    """
    path = service_of(request).chats
    if not are_open(request) or path is None:
        raise Problem(403, "this server keeps no chats; edgellm serve --chats shares them", code="chats-closed")
    if not is_own_page(request.headers):
        raise Problem(403, "only the server's own page may use the chats", code="bad-origin")

    def do() -> Result:
        with ChatStore.open(path) as store:
            return work(store)

    try:
        return await asyncio.to_thread(do)
    except (CorruptFile, DiskFull, FileAccessError) as error:
        log.error("the saved chats: %s", error)
        raise Problem(500, f"the saved chats cannot be used: {error.why or error.code}", code=error.code) from error


def _chat(store: ChatStore, request: Request) -> SavedChat:
    """The chat whose whole id is in the path."""
    name = request.path_params["id"]
    chat = store.get(name)
    if chat.id != name:
        raise ChatNotFound(f"there is no chat {name[:60]!r}", hint="edgellm chats ls", id=name)
    return chat


def _found(store: ChatStore, words: str, limit: int) -> list[dict[str, Any]]:
    """The chats with a message that contains all words, each with an excerpt, and those whose title does."""
    excerpts: dict[str, str] = {}
    for found in store.search(words, limit):
        excerpts.setdefault(found.chat, found.excerpt)
    wanted = words.lower().split()
    return [
        {**asdict(chat), "excerpt": excerpts.get(chat.id, "")}
        for chat in store.chats()
        if chat.id in excerpts or all(word in chat.title.lower() for word in wanted)
    ][:limit]


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", "")
    is_number = given.isascii() and given.isdecimal() and len(given) < 10
    return min(max(1, int(given)), MOST_LISTED) if is_number else USUALLY_LISTED


def _json(data: Any) -> Response:
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
    return JSONResponse(data, headers=headers)
