"""The saved chats over HTTP: the same rows as the terminal's, nobody else's to read, and no writer loses any."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgellm.chats.record import ChatRecord
from edgellm.chats.store import ChatStore
from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.app import application
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.scoring.pool import ScoringPool
from edgellm.serve.service import Service
from edgellm.serve.workers.catalog import Catalog
from edgellm.serve.workers.pool import Pool
from tests.serve.fake_worker import FakeModel

URL = "http://127.0.0.1:11435"
QUESTION = {"role": "user", "content": "Why does the blast furnace get hot?"}
ANSWER = {"role": "assistant", "content": "Because of the coke.", "finish_reason": "stop"}


class House:
    """A server with a file of chats, without a port."""

    def __init__(self, directory: Path, options: ServeOptions, *, path: Path | None = None) -> None:
        self.path = path or directory / "chats.sqlite3"
        pool = Pool(Catalog([FakeModel(directory).model()]), options, None, n_threads=1)  # type: ignore[arg-type]
        scoring = ScoringPool(pool, options, directory, n_threads=1)
        chats = self.path if options.shares_chats else None
        trial = GrammarTrial(None)  # type: ignore[arg-type]  # nothing is asked of a model
        self.app = application(Service(options, pool, scoring, trial, Metrics(), chats))

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=URL) as client:
            return await client.request(method, path, json=body, headers=names)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return asyncio.run(self.send(method, path, body, **headers))

    def begin(self, *messages: dict[str, Any]) -> Any:
        reply = self.ask("POST", "/chats", {"model": "fake", "messages": list(messages or (QUESTION, ANSWER))})
        assert reply.status_code == 200, reply.text
        return reply.json()

    @property
    def store(self) -> ChatStore:
        return ChatStore.open(self.path)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, ServeOptions())


@pytest.fixture
def store(house: House) -> Iterator[ChatStore]:
    """The file as a terminal has it open."""
    with house.store as store:
        yield store


def test_the_page_and_the_terminal_go_on_with_the_same_chat(house: House, store: ChatStore) -> None:
    begun = house.begin()
    chat, ids = begun["id"], begun["ids"]
    terminal = ChatRecord.resume(store, store.get(chat))
    assert [entry.content for entry in terminal.entries] == [QUESTION["content"], ANSWER["content"]]
    terminal.add("user", "And then?")
    terminal.add("assistant", "It melts.", "interrupted")
    shown = house.ask("GET", f"/chats/{chat}").json()
    assert shown["title"] == QUESTION["content"] and shown["model"] == "fake" and shown["n_messages"] == 4
    assert [(m["role"], m["finish_reason"]) for m in shown["messages"]][2:] == [
        ("user", ""),
        ("assistant", "interrupted"),
    ]
    # The page edits the second question.
    content = {
        "last": shown["messages"][-1]["id"],
        "after": ids[-1],
        "messages": [{"role": "user", "content": "How hot?"}],
    }
    assert house.ask("POST", f"/chats/{chat}/messages", content).status_code == 200
    assert [message.content for message in store.messages(chat)][1:] == [ANSWER["content"], "How hot?"]


def test_chats_are_listed_found_renamed_and_removed(house: House, store: ChatStore) -> None:
    first, second = house.begin()["id"], house.begin({"role": "user", "content": "高炉炉温突然升高"})["id"]
    assert {chat["id"] for chat in house.ask("GET", "/chats").json()["chats"]} == {first, second}
    assert len(house.ask("GET", "/chats?limit=1").json()["chats"]) == 1
    (found,) = house.ask("GET", "/chats?search=COKE").json()["chats"]
    assert found["id"] == first and "coke" in found["excerpt"]
    assert house.ask("PATCH", f"/chats/{second}", {"title": "About iron"}).json()["title"] == "About iron"
    assert store.get(second).title == "About iron"
    (found,) = house.ask("GET", "/chats?search=iron").json()["chats"]
    assert found["id"] == second
    assert house.ask("PATCH", f"/chats/{second}", {"title": ""}).json()["title"] == "高炉炉温突然升高"
    assert house.ask("DELETE", f"/chats/{first}").json() == {"id": first}
    assert [chat.id for chat in store.chats()] == [second]
    files = b"".join(file.read_bytes() for file in house.path.parent.glob("chats*"))
    assert b"coke" not in files


def test_a_change_of_the_model_and_hidden_messages_reach_the_terminal(house: House, store: ChatStore) -> None:
    begun = house.begin(QUESTION, ANSWER, {"role": "user", "content": "And then?"})
    chat = begun["id"]
    assert house.ask("PATCH", f"/chats/{chat}", {"model": "other", "system": "Be brief."}).status_code == 200
    assert house.ask("PATCH", f"/chats/{chat}", {"hidden_through": begun["ids"][1]}).status_code == 200
    record = ChatRecord.resume(store, store.get(chat))
    assert (record.model, record.system) == ("other", "Be brief.")
    assert [entry.content for entry in record.entries] == ["And then?"]
    assert len(store.messages(chat)) == 3
    assert house.ask("PATCH", f"/chats/{chat}", {"model": "other"}).json()["system"] is None
    hidden = {**QUESTION, "hidden": True}
    assert [m["hidden"] for m in house.ask("GET", f"/chats/{house.begin(hidden)['id']}").json()["messages"]] == [1]


def test_who_comes_second_changes_nothing(house: House, store: ChatStore) -> None:
    begun = house.begin()
    chat, last = begun["id"], begun["ids"][-1]
    store.add(chat, "user", "from the terminal")
    for after in (last, None):
        content = {"last": last, "after": after, "messages": [{"role": "user", "content": "from the page"}]}
        reply = house.ask("POST", f"/chats/{chat}/messages", content)
        assert reply.status_code == 409 and reply.json()["error"]["code"] == "chat-changed"
    assert [message.content for message in store.messages(chat)][2:] == ["from the terminal"]


def test_of_many_writers_at_once_one_is_first(house: House, store: ChatStore) -> None:
    begun = house.begin()
    chat, last = begun["id"], begun["ids"][-1]

    async def at_once() -> list[int]:
        rows = [{"role": "user", "content": f"question {n}"} for n in range(6)]
        sent = [
            house.send("POST", f"/chats/{chat}/messages", {"last": last, "after": last, "messages": [row]})
            for row in rows
        ]
        return [reply.status_code for reply in await asyncio.gather(*sent)]

    assert sorted(asyncio.run(at_once())) == [200, *[409] * 5]
    assert len(store.messages(chat)) == 3


OTHERS = [
    {"origin": "http://127.0.0.1:3000"}, {"origin": "https://chat.example"}, {"origin": "null"},
    {"origin": "http://127.0.0.1:11435.evil.example"}, {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"}, {"x_forwarded_for": "203.0.113.9"}, {"forwarded": "for=203.0.113.9"},
    {"host": "evil.example"},
]  # fmt: skip


@pytest.mark.parametrize("headers", OTHERS, ids=lambda headers: next(iter(headers.items())))
def test_other_pages_and_other_people_read_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    house = House(tmp_path, ServeOptions(allowed_origins=frozenset({"https://chat.example"})))
    chat = house.begin()["id"]
    for method, path, body in (
        ("GET", "/chats", None), ("GET", f"/chats/{chat}", None), ("DELETE", f"/chats/{chat}", None),
        ("POST", "/chats", {"model": "m", "messages": [QUESTION]}),
    ):  # fmt: skip
        reply = house.ask(method, path, body, **headers)
        assert reply.status_code == 403 and "furnace" not in reply.text, (method, path)
    assert house.ask("GET", "/chats", origin=URL, sec_fetch_site="same-origin").status_code == 200
    assert len(house.store.chats()) == 1


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        (ServeOptions(), True), (ServeOptions(chats=False), False), (ServeOptions(host="::1"), True),
        (ServeOptions(host="0.0.0.0"), False), (ServeOptions(host="0.0.0.0", chats=True), True),
        (ServeOptions(api_keys=frozenset({"k"})), False), (ServeOptions(api_keys=frozenset({"k"}), chats=True), True),
        (ServeOptions(allowed_hosts=frozenset({"chat.example"})), False),
    ],
)  # fmt: skip
def test_chats_are_shared_where_only_their_owner_comes(tmp_path: Path, options: ServeOptions, shared: bool) -> None:
    house = House(tmp_path, options)
    key = {"authorization": "Bearer k"} if options.api_keys else {}
    assert house.ask("GET", "/page.json", **key).json()["chats"] is shared
    reply = house.ask("GET", "/chats", **key)
    assert reply.status_code == (200 if shared else 403)
    if not shared:
        assert reply.json()["error"]["code"] == "chats-closed" and not house.path.exists()
    if options.api_keys:
        assert house.ask("GET", "/chats").status_code == 401 and house.ask("GET", "/page.json").status_code == 401


def test_who_asks_for_shared_chats_gets_them_behind_a_proxy_too(tmp_path: Path) -> None:
    house = House(tmp_path, ServeOptions(chats=True))
    assert house.ask("GET", "/chats", x_forwarded_for="203.0.113.9").status_code == 200


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": [QUESTION]}, "model"), ({"model": "m", "messages": []}, "messages"),
    ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "role"),
    ({"model": "m", "messages": [{**QUESTION, "finish_reason": "bored"}]}, "finish_reason"),
    ({"model": "m", "messages": [{**QUESTION, "colour": 1}]}, "colour"),
    ({"model": "m", "title": "x" * 201, "messages": [QUESTION]}, "title"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[field for _, field in WRONG])
def test_a_wrong_field_is_named_and_nothing_is_written(house: House, body: dict[str, Any], field: str) -> None:
    reply = house.ask("POST", "/chats", body)
    assert reply.status_code == 400 and field in reply.json()["error"]["message"]
    assert not house.path.exists()


def test_an_id_is_a_whole_one(house: House, store: ChatStore) -> None:
    chat = house.begin()["id"]
    for name in (chat[:3], chat.upper() + "x", "%20", "x" * 5000, "%00", "..%2F.."):
        assert house.ask("DELETE", f"/chats/{name}").status_code == 404, name
        assert house.ask("POST", f"/chats/{name}/messages", {"messages": [QUESTION]}).status_code == 404
    assert len(store.chats()) == 1
    for query in ("limit=0", "limit=-1", "limit=x", f"limit={'9' * 5000}", "limit=²", "search=%FF%00"):
        assert house.ask("GET", f"/chats?{query}").status_code == 200, query


def test_a_damaged_file_is_reported_without_its_path(tmp_path: Path) -> None:
    house = House(tmp_path, ServeOptions())
    house.path.write_bytes(b"no database" * 1000)
    reply = house.ask("GET", "/chats")
    assert reply.status_code == 500 and reply.json()["error"]["code"] == "corrupt-file"
    assert str(tmp_path) not in reply.text


def test_text_comes_back_as_it_was(house: House) -> None:
    text = "a\x00b \U0001f600 \u202e <script> \r\n\t'\" " + "long " * 50_000
    chat = house.begin({"role": "user", "content": text})["id"]
    assert json.loads(house.ask("GET", f"/chats/{chat}").content)["messages"][0]["content"] == text
